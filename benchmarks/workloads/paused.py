"""A fresh process answers one of `size` runs that wait for a human, and runs it to its end; a unit is an answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from workloads.common import Bench, StartEvent, StopEvent, Workflow, run, step

from durable_flow import HumanResponseEvent, InputRequiredEvent

AT_ONCE = 64


class Approval(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix=f"Send letter {ev.n}?")

    @step
    async def answered(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


async def lane(flow: Approval, numbers: Iterator[int]) -> None:
    for n in numbers:
        async for event in flow.run(run_id=f"letter-{n}", n=n).stream_events():
            if isinstance(event, InputRequiredEvent):
                break


async def leave_behind(bench: Bench) -> None:
    flow = bench.flow(Approval)
    numbers = iter(range(bench.size))
    await asyncio.gather(*(lane(flow, numbers) for _ in range(AT_ONCE)))
    os._exit(0)


async def answer(bench: Bench, flow: Approval, run_id: str) -> object:
    assert bench.journal is not None
    await bench.journal.send(run_id, HumanResponseEvent(response="yes"))
    return await (await flow.resume(run_id))


async def paused(bench: Bench) -> None:
    flow = bench.flow(Approval)
    assert await answer(bench, flow, "letter-0") == "yes"
    with bench.measure(1):
        await answer(bench, flow, f"letter-{bench.size // 2}")


if __name__ == "__main__":
    run(paused, prepare=leave_behind)
