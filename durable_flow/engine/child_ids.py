"""The ids of runs that steps start: derived, so that a step that runs again finds its child."""

from __future__ import annotations

import hashlib

from ..records import Place, TaskId

MAX_RUN_ID = 200
_DIGEST_BYTES = 10


def child_run_id(parent: str, uid: str, task: TaskId, attempt: int, place: Place, revivals: int) -> str:
    """Return the id of the k-th run of a workflow that an attempt starts.

    It begins with the parent's, as far as there is room. `revivals` tells children from those that were cancelled when
    the parent had ended before.
    """
    text = f"{uid}:{task.seq}:{task.step}:{attempt}:{place.name}:{place.k}:{revivals}"
    digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{parent[: MAX_RUN_ID - len(digest) - 1]}.{digest}"


def parent_in(run_id: str) -> str | None:
    """Return what a child's run id begins with: its parent's, unless that was cut off; None if it is no child's."""
    parent, _, digest = run_id.rpartition(".")
    is_digest = len(digest) == 2 * _DIGEST_BYTES and not digest.strip("0123456789abcdef")
    return parent if parent and is_digest else None
