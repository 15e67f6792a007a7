"""The form of run ids and checkpoint ids, and how new ids are made."""

from __future__ import annotations

import os
import re
import time
from uuid import UUID

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


def new_run_id() -> str:
    """Return a uuid7 as text, so that run ids sort by time. Source: RFC 9562, section 5.7."""
    millis = time.time_ns() // 1_000_000
    bits = int.from_bytes(os.urandom(10))
    value = (millis & (1 << 48) - 1) << 80 | bits
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(UUID(int=value))


def new_uid() -> str:
    """Return 128 random bits as hex: a worker's id, or the uid of a run, from which idempotency keys are derived."""
    return os.urandom(16).hex()


def id_of(run_id: str, seq: int) -> str:
    """Return the id of a checkpoint."""
    return f"{run_id}/{seq}"
