"""`stream_events` and `write_event_to_stream`."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    StreamItem,
    UnreconstructedException,
    Workflow,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    WorkflowTimedOutEvent,
    WorkflowTimeoutError,
    step,
)
from durable_flow.records import WaitOpened

from .flows import (
    Answer,
    Asking,
    Question,
    Shop,
    in_another_loop,
    question,
    records_of,
    released,
    streamed,
    time_stands_still,
)


class Tick(Event):
    n: int


class Ticks(Workflow):
    """Publishes numbers; waits before each from `held` on."""

    def __init__(self, count: int, *, held: int | None = None, **kwargs: object):
        super().__init__(**{"workflow_name": "Ticks", **kwargs})
        self.count = count
        self.held = held
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    @step
    async def tick(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.begun.set()
        for n in range(self.count):
            if n == self.held:
                await self.go.wait()
            ctx.write_event_to_stream(Tick(n=n))
        return StopEvent(result=self.count)


def numbers(events: list[Event]) -> list[int]:
    return [event.n for event in events if isinstance(event, Tick)]


async def test_items_come_in_order_then_the_event_that_ended_the_run(journal: Journal) -> None:
    events = await streamed(Ticks(5, journal=journal).run())
    assert events == [*(Tick(n=n) for n in range(5)), StopEvent(result=5)]


async def test_items_arrive_while_the_step_runs(journal: Journal) -> None:
    flow = Ticks(4, held=2, journal=journal)
    seen = []
    async for event in flow.run().stream_events():
        seen.append(event)
        if len(seen) == 2:
            flow.go.set()
    assert numbers(seen) == [0, 1, 2, 3]


async def test_a_late_reader_gets_everything(journal: Journal) -> None:
    handler = Ticks(5, journal=journal).run()
    assert await handler == 5
    assert numbers(await streamed(handler)) == [0, 1, 2, 3, 4]


async def test_more_items_than_are_kept_in_memory_reach_a_late_reader(journal: Journal) -> None:
    handler = Ticks(5000, journal=journal).run()
    await handler
    assert numbers(await streamed(handler)) == list(range(5000))


async def test_after_break_the_next_iteration_goes_on(journal: Journal) -> None:
    flow = Ticks(6, held=4, journal=journal)
    handler = flow.run()
    seen = []
    async for event in handler.stream_events():
        seen.append(event)
        if event.n == 1:
            break
    assert handler.stream_position == 2
    async for event in handler.stream_events():
        seen.append(event)
        if event.n == 3:
            break
    flow.go.set()
    seen += await streamed(handler)
    assert numbers(seen) == [0, 1, 2, 3, 4, 5]
    assert type(seen[-1]) is StopEvent


async def test_a_second_full_iteration_is_an_error_and_after_begins_anew(journal: Journal) -> None:
    handler = Ticks(3, journal=journal).run()
    await streamed(handler)
    with pytest.raises(WorkflowRuntimeError, match="All the streamed events have already been consumed"):
        await streamed(handler)
    assert numbers([event async for event in handler.stream_events(after=0)]) == [0, 1, 2]
    assert numbers([event async for event in handler.stream_events(after=2)]) == [2]


async def test_a_second_reader_at_once_waits_and_gets_that_error(memory: Journal) -> None:
    handler = Ticks(3, journal=memory).run()
    first, second = await asyncio.gather(streamed(handler), streamed(handler), return_exceptions=True)
    assert numbers(first) == [0, 1, 2]
    assert isinstance(second, WorkflowRuntimeError)


async def test_none_is_no_item(journal: Journal) -> None:
    class Quiet(Workflow):
        @step
        async def quiet(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(None)
            return StopEvent()

    assert await streamed(Quiet(journal=journal).run()) == [StopEvent()]


async def test_only_events_can_be_published(memory: Journal) -> None:
    class Wrong(Workflow):
        @step
        async def wrong(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream({"n": 1})
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match="published a dict"):
        await Wrong(journal=memory).run()


async def test_events_that_are_returned_or_sent_are_not_streamed(memory: Journal) -> None:
    class Passes(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> Tick:
            ctx.send_event(Tick(n=1))
            return Tick(n=2)

        @step
        async def second(self, ctx: Context, ev: Tick) -> StopEvent | None:
            got = ctx.collect_events(ev, [Tick, Tick])
            return None if got is None else StopEvent(result=[e.n for e in got])

    assert await streamed(Passes(journal=memory).run()) == [StopEvent(result=[1, 2])]


async def test_a_returned_question_is_streamed_with_its_wait_id(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    asked = await question(handler)
    (waiting,) = await journal.pending()
    assert asked.text == "go on?"
    assert asked.wait_id == waiting.wait_id is not None
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def test_a_sent_question_is_not_streamed_and_opens_no_wait(journal: Journal) -> None:
    class Sends(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(Question(text="anybody?"))
            return StopEvent()

    flow = Sends(journal=journal, disable_validation=True)
    assert await streamed(flow.run(run_id="r")) == [StopEvent()]
    assert await records_of(journal, "r", WaitOpened) == []


async def test_the_question_of_wait_for_event_is_streamed_with_its_wait_id(journal: Journal) -> None:
    class Waits(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="name?"))
            return StopEvent(result=answer.text)

    handler = Waits(journal=journal).run()
    asked = await question(handler)
    assert asked.wait_id == (await journal.pending())[0].wait_id
    await handler.send_event(Answer(text="Ada", wait_id=asked.wait_id))
    assert await handler == "Ada"


async def test_a_stop_event_written_by_hand_ends_the_stream_only(journal: Journal) -> None:
    class Early(Workflow):
        @step
        async def early(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Tick(n=0))
            ctx.write_event_to_stream(StopEvent(result="by hand"))
            ctx.write_event_to_stream(Tick(n=1))
            return StopEvent(result="real")

    handler = Early(journal=journal).run()
    assert await streamed(handler) == [Tick(n=0), StopEvent(result="by hand")]
    assert await handler == "real"


async def test_a_failed_run_ends_its_stream_with_that(journal: Journal) -> None:
    handler = Shop(journal=journal, fail=ValueError("no truck")).run(run_id="r", item="lamp")
    failed = (await streamed(handler))[-1]
    assert isinstance(failed, WorkflowFailedEvent)
    assert (failed.step_name, failed.exception_type) == ("ship", "builtins.ValueError")
    assert failed.exception_message == "no truck"
    with pytest.raises(ValueError, match="no truck"):
        await handler
    later = (await streamed(Shop(journal=journal).run(run_id="r", item="lamp")))[-1]
    assert later.model_dump() == failed.model_dump()


async def test_a_timed_out_run_ends_its_stream_with_that(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event(), timeout=0.05)
    handler = flow.run(item="lamp")
    with time_stands_still():
        await flow.shipping.wait()
    assert (await streamed(handler))[-1] == WorkflowTimedOutEvent(timeout=0.05, active_steps=["ship"])
    with pytest.raises(WorkflowTimeoutError):
        await handler


async def test_a_cancelled_run_ends_its_stream_with_that(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(item="lamp")
    await flow.shipping.wait()
    await handler.cancel_run()
    assert (await streamed(handler))[-1] == WorkflowCancelledEvent()


async def test_a_run_that_cannot_start_raises_in_its_stream(memory: Journal) -> None:
    await Shop(journal=memory).run(run_id="r", item="lamp")
    with pytest.raises(WorkflowRuntimeError, match="other arguments"):
        await streamed(Shop(journal=memory).run(run_id="r", item="chair"))


async def test_nothing_follows_the_stop_event(memory: Journal) -> None:
    class Race(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Tick]:
            return [Tick(n=0), Tick(n=1)]

        @step
        async def run_one(self, ctx: Context, ev: Tick) -> StopEvent:
            if ev.n == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    with contextlib.suppress(Exception):
                        ctx.write_event_to_stream(Tick(n=9))
            ctx.write_event_to_stream(Tick(n=0))
            return StopEvent(result=ev.n)

    handler = Race(journal=memory).run()
    assert await streamed(handler) == [Tick(n=0), StopEvent(result=0)]


async def test_each_steps_items_keep_their_order_between_two_steps(memory: Journal) -> None:
    class Two(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Tick]:
            return [Tick(n=0), Tick(n=100)]

        @step
        async def run_one(self, ctx: Context, ev: Tick) -> StopEvent | None:
            for n in range(20):
                ctx.write_event_to_stream(Tick(n=ev.n + n))
                await asyncio.sleep(0)
            return StopEvent() if ctx.collect_events(ev, [Tick, Tick]) else None

    got = numbers(await streamed(Two(journal=memory).run()))
    assert [n for n in got if n < 100] == list(range(20))
    assert [n for n in got if n >= 100] == list(range(100, 120))


async def test_what_was_published_after_the_last_suspension_is_not_lost_when_the_step_raises(memory: Journal) -> None:
    class Raises(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Tick(n=1))
            raise ValueError("broken")

    events = await streamed(Raises(journal=memory).run())
    assert events[0] == Tick(n=1)
    assert isinstance(events[1], WorkflowFailedEvent)


async def test_a_changed_item_is_streamed_as_it_was_published(memory: Journal) -> None:
    class Changes(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            item = Tick(n=1)
            ctx.write_event_to_stream(item)
            item.n = 2
            return StopEvent()

    assert numbers(await streamed(Changes(journal=memory).run())) == [1]


async def test_a_reader_goes_on_by_position_in_another_loop(url: str) -> None:
    async def begin() -> int:
        handler = Ticks(4, held=3, journal=url).run(run_id="r")
        async for event in handler.stream_events():
            if event.n == 1:
                break
        return handler.stream_position

    position = await in_another_loop(begin)
    handler = await Ticks(4, journal=url).resume("r")
    assert numbers([event async for event in handler.stream_events(after=position)]) == [2, 3]


async def test_items_survive_a_release_with_no_gap_and_no_repeat(journal: Journal) -> None:
    flow = Ticks(6, held=3, journal=journal)
    handler = flow.run(run_id="r")
    seen = []
    async for event in handler.stream_events():
        seen.append(event)
        if event.n == 2:
            break
    await released(handler)
    flow.go.set()
    seen += await streamed(handler)
    assert numbers(seen) == [0, 1, 2, 3, 4, 5]


async def test_questions_answered_before_this_process_took_the_run_up_are_not_shown_again(url: str) -> None:
    class Quiz(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            got = []
            for text in ("one?", "two?", "three?"):
                answer = await ctx.wait_for_event(Answer, waiter_event=Question(text=text))
                got.append(answer.text)
            return StopEvent(result=got)

    async def begin() -> None:
        handler = Quiz(journal=url).run(run_id="r")
        for reply in ("1", "2"):
            asked = await question(handler)
            await handler.send_event(Answer(text=reply, wait_id=asked.wait_id))
        assert (await question(handler)).text == "three?"

    await in_another_loop(begin)
    flow = Quiz(journal=url)
    first = await flow.resume("r")
    second = await flow.resume("r")
    for handler in (first, second):
        assert (await question(handler)).text == "three?"
    await first.send_event(Answer(text="3"))
    assert await second == ["1", "2", "3"]


async def test_the_journal_streams_a_run_without_its_class(journal: Journal) -> None:
    flow = Ticks(4, held=2, journal=journal)
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    items: list[StreamItem] = []
    async for item in journal.stream("r"):
        items.append(item)
        if item.position == 2:
            flow.go.set()
    assert [item.position for item in items] == [1, 2, 3, 4]
    assert numbers([item.event for item in items]) == [0, 1, 2, 3]
    assert {item.step for item in items} == {"tick"}
    assert [item.position async for item in journal.stream("r", after=3)] == [4]
    await handler


async def test_a_question_class_of_ones_own_without_fields_is_streamed_too(memory: Journal) -> None:
    class Bare(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent(prefix="Your name: ")

        @step
        async def answered(self, ev: Answer) -> StopEvent:
            return StopEvent(result=ev.text)

    handler = Bare(journal=memory).run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            assert event.prefix == "Your name: "
            handler.ctx.send_event(Answer(text="Ada"))
    assert await handler == "Ada"


class Down(Exception):
    def __init__(self, host: str, code: int):
        super().__init__(f"{host} answered {code}")
        self.host = host


class Unlucky(Workflow):
    """Fails twice, by an exception of a class of its own or of Python's."""

    def __init__(self, error: Exception, **kwargs: object):
        super().__init__(**{"workflow_name": "Unlucky", **kwargs})
        self.error = error

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.01))
    async def work(self, ev: StartEvent) -> StopEvent:
        raise self.error


async def test_the_last_event_of_a_failed_run_tells_how_often_and_how_long_it_was_tried(journal: Journal) -> None:
    error = Down("db", 503)
    first = (await streamed(Unlucky(error, journal=journal).run(run_id="r")))[-1]
    later = (await streamed(Unlucky(error, journal=journal).run(run_id="r")))[-1]
    for event in (first, later):
        assert isinstance(event, WorkflowFailedEvent)
        assert (event.step_name, event.attempts) == ("work", 2)
        assert event.elapsed_seconds is not None
        assert 0.01 <= event.elapsed_seconds < 60
        assert str(event.exception) == "db answered 503"
    assert first.exception is error
    assert isinstance(later.exception, UnreconstructedException)  # its class takes other arguments
    assert later.exception.original_type == f"{Down.__module__}.Down"


async def test_the_failure_of_a_child_can_be_published_by_its_parent(memory: Journal) -> None:
    class Parent(Workflow):
        @step
        async def watch(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async for event in Unlucky(ValueError("no luck"), journal=memory).run().stream_events():
                ctx.write_event_to_stream(event)
            return StopEvent(result="told")

    event = (await streamed(Parent(journal=memory).run()))[0]
    assert isinstance(event, WorkflowFailedEvent)
    assert (event.attempts, event.exception_message, str(event.exception)) == (2, "no luck", "no luck")


async def test_a_context_streams_its_run_to_each_reader_from_the_beginning(journal: Journal) -> None:
    flow = Ticks(3, journal=journal)
    ctx: Context = Context(flow)
    with pytest.raises(ContextStateError, match=r"no run yet.*run\(ctx=ctx\)"):
        await anext(ctx.stream_events())
    handler = flow.run(ctx=ctx)
    expected = [*(Tick(n=n) for n in range(3)), StopEvent(result=3)]
    assert [event async for event in ctx.stream_events()] == expected
    assert await handler == 3
    assert [event async for event in handler.ctx.stream_events()] == expected
    assert await streamed(handler) == expected


async def test_a_step_cannot_stream_its_own_run(memory: Journal) -> None:
    class Reads(Workflow):
        @step
        async def read(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=[event async for event in ctx.stream_events()])

    with pytest.raises(ContextStateError, match=r"handler\.ctx outside of the step"):
        await Reads(journal=memory).run()
