"""One step publishes `size` events and gives up the loop after each, as a model's tokens come in; a reader reads
them all while the step runs. A unit is an event that the reader got."""

from __future__ import annotations

import asyncio

from workloads.common import Bench, Context, Event, StartEvent, StopEvent, Workflow, run, step


class Token(Event):
    text: str
    n: int


class Streamer(Workflow):
    @step
    async def publish(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(ev.count):
            ctx.write_event_to_stream(Token(text="lorem ", n=n))
            await asyncio.sleep(0)
        return StopEvent(result=ev.count)


async def read(flow: Streamer, count: int) -> None:
    handler = flow.run(count=count)
    numbers = [event.n async for event in handler.stream_events() if isinstance(event, Token)]
    assert numbers == list(range(count))
    assert await handler == count


async def stream(bench: Bench) -> None:
    flow = bench.flow(Streamer)
    await read(flow, 100)
    with bench.measure(bench.size):
        await read(flow, bench.size)


if __name__ == "__main__":
    run(stream)
