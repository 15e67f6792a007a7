"""A journal of each kind for every test, a deadline for all of them, and log lines as moments to wait for."""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deadlines import limit

from durable_flow import Journal

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every asynchronous test of this folder a deadline."""
    limit((item for item in items if HERE in item.path.parents), seconds=40)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of the newest schema: copying it is much faster than creating it."""
    folder = tmp_path_factory.mktemp("empty")

    async def make() -> None:
        async with Journal(f"sqlite:///{folder}/jobs.db"):
            pass

    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, make()).result()
    return folder


@pytest.fixture
def url(empty_database: Path, tmp_path: Path) -> str:
    """The URL of an SQLite journal of the test's own."""
    shutil.copytree(empty_database, tmp_path, dirs_exist_ok=True)
    return f"sqlite:///{tmp_path}/jobs.db"


WHERE = {"memory": lambda request: "memory://", "sqlite": lambda request: request.getfixturevalue("url"),
         "postgres": lambda request: request.getfixturevalue("postgres_url")}  # fmt: skip


@pytest.fixture(params=list(WHERE))
def new_journal(request: pytest.FixtureRequest) -> Callable[..., Journal]:
    """Make a Journal with options on one database, of each kind."""
    where = WHERE[request.param](request)
    return functools.partial(Journal, where, durability="normal")


@pytest.fixture
async def journal(new_journal: Callable[..., Journal]) -> AsyncIterator[Journal]:
    """An open journal of each kind."""
    async with new_journal() as journal:
        yield journal


@pytest.fixture
async def memory() -> AsyncIterator[Journal]:
    """An open journal in memory, for what does not depend on the store."""
    async with Journal("memory://") as journal:
        yield journal


@pytest.fixture
async def file(url: str) -> AsyncIterator[Journal]:
    """An open journal in a file, for what needs one that outlives a loop or a process."""
    async with Journal(url, durability="normal") as journal:
        yield journal


class Log(logging.Handler):
    """The log lines of the package, by their `action`; each is a moment that a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._arrived = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._arrived.set()

    def of(self, action: str) -> list[logging.LogRecord]:
        return [record for record in self.records if getattr(record, "action", None) == action]

    async def seen(self, action: str, times: int = 1) -> list[logging.LogRecord]:
        while len(self.of(action)) < times:
            self._arrived.clear()
            await self._arrived.wait()
        return self.of(action)


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("durable_flow")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)
