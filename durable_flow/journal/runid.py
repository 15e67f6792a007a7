"""The form of run ids."""

from __future__ import annotations

import re

from ..errors import RunIdError

_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}")


def require_run_id(run_id: object) -> str:
    """Return the run id if it may be one. Raises RunIdError."""
    if isinstance(run_id, str) and _FORM.fullmatch(run_id):
        return run_id
    raise RunIdError(
        f"{run_id!r:.250} is not a run id: 1 to 200 characters of letters, digits and . _ : @ - that begin with a "
        "letter or digit"
    )
