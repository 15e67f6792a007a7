"""`size` reads of one small context value in a step; a unit is a read."""

from __future__ import annotations

from workloads.common import Bench, Context, StartEvent, StopEvent, Workflow, run, step

KEYS = 10


class Reader(Workflow):
    bench: Bench

    @step
    async def read(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for key in range(KEYS):
            await ctx.store.set(f"key{key}", key)
        for _ in range(1000):
            await ctx.store.get("key7", default=0)
        with self.bench.measure(self.bench.size):
            for _ in range(self.bench.size):
                await ctx.store.get("key7", default=0)
        return StopEvent(result=await ctx.store.get("key7"))


async def context_get(bench: Bench) -> None:
    flow = bench.flow(Reader)
    flow.bench = bench
    assert await flow.run() == 7


if __name__ == "__main__":
    run(context_get)
