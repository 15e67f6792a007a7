"""Fan-out and fan-in: lists that are collected again, one each of several events, and what belongs to which."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from durable_flow import (
    All,
    AlreadyAnsweredError,
    Collect,
    CollectionReleaseEvent,
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    Resource,
    ServiceManager,
    StartEvent,
    StepFailedEvent,
    StepStateChanged,
    StopEvent,
    Take,
    UnhandledEvent,
    Workflow,
    WorkflowRuntimeError,
    catch_error,
    step,
)
from durable_flow.records import EventEmitted, FanOutClosed, FanOutOpened, JoinFired, StepCompleted

from .conftest import Log
from .flows import recorded, records_of, released, time_stands_still, until


class Part(Event):
    n: int


class Piece(Event):
    n: int


class Result(Event):
    n: int


class Extra(Event):
    n: int


class Sum(Event):
    ns: list[int]


class Ask(InputRequiredEvent):
    n: int


class Reply(HumanResponseEvent):
    n: int


def numbers(events: list[Any]) -> list[int]:
    return [event.n for event in events]


class Split(Workflow):
    """Begins with a list of `count` parts."""

    @step
    async def split(self, ev: StartEvent) -> list[Part]:
        return [Part(n=i) for i in range(ev.count)]


# -- A list is collected -----------------------------------------------------------------------------------------------


async def test_a_list_parameter_gets_every_result_in_the_order_of_emission(journal: Journal) -> None:
    class Flow(Split):
        @step(num_workers=5)
        async def work(self, ev: Part) -> Result:
            turns = 5 - ev.n
            for _ in range(turns):
                await asyncio.sleep(0.01)
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=numbers(found))

    result = await Flow(journal=journal).run(count=5, run_id="r")
    emitted = [f for f in await records_of(journal, "r", EventEmitted) if f.event.name == "Result"]
    assert sorted(result) == [0, 1, 2, 3, 4]
    assert result == [int(f.event.data.decode().rpartition(":")[2].strip("} ")) for f in emitted]
    assert len(await records_of(journal, "r", JoinFired)) == 1


@pytest.mark.parametrize("count", [0, 1, 20])
async def test_the_join_fires_once_for_any_number(journal: Journal, count: int) -> None:
    class Flow(Split):
        @step
        async def work(self, ev: Part) -> Result:
            return Result(n=ev.n)

        @step
        async def join(self, ctx: Context, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    assert await Flow(journal=journal).run(count=count) == list(range(count))


async def test_the_elements_themselves_may_be_collected_and_single_event_steps_run_for_each(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def each(self, ctx: Context, ev: Part) -> None:
            ctx.data[f"seen {ev.n}"] = True

        @step
        async def join(self, ctx: Context, parts: list[Part]) -> StopEvent:
            return StopEvent(result=(numbers(parts), len(ctx.data)))

    assert await Flow(journal=journal).run(count=3) == ([0, 1, 2], 3)


async def test_who_returns_nothing_is_not_waited_for(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def work(self, ev: Part) -> Result | None:
            return Result(n=ev.n) if ev.n % 2 else None

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    assert await Flow(journal=journal).run(count=5) == [1, 3]


async def test_a_union_of_classes_is_collected_in_one_list(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Part | Piece]:
            return [Part(n=1), Piece(n=2), Part(n=3)]

        @step
        async def work(self, ev: Part) -> Result:
            return Result(n=ev.n)

        @step
        async def cut(self, ev: Piece) -> Extra:
            return Extra(n=ev.n)

        @step
        async def join(self, found: list[Result | Extra]) -> StopEvent:
            return StopEvent(result=sorted((type(e).__name__, e.n) for e in found))

    assert await Flow(journal=journal).run() == [("Extra", 2), ("Result", 1), ("Result", 3)]


async def test_several_joins_collect_from_one_list_and_their_results_meet(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Part | Piece]:
            return [Part(n=1), Piece(n=2), Part(n=3)]

        @step
        async def parts(self, found: list[Part]) -> Sum:
            return Sum(ns=numbers(found))

        @step
        async def pieces(self, found: list[Piece]) -> Result:
            return Result(n=len(found))

        @step
        async def meet(self, total: Sum, count: Result) -> StopEvent:
            return StopEvent(result=(total.ns, count.n))

    assert await Flow(journal=journal).run() == ([1, 3], 1)


async def test_a_loop_within_the_fan_out_belongs_to_it(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def again(self, ev: Part | Piece) -> Piece | Result:
            return Result(n=ev.n) if ev.n >= 5 else Piece(n=ev.n + 2)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    assert await Flow(journal=journal).run(count=4) == [5, 5, 6, 6]


async def test_what_is_sent_within_the_fan_out_belongs_to_it(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def work(self, ctx: Context, ev: Part) -> Piece | None:
            for i in range(2):
                ctx.send_event(Piece(n=10 * ev.n + i))
            return None

        @step
        async def finish(self, ev: Piece) -> Result:
            await asyncio.sleep(0)
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    assert await Flow(journal=journal).run(count=2) == [0, 1, 10, 11]


async def test_none_opens_nothing_and_a_declared_single_event_is_ordinary(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Part] | Piece | None:
            match ev.what:
                case "list":
                    return [Part(n=1)]
                case "single":
                    return Piece(n=2)
            return None

        @step
        async def single(self, ev: Piece) -> StopEvent:
            return StopEvent(result=f"single {ev.n}")

        @step
        async def join(self, found: list[Part]) -> StopEvent:
            return StopEvent(result=f"list {numbers(found)}")

    flow = Flow(journal=journal, timeout=0.3)
    with time_stands_still():
        assert await flow.run(what="list") == "list [1]"
        assert await flow.run(what="single", run_id="single") == "single 2"
        nothing = flow.run(what="nothing", run_id="nothing")
        await recorded(journal, "nothing", StepCompleted)
    with pytest.raises(TimeoutError):
        await nothing
    for run_id in ("single", "nothing"):
        assert await records_of(journal, run_id, FanOutOpened, JoinFired) == []


async def test_a_list_that_nobody_collects_makes_no_record_of_it(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def work(self, ctx: Context, ev: Part) -> StopEvent | None:
            found = ctx.collect_events(ev, [Part] * 3)
            return StopEvent(result=numbers(found)) if found else None

    assert await Flow(journal=journal).run(count=3, run_id="r") == [0, 1, 2]
    assert await records_of(journal, "r", FanOutOpened, FanOutClosed, JoinFired) == []


async def test_collect_events_works_within_a_fan_out(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def pairs(self, ctx: Context, ev: Part) -> Sum | None:
            found = ctx.collect_events(ev, [Part] * 2)
            return Sum(ns=numbers(found)) if found else None

        @step
        async def join(self, found: list[Sum]) -> StopEvent:
            return StopEvent(result=[s.ns for s in found])

    assert await Flow(journal=journal).run(count=4) == [[0, 1], [2, 3]]


async def test_a_plain_function_collects_too(journal: Journal) -> None:
    class Flow(Split):
        @step
        def work(self, ev: Part) -> Result:
            return Result(n=ev.n)

        @step
        def join(self, ctx: Context, found: list[Result], times: int = 2) -> StopEvent:
            return StopEvent(result=sum(numbers(found)) * times)

    assert await Flow(journal=journal).run(count=4) == 12


async def test_joins_are_given_resources_and_services(journal: Journal) -> None:
    def ten() -> int:
        return 10

    class Flow(Split):
        @step
        async def join(self, found: list[Part], factor: Annotated[int, Resource(ten)], word: str) -> Sum | Extra:
            return Sum(ns=[n * factor for n in [*numbers(found), len(word)]])

        @step
        async def other(self, found: list[Part]) -> Extra:
            return Extra(n=len(found))

        @step
        async def meet(self, total: Sum, extra: Extra, factor: Annotated[int, Resource(ten)]) -> StopEvent:
            return StopEvent(result=(total.ns, extra.n * factor))

    services = ServiceManager()
    services.add("word", "four")
    assert await Flow(journal=journal, service_manager=services).run(count=2) == ([0, 10, 40], 20)


async def test_listeners_see_what_a_join_got(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def join(self, found: list[Part]) -> StopEvent:
            return StopEvent(result=numbers(found))

    seen = []
    async for event in Flow(journal=journal).run(count=2).stream_events(expose_internal=True):
        if isinstance(event, StepStateChanged) and event.name == "join":
            seen.append((event.step_state.name, event.input_event_name))
        assert not isinstance(event, UnhandledEvent)
    assert seen == [("RUNNING", "Part"), ("NOT_RUNNING", "Part")]


# -- Take --------------------------------------------------------------------------------------------------------------


class TakeTwo(Split):
    """The third part waits until the join has run; it must not reach it."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.joined = asyncio.Event()
        self.ran: list[list[int]] = []

    @step
    async def work(self, ev: Part) -> Result:
        if ev.n >= 2:
            await self.joined.wait()
        return Result(n=ev.n)

    @step
    async def few(self, found: Annotated[list[Result], Collect(Take(2))]) -> None:
        self.ran.append(numbers(found))
        self.joined.set()

    @step
    async def join(self, found: Annotated[list[Result], Collect(All())]) -> StopEvent:
        return StopEvent(result=numbers(found))


async def test_take_runs_at_its_number_and_never_again(journal: Journal) -> None:
    flow = TakeTwo(journal=journal)
    assert await flow.run(count=4) == [0, 1, 2, 3]
    assert flow.ran == [[0, 1]]


@pytest.mark.parametrize("count", [0, 1])
async def test_take_runs_with_what_came_if_there_is_less(journal: Journal, count: int) -> None:
    flow = TakeTwo(journal=journal)
    assert await flow.run(count=count) == list(range(count))
    assert flow.ran == [list(range(count))]


async def test_what_comes_after_a_take_is_neither_missed_nor_warned_of(journal: Journal, log: Log) -> None:
    class Flow(Split):
        @step(num_workers=1)
        async def work(self, ev: Part) -> Result:
            return Result(n=ev.n)

        @step
        async def first(self, found: Annotated[list[Result], Collect(Take(1))]) -> Sum:
            return Sum(ns=numbers(found))

        @step
        async def never(self, ev: Sum) -> StopEvent | None:
            return None

    handler = Flow(journal=journal, timeout=0.3).run(count=3, run_id="r")
    with time_stands_still():
        await recorded(journal, "r", StepCompleted, 6)
    with pytest.raises(TimeoutError, match=r"No steps active \(run"):
        await handler
    assert log.of("event_ignored") == []


# -- Fan-outs within fan-outs ------------------------------------------------------------------------------------------


class Nested(Split):
    @step
    async def cut(self, ev: Part) -> list[Piece]:
        return [Piece(n=10 * ev.n + i) for i in range(ev.n)]

    @step
    async def work(self, ev: Piece) -> Result:
        return Result(n=ev.n)

    @step
    async def inner(self, found: list[Result]) -> Sum:
        return Sum(ns=sorted(numbers(found)))

    @step
    async def outer(self, found: list[Sum]) -> StopEvent:
        return StopEvent(result=sorted(s.ns for s in found))


async def test_an_inner_join_fires_once_per_inner_list_and_its_results_are_collected_outside(journal: Journal) -> None:
    assert await Nested(journal=journal).run(count=4, run_id="r") == [[], [10], [20, 21], [30, 31, 32]]
    opened = await records_of(journal, "r", FanOutOpened)
    assert [f.joins for f in opened] == [("outer",), *[("inner",)] * 4]
    # The end of the run leaves the outer one closed too: nothing was pending in it.
    assert len(await records_of(journal, "r", FanOutClosed)) == 5


async def test_a_list_that_a_join_returns_is_a_fan_out_beside_the_first(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def join(self, found: list[Part]) -> list[Piece]:
            return [Piece(n=n + 100) for n in numbers(found)]

        @step
        async def second(self, found: list[Piece]) -> StopEvent:
            return StopEvent(result=numbers(found))

    assert await Flow(journal=journal).run(count=2) == [100, 101]


async def test_a_tree_that_splits_itself_is_summed_up(journal: Journal) -> None:
    """A step whose list comes back to itself: one level for all depths."""

    class Grow(Event):
        depth: int

    class Leaf(Event):
        weight: int

    class Tree(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Grow:
            return Grow(depth=ev.depth)

        @step
        async def grow(self, ev: Grow) -> list[Grow] | Leaf:
            return Leaf(weight=1) if ev.depth == 0 else [Grow(depth=ev.depth - 1) for _ in range(2)]

        @step
        async def add(self, ctx: Context, leaves: list[Leaf]) -> Leaf | StopEvent:
            total = sum(leaf.weight for leaf in leaves)
            ctx.data.setdefault("sums", []).append(total)
            return StopEvent(result=(total, ctx.data["sums"])) if total == 2**3 else Leaf(weight=total)

    total, sums = await Tree(journal=journal).run(depth=3)
    assert total == 8
    assert sorted(sums) == [2, 2, 2, 2, 4, 4, 8]


# -- Questions, retries, failures --------------------------------------------------------------------------------------


async def test_returned_questions_keep_the_fan_out_open_and_answers_are_collected(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> list[Ask]:
            return [Ask(n=i) for i in range(2)]

        @step
        async def join(self, replies: list[Reply]) -> StopEvent:
            return StopEvent(result=sorted(numbers(replies)))

    handler = Flow(journal=journal).run(run_id="r")
    asked = []
    async for event in handler.stream_events():
        if isinstance(event, Ask):
            asked.append(event)
            await handler.send_event(Reply(n=event.n + 10, wait_id=event.wait_id))
    assert await handler == [10, 11]
    assert len(asked) == 2


async def test_answers_are_collected_where_another_workflow_has_a_class_of_their_name(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> list[Ask]:
            return [Ask(n=1)]

        @step
        async def join(self, replies: list[Reply]) -> StopEvent:
            return StopEvent(result=numbers(replies))

    class Other(HumanResponseEvent):
        event_name = "Reply"

    handler = Flow(journal=journal).run(run_id="r")
    await question_of(handler)
    await journal.send("r", Reply(n=5))
    assert await handler == [5]


async def test_an_answer_that_a_step_takes_goes_on_within_the_fan_out(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def ask(self, ev: Part) -> Ask | Result:
            return Ask(n=ev.n) if ev.n == 1 else Result(n=ev.n)

        @step
        async def answered(self, ev: Reply) -> Result:
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    handler = Flow(journal=journal).run(count=3, run_id="r")
    await question_of(handler)
    assert (await journal.state("r")).status == "waiting"
    await handler.send_event(Reply(n=50))
    assert await handler == [0, 2, 50]


async def question_of(handler: Any) -> Ask:
    async for event in handler.stream_events():
        if isinstance(event, Ask):
            return event
    raise AssertionError("the run ended without a question")


async def test_a_waiting_step_and_a_retry_keep_the_fan_out_open(journal: Journal) -> None:
    class Flow(Split):
        tries = 0

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.05))
        async def work(self, ctx: Context, ev: Part) -> Result:
            if ev.n == 0:
                self.tries += 1
                if self.tries < 3:
                    raise ValueError("not yet")
            if ev.n == 1:
                await ctx.sleep(0.05)
            if ev.n == 2:
                reply = await ctx.wait_for_event(Reply, waiter_event=Ask(n=2))
                return Result(n=reply.n)
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    handler = Flow(journal=journal).run(count=4)
    await question_of(handler)
    await handler.send_event(Reply(n=22))
    assert await handler == [0, 1, 3, 22]


async def test_a_failure_within_the_fan_out_fails_the_run_and_a_retry_of_the_run_goes_on(journal: Journal) -> None:
    class Flow(Split):
        broken = True

        @step(num_workers=1)
        async def work(self, ev: Part) -> Result:
            if ev.n == 1 and self.broken:
                raise ValueError("broken")
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    flow = Flow(journal=journal)
    with pytest.raises(ValueError, match="broken"):
        await flow.run(count=3, run_id="r")
    flow.broken = False
    assert await (await flow.retry("r")) == [0, 1, 2]


async def test_what_a_handler_of_failures_returns_is_collected(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def work(self, ev: Part) -> Result:
            if ev.n == 1:
                raise ValueError("broken")
            return Result(n=ev.n)

        @catch_error
        async def instead(self, ev: StepFailedEvent) -> Result:
            assert isinstance(ev.input_event, Part)
            return Result(n=100 + ev.input_event.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    assert await Flow(journal=journal).run(count=3) == [0, 2, 101]


async def test_a_list_that_only_a_handler_fills_is_collected(journal: Journal) -> None:
    """The handler runs in the fan-out of the step that failed, so its events are found there by the checks, too."""

    class Flow(Split):
        @step
        async def work(self, ev: Part) -> None:
            raise ValueError("broken")

        @catch_error
        async def instead(self, ev: StepFailedEvent) -> Extra:
            return Extra(n=ev.attempts)

        @step
        async def join(self, found: list[Extra]) -> StopEvent:
            return StopEvent(result=numbers(found))

    # That a step ends well only by failing is what the checks call a dead end.
    assert await Flow(journal=journal, skip_graph_checks={"dead_end"}).run(count=2) == [1, 1]


async def test_the_handler_of_a_join_gets_all_that_it_was_called_with(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def join(self, found: list[Part]) -> StopEvent:
            raise ValueError("broken")

        @catch_error
        async def instead(self, ev: StepFailedEvent) -> StopEvent:
            assert isinstance(ev.input_event, CollectionReleaseEvent)
            return StopEvent(result=(ev.step_name, ev.input_event.events))

    assert await Flow(journal=journal).run(count=2) == ("join", [Part(n=0), Part(n=1)])


async def test_a_join_remembers_what_handlers_took_before_it(journal: Journal) -> None:
    """Else a loop through a fan-out would be recovered for ever."""

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent | Sum) -> list[Part]:
            return [Part(n=1), Part(n=2)]

        @step
        async def work(self, ev: Part) -> Result:
            if ev.n == 1:
                raise ValueError("broken")
            return Result(n=ev.n)

        @catch_error(max_recoveries=2)
        async def instead(self, ev: StepFailedEvent) -> Result:
            return Result(n=0)

        @step
        async def join(self, found: list[Result]) -> Sum | StopEvent:
            return Sum(ns=numbers(found))

    with pytest.raises(ValueError, match="broken"):
        await Flow(journal=journal).run(run_id="r")
    assert len(await records_of(journal, "r", JoinFired)) == 2


async def test_a_stop_event_ends_the_run_with_the_fan_out_open(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def work(self, ev: Part) -> Result | StopEvent:
            return StopEvent(result="enough") if ev.n == 0 else Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            raise AssertionError("the run has ended")

    assert await Flow(journal=journal).run(count=3, run_id="r") == "enough"
    assert await records_of(journal, "r", JoinFired, FanOutClosed) == []


# -- One each of several events ----------------------------------------------------------------------------------------


async def test_one_each_runs_for_every_complete_set_the_oldest_first(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Part | Piece | None:
            for event in (Part(n=1), Part(n=2), Piece(n=3), Part(n=4), Piece(n=5)):
                ctx.send_event(event)
            return None

        @step(num_workers=1)
        async def pair(self, ctx: Context, piece: Piece, part: Part) -> StopEvent | None:
            pairs = ctx.data.setdefault("pairs", [])
            pairs.append((part.n, piece.n))
            return StopEvent(result=list(pairs)) if len(pairs) == 2 else None

    assert await Flow(journal=journal).run() == [(1, 3), (2, 5)]


async def test_several_parameters_are_found_by_annotation_among_others(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Part:
            return Part(n=1)

        @step
        async def twice(self, ev: Part) -> Piece:
            return Piece(n=2)

        @step
        async def thrice(self, ev: Part) -> Result:
            return Result(n=3)

        @step
        async def all_of(
            self, z: Piece, ctx: Context, a: StartEvent, factor: int = 10, *, late: Result, other: str = "x"
        ) -> StopEvent:
            return StopEvent(result=(z.n, a.word, factor, late.n, other, ctx.is_running))

    assert await Flow(journal=journal).run(word="start") == (2, "start", 10, 3, "x", True)


async def test_two_parameters_of_one_class_get_one_event_each(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def join(self, first: Part, second: Part) -> StopEvent:
            return StopEvent(result=(first.n, second.n))

    assert await Flow(journal=journal).run(count=3) == (0, 1)


async def test_sets_are_made_within_one_fan_out(journal: Journal) -> None:
    """Two lists at once: what belongs to different ones never meets."""

    class Flow(Split):
        @step
        async def cut(self, ev: Part) -> list[Piece | Extra]:
            return [Piece(n=ev.n), Extra(n=ev.n)]

        @step
        async def slow(self, ev: Piece) -> Result:
            for _ in range(3 - ev.n):
                await asyncio.sleep(0.005)
            return Result(n=ev.n)

        @step
        async def meet(self, result: Result, extra: Extra) -> Sum:
            return Sum(ns=[result.n, extra.n])

        @step
        async def inner(self, ctx: Context, sums: list[Sum]) -> StopEvent | None:
            seen = ctx.data.setdefault("seen", [])
            seen.extend(s.ns for s in sums)
            return StopEvent(result=sorted(seen)) if len(seen) == 3 else None

    assert await Flow(journal=journal).run(count=3) == [[0, 0], [1, 1], [2, 2]]


async def test_an_answer_from_outside_may_complete_a_set(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Part:
            return Part(n=1)

        @step
        async def meet(self, part: Part, reply: Reply) -> StopEvent:
            return StopEvent(result=(part.n, reply.n))

    handler = Flow(journal=journal).run()
    await handler.send_event(Reply(n=2))
    assert await handler == (1, 2)


async def test_a_message_of_the_journal_may_complete_a_set(new_journal: Callable[..., Journal]) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Ask:
            return Ask(n=1)

        @step
        async def other(self, ev: StartEvent) -> Part:
            return Part(n=1)

        @step
        async def meet(self, part: Part, reply: Reply) -> StopEvent:
            return StopEvent(result=(part.n, reply.n))

    async with new_journal() as journal:
        handler = Flow(journal=journal).run(run_id="r")
        asked = await question_of(handler)
        await journal.answer("r", Reply(n=5), wait_id=asked.wait_id) if hasattr(
            journal, "answer"
        ) else await handler.send_event(Reply(n=5, wait_id=asked.wait_id))
        assert await handler == (1, 5)


async def test_a_run_that_hangs_names_the_set_that_is_not_complete(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Part | Piece:
            return Part(n=1)

        @step
        async def meet(self, part: Part, piece: Piece) -> StopEvent:
            return StopEvent()

    handler = Flow(journal=journal, timeout=0.2).run(run_id="r")
    with time_stands_still():
        await recorded(journal, "r", StepCompleted)
    with pytest.raises(TimeoutError, match="Incomplete sets of events: step 'meet' has only part"):
        await handler


# -- Wrong use ---------------------------------------------------------------------------------------------------------


async def test_a_collected_event_that_is_sent_is_ignored_with_a_warning(journal: Journal, log: Log) -> None:
    class Flow(Split):
        @step
        async def work(self, ctx: Context, ev: Part) -> Result:
            ctx.send_event(Result(n=100 + ev.n))
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=numbers(found))

    assert await Flow(journal=journal).run(count=2, run_id="r") == [0, 1]
    [first, _] = log.of("event_ignored")
    assert "run r: ignoring Result" in first.getMessage()
    assert "step 'work'" in first.getMessage()
    assert "collecting step 'join': it was sent, not returned" in first.getMessage()


async def test_a_collected_event_that_others_take_is_sent_without_a_warning(journal: Journal, log: Log) -> None:
    class Flow(Split):
        @step
        async def work(self, ctx: Context, ev: Part) -> Result | Piece:
            ctx.send_event(Piece(n=ev.n))
            return Result(n=ev.n)

        @step
        async def take(self, ev: Piece) -> None: ...

        @step
        async def join(self, found: list[Result | Piece]) -> StopEvent:
            return StopEvent(result=[type(e).__name__ for e in found])

    assert await Flow(journal=journal).run(count=2) == ["Result", "Result"]
    assert log.of("event_ignored") == []


async def test_a_collected_event_sent_to_the_collecting_step_is_an_error(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def work(self, ctx: Context, ev: Part) -> Result:
            ctx.send_event(Result(n=5), step="join")
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=numbers(found))

    with pytest.raises(WorkflowRuntimeError, match=r"run r: Result was sent to the collecting step 'join'.*Return"):
        await Flow(journal=journal).run(count=2, run_id="r")


async def test_an_event_sent_to_a_step_with_several_parameters_is_one_of_the_set(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Part | Piece:
            ctx.send_event(Part(n=1), step="pair")
            return Piece(n=2)

        @step
        async def single(self, ev: Part) -> StopEvent:
            raise AssertionError("it was sent to another step")

        @step
        async def pair(self, part: Part, piece: Piece) -> StopEvent:
            return StopEvent(result=(part.n, piece.n))

    assert await Flow(journal=journal).run() == (1, 2)


async def test_a_single_event_where_only_a_list_is_declared_is_an_error(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Part]:
            return Part(n=1)  # type: ignore[return-value]

        @step
        async def join(self, found: list[Part]) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match="Part instead of a list of events"):
        await Flow(journal=journal).run()


# -- Taken up again ----------------------------------------------------------------------------------------------------


async def test_a_released_run_goes_on_with_what_it_had_collected(journal: Journal) -> None:
    class Flow(Split):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.hold = True
            self.began = asyncio.Event()
            self.ran: list[int] = []

        @step
        async def work(self, ev: Part) -> Result:
            self.ran.append(ev.n)
            if ev.n == 2 and self.hold:
                self.began.set()
                await asyncio.Event().wait()
            return Result(n=ev.n)

        @step
        async def join(self, found: list[Result]) -> StopEvent:
            return StopEvent(result=sorted(numbers(found)))

    flow = Flow(journal=journal)
    handler = flow.run(count=4, run_id="r")
    await flow.began.wait()

    async def the_others_have_ended() -> bool:
        return len(await records_of(journal, "r", StepCompleted)) == 4

    await until(the_others_have_ended)
    await released(handler)
    flow.hold = False
    assert await (await flow.resume("r")) == [0, 1, 2, 3]
    assert sorted(flow.ran) == [0, 1, 2, 2, 3]


async def test_what_is_pending_is_shown_by_the_journal(journal: Journal) -> None:
    class PendingPart(Event):  # no other test has a class of this name
        n: int

    class Flow(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.began = asyncio.Event()
            self.go = asyncio.Event()

        @step
        async def split(self, ev: StartEvent) -> list[PendingPart]:
            return [PendingPart(n=i) for i in range(2)]

        @step
        async def join(self, found: list[PendingPart]) -> StopEvent:
            self.began.set()
            await self.go.wait()
            return StopEvent(result=numbers(found))

    flow = Flow(journal=journal)
    handler = flow.run(run_id="r")
    await flow.began.wait()
    [pending] = (await journal.state("r")).tasks
    assert (pending.step, pending.event, numbers(list(pending.joined))) == ("join", None, [0, 1])
    flow.go.set()
    assert await handler == [0, 1]


async def test_the_object_goes_live_to_a_join_that_is_its_only_consumer(journal: Journal) -> None:
    made: list[Part] = []

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Part]:
            made.extend(Part(n=i) for i in range(2))
            return list(made)

        @step
        async def join(self, found: list[Part]) -> StopEvent:
            return StopEvent(result=[a is b for a, b in zip(found, made, strict=True)])

    assert await Flow(journal=journal).run() == [True, True]


async def test_an_element_with_several_consumers_is_everybodys_own(journal: Journal) -> None:
    class Flow(Split):
        @step
        async def spoil(self, ev: Part) -> None:
            ev.n = -1

        @step
        async def join(self, found: list[Part]) -> StopEvent:
            return StopEvent(result=numbers(found))

    assert await Flow(journal=journal).run(count=3) == [0, 1, 2]


async def test_a_join_that_takes_something_else_after_a_change_parks_the_run(journal: Journal) -> None:
    class Before(Split):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Flow", **kwargs)
            self.began = asyncio.Event()

        @step
        async def join(self, found: list[Part]) -> StopEvent:
            self.began.set()
            await asyncio.Event().wait()
            return StopEvent()

    class After(Split):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Flow", **kwargs)

        @step
        async def join(self, part: Part) -> StopEvent:
            raise AssertionError("it was given to a step that takes a single event")

    flow = Before(journal=journal)
    handler = flow.run(count=2, run_id="r")
    await flow.began.wait()
    await released(handler)
    handler = await After(journal=journal).resume("r")
    with pytest.raises(Exception, match=r"step 'join'.*2 events at once.*restore its parameters"):
        await handler
    assert (await journal.run("r")).status == "needs_attention"


# -- Subclasses --------------------------------------------------------------------------------------------------------


class SpecialPart(Part):
    pass


class SpecialReply(Reply):
    pass


async def test_subclasses_go_to_the_steps_that_accept_them_and_to_no_other(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> SpecialPart:
            return SpecialPart(n=1)

        @step(accept_event_subclasses=True)
        async def base(self, ctx: Context, ev: Part) -> Result:
            return Result(n=ev.n)

        @step
        async def exact(self, ev: SpecialPart) -> Extra:
            return Extra(n=ev.n)

        @step
        async def never(self, ev: Piece | Sum) -> StopEvent:
            raise AssertionError

        @step
        async def end(self, result: Result, extra: Extra) -> StopEvent:
            return StopEvent(result=(result.n, extra.n))

    assert await Flow(journal=journal, disable_validation=True).run() == (1, 1)


async def test_joins_accept_subclasses_too(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Part | SpecialPart]:
            return [Part(n=1), SpecialPart(n=2), SpecialPart(n=3)]

        @step(accept_event_subclasses=True)
        async def join(self, found: list[Part]) -> Sum:
            return Sum(ns=numbers(found))

        @step(accept_event_subclasses=True)
        async def pair(self, part: Part, special: SpecialPart) -> Extra:
            return Extra(n=10 * part.n + special.n)

        @step
        async def end(self, total: Sum) -> StopEvent:
            return StopEvent(result=total.ns)

        @step
        async def keep(self, ctx: Context, pairs: list[Extra]) -> None:
            ctx.data["pairs"] = numbers(pairs)

    flow = Flow(journal=journal, skip_graph_checks={"dead_end"})
    assert await flow.run(run_id="r") == [1, 2, 3]
    # A special part first goes where nothing else fits; the last one waits for another part.
    fired = [f for f in await records_of(journal, "r", JoinFired) if f.step == "pair"]
    [part, special] = [f.seq for f in await journal.history("r") if isinstance(f.fact, EventEmitted)][1:3]
    assert [f.events for f in fired] == [(part, special)]


async def test_an_answer_of_a_subclass_answers_where_it_is_accepted(journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> Ask:
            return Ask(n=1)

        @step(accept_event_subclasses=True)
        async def answered(self, ev: Reply) -> StopEvent:
            return StopEvent(result=type(ev).__name__)

    handler = Flow(journal=journal).run(run_id="r")
    await question_of(handler)
    await handler.send_event(SpecialReply(n=2))
    assert await handler == "SpecialReply"
    assert await journal.pending() == []


async def test_a_second_answer_of_a_subclass_is_refused(journal: Journal) -> None:
    refused = asyncio.Event()

    class Flow(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> Ask:
            return Ask(n=1)

        @step(accept_event_subclasses=True)
        async def answered(self, ev: Reply) -> StopEvent:
            await refused.wait()
            return StopEvent(result=ev.n)

    handler = Flow(journal=journal).run(run_id="r")
    await question_of(handler)
    await handler.send_event(SpecialReply(n=1))
    with pytest.raises(AlreadyAnsweredError):
        await handler.send_event(SpecialReply(n=2))
    refused.set()
    assert await handler == 1


async def test_every_event_may_be_watched_by_one_step(journal: Journal) -> None:
    class Flow(Split):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.seen: list[str] = []

        @step(accept_event_subclasses=True)
        async def watch(self, ev: Event) -> None:
            self.seen.append(type(ev).__name__)

        @step
        async def join(self, found: list[Part]) -> StopEvent:
            return StopEvent(result=numbers(found))

    flow = Flow(journal=journal)
    assert await flow.run(count=2) == [0, 1]
    assert flow.seen == ["StartEvent", "Part", "Part"]
