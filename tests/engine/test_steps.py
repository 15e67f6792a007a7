"""Steps and events: routing, order, fan-out, joins, workers, sync steps, inheritance, results and errors."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from durable_flow import (
    Context,
    Event,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
    WorkflowTimeoutError,
    step,
)
from durable_flow.records import EventEmitted, StepCompleted

from .flows import records_of, released


class Item(Event):
    n: int


class Other(Event):
    n: int = 0


class SpecialItem(Item):
    pass


# -- Routing -----------------------------------------------------------------------------------------------------------


async def test_branches_and_union_inputs(journal: Journal) -> None:
    class Branch(Workflow):
        @step
        async def choose(self, ev: StartEvent) -> Item | Other:
            return Item(n=ev.n) if ev.n % 2 else Other(n=ev.n)

        @step
        async def finish(self, ev: Item | Other) -> StopEvent:
            return StopEvent(result=f"{type(ev).__name__} {ev.n}")

    flow = Branch(journal=journal)
    assert await asyncio.gather(flow.run(n=1), flow.run(n=2)) == ["Item 1", "Other 2"]


async def test_a_loop_runs_until_it_leaves(journal: Journal) -> None:
    class Loop(Workflow):
        @step
        async def turn(self, ctx: Context, ev: StartEvent | Item) -> Item | StopEvent:
            n = ev.n if isinstance(ev, Item) else 0
            ctx.data["turns"] = n
            return Item(n=n + 1) if n < 20 else StopEvent(result=n)

    assert await Loop(journal=journal).run(run_id="r") == 20
    state = await journal.state("r")
    assert state.context == {"turns": 20}
    assert state.steps_completed == 21


async def test_several_steps_that_accept_an_event_all_get_it(memory: Journal) -> None:
    class Both(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return Item(n=1)

        @step
        async def a(self, ev: Item) -> Other:
            return Other(n=ev.n)

        @step
        async def b(self, ev: Item) -> Other:
            return Other(n=ev.n * 10)

        @step
        async def join(self, ctx: Context, ev: Other) -> StopEvent | None:
            got = ctx.collect_events(ev, [Other, Other])
            return StopEvent(result={e.n for e in got}) if got else None

    assert await Both(journal=memory).run() == {1, 10}


async def test_two_steps_that_get_one_event_do_not_share_the_object(memory: Journal) -> None:
    class Both(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return Item(n=1, notes=[])

        @step
        async def a(self, ev: Item) -> Other:
            ev.notes.append("a")
            return Other(notes=ev.notes)

        @step
        async def b(self, ev: Item) -> Other:
            ev.notes.append("b")
            return Other(notes=ev.notes)

        @step
        async def join(self, ctx: Context, ev: Other) -> StopEvent | None:
            got = ctx.collect_events(ev, [Other, Other])
            return StopEvent(result=sorted(e.notes for e in got)) if got else None

    assert await Both(journal=memory).run() == [["a"], ["b"]]


async def test_routing_is_by_exact_class(memory: Journal) -> None:
    class Exact(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return SpecialItem(n=1)

        @step
        async def take(self, ev: Item) -> StopEvent:
            return StopEvent(result="taken")

    with pytest.raises(WorkflowTimeoutError, match=r"No steps active.*SpecialItem"):
        await Exact(journal=memory, timeout=0.05).run()


async def test_an_event_that_the_annotation_does_not_name_is_routed_all_the_same(memory: Journal) -> None:
    class Loose(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return Other(n=5)

        @step
        async def item(self, ev: Item) -> Other:
            return Other(n=0)

        @step
        async def other(self, ev: Other) -> StopEvent:
            return StopEvent(result=ev.n)

    assert await Loose(journal=memory).run() == 5


async def test_parameters_are_found_by_annotation_in_any_order(memory: Journal) -> None:
    class Orders(Workflow):
        @step
        async def begin(self, event: StartEvent, context: Context, extra: int = 3) -> StopEvent:
            context.data["extra"] = extra
            return StopEvent(result=(event.x, context.data["extra"]))

    assert await Orders(journal=memory).run(x=1) == (1, 3)


async def test_an_event_changed_after_it_was_emitted_is_journaled_as_it_was(journal: Journal) -> None:
    class Changes(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            item = Item(n=1)
            ctx.send_event(item)
            item.n = 2
            return None

        @step
        async def take(self, ev: Item) -> StopEvent:
            return StopEvent(result=ev.n)

    await Changes(journal=journal).run(run_id="r")
    emitted = await records_of(journal, "r", EventEmitted)
    assert [journal.decode(e.event).n for e in emitted if journal.decode(e.event).get("n")] == [1]


# -- Order -------------------------------------------------------------------------------------------------------------


async def test_sent_and_returned_events_are_processed_in_program_order(journal: Journal) -> None:
    class Program(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.order: list[int] = []

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item:
            ctx.send_event(Item(n=1))
            await asyncio.sleep(0)
            ctx.send_event(Item(n=2))
            return Item(n=3)

        @step(num_workers=1)
        async def take(self, ev: Item) -> StopEvent | None:
            self.order.append(ev.n)
            return StopEvent() if ev.n == 3 else None

    flow = Program()
    await flow.run(run_id="r")
    assert flow.order == [1, 2, 3]


async def test_events_for_several_steps_are_processed_in_program_order(journal: Journal) -> None:
    class Program(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.order: list[int] = []

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | Other:
            ctx.send_event(Item(n=1))
            ctx.send_event(Other(n=2))
            return Item(n=3)

        @step
        async def take_item(self, ev: Item) -> StopEvent | None:
            self.order.append(ev.n)
            return StopEvent() if ev.n == 3 else None

        @step
        async def take_other(self, ev: Other) -> None:
            self.order.append(ev.n)

    flow = Program()
    await flow.run(run_id="r")
    assert flow.order == [1, 2, 3]


async def test_events_from_outside_keep_their_order(journal: Journal) -> None:
    class Takes(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal, disable_validation=True)
            self.order: list[int] = []
            self.begun = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> None:
            self.begun.set()

        @step(num_workers=1)
        async def take(self, ev: Item) -> StopEvent | None:
            self.order.append(ev.n)
            return StopEvent(result=self.order) if ev.n == 9 else None

    flow = Takes()
    handler = flow.run()
    for n in range(5):  # before the run has begun
        handler.ctx.send_event(Item(n=n))
    await flow.begun.wait()
    for n in range(5, 10):
        handler.ctx.send_event(Item(n=n))
    assert await handler == list(range(10))


async def test_a_sent_event_is_processed_while_its_sender_still_runs(memory: Journal) -> None:
    class Talks(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=memory)
            self.taken = asyncio.Event()

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | StopEvent:
            ctx.send_event(Item(n=1))
            await self.taken.wait()
            return StopEvent(result="heard")

        @step
        async def take(self, ev: Item) -> None:
            self.taken.set()

    assert await Talks().run() == "heard"


# -- send_event(step=) -------------------------------------------------------------------------------------------------


class Targets(Workflow):
    def __init__(self, target: str, event: Event, **kwargs: Any):
        super().__init__(disable_validation=True, **kwargs)
        self.target, self.event = target, event

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> None:
        ctx.send_event(self.event, step=self.target)

    @step
    async def a(self, ev: Item) -> StopEvent:
        return StopEvent(result="a")

    @step
    async def b(self, ev: Item) -> StopEvent:
        return StopEvent(result="b")


@pytest.mark.parametrize("target", ["a", "b"])
async def test_an_event_can_be_sent_to_one_step(journal: Journal, target: str) -> None:
    flow = Targets(target, Item(n=1), journal=journal)
    assert await flow.run(run_id="r") == target
    completed = await records_of(journal, "r", StepCompleted)
    assert [c.task.step for c in completed] == ["begin", target]


async def test_an_unknown_step_is_refused_by_name(memory: Journal) -> None:
    with pytest.raises(WorkflowStepDoesNotExistError, match=r"no step 'nowhere'.*a, b, begin"):
        await Targets("nowhere", Item(n=1), journal=memory).run()


async def test_a_step_is_not_sent_what_it_does_not_accept(memory: Journal) -> None:
    with pytest.raises(WorkflowRuntimeError, match="'a' does not accept Other"):
        await Targets("a", Other(), journal=memory).run()


async def test_only_events_can_be_sent(memory: Journal) -> None:
    with pytest.raises(WorkflowRuntimeError, match="takes Event instances, not dict"):
        await Targets("a", {"n": 1}, journal=memory).run()  # type: ignore[arg-type]


async def test_from_outside_the_same_is_refused(journal: Journal) -> None:
    class Idle(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal, disable_validation=True)
            self.begun = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> None:
            self.begun.set()

        @step
        async def a(self, ev: Item) -> StopEvent:
            return StopEvent(result=ev.n)

    flow = Idle()
    handler = flow.run()
    await flow.begun.wait()
    with pytest.raises(WorkflowStepDoesNotExistError):
        handler.ctx.send_event(Item(n=1), step="nowhere")
    with pytest.raises(WorkflowRuntimeError, match="does not accept"):
        await handler.send_event(Other(), step="a")
    await handler.send_event(Item(n=3), step="a")
    assert await handler == 3


async def test_a_stop_event_from_outside_ends_the_run(journal: Journal) -> None:
    class Idle(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.begun = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            self.begun.set()
            await asyncio.Event().wait()
            return StopEvent(result="inside")

    flow = Idle()
    handler = flow.run()
    await flow.begun.wait()
    await handler.send_event(StopEvent(result="outside"))
    assert await handler == "outside"


async def test_a_stop_event_that_a_step_sends_ends_the_run(journal: Journal) -> None:
    class Sends(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["n"] = 1
            ctx.send_event(StopEvent(result="sent"))
            await asyncio.Event().wait()
            return StopEvent(result="returned")

    assert await Sends(journal=journal).run(run_id="r") == "sent"
    state = await journal.state("r")
    assert (state.status, state.context) == ("completed", {"n": 1})


# -- Fan-out and joins -------------------------------------------------------------------------------------------------


class Fan(Workflow):
    def __init__(self, numbers: list[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.numbers = numbers

    @step
    async def split(self, ev: StartEvent) -> list[Item]:
        return [Item(n=n) for n in self.numbers]

    @step
    async def work(self, ev: Item) -> Other:
        return Other(n=ev.n * ev.n)

    @step
    async def join(self, ctx: Context, ev: Other) -> StopEvent | None:
        got = ctx.collect_events(ev, [Other] * len(self.numbers))
        return None if got is None else StopEvent(result=sorted(e.n for e in got))


async def test_a_returned_list_fans_out_and_is_joined(journal: Journal) -> None:
    assert await Fan([1, 2, 3, 4, 5, 6, 7], journal=journal).run() == [1, 4, 9, 16, 25, 36, 49]


async def test_an_empty_list_starts_nothing(memory: Journal) -> None:
    with pytest.raises(WorkflowTimeoutError, match="No steps active"):
        await Fan([], journal=memory, timeout=0.05).run()


async def test_none_is_no_event_and_the_completion_is_recorded(journal: Journal) -> None:
    class Nothing(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Other | None:
            ctx.send_event(Other())
            return None

        @step
        async def other(self, ev: Other) -> StopEvent:
            return StopEvent(result="ok")

    assert await Nothing(journal=journal).run(run_id="r") == "ok"
    completed = await records_of(journal, "r", StepCompleted)
    assert [c.task.step for c in completed] == ["begin", "other"]


async def test_a_list_that_was_not_declared_is_an_error(memory: Journal) -> None:
    class Undeclared(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return [StopEvent()]  # type: ignore[return-value]

    with pytest.raises(WorkflowRuntimeError, match=r"begin returned list.*list\[MyEvent\]"):
        await Undeclared(journal=memory).run()


async def test_one_event_where_a_list_was_declared_is_an_error(memory: Journal) -> None:
    class Bare(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return Item(n=1)  # type: ignore[return-value]

        @step
        async def take(self, ev: Item) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"begin returned Item instead of a list"):
        await Bare(journal=memory).run()


async def test_results_come_in_the_order_asked_for(journal: Journal) -> None:
    class Joins(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> None:
            for event in (Item(n=1), Other(n=2), Item(n=3)):
                ctx.send_event(event)

        @step(num_workers=1)
        async def join(self, ctx: Context, ev: Item | Other) -> StopEvent | None:
            got = ctx.collect_events(ev, [Other, Item, Item])
            return None if got is None else StopEvent(result=[(type(e).__name__, e.n) for e in got])

    assert await Joins(journal=journal, disable_validation=True).run() == [("Other", 2), ("Item", 1), ("Item", 3)]


async def test_what_is_left_over_stays_in_the_buffer(journal: Journal) -> None:
    class Pairs(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.pairs: list[list[int]] = []

        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(6)]

        @step(num_workers=1)
        async def pair(self, ctx: Context, ev: Item) -> StopEvent | None:
            expected = [Item, Item] if ev.n < 4 else [Item]
            got = ctx.collect_events(ev, expected)
            if got is not None:
                self.pairs.append([e.n for e in got])
            return StopEvent(result=self.pairs) if ev.n == 5 else None

    assert await Pairs().run() == [[0, 1], [2, 3], [4], [5]]


async def test_buffers_of_different_ids_are_apart_and_shared_between_steps(journal: Journal) -> None:
    class Buffers(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(4)]

        @step(num_workers=1)
        async def sort(self, ctx: Context, ev: Item) -> StopEvent | None:
            name = "even" if ev.n % 2 == 0 else "odd"
            got = ctx.collect_events(ev, [Item, Item], buffer_id=name)
            if got is None:
                return None
            ctx.data[name] = [e.n for e in got]
            return StopEvent(result=dict(ctx.data)) if len(ctx.data) == 2 else None

    assert await Buffers(journal=journal).run() == {"even": [0, 2], "odd": [1, 3]}


async def test_two_steps_collect_into_buffers_of_their_own(memory: Journal) -> None:
    class Two(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=1), Item(n=2)]

        @step
        async def a(self, ctx: Context, ev: Item) -> Other | None:
            return Other(n=1) if ctx.collect_events(ev, [Item, Item]) else None

        @step
        async def b(self, ctx: Context, ev: Item) -> Other | None:
            return Other(n=2) if ctx.collect_events(ev, [Item, Item]) else None

        @step
        async def end(self, ctx: Context, ev: Other) -> StopEvent | None:
            return StopEvent(result="both") if ctx.collect_events(ev, [Other, Other]) else None

    assert await Two(journal=memory).run() == "both"


async def test_collecting_an_unexpected_class_gives_none_and_nothing_expected_gives_an_empty_list(
    journal: Journal,
) -> None:
    class Edge(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            unexpected = ctx.collect_events(Other(), [Item])
            nothing = ctx.collect_events(Item(n=1), [])
            one = ctx.collect_events(Item(n=2), [Item])
            return StopEvent(result=[unexpected, nothing, [e.n for e in one]])

    assert await Edge(journal=journal).run() == [None, [], [2]]


async def test_a_buffer_survives_a_restart(journal: Journal) -> None:
    hold = asyncio.Event()

    class Collects(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.slow_begun = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(3)]

        @step(num_workers=1)
        async def join(self, ctx: Context, ev: Item) -> StopEvent | None:
            if ev.n == 2:
                self.slow_begun.set()
                await hold.wait()
            got = ctx.collect_events(ev, [Item] * 3)
            return None if got is None else StopEvent(result=[e.n for e in got])

    flow = Collects()
    handler = flow.run(run_id="r")
    await flow.slow_begun.wait()
    await released(handler)
    hold.set()
    assert await (await Collects().resume("r")) == [0, 1, 2]


# -- Workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3, None])
async def test_at_most_num_workers_of_a_step_run_at_once_first_come_first_served(
    memory: Journal, workers: int | None
) -> None:
    class Limited(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=memory)
            self.now = self.most = 0
            self.began: list[int] = []

        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(12)]

        @(step(num_workers=workers) if workers else step)
        async def work(self, ev: Item) -> Other:
            self.began.append(ev.n)
            self.now += 1
            self.most = max(self.most, self.now)
            for _ in range(5):
                await asyncio.sleep(0)
            self.now -= 1
            return Other()

        @step
        async def join(self, ctx: Context, ev: Other) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [Other] * 12) else None

    flow = Limited()
    await flow.run()
    assert flow.most == (workers or 4)
    assert flow.began == list(range(12))


async def test_workers_are_counted_per_run(memory: Journal) -> None:
    class Meets(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=memory)
            self.barrier = asyncio.Barrier(3)

        @step(num_workers=1)
        async def meet(self, ev: StartEvent) -> StopEvent:
            await self.barrier.wait()
            return StopEvent(result="met")

    flow = Meets()
    assert await asyncio.gather(*(flow.run() for _ in range(3))) == ["met"] * 3


# -- Sync steps --------------------------------------------------------------------------------------------------------


async def test_a_sync_step_runs_in_a_thread_and_its_context_works_there(journal: Journal) -> None:
    class Sync(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.thread = 0

        @step
        def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            self.thread = threading.get_ident()
            ctx.data["count"] = 1
            ctx.data["count"] += 1
            ctx.data.setdefault("names", []).append("x")
            ctx.write_event_to_stream(Item(n=5))
            for n in range(2):
                ctx.send_event(Item(n=n))
            return None

        @step(num_workers=1)
        def take(self, ctx: Context, ev: Item) -> StopEvent | None:
            got = ctx.collect_events(ev, [Item, Item])
            return None if got is None else StopEvent(result=[[e.n for e in got], dict(ctx.data)])

    flow = Sync()
    handler = flow.run(run_id="r")
    streamed = [event async for event in handler.stream_events()]
    assert await handler == [[0, 1], {"count": 2, "names": ["x"]}]
    assert streamed[0] == Item(n=5)
    assert flow.thread != threading.get_ident()
    assert (await journal.state("r")).context == {"count": 2, "names": ["x"]}


async def test_a_sync_step_does_not_hold_up_the_loop(memory: Journal) -> None:
    class Blocks(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=memory)
            self.go = threading.Event()

        @step
        def begin(self, ev: StartEvent) -> Item:
            assert self.go.wait(30)
            return Item(n=1)

        @step
        async def end(self, ev: Item) -> StopEvent:
            return StopEvent(result="done")

    flow = Blocks()
    handler = flow.run()
    other = Fan([1, 2], journal=memory)
    assert await other.run() == [1, 4]  # while the thread is blocked
    flow.go.set()
    assert await handler == "done"


async def test_an_error_in_a_sync_step_and_in_its_context_reaches_the_caller(memory: Journal) -> None:
    class Breaks(Workflow):
        @step
        def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                ctx.send_event(Item(n=1), step="nowhere")
            except WorkflowStepDoesNotExistError as error:
                raise RuntimeError("as expected") from error
            return StopEvent()

    with pytest.raises(RuntimeError, match="as expected") as raised:
        await Breaks(journal=memory).run()
    assert isinstance(raised.value.__cause__, WorkflowStepDoesNotExistError)


# -- Classes -----------------------------------------------------------------------------------------------------------


async def test_free_functions_are_steps_of_their_class_only(memory: Journal) -> None:
    class Base(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return Item(n=2)

        @step
        async def last(self, ev: Other) -> StopEvent:
            return StopEvent(result=ev.n)

    class Child(Base):
        pass

    @step(workflow=Base)
    async def double(ev: Item) -> Other:
        return Other(n=ev.n * 2)

    assert await Base(journal=memory).run() == 4
    with pytest.raises(Exception, match="Item"):
        await Child(journal=memory).run()


async def test_steps_are_inherited_replaced_and_removed(memory: Journal) -> None:
    class Base(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return Item(n=1)

        @step
        async def extra(self, ev: Item) -> None:
            raise AssertionError("removed by the subclass")

        @step
        async def last(self, ev: Item) -> StopEvent:
            return StopEvent(result="base")

    class Child(Base):
        async def extra(self, ev: Item) -> None:
            raise AssertionError("no step any more")

        @step
        async def last(self, ev: Item) -> StopEvent:
            return StopEvent(result="child")

    assert await Child(journal=memory).run() == "child"


async def test_steps_may_have_the_names_of_methods_of_the_base_class(memory: Journal) -> None:
    class Names(Workflow):
        @step
        async def validate(self, ev: StartEvent) -> Item:
            return Item(n=1)

        @step
        async def events(self, ev: Item) -> StopEvent:
            return StopEvent(result="fine")

    assert await Names(journal=memory).run() == "fine"


async def test_attributes_of_an_instance_are_shared_by_its_runs(memory: Journal) -> None:
    class Cached(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.cache: list[int] = []

        @step
        async def add(self, ev: StartEvent) -> StopEvent:
            self.cache.append(ev.n)
            return StopEvent(result=len(self.cache))

    flow = Cached(journal=memory)
    assert sorted(await asyncio.gather(flow.run(n=1), flow.run(n=2))) == [1, 2]


# -- Results and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"result": 1}, r"begin returned dict instead of an Event instance"),
        ("text", r"begin returned str instead of an Event instance"),
        (Item, r"begin returned \w+ instead of an Event instance"),
    ],
)
async def test_a_step_that_returns_no_event_fails_the_run(memory: Journal, result: object, message: str) -> None:
    class Wrong(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return result  # type: ignore[return-value]

    with pytest.raises(WorkflowRuntimeError, match=message):
        await Wrong(journal=memory).run()


async def test_a_forgotten_await_is_named(memory: Journal) -> None:
    async def helper() -> StopEvent:
        return StopEvent()

    class Forgot(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            forgotten.append(helper())
            return forgotten[0]  # type: ignore[return-value]

    forgotten: list[Any] = []
    with pytest.raises(WorkflowRuntimeError, match=r"begin returned coroutine.*It was not awaited"):
        await Forgot(journal=memory).run()
    forgotten[0].close()


async def test_a_failing_step_cancels_the_others_and_the_original_error_comes_out(journal: Journal) -> None:
    class Breaks(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.cancelled: list[int] = []
            self.barrier = asyncio.Barrier(3)

        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(3)]

        @step
        async def work(self, ev: Item) -> StopEvent:
            await self.barrier.wait()
            if ev.n == 1:
                raise LookupError("one is missing")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(ev.n)
                raise
            return StopEvent()

    flow = Breaks()
    handler = flow.run(run_id="r")
    with pytest.raises(LookupError, match="one is missing"):
        await handler
    await asyncio.sleep(0)  # the cancellations are under way
    assert sorted(flow.cancelled) == [0, 2]
    info = await journal.run("r")
    assert info.status == "failed"
    assert info.error == "builtins.LookupError: one is missing"


async def test_a_stop_event_cancels_steps_that_still_run(journal: Journal) -> None:
    class Race(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.cancelled = asyncio.Event()
            self.begun = asyncio.Event()

        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=0), Item(n=1)]

        @step
        async def work(self, ev: Item) -> StopEvent:
            if ev.n == 0:
                await self.begun.wait()
                return StopEvent(result="first")
            self.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
            return StopEvent(result="second")

    flow = Race()
    assert await flow.run(run_id="r") == "first"
    await flow.cancelled.wait()
    assert (await journal.state("r")).tasks == ()


async def test_an_exception_group_comes_out_as_it_is(memory: Journal) -> None:
    class Groups(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.fail())
            return StopEvent()

        async def fail(self) -> None:
            raise ValueError("inside")

    with pytest.raises(ExceptionGroup) as raised:
        await Groups(journal=memory).run()
    assert raised.group_contains(ValueError, match="inside")


async def test_extra_data_of_events_travels(journal: Journal) -> None:
    class Carries(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return Item(n=ev.get("n", 4), tag=ev.get("tag", "none"), path=("a", 1))

        @step
        async def end(self, ev: Item) -> StopEvent:
            return StopEvent(result=[ev.n, ev.tag, ev["path"], "tag" in ev])

    assert await Carries(journal=journal).run(tag="x") == [4, "x", ("a", 1), True]


async def test_runs_of_one_workflow_do_not_share_state(memory: Journal) -> None:
    class Own(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["n"] = ctx.data.get("n", 0) + ev.n
            await asyncio.sleep(0)
            return StopEvent(result=ctx.data["n"])

    flow = Own(journal=memory)
    assert await asyncio.gather(*(flow.run(n=n) for n in range(5))) == [0, 1, 2, 3, 4]


async def test_a_class_method_is_a_step_of_the_class_that_runs(journal: Journal):
    class OfClass(Workflow):
        made = "by the class"

        @classmethod
        @step
        async def begin(cls, ctx: Context[dict], ev: StartEvent) -> Other:
            await ctx.set("by", cls.made)
            return Other()

        @classmethod
        @step
        def end(cls, ev: Other, ctx: Context[dict[str, Any]]) -> StopEvent:
            return StopEvent(result=f"{ctx.data['by']}, {cls.made}")

    class Derived(OfClass):
        made = "by a derived one"

    assert await OfClass(journal=journal).run() == "by the class, by the class"
    assert await Derived(journal=journal).run() == "by a derived one, by a derived one"
