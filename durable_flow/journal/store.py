"""The writing half of a SQL store: what is asked of it, checked and encoded before it is queued."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..records import Record
from . import calls
from .encode import check_text, encode
from .protocol import FINAL_STATUSES, Append, Claim, NewMessage, NewRun, RunUpdate, WorkerId
from .queries import SqlQueries
from .text import line
from .units import AppendUnit, CreateUnit

if TYPE_CHECKING:
    from ..serializers.base import Seal


class SqlStore(SqlQueries):
    """A JournalStore in a SQL database, without what the kind of database decides. See JournalStore for its methods."""

    _seal: Seal | None
    _limit: int
    _appends = 0
    _creates = 0

    def now(self) -> int:
        """Return the database's time in microseconds."""
        raise NotImplementedError

    def _put(self, unit: AppendUnit | CreateUnit) -> asyncio.Future[Any]:
        """Queue a unit for the next commit."""
        raise NotImplementedError

    async def _room(self) -> None:
        """Wait until the queue of units is short enough."""
        raise NotImplementedError

    async def _call(self, call: calls.Call) -> Any:
        """Run a function within a transaction, again until its outcome is known."""
        raise NotImplementedError

    async def create(self, new: NewRun, records: Sequence[Record], update: RunUpdate, worker: WorkerId) -> Claim | None:
        """Create a run, see JournalStore. Raises SerializationError, PayloadTooLargeError."""
        self._check_open()
        for text in (*new, update.status, worker.id):
            check_text(text, new.run_id, "run")
        await self._room()
        encoded = encode(0, new.run_id, 0, 1, records, self._limit)
        now = self.now()
        final = update.status in FINAL_STATUSES
        values = (
            *new, update.status, 1, None if final or update.release else worker.id, update.wake_at, now, now,
            now if final else None, line(update.error),
        )  # fmt: skip
        claim: Claim | None = await self._put(CreateUnit(values, encoded))
        self._creates += claim is not None
        return claim

    def submit(self, append: Append) -> asyncio.Future[None]:
        """Queue an append; the future ends as `append` would. Cancelling it does not stop the write.

        Raises SerializationError or PayloadTooLargeError at once for what the database would refuse.
        """
        self._check_open()
        run, run_id, after, epoch, records, update = append
        encoded = encode(run, run_id, after, epoch, records, self._limit)
        changed, last = None, False
        if update is not None:
            check_text(update.status, run_id, "status")
            changed = calls.update_values(run, epoch, update, self.now())
            last = update.release or update.status in FINAL_STATUSES
        self._appends += 1
        return self._put(AppendUnit(run, run_id, after, epoch, encoded, changed, last))

    async def append(self, append: Append) -> None:
        """Make the records durable, see JournalStore. Raises RunFenced, SerializationError, PayloadTooLargeError."""
        self._check_open()
        await self._room()
        await self.submit(append)

    async def claim(self, run: int, worker: WorkerId, *, epoch: int, status: str) -> Claim | None:
        """Take the run if its epoch is still `epoch` and its status no other one at rest, see JournalStore."""
        claim: Claim | None = await self._call(calls.claim(run, worker, epoch, status, self.now()))
        return claim

    async def release(self, run: int, epoch: int, status: str, wake_at: int | None) -> None:
        """Give up a claim; a no-op if the epoch is no longer the run's."""
        await self._call(calls.release(run, epoch, status, wake_at, self.now()))

    async def send(self, run: int, message: NewMessage) -> bool:
        """Insert a message; False if this message_id was sent before.

        Raises RunNotFoundError, RunFinishedError, AlreadyAnsweredError, SerializationError, PayloadTooLargeError.
        """
        call = calls.send(run, message, self.now(), url=self.url, seal=self._seal, limit=self._limit)
        return bool(await self._call(call))

    async def heartbeat(self, worker: WorkerId) -> None:
        """Insert or refresh the worker's row."""
        await self._call(calls.beat(worker, self.now()))

    async def retire(self, worker: WorkerId) -> None:
        """Delete the worker's row and give up its claims of unfinished runs."""
        await self._call(calls.retire(worker))

    async def forget(self, worker: WorkerId) -> None:
        """Delete the row of a worker that is gone, unless an unfinished run still names it."""
        await self._call(calls.forget(worker))
