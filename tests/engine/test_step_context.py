"""Which context belongs where: the current step's for code that is not handed it, and methods in the wrong place."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    Context,
    ContextStateError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from durable_flow.context.context import get_step_context

from .flows import Answer, Asking, question, released


class Note(Event):
    text: str


class Settings(BaseModel):
    n: int = 1


def noted(function: Any) -> Any:
    """A decorator as people write it: around a step that takes no Context."""

    @functools.wraps(function)
    async def wrapped(self: Any, ev: Any) -> Any:
        Context.get_step_context().write_event_to_stream(Note(text="before"))
        result = await function(self, ev)
        get_step_context().data["after"] = True
        return result

    return wrapped


async def test_a_wrapper_reaches_the_context_of_its_step(journal: Journal):
    class Wrapped(Workflow):
        @step
        @noted
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=1)

    handler = Wrapped(journal=journal).run(run_id="r")
    assert [getattr(event, "text", None) async for event in handler.stream_events()] == ["before", None]
    assert (await journal.state("r")).context == {"after": True}


async def test_each_step_has_its_own_also_in_what_it_starts(journal: Journal):
    class Many(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Note]:
            return [Note(text=str(n)) for n in range(5)]

        @step
        async def work(self, ctx: Context, ev: Note) -> StopEvent | None:
            async def deeper() -> None:
                Context.get_step_context().data[f"task {ev.text}"] = ctx.idempotency_key()
                assert Context.get_step_context().idempotency_key() == ctx.idempotency_key()

            async def called() -> str:
                return Context.get_step_context().idempotency_key()

            def in_a_thread() -> str:
                return Context.get_step_context().idempotency_key()

            await asyncio.create_task(deeper())
            assert await ctx.call("a", called) == ctx.idempotency_key()
            assert await asyncio.to_thread(in_a_thread) == ctx.idempotency_key()
            every = ctx.collect_events(ev, [Note] * 5)
            return None if every is None else StopEvent()

        @step
        def plain(self, ev: Note) -> None:
            get_step_context().data[f"plain {ev.text}"] = get_step_context().run_id

    await Many(journal=journal).run(run_id="r")
    context = (await journal.state("r")).context
    assert len({value for key, value in context.items() if key.startswith("task")}) == 5
    assert all(value == "r" for key, value in context.items() if key.startswith("plain"))


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody")


async def test_context_variables_come_from_the_caller_and_not_from_another_step(journal: Journal):
    class Chain(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> Note:
            seen = VARIABLE.get()
            VARIABLE.set("the first step")
            await ctx.checkpoint("here")
            return Note(text=seen)

        @step
        async def second(self, ctx: Context, ev: Note) -> StopEvent:
            return StopEvent(result=[ev.text, VARIABLE.get()])

    VARIABLE.set("the caller")
    assert await Chain(journal=journal).run() == ["the caller", "the caller"]


async def test_a_step_is_not_inside_the_lock_that_another_step_holds(journal: Journal):
    class Locks(Workflow):
        @step
        async def holds(self, ctx: Context, ev: StartEvent) -> Note | None:
            async with ctx.lock:
                ctx.send_event(Note(text="x"))
                await ctx.checkpoint("sent")
                await slept.wait()
            return None

        @step
        async def sleeps(self, ctx: Context, ev: Note) -> StopEvent:
            await ctx.sleep(0)
            slept.set()
            return StopEvent(result="ok")

    slept = asyncio.Event()
    assert await Locks(journal=journal).run() == "ok"


async def test_it_is_typed_as_the_workflows_state_is(journal: Journal):
    class Typed(Workflow):
        @step
        async def go(self, ctx: Context[Settings], ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await get_step_context().store.get_state()).n)

    assert await Typed(journal=journal).run() == 1


async def test_outside_of_steps_there_is_none(journal: Journal):
    class Policy:
        seen: Any = None

        def next(
            self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
        ) -> float | None:
            try:
                Policy.seen = Context.get_step_context()
            except WorkflowRuntimeError as outside:
                Policy.seen = outside
            return None

    class Fails(Workflow):
        @step(retry_policy=Policy())
        async def go(self, ev: StartEvent) -> StopEvent:
            raise ValueError("no")

    for call in (Context.get_step_context, get_step_context):
        with pytest.raises(WorkflowRuntimeError, match="only be called from within a step"):
            call()
    with pytest.raises(ValueError, match="no"):
        await Fails(journal=journal).run()
    assert isinstance(Policy.seen, WorkflowRuntimeError)
    with pytest.raises(WorkflowRuntimeError):
        Context.get_step_context()


async def test_what_outlives_its_step_gets_a_detached_one(journal: Journal):
    strands: list[asyncio.Task[Any]] = []

    class Leaves(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def later() -> None:
                await ended.wait()
                Context.get_step_context().data["late"] = 1

            strands.append(asyncio.create_task(later()))
            return StopEvent()

    ended = asyncio.Event()
    await Leaves(journal=journal).run(run_id="r")
    ended.set()
    with pytest.raises(ContextStateError, match=r"step 'go'.*run r is detached"):
        await strands[0]


# -- Methods in the wrong place ----------------------------------------------------------------------------------------

Use = Callable[[Context], Any]
IN_A_STEP: dict[str, Use] = {
    "collect_events": lambda ctx: ctx.collect_events(Note(text="x"), [Note]),
    "wait_for_event": lambda ctx: ctx.wait_for_event(Answer),
    "write_event_to_stream": lambda ctx: ctx.write_event_to_stream(Note(text="x")),
    "call": lambda ctx: ctx.call("len", len, "x"),
    "sleep": lambda ctx: ctx.sleep(1),
    "checkpoint": lambda ctx: ctx.checkpoint("here"),
    "idempotency_key": lambda ctx: ctx.idempotency_key(),
    "retry_info": lambda ctx: ctx.retry_info(),
}
ANYWHERE: dict[str, Use] = {
    "data": lambda ctx: ctx.data["n"],
    "get": lambda ctx: ctx.get("n", default=None),
    "set": lambda ctx: ctx.set("n", 1),
    "store.get": lambda ctx: ctx.store.get("n", default=None),
    "store.set": lambda ctx: ctx.store.set("n", 1),
    "update": lambda ctx: ctx.update({"n": 1}),
    "send_event": lambda ctx: ctx.send_event(Note(text="x")),
}
FOR_THE_CALLER: dict[str, Use] = {
    "to_dict": lambda ctx: ctx.to_dict(),
    "serialize": lambda ctx: ctx.serialize(),
    "deserialize": lambda ctx: ctx.deserialize({}),
    "sent_events": lambda ctx: ctx.sent_events,
    "streamed_events": lambda ctx: ctx.streamed_events,
}


async def used(use: Use, ctx: Context) -> Any:
    result = use(ctx)
    return await result if isinstance(result, Awaitable) else result


async def test_what_works_in_steps_only_says_so(memory: Journal):
    handler = Asking(journal=memory).run(run_id="r")
    await question(handler)
    for name, use in {
        **IN_A_STEP,
        **{name: FOR_THE_CALLER[name] for name in ("sent_events", "streamed_events")},
    }.items():
        with pytest.raises(ContextStateError, match=rf"ctx\.{name} works inside a step only.*run r"):
            await used(use, handler.ctx)
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def test_what_is_for_callers_says_so(memory: Journal):
    class Wrong(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for name, use in FOR_THE_CALLER.items():
                named = "to_dict" if name == "serialize" else name
                with pytest.raises(ContextStateError, match=rf"ctx\.{named} is for those who.*run r.*handler\.ctx"):
                    await used(use, ctx)
            return StopEvent(result="ok")

    assert await Wrong(journal=memory).run(run_id="r") == "ok"


async def test_after_its_end_a_step_has_no_context(memory: Journal):
    kept: list[Context] = []

    class Keeps(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> Note:
            ctx.data["n"] = 1
            kept.append(ctx)
            return Note(text="x")

        @step
        async def last(self, ctx: Context, ev: Note) -> StopEvent:
            for name, use in {**IN_A_STEP, **ANYWHERE}.items():
                if name != "idempotency_key":  # it is no effect
                    with pytest.raises(ContextStateError, match=r"step 'go' \(attempt 1\) of run r is detached"):
                        await used(use, kept[0])
            return StopEvent(result="ok")

    assert await Keeps(journal=memory).run(run_id="r") == "ok"
    assert not kept[0].is_running


async def test_of_a_run_that_is_not_live_here_it_says_where_to_look(file: Journal):
    handler = Asking(journal=file).run(run_id="r")
    await question(handler)
    await released(handler)
    for name, use in {**ANYWHERE, "to_dict": FOR_THE_CALLER["to_dict"]}.items():
        if name != "send_event":  # it goes through the database
            with pytest.raises(ContextStateError, match=r"run r is not live in this process; .*Journal\.state\('r'\)"):
                await used(use, handler.ctx)


async def test_before_a_known_run_is_looked_up_its_context_is_not_known(memory: Journal):
    handler = Asking(journal=memory).run(run_id="r")
    with pytest.raises(ContextStateError, match="it is being looked up"):
        handler.ctx.data["n"] = 1
    await question(handler)
    handler.ctx.data["n"] = 1
    await handler.cancel_run()


async def test_a_new_run_has_a_context_at_once(journal: Journal):
    flow = Asking(journal=journal)
    handler = flow.run()
    view = handler.ctx.data
    await handler.ctx.store.set("user.name", "Ann")
    handler.ctx.data["xs"] = xs = [1]
    assert await handler.ctx.get("user") == {"name": "Ann"}
    assert handler.ctx.is_running
    await question(handler)
    assert handler.ctx.data["xs"] is xs
    assert json.loads(json.dumps(view)) == {"user": {"name": "Ann"}, "xs": [1]}
    await handler.send_event(Answer(text="yes"))
    await handler
    assert (await journal.state(handler.run_id)).context == {"user": {"name": "Ann"}, "xs": [1]}


async def test_the_steps_in_flight_include_one_that_waits(journal: Journal):
    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, waiter_event=InputRequiredEvent())
            return StopEvent()

    handler = Asks(journal=journal).run()
    async for _ in handler.stream_events():
        break
    assert await handler.ctx.running_steps() == ["ask"]
    await handler.send_event(HumanResponseEvent())
    await handler
    assert await handler.ctx.running_steps() == []


async def test_the_steps_in_flight(journal: Journal):
    class Slow(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            entered.set()
            await leave.wait()
            return StopEvent(result=await ctx.running_steps())

    entered, leave = asyncio.Event(), asyncio.Event()
    ctx = Context(Slow(journal=journal))
    with pytest.raises(ContextStateError, match="this Context belongs to no run yet: no step can be running"):
        await ctx.running_steps()
    handler = Slow(journal=journal).run(ctx=ctx)
    assert await ctx.running_steps() == []
    await entered.wait()
    assert await ctx.running_steps() == ["go"]
    leave.set()
    assert await handler == ["go"]
    assert await ctx.running_steps() == []
