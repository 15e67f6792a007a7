"""Workflows, and processes of others, for the faults of SQLite files."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.records import StepCompleted

# The step that a test can hold: some have completed before.
HELD = 5


class NextCount(Event):
    at: int


class Counting(Workflow):
    """Counts to `steps`, one step each; `filler` bytes are written with every step.

    `told` holds for each run the steps whose completion was durable, as the run itself was told: the next one began.
    Step HELD waits for `hold`.
    """

    def __init__(self, steps: int, filler: int = 0, **kwargs: Any):
        super().__init__(**{"workflow_name": "Counting", **kwargs})
        self.steps = steps
        self.filler = "x" * filler
        self.told: dict[str, set[int]] = {}
        self.hold = asyncio.Event()
        self.hold.set()

    @step(num_workers=1)
    async def count(self, ctx: Context, ev: StartEvent | NextCount) -> NextCount | StopEvent:
        at = ev.at if isinstance(ev, NextCount) else 0
        self.told.setdefault(ctx.run_id, set()).update(range(at))
        if at == HELD:
            await self.hold.wait()
        ctx.data["counted"] = [*ctx.data.get("counted", []), at]
        ctx.data["filler"] = f"{at}{self.filler}"
        return NextCount(at=at + 1) if at + 1 < self.steps else StopEvent(result=ctx.data["counted"])

    @property
    def progress(self) -> int:
        """The number of steps that are known to be durable, over all runs."""
        return sum(map(len, self.told.values()))

    async def are_held(self, runs: int) -> bool:
        """Tell whether so many runs have come to the step that is held."""
        return self.progress == runs * HELD


async def completions(journal: Journal, run_id: str) -> int:
    """Return how many steps are recorded as completed."""
    return sum(isinstance(record.fact, StepCompleted) for record in await journal.history(run_id))


LOCKER = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
file.execute("BEGIN " + sys.argv[2])
print("locked", flush=True)
sys.stdin.readline()
file.execute("ROLLBACK")
"""


@asynccontextmanager
async def locked(path: Path, mode: str) -> AsyncIterator[None]:
    """Let another process keep the database locked during the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCKER, str(path), mode,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"locked\n"
        yield
    finally:
        await process.communicate(b"\n")


@asynccontextmanager
async def turning() -> AsyncIterator[list[float]]:
    """Measure how long the loop stands still at most: the only item of the list, in seconds."""
    gaps = [0.0]

    async def turn() -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            gaps[0] = max(gaps[0], now - before)
            before = now

    task = asyncio.create_task(turn())
    try:
        yield gaps
    finally:
        task.cancel()
