"""A Context as data: saved at any moment, and gone on with here or in another process."""

from __future__ import annotations

import asyncio
import datetime
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    ContextSerdeError,
    ContextStateError,
    DeserializationError,
    Event,
    Journal,
    JsonSerializer,
    NeedsAttentionError,
    PickleSerializer,
    RunConflictError,
    SerializationError,
    StartEvent,
    StepDivergedError,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.events import StepState, StepStateChanged
from durable_flow.records import ContextSet, EventEmitted, RunStarted, StateImported, StepCompleted, StepFailed
from durable_flow.serializers import JsonPickleSerializer

from .flows import Answer, Asking, Question, question, records_of, released, streamed, until


@dataclass
class Place:
    name: str
    when: datetime.date


class Part(Event):
    n: int


class Trip(Workflow):
    """Collects two parts, calls something once, and asks within a step."""

    def __init__(self, journal: Journal | str, **kwargs: Any):
        super().__init__(journal=journal, workflow_name="Trip", **kwargs)
        self.ran: list[str] = []
        self.charged: list[int] = []

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Part:
        self.ran.append("begin")
        ctx.data["place"] = Place("Rome", datetime.date(2026, 5, 1))
        ctx.data["to"] = ev.get("to")
        ctx.collect_events(Part(n=0), [Part, Part], "parts")
        return Part(n=1)

    @step
    async def ask(self, ctx: Context, ev: Part) -> StopEvent:
        self.ran.append("ask")
        parts = ctx.collect_events(ev, [Part, Part], "parts")
        assert parts is not None
        paid = await ctx.call("charge", self.charge, 30)
        answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="go?"))
        place = ctx.data["place"]
        return StopEvent(result=[[p.n for p in parts], paid, answer.text, place.name, place.when.year, ctx.data["to"]])

    async def charge(self, amount: int) -> str:
        self.charged.append(amount)
        return f"paid {amount}"


RESULT = [[0, 1], "paid 30", "yes", "Rome", 2026, "the sea"]


async def asked(flow: Trip, **kwargs: Any) -> dict[str, Any]:
    """Run until the question is asked; return the saved context. The run itself is cancelled."""
    handler = flow.run(**{"to": "the sea", **kwargs})
    await question(handler)
    data = handler.ctx.to_dict()
    await handler.cancel_run()
    return json.loads(json.dumps(data))


# -- Unfinished: pending work goes on ----------------------------------------------------------------------------------


async def test_an_unfinished_run_goes_on_as_a_new_one(journal: Journal):
    first = Trip(journal)
    data = await asked(first, run_id="first")
    second = Trip(journal)
    ctx = Context.from_dict(second, data)
    assert ctx.is_running
    assert ctx.data["to"] == "the sea"
    handler = second.run(ctx=ctx)
    assert handler.ctx is ctx
    assert handler.run_id != "first"
    ctx.send_event(Answer(text="yes"))
    assert await handler == RESULT
    assert not ctx.is_running
    assert second.ran == ["ask"]  # not the step that had completed; the waiting one from its first line
    assert (first.charged, second.charged) == ([30], [])


async def test_its_journal_begins_with_the_state(journal: Journal):
    flow = Trip(journal)
    data = await asked(flow, run_id="first")
    uid = (await journal.run("first")).uid
    ctx = Context.from_dict(flow, data)
    handler = flow.run(ctx=ctx, run_id="second")
    await handler.send_event(Answer(text="yes"))
    assert await handler == RESULT
    records = await journal.history("second")
    started, imported = records[0].fact, records[1].fact
    assert isinstance(started, RunStarted)
    assert isinstance(imported, StateImported)
    assert started.uid != uid
    assert imported.parent == uid
    assert [record.boundary for record in records[:2]] == [False, True]
    events = await records_of(journal, "second", EventEmitted)
    assert [fact.event.name for fact in events] == ["Answer"]  # no StartEvent
    assert (await journal.state("second")).status == "completed"
    assert (await journal.state("second", at=2)).context["to"] == "the sea"


async def test_the_question_is_still_open_under_its_id(journal: Journal):
    flow = Trip(journal)
    handler = flow.run(to="the sea")
    asked_first = await question(handler)
    data = handler.ctx.to_dict()
    await handler.cancel_run()
    assert await journal.pending() == []
    again = flow.run(ctx=Context.from_dict(flow, data), run_id="again")
    await saved_when_begun(again)
    [pending] = await journal.pending()
    assert (pending.run_id, pending.wait_id) == ("again", asked_first._wait_id)
    assert isinstance(pending.prompt, Question)
    assert pending.prompt.text == "go?"
    await journal.send("again", Answer(text="yes"), wait_id=pending.wait_id)
    assert await again == RESULT


async def test_a_returned_question_goes_on(journal: Journal):
    flow = Asking(journal=journal)
    handler = flow.run()
    await question(handler)
    data = handler.ctx.to_dict()
    await handler.cancel_run()
    again = flow.run(ctx=Context.from_dict(flow, data))
    await again.send_event(Answer(text="yes"))
    assert await again == "yes"
    assert flow.ran == ["ask", "answered yes"]
    assert [type(event) for event in await streamed(again)] == [StopEvent]


async def test_arguments_are_dropped_with_a_warning(journal: Journal):
    flow = Asking(journal=journal)
    handler = flow.run()
    await question(handler)
    data = handler.ctx.to_dict()
    await handler.cancel_run()
    with pytest.warns(UserWarning, match="sends no start event; topic will be dropped"):
        again = flow.run(ctx=Context.from_dict(flow, data), topic="x")
    await again.cancel_run()
    with pytest.warns(UserWarning, match="start_event will be dropped"):
        again = flow.run(ctx=Context.from_dict(flow, data), start_event=StartEvent())
    await again.cancel_run()
    assert flow.ran == ["ask"]


async def test_those_who_listen_see_the_steps_that_go_on(journal: Journal):
    flow = Asking(journal=journal)
    handler = flow.run()
    await question(handler)
    data = handler.ctx.to_dict()
    await handler.cancel_run()
    again = flow.run(ctx=Context.from_dict(flow, data))
    changes = []

    async def listen() -> None:
        async for event in again.stream_events(expose_internal=True):
            if isinstance(event, StepStateChanged):
                changes.append((event.name, event.step_state))

    listening = asyncio.create_task(listen())
    await until(journal.pending)
    again.ctx.send_event(Answer(text="yes"))
    await listening
    assert changes == [("answered", StepState.RUNNING), ("answered", StepState.NOT_RUNNING)]


async def test_a_fan_out_goes_on_and_is_joined(journal: Journal):
    class Made(Event):
        n: int

    class Gather(Workflow):
        ran: ClassVar[list[int]] = []

        @step
        async def split(self, ev: StartEvent) -> list[Part]:
            return [Part(n=n) for n in range(3)]

        @step
        async def make(self, ctx: Context, ev: Part) -> Made:
            self.ran.append(ev.n)
            if ev.n == 1:
                await ctx.wait_for_event(Answer, waiter_event=Question(text="go?"))
            return Made(n=ev.n * 10)

        @step
        async def join(self, made: list[Made]) -> StopEvent:
            return StopEvent(result=[each.n for each in made])

    flow = Gather(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)

    async def two_made() -> bool:
        return len(await records_of(journal, "r", StepCompleted)) == 3

    await until(two_made)
    data = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    again = flow.run(ctx=Context.from_dict(flow, data))
    await again.send_event(Answer(text="yes"))
    assert sorted(await again) == [0, 10, 20]
    assert sorted(flow.ran) == [0, 1, 1, 2]


async def test_a_child_that_had_not_ended_is_started_anew(journal: Journal):
    class Inner(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="go?"))
            return StopEvent(result=answer.text)

    class Outer(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Inner().run())

    flow = Outer(journal=journal)
    handler = flow.run()
    await question(handler)
    data = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    again = flow.run(ctx=Context.from_dict(flow, data))
    asked_again = await question(again)
    await again.send_event(Answer(text="yes"), wait_id=asked_again._wait_id)
    assert await again == "yes"


async def test_values_changed_before_it_goes_on_are_the_new_ones(journal: Journal):
    flow = Trip(journal)
    ctx = Context.from_dict(flow, await asked(flow))
    ctx.data["to"] = "the hills"
    ctx.data["place"].name = "Bari"
    ctx.data["note"] = 1
    handler = flow.run(ctx=ctx, run_id="second")
    await handler.send_event(Answer(text="yes"))
    assert (await handler)[3:] == ["Bari", 2026, "the hills"]
    assert (await journal.state("second")).context["note"] == 1


async def test_what_is_saved_before_it_goes_on_is_unfinished_too(journal: Journal):
    flow = Trip(journal)
    ctx = Context.from_dict(flow, await asked(flow))
    ctx.data["to"] = "the hills"
    twice = Context.from_dict(flow, ctx.to_dict())
    assert twice.is_running
    handler = flow.run(ctx=twice)
    await handler.send_event(Answer(text="yes"))
    assert (await handler)[-1] == "the hills"


async def test_saved_again_and_again(journal: Journal):
    """Each run goes on from the state of the one before; nothing gets the number of something else."""
    flow = Trip(journal)
    data = await asked(flow)
    for n in range(3):
        handler = flow.run(ctx=Context.from_dict(flow, data), run_id=f"run-{n}")
        await handler.ctx.set("n", n) if n else None
        data = await saved_when_begun(handler)
        await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, data))
    await handler.send_event(Answer(text="yes"))
    assert await handler == RESULT
    assert await handler.ctx.get("n") == 2


async def saved_when_begun(handler: Any) -> dict[str, Any]:
    """Save once the step that waits is in flight."""

    async def in_flight() -> bool:
        return "ask" in await handler.ctx.running_steps()

    await until(in_flight)
    return json.loads(json.dumps(handler.ctx.to_dict()))


async def test_a_run_of_a_known_id_goes_on_as_in_the_table(journal: Journal):
    flow = Trip(journal)
    data = await asked(flow)
    first = flow.run(ctx=Context.from_dict(flow, data), run_id="second")
    second = flow.run(ctx=Context.from_dict(flow, data), run_id="second")
    other = Context.from_dict(flow, data)
    other.data["to"] = "the hills"
    with pytest.raises(RunConflictError, match="began with another context"):
        await flow.run(ctx=other, run_id="second")
    await second.send_event(Answer(text="yes"))
    assert await first == await second == RESULT
    ctx = Context.from_dict(flow, data)
    assert await flow.run(ctx=ctx, run_id="second") == RESULT
    assert not ctx.is_running
    assert flow.ran == ["begin", "ask", "ask"]


class Job(Event):
    n: int


class Counts(Workflow):
    """A pending step that writes to the context before anything else happens in its run."""

    hold = True

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Job:
        if "primes" in ev:
            await ctx.set("primes", ev.primes)
        return Job(n=1)

    @step
    async def count(self, ctx: Context, ev: Job) -> StopEvent:
        if self.hold:
            await asyncio.Event().wait()
        await ctx.set("counted", ev.n)
        return StopEvent(result=ev.n)


async def pending_job(flow: Counts, **kwargs: Any) -> dict[str, Any]:
    handler = flow.run(**kwargs)

    async def in_flight() -> bool:
        return "count" in await handler.ctx.running_steps()

    await until(in_flight)
    data = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    flow.hold = False
    return data


async def test_what_a_step_writes_first_is_no_part_of_what_its_run_began_with(journal: Journal):
    flow = Counts(journal=journal)
    data = await pending_job(flow)
    assert await flow.run(ctx=Context.from_dict(flow, data), run_id="second") == 1
    facts = [record.fact for record in await journal.history("second")]
    assert isinstance(facts[2], ContextSet)  # right behind the state
    assert await flow.run(ctx=Context.from_dict(flow, data), run_id="second") == 1


async def test_what_is_set_as_it_begins_is_no_part_of_it_either(journal: Journal):
    flow = Trip(journal)
    data = await asked(flow)
    first = flow.run(ctx=Context.from_dict(flow, data), run_id="second")
    first.ctx.data["late"] = 1
    await saved_when_begun(first)
    second = flow.run(ctx=Context.from_dict(flow, data), run_id="second")
    await second.send_event(Answer(text="yes"))
    assert await first == await second == RESULT
    facts = [record.fact for record in await journal.history("second")]
    assert isinstance(facts[2], ContextSet)


async def test_a_context_with_one_value_more_or_less_is_another_one(journal: Journal):
    flow = Counts(journal=journal)
    data = await pending_job(flow)
    ctx = Context.from_dict(flow, data)
    ctx.data["extra"] = 1
    assert await flow.run(ctx=ctx, run_id="second") == 1
    with pytest.raises(RunConflictError, match="began with another context"):
        await flow.run(ctx=Context.from_dict(flow, data), run_id="second")
    for value, conflict in ((2, True), (1, False)):
        other = Context.from_dict(flow, data)
        other.data["extra"] = value
        if conflict:
            with pytest.raises(RunConflictError, match="began with another context"):
                await flow.run(ctx=other, run_id="second")
        else:
            assert await flow.run(ctx=other, run_id="second") == 1


async def test_equal_values_in_other_bytes_are_the_same_beginning(journal: Journal):
    """A pickled set has the order in which it was filled, which another process may fill in another one."""
    flow = Counts(journal=journal, serializer=PickleSerializer(key="k"))
    data = await pending_job(flow, primes={8, 0})
    assert list({8, 0}) != list({0, 8})
    assert await flow.run(ctx=Context.from_dict(flow, data), run_id="second") == 1
    again = Context.from_dict(flow, data)
    again.data["primes"] = {0, 8}
    assert await flow.run(ctx=again, run_id="second") == 1
    other = Context.from_dict(flow, data)
    other.data["primes"] = {0, 7}
    with pytest.raises(RunConflictError, match="began with another context"):
        await flow.run(ctx=other, run_id="second")


def test_it_goes_on_in_another_loop_after_it_went_on(url: str):
    """The run that began with a saved state is given up in the middle and taken up again."""

    async def begin() -> dict[str, Any]:
        return await asked(Trip(url))

    async def release(data: dict[str, Any]) -> None:
        flow = Trip(url)
        handler = flow.run(ctx=Context.from_dict(flow, data), run_id="second")
        await saved_when_begun(handler)

    async def end(data: dict[str, Any]) -> Any:
        flow = Trip(url)
        handler = flow.run(ctx=Context.from_dict(flow, data), run_id="second")
        await handler.send_event(Answer(text="yes"))
        return await handler, flow.charged

    data = asyncio.run(begin())
    asyncio.run(release(data))
    assert asyncio.run(end(data)) == (RESULT, [])


async def test_a_retry_keeps_its_attempt_and_its_time(journal: Journal):
    class Flaky(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(journal=journal, workflow_name="Flaky", **kwargs)
            self.attempts = 0
            self.failed = asyncio.Event()

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.3))
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.attempts += 1
            ctx.data["tries"] = ctx.data.get("tries", 0) + 1
            if ctx.data["tries"] == 1:
                self.failed.set()
                raise ValueError("not yet")
            return StopEvent(result=ctx.data["tries"])

    flow = Flaky()
    handler = flow.run(run_id="r")

    async def failed() -> bool:
        return bool(await records_of(journal, "r", StepFailed))

    await flow.failed.wait()
    await until(failed)
    data = handler.ctx.to_dict()
    await handler.cancel_run()
    [failure] = await records_of(journal, "r", StepFailed)
    again = flow.run(ctx=Context.from_dict(flow, data), run_id="again")
    assert await again == 2
    assert flow.attempts == 2
    assert (await journal.history("again"))[2].at >= failure.retry_at


async def test_a_run_that_needed_attention_goes_on(journal: Journal):
    class Varies(Workflow):
        """Diverges when it runs again: its call gets other arguments."""

        def __init__(self, amount: int):
            super().__init__(journal=journal, workflow_name="Varies")
            self.amount = amount
            self.called = asyncio.Event()

        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            paid = await ctx.call("pay", pay, self.amount)
            self.called.set()
            answer = await ctx.wait_for_event(Answer)
            return StopEvent(result=[paid, answer.text])

    async def pay(amount: int) -> int:
        return amount

    first = Varies(1)
    handler = first.run(run_id="r")
    await first.called.wait()
    await released(handler)
    varied = Varies(2).run(run_id="r")
    with pytest.raises(NeedsAttentionError):
        await varied
    data = json.loads(json.dumps(varied.ctx.to_dict()))
    again = first.run(ctx=Context.from_dict(first, data))
    await again.send_event(Answer(text="yes"))
    assert await again == [1, "yes"]


async def test_a_run_that_needs_attention_gives_its_context_to_no_other(journal: Journal):
    class Stuck(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            raise StepDivergedError("look at it")

    flow = Stuck(journal=journal)
    handler = flow.run(run_id="r")
    with pytest.raises(NeedsAttentionError):
        await handler
    assert handler.ctx.is_running
    with pytest.raises(ContextStateError, match=r"flow\.resume\('r'\)"):
        flow.run(ctx=handler.ctx)
    assert Context.from_dict(flow, handler.ctx.to_dict()).is_running


# -- Finished, or not begun: the values --------------------------------------------------------------------------------


async def test_before_the_run_it_holds_the_values(memory: Journal):
    ctx = Context(Trip(memory))
    ctx.data["xs"] = [1]
    ctx.data["xs"].append(2)
    data = json.loads(json.dumps(ctx.to_dict()))
    assert data["is_running"] is False
    back = Context.from_dict(Trip(memory), data)
    assert not back.is_running
    assert dict(back.data) == {"xs": [1, 2]}


async def test_after_the_run_it_holds_the_values_as_they_are(journal: Journal):
    class Keeps(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data.setdefault("said", []).append(ev.get("say"))
            return StopEvent(result=list(ctx.data["said"]))

    flow = Keeps(journal=journal)
    handler = flow.run(say="one")
    await handler
    handler.ctx.data["said"].append("in place")
    data = json.loads(json.dumps(handler.ctx.to_dict()))
    assert data["is_running"] is False
    ctx = Context.from_dict(Keeps(journal=journal), data)
    assert await flow.run(ctx=ctx, say="two") == ["one", "in place", "two"]
    assert (await flow.run(ctx=Context.from_dict(flow, ctx.to_dict()), say="3"))[-1] == "3"


async def test_order_survives_sorted_keys(memory: Journal):
    ctx = Context(Trip(memory))
    ctx.update({"z": 1, "a": 2})
    data = json.loads(json.dumps(ctx.to_dict(), sort_keys=True))
    assert list(Context.from_dict(Trip(memory), data).data) == ["z", "a"]


async def test_the_state_may_be_left_out(journal: Journal):
    flow = Trip(journal)
    handler = flow.run(to="the sea")
    await question(handler)
    data = handler.ctx.to_dict(include_state=False)
    await handler.cancel_run()
    ctx = Context.from_dict(flow, data)
    assert ctx.is_running
    assert dict(ctx.data) == {}


async def test_old_names(journal: Journal):
    flow = Trip(journal)
    ctx = Context(flow)
    ctx.data["n"] = 1
    other = Context(flow)
    other.data["gone"] = 1
    view = other.data
    assert other.deserialize(ctx.serialize()) is other
    assert dict(other.data) == {"n": 1}
    assert json.loads(json.dumps(view)) == {"n": 1}
    assert dict(Context(flow, ctx.to_dict()).data) == {"n": 1}
    handler = flow.run(ctx=ctx)
    with pytest.raises(ContextStateError, match="already running"):
        ctx.deserialize(other.serialize())
    await handler.cancel_run()


async def test_drafts_are_not_in_it(journal: Journal):
    class Writes(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["committed"] = 1
            await ctx.checkpoint("here")
            ctx.data["draft"] = 2
            entered.set()
            await leave.wait()
            return StopEvent()

    entered, leave = asyncio.Event(), asyncio.Event()
    flow = Writes(journal=journal)
    handler = flow.run()
    await entered.wait()
    assert dict(handler.ctx.data) == {"committed": 1, "draft": 2}
    saved = handler.ctx.to_dict()
    leave.set()
    await handler
    assert dict(Context.from_dict(flow, saved).data) == {"committed": 1}


async def test_its_size_is_that_of_the_state(memory: Journal):
    class Loops(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> Part:
            return Part(n=ev.get("n"))

        @step
        async def loop(self, ctx: Context, ev: Part) -> Part | Question:
            ctx.data["n"] = ev.n
            return Part(n=ev.n - 1) if ev.n else Question(text="more?")

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent()

    sizes = []
    for n in (3, 300):
        handler = Loops(journal=memory).run(n=n)
        await question(handler)
        sizes.append(len(json.dumps(handler.ctx.to_dict())))
        await handler.cancel_run()
    assert sizes[1] - sizes[0] < 20  # some numbers have more digits


async def test_in_a_step_and_after_a_release_there_is_nothing_to_save(journal: Journal):
    class Saves(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.to_dict()
            return StopEvent()

    with pytest.raises(ContextStateError, match=r"ctx\.to_dict is for .* Use handler\.ctx"):
        await Saves(journal=journal).run()


# -- Serializers -------------------------------------------------------------------------------------------------------

SERIALIZERS = {
    "json": JsonSerializer,
    "pickle": PickleSerializer,
    "pickle with a key": lambda: PickleSerializer(key="secret"),
    "json or pickle": JsonPickleSerializer,
    "json or pickle with a key": lambda: JsonPickleSerializer(key="secret"),
}
each_serializer = pytest.mark.parametrize("make", SERIALIZERS.values(), ids=SERIALIZERS)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DURABLE_FLOW_SERIALIZER_KEY", raising=False)


@each_serializer
async def test_a_context_is_saved_with_any_serializer(journal: Journal, make: Any):
    flow = Trip(journal)
    handler = flow.run(to="the sea")
    await question(handler)
    data = json.loads(json.dumps(handler.ctx.to_dict(serializer=make())))
    await handler.cancel_run()
    ctx = Context.from_dict(flow, data, serializer=make())
    again = flow.run(ctx=ctx)
    await again.send_event(Answer(text="yes"))
    assert await again == RESULT
    assert flow.charged == [30]


@each_serializer
async def test_a_flow_that_pickles_saves_with_any_serializer(memory: Journal, make: Any):
    flow = Trip(memory, serializer=PickleSerializer(key="k"))
    handler = flow.run(to="the sea")
    await question(handler)
    data = json.loads(json.dumps(handler.ctx.to_dict(make())))
    plain = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    for saved, serializer in ((data, make()), (plain, None)):
        again = flow.run(ctx=Context.from_dict(flow, saved, serializer))
        await again.send_event(Answer(text="yes"))
        assert await again == RESULT


@pytest.mark.parametrize("make", [PickleSerializer, JsonPickleSerializer])
async def test_without_a_key_pickle_is_for_saved_contexts_only(make: Any):
    with pytest.raises(SerializationError, match="secret key"):
        Trip("memory://", serializer=make())
    with pytest.raises(SerializationError, match="secret key"):
        Journal("memory://", serializer=make())


async def test_another_serializer_than_it_was_saved_with_is_refused(memory: Journal):
    flow = Trip(memory)
    ctx = Context(flow)
    ctx.data["n"] = 1
    saved = ctx.to_dict(PickleSerializer(key="a"))
    for wrong in (None, JsonSerializer(), PickleSerializer(), PickleSerializer(key="b"), JsonPickleSerializer()):
        with pytest.raises(ContextSerdeError, match=r"takes the serializer that to_dict was given \(here 'pickle'\)"):
            Context.from_dict(flow, saved, wrong)


class Secret:
    pass


async def test_the_set_of_types_can_be_closed(memory: Journal):
    flow = Trip(memory)
    ctx = Context(flow)
    ctx.data["place"] = Place("Rome", datetime.date(2026, 5, 1))
    open_, closed = JsonSerializer(), JsonSerializer(allowed_types=[Place])
    saved = ctx.to_dict(open_)
    assert Context.from_dict(flow, saved, closed).data["place"] == ctx.data["place"]
    with pytest.raises(ContextSerdeError, match="Place"):
        Context.from_dict(flow, saved, JsonSerializer(allowed_types=[]))
    with pytest.raises(SerializationError, match="allowed_types"):
        ctx.to_dict(JsonSerializer(allowed_types=[]))


# -- Data that are none ------------------------------------------------------------------------------------------------

UPSTREAM = {"version": 2, "state": {"store_type": "in_memory"}, "is_running": False, "workers": {}}
BAD: dict[str, tuple[Any, str]] = {
    "nothing": (None, "None. Use Context"),
    "a list": ([], "not a list"),
    "text": ("{}", "not a str"),
    "empty": ({}, "keys: none"),
    "of something else": ({"foo": 1}, "keys: foo"),
    "of upstream": (UPSTREAM, "llama-index-workflows wrote it"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
async def test_other_data_are_refused(memory: Journal, data: Any, message: str):
    with pytest.raises(ContextSerdeError, match=message):
        Context.from_dict(Trip(memory), data)


CHANGES: dict[str, tuple[Any, str]] = {
    "a newer layout": (lambda data: data.update(version=2), "Upgrade"),
    "a newer state": (lambda data: data["state"].update(version=2), "Upgrade"),
    "no version": (lambda data: data.pop("version"), "version None"),
    "an unknown field": (lambda data: data["state"].update(mood="good"), "Upgrade"),
    "no state": (lambda data: data.pop("state"), "no state of a run"),
    "not truly unfinished": (lambda data: data.update(is_running="yes"), "truly"),
    "ended and unfinished": (lambda data: data["state"].update(ended="completed"), "truly"),
    "a damaged value": (lambda data: data["state"]["context"][0][1].__setitem__(1, "{"), "cannot be read"),
    "a value of an unknown class": (
        lambda data: data["state"]["context"][0][1].__setitem__(1, '{"$dataclass":"gone:Gone"}'),
        "cannot be read",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
async def test_changed_data_are_refused(memory: Journal, change: Any, message: str):
    flow = Trip(memory)
    data = await asked(flow)
    change(data)
    with pytest.raises(ContextSerdeError, match=message):
        Context.from_dict(flow, data)


async def test_a_context_error_is_a_value_error():
    assert issubclass(ContextSerdeError, ValueError)
    assert not issubclass(ContextSerdeError, DeserializationError)
