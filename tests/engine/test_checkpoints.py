"""Checkpoints of a run: listed, looked at, compared, and who changed a key."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import jsonpatch
import pytest

from durable_flow import (
    Checkpoint,
    CheckpointError,
    Context,
    Event,
    Journal,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.journal.times import at_moment
from durable_flow.records import WaitOpened
from durable_flow.serializers.pickle import PickleSerializer

from .flows import Answer, Asking, question, recorded, released


class SumStart(StartEvent):
    n: int = 1


class Added(Event):
    n: int


class Doubled(Event):
    n: int


class Sums(Workflow):
    """Adds, doubles and names a place; `hold` keeps the last step until it is set."""

    def __init__(self, *, hold: asyncio.Event | None = None, **kwargs: object):
        super().__init__(**{"workflow_name": "Sums", **kwargs})  # type: ignore[arg-type]
        self.hold = hold
        self.ran: list[str] = []

    @step
    async def add(self, ctx: Context, ev: SumStart) -> Added:
        self.ran.append("add")
        ctx.data["n"] = ev.n + 1
        ctx.data["seen"] = ["add"]
        return Added(n=ev.n + 1)

    @step
    async def double(self, ctx: Context, ev: Added) -> Doubled:
        self.ran.append("double")
        ctx.data["seen"].append("double")
        await ctx.checkpoint("before doubling")
        ctx.data["n"] = 2 * ev.n
        ctx.data["pair"] = (ev.n, ctx.data["n"])
        return Doubled(n=2 * ev.n)

    @step
    async def finish(self, ctx: Context, ev: Doubled) -> StopEvent:
        self.ran.append("finish")
        if self.hold is not None:
            await self.hold.wait()
        return StopEvent(result=[ev.n, ctx.data["n"], ctx.data["seen"]])


@pytest.fixture
async def sums(journal: Journal) -> list[Checkpoint]:
    """The checkpoints of a run "r" of Sums that has completed."""
    assert await Sums(journal=journal).run(run_id="r") == [4, 4, ["add", "double"]]
    return await journal.checkpoints("r")


# -- Listing -----------------------------------------------------------------------------------------------------------


async def test_one_is_listed_for_the_start_each_step_named_places_and_the_end(sums: list[Checkpoint]) -> None:
    assert [(c.kind, c.name, c.last_completed_step) for c in sums] == [
        ("start", None, None),
        ("step", None, "add"),
        ("named", "before doubling", None),
        ("step", None, "double"),
        ("end", None, "finish"),
    ]
    assert [c.input_event for c in sums] == [None, SumStart(), Added(n=2), Added(n=2), Doubled(n=4)]
    assert [c.output_event for c in sums] == [
        SumStart(), Added(n=2), None, Doubled(n=4), StopEvent(result=[4, 4, ["add", "double"]]),
    ]  # fmt: skip
    assert [c.keys_changed for c in sums] == [(), ("n", "seen"), ("seen",), ("n", "pair"), ()]


async def test_ids_are_run_and_seq_of_a_boundary_and_times_are_those_of_the_journal(
    journal: Journal, sums: list[Checkpoint]
) -> None:
    records = {record.seq: record for record in await journal.history("r")}
    assert [c.id for c in sums] == [f"r/{c.seq}" for c in sums]
    assert all(records[c.seq].boundary for c in sums)
    assert [c.at for c in sums] == sorted(c.at for c in sums)
    assert sums[-1].seq == max(records)


async def test_a_wait_is_a_checkpoint_and_so_is_a_question_that_a_step_returned(journal: Journal) -> None:
    class Waiting(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer)
            return StopEvent(result=answer.text)

    handler = Waiting(journal=journal).run(run_id="w")
    await recorded(journal, "w", WaitOpened)
    wait = (await journal.checkpoints("w"))[-1]
    assert (wait.kind, wait.last_completed_step, type(wait.input_event)) == ("wait", None, StartEvent)
    await handler.send_event(Answer(text="yes"))
    await handler
    asking = Asking(journal=journal).run(run_id="a")
    await question(asking)
    returned = (await journal.checkpoints("a"))[-1]
    assert (returned.kind, returned.last_completed_step) == ("step", "ask")
    assert returned.output_event.text == "go on?"
    await released(asking)


async def test_they_come_as_a_stream_from_any_place_and_in_part(journal: Journal, sums: list[Checkpoint]) -> None:
    assert [c async for c in journal.checkpoints("r")] == sums
    assert await journal.checkpoints("r", limit=2) == sums[:2]
    assert await journal.checkpoints("r", after=sums[1].seq) == sums[2:]
    assert await journal.checkpoints("r", after=sums[1].seq, limit=1) == [sums[2]]
    assert await journal.checkpoints("r", after=sums[-1].seq) == []
    listing = journal.checkpoints("r")
    assert (await listing, await listing) == (sums, sums)


async def test_a_failed_run_ends_in_a_checkpoint_without_output(journal: Journal) -> None:
    class Fails(Workflow):
        @step
        async def fail(self, ev: StartEvent) -> StopEvent:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Fails(journal=journal).run(run_id="f")
    assert [(c.kind, c.last_completed_step, c.output_events) for c in await journal.checkpoints("f")][1:] == [
        ("end", None, ())
    ]


async def test_an_unknown_run_has_no_checkpoints(journal: Journal) -> None:
    with pytest.raises(RunNotFoundError):
        await journal.checkpoints("nobody")
    with pytest.raises(RunNotFoundError):
        await journal.blame("nobody", "n")
    with pytest.raises(RunNotFoundError):
        await journal.forks("nobody")


# -- Looking -----------------------------------------------------------------------------------------------------------


async def test_state_takes_a_seq_an_id_a_checkpoint_a_name_and_a_time(journal: Journal, sums: list[Checkpoint]) -> None:
    named = sums[2]
    expected = {"n": 2, "seen": ["add", "double"]}
    for at in (named.seq, named.id, named, "before doubling"):
        state = await journal.state("r", at)
        assert (state.seq, state.context) == (named.seq, expected)
    # Several groups may have one time; the last of them counts.
    last = (await journal.state("r", named.at)).seq
    assert last == max(r.seq for r in await journal.history("r") if at_moment(r.at) == named.at)
    assert (await journal.state("r", named.at - timedelta(microseconds=1))).seq < named.seq
    assert (await journal.state("r", datetime.now(UTC) + timedelta(days=1))).seq == sums[-1].seq


async def test_within_a_group_the_checkpoint_before_is_shown(journal: Journal, sums: list[Checkpoint]) -> None:
    assert (await journal.state("r", sums[1].seq - 1)).seq == sums[0].seq


async def test_what_leads_to_no_checkpoint_is_told(journal: Journal, sums: list[Checkpoint]) -> None:
    await Sums(journal=journal).run(run_id="other")
    stranger = (await journal.checkpoints("other"))[1]
    head = sums[-1].seq
    wrong = [
        (stranger, "of run other, not of run r"),
        (stranger.id, "of run other, not of run r"),
        ("nowhere", r"no checkpoint named 'nowhere'; its named ones: 'before doubling'"),
        (head + 1, f"its records are 1 to {head}, and its last checkpoint is r/{head}"),
        (f"r/{head + 1}", f"its records are 1 to {head}"),
        (0, "has no record 0"),
        (-1, "has no record -1"),
        (True, "names no checkpoint"),
        (datetime(2020, 1, 1), "has no time zone"),
        (datetime(2020, 1, 1, tzinfo=UTC), "began after"),
        (1, "the first one comes later"),
    ]
    for at, said in wrong:
        with pytest.raises(CheckpointError, match=said):
            await journal.state("r", at)
        with pytest.raises(ValueError, match=said):
            await journal.diff("r", at)


async def test_a_name_may_look_like_the_id_of_a_checkpoint(journal: Journal) -> None:
    class Named(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for page in range(3):
                ctx.data["page"] = page
                await ctx.checkpoint(f"page/{page}")
            ctx.data["page"] = None
            return StopEvent()

    await Named(journal=journal).run(run_id="n")
    assert (await journal.state("n", "page/1")).context == {"page": 1}
    with pytest.raises(CheckpointError, match="of run page, not of run n"):
        await journal.state("n", "page/7")


async def test_a_name_that_was_given_twice_leads_to_the_last(journal: Journal) -> None:
    class Twice(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(2):
                ctx.data["n"] = n
                await ctx.checkpoint("here")
            return StopEvent()

    await Twice(journal=journal).run(run_id="t")
    assert (await journal.state("t", "here")).context == {"n": 1}


# -- Comparing ---------------------------------------------------------------------------------------------------------


async def test_a_diff_is_a_json_patch_that_leads_from_one_context_to_the_other(
    journal: Journal, sums: list[Checkpoint]
) -> None:
    patch = await journal.diff("r", sums[1], "before doubling")
    assert patch == [{"op": "add", "path": "/seen/1", "value": "double"}]
    whole = await journal.diff("r", sums[0], None)
    # What is beyond JSON is shown as it is stored.
    assert jsonpatch.apply_patch({}, whole) == {"n": 4, "seen": ["add", "double"], "pair": {"$tuple": [2, 4]}}
    back = await journal.diff("r", None, sums[1])
    assert {operation["path"] for operation in back} == {"/n", "/pair", "/seen/1"}
    assert await journal.diff("r", sums[1], sums[1]) == []


async def test_values_of_other_codecs_are_opaque_and_never_unpickled(memory: Journal) -> None:
    flow = Sums(journal=memory, serializer=PickleSerializer(key=b"k" * 32))
    await flow.run(run_id="p")
    patch = await memory.diff("p", 2)
    assert {operation["path"] for operation in patch} == {"/n", "/seen", "/pair"}
    assert all(operation["value"]["$encoded"]["codec"] == "pickle" for operation in patch)


# -- Blame -------------------------------------------------------------------------------------------------------------


async def test_blame_tells_which_steps_changed_a_key_and_what_it_was(journal: Journal, sums: list[Checkpoint]) -> None:
    changes = await journal.blame("r", "n")
    assert [(c.kind, c.step, c.attempt, c.existed, c.old, c.exists, c.new) for c in changes] == [
        ("step", "add", 1, False, None, True, 2),
        ("step", "double", 1, True, 2, True, 4),
    ]
    records = {record.seq: record for record in await journal.history("r")}
    assert [records[c.seq].fact.key for c in changes] == ["n", "n"]
    assert [c.new async for c in journal.blame("r", "seen")] == [["add"], ["add", "double"]]
    assert await journal.blame("r", "nothing") == []


async def test_blame_tells_deletions_and_writes_from_outside(journal: Journal) -> None:
    class Deletes(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            del ctx.data["given"]
            return StopEvent()

    flow = Deletes(journal=journal)
    ctx = Context(flow)
    ctx.data["given"] = 7
    await flow.run(ctx=ctx, run_id="d")
    assert [(c.kind, c.step, c.old, c.exists, c.new) for c in await journal.blame("d", "given")] == [
        ("outside", None, None, True, 7),
        ("step", "only", 7, False, None),
    ]
