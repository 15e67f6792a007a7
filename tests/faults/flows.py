"""Workflows for the tests of faults, and what is asked of them afterwards."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

LAST = 12


class Count(StartEvent):
    name: str


class NextCount(Event):
    number: int


class Counting(Workflow):
    """Counts to `LAST`, a step for each number; the result is what the context says was counted.

    `ran` counts how often a step ran in this process, by run and number. `begun` is set when `moment` steps have begun.
    """

    def __init__(self, *, moment: int = 0, **kwargs: Any):
        super().__init__(**{"workflow_name": "Counting", **kwargs})
        self.ran: Counter[tuple[str, int]] = Counter()
        self.begun = asyncio.Event()
        self._moment = moment

    @step
    async def begin(self, ctx: Context, ev: Count) -> NextCount:
        ctx.data["name"] = ev.name
        return NextCount(number=1)

    @step
    async def count(self, ctx: Context, ev: NextCount) -> NextCount | StopEvent:
        name = ctx.data["name"]
        self.ran[name, ev.number] += 1
        if self.ran.total() >= self._moment:
            self.begun.set()
        # So that a run takes a while, and its steps are spread over the whole of it.
        await asyncio.sleep(0.005)
        ctx.data[f"number {ev.number}"] = await ctx.call("square", square, ev.number)
        if ev.number < LAST:
            return NextCount(number=ev.number + 1)
        return StopEvent(result=[ctx.data[f"number {n}"] for n in range(1, LAST + 1)])


async def square(number: int) -> int:
    return number * number


RESULT = [number * number for number in range(1, LAST + 1)]


async def main(url: str) -> None:
    """Take up every run of the database that is free, in a process of its own, and wait for their ends."""
    for handler in await Counting(journal=url).recover():
        assert await handler == RESULT


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
