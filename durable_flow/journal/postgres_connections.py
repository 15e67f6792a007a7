"""How a connection to Postgres is made, and which of one event loop are open."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, urlsplit

import asyncpg

# What makes a connection, each time it is called.
Connect = Callable[[], Awaitable[asyncpg.Connection]]

_CONNECT_SECONDS = 10.0
# How long a statement may take before its connection is given up.
_COMMAND_SECONDS = 30.0

# What every session asks of the server, unless the URL says otherwise.
_SETTINGS = {
    "application_name": "durable_flow",
    # Only so does a statement see what was committed while it waited for a lock.
    "default_transaction_isolation": "read committed",
    # A process that stands still in the middle of a transaction keeps nobody out for longer.
    "idle_in_transaction_session_timeout": "10s",
    # What somebody keeps locked does not hold up others for longer.
    "lock_timeout": "2s",
    # Our statements are done before it would be.
    "jit": "off",
    # Few rows are asked for by their keys, also while the tables are small: plans are kept when they have grown.
    "enable_seqscan": "off",
}
# A server that waits for its standbys as well goes on doing so.
_FULL = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
)


class Connections:
    """Makes connections to one database, all alike.

    `patience_seconds` is how long its user tries to get something done: nothing that is asked of the server takes
    longer than that.
    """

    def __init__(self, dsn: str, *, durability: str, patience_seconds: float):
        self._dsn = dsn
        self._full = durability == "full"
        self._patience_seconds = patience_seconds
        self._made: weakref.WeakSet[asyncpg.Connection] = weakref.WeakSet()

    async def connect(self) -> asyncpg.Connection:
        """Return a new connection; `terminate` ends it if nobody has done so. Raises OSError, asyncpg's errors."""
        # In a task of its own: the time limits of the driver end by cancelling it, which shielded work does not heed.
        connecting = asyncio.ensure_future(self.connect_here())
        try:
            await asyncio.wait({connecting})
        except asyncio.CancelledError:
            connecting.cancel()
            raise
        if connecting.cancelled():
            raise ConnectionError("the event loop ended while a connection was made")
        connection = connecting.result()
        self._made.add(connection)
        return connection

    async def connect_here(self) -> asyncpg.Connection:
        """Return a new connection, for a loop of its own: `terminate` does not know it."""
        chosen = dict(parse_qsl(urlsplit(self._dsn).query))
        settings = {name: value for name, value in _SETTINGS.items() if name not in chosen}
        if not self._full:
            settings["synchronous_commit"] = "off"
        connection: asyncpg.Connection = await asyncpg.connect(
            self._dsn,
            timeout=min(_CONNECT_SECONDS, self._patience_seconds),
            command_timeout=min(_COMMAND_SECONDS, self._patience_seconds),
            server_settings=settings,
        )
        if self._full:
            try:
                await connection.execute(_FULL)
            except BaseException:
                connection.terminate()
                raise
        return connection

    def terminate(self) -> None:
        """End what is still open, at once."""
        for connection in tuple(self._made):
            if not connection.is_closed():
                connection.terminate()


class Line:
    """One connection, made when it is first needed, and again when it was lost or dropped.

    On each new one the statement `first` is run, if there is one.
    """

    def __init__(self, connect: Connect, *, first: str | None = None):
        self._connect = connect
        self._first = first
        self._connection: asyncpg.Connection | None = None

    async def ready(self) -> asyncpg.Connection:
        """Return the connection. Raises what making it raises; drop it then."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
            if self._first is not None:
                await self._connection.execute(self._first, timeout=_CONNECT_SECONDS)
        return self._connection

    def drop(self) -> None:
        """End the connection, at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
