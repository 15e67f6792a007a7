"""Runs of many shapes, forked at every boundary of their histories: each fork ends as its parent did."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    AlreadyAnsweredError,
    CheckpointError,
    Collect,
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    RunFinishedError,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Take,
    Workflow,
    WorkflowHandler,
    catch_error,
    step,
)


class EverywhereOne(Event):
    n: int = 0


class EverywhereTwo(Event):
    n: int = 0


class EverywhereDone(Event):
    n: int = 0


class EverywhereAsk(InputRequiredEvent):
    text: str = "?"


class EverywhereReply(HumanResponseEvent):
    text: str


async def squared(n: int) -> int:
    return n * n


class FansOut(Workflow):
    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[EverywhereOne]:
        ctx.data["split"] = True
        return [EverywhereOne(n=n) for n in range(4)]

    @step(num_workers=2)
    async def work(self, ctx: Context, ev: EverywhereOne) -> EverywhereDone:
        ctx.data[f"of {ev.n}"] = await ctx.call("square", squared, ev.n)
        return EverywhereDone(n=ctx.data[f"of {ev.n}"])

    @step
    async def join(self, done: list[EverywhereDone]) -> StopEvent:
        return StopEvent(result=[one.n for one in done])


class TakesTwo(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[EverywhereOne]:
        return [EverywhereOne(n=n) for n in range(4)]

    @step(num_workers=1)
    async def work(self, ev: EverywhereOne) -> EverywhereDone:
        return EverywhereDone(n=ev.n)

    @step
    async def join(self, done: Annotated[list[EverywhereDone], Collect(Take(2))]) -> StopEvent:
        return StopEvent(result=[one.n for one in done])


class Pairs(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[EverywhereOne | EverywhereTwo]:
        return [EverywhereOne(n=1), EverywhereTwo(n=2)]

    @step
    async def pair(self, one: EverywhereOne, two: EverywhereTwo) -> StopEvent:
        return StopEvent(result=(one.n, two.n))


class Nests(Workflow):
    @step
    async def outer(self, ev: StartEvent) -> list[EverywhereOne]:
        return [EverywhereOne(n=1), EverywhereOne(n=2)]

    @step
    async def inner(self, ev: EverywhereOne) -> list[EverywhereTwo]:
        return [EverywhereTwo(n=10 * ev.n + n) for n in range(2)]

    @step
    async def add(self, twos: list[EverywhereTwo]) -> EverywhereDone:
        return EverywhereDone(n=sum(two.n for two in twos))

    @step
    async def join(self, done: list[EverywhereDone]) -> StopEvent:
        return StopEvent(result=[one.n for one in done])


class Collects(Workflow):
    @step
    async def send(self, ctx: Context, ev: StartEvent) -> EverywhereOne:
        ctx.send_event(EverywhereOne(n=0))
        await ctx.checkpoint("sent one")
        ctx.send_event(EverywhereOne(n=1))
        return EverywhereOne(n=2)

    @step(num_workers=1)
    async def work(self, ctx: Context, ev: EverywhereOne) -> EverywhereDone:
        ctx.write_event_to_stream(EverywhereTwo(n=ev.n))
        return EverywhereDone(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: EverywhereDone) -> StopEvent | None:
        done = ctx.collect_events(ev, [EverywhereDone] * 3)
        return None if done is None else StopEvent(result=[one.n for one in done])  # type: ignore[attr-defined]


class Retries(Workflow):
    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.005))
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.data["tries"] = ctx.data.get("tries", 0) + 1
        paid = await ctx.call("pay", squared, 7)
        if ctx.data["tries"] < 3:
            raise ValueError("not yet")
        return StopEvent(result=(ctx.data["tries"], paid))


class Catches(Workflow):
    @step
    async def fail(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.data["tried"] = True
        raise ValueError("as ever")

    @catch_error
    async def handle(self, ctx: Context, ev: StepFailedEvent) -> EverywhereDone:
        return EverywhereDone(n=int(ctx.data["tried"]))

    @step
    async def finish(self, ev: EverywhereDone) -> StopEvent:
        return StopEvent(result=ev.n)


class Waits(Workflow):
    @step
    async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
        texts = []
        for n in range(2):
            ask = EverywhereAsk(text=str(n))
            texts.append((await ctx.wait_for_event(EverywhereReply, waiter_event=ask, timeout=None)).text)
            ctx.data["texts"] = texts
            await ctx.sleep(0.005)
        return StopEvent(result=texts)


class AsksInAFanOut(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[EverywhereOne]:
        return [EverywhereOne(n=1), EverywhereOne(n=2)]

    @step
    async def ask(self, ev: EverywhereOne) -> EverywhereAsk:
        return EverywhereAsk(text=str(ev.n))

    @step
    async def replied(self, ev: EverywhereReply) -> EverywhereDone:
        return EverywhereDone(n=len(ev.text))

    @step
    async def join(self, done: list[EverywhereDone]) -> StopEvent:
        return StopEvent(result=[one.n for one in done])


class Parents(Workflow):
    @step
    async def start(self, ctx: Context, ev: StartEvent) -> EverywhereOne:
        ctx.data["pair"] = await Pairs().run()
        return EverywhereOne(n=await Catches().run())

    @step
    async def finish(self, ctx: Context, ev: EverywhereOne) -> StopEvent:
        return StopEvent(result=(ctx.data["pair"], ev.n))


class Tally(BaseModel):
    n: int = 0
    items: list[int] = []


class Tallies(Workflow):
    @step
    async def first(self, ctx: Context[Tally], ev: StartEvent) -> EverywhereOne:
        async with ctx.store.edit_state() as state:
            state.n += 1
            state.items.append(1)
        return EverywhereOne()

    @step
    async def second(self, ctx: Context[Tally], ev: EverywhereOne) -> StopEvent:
        async with ctx.lock:
            (await ctx.store.get("items")).append(2)
        await ctx.checkpoint("appended")
        await ctx.store.set("n", 5)
        return StopEvent(result=(await ctx.store.get_state()).model_dump())


class Grows(Workflow):
    @step
    async def grow(self, ctx: Context, ev: StartEvent | EverywhereOne) -> EverywhereOne | StopEvent:
        items = ctx.data.setdefault("items", [])
        items.append("long enough to be spliced " * 10)
        if len(items) < 6:
            return EverywhereOne()
        del ctx.data["items"]
        return StopEvent(result=len(items))


SHAPES: list[type[Workflow]] = [
    FansOut, TakesTwo, Pairs, Nests, Collects, Retries, Catches, Waits, AsksInAFanOut, Parents, Tallies, Grows,
]  # fmt: skip


async def ended(journal: Journal, handler: WorkflowHandler) -> Any:
    """Return the result of a run, all of whose questions are answered."""
    for wait in await journal.pending():
        if wait.run_id == handler.run_id:
            with contextlib.suppress(AlreadyAnsweredError, RunFinishedError):
                await journal.send(handler.run_id, EverywhereReply(text="yes"), wait_id=wait.wait_id)
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            with contextlib.suppress(AlreadyAnsweredError, RunFinishedError):
                await journal.send(handler.run_id, EverywhereReply(text="yes"), wait_id=event.wait_id)
    return await handler


@pytest.mark.parametrize("shape", SHAPES)
async def test_forked_at_any_boundary_it_ends_as_its_parent_did(journal: Journal, shape: type[Workflow]) -> None:
    flow = shape(journal=journal)
    result = await ended(journal, flow.run(run_id="r"))
    records, context = await journal.history("r"), (await journal.state("r")).context
    for record in records[:-1]:
        if not record.boundary:
            with pytest.raises(CheckpointError, match=f"record {record.seq} lies within the group"):
                await flow.fork("r", record.seq)
            continue
        made = await journal.fork("r", record.seq)
        forks = [
            await flow.fork("r", record.seq),
            await flow.resume(made.run_id),
            await flow.fork(made.run_id, 2),  # what that fork began with
        ]
        for fork in forks:
            assert await ended(journal, fork) == result, (record, fork)
            assert (await journal.state(fork.run_id)).context == context
    assert await journal.history("r") == records
