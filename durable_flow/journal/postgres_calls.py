"""The rarer writes on Postgres: a call is run within a transaction, through SQLAlchemy, in a loop or in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..errors import DurableFlowError
from . import sql
from .calls import Call
from .postgres_connections import Connect
from .postgres_trouble import NotDone, Trouble, trouble
from .units import CallUnit, refused


def engine_on(connect: Connect, *, size: int, wait_seconds: float) -> AsyncEngine:
    """Return an engine with a pool of at most `size` connections; its statements commit alone, see `transact`."""
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        isolation_level="AUTOCOMMIT",
        pool_size=size,
        max_overflow=0,
        pool_timeout=wait_seconds,
        skip_autocommit_rollback=True,
        # Tracebacks show the statement's text only.
        hide_parameters=True,
    )


async def transact(engine: AsyncEngine, call: Call, again: bool) -> Any:
    """Run a call within one transaction and return its result.

    Raises what the call raises, as a JournalError if it is none of this package; NotDone; what the commit raises.
    """

    def work(connection: Connection) -> Any:
        def execute(statement: sql.Statement, values: Mapping[str, Any]) -> Sequence[Any]:
            try:
                result = connection.execute(statement.element, {name: values[name] for name in statement.names})
                return result.all() if result.returns_rows else ()
            except Exception as exc:
                raise NotDone from exc

        try:
            return call(execute, again)
        except (DurableFlowError, NotDone):
            raise
        except Exception as exc:
            # Not the database's, and no other way to it would help.
            raise refused(CallUnit(call), exc) from exc

    async def in_transaction(connection: AsyncConnection) -> Any:
        await connection.execution_options(isolation_level="READ COMMITTED")
        # Not by `async with`, which would send a rollback also where nobody answers any more.
        transaction = await connection.begin()
        result = await connection.run_sync(work)
        await transaction.commit()
        return result

    return await on_connection(engine, in_transaction)


async def on_connection(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
    """Do the work on one of the pool's connections, which is not used again if it may be broken.

    What the work has begun and not committed is rolled back. Raises NotDone without a connection, what the work raises.
    """
    try:
        connection = await engine.connect()
    except Exception as exc:
        raise NotDone from exc
    try:
        return await work(connection)
    except DurableFlowError:
        raise
    except BaseException as exc:
        broken = not isinstance(exc, Exception) or trouble(exc) in (Trouble.DOUBT, Trouble.RECONNECT)
        if broken and not connection.invalidated:
            # At once: the pool would first take leave of a server that may not answer.
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is not None
            raw.driver_connection.terminate()
            await connection.invalidate()
        raise
    finally:
        # Not by `async with`, which gives the connection back in a task of its own: a loop that ends cancels that one.
        await connection.close()


class ThreadEngine:
    """An engine with one connection for threads: each `run` has the loop of this object to itself."""

    def __init__(self, connect: Connect):
        self._connect = connect
        self._lock = threading.Lock()
        self._runner: asyncio.Runner | None = None
        self._engine: AsyncEngine | None = None
        self._closed = False

    def run(self, work: Callable[[AsyncEngine], Awaitable[None]], *, seconds: float) -> bool:
        """Do the work; tell whether it was done within the time. For any thread that runs no loop."""
        with self._lock:
            if self._closed:
                return False
            if self._runner is None:
                self._runner = asyncio.Runner()
            try:
                self._runner.run(self._limited(work, seconds))
            except Exception:
                # Whatever it was: the next time begins with a new connection.
                self._end()
                return False
            return True

    async def _limited(self, work: Callable[[AsyncEngine], Awaitable[None]], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            if self._engine is None:
                self._engine = engine_on(self._connect, size=1, wait_seconds=seconds)
            await work(self._engine)

    def close(self) -> None:
        """End the connection. For any thread that runs no loop."""
        with self._lock:
            self._closed = True
            self._end()

    def _end(self) -> None:
        runner, engine = self._runner, self._engine
        self._runner = self._engine = None
        if runner is None:
            return
        with contextlib.suppress(Exception):  # nothing of it is used any more
            if engine is not None:
                runner.run(_dispose(engine))
        runner.close()


async def _dispose(engine: AsyncEngine) -> None:
    async with asyncio.timeout(1.0):
        await engine.dispose()
