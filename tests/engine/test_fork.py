"""Forks: a new run that goes on from a checkpoint of another one, with something changed, or refused without effect."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    AlreadyAnsweredError,
    CheckpointError,
    Context,
    Event,
    Journal,
    PayloadTooLargeError,
    RunConflictError,
    RunIdError,
    RunNotFoundError,
    SerializationError,
    StartEvent,
    StateEditError,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.records import CallRecorded, PendingDropped, RunStarted, StateEdited, StateImported, StepCompleted

from .flows import Answer, Asking, Order, Packed, Shop, question, recorded, records_of, released, until
from .test_checkpoints import Added, Doubled, Sums, SumStart

RESULT = [4, 4, ["add", "double"]]


async def untouched(journal: Journal, run_id: str, records: list[Any]) -> None:
    assert await journal.history(run_id) == records


# -- Going on ----------------------------------------------------------------------------------------------------------


async def test_a_fork_goes_on_from_its_checkpoint_and_leaves_the_parent_as_it_was(journal: Journal) -> None:
    flow = Sums(journal=journal)
    assert await flow.run(run_id="r") == RESULT
    before = await journal.history("r")
    flow.ran.clear()
    fork = await flow.fork("r", at="before doubling", new_run_id="f")
    assert (fork.run_id, await fork) == ("f", RESULT)
    assert flow.ran == ["double", "finish"]  # add had completed
    assert (await journal.state("f")).context == (await journal.state("r")).context
    facts = [record.fact for record in await journal.history("f")]
    assert [type(fact) for fact in facts[:2]] == [RunStarted, StateImported]
    parent = await journal.run("r")
    assert (facts[1].parent, facts[1].seq) == (parent.uid, (await journal.state("r", "before doubling")).seq)
    await untouched(journal, "r", before)


async def test_without_a_checkpoint_it_goes_on_from_now_and_with_new_ids(memory: Journal) -> None:
    flow = Sums(journal=memory, hold=asyncio.Event())
    handler = flow.run(run_id="r")
    await recorded(memory, "r", StepCompleted, 2)
    forks = [await flow.fork("r") for _ in range(2)]
    flow.hold.set()
    assert [await fork for fork in forks] == [RESULT, RESULT]
    assert len({"r", *(fork.run_id for fork in forks)}) == 3
    assert len({(await memory.run(fork.run_id)).uid for fork in forks}) == 2
    assert await handler == RESULT


async def test_a_live_run_is_forked_and_not_disturbed(journal: Journal) -> None:
    flow = Sums(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r")
    await recorded(journal, "r", StepCompleted, 2)
    owner = (await journal.run("r")).owner
    other = Sums(journal=journal)
    fork = await other.fork("r", at="before doubling", new_run_id="f", set={"n": 0})
    assert await fork == RESULT
    info = await journal.run("r")
    assert (info.owner, info.epoch, info.status) == (owner, 1, "running")
    flow.hold.set()
    assert await handler == RESULT


async def test_lineage_is_told_both_ways_and_is_not_that_of_children(journal: Journal) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    first, second = (await journal.checkpoints("r"))[1:3]
    await (await flow.fork("r", first, new_run_id="f1"))
    await (await flow.fork("r", second.id, new_run_id="f2"))
    await (await flow.fork("f1", "before doubling", new_run_id="g"))
    assert [(info.run_id, info.forked_from) for info in await journal.forks("r")] == [
        ("f2", second.id),
        ("f1", first.id),
    ]
    assert [info.run_id for info in await journal.forks("f1")] == ["g"]
    assert await journal.forks("g") == []
    assert (await journal.run("r")).forked_from is None
    assert (await journal.state("f1")).parent is None
    assert [info.forked_from for info in await journal.runs()].count(None) == 1


async def test_recorded_calls_are_not_repeated_and_new_ones_have_other_keys(journal: Journal) -> None:
    class Pays(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Pays", **kwargs)
            self.called: list[str] = []
            self.keys: list[str] = []
            self.go_on = asyncio.Event()

        async def charge(self, what: str) -> str:
            self.called.append(what)
            return f"charged {what}"

        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first = await ctx.call("first", self.charge, "first")
            self.keys.append(ctx.idempotency_key("second"))
            await self.go_on.wait()
            return StopEvent(result=[first, await ctx.call("second", self.charge, "second")])

    flow = Pays(journal=journal)
    handler = flow.run(run_id="r")
    await recorded(journal, "r", CallRecorded)
    fork = await flow.fork("r", new_run_id="f")
    flow.go_on.set()
    expected = ["charged first", "charged second"]
    assert (await handler, await fork) == (expected, expected)
    assert sorted(flow.called) == ["first", "second", "second"]
    assert len(set(flow.keys)) == 2


async def test_open_questions_have_the_same_wait_ids_and_both_runs_are_answered(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    asked = await question(handler)
    fork = await flow.fork("r", new_run_id="f")
    inbox = {wait.run_id: (wait.wait_id, wait.prompt.text) for wait in await journal.pending()}
    assert inbox == dict.fromkeys(("r", "f"), (asked.wait_id, "go on?"))
    await journal.send("f", Answer(text="fork"), wait_id=asked.wait_id)
    assert await fork == "fork"
    await handler.send_event(Answer(text="parent"))
    assert await handler == "parent"


async def test_timers_and_deadlines_keep_their_times(journal: Journal) -> None:
    class Sleeps(Workflow):
        @step
        async def sleep(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.sleep(3600)
            return StopEvent()

    flow = Sleeps(journal=journal)
    handler = flow.run(run_id="r")
    await until(lambda: journal.runs(status="waiting"))
    fork = await flow.fork("r", new_run_id="f")
    assert (await journal.run("f")).wake_at == (await journal.run("r")).wake_at
    assert (await journal.run("f")).status == "waiting"
    for run in (handler, fork):
        await released(run)


# -- With something changed --------------------------------------------------------------------------------------------


async def test_values_are_set_and_patched_and_the_edit_is_in_the_journal(journal: Journal) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    patch = [{"op": "add", "path": "/seen/-", "value": "patched"}]
    fork = await flow.fork("r", "before doubling", set={"seen": ["set"], "new": {1, 2}}, patch=patch, new_run_id="f")
    await fork
    state = await journal.state("f")
    # What the step had written before the checkpoint is written, and not repeated; the edit came after it.
    assert state.context == {"n": 4, "seen": ["set", "patched"], "new": {1, 2}, "pair": (2, 4)}
    (edited,) = await records_of(journal, "f", StateEdited)
    assert (edited.by, journal.decode(edited.patch)) == ("fork", patch)
    assert [(c.kind, c.by, c.new) for c in await journal.blame("f", "seen")][:2] == [
        ("imported", None, ["add", "double"]),
        ("edit", "fork", ["set", "patched"]),
    ]


async def test_a_key_is_removed_by_a_patch(memory: Journal) -> None:
    flow = Sums(journal=memory)
    await flow.run(run_id="r")
    fork = await memory.fork("r", "before doubling", patch=[{"op": "remove", "path": "/n"}], new_run_id="f")
    assert (await memory.state(fork.run_id)).context == {"seen": ["add", "double"]}


async def test_an_event_takes_the_place_of_what_the_step_returned(journal: Journal) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    flow.ran.clear()
    doubled = (await journal.checkpoints("r"))[3]
    assert await (await flow.fork("r", doubled, event=Doubled(n=100))) == [100, 4, ["add", "double"]]
    assert flow.ran == ["finish"]
    # Also of another class, and instead of the end.
    assert (await (await flow.fork("r", doubled, event=Added(n=7))))[0] == 14
    assert (await (await flow.fork("r", event=Added(n=8))))[0] == 16
    assert await (await flow.fork("r", doubled, event=StopEvent(result="stop"))) == "stop"


async def test_at_the_start_it_takes_the_place_of_the_start_event(journal: Journal) -> None:
    flow = Sums(journal=journal)
    ctx = Context(flow)
    ctx.data["given"] = "before"
    await flow.run(ctx=ctx, run_id="r")
    start = (await journal.checkpoints("r"))[0]
    fork = await flow.fork("r", start, event=SumStart(n=9), new_run_id="f")
    assert (await fork)[0] == 20
    assert (await journal.state("f")).context["given"] == "before"


async def test_elsewhere_it_is_pending_beside_what_was_pending(journal: Journal) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    flow.ran.clear()
    fork = await flow.fork("r", "before doubling", event=SumStart(n=5))
    await fork
    assert {"add", "double"} <= set(flow.ran)


async def test_drop_pending_leaves_the_context_and_the_event(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)
    fork = await flow.fork("r", event=StartEvent(), drop_pending=True, new_run_id="f")
    await question(fork)
    (wait,) = (await journal.run("f")).waits
    assert wait.wait_id != (await journal.run("r")).waits[0].wait_id
    assert [fact.tasks for fact in await records_of(journal, "f", PendingDropped)] == [0]
    await journal.send("f", Answer(text="new"))
    assert await fork == "new"
    await released(handler)
    done = Sums(journal=journal)
    await done.run(run_id="s")
    done.ran.clear()
    assert await (await done.fork("s", "before doubling", event=Doubled(n=3), drop_pending=True)) == [
        3, 2, ["add", "double"],
    ]  # fmt: skip
    assert done.ran == ["finish"]
    # The output that the event replaces goes, too, and what the step wrote stays.
    assert (await (await done.fork("s", event=Doubled(n=5), drop_pending=True)))[:2] == [5, 4]


async def test_a_returned_event_is_collected_by_the_same_fan_out(journal: Journal) -> None:
    class Part(Event):
        n: int

    class Squared(Event):
        n: int

    class Squares(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Squares", **kwargs)

        @step
        async def split(self, ev: StartEvent) -> list[Part]:
            return [Part(n=n) for n in range(3)]

        @step(num_workers=1)
        async def square(self, ev: Part) -> Squared:
            return Squared(n=ev.n * ev.n)

        @step
        async def gather(self, squares: list[Squared]) -> StopEvent:
            return StopEvent(result=sorted(square.n for square in squares))

    flow = Squares(journal=journal)
    assert await flow.run(run_id="r") == [0, 1, 4]
    squared = [c for c in await journal.checkpoints("r") if c.last_completed_step == "square"]
    for checkpoint in squared:
        fork = await flow.fork("r", checkpoint, event=Squared(n=100))
        assert await fork == sorted([100, *({0, 1, 4} - {checkpoint.output_event.n})])
    split = (await journal.checkpoints("r"))[1]
    # The list is replaced by one event, which is collected by nobody: the result ends the run.
    assert await (await flow.fork("r", split, event=StopEvent(result="none"))) == "none"


async def test_a_question_may_be_replaced_and_an_answer_given(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    asked = await question(handler)
    checkpoint = (await journal.checkpoints("r"))[-1]
    other = await flow.fork("r", checkpoint, event=type(asked)(text="really?"), new_run_id="f")
    assert (await question(other)).text == "really?"
    assert [w.prompt.text for w in (await journal.run("f")).waits] == ["really?"]
    await other.send_event(Answer(text="yes"))
    assert await other == "yes"
    await handler.send_event(Answer(text="no"))
    assert await handler == "no"
    flow.ran.clear()
    # The run was asked; the fork has another answer, and the question is closed.
    at = next(r.seq for r in await journal.history("r") if isinstance(r.fact, StepCompleted))
    again = await flow.fork("r", event=Answer(text="maybe"), at=at, drop_pending=False)
    assert await again == "maybe"
    assert flow.ran == ["answered maybe"]


async def test_a_failed_run_goes_on_in_a_fork_with_what_it_lacked(journal: Journal) -> None:
    class Needs(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Needs", **kwargs)

        @step
        async def use(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=ctx.data["key"])

    flow = Needs(journal=journal)
    with pytest.raises(KeyError):
        await flow.run(run_id="r")
    assert await (await flow.fork("r", set={"key": "given"}, new_run_id="f")) == "given"
    assert [(await journal.run(run_id)).status for run_id in ("r", "f")] == ["failed", "completed"]


# -- Without the workflow ----------------------------------------------------------------------------------------------


async def test_the_journal_forks_without_running_and_anybody_goes_on(new_journal: Callable[..., Journal]) -> None:
    async with new_journal() as journal:
        flow = Sums(journal=journal)
        await flow.run(run_id="r")
        flow.ran.clear()
        info = await journal.fork("r", "before doubling", set={"n": 0}, new_run_id="f")
        checkpoint = (await journal.state("r", "before doubling")).seq
        assert (info.run_id, info.status, info.owner, info.forked_from) == ("f", "running", None, f"r/{checkpoint}")
        assert flow.ran == []
        (handler,) = await flow.recover()
        assert (handler.run_id, await handler) == ("f", RESULT)
        unnamed = await journal.fork("r", "before doubling")
        assert await (await flow.resume(unnamed.run_id)) == RESULT


async def test_the_journal_replaces_an_event_by_one_of_its_class(journal: Journal) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    start, added, *_ = await journal.checkpoints("r")
    await journal.fork("r", added, event=Added(n=50), new_run_id="f")
    assert (await (await flow.resume("f")))[0] == 100
    await journal.fork("r", start, event=SumStart(n=1), new_run_id="g")
    assert await (await flow.resume("g")) == RESULT
    for at in (added, "before doubling"):
        with pytest.raises(StateEditError, match=r"Use flow\.fork"):
            await journal.fork("r", at, event=Doubled(n=1), new_run_id="no")
    with pytest.raises(RunNotFoundError):
        await journal.run("no")


async def test_a_parked_run_is_forked_parked(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    asked = await question(handler)
    await journal.fork("r", new_run_id="f")
    assert (await journal.run("f")).status == "waiting"
    assert {wait.run_id for wait in await journal.pending()} == {"r", "f"}
    await journal.send("f", Answer(text="yes"), wait_id=asked.wait_id)
    (recovered,) = await flow.recover()
    assert await recovered == "yes"
    await released(handler)


# -- Refused without effect --------------------------------------------------------------------------------------------


class Typed(BaseModel):
    count: int = 0
    name: str = "?"


class Counts(Workflow):
    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "Counts", **kwargs})

    @step
    async def count(self, ctx: Context[Typed], ev: StartEvent) -> Packed:
        async with ctx.store.edit_state() as state:
            state.count += 1
        return Packed(item="one")

    @step
    async def end(self, ctx: Context[Typed], ev: Packed) -> StopEvent:
        return StopEvent(result=(await ctx.store.get("count"), await ctx.store.get("name")))


async def test_a_typed_state_is_checked(journal: Journal) -> None:
    flow = Counts(journal=journal)
    assert await flow.run(run_id="r") == (1, "?")
    at = (await journal.checkpoints("r"))[1]
    assert await (await flow.fork("r", at, set={"count": "41", "name": "Ann"})) == (41, "Ann")
    assert await (await flow.fork("r", at, patch=[{"op": "replace", "path": "/count", "value": 5}])) == (5, "?")
    for wrong, said in [({"cuont": 1}, "no field 'cuont'; its fields are count, name"), ({"count": "many"}, "count: ")]:
        with pytest.raises(StateEditError, match=said):
            await flow.fork("r", at, set=wrong, new_run_id="no")
    with pytest.raises(StateEditError, match="no field 'cuont'"):
        await flow.fork("r", at, patch=[{"op": "add", "path": "/cuont", "value": 1}], new_run_id="no")
    with pytest.raises(RunNotFoundError):
        await journal.run("no")


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "within a group": ({"at": 4}, CheckpointError, r"record 4 lies within .* 3 to 6.* the nearest are r/2 and r/6"),
    "in the first group": ({"at": 1}, CheckpointError, r"within the group of records 1 to 2.*the next one is r/2"),
    "beyond the head": ({"at": 99}, CheckpointError, "no record 99: its records are 1 to 14"),
    "of another run": ({"at": "other/2"}, CheckpointError, "a checkpoint of run other, not of run r"),
    "a name nobody gave": ({"at": "there"}, CheckpointError, "no checkpoint named 'there'"),
    "after the end": ({}, CheckpointError, "was completed at r/14: nothing is left"),
    "nothing left": ({"at": 6, "drop_pending": True}, CheckpointError, "pass event="),
    "an id that exists": ({"at": 6, "new_run_id": "other"}, RunConflictError, "there is a run other already"),
    "its own id": ({"at": 6, "new_run_id": "r"}, RunConflictError, "there is a run r already"),
    "a bad id": ({"at": 6, "new_run_id": "a/b"}, RunIdError, "not a run id"),
    "a patch of a missing path": (
        {"at": 6, "patch": [{"op": "replace", "path": "/gone/x", "value": 1}]}, StateEditError, "does not apply",
    ),
    "a patch whose test fails": (
        {"at": 6, "patch": [{"op": "test", "path": "/n", "value": 77}]}, StateEditError, "does not apply",
    ),
    "no patch at all": ({"at": 6, "patch": [{"do": "it"}]}, StateEditError, "does not apply"),
    "a patch of everything": (
        {"at": 6, "patch": [{"op": "replace", "path": "", "value": [1]}]}, StateEditError, "it is an object",
    ),
    "a tag that says nothing": (
        {"at": 6, "patch": [{"op": "add", "path": "/x", "value": {"$tuple": 1}}]}, StateEditError, "cannot be read",
    ),
    "a patch with a tuple": (
        {"at": 6, "patch": [{"op": "add", "path": "/x", "value": [(1, 2)]}]}, StateEditError, "is a tuple",
    ),
    "a patch with a number as key": (
        {"at": 6, "patch": [{"op": "add", "path": "/x", "value": {1: 2}}]}, StateEditError, "the key 1 is no text",
    ),
    "a patch with an object": (
        {"at": 6, "patch": [{"op": "add", "path": "/x", "value": object()}]}, StateEditError, "as JSON has them",
    ),
    "a patch with a number that is too long": (
        {"at": 6, "patch": [{"op": "add", "path": "/x", "value": 10**5000}]}, StateEditError, "as JSON has them",
    ),
    "one operation": (
        {"at": 6, "patch": {"op": "remove", "path": "/n"}}, StateEditError, "takes a list of operations",
    ),
    "an operation that is none": ({"at": 6, "patch": ["remove"]}, StateEditError, "holds 'remove', which is no"),
    "values without keys": ({"at": 6, "set": [1]}, StateEditError, "takes a dict of values by context key, not list"),
    "what cannot be encoded": ({"at": 6, "set": {"n": object()}}, SerializationError, "^n: "),
    "a key that is no text": ({"at": 6, "set": {1: 1}}, SerializationError, "no context key"),
    "a key with a NUL": ({"at": 6, "set": {"a\0": 1}}, SerializationError, "no context key"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
async def test_what_cannot_be_forked_is_refused_without_effect(journal: Journal, why: str) -> None:
    options, error, said = REFUSED[why]
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    await flow.run(run_id="other")
    before = [await journal.history(run_id) for run_id in ("r", "other")]
    for forking in (flow.fork, journal.fork):
        with pytest.raises(error, match=said):
            await forking("r", **options)
    assert [await journal.history(run_id) for run_id in ("r", "other")] == before
    assert len(await journal.runs()) == 2


async def test_other_wrong_forks_are_refused(journal: Journal) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    with pytest.raises(RunNotFoundError):
        await flow.fork("nobody")
    with pytest.raises(RunNotFoundError):
        await journal.fork("nobody")
    with pytest.raises(RunConflictError, match="of workflow Sums"):
        await Asking(journal=journal).fork("r", 6)
    with pytest.raises(SerializationError, match="takes an Event, not dict"):
        await flow.fork("r", 6, event={"n": 1})
    asking = Asking(journal=journal)
    handler = asking.run(run_id="a")
    await question(handler)
    await handler.send_event(Answer(text="yes"))
    await handler
    last = (await journal.checkpoints("a"))[0]
    with pytest.raises(AlreadyAnsweredError):
        await asking.fork("a", last, event=Answer(text="no", wait_id="w99"))
    assert len(await journal.runs()) == 2


async def test_a_cancelled_run_is_forked_from_before_its_end(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    await handler.cancel_run()
    with contextlib.suppress(Exception):
        await handler
    with pytest.raises(CheckpointError, match="was cancelled at"):
        await flow.fork("r")
    flow.hold.set()
    packed = (await journal.checkpoints("r"))[1]
    assert packed.last_completed_step == "pack"
    assert await (await flow.fork("r", packed)) == "shipped 1 lamp"
    assert await (await flow.fork("r", 2, event=Order(item="pen"))) == "shipped 1 pen"


async def test_not_a_number_and_big_numbers_are_compared_and_kept(memory: Journal) -> None:
    class Keeps(Workflow):
        @step
        async def keep(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["nan"], ctx.data["big"], ctx.data["flag"] = math.nan, 10**30, 1
            await ctx.checkpoint("kept")
            ctx.data["flag"] = True
            return StopEvent()

    flow = Keeps(journal=memory)
    await flow.run(run_id="r")
    assert await memory.diff("r", "kept") == [{"op": "replace", "path": "/flag", "value": True}]
    await memory.fork("r", "kept", patch=[{"op": "replace", "path": "/flag", "value": 1.0}], new_run_id="f")
    context = (await memory.state("f")).context
    assert math.isnan(context["nan"])
    assert (context["big"], type(context["flag"])) == (10**30, float)


async def test_a_state_may_be_larger_than_any_of_its_values(new_journal: Callable[..., Journal]) -> None:
    class Heap(Workflow):
        @step
        async def pile(self, ctx: Context, ev: StartEvent) -> Packed:
            ctx.data.update({f"k{n}": "x" * 30_000 for n in range(20)})
            return Packed(item="heap")

        @step
        async def count(self, ctx: Context, ev: Packed) -> StopEvent:
            return StopEvent(result=len(ctx.data))

    async with new_journal(max_payload_bytes=70_000) as journal:
        flow = Heap(journal=journal)
        assert await flow.run(run_id="r") == 20
        piled = (await journal.checkpoints("r"))[1]
        assert await (await flow.fork("r", piled)) == 20
        await journal.fork("r", piled, new_run_id="f")
        assert (await journal.state("f")).context == (await journal.state("r")).context
        assert await (await flow.resume("f")) == 20
        with pytest.raises(PayloadTooLargeError):
            await flow.fork("r", piled, set={"k0": "x" * 70_000})
