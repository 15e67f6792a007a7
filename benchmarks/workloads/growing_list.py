"""One run of `size` steps, each appending one item to a list in the context; a unit is a step.

Its twin `constant_write.py` writes a value of constant size instead.
"""

from __future__ import annotations

from workloads.common import Bench, Context, Event, StartEvent, StopEvent, Workflow, run, step


class Tick(Event):
    n: int
    last: int


class GrowingList(Workflow):
    @step
    async def tick(self, ctx: Context, ev: StartEvent | Tick) -> Tick | StopEvent:
        n = ev.n + 1 if isinstance(ev, Tick) else 1
        notes = await ctx.store.get("notes", default=None) or []
        notes.append(f"note {n}")
        await ctx.store.set("notes", notes)
        return Tick(n=n, last=ev.last) if n < ev.last else StopEvent(result=len(notes))


async def growing_list(bench: Bench) -> None:
    flow = bench.flow(GrowingList)
    await flow.run(last=100)
    with bench.measure(bench.size):
        assert await flow.run(last=bench.size) == bench.size


if __name__ == "__main__":
    run(growing_list)
