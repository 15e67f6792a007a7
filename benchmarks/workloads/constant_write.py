"""One run of `size` steps, each writing one value of constant size; the measure for `growing_list.py`."""

from __future__ import annotations

from workloads.common import Bench, Context, Event, StartEvent, StopEvent, Workflow, run, step


class Tick(Event):
    n: int
    last: int


class ConstantWrite(Workflow):
    @step
    async def tick(self, ctx: Context, ev: StartEvent | Tick) -> Tick | StopEvent:
        n = ev.n + 1 if isinstance(ev, Tick) else 1
        await ctx.store.set("note", f"note {n}")
        return Tick(n=n, last=ev.last) if n < ev.last else StopEvent(result=n)


async def constant_write(bench: Bench) -> None:
    flow = bench.flow(ConstantWrite)
    await flow.run(last=100)
    with bench.measure(bench.size):
        assert await flow.run(last=bench.size) == bench.size


if __name__ == "__main__":
    run(constant_write)
