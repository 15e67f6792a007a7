"""The workflows whose runs are golden. What a release has recorded stays: add workflows, do not change these.

Each run of `STANDINGS` was stopped where its name says. What becomes of it when it goes on follows from the code here,
and is written beside it by hand.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

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
from durable_flow.records import (
    BufferReleased,
    ChildAsked,
    Fact,
    RunFailed,
    StepCompleted,
    StepFailed,
    TimerSet,
    WaitOpened,
)

SECONDS = 60


class Question(InputRequiredEvent):
    text: str


class Answer(HumanResponseEvent):
    text: str


class Item(Event):
    number: int


class Done(Event):
    number: int
    price: Decimal


class Customer(BaseModel):
    name: str
    since: datetime


@dataclasses.dataclass
class Address:
    street: str
    tags: tuple[str, ...]


class Values(Workflow):
    """Finishes: values of many types, and a stream of three items."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Item:
        await ctx.store.set("customer", Customer(name="Ada", since=datetime(2024, 2, 29, tzinfo=UTC)))
        await ctx.store.set("address", Address("Main", ("a", "b")))
        await ctx.store.set("sum", Decimal("12.50"))
        for number in range(3):
            ctx.write_event_to_stream(Item(number=number))
        return Item(number=7)

    @step
    async def end(self, ctx: Context, ev: Item) -> StopEvent:
        squared = await ctx.call("square", square, ev.number)
        return StopEvent(result={"squared": squared, "sum": await ctx.store.get("sum")})


async def square(number: int) -> int:
    return number * number


class Asks(Workflow):
    """Asks by a returned question."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Question:
        await ctx.store.set("greeting", "Hello")
        return Question(text="Who?")

    @step
    async def answered(self, ctx: Context, ev: Answer) -> StopEvent:
        return StopEvent(result=f"{await ctx.store.get('greeting')} {ev.text}")


class AsksInside(Workflow):
    """Asks inside a step, after a call that is not made again."""

    calls = 0

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        number = await ctx.call("count", self.count)
        answer = await ctx.wait_for_event(Answer, waiter_event=Question(text=f"{number}?"), timeout=None)
        return StopEvent(result=[number, answer.text])

    async def count(self) -> int:
        type(self).calls += 1
        return self.calls


class Splits(Workflow):
    """Works on three items; the second and third wait for an answer each."""

    @step
    async def begin(self, ev: StartEvent) -> list[Item]:
        return [Item(number=number) for number in range(3)]

    @step
    async def work(self, ctx: Context, ev: Item) -> Done:
        if ev.number:
            await ctx.wait_for_event(Answer, waiter_id=f"item {ev.number}", timeout=None)
        return Done(number=ev.number, price=Decimal(ev.number) / 2)

    @step
    async def join(self, ev: list[Done]) -> StopEvent:
        return StopEvent(result={done.number: done.price for done in ev})


class Retries(Workflow):
    """Fails once, and is tried again a minute later."""

    @step(retry_policy=ConstantDelayRetryPolicy(delay=SECONDS, maximum_attempts=3))
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        tries = await ctx.store.get("tries", 0) + 1
        await ctx.store.set("tries", tries)
        if tries == 1:
            raise ConnectionError("not yet")
        return StopEvent(result=tries)


class Sleeps(Workflow):
    """Sleeps a minute."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.store.set("before", "set")
        await ctx.sleep(SECONDS)
        return StopEvent(result=await ctx.store.get("before"))


class Fails(Workflow):
    """Fails for good, until it is repaired."""

    repaired = False

    @step
    async def begin(self, ev: StartEvent) -> Item:
        return Item(number=5)

    @step
    async def work(self, ev: Item) -> StopEvent:
        if not self.repaired:
            raise ValueError("broken")
        return StopEvent(result=ev.number)


class Collects(Workflow):
    """Has released a pair, and has one of the second in its buffer; the other comes from outside."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
        for number in range(3):
            ctx.send_event(Item(number=number))
        return None

    @step(num_workers=1)
    async def pair(self, ctx: Context, ev: Item) -> StopEvent | None:
        pair = ctx.collect_events(ev, [Item, Item])
        if pair is None:
            return None
        pairs = [*await ctx.store.get("pairs", []), [item.number for item in pair]]
        await ctx.store.set("pairs", pairs)
        return StopEvent(result=pairs) if len(pairs) == 2 else None


class Parent(Workflow):
    """Awaits a run that asks."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=["child said", await Asks(timeout=None).run()])


class Standing(NamedTuple):
    """How to come to a standing, and what becomes of it.

    The run was stopped after the `count`-th record of `until`. `status` is what its row says; `answers` end it with
    `result`, if it goes on.
    """

    flow: type[Workflow]
    until: type[Fact]
    count: int
    status: str
    answers: tuple[Event, ...]
    result: Any


STANDINGS = {
    "finished": Standing(
        Values, StepCompleted, 2, "completed", (), {"squared": 49, "sum": Decimal("12.50")},
    ),
    "asks": Standing(Asks, WaitOpened, 1, "waiting", (Answer(text="Ada"),), "Hello Ada"),
    "asks-inside": Standing(AsksInside, WaitOpened, 1, "waiting", (Answer(text="yes"),), [1, "yes"]),
    "fan-out": Standing(
        Splits, WaitOpened, 2, "waiting", (Answer(text="go"), Answer(text="go")),
        {0: Decimal(0), 1: Decimal("0.5"), 2: Decimal(1)},
    ),
    "retry": Standing(Retries, StepFailed, 1, "running", (), 2),
    "sleeps": Standing(Sleeps, TimerSet, 1, "waiting", (), "set"),
    "failed": Standing(Fails, RunFailed, 1, "failed", (), 5),
    "buffer": Standing(Collects, BufferReleased, 1, "running", (Item(number=3),), [[0, 1], [2, 3]]),
    "parent": Standing(Parent, ChildAsked, 1, "running", (Answer(text="Ada"),), ["child said", "Hello Ada"]),
    "imported": Standing(Asks, WaitOpened, 1, "waiting", (Answer(text="Eve"),), "Hello Eve"),
}  # fmt: skip
