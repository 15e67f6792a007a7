"""What others do on the same Postgres: locks that they hold, gates at which statements wait, sessions that end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import asyncpg
from postgres import Server

from .looking import until

_GATE = 4711
# Only the first one that comes is held: `nextval` is not rolled back.
_FUNCTION = f"""
CREATE SEQUENCE gate_visitors;
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('gate_visitors') = 1 THEN PERFORM pg_advisory_xact_lock({_GATE}); END IF;
    RETURN NEW;
END $$;
"""
_TRIGGERS = {
    "statement": "CREATE TRIGGER gate BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION gate()",
    "commit": "CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON {} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
    "EXECUTE FUNCTION gate()",
}


class Gate:
    """Keeps the first statement that inserts into a table, in the middle of it or of its commit."""

    def __init__(self, session: asyncpg.Connection):
        self._session = session

    async def kept(self) -> None:
        """Wait until somebody stands at the gate."""
        await until(partial(blocked, self._session))

    async def kill(self) -> None:
        """End the session that is kept, as an administrator does."""
        killed = await self._session.fetch(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
        assert [done for (done,) in killed] == [True]


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    """Somebody else's session; what it has not committed ends with it."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def gate(url: str, table: str, where: Literal["statement", "commit"]) -> AsyncIterator[Gate]:
    async with session(url) as connection:
        await connection.execute(_FUNCTION + _TRIGGERS[where].format(table))
        await connection.execute(f"SELECT pg_advisory_lock({_GATE})")
        yield Gate(connection)


async def blocked(session: asyncpg.Connection) -> bool:
    """Tell whether somebody of this database waits for a lock."""
    return bool(
        await session.fetchval(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE NOT l.granted AND a.datname = current_database()"
        )
    )


def kill_sessions(server: Server, database: str) -> int:
    """End every session of our stores, and tell how many there were."""
    rows = server.execute(
        f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{database}' "
        "AND application_name = 'durable_flow'"
    )
    return len(rows)
