"""A run that fans out to 100 tasks by returning a list and joins them, repeated `size` times; a unit is a run."""

from __future__ import annotations

from workloads.common import Bench, Context, Event, StartEvent, StopEvent, Workflow, run, step

WIDTH = 100


class Work(Event):
    n: int


class Done(Event):
    n: int


class FanOut(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[Work]:
        return [Work(n=n) for n in range(WIDTH)]

    @step
    async def work(self, ev: Work) -> Done:
        return Done(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        done = ctx.collect_events(ev, [Done] * WIDTH)
        return None if done is None else StopEvent(result=sum(event.n for event in done))


async def fanout(bench: Bench) -> None:
    flow = bench.flow(FanOut)
    for _ in range(2):
        assert await flow.run() == sum(range(WIDTH))
    with bench.measure(bench.size):
        for _ in range(bench.size):
            await flow.run()


if __name__ == "__main__":
    run(fanout)
