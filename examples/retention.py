"""A journal that does not grow for ever: a long-lived run is compacted while it works, and old runs are pruned.

    python examples/retention.py

It uses retention.db in this folder.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durable_flow import CheckpointError, Context, Event, Journal, StartEvent, StopEvent, Workflow, step

ROUNDS = 300


class Round(Event):
    n: int


class Collector(Workflow):
    """Adds up readings, one a round, for as long as there are any."""

    @step
    async def collect(self, ctx: Context, ev: StartEvent | Round) -> Round | StopEvent:
        n = ev.n if isinstance(ev, Round) else 0
        reading = await ctx.call("read the sensor", self.read, n)
        ctx.data["sum"] = ctx.data.get("sum", 0) + reading
        ctx.write_event_to_stream(Round(n=n))
        return StopEvent(result=ctx.data["sum"]) if n == ROUNDS else Round(n=n + 1)

    async def read(self, n: int) -> int:
        return n % 7


async def main() -> None:
    async with Journal("sqlite:///retention.db", durability="normal") as journal:
        flow = Collector(journal=journal, timeout=None)
        handler = flow.run(run_id="sensor")
        async for event in handler.stream_events():
            if event.n == 50:
                break

        made = await journal.compact("sensor")
        print(f"compacted while it works: {made.records > 100}")
        print(f"and it goes on: {await handler}")
        try:
            await journal.state("sensor", at=1)
        except CheckpointError:
            print("its first checkpoint is gone")

        for n in range(5):
            await flow.run(run_id=f"day-{n}")
        would = await journal.prune(timedelta(0), dry_run=True)
        print(f"would be pruned: {would.runs} runs")
        await journal.prune(timedelta(0), status="completed")
        print(f"the result is kept: {await flow.run(run_id='sensor')}")
        rows = sum([run.seq - run.first_seq + 1 for run in await journal.runs()])
        print(f"records left: {rows}")


if __name__ == "__main__":
    asyncio.run(main())
