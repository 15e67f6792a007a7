"""`size` runs of three steps, 64 at once; a unit is a run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from workloads.common import Bench, Event, StartEvent, StopEvent, Workflow, run, step

AT_ONCE = 64


class Parsed(Event):
    n: int


class Ranked(Event):
    n: int


class ThreeSteps(Workflow):
    @step
    async def parse(self, ev: StartEvent) -> Parsed:
        return Parsed(n=ev.n)

    @step
    async def rank(self, ev: Parsed) -> Ranked:
        return Ranked(n=ev.n)

    @step
    async def report(self, ev: Ranked) -> StopEvent:
        return StopEvent(result=ev.n)


async def lane(flow: ThreeSteps, numbers: Iterator[int]) -> None:
    for n in numbers:
        assert await flow.run(n=n) == n


async def all_lanes(flow: ThreeSteps, runs: int) -> None:
    numbers = iter(range(runs))
    await asyncio.gather(*(lane(flow, numbers) for _ in range(AT_ONCE)))


async def runs64(bench: Bench) -> None:
    flow = bench.flow(ThreeSteps)
    await all_lanes(flow, 2 * AT_ONCE)
    with bench.measure(bench.size):
        await all_lanes(flow, bench.size)


if __name__ == "__main__":
    run(runs64)
