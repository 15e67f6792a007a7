"""Events of forks that take the place of questions, results and lists, or that begin with a question."""

from __future__ import annotations

from typing import Any

import pytest

from durable_flow import (
    Context,
    Event,
    Journal,
    SerializationError,
    StartEvent,
    StateEditError,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.events import event_name
from durable_flow.records import FanOutOpened, StepCompleted, WaitAnswered, WaitOpened

from .flows import Answer, Asking, Packed, Question, Shop, question, recorded, records_of
from .test_checkpoints import Sums


class Element(Event):
    n: int


class Squared(Event):
    n: int


class Squares(Workflow):
    """Squares 2 and 3, each by itself, and adds them up; for a number below 0 it returns no list."""

    def __init__(self, **kwargs: Any):
        super().__init__(workflow_name="Squares", **kwargs)

    @step
    async def split(self, ev: StartEvent) -> list[Element] | None:
        return None if ev.get("nothing") else [Element(n=2), Element(n=3)]

    @step
    async def square(self, ev: Element) -> Squared:
        return Squared(n=ev.n**2)

    @step
    async def add(self, squares: list[Squared]) -> StopEvent:
        return StopEvent(result=[squared.n for squared in squares])


@pytest.fixture
async def asked(journal: Journal) -> Asking:
    """A workflow whose run `r` has asked and been answered."""
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"
    return flow


async def texts_asked(journal: Journal, run_id: str) -> list[str]:
    return [wait.prompt.text for wait in await journal.pending() if wait.run_id == run_id]


@pytest.mark.parametrize("drop_pending", [False, True])
@pytest.mark.parametrize("by", ["flow", "journal"])
async def test_a_question_that_replaces_one_is_asked(
    journal: Journal, asked: Asking, by: str, drop_pending: bool
) -> None:
    at = (await journal.checkpoints("r"))[1]
    forking = {"flow": asked.fork, "journal": journal.fork}[by]
    await forking("r", at, event=Question(text="sure?"), drop_pending=drop_pending, new_run_id="f")
    fork = await asked.resume("f")
    assert (await question(fork)).text == "sure?"
    assert await texts_asked(journal, "f") == ["sure?"]
    wait = next(wait for wait in await journal.pending() if wait.run_id == "f")
    before = (await records_of(journal, "r", WaitOpened))[0]
    after = (await records_of(journal, "f", WaitOpened))[0]
    assert (after.wanted, after.schema, after.human) == (before.wanted, before.schema, True)
    await journal.send("f", Answer(text="very"), wait_id=wait.wait_id)
    assert await fork == "very"


async def test_a_fork_may_begin_with_a_question(journal: Journal, asked: Asking) -> None:
    fork = await asked.fork("r", (await journal.checkpoints("r"))[0], event=Question(text="at the start?"))
    assert (await question(fork)).text == "at the start?"
    await fork.send_event(Answer(text="so"))
    assert await fork == "so"
    assert asked.ran.count("ask") == 1


async def test_the_journal_replaces_the_result_of_a_run(journal: Journal, asked: Asking) -> None:
    end = (await journal.checkpoints("r"))[-1]
    info = await journal.fork("r", end, event=StopEvent(result="no"), new_run_id="f")
    assert info.status == "completed"
    assert await (await asked.resume("f")) == "no"
    assert asked.ran == ["ask", "answered yes"]
    with pytest.raises(StateEditError, match=r"who takes a Answer .* \(at this checkpoint: StopEvent\)"):
        await journal.fork("r", end, event=Answer(text="other"))


@pytest.mark.parametrize("by", ["flow", "journal"])
async def test_an_event_that_replaces_a_list_is_its_only_element(journal: Journal, by: str) -> None:
    flow = Squares(journal=journal)
    assert await flow.run(run_id="r") == [4, 9]
    at = (await journal.checkpoints("r"))[1]
    await {"flow": flow.fork, "journal": journal.fork}[by]("r", at, event=Element(n=7), new_run_id="f")
    assert await (await flow.resume("f")) == [49]
    assert len(await records_of(journal, "f", FanOutOpened)) == 1


async def test_it_is_one_too_where_a_step_of_lists_had_returned_nothing(journal: Journal) -> None:
    flow = Squares(journal=journal)
    flow.run(run_id="r", nothing=True)
    await recorded(journal, "r", StepCompleted)
    fork = await flow.fork("r", event=Element(n=7))
    assert await fork == [49]


async def test_an_event_that_nobody_takes_is_refused_where_nothing_else_is_left(journal: Journal) -> None:
    flow = Squares(journal=journal)
    await flow.run(run_id="r")
    squared = next(c for c in await journal.checkpoints("r") if c.last_completed_step == "square")
    assert squared.output_event is not None
    for forking in (flow.fork, journal.fork):
        with pytest.raises(StateEditError, match="no step takes that by itself"):
            await forking("r", squared, event=squared.output_event, drop_pending=True)
    assert len(await journal.runs()) == 1
    assert await (await flow.fork("r", squared, event=StopEvent(result=1), drop_pending=True)) == 1


async def test_an_event_that_nobody_takes_is_refused_where_it_takes_the_place_of_all_there_is(journal: Journal) -> None:
    flow = Squares(journal=journal)
    await flow.run(run_id="r")
    start, *_, end = await journal.checkpoints("r")
    squared = next(c for c in await journal.checkpoints("r") if c.last_completed_step == "square").output_event
    for at in (start, end):
        with pytest.raises(StateEditError, match="no step takes that by itself"):
            await flow.fork("r", at, event=squared)
    assert len(await journal.runs()) == 1


async def test_what_is_no_event_is_refused(journal: Journal) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    for forking in (flow.fork, journal.fork):
        for no_event in (5, Element):
            with pytest.raises(SerializationError, match="fork\\(event=\\) takes an Event, not"):
                await forking("r", 6, event=no_event)
    assert len(await journal.runs()) == 1


async def test_an_event_of_a_class_that_was_renamed_is_replaced_by_one_of_its_class(journal: Journal) -> None:
    class Parcel(Event):
        item: str

    class Sends(Workflow):
        @step
        async def pack(self, ev: StartEvent) -> Parcel:
            return Parcel(item="lamp")

        @step
        async def send(self, ev: Parcel) -> StopEvent:
            return StopEvent(result=ev.item)

    await Sends(journal=journal, workflow_name="Sends").run(run_id="r")

    class Shipment(Event):
        event_aliases = (event_name(Parcel),)
        item: str

    class SendsToday(Workflow):
        @step
        async def pack(self, ev: StartEvent) -> Shipment:
            return Shipment(item="lamp")

        @step
        async def send(self, ev: Shipment) -> StopEvent:
            return StopEvent(result=ev.item)

    flow = SendsToday(journal=journal, workflow_name="Sends")
    packed = (await journal.checkpoints("r"))[1]
    await journal.fork("r", packed, event=Shipment(item="pen"), new_run_id="f")
    assert await (await flow.resume("f")) == "pen"
    assert await (await flow.fork("r", packed, event=Shipment(item="cup"))) == "cup"


# -- At the start of a fork --------------------------------------------------------------------------------------------


async def started(journal: Journal, run_id: str) -> list[Event]:
    return list((await journal.checkpoints(run_id))[0].output_events)


@pytest.mark.parametrize("by", ["flow", "journal"])
async def test_what_a_fork_replaced_is_replaced_in_a_fork_of_its_start(journal: Journal, by: str) -> None:
    flow = Shop(journal=journal)
    assert await flow.run(run_id="r", item="lamp") == "shipped 1 lamp"
    packed = (await journal.checkpoints("r"))[1]
    fork = await flow.fork("r", packed, event=Packed(item="a pen"), set={"note": 1}, new_run_id="f")
    assert await fork == "shipped a pen"
    start = (await journal.checkpoints("f"))[0]
    assert await started(journal, "f") == [Packed(item="a pen")]
    forking = {"flow": flow.fork, "journal": journal.fork}[by]
    await forking("f", start, event=Packed(item="a cup"), new_run_id="g")
    assert await (await flow.resume("g")) == "shipped a cup"
    assert (await journal.state("g")).context == {"note": 1}
    assert [change.by for change in await journal.blame("g", "note")] == ["fork"]
    assert flow.ran == ["pack", "ship", "ship", "ship"]


@pytest.mark.parametrize("by", ["flow", "journal"])
async def test_the_event_of_a_fork_that_dropped_all_is_replaced_at_its_start(journal: Journal, by: str) -> None:
    flow = Shop(journal=journal)
    await flow.run(run_id="r", item="lamp")
    packed = (await journal.checkpoints("r"))[1]
    fork = await flow.fork("r", packed, event=Packed(item="a pen"), drop_pending=True, new_run_id="f")
    assert await fork == "shipped a pen"
    assert await started(journal, "f") == [Packed(item="a pen")]
    forking = {"flow": flow.fork, "journal": journal.fork}[by]
    await forking("f", (await journal.checkpoints("f"))[0], event=Packed(item="a cup"), new_run_id="g")
    assert await (await flow.resume("g")) == "shipped a cup"
    assert flow.ran == ["pack", "ship", "ship", "ship"]


class Waiting(Workflow):
    def __init__(self, **kwargs: Any):
        super().__init__(workflow_name="Waiting", **kwargs)

    @step
    async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="go on?"), timeout=None)
        return StopEvent(result=answer.text)


@pytest.mark.parametrize("by", ["flow", "journal"])
async def test_an_answer_that_a_fork_began_with_is_replaced_at_its_start(journal: Journal, by: str) -> None:
    flow = Waiting(journal=journal)
    await question(flow.run(run_id="r"))
    waits = (await journal.checkpoints("r"))[-1]
    assert waits.kind == "wait"
    assert await (await flow.fork("r", waits, event=Answer(text="so"), new_run_id="f")) == "so"
    start = (await journal.checkpoints("f"))[0]
    forking = {"flow": flow.fork, "journal": journal.fork}[by]
    await forking("f", start, event=Answer(text="otherwise"), new_run_id="g")
    assert await (await flow.resume("g")) == "otherwise"
    assert len(await records_of(journal, "g", WaitAnswered)) == 1
