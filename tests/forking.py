"""Python processes that start quickly: forked from a server that has imported the package and its drivers.

An interpreter needs about a second of processor time until it has imported them, more than most processes of the tests
need for all that they do then. A forked process is as any other one: it has a session, a pid and a time of birth of its
own, runs its module as `python -m` would, and ends as an interpreter does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

import durable_flow

TESTS = Path(__file__).resolve().parent
PRODUCT = Path(durable_flow.__file__).resolve().parents[1]
MAX_BYTES = 1 << 20


class Forked:
    """A process that was forked; `stdin` and `stdout` are as those of asyncio's processes."""

    def __init__(self, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, pid: int, exit_: asyncio.Task[int]):
        self.stdin, self.stdout, self.pid = stdin, stdout, pid
        self._exit = exit_

    @property
    def returncode(self) -> int | None:
        return self._exit.result() if self._exit.done() else None

    async def wait(self) -> int:
        """Return its exit code once it has ended; negative for the signal that killed it."""
        return await asyncio.shield(self._exit)

    def kill(self) -> None:
        # The news that it has ended may be under way.
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class ForkServer:
    """The server, started when it is made; it ends with `close` or with this process."""

    def __init__(self) -> None:
        self._channel, its = socket.socketpair()
        path = os.pathsep.join([str(TESTS), str(PRODUCT)])
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore::DeprecationWarning", __file__, str(its.fileno())],
                pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip

    def close(self) -> None:
        self._channel.close()
        self._process.wait()

    async def fork(self, module: str, *arguments: str, cwd: Path, errors: int) -> Forked:
        """Run a module that lies in `tests` in a process of its own; `errors` is the file of its standard error."""
        ours, its = socket.socketpair()
        with its:
            told = self._ask([module, *arguments], cwd, os.environ, [its.fileno(), its.fileno(), errors])
        stdout, stdin = await asyncio.open_connection(sock=ours)
        news, writer = await asyncio.open_connection(sock=told)
        pid = int(await news.readline())

        async def exit_code() -> int:
            try:
                return int(await news.readline())
            finally:
                writer.close()
                stdin.close()

        return Forked(stdin, stdout, pid, asyncio.create_task(exit_code()))

    def run(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str], timeout_seconds: float
    ) -> tuple[int, str, str]:
        """Run a module to its end; return exit code, output and errors."""
        with open(os.devnull) as nothing, TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
            fds = [file.fileno() for file in (nothing, output, errors)]
            with self._ask([module, *arguments], cwd, env, fds) as told, told.makefile() as news:
                told.settimeout(timeout_seconds)
                pid = int(news.readline())
                try:
                    code = int(news.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise
            output.seek(0)
            errors.seek(0)
            return code, output.read(), errors.read()

    def _ask(self, argv: list[str], cwd: Path, env: Mapping[str, str], fds: list[int]) -> socket.socket:
        """Ask for a process with these standard files; return what tells its pid and, at its end, its exit code."""
        request = json.dumps({"argv": argv, "cwd": str(cwd), "env": dict(env)})
        told, tells = socket.socketpair()
        with tells:
            socket.send_fds(self._channel, [request.encode() + b"\n"], [*fds, tells.fileno()])
        return told


# -- The server --------------------------------------------------------------------------------------------------------


def serve(channel: socket.socket) -> list[str] | None:
    """Fork a process for each request. Returns in each of them, with what it shall run; here None at the end."""
    # It is told of an end by a byte, so that it can wait for that and for requests at once.
    ends, ended = socket.socketpair()
    ends.setblocking(False)
    ended.setblocking(False)
    signal.set_wakeup_fd(ended.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    news: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel, ends], [], [])
        if ends in ready:
            with contextlib.suppress(BlockingIOError):
                ends.recv(MAX_BYTES)
            _reap(news)
        if channel in ready:
            data, fds = _request(channel)
            if not data:
                return None
            request, (*files, tells) = json.loads(data), fds
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in (channel.detach(), ends.detach(), ended.detach(), tells, *news.values()):
                    os.close(fd)
                return _become(request, files)
            os.write(tells, b"%d\n" % pid)
            news[pid] = tells
            for fd in files:
                os.close(fd)


def _request(channel: socket.socket) -> tuple[bytes, list[int]]:
    data, fds, _, _ = socket.recv_fds(channel, MAX_BYTES, 4)
    while data and not data.endswith(b"\n"):
        data += channel.recv(MAX_BYTES)
    return data, fds


def _reap(news: dict[int, int]) -> None:
    while news:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        # Whoever started it may be gone.
        with contextlib.suppress(BrokenPipeError):
            os.write(news[pid], b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(news.pop(pid))


def _become(request: dict[str, object], files: list[int]) -> list[str]:
    """Make this process what was asked for; return the module and its arguments."""
    os.setsid()
    for target, fd in enumerate(files):
        os.dup2(fd, target)
    for fd in files:
        os.close(fd)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    cwd, env, argv = request["cwd"], request["env"], request["argv"]
    assert isinstance(cwd, str)
    assert isinstance(env, dict)
    assert isinstance(argv, list)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    return argv


def main(descriptor: int) -> None:
    # Imported late by the stores; here once for all.
    import aiosqlite  # noqa: F401
    import sqlalchemy.dialects.postgresql.asyncpg
    import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

    import durable_flow.journal.postgres
    import durable_flow.journal.sqlite  # noqa: F401

    gc.freeze()
    argv = serve(socket.socket(fileno=descriptor))
    if argv is not None:
        sys.argv = argv
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
