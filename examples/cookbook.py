"""The pieces, one small workflow each: branches, loops, fan-out, streams, typed state, retries, questions.

    python examples/cookbook.py

prints a line for each recipe. Run it again: the lines are the same, and none of the steps runs (each says so on stderr
when it does). Another set of runs needs another prefix: `python examples/cookbook.py tuesday`.
"""

from __future__ import annotations

import asyncio
import sys

from pydantic import BaseModel

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)


def ran(name: str) -> None:
    print(f"step of {name} ran", file=sys.stderr, flush=True)


# A branch: the union says where it may go.


class Even(Event):
    n: int


class Odd(Event):
    n: int


class Branch(Workflow):
    @step
    async def decide(self, ev: StartEvent) -> Even | Odd:
        ran("Branch")
        return Even(n=ev.n) if ev.n % 2 == 0 else Odd(n=ev.n)

    @step
    async def even(self, ev: Even) -> StopEvent:
        return StopEvent(result=f"{ev.n} is even")

    @step
    async def odd(self, ev: Odd) -> StopEvent:
        return StopEvent(result=f"{ev.n} is odd")


# A loop: a step that takes what it returns. The state is typed.


class Count(BaseModel):
    seen: list[int] = []


class Next(Event):
    n: int


class Loop(Workflow):
    @step
    async def turn(self, ctx: Context[Count], ev: StartEvent | Next) -> Next | StopEvent:
        ran("Loop")
        async with ctx.store.edit_state() as state:
            state.seen.append(ev.n)
        return StopEvent(result=state.seen) if ev.n == 0 else Next(n=ev.n - 1)


# Fan out and collect: a list runs a step once for each element, `collect_events` waits for all.


class Piece(Event):
    word: str


class Upper(Event):
    word: str


class FanOut(Workflow):
    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Piece]:
        ctx.data["count"] = len(ev.words)
        return [Piece(word=word) for word in ev.words]

    @step(num_workers=2)
    async def work(self, ev: Piece) -> Upper:
        ran("FanOut")
        return Upper(word=ev.word.upper())

    @step
    async def collect(self, ctx: Context, ev: Upper) -> StopEvent | None:
        done = ctx.collect_events(ev, [Upper] * ctx.data["count"])
        return None if done is None else StopEvent(result=" ".join(sorted(one.word for one in done)))


# A stream: progress for the caller, before the result. A step that fails is tried again, its items are published anew.


class Progress(Event):
    percent: int


class Stream(Workflow):
    failures = 1

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.01))
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ran("Stream")
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the service is away, once")
        for percent in (50, 100):
            ctx.write_event_to_stream(Progress(percent=percent))
        return StopEvent(result="streamed")


# A question: nothing runs while it is open; the answer may come from any process.


class Question(InputRequiredEvent):
    text: str


class Reply(HumanResponseEvent):
    text: str


class Ask(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> Question:
        ran("Ask")
        return Question(text="what is your name?")

    @step
    async def greet(self, ev: Reply) -> StopEvent:
        return StopEvent(result=f"hello {ev.text}")


async def main(prefix: str) -> None:
    url = "sqlite:///durable_flow.db"
    print("branch:", await Branch(journal=url).run(n=7, run_id=f"{prefix}-branch"))
    print("loop:", await Loop(journal=url).run(n=3, run_id=f"{prefix}-loop"))
    print("fan-out:", await FanOut(journal=url).run(words=["a", "b", "c"], run_id=f"{prefix}-fan-out"))

    streaming = Stream(journal=url).run(run_id=f"{prefix}-stream")
    percents = [event.percent async for event in streaming.stream_events() if isinstance(event, Progress)]
    print("stream:", percents, await streaming)

    asking = Ask(journal=url).run(run_id=f"{prefix}-ask")
    async for event in asking.stream_events():
        if isinstance(event, Question):
            await asking.send_event(Reply(text="Ann"), wait_id=event.wait_id)
    print("question:", await asking)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "cookbook"))
