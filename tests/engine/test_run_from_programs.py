"""From every checkpoint of every kind of program a run comes to the same end, in its own journal and in another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any

import pytest

from durable_flow import (
    AlreadyAnsweredError,
    Checkpoint,
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
    WorkflowCheckpointer,
    WorkflowHandler,
    catch_error,
    step,
)


class FromA(Event):
    n: int


class FromB(Event):
    n: int


class FromC(Event):
    n: int


class FromD(Event):
    n: int


class FromQuestion(InputRequiredEvent):
    n: int


class FromAnswer(HumanResponseEvent):
    n: int


class NestedFans(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[FromA]:
        return [FromA(n=n) for n in range(3)]

    @step
    async def split_again(self, ctx: Context, ev: FromA) -> list[FromB]:
        ctx.data.setdefault("log", []).append(ev.n)
        return [FromB(n=ev.n * 10 + n) for n in range(2)]

    @step(num_workers=2)
    async def work(self, ev: FromB) -> FromC:
        await asyncio.sleep(0)
        return FromC(n=ev.n)

    @step
    async def join(self, evs: list[FromC]) -> FromD:
        return FromD(n=sum(ev.n for ev in evs))

    @step
    async def join_again(self, ctx: Context, evs: list[FromD]) -> StopEvent:
        return StopEvent(result=[sorted(ev.n for ev in evs), sorted(ctx.data["log"])])


class FirstTwo(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[FromA]:
        return [FromA(n=n) for n in range(4)]

    @step(num_workers=1)
    async def work(self, ev: FromA) -> FromB:
        return FromB(n=ev.n)

    @step
    async def take(self, evs: Annotated[list[FromB], Collect(Take(2))]) -> StopEvent:
        return StopEvent(result=[ev.n for ev in evs])


class Buffered(Workflow):
    @step
    async def send(self, ctx: Context, ev: StartEvent) -> FromA | FromB | None:
        for n in range(3):
            ctx.send_event(FromA(n=n))
        ctx.send_event(FromB(n=9))

    @step
    async def call(self, ctx: Context, ev: FromA) -> FromC:
        return FromC(n=await ctx.call("same", lambda: ev.n))

    @step
    async def plain(self, ev: FromB) -> FromC:
        return FromC(n=ev.n)

    @step
    async def gather(self, ctx: Context, ev: FromC) -> StopEvent | None:
        gathered = ctx.collect_events(ev, [FromC] * 4)
        return None if gathered is None else StopEvent(result=sorted(ev.n for ev in gathered))


class Failing(Workflow):
    @step(retry_policy=ConstantDelayRetryPolicy(delay=0, maximum_attempts=3))
    async def retried(self, ctx: Context, ev: StartEvent) -> FromA:
        ctx.data["tries"] = ctx.data.get("tries", 0) + 1
        if ctx.data["tries"] < 3:
            raise ValueError("again")
        return FromA(n=ctx.data["tries"])

    @step
    async def sleeps(self, ctx: Context, ev: FromA) -> FromB:
        ctx.data["set"] = {1, 2}
        await ctx.sleep(0.001)
        ctx.write_event_to_stream(FromC(n=1))
        return FromB(n=ev.n)

    @step
    async def fails(self, ev: FromB) -> StopEvent:
        raise KeyError("for good")

    @catch_error(for_steps=["fails"])
    async def caught(self, ctx: Context, ev: StepFailedEvent) -> StopEvent:
        return StopEvent(result=[ctx.data["tries"], ctx.data["set"], ev.step_name])


class OneOfEach(Workflow):
    @step
    async def send(self, ctx: Context, ev: StartEvent) -> FromA | FromB | None:
        ctx.send_event(FromA(n=1))
        ctx.send_event(FromB(n=2))

    @step
    async def both(self, a: FromA, b: FromB) -> StopEvent:
        return StopEvent(result=[a.n, b.n])


class AsksTwo(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> list[FromQuestion]:
        return [FromQuestion(n=n) for n in range(2)]

    @step
    async def answered(self, ev: FromAnswer) -> FromC:
        return FromC(n=ev.n)

    @step
    async def join(self, evs: list[FromC]) -> StopEvent:
        return StopEvent(result=sorted(ev.n for ev in evs))


class AsksInside(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> FromA:
        return FromA(n=5)

    @step
    async def ask(self, ctx: Context, ev: FromA) -> FromB:
        answer = await ctx.wait_for_event(FromAnswer, waiter_event=FromQuestion(n=1))
        return FromB(n=answer.n + ev.n)

    @step
    async def finish(self, ev: FromB) -> StopEvent:
        return StopEvent(result=ev.n)


class FromChild(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=7)


class FromParent(Workflow):
    @step
    async def start(self, ev: StartEvent) -> FromA:
        return FromA(n=await FromChild().run())

    @step
    async def finish(self, ev: FromA) -> StopEvent:
        return StopEvent(result=ev.n)


async def answer(handler: WorkflowHandler, n: int, wait_id: str | None) -> None:
    with contextlib.suppress(AlreadyAnsweredError, RunFinishedError):
        await handler.send_event(FromAnswer(n=n), wait_id=wait_id)


async def result_of(handler: WorkflowHandler, journal: Journal) -> Any:
    """Return a run's result; its questions are answered: those that it streams, and those of before that are open."""

    async def ask() -> None:
        async for event in handler.stream_events():
            if isinstance(event, FromQuestion):
                await answer(handler, event.n, event.wait_id)

    asking = asyncio.ensure_future(ask())
    await handler._attachment.ready()
    for wait in await journal.pending():
        if wait.run_id == handler.run_id and isinstance(wait.prompt, FromQuestion):
            await answer(handler, wait.prompt.n, wait.wait_id)
    result = await handler
    await asking
    return result


@pytest.mark.parametrize(
    ("flow", "result"),
    [
        (NestedFans, [[1, 21, 41], [0, 1, 2]]),
        (FirstTwo, [0, 1]),
        (Buffered, [0, 1, 2, 9]),
        (Failing, [3, {1, 2}, "fails"]),
        (OneOfEach, [1, 2]),
        (AsksTwo, [0, 1]),
        (AsksInside, 6),
        (FromParent, 7),
    ],
)
async def test_from_each_checkpoint_a_run_comes_to_the_same_end(
    journal: Journal, flow: type[Workflow], result: Any
) -> None:
    ckptr = WorkflowCheckpointer(flow(journal=journal))
    handler = ckptr.run()
    assert await result_of(handler, journal) == result
    kept = ckptr.checkpoints[handler.run_id]
    # What was seen live is what the journal has; an exception in an event equals none that was read again.
    loaded = await WorkflowCheckpointer(flow(journal=journal)).load(handler.run_id)
    assert [(c.id, c.ctx_state, c.output_events) for c in loaded] == [
        (c.id, c.ctx_state, c.output_events) for c in kept
    ]
    async with Journal("memory://") as other:
        for checkpoint in kept:
            carried = Checkpoint.from_dict(json.loads(json.dumps(checkpoint.to_dict())))
            assert await result_of(flow(journal=journal).run_from(carried), journal) == result
            assert await result_of(flow(journal=other).run_from(carried), other) == result
        for checkpoint in await journal.checkpoints(handler.run_id):
            assert await result_of(flow(journal=journal).run_from(checkpoint), journal) == result
