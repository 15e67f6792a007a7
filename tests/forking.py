"""Python processes that start quickly: forked from a server that has imported the package and its drivers.

An interpreter needs about a second of processor time until it has imported them, more than most processes of the tests
need for all that they do then. A forked process is as any other one: it has a session, a pid and a time of birth of its
own, runs its module or script as `python` would, and ends as an interpreter does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import statements

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


class Started:
    """A process that was forked, as `subprocess.Popen` shows one whose streams are text.

    Standard error is a file, in which `stderr` reads from the beginning.
    """

    def __init__(self, told: socket.socket, stdin: IO[str] | None, stdout: IO[str], stderr: IO[str] | None):
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.returncode: int | None = None
        self._told, self._news = told, b""
        self.pid = int(self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.wait()
        self._told.close()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                # What it has not read any more.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended. Raises TimeoutError."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            self.returncode = int(self._line())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return the rest of its output, and its errors, once it has ended. Raises TimeoutError."""
        if self.stdin is not None:
            self.stdin.close()
        output = self.stdout.read()
        self.wait(timeout)
        return output, self.stderr.read() if self.stderr is not None else ""

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _line(self) -> bytes:
        while b"\n" not in self._news:
            data = self._told.recv(MAX_BYTES)
            assert data, "the server of the processes has ended"
            self._news += data
        line, _, self._news = self._news.partition(b"\n")
        return line


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
            told = self._ask(["-m", module, *arguments], cwd, os.environ, [its.fileno(), its.fileno(), errors])
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
        self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_seconds: float, merged: bool = False
    ) -> tuple[int, str, str]:
        """Run what `python` would run by these words to its end; return exit code, output and errors.

        `merged`: what it writes to its standard error is in its output. Raises TimeoutError.
        """
        with (
            open(os.devnull) as nothing,
            tempfile.TemporaryFile("w+") as output,
            tempfile.TemporaryFile("w+") as errors,
        ):
            fds = [file.fileno() for file in (nothing, output, output if merged else errors)]
            told = self._ask(words, cwd, env, fds)
            with Started(told, None, output, errors) as process:
                code = process.wait(timeout_seconds)
                output.seek(0)
                errors.seek(0)
                return code, output.read(), errors.read()

    def start(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], merged: bool = False) -> Started:
        """Start what `python` would run by these words. It is killed at the end of a `with` block.

        `merged`: what it writes to its standard error is in its output, and it has no input.
        """
        output, its_output = os.pipe()
        if merged:
            stdin, stderr = None, None
            files = [os.open(os.devnull, os.O_RDONLY), its_output, its_output]
        else:
            its_input, ours = os.pipe()
            its_errors, name = tempfile.mkstemp()
            stdin, stderr = open(ours, "w"), open(name)  # noqa: SIM115 - closed with the process
            os.unlink(name)
            files = [its_input, its_output, its_errors]
        told = self._ask(words, cwd, env, files)
        for file in set(files):
            os.close(file)
        return Started(told, stdin, open(output), stderr)

    def _ask(self, words: Sequence[str], cwd: Path, env: Mapping[str, str], fds: list[int]) -> socket.socket:
        """Ask for a process with these standard files; return what tells its pid and, at its end, its exit code."""
        request = json.dumps({"words": list(words), "cwd": str(cwd), "env": dict(env)})
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


def _become(request: dict[str, Any], files: list[int]) -> list[str]:
    """Make this process what was asked for; return the words for `python`."""
    os.setsid()
    for target, fd in enumerate(files):
        os.dup2(fd, target)
    for fd in files:
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    output = open(1, "wb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(output, write_through=unbuffered)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    words: list[str] = request["words"]
    return words


def _run(words: list[str]) -> None:
    """Run this as `python` does: `-m` and a module, or a script, with arguments."""
    folder = os.getcwd() if words[0] == "-m" else os.path.dirname(words[0])
    sys.path[:0] = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def main(descriptor: int) -> None:
    # Imported late by the stores; here once for all.
    import aiosqlite  # noqa: F401
    import sqlalchemy.dialects.postgresql.asyncpg
    import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

    import durable_flow.journal.postgres
    import durable_flow.journal.sqlite  # noqa: F401

    statements.compile_for_forks()
    gc.collect()
    gc.freeze()
    words = serve(socket.socket(fileno=descriptor))
    if words is not None:
        _run(words)


if __name__ == "__main__":
    main(int(sys.argv[1]))
