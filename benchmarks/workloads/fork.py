"""A run of which `size` steps are done is forked at one of its last checkpoints; a unit is a fork that is durable."""

from __future__ import annotations

from workloads.common import Bench, Context, Event, StartEvent, StopEvent, Workflow, run, step

FORKS = 20


class Tick(Event):
    n: int
    last: int


class LongRun(Workflow):
    @step
    async def tick(self, ctx: Context, ev: StartEvent | Tick) -> Tick | StopEvent:
        n = ev.n + 1 if isinstance(ev, Tick) else 1
        if n > ev.last:
            return StopEvent(result=n)
        await ctx.store.set("n", n)
        return Tick(n=n, last=ev.last)


async def fork(bench: Bench) -> None:
    await bench.flow(LongRun).run(run_id="long", last=bench.size)
    journal = bench.journal
    assert journal is not None
    last = (await journal.run("long")).seq
    at = next(c.seq for c in await journal.checkpoints("long", after=last - 20) if c.kind == "step")
    await journal.fork("long", at)
    with bench.measure(FORKS):
        for _ in range(FORKS):
            await journal.fork("long", at, set={"n": 0})


if __name__ == "__main__":
    run(fork)
