"""The SQLite store: reads by SQLAlchemy, writes through one thread that commits them in groups."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
import time
import weakref
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..errors import JournalError, JournalUnavailableError
from ..records import Record
from ..serializers.base import MAX_PAYLOAD_BYTES
from . import calls
from .batch import AppendUnit, CallUnit, CreateUnit
from .encode import check_text, encode
from .files import connect, unavailable
from .migrate import prepare
from .protocol import FINAL_STATUSES, Append, Claim, NewMessage, NewRun, RunUpdate, WorkerId
from .queries import SqlQueries
from .text import line
from .url import sqlite_path
from .writer import Writer

if TYPE_CHECKING:
    from ..serializers.base import Seal

# How long a thread waits for its heartbeat to become durable.
_BEAT_SECONDS = 5.0


class SqliteStore(SqlQueries):
    """A JournalStore in an SQLite file, for one event loop. See JournalStore for its methods.

    `durability` "full" survives a power cut, "normal" only a crash of the process. `max_payload_bytes` bounds what one
    record may hold. `deadline_seconds` is how long a write is tried again while the file is locked or its disk fails.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: str = "full",
        seal: Seal | None = None,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        deadline_seconds: float = 30.0,
    ):
        if durability not in ("full", "normal"):
            raise ValueError(f"durability is 'full' or 'normal', not {durability!r}")
        self.path = sqlite_path(url)
        self.url = f"sqlite:///{self.path}"
        self._durability = durability
        self._seal = seal
        self._limit = max_payload_bytes
        self._deadline_seconds = deadline_seconds
        self._busy_seconds = min(5.0, deadline_seconds)
        self._opening = asyncio.Lock()
        self._engine: AsyncEngine | None = None
        self._writer: Writer | None = None
        self._readers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._appends = self._creates = 0

    async def open(self) -> None:
        """Open the file, created or upgraded where needed. Raises JournalUnavailableError, SchemaVersionError."""
        async with self._opening:
            if self._engine is not None:
                self._check_open()
                return
            await asyncio.to_thread(prepare, self.path, busy_seconds=self._busy_seconds)
            self._pid = os.getpid()
            self._appends = self._creates = 0
            self._writer = Writer(
                self.path,
                partial(connect, self.path, durability=self._durability, busy_seconds=min(1.0, self._busy_seconds)),
                seal=self._seal,
                deadline_seconds=self._deadline_seconds,
            )
            # A store that is forgotten without being closed keeps no thread.
            weakref.finalize(self, self._writer.stop)
            self._engine = self._reading_engine()

    def _reading_engine(self) -> AsyncEngine:
        readers = self._readers
        engine = create_async_engine(
            URL.create(
                "sqlite+aiosqlite", database=f"file:{quote(str(self.path))}", query={"mode": "rw", "uri": "true"}
            ),
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            skip_autocommit_rollback=True,
            connect_args={"timeout": self._busy_seconds},
        )

        @event.listens_for(engine.sync_engine, "connect")
        def read_only(connection: Any, record: Any) -> None:
            readers.add(connection.driver_connection)
            connection.execute("PRAGMA query_only=ON")

        return engine

    async def close(self) -> None:
        """Finish the writes that are queued and give back every connection and thread."""
        async with self._opening:
            engine, writer = self._engine, self._writer
            self._engine = self._writer = None
            if engine is None or writer is None or self._pid != os.getpid():
                return
            # The readers first: the last connection to be closed tidies the file, and it must be able to write.
            await engine.dispose()
            await writer.close()

    def now(self) -> int:
        """Return the host's time in microseconds: SQLite has no clock of its own."""
        return time.time_ns() // 1000

    def _check_writer(self) -> Writer:
        self._check_open()
        assert self._writer is not None
        return self._writer

    async def create(self, new: NewRun, records: Sequence[Record], update: RunUpdate, worker: WorkerId) -> Claim | None:
        """Create a run, see JournalStore. Raises SerializationError, PayloadTooLargeError."""
        for text in (*new, update.status, worker.id):
            check_text(text, new.run_id, "run")
        await self._check_writer().room()
        encoded = encode(0, new.run_id, 0, 1, records, self._limit)
        now = self.now()
        final = update.status in FINAL_STATUSES
        values = (
            *new, update.status, 1, None if final or update.release else worker.id, update.wake_at, now, now,
            now if final else None, line(update.error),
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

    async def _call(self, call: calls.Call) -> Any:
        writer = self._check_writer()
        await writer.room()
        return await writer.put(CallUnit(call))

    async def claim(self, run: int, worker: WorkerId, *, epoch: int) -> Claim | None:
        """Take the run if its epoch is still `epoch`, see JournalStore."""
        claim: Claim | None = await self._call(calls.claim(run, worker, epoch, self.now()))
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

    def beat(self, worker: WorkerId) -> bool:
        """Refresh the worker's heartbeat from any thread; tell whether it became durable within 5 seconds."""
        try:
            self._check_writer().put_from_thread(CallUnit(calls.beat(worker, self.now()))).result(_BEAT_SECONDS)
        except (JournalError, concurrent.futures.TimeoutError):
            return False
        return True

    async def retire(self, worker: WorkerId) -> None:
        """Delete the worker's row and give up its claims of unfinished runs."""
        await self._call(calls.retire(worker))

    async def forget(self, worker: WorkerId) -> None:
        """Delete the row of a worker that is gone, unless an unfinished run still names it."""
        await self._call(calls.forget(worker))

    def abandon(self, worker: WorkerId) -> None:
        """Retire the worker and close, from a thread, when its event loop has ended without closing the store."""
        writer = self._writer
        if writer is None or self._pid != os.getpid():
            return
        # If it cannot be written, others will find that this worker's heartbeat stands still.
        with contextlib.suppress(JournalError, concurrent.futures.TimeoutError):
            writer.put_from_thread(CallUnit(calls.retire(worker))).result(_BEAT_SECONDS)
        self._engine = self._writer = None
        writer.stop()
        for reader in list(self._readers):
            # aiosqlite's own end of a connection without a loop; older ones end with the process.
            stop = getattr(reader, "stop", None)
            if stop is not None:
                stop()

    def stats(self) -> dict[str, Any]:
        """Return counters since the store was opened: commits, rows of the journal, appends and creates."""
        writer = self._writer
        return {
            "commits": writer.commits if writer is not None else 0,
            "rows": writer.rows if writer is not None else 0,
            "appends": self._appends,
            "creates": self._creates,
        }

    def _unavailable(self, exc: BaseException) -> JournalUnavailableError:
        if isinstance(exc, sqlite3.Error) or exc.__cause__ is None:
            return unavailable(self.path, exc)
        return unavailable(self.path, exc.__cause__)
