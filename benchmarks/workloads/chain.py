"""One run of 100 steps in a loop, one state write each, repeated `size` times; a unit is a step."""

from __future__ import annotations

from workloads.common import Bench, Context, Event, StartEvent, StopEvent, Workflow, run, step

STEPS = 100


class Tick(Event):
    n: int


class Chain(Workflow):
    @step
    async def tick(self, ctx: Context, ev: StartEvent | Tick) -> Tick | StopEvent:
        n = ev.n + 1 if isinstance(ev, Tick) else 1
        await ctx.store.set("n", n)
        return Tick(n=n) if n < STEPS else StopEvent(result=n)


async def chain(bench: Bench) -> None:
    flow = bench.flow(Chain)
    for _ in range(3):
        assert await flow.run() == STEPS
    with bench.measure(bench.size * STEPS):
        for _ in range(bench.size):
            await flow.run()


if __name__ == "__main__":
    run(chain)
