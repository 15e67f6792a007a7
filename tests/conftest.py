"""Fixtures and settings that all tests share."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
import statements
from forking import ForkServer
from hypothesis import HealthCheck, settings
from postgres import PostgresServer, Server, new_database, new_folder, server_of_the_tests

# The machine may serve several test runs at once, so a slow example says nothing.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_configure() -> None:
    """Compare every snapshot that is read, here and in processes that tests start, with the records before it."""
    os.environ["DURABLE_FLOW_VERIFY_SNAPSHOTS"] = "1"
    statements.share()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: processes of pytest that share the tests (`-n`) then end together."""
    items.sort(key=lambda item: item.path.parent.name != "crash")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what is there for all tests out of each garbage collection: their thousands make it 30 times as slow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_journal_from_the_environment() -> Iterator[None]:
    """Keep tests away from the journal of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DURABLE_FLOW_DATABASE_URL", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Let processes that tests start feel Ctrl-C: a shell's background jobs, and all that they start, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """What starts processes quickly."""
    with closing(ForkServer()) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The server that all tests share; it may be somebody else's and be reached in any way."""
    with server_of_the_tests(os.environ) as server:
        yield server


@pytest.fixture(scope="session")
def tcp_server(postgres_server: Server) -> Iterator[PostgresServer]:
    """A server of our own, with a TCP port and a role that needs a password; no test may stop it."""
    if isinstance(postgres_server, PostgresServer):
        yield postgres_server
        return
    with server_of_the_tests({}) as server:
        assert isinstance(server, PostgresServer)
        yield server


@pytest.fixture
def new_server() -> Iterator[Callable[..., PostgresServer]]:
    """Start a server that the test may stop and start: `new_server(fsync=True)`. It is gone after the test."""
    with ExitStack() as servers:

        def start(*, fsync: bool = True) -> PostgresServer:
            folder = servers.enter_context(new_folder(fast=not fsync))
            return servers.enter_context(PostgresServer(folder, fsync=fsync))

        yield start


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Server) -> Iterator[str]:
    """The name of a database that has the newest schema and nothing else: to be cloned, not to be connected to."""
    from durable_flow.journal.migrate import upgrade_url

    with new_database(postgres_server) as name:
        # In a thread of its own, because a loop may be running in this one.
        with ThreadPoolExecutor() as threads:
            threads.submit(upgrade_url, postgres_server.url(name)).result()
        yield name


@pytest.fixture
def postgres_url(postgres_server: Server, postgres_template: str) -> Iterator[str]:
    """The URL of a database with the newest schema, which nobody else uses."""
    with new_database(postgres_server, template=postgres_template) as name:
        yield postgres_server.url(name)
