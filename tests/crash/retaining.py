"""A process that compacts, prunes or works, and may be killed.

    python -m crash.retaining WHAT [NUMBER POINT]

WHAT is "compact" (the run "long", before its place "half"), "compact-now" (that run, as it stands), "prune", "drop"
(prune without results), or "work": the run "live", each lap of which is noted in `laps.txt`. It is killed at that point
of that commit. The database is that of the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from typing import Any

from durable_flow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.journal import retention

from .kills import Commits

LAPS = 40
# Small ones, so that there are several to be killed at.
BATCH = 15


class RetainedLap(Event):
    n: int


class RetainedAsk(InputRequiredEvent):
    pass


class RetainedAnswer(HumanResponseEvent):
    text: str


class Retained(Workflow):
    """Goes some laps, each with a call, an item and a value; then asks if it was told to, and returns what it has."""

    def __init__(self, *, laps: int = LAPS, ask: bool = True, **kwargs: Any):
        super().__init__(**{"workflow_name": "Retained", "timeout": None, **kwargs})
        self.laps, self.ask = laps, ask

    @step
    async def lap(self, ctx: Context, ev: StartEvent | RetainedLap) -> RetainedLap | RetainedAsk | StopEvent:
        n = ev.n if isinstance(ev, RetainedLap) else 0
        ctx.data["seen"] = [*ctx.data.get("seen", []), await ctx.call("note", self.note, n)]
        ctx.write_event_to_stream(Event(lap=n))
        if n == self.laps // 2:
            await ctx.checkpoint("half")
        if n < self.laps:
            return RetainedLap(n=n + 1)
        return RetainedAsk() if self.ask else StopEvent(result=ctx.data["seen"])

    @step
    async def end(self, ctx: Context, ev: RetainedAnswer) -> StopEvent:
        return StopEvent(result=[ev.text, *ctx.data["seen"]])

    async def note(self, n: int) -> int:
        note(n)
        return n


def note(n: int) -> None:
    with open("laps.txt", "a") as laps:
        laps.write(f"{n}\n")


async def work(journal: Journal) -> None:
    flow = Retained(journal=journal, laps=100_000, ask=False)
    await flow.run(run_id="live")


async def main(what: str, number: str = "0", point: str = "") -> None:
    retention.BATCH = BATCH
    commits = Commits()
    async with Journal() as journal:
        if point:
            commits.kill_at(int(number), point)
        if what == "work":
            await work(journal)
        elif what == "compact":
            await journal.compact("long", before="half")
        elif what == "compact-now":
            await journal.compact("long")
        else:
            await journal.prune(timedelta(0), keep_results=what == "prune")
        print(commits.count, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    asyncio.run(main(*sys.argv[1:]))
