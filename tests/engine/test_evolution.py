"""Runs that began with other code: renamed and changed events, steps that came and went, and what is said about it."""

import contextlib
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import pytest
from pydantic import BaseModel

import durable_flow.events
from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    DeserializationError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    NeedsAttentionError,
    StartEvent,
    StopEvent,
    UnknownEvent,
    Workflow,
    WorkflowConfigurationError,
    step,
    upcast,
)
from durable_flow.records import BufferReleased, EventEmitted, StepDiverged, WaitOpened

from .conftest import WHERE, Log
from .flows import in_another_loop, recorded, records_of

NAMES = ("evolution.Page", "evolution.Ask", "evolution.Reply")
NEW_NAMES = ("evolution.Sheet", "evolution.Question", "evolution.Response")


def generation(new: bool) -> SimpleNamespace:
    """Define the same three event classes, as they were, or with new names and fields."""
    page, ask, reply = NEW_NAMES if new else NAMES
    aliases = tuple((name,) if new else () for name in NAMES)

    class Page(Event):
        event_name: ClassVar[str] = page
        event_aliases: ClassVar[tuple[str, ...]] = aliases[0]
        if new:
            label: str = "none"
        number: int

    class Ask(InputRequiredEvent):
        event_name: ClassVar[str] = ask
        event_aliases: ClassVar[tuple[str, ...]] = aliases[1]
        if new:
            urgent: bool = False
        text: str

    class Reply(HumanResponseEvent):
        event_name: ClassVar[str] = reply
        event_aliases: ClassVar[tuple[str, ...]] = aliases[2]
        text: str

    return SimpleNamespace(Page=Page, Ask=Ask, Reply=Reply)


def asks_inside(events: SimpleNamespace, journal: Journal) -> Workflow:
    Page, Ask, Reply = events.Page, events.Ask, events.Reply

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Page | None:
            ctx.send_event(Page(number=1))
            answer = await ctx.wait_for_event(Reply, waiter_event=Ask(text="go?"))
            ctx.send_event(Page(number=2))
            await ctx.store.set("answer", answer.text)
            return None

        @step
        async def collect(self, ctx: Context, ev: Page) -> StopEvent | None:
            pages = ctx.collect_events(ev, [Page, Page])
            if pages is None:
                return None
            return StopEvent(result=[type(p) is Page and p.number for p in pages])

    return Flow(journal=journal, workflow_name="Evolving")


def asks_by_returning(events: SimpleNamespace, journal: Journal) -> Workflow:
    Ask, Reply = events.Ask, events.Reply

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Ask:
            return Ask(text="go?")

        @step
        async def answered(self, ev: Reply) -> StopEvent:
            return StopEvent(result=ev.text)

    return Flow(journal=journal, workflow_name="Evolving")


NewJournal = Callable[[], Journal]


@pytest.fixture(params=["sqlite", "postgres"])
def new_journal(request: pytest.FixtureRequest) -> NewJournal:
    """What outlives an event loop: the code that began a run has a loop of its own, as a process has."""
    return functools.partial(Journal, WHERE[request.param](request), durability="normal")


async def asked(new_journal: NewJournal, flow: Callable[[Journal], Workflow], ask: type[Event]) -> str | None:
    """Begin the run in a loop that ends with its question; return the id of that."""

    async def earlier() -> str | None:
        async with (
            new_journal() as journal,
            contextlib.aclosing(flow(journal).run(run_id="r").stream_events()) as items,
        ):
            async for event in items:
                if isinstance(event, ask):
                    return event.wait_id  # type: ignore[attr-defined, no-any-return]
        raise AssertionError("the run asked nothing")

    wait_id: str | None = await in_another_loop(earlier)
    return wait_id


async def begun(new_journal: NewJournal, flow: Callable[[Journal], Workflow], count: int = 1) -> None:
    """Begin the run in a loop that ends when so many of its steps wait."""

    async def earlier() -> None:
        async with new_journal() as journal:
            flow(journal).run(run_id="r")
            await recorded(journal, "r", WaitOpened, count)

    await in_another_loop(earlier)


async def test_a_step_that_waits_goes_on_with_renamed_events(new_journal: NewJournal, journal: Journal) -> None:
    old = generation(new=False)
    await asked(new_journal, lambda journal: asks_inside(old, journal), old.Ask)
    new = generation(new=True)
    handler = await asks_inside(new, journal).resume("r")
    handler.ctx.send_event(new.Reply(text="yes"))
    assert await handler == [1, 2]
    assert len(await records_of(journal, "r", WaitOpened)) == 1
    assert not await records_of(journal, "r", StepDiverged)
    emitted = [fact.event.name for fact in await records_of(journal, "r", EventEmitted)]
    assert emitted.count("evolution.Page") == emitted.count("evolution.Sheet") == 1
    released_names = [fact.events for fact in await records_of(journal, "r", BufferReleased)]
    assert released_names == [("evolution.Page", "evolution.Sheet")]
    assert (await journal.state("r")).status == "completed"  # the journal is still folded by the stored names


@pytest.mark.parametrize("flow", [asks_inside, asks_by_returning])
async def test_an_answer_of_a_renamed_class_is_matched_to_the_old_question_while_nobody_lives(
    new_journal: NewJournal, journal: Journal, flow: Any
) -> None:
    old = generation(new=False)
    await asked(new_journal, lambda journal: flow(old, journal), old.Ask)
    new = generation(new=True)
    await journal.send("r", new.Reply(text="yes"))
    expected = {asks_inside: [1, 2], asks_by_returning: "yes"}[flow]
    assert await (await flow(new, journal).resume("r")) == expected


@pytest.mark.parametrize("flow", [asks_inside, asks_by_returning])
async def test_an_answer_of_the_old_class_is_taken_by_the_renamed_one(
    new_journal: NewJournal, journal: Journal, flow: Any
) -> None:
    old = generation(new=False)
    wait_id = await asked(new_journal, lambda journal: flow(old, journal), old.Ask)
    await journal.send("r", old.Reply(text="yes"), wait_id=wait_id)
    new = generation(new=True)
    expected = {asks_inside: [1, 2], asks_by_returning: "yes"}[flow]
    assert await (await flow(new, journal).resume("r")) == expected


def splits(events: SimpleNamespace, journal: Journal, hold: bool) -> Workflow:
    Page = events.Page

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Page]:
            return [Page(number=n) for n in range(3)]

        @step
        async def work(self, ctx: Context, ev: Page) -> Done:
            if hold and ev.number:
                await ctx.wait_for_event(Answer)
            return Done(number=ev.number)

        @step
        async def join(self, ev: list[Done]) -> StopEvent:
            return StopEvent(result=sorted(done.number for done in ev))

    return Flow(journal=journal, workflow_name="Evolving")


class Done(Event):
    event_name: ClassVar[str] = "evolution.Done"
    number: int


async def test_a_fan_out_of_renamed_events_is_joined(new_journal: NewJournal, journal: Journal) -> None:
    await begun(new_journal, lambda journal: splits(generation(new=False), journal, hold=True), 2)
    assert await (await splits(generation(new=True), journal, hold=False).resume("r")) == [0, 1, 2]


def prices(journal: Journal, version: int, hold: bool = False) -> Workflow:
    """A run whose pending event has changed: euros became cents."""
    fields: dict[str, Any] = {"euros": float} if version == 1 else {"cents": int}
    Price = type(
        "Price", (Event,),
        {"event_name": "evolution.Price", "event_version": version,
         "__annotations__": {"event_name": ClassVar[str], "event_version": ClassVar[int], **fields}},
    )  # fmt: skip

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Price:  # type: ignore[valid-type]
            return Price(**{name: kind(7) for name, kind in fields.items()})  # type: ignore[no-any-return]

        @step
        async def charge(self, ctx: Context, ev: Price) -> StopEvent:  # type: ignore[valid-type]
            if hold:
                await ctx.wait_for_event(Done)
            return StopEvent(result=ev.get("cents", ev.get("euros")))  # type: ignore[attr-defined]

    if version > 1:
        upcast(Price, from_version=1)(in_cents)
    return Flow(journal=journal, workflow_name="Evolving")


def in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return {"cents": round(data["euros"] * 100)}


async def test_a_pending_event_of_an_old_version_reaches_the_step_as_todays(
    new_journal: NewJournal, journal: Journal
) -> None:
    await begun(new_journal, lambda journal: prices(journal, 1, hold=True))
    before = await journal.history("r")
    assert await (await prices(journal, 2).resume("r")) == 700
    assert (await journal.history("r"))[: len(before)] == before


async def test_a_missing_upcaster_parks_the_run_and_names_class_versions_run_and_record(
    new_journal: NewJournal, journal: Journal
) -> None:
    await begun(new_journal, lambda journal: prices(journal, 1, hold=True))
    (emitted,) = [r for r in await journal.history("r") if isinstance(r.fact, EventEmitted) and r.fact.task is not None]
    handler = await prices(journal, 3).resume("r")
    wanted = (
        rf"run r: .*step 'charge' \(record {emitted.seq}\).*evolution\.Price.*version 1, today's is 3.*version 2 to 3"
    )
    with pytest.raises(NeedsAttentionError, match=wanted):
        await handler
    assert await (await prices(journal, 2).resume("r")) == 700


async def test_an_event_of_newer_code_parks_the_run_until_that_code_is_back(
    new_journal: NewJournal, journal: Journal
) -> None:
    await begun(new_journal, lambda journal: prices(journal, 2, hold=True))
    with pytest.raises(NeedsAttentionError, match=r"Price are of version 2.*up to version 1: newer code"):
        await (await prices(journal, 1).resume("r"))
    (task,) = (await journal.state("r")).tasks
    assert task.step == "charge"
    assert await (await prices(journal, 2).resume("r")) == 7


def with_steps(journal: Journal, *, second: str = "second", takes: type[Event] = Done, more: bool = False) -> Workflow:
    """A run that waits in its second step; `second` is the step's name, `more` adds a third one."""

    async def begin(self: Any, ev: StartEvent) -> takes:  # type: ignore[valid-type]
        return takes(number=1)

    async def go_on(self: Any, ctx: Context, ev: takes) -> StopEvent:  # type: ignore[valid-type]
        await ctx.wait_for_event(Answer)
        return StopEvent(result="done")

    async def also(self: Any, ev: Extra) -> None: ...

    methods = {"begin": begin, second: go_on} | ({"also": also} if more else {})
    for name, method in methods.items():
        method.__qualname__ = f"Flow.{name}"
    flow = type("Flow", (Workflow,), {name: step(method) for name, method in methods.items()})
    return flow(journal=journal, workflow_name="Evolving", disable_validation=True)  # type: ignore[no-any-return]


class Answer(HumanResponseEvent):
    event_name: ClassVar[str] = "evolution.Answer"


class Extra(Event):
    event_name: ClassVar[str] = "evolution.Extra"


class Other(Event):
    event_name: ClassVar[str] = "evolution.Other"
    number: int


async def test_a_new_step_is_logged_when_the_run_is_taken_up_and_the_run_goes_on(
    new_journal: NewJournal, journal: Journal, log: Log
) -> None:
    await begun(new_journal, lambda journal: with_steps(journal))
    handler = await with_steps(journal, more=True).resume("r")
    handler.ctx.send_event(Answer())
    assert await handler == "done"
    (said,) = log.of("shape_changed")
    assert said.getMessage() == "run r goes on with other code than it began with: step 'also' is new"
    assert said.run_id == "r"  # type: ignore[attr-defined]


async def test_nothing_is_logged_where_nothing_has_changed(new_journal: NewJournal, journal: Journal, log: Log) -> None:
    await begun(new_journal, lambda journal: with_steps(journal))
    handler = await with_steps(journal).resume("r")
    handler.ctx.send_event(Answer())
    assert await handler == "done"
    assert not log.of("shape_changed")


async def test_pending_work_of_a_step_that_is_gone_parks_the_run_with_the_remedies(
    new_journal: NewJournal, journal: Journal, log: Log
) -> None:
    await begun(new_journal, lambda journal: with_steps(journal))
    with pytest.raises(NeedsAttentionError) as raised:
        await (await with_steps(journal, second="renamed").resume("r"))
    told = str(raised.value)
    assert "run r has pending work for 'second'" in told
    assert "step 'second' is gone; step 'renamed' is new" in told
    for remedy in ("flow.resume('r')", "with the code that wrote it", "flow.edit('r'", "flow.fork('r'"):
        assert remedy in told
    assert (await journal.run("r")).status == "needs_attention"
    handler = await with_steps(journal).resume("r")
    handler.ctx.send_event(Answer())
    assert await handler == "done"


async def test_a_step_that_no_longer_takes_its_pending_event_parks_the_run(
    new_journal: NewJournal, journal: Journal, log: Log
) -> None:
    await begun(new_journal, lambda journal: with_steps(journal))
    with pytest.raises(NeedsAttentionError, match=r"step 'second' takes evolution\.Done no longer"):
        await (await with_steps(journal, takes=Other).resume("r"))
    (said,) = log.of("shape_changed")
    assert "step 'second' accepts evolution.Other too and accepts evolution.Done no longer" in said.getMessage()


class Lost(Event):
    event_name: ClassVar[str] = "evolution.Lost"
    number: int


async def test_an_event_whose_class_is_gone_is_shown_raw_everywhere_and_parks_the_run(
    new_journal: NewJournal, journal: Journal
) -> None:
    def flow(journal: Journal) -> Workflow:
        return with_steps(journal, takes=Lost)

    await begun(new_journal, flow)
    with mock.patch.dict(durable_flow.events._classes):
        del durable_flow.events._classes["evolution.Lost"]
        events = [journal.decode(f.event) for f in await records_of(journal, "r", EventEmitted) if f.task is not None]
        assert [(type(e), e.name, e.raw) for e in events] == [(UnknownEvent, "evolution.Lost", {"number": 1})]
        with pytest.raises(NeedsAttentionError, match=r"no event class 'evolution\.Lost' any more.*event_aliases = "):
            await (await with_steps(journal).resume("r"))
        (task,) = (await journal.state("r")).tasks
        assert (task.step, type(task.event), task.event.name) == ("second", UnknownEvent, "evolution.Lost")  # type: ignore[union-attr]
    handler = await flow(journal).resume("r")
    handler.ctx.send_event(Answer())
    assert await handler == "done"


async def test_a_failed_run_that_is_retried_with_other_code_says_what_has_changed(
    new_journal: NewJournal, journal: Journal, log: Log
) -> None:
    """The code was mended because the run had failed."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise ValueError("not yet")

    async def earlier() -> None:
        async with new_journal() as before:
            with pytest.raises(ValueError, match="not yet"):
                await Flow(journal=before, workflow_name="Evolving").run(run_id="r")

    class Mended(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Done:
            return Done(number=3)

        @step
        async def end(self, ev: Done) -> StopEvent:
            return StopEvent(result=ev.number)

    await in_another_loop(earlier)
    assert await (await Mended(journal=journal, workflow_name="Evolving").retry("r")) == 3
    (said,) = log.of("shape_changed")
    assert "step 'end' is new" in said.getMessage()


class Customer(BaseModel):
    stored_version: ClassVar[int] = 1
    name: str


async def test_a_value_that_todays_code_cannot_read_is_named_and_stays(
    new_journal: NewJournal, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that cannot read it fails; what it does about that finds the value still there."""

    def flow(journal: Journal, hold: bool) -> Workflow:
        class Flow(Workflow):
            @step
            async def begin(self, ctx: Context, ev: StartEvent) -> Done:
                await ctx.store.set("customer", Customer(name="Ada"))
                return Done(number=1)

            @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
            async def second(self, ctx: Context, ev: Done) -> StopEvent:
                if hold:
                    await ctx.wait_for_event(Answer)
                customer = await ctx.store.get("customer", None)
                return StopEvent(result=None if customer is None else customer.name)

        return Flow(journal=journal, workflow_name="Evolving")

    await begun(new_journal, lambda journal: flow(journal, hold=True))
    monkeypatch.setattr(Customer, "stored_version", 2)
    handler = await flow(journal, hold=False).resume("r")
    with pytest.raises(DeserializationError, match=r"context\['customer'\]: .*version 1, today's is 2") as raised:
        await handler
    assert "in step 'second' of run r, attempt 3" in raised.value.__notes__[0]
    monkeypatch.undo()
    assert await (await flow(journal, hold=False).retry("r")) == "Ada"


class Verdict(StopEvent):
    event_name: ClassVar[str] = "evolution.Verdict"
    number: int


async def test_a_result_whose_class_is_gone_is_named_and_shown_raw(new_journal: NewJournal, journal: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Verdict:
            return Verdict(number=4)

    async def earlier() -> None:
        async with new_journal() as before:
            await Flow(journal=before, workflow_name="Evolving").run(run_id="r")

    class Without(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent: ...

    await in_another_loop(earlier)
    with mock.patch.dict(durable_flow.events._classes):
        del durable_flow.events._classes["evolution.Verdict"]
        handler = await Without(journal=journal, workflow_name="Evolving").resume("r")
        with pytest.raises(DeserializationError, match=r"run r has completed .*'evolution\.Verdict'.*event_aliases = "):
            await handler
        with pytest.raises(DeserializationError, match="run r has completed"):
            await handler.stop_event_result()
        shown = [event async for event in handler.stream_events()]
        assert [(type(e), e.raw["number"]) for e in shown] == [(UnknownEvent, 4)]  # type: ignore[attr-defined]
    again = await Flow(journal=journal, workflow_name="Evolving").resume("r")
    assert (await again).number == 4


def counting(journal: Journal, state: type[BaseModel], hold: bool) -> Workflow:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[state], ev: StartEvent) -> Done:  # type: ignore[valid-type]
            await ctx.store.set("count", 1)
            return Done(number=1)

        @step
        async def second(self, ctx: Context[state], ev: Done) -> StopEvent:  # type: ignore[valid-type]
            if hold:
                await ctx.wait_for_event(Answer)
            return StopEvent(result=(await ctx.store.get_state()).model_dump())

    return Flow(journal=journal, workflow_name="Evolving")


class CountAndName(BaseModel):
    count: int = 0
    name: str = "none"


class CountAndColour(BaseModel):
    count: int = 0
    colour: str = "red"


async def test_fields_of_a_typed_state_come_with_their_defaults_and_go(
    new_journal: NewJournal, journal: Journal, log: Log
) -> None:
    await begun(new_journal, lambda journal: counting(journal, CountAndName, hold=True))
    assert await (await counting(journal, CountAndColour, hold=False).resume("r")) == {"count": 1, "colour": "red"}
    assert "the state class is CountAndColour, before CountAndName" in log.of("shape_changed")[0].getMessage()


def test_two_classes_of_a_workflow_cannot_have_had_one_name() -> None:
    class First(Event):
        event_name: ClassVar[str] = "evolution.First"
        event_aliases: ClassVar[tuple[str, ...]] = ("evolution.Both",)

    class Second(Event):
        event_name: ClassVar[str] = "evolution.Second"
        event_aliases: ClassVar[tuple[str, ...]] = ("evolution.Both",)

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> First | Second: ...

        @step
        async def end(self, ev: First | Second) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match=r"both called 'evolution\.Both' before: evolution\.First and"):
        Flow()
