"""Databases of either kind, as the tests of the migrations use them."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from durable_flow.journal import migrate
from durable_flow.journal.url import is_postgres, sqlite_path

TOMORROW = f"{int(migrate.HEAD) + 1:04}"

NEXT = """
from alembic import op
import sqlalchemy as sa

revision, down_revision, branch_labels, depends_on = "{tomorrow}", "{today}", None, None

def upgrade():
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("colour", sa.Text))
    {then}
"""


def newer(tmp_path: Path, then: str = "pass") -> Path:
    """The migrations of a package that is one revision ahead."""
    folder = tmp_path / "migrations of tomorrow"
    shutil.copytree(migrate.migrations_path(), folder)
    text = NEXT.format(today=migrate.HEAD, tomorrow=TOMORROW, then=then)
    (folder / "versions" / f"{TOMORROW}_colour.py").write_text(text)
    return folder


@contextmanager
def tomorrow(tmp_path: Path, then: str = "pass") -> Iterator[None]:
    """Make this package the one of tomorrow, for the block only."""
    folder = newer(tmp_path, then)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "migrations_path", lambda: folder)
        patch.setattr(migrate, "HEAD", TOMORROW)
        yield


def rows(url: str, *statements: str) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement, all in one transaction. Not to be called within an event loop."""
    if is_postgres(url):
        return asyncio.run(_postgres_rows(url, statements))
    with closing(sqlite3.connect(sqlite_path(url))) as file, file:
        return [file.execute(statement).fetchall() for statement in statements]


async def _postgres_rows(url: str, statements: tuple[str, ...]) -> list[list[tuple[Any, ...]]]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            return [[tuple(row) for row in await connection.fetch(statement)] for statement in statements]
    finally:
        await connection.close()
