"""The processes of these tests, and how a test waits for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from forking import PRODUCT, TESTS, Forked, ForkServer

DEADLINE_SECONDS = 60.0

T = TypeVar("T")


class Process:
    """A process that runs a Life of `program`."""

    def __init__(self, child: asyncio.subprocess.Process | Forked, log: Path):
        self.child = child
        self.log = log

    @property
    def pid(self) -> int:
        return self.child.pid

    async def says(self) -> str:
        """Return the next line that it prints."""
        assert self.child.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await self.child.stdout.readline()
        assert line.endswith(b"\n"), f"the process has ended:\n{self.log.read_text()}"
        return line.decode().rstrip()

    async def go(self) -> None:
        """Let it begin, as soon as it is ready."""
        assert await self.says() == "ready"
        assert self.child.stdin is not None
        self.child.stdin.write(b"\n")
        await self.child.stdin.drain()

    async def result(self) -> Any:
        return json.loads(await self.says())

    async def ends(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.child.wait()

    async def kill(self) -> None:
        self.child.kill()
        await self.ends()

    async def stop(self) -> None:
        """Stop it; it does nothing any more when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        await until(lambda: state_of(self.pid) == "T")

    def continue_(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@asynccontextmanager
async def living(life: dict[str, Any], forks: ForkServer, *, prefix: Sequence[str] = ()) -> AsyncIterator[Process]:
    """Give a process that does not outlive the block, in a group of its own; `prefix`: a command that starts it."""
    log = Path(life["folder"]) / f"{life['who']}.log"
    errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    module, cwd = "ownership.program", Path(life["folder"])
    child: asyncio.subprocess.Process | Forked
    if prefix:
        child = await asyncio.create_subprocess_exec(
            *prefix, sys.executable, "-m", module, json.dumps(life), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=cwd, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(PRODUCT)])},
        )  # fmt: skip
    else:
        child = await forks.fork(module, json.dumps(life), cwd=cwd, errors=errors)
    os.close(errors)
    try:
        yield Process(child, log)
    finally:
        # The last news of a forked one may be under way.
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


async def until(holds: Callable[[], T | Awaitable[T]]) -> T:
    """Wait until this gives something true, and return that."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = holds()
        value: Any = await found if inspect.isawaitable(found) else found
        if value:
            return value  # type: ignore[no-any-return]
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)
