"""WorkflowCheckpointer, checkpoint_callback and run_from: checkpoints as LlamaIndex had them, over the journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    Checkpoint,
    CheckpointError,
    ConstantDelayRetryPolicy,
    Context,
    ContextSerdeError,
    ContextStateError,
    Event,
    Journal,
    JsonSerializer,
    PickleSerializer,
    RunConflictError,
    RunIdError,
    RunNotFoundError,
    StartEvent,
    StateEditError,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowCheckpointer,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
    step,
)
from durable_flow.records import ContextSpliced, StateEdited, StepCompleted

from .conftest import Log
from .flows import Answer, Asking, Packed, Question, Shop, question, records_of, released, until
from .jokes import BOTH, Jokes, JokeTold
from .test_ownership import stand_still

HERE = Path(__file__).parent


def steps(checkpoints: list[Checkpoint]) -> list[str | None]:
    return [checkpoint.last_completed_step for checkpoint in checkpoints]


@contextlib.asynccontextmanager
async def another_journal() -> AsyncIterator[Journal]:
    async with Journal("memory://") as journal:
        yield journal


def through_json(checkpoint: Checkpoint, **kwargs: Any) -> Checkpoint:
    return Checkpoint.from_dict(json.loads(json.dumps(checkpoint.to_dict(**kwargs))), **kwargs)


async def edit_state(flow: Workflow, checkpoint: Checkpoint, change: Callable[[Context[Any]], Any]) -> None:
    ctx: Context[Any] = Context.from_dict(flow, checkpoint.ctx_state or {})
    change(ctx)
    checkpoint.ctx_state = json.loads(json.dumps(ctx.to_dict()))


# -- The view ----------------------------------------------------------------------------------------------------------


async def test_each_step_that_completes_is_a_checkpoint_of_the_run(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(workflow=Jokes(journal=journal))
    handler = ckptr.run(topic="ships")
    assert await handler == ["a joke about ships", "ships", "dry"]
    assert list(ckptr.checkpoints) == [handler.run_id]
    first, last = ckptr.checkpoints[handler.run_id]
    assert (first.last_completed_step, first.output_event) == ("generate_joke", JokeTold(joke="a joke about ships"))
    assert first.input_event == StartEvent(topic="ships")
    assert (last.last_completed_step, last.input_event) == ("critique_joke", first.output_event)
    assert last.output_event == StopEvent(result=["a joke about ships", "ships", "dry"])
    assert (first.keys_changed, last.keys_changed) == (("mood", "topic"), ())
    # They are the journal's own, beside the start and the named place.
    listed = {c.id_: c for c in await journal.checkpoints(handler.run_id)}
    assert [c.kind for c in listed.values()] == ["start", "step", "named", "end"]
    for checkpoint in (first, last):
        assert checkpoint.model_copy(update={"ctx_state": None}) == listed[checkpoint.id]


async def test_what_is_seen_live_is_what_is_loaded_from_the_journal(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    handler = ckptr.run(topic="ships")
    await handler
    other = WorkflowCheckpointer(Jokes(journal=journal))
    assert other.checkpoints == {}
    assert await other.load(handler.run_id) == ckptr.checkpoints[handler.run_id]
    assert other.checkpoints == ckptr.checkpoints


async def test_loading_keeps_what_is_there_and_adds_what_is_enabled(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal), disabled_steps=["generate_joke"])
    handler = ckptr.run(topic="ships")
    await handler
    [kept] = ckptr.checkpoints[handler.run_id]
    kept.output_event = StopEvent(result="edited")
    assert await ckptr.load(handler.run_id) == [kept]
    ckptr.enable_checkpoint("generate_joke")
    assert steps(await ckptr.load(handler.run_id)) == BOTH
    assert ckptr.checkpoints[handler.run_id][1] is kept


async def test_a_run_that_is_not_this_workflows_is_not_loaded(journal: Journal) -> None:
    await Shop(journal=journal).run(item="tea", run_id="tea")
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    with pytest.raises(RunNotFoundError, match="no run nobody"):
        await ckptr.load("nobody")
    with pytest.raises(RunConflictError, match="of workflow Shop"):
        await ckptr.load("tea")
    with pytest.raises(RunIdError):
        await ckptr.load("")
    assert ckptr.checkpoints == {}


async def test_filters_are_anded_and_compare_classes_exactly(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=memory))
    ids = [(handler := ckptr.run(topic=topic)).run_id for topic in ("biology", "history")]
    await asyncio.gather(*[until(lambda run=run: _completed(memory, run)) for run in ids])
    await handler
    after_joke = ckptr.filter_checkpoints(last_completed_step="generate_joke")
    assert sorted(c.run_id for c in after_joke) == sorted(ids)
    assert steps(ckptr.filter_checkpoints(run_id=ids[0])) == BOTH
    assert steps(ckptr.filter_checkpoints(ids[0], input_event_type=JokeTold)) == ["critique_joke"]
    assert steps(ckptr.filter_checkpoints(ids[0], output_event_type=JokeTold)) == ["generate_joke"]
    assert len(ckptr.filter_checkpoints(input_event_type=StartEvent)) == 2
    assert ckptr.filter_checkpoints(output_event_type=Event) == []  # the base class of all of them
    assert ckptr.filter_checkpoints(last_completed_step="generate_joke", output_event_type=StopEvent) == []
    assert ckptr.filter_checkpoints(run_id="unknown") == []
    with pytest.raises(ValueError, match="needs a filter"):
        ckptr.filter_checkpoints()


async def _completed(journal: Journal, run_id: str) -> bool:
    with contextlib.suppress(RunNotFoundError):
        return (await journal.run(run_id)).status == "completed"
    return False


async def test_steps_are_disabled_and_enabled_by_name(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=memory))
    assert ckptr.enabled_checkpoints == set(BOTH)
    ckptr.disable_checkpoint("critique_joke")
    ckptr.disable_checkpoint(step="critique_joke")
    await (first := ckptr.run(topic="cars"))
    ckptr.enable_checkpoint(step="critique_joke")
    await (second := ckptr.run(topic="cars"))
    assert [steps(ckptr.checkpoints[handler.run_id]) for handler in (first, second)] == [["generate_joke"], BOTH]
    for change in (ckptr.enable_checkpoint, ckptr.disable_checkpoint):
        with pytest.raises(WorkflowStepDoesNotExistError, match=r"no step 'read'.*generate_joke, critique_joke"):
            change("read")
    with pytest.raises(WorkflowStepDoesNotExistError):
        WorkflowCheckpointer(Jokes(journal=memory), disabled_steps=["_done"])
    assert WorkflowCheckpointer(Jokes(), disabled_steps=["critique_joke"]).enabled_checkpoints == {"generate_joke"}


async def test_only_an_instance_of_a_workflow_is_taken() -> None:
    for wrong in (Jokes, "Jokes", None):
        with pytest.raises(WorkflowRuntimeError, match="takes an instance of a Workflow"):
            WorkflowCheckpointer(wrong)  # type: ignore[arg-type]
    ckptr = WorkflowCheckpointer(Jokes())
    with pytest.raises(WorkflowRuntimeError, match="takes an instance of a Workflow"):
        ckptr.workflow = Jokes  # type: ignore[assignment]


async def test_a_callback_that_is_called_by_hand_makes_a_checkpoint(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=memory))
    ctx: Context[Any] = Context(ckptr.workflow)
    await ctx.set("topic", "hands")
    await ctx.set("mood", "wet")
    told = JokeTold(joke="ha")
    keep = ckptr.new_checkpoint_callback_for_run()
    await keep(run_id="42", last_completed_step="generate_joke", input_ev=StartEvent(), output_ev=told, ctx=ctx)
    [checkpoint] = ckptr.checkpoints["42"]
    assert (checkpoint.input_event, checkpoint.output_event) == (StartEvent(), told)
    assert checkpoint.ctx_state == ctx.to_dict()
    # As in the old package it is enough to go on from.
    assert await ckptr.run_from(through_json(checkpoint)) == ["ha", "hands", "wet"]


async def test_a_stepwise_run_has_its_checkpoint_when_run_step_returns(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    handler = ckptr.run(topic="steps", stepwise=True)
    [told] = await handler.run_step() or []
    assert steps(ckptr.checkpoints[handler.run_id]) == ["generate_joke"]
    handler.ctx.send_event(told)
    assert not await handler.run_step()
    assert steps(ckptr.checkpoints[handler.run_id]) == BOTH
    assert await handler == ["a joke about steps", "steps", "dry"]
    again = ckptr.run_from(ckptr.checkpoints[handler.run_id][0], stepwise=True)
    assert await again.run_step() is None
    assert steps(ckptr.checkpoints[again.run_id]) == ["critique_joke"]


async def test_run_step_returns_when_the_callback_is_over(memory: Journal) -> None:
    hold = asyncio.Event()
    watched = Watched(hold)
    handler = Jokes(journal=memory).run(topic="steps", stepwise=True, checkpoint_callback=watched)
    stepping = asyncio.ensure_future(handler.run_step())
    await watched.called.wait()
    assert (await memory.run(handler.run_id)).status == "running"
    assert not stepping.done()
    hold.set()
    assert await stepping == [JokeTold(joke="a joke about steps")]
    assert len(watched.calls) == 1


class Tried(Workflow):
    @step(retry_policy=ConstantDelayRetryPolicy(delay=0, maximum_attempts=2))
    async def tried(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.data["tries"] = ctx.data.get("tries", 0) + 1
        if ctx.data["tries"] < 2:
            raise ValueError("again")
        return StopEvent(result=ctx.data["tries"])


async def test_a_step_that_is_retried_completes_once(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Tried(journal=journal))
    handler = ckptr.run()
    assert await handler == 2
    assert steps(ckptr.checkpoints[handler.run_id]) == ["tried"]


# -- The callback ------------------------------------------------------------------------------------------------------


class Watched:
    """A callback that notes its calls, and can be held."""

    def __init__(self, hold: asyncio.Event | None = None) -> None:
        self.calls: list[tuple[str | None, Event | None, Event | None, dict[str, Any]]] = []
        self.called = asyncio.Event()
        self.hold = hold

    async def __call__(
        self, last_completed_step: str | None, input_ev: Event | None, output_ev: Event | None, ctx: Context[Any]
    ) -> None:
        self.calls.append((last_completed_step, input_ev, output_ev, dict(ctx.data)))
        self.called.set()
        if self.hold is not None:
            await self.hold.wait()


async def test_the_callback_gets_the_completion_once_it_is_durable_and_before_what_follows(journal: Journal) -> None:
    hold = asyncio.Event()
    watched, flow = Watched(hold), Jokes(journal=journal)
    handler = flow.run(topic="order", run_id="r", checkpoint_callback=watched)
    await watched.called.wait()
    assert watched.calls == [
        (
            "generate_joke",
            StartEvent(topic="order"),
            JokeTold(joke="a joke about order"),
            {"topic": "order", "mood": "dry"},
        )
    ]
    # Recorded, and its event waits: that step starts only when the callback is over.
    assert len(await records_of(journal, "r", StepCompleted)) == 1
    await journal.run("r")
    assert flow.calls == ["generate_joke"]
    hold.set()
    assert await handler == ["a joke about order", "order", "dry"]
    assert [call[0] for call in watched.calls] == BOTH


async def test_the_end_waits_for_the_callback(journal: Journal) -> None:
    hold, told = asyncio.Event(), asyncio.Event()

    async def last(last_completed_step: str, **_: Any) -> None:
        if last_completed_step == "critique_joke":
            told.set()
            await hold.wait()

    handler = Jokes(journal=journal).run(topic="end", checkpoint_callback=last)
    await told.wait()
    assert (await journal.run(handler.run_id)).status == "completed"
    assert not handler.is_done()
    hold.set()
    assert await handler == ["a joke about end", "end", "dry"]


class Half(Event):
    n: int


class Halves(Workflow):
    """Two steps at once, of which the second is held until the first one's completion was told."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.go = asyncio.Event()

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Half | None:
        ctx.send_event(Half(n=1))
        ctx.send_event(Half(n=2))

    @step
    async def halve(self, ctx: Context, ev: Half) -> StopEvent | None:
        if ev.n == 1:
            return None
        await self.go.wait()
        ctx.data["seen"] = await ctx.call("twice", lambda: 2)
        return StopEvent(result=ctx.data["seen"])


async def test_what_runs_already_goes_on_while_a_callback_is_under_way(journal: Journal) -> None:
    flow, hold = Halves(journal=journal), asyncio.Event()
    calls: list[tuple[Any, Any]] = []

    async def slow(last_completed_step: str, input_ev: Event, output_ev: Event | None, ctx: Context[Any]) -> None:
        calls.append((last_completed_step, output_ev))
        if last_completed_step == "halve" and output_ev is None:
            flow.go.set()
            await hold.wait()

    handler = flow.run(checkpoint_callback=slow)

    async def seen() -> bool:
        return (await journal.state(handler.run_id)).context.get("seen") == 2

    await flow.go.wait()
    await until(seen)  # the other step has completed, with a call on the way
    hold.set()
    assert await handler == 2
    # In the order of the journal; a step that only sends has what it sent as its output.
    assert calls == [("split", Half(n=1)), ("halve", None), ("halve", StopEvent(result=2))]


async def test_the_context_of_a_callback_shows_the_run_as_it_was_then_and_changes_nothing(journal: Journal) -> None:
    seen: list[Any] = []

    async def look(last_completed_step: str, ctx: Context[Any], **_: Any) -> None:
        if last_completed_step == "critique_joke":
            return
        seen.append((await ctx.get("topic"), await ctx.store.get("mood"), ctx.data.get("none"), ctx.to_dict()))
        for refused in (lambda: ctx.data.update(topic="x"), lambda: ctx.send_event(JokeTold(joke="x"))):
            with pytest.raises(ContextStateError, match=r"shows run r as it was at r/\d+\. Use .* handler\.ctx"):
                refused()
        with pytest.raises(ContextStateError):
            del ctx.data["topic"]
        with pytest.raises(ContextStateError):
            await ctx.set("topic", "x")

    flow = Jokes(journal=journal)
    assert await flow.run(topic="look", run_id="r", checkpoint_callback=look) == ["a joke about look", "look", "dry"]
    [(topic, mood, none, saved)] = seen
    assert (topic, mood, none) == ("look", "dry", None)
    assert Context.from_dict(flow, saved).data == {"topic": "look", "mood": "dry"}


class Settings(BaseModel):
    level: int = 3


class Typed(Workflow):
    @step
    async def only(self, ctx: Context[Settings], ev: StartEvent) -> Packed:
        return Packed(item="x")

    @step
    async def level(self, ctx: Context[Settings], ev: Packed) -> StopEvent:
        return StopEvent(result=(await ctx.store.get_state()).level)


async def test_a_typed_state_has_its_defaults_in_a_callback(memory: Journal) -> None:
    levels: list[int] = []

    async def look(ctx: Context[Settings], **_: Any) -> None:
        levels.append((await ctx.store.get_state()).level)

    assert await Typed(journal=memory).run(checkpoint_callback=look) == 3
    assert levels == [3, 3]


async def test_what_a_callback_raises_rises_and_the_run_can_be_resumed(journal: Journal, log: Log) -> None:
    async def fails(**_: Any) -> None:
        raise OSError("the disk of the checkpoints is full")

    flow = Jokes(journal=journal)
    handler = flow.run(topic="errors", run_id="r", checkpoint_callback=fails)
    with pytest.raises(OSError, match="checkpoints is full") as raised:
        await handler
    [note] = raised.value.__notes__
    assert "the checkpoint_callback of run r" in note
    assert "'generate_joke'" in note
    assert "flow.resume('r')" in note
    assert flow.calls == ["generate_joke"]
    assert [record.run_id for record in log.of("run_dropped")] == ["r"]
    assert await (await flow.resume("r")) == ["a joke about errors", "errors", "dry"]
    assert flow.calls == BOTH


async def test_what_it_raises_at_the_end_rises_too_and_the_result_stays(journal: Journal) -> None:
    async def fails(last_completed_step: str, **_: Any) -> None:
        if last_completed_step == "critique_joke":
            raise asyncio.CancelledError

    flow = Jokes(journal=journal)
    with pytest.raises(WorkflowRuntimeError, match="awaited something that was cancelled"):
        await flow.run(topic="end", run_id="r", checkpoint_callback=fails)
    assert (await journal.run("r")).status == "completed"
    assert await flow.run(topic="end", run_id="r") == ["a joke about end", "end", "dry"]


async def test_what_is_no_callback_is_refused_before_anything_starts(memory: Journal) -> None:
    with pytest.raises(WorkflowRuntimeError, match=r"checkpoint_callback='x' cannot be called.*last_completed_step"):
        Jokes(journal=memory).run(topic="x", checkpoint_callback="x")
    assert await memory.runs() == []


async def test_a_callback_gets_the_run_id_if_it_takes_one(memory: Journal) -> None:
    ids: list[str] = []

    async def named(run_id: str, last_completed_step: str, input_ev: Event, output_ev: Event, ctx: Any) -> None:
        ids.append(run_id)

    def plain(last_completed_step: str, input_ev: Event, output_ev: Event, ctx: Any) -> None:
        ids.append(last_completed_step)

    await Jokes(journal=memory).run(topic="x", run_id="r", checkpoint_callback=named)
    await Jokes(journal=memory).run(topic="x", checkpoint_callback=plain)
    assert ids == ["r", "r", *BOTH]


async def test_observers_are_told_beside_the_callback(memory: Journal) -> None:
    class Notes:
        told: list[int] = []  # noqa: RUF012

        def appended(self, run_id: str, workflow: str, records: Any) -> None:
            self.told += [record.seq for record in records]

    watched = Watched()
    handler = Jokes(journal=memory, observers=[Notes()]).run(topic="x", checkpoint_callback=watched)
    await handler
    assert len(watched.calls) == 2
    assert Notes.told == [record.seq for record in await memory.history(handler.run_id)]


async def test_whoever_comes_to_a_live_run_is_called_from_then_on(journal: Journal) -> None:
    hold = asyncio.Event()
    flow, first, second = Shop(journal=journal, hold=hold), Watched(), Watched()
    handler = flow.run(item="tea", run_id="r", checkpoint_callback=first)
    await flow.shipping.wait()
    other = flow.run(item="tea", run_id="r", checkpoint_callback=second)
    await until(lambda: _is_watched(other))
    hold.set()
    assert await other == await handler == "shipped 1 tea"
    assert ([call[0] for call in first.calls], [call[0] for call in second.calls]) == (["pack", "ship"], ["ship"])


async def _is_watched(handler: Any) -> bool:
    return handler._attachment.run is not None


async def test_the_callback_stays_with_a_handler_whose_run_is_released_and_taken_up(
    new_journal: Callable[..., Journal],
) -> None:
    async with new_journal(idle_release_seconds=0.0) as journal:
        watched = Watched()
        handler = Asking(journal=journal).run(checkpoint_callback=watched)
        asked = await question(handler)
        await released(handler)
        waiting = asyncio.ensure_future(handler._result())
        await handler.send_event(Answer(text="yes"), wait_id=asked.wait_id)
        await waiting
        assert [call[0] for call in watched.calls] == ["ask", "answered"]


async def test_the_callback_stays_with_a_run_whose_process_stood_still(journal: Journal, log: Log) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    watched = Watched()
    handler = flow.run(run_id="r", item="lamp", checkpoint_callback=watched)
    await flow.shipping.wait()
    flow.shipping.clear()
    stand_still(flow)
    await log.seen("lapsed")
    await flow.shipping.wait()
    assert flow.hold is not None
    flow.hold.set()
    assert await handler == "shipped 1 lamp"
    assert [call[0] for call in watched.calls] == ["pack", "ship"]


async def test_a_run_can_be_cancelled_from_its_callback(journal: Journal) -> None:
    async def cancels(**_: Any) -> None:
        await handler.cancel_run(timeout=0)

    flow = Jokes(journal=journal)
    handler = flow.run(topic="x", checkpoint_callback=cancels)
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert flow.calls == ["generate_joke"]


class ParentOfJokes(Workflow):
    child_calls: list[str | None] = []  # noqa: RUF012

    @step
    async def start(self, ev: StartEvent) -> StopEvent:
        async def note(last_completed_step: str | None, **_: Any) -> None:
            self.child_calls.append(last_completed_step)

        return StopEvent(result=await Jokes().run(topic="children", checkpoint_callback=note))


async def test_a_child_run_has_a_callback_of_its_own(memory: Journal) -> None:
    watched = Watched()
    result = await ParentOfJokes(journal=memory).run(checkpoint_callback=watched)
    assert result == ["a joke about children", "children", "dry"]
    assert (ParentOfJokes.child_calls, [call[0] for call in watched.calls]) == (BOTH, ["start"])


# -- Running from a checkpoint -----------------------------------------------------------------------------------------


async def first_checkpoint(ckptr: WorkflowCheckpointer, **kwargs: Any) -> Checkpoint:
    handler = ckptr.run(**kwargs)
    await handler
    return ckptr.checkpoints[handler.run_id][0]


async def test_run_from_is_a_new_run_that_goes_on_from_the_checkpoint(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    checkpoint = await first_checkpoint(ckptr, topic="ships")
    ckptr.workflow = flow = Jokes(journal=journal)  # a new instance
    before = await journal.history(checkpoint.run_id)
    handler = ckptr.run_from(checkpoint=checkpoint)
    assert handler.run_id not in ("", checkpoint.run_id)
    assert await handler == ["a joke about ships", "ships", "dry"]
    assert flow.calls == ["critique_joke"]
    assert steps(ckptr.checkpoints[handler.run_id]) == ["critique_joke"]
    assert (await journal.run(handler.run_id)).forked_from == checkpoint.id
    assert await journal.history(checkpoint.run_id) == before
    # The same without the checkpointer, and loaded from the journal.
    assert steps(await WorkflowCheckpointer(flow).load(handler.run_id)) == ["critique_joke"]
    assert await flow.run_from(checkpoint, run_id="mine") == ["a joke about ships", "ships", "dry"]
    assert (await journal.run("mine")).status == "completed"


class ThirdStep(Event):
    n: int


class Three(Workflow):
    ran: list[str] = []  # noqa: RUF012

    @step
    async def one(self, ev: StartEvent) -> Half:
        return Half(n=1)

    @step
    async def two(self, ev: Half) -> ThirdStep:
        self.ran.append("two")
        return ThirdStep(n=2)

    @step
    async def three(self, ev: ThirdStep) -> StopEvent:
        self.ran.append("three")
        return StopEvent(result=ev.n)


async def test_the_callback_of_a_run_from_a_checkpoint_holds_back_what_follows_too(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Three(journal=journal))
    first = await first_checkpoint(ckptr)
    again = ckptr.run_from(first)  # its numbers go on where those of the first one were
    await again
    hold = asyncio.Event()
    for checkpoint in (first, ckptr.checkpoints[again.run_id][0]):
        watched = Watched(hold)
        Three.ran.clear()
        handler = Three(journal=journal).run_from(checkpoint, checkpoint_callback=watched)
        await watched.called.wait()
        await journal.run(handler.run_id)
        is_first = checkpoint is first
        assert Three.ran == (["two"] if is_first else ["three"])
        assert watched.calls[0][0] == ("two" if is_first else "three")
        hold.set()
        assert await handler == 2
        hold.clear()


async def test_a_changed_output_event_takes_the_place_of_what_the_step_returned(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    checkpoint = await first_checkpoint(ckptr, topic="ships")
    checkpoint.output_event = JokeTold(joke="another")
    assert await ckptr.run_from(checkpoint) == ["another", "ships", "dry"]
    assert isinstance(checkpoint.output_event, JokeTold)
    checkpoint.output_event.joke = "a third one"  # in place
    assert await ckptr.run_from(checkpoint) == ["a third one", "ships", "dry"]
    assert await (await ckptr.workflow.fork(checkpoint.run_id, checkpoint)) == ["a joke about ships", "ships", "dry"]


async def test_changed_values_of_ctx_state_are_recorded_as_an_edit(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    checkpoint = await first_checkpoint(ckptr, topic="ships")

    def change(ctx: Context[Any]) -> None:
        ctx.data["topic"] = "boats"
        ctx.data["a/b~c"] = [1]
        del ctx.data["mood"]

    await edit_state(ckptr.workflow, checkpoint, change)
    handler = ckptr.run_from(checkpoint)
    assert await handler == ["a joke about ships", "boats", None]
    assert (await journal.state(handler.run_id)).context == {"topic": "boats", "a/b~c": [1]}
    assert [c.kind async for c in journal.blame(handler.run_id, "topic")] == ["imported", "edit"]
    assert len(await records_of(journal, handler.run_id, StateEdited)) == 1
    checkpoint.output_event = JokeTold(joke="another")
    assert await ckptr.run_from(checkpoint) == ["another", "boats", None]
    # Nothing of it reaches the next one that does not ask for it.
    [unchanged] = await journal.checkpoints(checkpoint.run_id, after=checkpoint.seq - 1, limit=1)
    again = ckptr.workflow.run_from(unchanged)
    assert await again == ["a joke about ships", "ships", "dry"]
    assert await records_of(journal, again.run_id, StateEdited) == []


async def test_changed_values_must_fit_a_typed_state(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Typed(journal=memory))
    checkpoint = await first_checkpoint(ckptr)
    assert checkpoint.ctx_state is not None
    ctx: Context[Any] = Context.from_dict(ckptr.workflow, checkpoint.ctx_state)
    await ctx.set("level", "high")
    checkpoint.ctx_state = ctx.to_dict()
    with pytest.raises(StateEditError, match="level"):
        await ckptr.run_from(checkpoint)
    await ctx.set("level", 7)
    checkpoint.ctx_state = ctx.to_dict()
    assert await ckptr.run_from(checkpoint) == 7


async def test_from_the_last_checkpoint_the_run_ends_as_it_did_or_with_another_result(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    handler = ckptr.run(topic="ends")
    await handler
    last = ckptr.checkpoints[handler.run_id][-1]
    assert await ckptr.run_from(last) == ["a joke about ends", "ends", "dry"]
    last.output_event = StopEvent(result="better")
    again = ckptr.run_from(last)
    assert await again == "better"
    assert again.run_id not in ckptr.checkpoints  # no step of it completed
    last.output_event = JokeTold(joke="once more")
    assert await ckptr.run_from(last) == ["once more", "ends", "dry"]


async def test_every_listed_checkpoint_can_be_run_from(journal: Journal) -> None:
    flow = Jokes(journal=journal)
    await flow.run(topic="lists", run_id="r")
    start, told, named, end = await journal.checkpoints("r")
    for checkpoint in (start, told, named, end, through_json(named)):
        assert checkpoint.ctx_state is None
        assert await flow.run_from(checkpoint) == ["a joke about lists", "lists", "dry"]
    start.output_event = StartEvent(topic="others")
    assert await flow.run_from(start) == ["a joke about others", "others", "dry"]


async def test_arguments_are_dropped_with_a_warning(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=memory))
    checkpoint = await first_checkpoint(ckptr, topic="ships")
    with pytest.warns(UserWarning, match="sends no start event; topic will be dropped") as warned:
        handler = ckptr.run_from(topic="Ships", checkpoint=checkpoint)
    assert warned[0].filename.endswith(("checkpointer.py", "test_checkpointer.py"))
    assert await handler == ["a joke about ships", "ships", "dry"]


async def test_what_cannot_be_run_from_is_refused_and_nothing_is_written(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    checkpoint = await first_checkpoint(ckptr, topic="ships", run_id="r")
    flow = ckptr.workflow
    with pytest.raises(CheckpointError, match=r"takes a Checkpoint, not a str.*flow\.fork"):
        flow.run_from("r/5")  # type: ignore[arg-type]
    with pytest.raises(RunIdError):
        flow.run_from(checkpoint, run_id="")
    with pytest.raises(ContextSerdeError, match="are no saved context"):
        flow.run_from(checkpoint.model_copy(update={"ctx_state": {"globals": {}}}))
    with pytest.raises(RunConflictError, match="there is a run r already"):
        await flow.run_from(checkpoint, run_id="r")
    with pytest.raises(RunConflictError, match="of workflow Jokes"):
        await Shop(journal=journal).run_from(checkpoint)
    listed = checkpoint.model_copy(update={"ctx_state": None})
    with pytest.raises(CheckpointError, match="lies within the group"):
        await flow.run_from(listed.model_copy(update={"seq": checkpoint.seq - 1}))
    with pytest.raises(CheckpointError, match="has no record 99"):
        await flow.run_from(listed.model_copy(update={"seq": 99}))
    with pytest.raises(CheckpointError, match=r"no ctx_state to go on from, and run gone is not in"):
        await flow.run_from(listed.model_copy(update={"run_id": "gone"}))
    with pytest.raises(CheckpointError, match="it names no run"):
        await flow.run_from(Checkpoint(output_event=JokeTold(joke="x")))
    with pytest.raises(CheckpointError, match="has no output event any more"):
        await flow.run_from(checkpoint.model_copy(update={"output_event": None}))
    assert [info.run_id for info in await journal.runs()] == ["r"]


async def test_a_run_from_a_checkpoint_waits_for_its_place_and_may_leave_the_queue(journal: Journal) -> None:
    hold = asyncio.Event()
    flow = Shop(journal=journal, hold=hold, num_concurrent_runs=1)
    ckptr = WorkflowCheckpointer(flow)
    first = ckptr.run(item="tea", run_id="first")
    await flow.shipping.wait()
    [packed] = ckptr.checkpoints["first"]
    waiting, leaving = ckptr.run_from(packed, run_id="waiting"), ckptr.run_from(packed, run_id="leaving")
    await leaving.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await leaving
    assert flow.ran == ["pack", "ship"]
    hold.set()
    assert await first == await waiting == "shipped 1 tea"
    assert sorted(info.run_id for info in await journal.runs()) == ["first", "waiting"]


async def test_a_run_from_a_checkpoint_that_nobody_awaits_any_more_is_released(journal: Journal) -> None:
    flow = Shop(journal=journal)
    ckptr = WorkflowCheckpointer(flow)
    await ckptr.run(item="tea", run_id="first")
    flow.hold, flow.shipping = asyncio.Event(), asyncio.Event()
    handler = ckptr.run_from(ckptr.checkpoints["first"][0], run_id="again")
    awaiting = asyncio.ensure_future(handler._result())
    await flow.shipping.wait()
    awaiting.cancel()
    await asyncio.wait([awaiting])
    await released(handler)
    flow.hold.set()
    assert await (await flow.resume("again")) == "shipped 1 tea"


# -- Without the journal that has the run ------------------------------------------------------------------------------


async def test_a_checkpoint_carries_all_that_another_journal_needs(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    checkpoint = through_json(await first_checkpoint(ckptr, topic="ships", run_id="r"))
    assert checkpoint == ckptr.checkpoints["r"][0]
    async with another_journal() as other:
        flow = Jokes(journal=other)
        # A run of the same id there is another one.
        assert await flow.run(topic="strangers", run_id="r") == ["a joke about strangers", "strangers", "dry"]
        handler = flow.run_from(checkpoint)
        assert await handler == ["a joke about ships", "ships", "dry"]
        assert flow.calls == [*BOTH, "critique_joke"]
        assert (await other.run(handler.run_id)).forked_from is None
        await edit_state(flow, checkpoint, lambda ctx: ctx.data.update(topic="boats"))
        checkpoint.output_event = JokeTold(joke="another")
        edited = flow.run_from(checkpoint)
        assert await edited == ["another", "boats", "dry"]
        assert len(await records_of(other, edited.run_id, StateEdited)) == 1
        last = through_json(ckptr.checkpoints["r"][1])
        assert await flow.run_from(last) == ["a joke about ships", "ships", "dry"]
        with pytest.raises(CheckpointError, match="of workflow Jokes, and cannot be gone on from by Shop"):
            await Shop(journal=other).run_from(checkpoint)
        with pytest.raises(CheckpointError, match="no ctx_state to go on from"):
            await flow.run_from(checkpoint.model_copy(update={"ctx_state": None, "run_id": "nobody"}))


async def test_a_state_of_any_context_is_begun_with_and_its_pending_work_goes_first(memory: Journal) -> None:
    hold = asyncio.Event()
    flow = Shop(journal=memory, hold=hold)
    handler = flow.run(item="tea")
    await flow.shipping.wait()
    saved = handler.ctx.to_dict()
    await handler.cancel_run()
    flow.hold = None
    by_hand = Checkpoint(last_completed_step="pack", output_event=Packed(item="unsent"), ctx_state=saved)
    assert await flow.run_from(by_hand) == "shipped 1 tea"  # as in the old package
    nothing = Checkpoint(ctx_state=Context(flow).to_dict())
    with pytest.raises(CheckpointError, match="nothing is left to go on with"):
        await flow.run_from(nothing)


class PartsMade(Event):
    n: int


class PartDone(Event):
    n: int


class FanParts(Workflow):
    """Makes parts, works on each, and joins them."""

    @step
    async def make(self, ev: StartEvent) -> list[PartsMade]:
        return [PartsMade(n=n) for n in range(3)]

    @step(num_workers=1)
    async def work(self, ev: PartsMade) -> PartDone:
        return PartDone(n=ev.n * 10)

    @step
    async def join(self, evs: list[PartDone]) -> StopEvent:
        return StopEvent(result=[ev.n for ev in evs])


async def test_in_a_fan_out_the_changed_event_is_collected_in_the_place_of_the_other(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(FanParts(journal=journal))
    handler = ckptr.run()
    assert await handler == [0, 10, 20]
    made, *worked, joined = ckptr.checkpoints[handler.run_id]
    assert made.output_events == tuple(PartsMade(n=n) for n in range(3))
    assert made.output_event == PartsMade(n=0)
    assert joined.input_events == tuple(PartDone(n=n) for n in (0, 10, 20))
    second = next(c for c in worked if c.input_event == PartsMade(n=1))
    second.output_event = PartDone(n=99)
    async with another_journal() as other:
        for flow in (ckptr.workflow, FanParts(journal=other)):
            assert await flow.run_from(through_json(made)) == [0, 10, 20]
            assert sorted(await flow.run_from(second)) == [0, 20, 99]


async def test_a_question_that_a_step_returned_is_asked_again(journal: Journal) -> None:
    ckptr = WorkflowCheckpointer(Asking(journal=journal))
    handler = ckptr.run()
    await question(handler)
    [checkpoint] = ckptr.checkpoints[handler.run_id]
    assert isinstance(checkpoint.output_event, Question)
    async with another_journal() as other:
        for flow in (ckptr.workflow, Asking(journal=other)):
            fork = flow.run_from(through_json(checkpoint))
            await fork.send_event(Answer(text="yes"))
            assert "yes" in str(await fork)
    await handler.cancel_run()


class Collects(Workflow):
    @step
    async def grow(self, ctx: Context, ev: StartEvent | Half) -> Half | StopEvent:
        n = ev.n if isinstance(ev, Half) else 0
        ctx.data.setdefault("log", []).append({"n": n, "text": "x" * 400})
        ctx.data["set"] = {n}
        return Half(n=n + 1) if n < 4 else StopEvent(result=[len(ctx.data["log"]), ctx.data["set"]])


@pytest.mark.parametrize("serializer", [None, JsonSerializer(), PickleSerializer()], ids=["none", "json", "pickle"])
async def test_states_are_written_by_the_serializer_of_the_checkpointer(memory: Journal, serializer: Any) -> None:
    ckptr = WorkflowCheckpointer(Collects(journal=memory), checkpoint_serializer=serializer)
    handler = ckptr.run()
    assert await handler == [5, {4}]
    assert await records_of(memory, handler.run_id, ContextSpliced)  # a value that was recorded in parts
    checkpoints = [through_json(c) for c in ckptr.checkpoints[handler.run_id]]
    assert len(checkpoints) == 5
    async with another_journal() as other:
        for checkpoint in checkpoints:
            here = await Collects(journal=memory).run_from(checkpoint, ctx_serializer=serializer)
            assert here == await Collects(journal=other).run_from(checkpoint, ctx_serializer=serializer) == [5, {4}]
    loaded = await WorkflowCheckpointer(ckptr.workflow, serializer).load(handler.run_id)
    assert loaded == ckptr.checkpoints[handler.run_id]


# -- Runs of other processes -------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database that other processes can open."""
    url: str = request.getfixturevalue("url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.mark.parametrize("where", ["step", "callback"])
async def test_the_runs_of_a_killed_process_have_their_checkpoints(shared_url: str, where: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "jokes.py"), shared_url, "dead", where,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    [line] = printed.splitlines()
    told = Checkpoint.from_dict(json.loads(line))
    async with Journal(shared_url, durability="normal") as journal:
        ckptr = WorkflowCheckpointer(Jokes(journal=journal))
        assert await ckptr.load("dead") == [told]
        assert told.last_completed_step == "generate_joke"
        told.output_event = JokeTold(joke="from beyond")
        for checkpoint, joke in [(ckptr.checkpoints["dead"][0], "a joke about death"), (told, "from beyond")]:
            handler = ckptr.run_from(checkpoint)
            assert await handler == [joke, "death", "dry"]
            assert steps(ckptr.checkpoints[handler.run_id]) == ["critique_joke"]
        # The dead run itself goes on where it was: its completed step does not run again.
        ckptr.workflow = flow = Jokes(journal=journal)
        handler = ckptr.run(topic="death", run_id="dead")
        assert await handler == ["a joke about death", "death", "dry"]
        assert flow.calls == ["critique_joke"]
        assert steps(ckptr.checkpoints["dead"]) == BOTH


LATER = """
import json, sys
from durable_flow import Checkpoint
checkpoints = [Checkpoint.from_dict(data) for data in json.load(sys.stdin)]
print(*{type(checkpoint.output_event).__name__ for checkpoint in checkpoints})
import asyncio
from durable_flow import Journal
from jokes import Jokes

async def main():
    async with Journal("memory://") as journal:
        for checkpoint in checkpoints:
            print(await Jokes(journal=journal).run_from(checkpoint))
        checkpoints[0].output_event = type(checkpoints[0].output_event)(name="Nobody", raw={})
        try:
            await Jokes(journal=journal).run_from(checkpoints[0])
        except Exception as error:
            print(error)

asyncio.run(main())
"""


async def test_a_checkpoint_may_be_loaded_before_the_classes_of_its_events(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=memory))
    first = await first_checkpoint(ckptr, topic="late")
    edited = through_json(first)
    edited.output_event = JokeTold(joke="another")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LATER,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await process.communicate(json.dumps([first.to_dict(), edited.to_dict()]).encode())
    names, going_on, changed, error = printed.decode().splitlines()
    assert names == "UnknownEvent"
    assert going_on == str(["a joke about late", "late", "dry"])
    assert changed == str(["another", "late", "dry"])
    assert error == f"checkpoint {first.id}: this program has no event class 'Nobody', of which its output event is"


# -- The model ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_made_by_hand_has_an_id_and_the_five_fields() -> None:
    one = Checkpoint(last_completed_step="a", input_event=StartEvent(), output_event=Half(n=1), ctx_state={})
    other = Checkpoint(last_completed_step="a", input_event=StartEvent(), output_event=Half(n=1), ctx_state={})
    assert one.id_ != other.id_
    assert one.id == one.id_
    assert (one.input_events, one.output_events) == ((StartEvent(),), (Half(n=1),))
    assert len({one, other}) == 2
    assert pickle.loads(pickle.dumps(one)) == one
    one.output_event = Half(n=2)
    assert one.output_events == (Half(n=2),)
    assert through_json(one) == one


def test_what_is_no_checkpoint_is_not_read() -> None:
    data = Checkpoint(last_completed_step="a", output_event=Half(n=1), ctx_state={}).to_dict()
    for wrong in (None, [], {}, {"format": "durable_flow.Context"}):
        with pytest.raises(CheckpointError, match="are no checkpoint"):
            Checkpoint.from_dict(wrong)  # type: ignore[arg-type]
    for version in (0, 2, True, "1"):
        with pytest.raises(CheckpointError, match="newer one wrote it"):
            Checkpoint.from_dict({**data, "version": version})
    for damage in ({"outputs": [1]}, {"outputs": [{"EncodedValue": ["json", "1"]}]}, {"seq": "x"}, {"inputs": None}):
        with pytest.raises(CheckpointError, match="cannot be read"):
            Checkpoint.from_dict({**data, **damage})
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint.from_dict({name: value for name, value in data.items() if name != "kind"})


def test_a_damaged_group_in_ctx_state_is_refused(memory_state: dict[str, Any]) -> None:
    flow = Jokes()
    for damage in (
        {"group": 1},
        {"group": {"tuple": []}},
        {"group": {"tuple": [{"TaskId": [1, "x"]}]}},
        {"group": {"tuple": [{"Record": [3, 1, True, None]}]}},
        {"group": {"tuple": [{"Record": [3, 1, True, {"StepCompleted": [[77, "nobody"], 1]}]}]}},
        # What it says was reused is none of the effects that the task has.
        {"group": {"tuple": [
            {"Record": [3, 1, False, {"CallRecorded": [[2, "generate_joke"], 1, "c", 1, None, ["json", "1"]]}]},
            {"Record": [4, 1, True, {"EffectReused": [[2, "generate_joke"], 1, "call", "c", 1, 77]}]},
        ]}},
        {"context": {"dict": [["a", 1]]}},
    ):  # fmt: skip
        with pytest.raises(ContextSerdeError):
            Context.from_dict(flow, {**memory_state, **damage})


@pytest.fixture
async def memory_state(memory: Journal) -> dict[str, Any]:
    ckptr = WorkflowCheckpointer(Jokes(journal=memory))
    state = (await first_checkpoint(ckptr, topic="x")).ctx_state
    assert state is not None
    return state


async def test_a_ctx_state_is_a_saved_context_whose_pending_work_goes_on(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Jokes(journal=memory))
    checkpoint = await first_checkpoint(ckptr, topic="ships")
    flow = Jokes(journal=memory)
    ctx: Context[Any] = Context.from_dict(flow, checkpoint.ctx_state or {})
    assert ctx.is_running
    assert await flow.run(ctx=ctx) == ["a joke about ships", "ships", "dry"]
    assert flow.calls == ["critique_joke"]
    without: Context[Any] = Context.from_dict(flow, checkpoint.ctx_state or {})
    assert without.to_dict(include_state=False)["state"].get("context", []) == []
