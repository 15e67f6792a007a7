"""One step called by itself, without a run and without a journal: `await flow.rank(Context(flow), Ranked(...))`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    Context,
    ContextStateError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    SerializationError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
    step,
)


class Doc(Event):
    text: str


class Ranked(Event):
    score: int


class Ask(InputRequiredEvent):
    text: str


class Answer(HumanResponseEvent):
    text: str
    by: str = "Ann"


class State(BaseModel):
    seen: int = 0


class Flow(Workflow):
    """Has a step for each effect."""

    @step
    async def begin(self, ctx: Context[State], ev: StartEvent) -> Doc | None:
        async with ctx.lock, ctx.store.edit_state() as state:
            state.seen += 1
        for n in range(3):
            ctx.send_event(Doc(text=str(n)), step="rank")
        ctx.write_event_to_stream(Doc(text="begun"))
        ctx.write_event_to_stream(None)
        await ctx.checkpoint("begun")
        return None

    @step
    async def rank(self, ctx: Context[State], ev: Doc) -> Ranked:
        text = await ctx.call("upper", self.upper, ev.text, end="!")
        length = await ctx.call("length", len, text)
        await ctx.sleep(0)
        return Ranked(score=length)

    @step
    async def join(self, ctx: Context[State], ev: Ranked) -> Ask | StopEvent | None:
        both = ctx.collect_events(ev, [Ranked, Ranked])
        if both is None:
            return None
        answer = await ctx.wait_for_event(Answer, waiter_event=Ask(text="sure?"), requirements={"by": "Ann"})
        return StopEvent(result=[[r.score for r in both], answer.text])

    @step
    def plain(self, ctx: Context[State], ev: Doc) -> StopEvent:
        ctx.data["seen"] += 1
        ctx.send_event(Doc(text="from a plain step"))
        return StopEvent(result=ctx.idempotency_key("charge"))

    async def upper(self, text: str, end: str) -> str:
        return text.upper() + end


@pytest.fixture
def flow() -> Flow:
    return Flow(journal="sqlite:////nowhere/at/all.db")  # is never opened


@pytest.fixture
def ctx(flow: Flow) -> Context:
    return Context(flow)


async def test_what_it_sends_and_publishes_is_kept_in_order(flow: Flow, ctx: Context):
    assert await flow.begin(ctx, StartEvent()) is None
    assert [event.text for event in ctx.sent_events] == ["0", "1", "2"]
    assert [event.text for event in ctx.streamed_events] == ["begun"]
    assert ctx.data["seen"] == 1


async def test_calls_are_made_and_timers_sleep(flow: Flow, ctx: Context):
    assert (await flow.rank(ctx, Doc(text="abc"))).score == 4
    before = time.monotonic()
    await ctx.sleep(0.02)
    assert time.monotonic() - before >= 0.015
    await ctx.sleep(-1)


async def test_events_are_collected_and_an_answer_is_put_in(flow: Flow, ctx: Context):
    assert await flow.join(ctx, Ranked(score=1)) is None
    ctx.send_event(Answer(text="not mine", by="Bob"))
    ctx.send_event(Answer(text="yes"))
    stop = await flow.join(ctx, Ranked(score=2))
    assert stop.result == [[1, 2], "yes"]
    assert [event.text for event in ctx.streamed_events] == ["sure?"]
    assert [event.by for event in ctx.sent_events] == ["Bob"]


async def test_without_an_answer_it_says_what_to_do(flow: Flow, ctx: Context):
    ctx.send_event(Answer(text="not mine", by="Bob"))
    await flow.join(ctx, Ranked(score=1))
    with pytest.raises(ContextStateError, match=r"waits for a Answer.*ctx\.send_event\(Answer\(\.\.\.\)\)"):
        await flow.join(ctx, Ranked(score=2))


def test_a_plain_step_needs_no_loop(flow: Flow, ctx: Context):
    ctx.data["seen"] = 1
    stop = flow.plain(ctx, Doc(text="x"))
    assert ctx.data["seen"] == 2
    assert [event.text for event in ctx.sent_events] == ["from a plain step"]
    assert stop.result == flow.plain(Context(flow), Doc(text="y")).result
    assert stop.result != Context(flow).idempotency_key("other")
    assert stop.result != Context(flow).idempotency_key()


def test_collecting_is_as_in_a_run(ctx: Context):
    assert ctx.collect_events(Doc(text="1"), []) == []
    assert ctx.collect_events(Ranked(score=1), [Doc]) is None
    assert ctx.collect_events(Doc(text="1"), [Doc, Ranked]) is None
    assert ctx.collect_events(Doc(text="2"), [Doc, Ranked]) is None
    assert ctx.collect_events(Doc(text="other buffer"), [Doc, Doc], "mine") is None
    first = ctx.collect_events(Ranked(score=1), [Ranked, Doc])
    assert [type(event) for event in first] == [Ranked, Doc]
    assert first[1].text == "1"
    assert [e.text for e in ctx.collect_events(Doc(text="3"), [Doc, Doc])] == ["2", "3"]


def test_what_a_run_would_refuse_is_refused(ctx: Context):
    with pytest.raises(WorkflowStepDoesNotExistError, match="no step 'gone'"):
        ctx.send_event(Doc(text="x"), step="gone")
    with pytest.raises(WorkflowRuntimeError, match="step 'join' does not accept Doc"):
        ctx.send_event(Doc(text="x"), step="join")
    for wrong in ("text", Doc, None):
        with pytest.raises(WorkflowRuntimeError, match="takes Event instances"):
            ctx.send_event(wrong)  # type: ignore[arg-type]
    with pytest.raises(WorkflowRuntimeError, match="takes Event instances"):
        ctx.write_event_to_stream("text")  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="StopEvent"):
        ctx.send_event(StopEvent(result=object()))
    with pytest.raises(SerializationError, match="StopEvent"):
        ctx.write_event_to_stream(StopEvent(result=object()))
    assert (ctx.sent_events, ctx.streamed_events) == ([], [])


async def test_calls_that_a_run_would_refuse_are_refused(ctx: Context):
    async def waits() -> int:
        await asyncio.sleep(0)
        return 1

    with pytest.raises(WorkflowRuntimeError, match="two calls named 'a' are under way"):
        await asyncio.gather(ctx.call("a", waits), ctx.call("a", waits))
    assert await ctx.call("a", waits) == 1
    with pytest.raises(SerializationError, match="result of call 'bad'"):
        await ctx.call("bad", object)
    with pytest.raises(ZeroDivisionError):
        await ctx.call("a", lambda: 1 / 0)
    with pytest.raises(WorkflowRuntimeError, match="takes a name and a function"):
        await ctx.call(len, "x")  # type: ignore[arg-type]


async def test_waiting_inside_the_lock_is_refused(ctx: Context):
    async with ctx.lock:
        with pytest.raises(ContextStateError, match=r"waits for an event inside ctx\.lock"):
            await ctx.wait_for_event(Answer)
        with pytest.raises(ContextStateError, match=r"sleeps inside ctx\.lock"):
            await ctx.sleep(0)
    async with ctx.store.edit_state():
        with pytest.raises(ContextStateError, match="inside edit_state"):
            await ctx.sleep(0)


async def test_two_steps_share_the_lock(ctx: Context):
    order: list[Any] = []

    async def one(name: str) -> None:
        async with ctx.lock:
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    await asyncio.gather(one("a"), one("b"))
    assert order == ["a", "a", "b", "b"]


async def test_what_was_sent_would_reach_no_run(flow: Flow, ctx: Context):
    ctx.send_event(Doc(text="x"))
    with pytest.raises(ContextStateError, match=r"no run would get them: Doc.*take another Context"):
        Flow(journal="memory://").run(ctx=ctx)


def test_what_is_sent_may_be_given_by_its_name(ctx: Context):
    ctx.send_event(message=StopEvent())
    assert ctx.sent_events == [StopEvent()]


def test_each_context_is_alone(flow: Flow, ctx: Context):
    ctx.send_event(Doc(text="x"))
    assert Context(flow).sent_events == []


def test_it_is_in_its_first_attempt(ctx: Context):
    assert ctx.retry_info() == (0, 0.0, None, None)


def test_it_has_no_run(ctx: Context):
    with pytest.raises(ContextStateError, match=r"belongs to no run yet: handler = flow\.run\(ctx=ctx\)"):
        ctx.run_id  # noqa: B018
    with pytest.raises(WorkflowRuntimeError, match="only be called from within a step"):
        Context.get_step_context()
