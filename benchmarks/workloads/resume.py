"""A fresh process takes up a run of which `size` steps are done and runs its last one; a unit is a resume.

The process that did those steps is gone without a word, as after a kill. Each step made one small state write.
"""

from __future__ import annotations

import asyncio
import os

from workloads.common import Bench, Context, Event, StartEvent, StopEvent, Workflow, run, step

STEPS_OF_WARM_UP = 10


class Tick(Event):
    n: int
    last: int


class LongRun(Workflow):
    reached: asyncio.Event | None = None

    @step
    async def tick(self, ctx: Context, ev: StartEvent | Tick) -> Tick | StopEvent:
        n = ev.n + 1 if isinstance(ev, Tick) else 1
        if n <= ev.last:
            await ctx.store.set("n", n)
            return Tick(n=n, last=ev.last)
        if self.reached is not None:
            self.reached.set()
            await asyncio.Event().wait()
        return StopEvent(result=await ctx.store.get("n"))


async def leave_behind(bench: Bench) -> None:
    for run_id, steps in (("warm-up", STEPS_OF_WARM_UP), ("measured", bench.size)):
        flow = bench.flow(LongRun)
        flow.reached = asyncio.Event()
        flow.run(run_id=run_id, last=steps)
        await flow.reached.wait()
    os._exit(0)


async def resume(bench: Bench) -> None:
    flow = bench.flow(LongRun)
    assert await (await flow.resume("warm-up")) == STEPS_OF_WARM_UP
    with bench.measure(1):
        result = await (await flow.resume("measured"))
    assert result == bench.size


if __name__ == "__main__":
    run(resume, prepare=leave_behind)
