"""The ids of runs that steps start: derived, so that a step that runs again finds its child."""

from __future__ import annotations

import hashlib

from ..records import Place, TaskId

MAX_RUN_ID = 200


def child_run_id(parent: str, uid: str, task: TaskId, attempt: int, place: Place, revivals: int) -> str:
    """Return the id of the k-th run of a workflow that an attempt starts.

    It begins with the parent's, as far as there is room. `revivals` tells children from those that were cancelled when
    the parent had ended before.
    """
    text = f"{uid}:{task.seq}:{task.step}:{attempt}:{place.name}:{place.k}:{revivals}"
    digest = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
    return f"{parent[: MAX_RUN_ID - len(digest) - 1]}.{digest}"
