"""The SQLite store: reads by SQLAlchemy, writes through one thread that commits them in groups."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import sqlite3
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Select, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..errors import JournalError
from ..logs import fields
from ..serializers.base import MAX_PAYLOAD_BYTES
from . import calls
from .files import OpenedFile, connect, unavailable
from .migrate import prepare
from .protocol import Heard, WorkerId
from .shielded import shielded
from .store import SqlStore
from .units import CallUnit
from .url import sqlite_path
from .writer import Writer

if TYPE_CHECKING:
    from ..serializers.base import Seal

logger = logging.getLogger("durable_flow")

# How long a thread waits for its heartbeat to become durable.
_BEAT_SECONDS = 5.0
# How often a loop that listens looks whether others have written: it costs some 10 us.
_LOOK_SECONDS = 0.02


class SqliteStore(SqlStore[Writer]):
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
        compress: bool = True,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        deadline_seconds: float = 30.0,
    ):
        super().__init__(
            durability=durability, seal=seal, compress=compress, max_payload_bytes=max_payload_bytes,
            deadline_seconds=deadline_seconds,
        )  # fmt: skip
        self.path = sqlite_path(url)
        self.url = f"sqlite:///{self.path}"
        self._readers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._listeners: list[Heard] = []
        self._next_look: asyncio.Handle | None = None

    async def open(self) -> None:
        """Open the file, created or upgraded where needed. Raises JournalUnavailableError, SchemaVersionError."""
        async with self._opening:
            if self._engine is not None:
                self._check_open()
                return
            await asyncio.to_thread(prepare, self.path, busy_seconds=self._deadline_seconds)
            self._pid = os.getpid()
            self._appends = self._creates = 0
            self._file = OpenedFile(self.path)
            self._writer = Writer(
                self.path,
                partial(connect, self.path, durability=self._durability, busy_seconds=min(1.0, self._deadline_seconds)),
                self._file,
                seals=self._seals,
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
            connect_args={"timeout": self._deadline_seconds},
        )

        @event.listens_for(engine.sync_engine, "connect")
        def read_only(connection: Any, record: Any) -> None:
            readers.add(connection.driver_connection)
            connection.execute("PRAGMA query_only=ON")

        return engine

    async def close(self) -> None:
        """Finish the writes that are queued and give back every connection and thread."""
        await shielded(self._close())

    async def _close(self) -> None:
        async with self._opening:
            engine, writer = self._engine, self._writer
            self._engine = self._writer = None
            if engine is None or writer is None or self._pid != os.getpid():
                return
            if self._under_way:
                await asyncio.wait(self._under_way)
            # The readers first: the last connection to be closed tidies the file, and it must be able to write.
            await engine.dispose()
            await writer.close()

    def now(self) -> int:
        """Return the host's time in microseconds: SQLite has no clock of its own."""
        return time.time_ns() // 1000

    async def _read(self, statement: Select[Any]) -> list[Any]:
        engine = self._check_open()
        self._file.check()
        try:
            return await self._awaited(_selected(engine, statement))
        except DBAPIError as exc:
            raise unavailable(self.path, _origin(exc)) from exc

    async def _call(self, call: calls.Call) -> Any:
        writer = self._check_writer()
        await writer.room()
        return await writer.put(CallUnit(call))

    def beat(self, worker: WorkerId) -> bool:
        """Refresh the worker's heartbeat from any thread; tell whether it became durable within 5 seconds."""
        try:
            writer = self._check_writer()
        except JournalError:
            return False
        try:
            writer.put_from_thread(CallUnit(calls.beat(worker, self.now()))).result(_BEAT_SECONDS)
        except (JournalError, concurrent.futures.TimeoutError) as exc:
            error = exc if isinstance(exc, JournalError) else unavailable(self.path, writer.trouble or exc)
            logger.warning("no heartbeat, trying again: %s", error, extra=fields("heartbeat_missed"))
            return False
        return True

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

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Call `heard(None)` in this loop soon after another connection has committed. Returns what ends it."""
        self._check_writer()
        self._listeners.append(heard)
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_soon(self._look)

        def end() -> None:
            if heard in self._listeners:
                self._listeners.remove(heard)

        return end

    def _look(self) -> None:
        self._next_look = None
        if not self._listeners or self._writer is None:
            return
        if self._writer.others_wrote():
            for heard in tuple(self._listeners):
                heard(None)
        self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)


async def _selected(engine: AsyncEngine, statement: Select[Any]) -> list[Any]:
    connection = await engine.connect()
    try:
        return list((await connection.execute(statement)).all())
    finally:
        # Not by `async with`, which gives the connection back in a task of its own: a loop that ends cancels that task
        # before it has begun, and the connection is lost.
        await connection.close()


def _origin(exc: DBAPIError) -> BaseException:
    error: BaseException = exc.orig or exc
    return error if isinstance(error, sqlite3.Error) or error.__cause__ is None else error.__cause__
