"""One fixture for every store; tests ask what a store can do, never which one it is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from durable_flow.journal.memory import MemoryStore
from durable_flow.journal.protocol import JournalStore


@dataclass(frozen=True)
class Backend:
    """A place to keep journals in.

    `new` makes a store on it, not opened yet. `shared`: all stores on it see the same journals, also after a close.
    """

    new: Callable[[], JournalStore]
    shared: bool


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that has the newest schema: copying it is much faster than creating it."""
    folder = tmp_path_factory.mktemp("template")

    async def make() -> None:
        store = sqlite_store(folder / "jobs.db")
        await store.open()
        await store.close()

    # In a thread of its own, because a loop may be running in this one.
    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, make()).result()
    return folder


def sqlite_store(path: Path) -> JournalStore:
    from durable_flow.journal.sqlite import SqliteStore

    return SqliteStore(f"sqlite:///{path}", durability="normal")


def postgres_store(url: str) -> JournalStore:
    from durable_flow.journal.postgres import PostgresStore

    return PostgresStore(url)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "memory":
        return Backend(MemoryStore, shared=False)
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return Backend(lambda: postgres_store(url), shared=True)
    template: Path = request.getfixturevalue("sqlite_template")
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Backend(lambda: sqlite_store(tmp_path / "jobs.db"), shared=True)


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[JournalStore]:
    store = backend.new()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(backend: Backend) -> AsyncIterator[JournalStore]:
    """A second store that sees the same journals as `store`."""
    if not backend.shared:
        pytest.skip("every store of this kind keeps journals of its own")
    store = backend.new()
    await store.open()
    yield store
    await store.close()
