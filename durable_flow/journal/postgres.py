"""The Postgres store: reads and rarer writes by SQLAlchemy, appends by one statement for all that wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..errors import DurableFlowError, JournalError, WriteOutcomeUnknown
from ..serializers.base import MAX_PAYLOAD_BYTES
from . import calls
from .migrate import check_version, postgres_version_of
from .postgres_calls import ThreadEngine, engine_on, on_connection, transact
from .postgres_connections import Connections
from .postgres_errors import unavailable
from .postgres_signals import Signals
from .postgres_trouble import Trouble, hide_values, said, trouble
from .postgres_writer import PostgresWriter
from .protocol import Heard, NewMessage, WorkerId
from .shielded import begin, is_last_try, shielded
from .store import SqlStore
from .url import masked, postgres_dsn

if TYPE_CHECKING:
    from ..serializers.base import Seal

Result = TypeVar("Result")

# Connections of one store for reads and rarer writes; writer, listener and heartbeat have one each besides.
_POOL_SIZE = 4
# How long a thread waits for its heartbeat to become durable, and whoever closes for the server to take leave.
_BEAT_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_MICROSECONDS = 1_000_000

_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class PostgresStore(SqlStore[PostgresWriter]):
    """A JournalStore in a Postgres database, for one event loop. See JournalStore for its methods.

    `durability` "full" survives a power cut of the server, "normal" may lose the last commits by one.
    `max_payload_bytes` bounds what one record may hold. `deadline_seconds` is how long something is tried again while
    the server is away or refuses it for reasons that pass.
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
        self._dsn = postgres_dsn(url)
        self.url = masked(self._dsn)
        self._connections: Connections
        self._signals: Signals | None = None
        self._beats: ThreadEngine | None = None
        # The server's time at a moment of the monotonic clock.
        self._clock = (time.time_ns() // 1000, time.monotonic())

    # -- Life ----------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises JournalUnavailableError, SchemaVersionError for a database without today's schema."""
        async with self._opening:
            if self._engine is not None:
                self._check_open()
                return
            connections = Connections(self._dsn, durability=self._durability, patience_seconds=self._deadline_seconds)
            engine = engine_on(connections.connect, size=_POOL_SIZE, wait_seconds=self._deadline_seconds)
            looking = begin(on_connection(engine, self._look_around))
            try:
                await asyncio.shield(looking)
            except BaseException as exc:
                # If this was cancelled, it still looks around.
                looking.add_done_callback(lambda _: connections.terminate())
                if isinstance(exc, DurableFlowError) or not isinstance(exc, Exception):
                    raise
                raise unavailable(self.url, exc) from exc
            self._pid = os.getpid()
            self._appends = self._creates = 0
            self._connections = connections
            self._signals = Signals(connections.connect)
            self._beats = ThreadEngine(connections.connect_here)
            self._writer = PostgresWriter(
                self.url, connections.connect, tell=self._signals.tell, seals=self._seals,
                deadline_seconds=self._deadline_seconds,
            )  # fmt: skip
            self._engine = engine

    async def _look_around(self, connection: AsyncConnection) -> None:
        """Set the clock and check the schema."""
        await self._set_clock(connection)
        check_version(await connection.run_sync(postgres_version_of), self.url)

    async def close(self) -> None:
        """Finish the writes that are queued and give back every connection."""
        async with self._opening:
            engine, writer, signals, beats = self._engine, self._writer, self._signals, self._beats
            self._engine = self._writer = self._signals = self._beats = None
            if engine is None or writer is None or signals is None or beats is None or self._pid != os.getpid():
                return
            await shielded(self._end(engine, writer, signals, beats, self._connections))

    async def _end(
        self, engine: AsyncEngine, writer: PostgresWriter, signals: Signals, beats: ThreadEngine, open: Connections
    ) -> None:
        await writer.close()
        if self._under_way:
            await asyncio.wait(self._under_way)
        await signals.close()
        await asyncio.to_thread(beats.close)
        # A server that does not answer must not keep us.
        leaving = asyncio.ensure_future(engine.dispose())
        await asyncio.wait({leaving}, timeout=_BEAT_SECONDS)
        leaving.cancel()
        open.terminate()

    def abandon(self, worker: WorkerId) -> None:
        """Retire the worker and close, from a thread, when its event loop has ended without closing the store."""
        beats = self._beats
        if beats is None or self._pid != os.getpid():
            return
        # If it cannot be written, others will find that this worker's heartbeat stands still.
        self._in_thread(beats, calls.retire(worker))
        beats.close()
        self._engine = self._writer = self._signals = self._beats = None

    # -- Time and heartbeat --------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Return the server's time in microseconds: never ahead of it, behind by a round trip at most."""
        at, monotonic = self._clock
        return at + round((time.monotonic() - monotonic) * _MICROSECONDS)

    async def _set_clock(self, connection: AsyncConnection) -> None:
        at = await connection.scalar(text(_CLOCK))
        assert at is not None
        self._clock = (at, time.monotonic())

    def beat(self, worker: WorkerId) -> bool:
        """Refresh the worker's heartbeat from any thread; tell whether it became durable within 5 seconds."""
        beats = self._beats
        return beats is not None and self._in_thread(beats, calls.beat(worker, self.now()))

    def _in_thread(self, beats: ThreadEngine, call: calls.Call) -> bool:
        async def work(engine: AsyncEngine) -> None:
            await transact(engine, call, False)
            await on_connection(engine, self._set_clock)

        return beats.run(work, seconds=_BEAT_SECONDS)

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Hear of what other processes and loops write, see JournalStore."""
        self._check_open()
        assert self._signals is not None
        return self._signals.listen(heard)

    # -- Reads and writes ----------------------------------------------------------------------------------------------

    async def send(self, run: int, message: NewMessage) -> bool:
        """Insert a message and tell the run's owner, see SqlStore."""
        sent = await super().send(run, message)
        if self._signals is not None:
            self._signals.tell([run])
        return sent

    async def release(self, run: int, epoch: int, status: str, wake_at: int | None) -> None:
        """Give up a claim and tell those who wait for it, see SqlStore."""
        await super().release(run, epoch, status, wake_at)
        if self._signals is not None:
            self._signals.tell([run])

    async def _call(self, call: calls.Call) -> Any:
        return await shielded(self._tried(lambda engine, again: transact(engine, call, again), writes=True))

    async def _read(self, statement: Select[Any]) -> list[Any]:
        async def read(connection: AsyncConnection) -> list[Any]:
            return list((await connection.execute(statement)).all())

        return await self._tried(lambda engine, _: on_connection(engine, read), writes=False)

    async def _tried(self, work: Callable[[AsyncEngine, bool], Awaitable[Result]], *, writes: bool) -> Result:
        """Do the work, again while that may help; `work` is told whether it may have been done before."""
        deadline = time.monotonic() + self._deadline_seconds
        again = in_doubt = False
        while True:
            engine = self._check_open()
            try:
                return await self._awaited(work(engine, again))
            except DurableFlowError:
                raise
            except Exception as exc:
                hide_values(exc)
                found = trouble(exc)
                in_doubt = in_doubt or (writes and found is Trouble.DOUBT)
                # Also what was not committed may still hold its locks, and is to be waited for.
                again = again or found in (Trouble.DOUBT, Trouble.RECONNECT)
                hopeless = found in (Trouble.DATA, Trouble.LASTING)
                if hopeless or time.monotonic() > deadline or is_last_try():
                    raise self._given_up(exc, found, in_doubt=in_doubt) from exc
            await asyncio.sleep(_PAUSE_SECONDS)

    def _given_up(self, exc: Exception, found: Trouble, *, in_doubt: bool) -> JournalError:
        if in_doubt:
            return WriteOutcomeUnknown(
                f"{self.url}: a commit failed ({said(exc)}), and whether it was made could not be found out within "
                f"{self._deadline_seconds:g} seconds. Look at the run when the database works again: its journal tells."
            )
        if found is Trouble.DATA:
            return JournalError(f"{self.url}: the database refused a value ({said(exc)}). Nothing was written.")
        return unavailable(self.url, exc)

    def stats(self) -> dict[str, Any]:
        """Return counters since the store was opened, see SqlStore; round trips of the writer as well."""
        return {**super().stats(), "round_trips": self._writer.round_trips if self._writer is not None else 0}
