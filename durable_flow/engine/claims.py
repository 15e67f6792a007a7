"""Whether a run may be taken: its owner gone, or nobody's and something to do (design section 4, "Claims")."""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from ..journal.protocol import FINAL_STATUSES, JournalStore, RunRow, WorkerId
from ..state import NEEDS_ATTENTION, RUNNING
from .identity import is_gone


class LocalWorker:
    """An engine of this process, as others in it see it."""

    def __init__(self, has_ended: Callable[[], bool]):
        self.has_ended = has_ended


_local: WeakValueDictionary[str, LocalWorker] = WeakValueDictionary()


def register_local(worker: WorkerId, has_ended: Callable[[], bool]) -> LocalWorker:
    """Make an engine of this process known, so that its runs are free at once when its event loop has ended."""
    local = _local[worker.id] = LocalWorker(has_ended)
    return local


class Owners:
    """Judges the owners of runs. An owner that seems alive is expired only after standing still while we watched."""

    def __init__(self, store: JournalStore, me: WorkerId, expiry_seconds: float):
        self._store = store
        self._me = me
        self._expiry_seconds = expiry_seconds
        self._seen: dict[str, tuple[int, float]] = {}

    async def gone(self) -> Callable[[str | None], bool]:
        """Look at all workers once and return a function that tells whether an owner is gone."""
        now = time.monotonic()
        alive: set[str] = set()
        for worker, heartbeat in await self._store.workers():
            if not self._is_gone(worker, heartbeat, now):
                alive.add(worker.id)
        for id in [id for id in self._seen if id not in alive]:
            del self._seen[id]
        return lambda owner: owner is None or owner not in alive

    def _is_gone(self, worker: WorkerId, heartbeat: int, now: float) -> bool:
        if worker.id == self._me.id:
            return False
        if worker.pid == self._me.pid and worker.started == self._me.started and worker.boot == self._me.boot:
            local = _local.get(worker.id)
            return local is None or local.has_ended()
        if is_gone(worker):
            return True
        before, since = self._seen.get(worker.id, (None, now))
        if before != heartbeat:
            since = now
        self._seen[worker.id] = (heartbeat, since)
        return now - since > self._expiry_seconds


def is_claimable(row: RunRow, now: int, gone: Callable[[str | None], bool]) -> bool:
    """Tell whether an unfinished run may be taken and has something to do."""
    if row.status in FINAL_STATUSES or row.status == NEEDS_ATTENTION:
        return False
    if row.owner is not None:
        return gone(row.owner)
    return row.status == RUNNING or row.message or (row.wake_at is not None and row.wake_at <= now)
