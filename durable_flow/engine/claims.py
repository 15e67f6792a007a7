"""Whether a run may be taken: its owner gone, or nobody's and something to do (design section 4, "Claims")."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..journal.protocol import JournalStore, RunRow, WorkerId, is_at_rest
from ..state import RUNNING
from .clock import MICROSECONDS
from .identity import is_gone, is_here

if TYPE_CHECKING:
    from .run import Run

# A run that was claimed so often in vain may be what kills its processes.
SUSPICIOUS_CLAIMS = 2
TRIAL_SECONDS = 10.0


class Trial:
    """A run that may be what kills its processes, for as long as no other such run is taken up beside it."""

    def __init__(self, run: Run):
        self._run = run
        self._seq = run.durable_seq
        self._until = time.monotonic() + TRIAL_SECONDS

    def is_over(self) -> bool:
        """Tell whether it has recorded something, ended, only waits, or has gone on for long enough."""
        run = self._run
        waits = run.state.parked and run.only_waits()
        return run.closed or waits or run.durable_seq > self._seq or time.monotonic() > self._until


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
    """Judges the owners of runs.

    An owner that seems alive is expired only after its heartbeat stood still for a whole expiry *while we watched*:
    between two looks at most `heartbeat_seconds` count. So processes that were stopped together, or slept with their
    machine, do not take each other's runs when they wake.
    """

    def __init__(self, store: JournalStore, me: WorkerId, *, heartbeat_seconds: float, expiry_seconds: float):
        self._store = store
        self._me = me
        self._heartbeat_seconds = heartbeat_seconds
        self._expiry_seconds = expiry_seconds
        self._looked_at = time.monotonic()
        # Each worker's last heartbeat, and for how many watched seconds it has been that.
        self._still: dict[str, tuple[int, float]] = {}
        self._doubtful: frozenset[str] = frozenset()

    async def gone(self) -> Callable[[str | None], bool]:
        """Look at all workers once and return a function that tells whether an owner is gone."""
        found = await self._store.workers()
        now = time.monotonic()
        watched = min(now - self._looked_at, self._heartbeat_seconds)
        self._looked_at = now
        alive: set[str] = set()
        doubtful: set[str] = set()
        old = self._store.now() - round(2 * self._heartbeat_seconds * MICROSECONDS)
        for worker, heartbeat in found:
            if self._is_gone(worker, heartbeat, watched):
                continue
            alive.add(worker.id)
            if heartbeat < old and worker.id in self._still:
                doubtful.add(worker.id)
        for id in self._still.keys() - alive:
            del self._still[id]
        self._doubtful = frozenset(doubtful)
        return lambda owner: owner is None or owner not in alive

    def in_doubt(self, owner: str | None) -> bool:
        """Tell whether the last look left open if this owner lives: its heartbeats are missing, not yet for long."""
        return owner in self._doubtful

    def _is_gone(self, worker: WorkerId, heartbeat: int, watched: float) -> bool:
        if worker.id == self._me.id:
            return False
        if is_here(worker, self._me):
            local = _local.get(worker.id)
            return local is None or local.has_ended()
        if is_gone(worker):
            return True
        before, still = self._still.get(worker.id, (None, 0.0))
        still = still + watched if before == heartbeat else 0.0
        self._still[worker.id] = (heartbeat, still)
        return still > self._expiry_seconds


def is_claimable(row: RunRow, now: int, gone: Callable[[str | None], bool]) -> bool:
    """Tell whether an unfinished run may be taken and has something to do."""
    if is_at_rest(row.status):
        return False
    if row.owner is not None:
        return gone(row.owner)
    return row.status == RUNNING or row.message or (row.wake_at is not None and row.wake_at <= now)


def growing_pauses() -> Iterator[float]:
    """Yield the seconds to wait before what the database refused for the moment is tried again."""
    seconds = 0.01
    while True:
        yield seconds
        seconds = min(2 * seconds, 0.5)
