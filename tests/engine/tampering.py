"""The tables of a journal as somebody with plain SQL sees and changes them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import asyncpg

from durable_flow import Journal
from durable_flow.journal.tables import metadata

Row = dict[str, Any]


class Tables:
    """Reads all rows and replaces single ones, on SQLite and Postgres."""

    def __init__(self, journal: Journal):
        self._url = journal.settings.url

    async def rows(self, table: str, condition: str = "true") -> list[Row]:
        order = {"journal": "run, seq", "stream": "run, position", "messages": "id", "waits": "run, seq"}
        return await self._do(f"SELECT * FROM {table} WHERE {condition} ORDER BY {order.get(table, '1')}")

    async def replace(self, table: str, row: Row, **values: Any) -> None:
        """Put a changed row in the place of this one."""
        key = [column.name for column in metadata.tables[table].columns if column.name in _KEYS[table]]
        found = " AND ".join(f"{name} = {row[name]!r}" for name in key)
        if table == "journal":
            # UPDATE is refused by a trigger whatever is said.
            new = {**row, **values}
            await self._do(
                f"DELETE FROM journal WHERE {found}", insert=(f"INSERT INTO journal ({', '.join(new)})", new)
            )
        else:
            await self._do(f"UPDATE {table} SET {{}} WHERE {found}", set_=values)

    async def text(self) -> str:
        """Return everything in every table as text, bytes as latin-1."""
        shown = []
        for table in metadata.tables:
            for row in await self.rows(table):
                shown += [v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in row.values()]
        return "\n".join(shown)

    async def _do(self, statement: str, *, insert: tuple[str, Row] | None = None, set_: Row | None = None) -> list[Row]:
        if self._url.startswith("sqlite"):
            return self._on_sqlite(statement, insert, set_)
        connection = await asyncpg.connect(self._url)
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL durable_flow.maintenance = 'prune'")
                if set_ is not None:
                    named = ", ".join(f"{name} = ${n}" for n, name in enumerate(set_, 1))
                    await connection.execute(statement.format(named), *set_.values())
                    return []
                found = [dict(row) for row in await connection.fetch(statement)]
                if insert is not None:
                    text, row = insert
                    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
                    await connection.execute(f"{text} VALUES ({places})", *row.values())
                return found
        finally:
            await connection.close()

    def _on_sqlite(self, statement: str, insert: tuple[str, Row] | None, set_: Row | None) -> list[Row]:
        with closing(sqlite3.connect(self._url.removeprefix("sqlite:///"))) as file, file:
            file.row_factory = sqlite3.Row
            if set_ is not None:
                file.execute(statement.format(", ".join(f"{name} = ?" for name in set_)), tuple(set_.values()))
                return []
            if insert is not None:
                file.execute("INSERT INTO maintenance (task, since) VALUES ('prune', 0)")
            found = [dict(row) for row in file.execute(statement).fetchall()]
            if insert is not None:
                text, row = insert
                file.execute(f"{text} VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
                file.execute("DELETE FROM maintenance")
            return found


_KEYS = {
    "journal": ("run", "seq"), "stream": ("run", "position"), "messages": ("id",), "waits": ("run", "wait_id"),
    "runs": ("run",), "snapshots": ("run", "seq"),
}  # fmt: skip


def flipped(data: bytes, at: int = -1) -> bytes:
    """Return the data with one bit changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)
