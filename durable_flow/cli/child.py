"""A child process whose output is passed on line by line, and that does not outlive its parent's interest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from .text import INDENT


class Child:
    """A running child; made by `started`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._relay = asyncio.create_task(self._pass_on())
        self.pid = process.pid

    async def _pass_on(self) -> None:
        assert self._process.stdout is not None  # it was asked for with PIPE
        async for line in self._process.stdout:
            print(f"{INDENT}[{self.pid}] {line.decode(errors='replace').rstrip()}", flush=True)

    @property
    def ended(self) -> bool:
        """Tell whether the process is gone."""
        return self._process.returncode is not None

    async def kill(self) -> None:
        """End the process with SIGKILL, which it can neither catch nor delay, and wait for its end."""
        if not self.ended:
            self._process.kill()
        await self.wait()

    async def wait(self) -> int:
        """Wait for the end and for the last line; return the exit code, negative for a signal."""
        code = await self._process.wait()
        await self._relay
        return code


@asynccontextmanager
async def started(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[Child]:
    """Start a process; it is killed if it still runs when the block is left."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A Ctrl-C at the terminal is for the parent alone, which then ends the child without a traceback.
        start_new_session=True,
    )
    child = Child(process)
    try:
        yield child
    finally:
        await child.kill()
