"""Databases behind a proxy, a deadline for each test of Postgres, and an eye on the password in every log line."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from deadlines import limit
from postgres import PostgresServer, new_database, new_folder

from durable_flow.journal.migrate import upgrade_url
from durable_flow.journal.postgres import PostgresStore

from .proxy import Proxy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every asynchronous test of Postgres a deadline."""
    limit((item for item in items if item.path.match("faults/test_postgres_*.py")), seconds=60)


@pytest.fixture(scope="session")
def template(tcp_server: PostgresServer) -> Iterator[str]:
    """The name of a database with the newest schema on `tcp_server`, to be cloned."""
    with new_database(tcp_server) as name:
        # Waits in this thread, in which a loop may run.
        _in_thread(upgrade_url, tcp_server.url(name))
        yield name


@pytest.fixture
def database(tcp_server: PostgresServer, template: str) -> Iterator[str]:
    """The name of a database of the test's own on `tcp_server`, with the newest schema."""
    with new_database(tcp_server, template) as name:
        yield name


@pytest.fixture
def url(tcp_server: PostgresServer, database: str) -> str:
    """The URL of that database, by TCP and with a password."""
    return tcp_server.tcp_url(database, tcp_server.USER, tcp_server.PASSWORD)


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server that tests may stop; each finds it running."""
    with new_folder() as folder, PostgresServer(folder, fsync=True) as server:
        yield server


@pytest.fixture
def mortal_database(mortal: PostgresServer) -> Iterator[str]:
    """The name of a database of the test's own on `mortal`, with the newest schema."""
    with new_database(mortal) as name:
        _in_thread(upgrade_url, mortal.url(name))
        yield name


@pytest.fixture
async def proxy(tcp_server: PostgresServer) -> AsyncIterator[Proxy]:
    """A proxy in front of `tcp_server`."""
    async with Proxy(tcp_server).running() as proxy:
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make stores of this process give up after so many seconds, unless they are told otherwise."""

    def give_up_after(seconds: float) -> None:
        monkeypatch.setitem(PostgresStore.__init__.__kwdefaults__, "deadline_seconds", seconds)

    return give_up_after


@pytest.fixture
async def new_store() -> AsyncIterator[Callable[..., Any]]:
    """Open stores; they are closed after the test."""
    stores: list[PostgresStore] = []

    async def new(url: str, **options: Any) -> PostgresStore:
        store = PostgresStore(url, **options)
        stores.append(store)
        await store.open()
        return store

    yield new
    for store in stores:
        await store.close()


@pytest.fixture
def discreet(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log; none of its lines may hold the password."""
    caplog.set_level(logging.DEBUG, "durable_flow")
    yield caplog
    lines = [f"{record.getMessage()} {record.__dict__} {record.exc_text}" for record in caplog.records]
    secrets = (PostgresServer.PASSWORD, quote(PostgresServer.PASSWORD, safe=""))
    assert [line for line in lines if any(secret in line for secret in secrets)] == []


def _in_thread(function: Callable[..., Any], *arguments: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as threads:
        threads.submit(function, *arguments).result()
