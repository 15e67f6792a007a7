"""`stream_events(expose_internal=True)`: what the steps of a live run do, between what they publish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    InternalDispatchEvent,
    Journal,
    StartEvent,
    StepState,
    StepStateChanged,
    StopEvent,
    UnhandledEvent,
    Workflow,
    WorkflowFailedEvent,
    WorkflowHandler,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
    step,
)
from durable_flow.records import StepCompleted

from .flows import (
    Answer,
    Asking,
    Question,
    Shop,
    in_another_loop,
    question,
    recorded,
    streamed,
    time_stands_still,
    until,
)


class Item(Event):
    n: int = 0


class Unheard(Event):
    pass


def short(event: Event) -> Any:
    """Return an event as a test writes it down."""
    if isinstance(event, StepStateChanged):
        state = {"preparing": "?", "running": "+", "not_running": "-"}[event.step_state.value]
        output = "" if event.output_event_name is None else f" -> {event.output_event_name}"
        return f"{state}{event.name}/{event.worker_id} {event.input_event_name}{output}"
    return type(event).__name__ + (f" {event.n}" if isinstance(event, Item) else "")


async def told(handler: WorkflowHandler) -> list[Any]:
    """Return all that the stream gives with internal events, up to the run's end."""
    return [short(event) async for event in handler.stream_events(expose_internal=True)]


async def up_to(events: AsyncIterator[Event], kind: type) -> list[Any]:
    found = []
    async for event in events:
        found.append(short(event))
        if isinstance(event, kind):
            return found
    raise AssertionError(f"the stream ended without a {kind.__name__}: {found}")


def of_step(name: str, events: list[Any]) -> list[Any]:
    return [event for event in events if event[1:].startswith(f"{name}/")]


class Line(Workflow):
    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Item:
        ctx.write_event_to_stream(Item(n=1))
        return Item()

    @step
    async def second(self, ctx: Context, ev: Item) -> StopEvent:
        ctx.write_event_to_stream(Item(n=2))
        await ctx.checkpoint("half")
        ctx.write_event_to_stream(Item(n=3))
        return StopEvent()


LINE = [
    "+first/0 StartEvent", "Item 1", "-first/0 StartEvent -> Item",
    "+second/0 Item", "Item 2", "Item 3", "-second/0 Item -> StopEvent",
    "StopEvent",
]  # fmt: skip


async def test_steps_and_published_events_come_in_order(journal: Journal) -> None:
    assert await told(Line(journal=journal).run()) == LINE


async def test_internal_events_are_made_only_while_somebody_asks_and_are_never_stored(journal: Journal) -> None:
    flow = Line(journal=journal)
    assert [short(event) for event in await streamed(flow.run(run_id="plain"))] == [
        "Item 1",
        "Item 2",
        "Item 3",
        "StopEvent",
    ]
    handler = flow.run(run_id="r")
    assert await told(handler) == LINE
    async for item in journal.stream("r"):
        assert not isinstance(item.event, InternalDispatchEvent)
    kinds = [[type(r.fact) for r in await journal.history(run_id)] for run_id in ("plain", "r")]
    assert kinds[0] == kinds[1]
    assert [short(e) async for e in handler.stream_events(expose_internal=True, after=0)] == [
        "Item 1", "Item 2", "Item 3", "StopEvent",
    ]  # fmt: skip


async def test_a_run_makes_none_before_and_after_somebody_listens(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(item="lamp")
    await flow.shipping.wait()
    run = handler._attachment.run
    assert run is not None
    assert run.internals is None
    async with contextlib.aclosing(handler.stream_events(expose_internal=True)) as events:
        assert short(await anext(events)) == "Packed"
        assert run.internals is not None
    assert run.internals is None
    flow.hold.set()  # type: ignore[union-attr]
    # It began before anybody listened, and is known to run all the same.
    assert await told(handler) == ["-ship/0 Packed -> StopEvent", "StopEvent"]


async def test_tasks_beyond_the_steps_workers_are_prepared_and_workers_are_numbered(journal: Journal) -> None:
    class Fan(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(4)]

        @step(num_workers=2)
        async def work(self, ctx: Context, ev: Item) -> StopEvent | None:
            await ctx.checkpoint("here")
            return None if ctx.collect_events(ev, [Item] * 4) is None else StopEvent()

    events = await told(Fan(journal=journal).run())
    assert events[:2] == ["+begin/0 StartEvent", "-begin/0 StartEvent -> Item"]
    work = of_step("work", events)
    assert work[:4] == ["+work/0 Item", "+work/1 Item", "?work/<enqueued> Item", "?work/<enqueued> Item"]
    assert {event for event in work if event.startswith("+")} == {"+work/0 Item", "+work/1 Item"}
    running = highest = 0
    for event in work:
        running += {"+": 1, "-": -1, "?": 0}[event[0]]
        highest = max(highest, running)
    assert highest == 2
    assert sum(event.startswith("+") for event in work) == 4
    assert work[-1].endswith("-> StopEvent")


async def test_a_failed_attempt_stops_without_output_and_starts_again(journal: Journal) -> None:
    class Flaky(Workflow):
        failures = 1

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.001))
        async def begin(self, ev: StartEvent) -> StopEvent:
            self.failures -= 1
            if self.failures >= 0:
                raise ValueError("once")
            return StopEvent()

    assert await told(Flaky(journal=journal).run()) == [
        "+begin/0 StartEvent", "-begin/0 StartEvent",
        "+begin/0 StartEvent", "-begin/0 StartEvent -> StopEvent", "StopEvent",
    ]  # fmt: skip


async def test_a_run_that_fails_ends_with_its_terminal_event(journal: Journal) -> None:
    handler = Shop(journal=journal, fail=LookupError("none")).run(item="lamp")
    events = await told(handler)
    assert events[-2:] == ["-ship/0 Packed", WorkflowFailedEvent.__name__]
    with pytest.raises(LookupError):
        await handler


async def test_a_step_that_waits_gives_its_worker_back_and_the_run_is_idle(journal: Journal) -> None:
    class Waits(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="go on?"))
            return StopEvent(result=answer.text)

    handler = Waits(journal=journal).run()
    async with contextlib.aclosing(handler.stream_events(expose_internal=True)) as events:
        assert await up_to(events, WorkflowIdleEvent) == [
            "+begin/0 StartEvent", "Question", "-begin/0 StartEvent", "WorkflowIdleEvent",
        ]  # fmt: skip
        await handler.send_event(Answer(text="yes"))
        assert [short(event) async for event in events] == [
            "+begin/0 StartEvent", "-begin/0 StartEvent -> StopEvent", "StopEvent",
        ]  # fmt: skip


async def test_a_returned_question_leaves_the_run_idle(journal: Journal) -> None:
    handler = Asking(journal=journal).run()
    async with contextlib.aclosing(handler.stream_events(expose_internal=True)) as events:
        assert await up_to(events, WorkflowIdleEvent) == [
            "+ask/0 StartEvent", "Question", "-ask/0 StartEvent -> Question", "WorkflowIdleEvent",
        ]  # fmt: skip
        await handler.send_event(Answer(text="yes"))
        assert [short(event) async for event in events] == [
            "+answered/0 Answer", "-answered/0 Answer -> StopEvent", "StopEvent",
        ]  # fmt: skip


async def test_a_step_that_sleeps_is_not_running_and_the_run_is_not_idle(journal: Journal) -> None:
    class Sleeps(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.sleep(0.001)
            return StopEvent()

    assert await told(Sleeps(journal=journal).run()) == [
        "+begin/0 StartEvent", "-begin/0 StartEvent",
        "+begin/0 StartEvent", "-begin/0 StartEvent -> StopEvent", "StopEvent",
    ]  # fmt: skip


async def test_a_step_that_goes_on_without_a_free_worker_is_prepared(journal: Journal) -> None:
    class Waits(Workflow):
        hold = asyncio.Event()
        second = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=1), Item(n=2)]

        @step(num_workers=1)
        async def work(self, ctx: Context, ev: Item) -> StopEvent | None:
            if ev.n == 1:
                await ctx.wait_for_event(Answer, waiter_event=Question(text="go on?"))
                return StopEvent()
            self.second.set()
            await self.hold.wait()
            return None

    handler = Waits(journal=journal).run()
    async with contextlib.aclosing(handler.stream_events(expose_internal=True)) as events:
        await up_to(events, Question)
        await Waits.second.wait()
        await handler.send_event(Answer(text="yes"))
        seen = []
        async for event in events:
            seen.append(short(event))
            if seen[-1] == "?work/<enqueued> Item":
                Waits.hold.set()
    assert seen == [
        "-work/0 Item", "+work/0 Item", "?work/<enqueued> Item", "-work/0 Item", "+work/0 Item",
        "-work/0 Item -> StopEvent", "StopEvent",
    ]  # fmt: skip


async def test_an_event_that_reaches_nobody_is_told_with_its_class_and_whether_the_run_is_idle(
    journal: Journal,
) -> None:
    class Loses(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(Unheard())
            await ctx.wait_for_event(Answer)
            return StopEvent()

    handler = Loses(journal=journal).run()
    found: list[UnhandledEvent] = []
    async with contextlib.aclosing(handler.stream_events(expose_internal=True)) as events:
        async for event in events:
            if isinstance(event, UnhandledEvent):
                found.append(event)
                if len(found) == 2:
                    await handler.send_event(Answer(text="yes"))
            elif isinstance(event, WorkflowIdleEvent) and len(found) == 1:
                await handler.send_event(Unheard())
    qualified = f"{Unheard.__module__}.Unheard"
    assert found == [
        UnhandledEvent(event_type="Unheard", qualified_name=qualified, step_name=None, idle=False),
        UnhandledEvent(event_type="Unheard", qualified_name=qualified, step_name=None, idle=True),
    ]


async def test_a_run_with_nothing_left_to_do_is_idle_until_its_timeout(memory: Journal) -> None:
    class Nothing(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent | None:
            return None

    telling = asyncio.ensure_future(told(Nothing(journal=memory, timeout=0.05).run(run_id="r")))
    with time_stands_still():
        await recorded(memory, "r", StepCompleted)
    assert await telling == [
        "+begin/0 StartEvent", "-begin/0 StartEvent", "WorkflowIdleEvent", WorkflowTimedOutEvent.__name__,
    ]  # fmt: skip


async def test_a_listener_goes_on_with_a_run_that_is_released_and_taken_up_here(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    async with contextlib.aclosing(handler.stream_events(expose_internal=True)) as events:
        await up_to(events, WorkflowIdleEvent)
        run = handler._attachment.run
        assert run is not None
        run.release()
        await handler.send_event(Answer(text="yes"))
        assert [event for event in [short(e) async for e in events] if event != "WorkflowIdleEvent"] == [
            "+answered/0 Answer", "-answered/0 Answer -> StopEvent", "StopEvent",
        ]  # fmt: skip


async def test_a_run_of_another_process_shows_its_published_events_alone(url: str) -> None:
    async with Journal(url, durability="normal") as journal:
        flow = Shop(journal=journal, hold=asyncio.Event())
        handler = flow.run(run_id="r", item="lamp")
        await flow.shipping.wait()
        here, seen = asyncio.get_running_loop(), asyncio.Event()

        async def elsewhere() -> list[Any]:
            async with Journal(url, durability="normal") as other:
                found = []
                async for event in Shop(journal=other).run(run_id="r", item="lamp").stream_events(expose_internal=True):
                    found.append(short(event))
                    here.call_soon_threadsafe(seen.set)
                return found

        reading = asyncio.create_task(in_another_loop(elsewhere))
        await seen.wait()
        flow.hold.set()  # type: ignore[union-attr]
        assert await reading == ["Packed", "StopEvent"]
        await handler


async def test_two_handlers_of_one_run_listen_apart(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    one = flow.run(run_id="r", item="lamp")
    first = asyncio.create_task(told(one))
    await flow.shipping.wait()
    second = asyncio.create_task(told(flow.run(run_id="r", item="lamp")))
    await two_listen(one)
    flow.hold.set()  # type: ignore[union-attr]
    assert (await first)[-2:] == (await second)[-2:] == ["-ship/0 Packed -> StopEvent", "StopEvent"]


async def two_listen(handler: WorkflowHandler) -> None:
    """Wait until two readers listen to the run."""

    async def listen() -> bool:
        run = handler._attachment.run
        return run is not None and run.internals is not None and len(run.internals._listeners) == 2

    await until(listen)


def test_the_states_of_a_step_have_the_values_of_upstream() -> None:
    assert [state.value for state in StepState] == ["preparing", "running", "not_running"]


async def test_a_late_listener_gets_what_was_published_and_then_what_happens(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)
    async with contextlib.aclosing(handler.stream_events(expose_internal=True, after=0)) as events:
        assert short(await anext(events)) == "Question"
        await handler.send_event(Answer(text="yes"))
        assert [short(event) async for event in events][-3:] == [
            "+answered/0 Answer", "-answered/0 Answer -> StopEvent", "StopEvent",
        ]  # fmt: skip
