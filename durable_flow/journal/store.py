"""The writing half of a SQL store: what is asked of it, checked and encoded before it is queued."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..records import Record
from . import calls, imports, purging
from .encode import check_text, encode
from .protocol import (
    FINAL_STATUSES,
    Append,
    Claim,
    ImportedMessage,
    ImportedPage,
    ImportedRun,
    NewMessage,
    NewRun,
    RunRow,
    RunUpdate,
    SnapshotRow,
    WorkerId,
)
from .queries import SqlQueries
from .seals import ERROR_KIND, Seals
from .text import line
from .units import AppendUnit, CreateUnit

if TYPE_CHECKING:
    from ..serializers.base import Seal


class UnitWriter(Protocol):
    """What a store asks of its writer; `commits` and `rows` count."""

    commits: int
    rows: int

    def put(self, unit: AppendUnit | CreateUnit) -> asyncio.Future[Any]:
        """Queue a unit for the next commit and return the future of its result."""

    async def room(self) -> None:
        """Wait until the queue of units is short enough."""


W = TypeVar("W", bound=UnitWriter)


class SqlStore(SqlQueries, Generic[W]):
    """A JournalStore in a SQL database, without what the kind of database decides. See JournalStore for its methods."""

    def __init__(
        self, *, durability: str, seal: Seal | None, compress: bool, max_payload_bytes: int, deadline_seconds: float
    ):
        super().__init__()
        if durability not in ("full", "normal"):
            raise ValueError(f"durability is 'full' or 'normal', not {durability!r}")
        self._durability = durability
        self._seals = Seals(seal, compress=compress, limit=max_payload_bytes)
        self._limit = max_payload_bytes
        self._deadline_seconds = deadline_seconds
        self._opening = asyncio.Lock()
        self._writer: W | None = None
        self._appends = self._creates = 0

    def now(self) -> int:
        """Return the database's time in microseconds."""
        raise NotImplementedError

    def _check_writer(self) -> W:
        self._check_open()
        assert self._writer is not None
        return self._writer

    async def _call(self, call: calls.Call) -> Any:
        """Run a function within a transaction, again until its outcome is known."""
        raise NotImplementedError

    async def create(self, new: NewRun, records: Sequence[Record], update: RunUpdate, worker: WorkerId) -> Claim | None:
        """Create a run, see JournalStore. Raises SerializationError, PayloadTooLargeError."""
        writer = self._check_writer()
        for text in (*new[:4], update.status, worker.id):
            check_text(text, new.run_id, "run")
        await writer.room()
        encoded = encode(0, new.run_id, 0, 1, records, self._limit)
        now = self.now()
        final = update.status in FINAL_STATUSES
        error = self._seals.seal_text(line(update.error), uid=new.uid, seq=0, kind=ERROR_KIND)
        values = (
            *new[:4], update.status, 1, None if final or update.release else worker.id, update.wake_at, *new[4:],
            now, now, now if final else None, error,
        )  # fmt: skip
        claim: Claim | None = await self._check_writer().put(CreateUnit(values, encoded))
        self._creates += claim is not None
        return claim

    def submit(self, append: Append) -> asyncio.Future[None]:
        """Queue an append; the future ends as `append` would. Cancelling it does not stop the write.

        Raises SerializationError or PayloadTooLargeError at once for what the database would refuse.
        """
        writer = self._check_writer()
        run, run_id, after, epoch, records, update = append
        encoded = encode(run, run_id, after, epoch, records, self._limit)
        changed, last = None, False
        if update is not None:
            check_text(update.status, run_id, "status")
            changed = calls.update_values(run, epoch, update, self.now())
            last = update.release or update.status in FINAL_STATUSES
        self._appends += 1
        return writer.put(AppendUnit(run, run_id, after, epoch, encoded, changed, last))

    async def append(self, append: Append) -> None:
        """Make the records durable, see JournalStore. Raises RunFenced, SerializationError, PayloadTooLargeError."""
        await self._check_writer().room()
        await self.submit(append)

    async def claim(self, run: int, worker: WorkerId, *, epoch: int, status: str) -> Claim | None:
        """Take the run if its epoch is still `epoch` and its status no other one at rest, see JournalStore."""
        claim: Claim | None = await self._call(calls.claim(run, worker, epoch, status, self.now()))
        return claim

    async def release(self, run: int, epoch: int, status: str, wake_at: int | None) -> None:
        """Give up a claim; a no-op if the epoch is no longer the run's."""
        await self._call(calls.release(run, epoch, status, wake_at, self.now()))

    async def save_snapshot(self, run: int, row: SnapshotRow, replacing: int) -> None:
        """Keep a snapshot in the place of those since `replacing`, see JournalStore."""
        await self._call(calls.save_snapshot(run, row, replacing, self._seals))

    async def compact(self, row: RunRow, record: Record) -> bool:
        """Put a JournalCompacted in the place of a run's records, see JournalStore. Raises PayloadTooLargeError."""
        columns = await asyncio.to_thread(purging.sealed_row, row, record, self._seals, self._limit)
        return bool(await self._call(purging.compact(row.run, record, columns, self.now())))

    async def prune(self, row: RunRow, record: Record | None) -> bool:
        """Forget a run that has ended, see JournalStore. Raises PayloadTooLargeError."""
        columns = None
        if record is not None:
            columns = await asyncio.to_thread(purging.sealed_row, row, record, self._seals, self._limit)
        return bool(await self._call(purging.prune(row, record, columns, self.now())))

    async def purge(self, limit: int) -> int:
        """Delete some of what `compact` and `prune` have left, see JournalStore."""
        return int(await self._call(purging.purge(limit)))

    async def send(self, run: int, message: NewMessage) -> bool:
        """Insert a message; False if this message_id was sent before.

        Raises RunNotFoundError, RunFinishedError, AlreadyAnsweredError, SerializationError, PayloadTooLargeError.
        """
        call = calls.send(run, message, self.now(), url=self.url, seals=self._seals, limit=self._limit)
        return bool(await self._call(call))

    async def import_run(
        self, run: ImportedRun, pages: Callable[[], Iterable[ImportedPage]], messages: Sequence[ImportedMessage]
    ) -> int | None:
        """Write a run as it is in another journal, see JournalStore."""
        call = imports.import_run(run, pages, messages, self.now(), seals=self._seals, limit=self._limit)
        key: int | None = await self._call(call)
        return key

    async def heartbeat(self, worker: WorkerId) -> None:
        """Insert or refresh the worker's row."""
        await self._call(calls.beat(worker, self.now()))

    async def retire(self, worker: WorkerId) -> None:
        """Delete the worker's row and give up its claims of unfinished runs."""
        await self._call(calls.retire(worker))

    async def forget(self, worker: WorkerId) -> None:
        """Delete the row of a worker that is gone, unless an unfinished run still names it."""
        await self._call(calls.forget(worker))

    def stats(self) -> dict[str, Any]:
        """Return counters since the store was opened: commits, rows of the journal, appends and creates."""
        writer = self._writer
        return {
            "commits": writer.commits if writer is not None else 0,
            "rows": writer.rows if writer is not None else 0,
            "appends": self._appends,
            "creates": self._creates,
        }
