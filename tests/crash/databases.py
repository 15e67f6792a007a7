"""Where journals of these tests are: databases of each kind, made from a template and looked at by plain SQL."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from postgres import PostgresServer, Server

from durable_flow import Journal

DEADLINE_SECONDS = 60.0
OTHERS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


class Database(Protocol):
    """A database that processes use, and that a test looks into."""

    @property
    def url(self) -> str: ...

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement; looking must not tidy up what a killed process left."""
        ...

    def all_rows(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        """Return the rows of each statement, as `rows` does."""
        ...

    def come_to_rest(self) -> None:
        """Return when nothing goes on any more in the name of a process that was killed."""
        ...


class Place(Protocol):
    """Makes databases.

    `kills`: at how many commits the processes of one test may be killed here; None: at every one.
    """

    kills: int | None

    def new(self, folder: Path) -> AbstractContextManager[Database]:
        """Give a Database without runs, for a `with` block; the folder is for its files if it has some."""
        ...


@dataclass
class SqliteDatabase:
    path: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self.all_rows([statement])[0]

    def all_rows(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        # Of a copy: who opens the file replays its log and removes it.
        scratch = Path(tempfile.mkdtemp(prefix="copy-", dir=self.path.parent))
        for file in (self.path, Path(f"{self.path}-wal")):
            if file.exists():
                shutil.copyfile(file, scratch / file.name)
        connection = sqlite3.connect(scratch / self.path.name)
        try:
            return [connection.execute(statement).fetchall() for statement in statements]
        finally:
            connection.close()
            shutil.rmtree(scratch)

    def come_to_rest(self) -> None:
        """Nothing to wait for: what a process writes, it writes itself."""


class SqlitePlace:
    def __init__(self, folder: Path, kills: int | None):
        self.kills = kills
        self._template = SqliteDatabase(folder / "jobs.db")

        async def make() -> None:
            async with Journal(self._template.url):
                pass

        # In a thread of its own, because a loop may be running in this one.
        with ThreadPoolExecutor() as threads:
            threads.submit(asyncio.run, make()).result()

    @contextmanager
    def new(self, folder: Path) -> Iterator[SqliteDatabase]:
        # Making the tables takes longer than a whole life.
        shutil.copyfile(self._template.path, folder / "jobs.db")
        yield SqliteDatabase(folder / "jobs.db")


@dataclass
class PostgresDatabase:
    server: Server
    name: str

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self.all_rows([statement])[0]

    def all_rows(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        return [[tuple(row) for row in rows] for rows in self.server.execute_all(statements, self.name)]

    def come_to_rest(self) -> None:
        """The server does to its end what it was asked for, also when nobody is there any more to be answered."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.rows(OTHERS) != [(0,)]:
            assert time.monotonic() < deadline, "connections of a killed process are still there"
            time.sleep(0.01)


class PostgresPlace:
    def __init__(self, server: Server, template: str, kills: int | None):
        self.kills = kills
        self._server = server
        self._template = template
        self._numbers = itertools.count(1)
        self._administering = threading.Lock()

    @contextmanager
    def new(self, folder: Path) -> Iterator[PostgresDatabase]:
        name = f"{self._template}_{next(self._numbers)}"
        # The server is administered by one connection, which threads cannot share.
        with self._administering:
            self._server.create(name, self._template)
        try:
            yield PostgresDatabase(self._server, name)
        finally:
            with self._administering:
                self._server.drop(name)


@dataclass
class DyingDatabase(PostgresDatabase):
    """A database whose server dies in the same moment as the processes that use it."""

    server: PostgresServer

    @property
    def server_pid(self) -> int:
        return int((self.server.folder / "data" / "postmaster.pid").read_text().split()[0])

    def come_to_rest(self) -> None:
        """Start the server again; it recovers what it had committed."""
        # It was told to end by the process that died; this waits until it has.
        self.server.stop("immediate")
        self.server.start()
