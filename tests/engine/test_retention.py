"""Compacting and pruning: what is gone is refused, and all else goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from durable_flow import (
    AlreadyAnsweredError,
    ArchiveError,
    CheckpointError,
    Context,
    ContextStateError,
    EncryptedSeal,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    NeedsAttentionError,
    RunConflictError,
    RunFailedError,
    RunFinishedError,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowCheckpointer,
    WorkflowHandler,
    step,
)
from durable_flow.cli import main
from durable_flow.journal import retention
from durable_flow.journal.folding import new_snapshot, state_at
from durable_flow.journal.tables import metadata
from durable_flow.records import CheckpointNamed, ChildStarted, JournalCompacted, StepCompleted
from durable_flow.snapshot import encode_state

from .flows import Shop, in_another_loop, recorded, released, streamed, until
from .jokes import Jokes, JokeTold
from .tampering import Tables

LAPS = 6


class Lap(Event):
    n: int


class LapAsked(InputRequiredEvent):
    n: int


class LapAnswered(HumanResponseEvent):
    text: str


class Laps(Workflow):
    """Counts, publishes and names a place each lap, then asks, and returns the answer."""

    def __init__(self, *, fail: Exception | None = None, **kwargs: Any):
        super().__init__(**{"workflow_name": "Laps", "timeout": None, **kwargs})
        self.fail = fail
        self.called: list[int] = []

    @step
    async def lap(self, ctx: Context, ev: StartEvent | Lap) -> Lap | LapAsked:
        n = ev.n if isinstance(ev, Lap) else 0
        ctx.data["seen"] = [*ctx.data.get("seen", []), n]
        ctx.data["pair"] = (n, 2 * n)
        await ctx.call("count", self.count, n)
        ctx.write_event_to_stream(Event(lap=n))
        await ctx.checkpoint(f"lap {n}")
        return LapAsked(n=n) if n == LAPS else Lap(n=n + 1)

    async def count(self, n: int) -> int:
        self.called.append(n)
        return n

    @step
    async def end(self, ctx: Context, ev: LapAnswered) -> StopEvent:
        if self.fail is not None:
            raise self.fail
        return StopEvent(result=[ev.text, ctx.data["seen"]])


RESULT = ["far", list(range(LAPS + 1))]


async def question(handler: WorkflowHandler) -> LapAsked:
    """Return the next question on the stream."""
    async with contextlib.aclosing(handler.stream_events()) as events:
        async for event in events:
            if isinstance(event, LapAsked):
                return event
    raise AssertionError("the run ended without a question")


async def asked(journal: Journal, run_id: str = "r") -> Laps:
    """A run that has asked and that no process has any more."""
    flow = Laps(journal=journal)
    handler = flow.run(run_id=run_id)
    await question(handler)
    await released(handler)
    await until(lambda: is_free(journal, run_id))
    return flow


async def is_free(journal: Journal, run_id: str) -> bool:
    return (await journal.run(run_id)).owner is None


async def ended(journal: Journal, run_id: str = "r") -> Laps:
    flow = await asked(journal, run_id)
    await journal.send(run_id, LapAnswered(text="far"), message_id="letter")
    assert await (await flow.resume(run_id)) == RESULT
    return flow


async def key_of(journal: Journal, run_id: str = "r") -> int:
    row = await journal._shared.store.find(run_id)
    assert row is not None
    return row.run


async def folds(journal: Journal, run_id: str, at: list[int]) -> list[bytes]:
    run = await key_of(journal, run_id)
    return [encode_state(await state_at(journal._shared.store, run, seq)).data for seq in at]


# -- Compacting: what stays --------------------------------------------------------------------------------------------


async def test_every_later_checkpoint_is_what_it_was(journal: Journal) -> None:
    await ended(journal)
    before = await journal.checkpoints("r")
    cut = next(c for c in before if c.name == "lap 3")
    later = [c for c in before if c.seq >= cut.seq]
    states = await folds(journal, "r", [c.seq for c in later])
    shown = [await journal.state("r", c) for c in later]
    changes = await journal.diff("r", cut, "lap 5")

    made = await journal.compact("r", before="lap 3")
    assert (made.run_id, made.first, made.records) == ("r", cut.id, cut.seq - 1)
    assert await folds(journal, "r", [c.seq for c in later]) == states
    assert [await journal.state("r", c) for c in later] == shown
    assert await journal.diff("r", cut.id, "lap 5") == changes
    first, *rest = await journal.checkpoints("r")
    assert (first.id, first.kind, first.at, first.output_events) == (cut.id, "compacted", cut.at, ())
    assert rest == later[1:]
    run = await journal.run("r")
    assert (run.seq, run.first_seq, run.status) == (before[-1].seq, cut.seq, "completed")
    assert run.compacted_at is not None
    assert run.pruned_at is None
    assert await Laps(journal=journal).run(run_id="r") == RESULT


async def test_the_newest_checkpoint_is_the_default_and_a_second_time_does_nothing(journal: Journal) -> None:
    await asked(journal)
    head = (await journal.run("r")).seq
    assert (await journal.compact("r")).records == head - 1
    assert [type(r.fact) for r in await journal.history("r")] == [JournalCompacted]
    again = await journal.compact("r")
    assert (again.first, again.records) == (f"r/{head}", 0)
    await journal.send("r", LapAnswered(text="far"))
    assert await (await Laps(journal=journal).resume("r")) == RESULT


async def test_it_may_be_compacted_step_by_step(journal: Journal) -> None:
    await asked(journal)
    gone = [(await journal.compact("r", before=f"lap {n}")).records for n in range(1, LAPS + 1)]
    assert all(gone)
    assert (await journal.state("r")).context["seen"] == RESULT[1]
    # Back is no way.
    with pytest.raises(CheckpointError, match=r"'lap 2' leads to r/.* is gone"):
        await journal.compact("r", before="lap 2")


@pytest.mark.parametrize("boundary", ["lap 2", "lap 6", None])
async def test_a_run_goes_on_with_its_open_question_its_messages_and_its_stream(
    journal: Journal, boundary: str | None
) -> None:
    flow = await asked(journal)
    [wait] = await journal.pending()
    items = [item.position async for item in _so_far(journal)]
    await journal.compact("r", before=boundary)
    [still] = await journal.pending()
    assert still.wait_id == wait.wait_id
    assert await journal.send("r", LapAnswered(text="far"), message_id="letter")
    assert not await journal.send("r", LapAnswered(text="far"), message_id="letter")
    with pytest.raises(AlreadyAnsweredError):
        await journal.send("r", LapAnswered(text="near"), wait_id=wait.wait_id)
    handler = await flow.resume("r")
    assert await handler == RESULT
    assert flow.called == list(range(LAPS + 1))
    await journal.compact("r")
    assert not await journal.send("r", LapAnswered(text="far"), message_id="letter")
    found = [item.position async for item in journal.stream("r")]
    assert found[: len(items)] == items
    assert found == list(range(1, len(found) + 1))
    assert [item.position async for item in journal.stream("r", after=3)] == found[3:]


async def _so_far(journal: Journal) -> Any:
    for item in await journal._shared.store.stream(await key_of(journal)):
        yield item


class Steady(Workflow):
    """Waits in the middle of a step that has made a call and a write which another step has built on."""

    def __init__(self, hold: asyncio.Event, **kwargs: Any):
        super().__init__(**{"workflow_name": "Steady", "timeout": None, **kwargs})
        self.hold, self.reached = hold, asyncio.Event()
        self.called = 0

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> Lap | StopEvent:
        n = await ctx.store.get("n", default=0)
        await ctx.store.set("n", n + 1)
        key = await ctx.call("charge", self.charge)
        ctx.send_event(Lap(n=n))
        await ctx.checkpoint("charged")
        self.reached.set()
        await self.hold.wait()
        return StopEvent(result=[n, key, await ctx.store.get("n"), await ctx.store.get("other", default=None)])

    @step
    async def build(self, ctx: Context, ev: Lap) -> None:
        await ctx.store.set("other", await ctx.store.get("n"))

    async def charge(self) -> int:
        self.called += 1
        return self.called


async def test_a_live_run_goes_on_while_it_is_compacted(journal: Journal) -> None:
    hold = asyncio.Event()
    flow = Steady(hold, journal=journal)
    handler = flow.run(run_id="r")
    await flow.reached.wait()
    await recorded(journal, "r", StepCompleted)
    assert (await journal.compact("r")).records
    hold.set()
    assert await handler == [0, 1, 1, 1]
    assert isinstance((await journal.history("r"))[0].fact, JournalCompacted)


async def test_a_step_under_way_meets_its_compacted_records_again(file: Journal) -> None:
    """Of an attempt that another process had: call, write with the value before it, event sent."""

    async def first() -> None:
        async with Journal(file.settings.url) as journal:
            flow = Steady(asyncio.Event(), journal=journal)
            handler = flow.run(run_id="r")
            await flow.reached.wait()
            await recorded(journal, "r", StepCompleted)
            await released(handler)

    await in_another_loop(first)
    await until(lambda: is_free(file, "r"))
    await file.compact("r")
    hold = asyncio.Event()
    hold.set()
    flow = Steady(hold, journal=file)
    assert await (await flow.resume("r")) == [0, 1, 1, 1]
    assert flow.called == 0


async def test_a_known_run_id_still_means_the_same_run(journal: Journal) -> None:
    context = Context(Shop(journal=journal))
    await context.store.set("town", "Rome")
    assert await Shop(journal=journal).run(run_id="r", ctx=context, item="lamp") == "shipped 1 lamp"
    await journal.compact("r")
    again = Context(Shop(journal=journal))
    await again.store.set("town", "Oslo")  # what it began with is not known any more
    assert await Shop(journal=journal).run(run_id="r", ctx=again, item="lamp") == "shipped 1 lamp"
    with pytest.raises(RunConflictError, match="other arguments"):
        await Shop(journal=journal).run(run_id="r", item="chair")


async def test_a_failed_run_is_retried_and_edited_after_it(journal: Journal) -> None:
    flow = Shop(journal=journal, fail=ValueError("no ship"))
    with pytest.raises(ValueError, match="no ship"):
        await flow.run(run_id="r", item="lamp")
    await journal.compact("r")
    await journal.edit("r", set={"town": "Rome"})
    await journal.compact("r")
    shop = Shop(journal=journal)
    assert await (await shop.retry("r")) == "shipped 1 lamp"
    assert shop.ran == ["ship"]
    assert (await journal.state("r")).context["town"] == "Rome"


async def test_claims_in_vain_count_on(file: Journal) -> None:
    """What ends its processes is parked, though the records of its claims are gone."""
    flow = await asked(file)
    store = file._shared.store
    for n in range(7):
        row = await store.find("r")
        assert row is not None
        claim = await store.claim(row.run, _gone(n), epoch=row.epoch, status=row.status)
        assert claim is not None
        await file.compact("r")
    with pytest.raises(NeedsAttentionError, match=r"was taken up . times"):
        await (await flow.resume("r"))


def _gone(n: int) -> Any:
    from durable_flow.journal.protocol import WorkerId

    return WorkerId(f"gone-{n}", "", "", "", 0, 0)


# -- Compacting: what is gone ------------------------------------------------------------------------------------------


async def test_what_is_before_is_refused_with_the_nearest_that_is_left(journal: Journal) -> None:
    flow = await ended(journal)
    checkpoints = await journal.checkpoints("r")
    early, cut = checkpoints[1], next(c for c in checkpoints if c.name == "lap 3")
    await journal.compact("r", before=cut)
    refusals: list[Callable[[], Any]] = [
        lambda: journal.state("r", early.seq),
        lambda: journal.state("r", early),
        lambda: journal.state("r", early.id),
        lambda: journal.state("r", "lap 1"),
        lambda: journal.state("r", early.at),
        lambda: journal.diff("r", early, cut),
        lambda: journal.diff("r", cut, 1),
        lambda: journal.fork("r", early),
        lambda: flow.fork("r", early),
        lambda: flow.fork("r", "lap 1", event=Lap(n=4)),
        lambda: journal.checkpoints("r", after=early.seq),
        lambda: state_at(journal._shared.store, key, early.seq),
    ]
    key = await key_of(journal)
    for refused in refusals:
        with pytest.raises(CheckpointError, match="gone") as error:
            await refused()
        said = str(error.value)
        assert said.startswith("run r: ")
        assert f"before {cut.id} was compacted at 20" in said
        assert "nearest" in said
    for seq in (0, -1, checkpoints[-1].seq + 1):
        with pytest.raises(CheckpointError, match="has no record"):
            await journal.state("r", seq)


async def test_records_that_a_reader_has_not_seen_are_not_passed_over(journal: Journal) -> None:
    await ended(journal)
    await journal.compact("r", before="lap 3")
    first = (await journal.run("r")).first_seq
    kept = await journal.history("r")
    assert [r.seq for r in kept] == list(range(first, (await journal.run("r")).seq + 1))
    assert await journal.history("r", after=first) == kept[1:]
    assert [r async for r in journal.follow("r")] == kept
    assert [r async for r in journal.follow("r", after=first)] == kept[1:]
    for after in (1, first - 1):
        with pytest.raises(CheckpointError, match=f"records after {after} .*before r/{first} was compacted"):
            await journal.history("r", after=after)
        with pytest.raises(CheckpointError, match=f"after={first} behind it"):
            _ = [r async for r in journal.follow("r", after=after)]


async def test_who_changed_a_key_before_is_not_known_any_more(journal: Journal) -> None:
    await ended(journal)
    cut = (await journal.compact("r", before="lap 3")).first
    first, *rest = await journal.blame("r", "seen")
    assert (first.kind, first.existed, first.new, f"r/{first.seq}") == ("compacted", False, [0, 1, 2, 3], cut)
    assert [(change.kind, change.step) for change in rest] == [("step", "lap")] * (LAPS - 3)
    assert rest[0].old == [0, 1, 2, 3]


async def test_a_fork_begins_at_the_cut_but_no_event_takes_the_place_of_one_that_is_not_known(
    journal: Journal,
) -> None:
    flow = await asked(journal)
    await journal.compact("r", before=next(c for c in await journal.checkpoints("r") if c.kind == "step"))
    first = f"r/{(await journal.run('r')).first_seq}"
    fork = await flow.fork("r", first, new_run_id="f")
    await question(fork)
    assert (await journal.state("f")).context["seen"] == RESULT[1]
    with pytest.raises(CheckpointError, match="drop_pending"):
        await flow.fork("r", first, event=Lap(n=5))
    other = await flow.fork("r", first, event=Lap(n=5), drop_pending=True, new_run_id="g")
    await question(other)
    assert (await journal.state("g")).context["seen"] == [0, 5, 6]
    assert sorted(fork.run_id for fork in await journal.forks("r")) == ["f", "g"]


async def test_a_replay_begins_where_the_journal_does(journal: Journal) -> None:
    flow = await ended(journal)
    whole = await flow.replay("r")
    await journal.compact("r", before="lap 3")
    report = await flow.replay("r")
    assert (report.first, report.diverged) == ((await journal.run("r")).first_seq, 0)
    assert whole.diverged == 0
    assert 0 < report.equal < whole.equal
    with pytest.raises(CheckpointError, match="gone"):
        await flow.replay("r", to="lap 1")


@pytest.mark.parametrize("how", ["compacted", "at the cut", "pruned", "dropped"])
async def test_a_checkpoint_that_carries_its_state_is_gone_on_from_all_the_same(journal: Journal, how: str) -> None:
    """`WorkflowCheckpointer` keeps the state beside the journal, so what the journal has forgotten does not matter."""
    ckptr = WorkflowCheckpointer(Jokes(journal=journal))
    handler = ckptr.run(topic="ships")
    expected = await handler
    first = ckptr.checkpoints[handler.run_id][0]
    if how == "compacted":
        await journal.compact(handler.run_id)
    elif how == "at the cut":
        await journal.compact(handler.run_id, before=first.seq)
    else:
        await journal.prune(NOW, keep_results=how == "pruned")
    assert await ckptr.run_from(first) == expected
    first.output_event = JokeTold(joke="another")
    assert await ckptr.run_from(first) == ["another", *expected[1:]]
    first.ctx_state = None
    with pytest.raises(CheckpointError):
        await ckptr.run_from(first)


# -- Compacting: what others see meanwhile -----------------------------------------------------------------------------


async def test_what_a_kill_has_left_is_seen_by_nobody_and_deleted_by_the_next(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(journal)
    await ended(journal, "other")
    states = await folds(journal, "r", [(await journal.run("r")).seq])

    async def killed(store: Any) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(retention, "purge", killed)
        made = await journal.compact("r", before="lap 3")
    first = int(made.first.partition("/")[2])
    assert (await journal.history("r"))[0].seq == first
    assert (await journal.checkpoints("r"))[0].id == made.first
    with pytest.raises(CheckpointError, match="gone"):
        await journal.state("r", 1)
    assert await folds(journal, "r", [(await journal.run("r")).seq]) == states
    if not journal.settings.url.startswith("memory"):
        assert len(await Tables(journal).rows("journal", f"run = {await key_of(journal)} AND seq < {first}"))
        await journal.compact("other")
        assert await Tables(journal).rows("journal", f"run = {await key_of(journal)} AND seq < {first}") == []
        assert await Tables(journal).rows("purges") == await Tables(journal).rows("maintenance") == []


async def test_it_is_deleted_in_small_parts(file: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    await ended(file)
    monkeypatch.setattr(retention, "BATCH", 7)
    before = file.stats()["commits"]
    gone = (await file.compact("r")).records
    # The record itself, the parts, and the note that nothing is left.
    assert file.stats()["commits"] - before == 1 + -(-gone // 7) + 1
    assert len(await Tables(file).rows("journal")) == 1


async def test_of_two_at_once_the_later_checkpoint_stands(journal: Journal) -> None:
    await ended(journal)
    made = await asyncio.gather(
        *(journal.compact("r", before=f"lap {n}") for n in (4, 2, 5, 3)), return_exceptions=True
    )
    assert not [error for error in made if isinstance(error, Exception) and not isinstance(error, CheckpointError)]
    five = (await journal.state("r", at="lap 5")).checkpoints["lap 5"]
    assert (await journal.run("r")).first_seq >= five
    assert await Laps(journal=journal).run(run_id="r") == RESULT


async def test_a_state_that_is_read_while_its_records_go_is_refused_or_right(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records are read in pages; compaction strikes between two of them."""
    from durable_flow.journal import folding

    await ended(journal)
    run, head = await key_of(journal), (await journal.run("r")).seq
    [early] = [c.seq for c in await journal.checkpoints("r") if c.name == "lap 2"]
    whole = (await folds(journal, "r", [head]))[0]
    monkeypatch.setattr(folding, "PAGE", 5)
    store = journal._shared.store
    read, pages = store.read, 0

    async def reads(*args: Any, **kwargs: Any) -> Any:
        nonlocal pages
        found = await read(*args, **kwargs)
        pages += 1
        if pages == 1:
            await journal.compact("r", before="lap 4")
        return found

    monkeypatch.setattr(store, "read", reads)
    with pytest.raises(CheckpointError, match="gone"):
        await state_at(store, run, early)
    monkeypatch.undo()
    assert (await folds(journal, "r", [head]))[0] == whole


@pytest.mark.parametrize("then", ["compact", "prune", "forget"])
@pytest.mark.parametrize("by", ["flow", "journal", "run_from", "state", "diff", "replay"])
async def test_what_looks_at_records_while_they_go_is_refused_or_right(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, by: str, then: str
) -> None:
    """Compaction, or pruning, strikes between any two of the reads."""

    async def strike(run_id: str) -> None:
        if then == "compact":
            await journal.compact(run_id)
        else:
            await journal.prune(timedelta(0), keep_results=then == "prune")

    store = journal._shared.store
    read, find = store.read, store.find
    refused = went = wrong = 0
    for n in range(30):
        flow, run_id, count = await ended(journal, f"r{n}"), f"r{n}", 0
        [at] = [c for c in await journal.checkpoints(run_id) if c.name == "lap 2"]
        lap = next(c for c in await journal.checkpoints(run_id) if c.seq > at.seq and c.last_completed_step == "lap")

        async def struck(call: Any, run_id: str, n: int, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == n + 1:
                await strike(run_id)
            return await call(*args, **kwargs)

        with monkeypatch.context() as patched:
            for name, call in (("read", read), ("find", find)):
                patched.setattr(store, name, partial(struck, call, run_id, n))
            try:
                match by:
                    case "flow":
                        await (await flow.fork(run_id, lap, event=Lap(n=9))).cancel_run()
                    case "journal":
                        await journal.fork(run_id, lap, event=Lap(n=9))
                    case "run_from":
                        handler = flow.run_from(lap)
                        await handler.cancel_run()
                        with pytest.raises(WorkflowCancelledByUser):
                            await handler
                    case "state":
                        assert (await journal.state(run_id, at="lap 2")).seq == at.seq
                    case "diff":
                        await journal.diff(run_id, at, lap)
                    case "replay":
                        assert (await flow.replay(run_id)).ok
                went += 1
            except (CheckpointError, RunNotFoundError) as error:
                refused += "lies within" not in str(error)
                wrong += "lies within" in str(error)
        if count <= n:
            break
    assert went
    assert not wrong
    assert refused or (by, then) == ("replay", "compact")  # it reads what follows the cut


@pytest.mark.parametrize("then", ["compacted", "pruned"])
async def test_an_export_under_way_says_why_it_ended(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The records are read in pages; somebody strikes between two of them."""
    from durable_flow.journal import archives

    await ended(journal)
    monkeypatch.setattr(archives, "_PAGE", 5)
    store = journal._shared.store
    read, pages = store.read, 0

    async def reads(*args: Any, **kwargs: Any) -> Any:
        nonlocal pages
        found = await read(*args, **kwargs)
        pages += 1
        if pages == 1:
            await (journal.compact("r") if then == "compacted" else journal.prune(NOW))
        return found

    monkeypatch.setattr(store, "read", reads)
    file = io.BytesIO()
    with pytest.raises(ArchiveError, match=f"run r: record 6 .*was {then} meanwhile. Nothing was exported"):
        await journal.export("r", file)
    assert not file.getvalue()


@pytest.mark.parametrize("then", ["compacted", "dropped"])
async def test_a_snapshot_whose_records_are_compacted_meanwhile_is_passed_over_in_silence(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, then: str
) -> None:
    await ended(journal)
    store, run = journal._shared.store, await key_of(journal)
    head = (await journal.run("r")).seq
    [expected] = await folds(journal, "r", [head])
    early = (await journal.checkpoints("r"))[-2].seq
    await store.save_snapshot(run, new_snapshot(await state_at(store, run, early), "r", 1), early)
    snapshot = store.snapshot

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        found = await snapshot(*args, **kwargs)
        monkeypatch.undo()
        if then == "compacted":
            await journal.compact("r")
        else:
            await journal.prune(NOW, keep_results=False)
        return found

    monkeypatch.setattr(store, "snapshot", slowly)
    state = await state_at(store, run)
    if then == "compacted":
        assert encode_state(state).data == expected
    else:
        assert state.seq == 0
    assert "does not fit" not in caplog.text


async def test_a_follower_that_has_not_come_so_far_is_told(journal: Journal) -> None:
    await asked(journal)
    following = journal.follow("r")
    seen = [await anext(following) for _ in range(3)]
    assert [r.seq for r in seen] == [1, 2, 3]
    # What it has read already, it yields; then it asks for more.
    await following.aclose()
    await journal.compact("r")
    with pytest.raises(CheckpointError, match="after 3 "):
        await anext(journal.follow("r", after=3))


# -- Compacting: runs within runs, archives, seals ---------------------------------------------------------------------


class Lane(Workflow):
    @step
    async def go(self, ctx: Context, ev: StartEvent) -> LapAsked:
        return LapAsked(n=1)

    @step
    async def end(self, ev: LapAnswered) -> StopEvent:
        return StopEvent(result=ev.text)


async def children_of(journal: Journal, run_id: str) -> list[str]:
    return [r.fact.run_id for r in await journal.history(run_id) if isinstance(r.fact, ChildStarted)]


async def test_parents_and_children_go_on_after_both_were_compacted(new_journal: Callable[..., Journal]) -> None:
    async with new_journal() as journal:
        flow = parent(journal)
        handler = flow.run(run_id="p")
        await recorded(journal, "p", ChildStarted)
        [child] = await children_of(journal, "p")
        await until(lambda: asks(journal, child))
        for run_id in ("p", child):
            await journal.compact(run_id)
        await journal.send(child, LapAnswered(text="one"))
        await recorded(journal, "p", ChildStarted)  # the second one; the first start was compacted
        [second] = await children_of(journal, "p")
        await until(lambda: asks(journal, second))
        for run_id in ("p", child, second):
            await journal.compact(run_id)
        await released(handler)
        await journal.send(second, LapAnswered(text="two"))
        assert await (await parent(journal).resume("p")) == ["one", "two"]


async def asks(journal: Journal, run_id: str) -> bool:
    return any(wait.run_id == run_id for wait in await journal.pending())


class _Parent(Workflow):
    def __init__(self, lane: Callable[[], Workflow], **kwargs: Any):
        super().__init__(**{"timeout": None, "workflow_name": "Lanes", **kwargs})
        self.lane = lane

    @step
    async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=[await self.lane().run() for _ in range(2)])


class _FailingParent(_Parent):
    @step
    async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await self.lane().run(item="lamp")
        raise ValueError("after it")


def parent(journal: Journal) -> Workflow:
    return _Parent(lambda: Lane(journal=journal, timeout=None), journal=journal)


async def test_a_compacted_run_moves_with_all_that_it_has(journal: Journal, memory: Journal) -> None:
    await asked(journal)
    await journal.send("r", LapAnswered(text="far"), message_id="letter")
    for source, target in ((journal, memory), (memory, journal)):
        if source is memory and journal.settings.url.startswith("memory"):
            break
        run_id = "r" if source is journal else "r2"
        await source.compact("r", before="lap 4" if source is journal else None)
        archive = io.BytesIO()
        info = await source.export("r", archive)
        row = await source.run("r")
        assert info.records == row.seq - row.first_seq + 1
        archive.seek(0)
        if source is memory:
            # The same run is there already, so it goes elsewhere: to a third journal.
            async with Journal("memory://") as third:
                moved = await third.import_(archive, run_id)
                assert moved.first_seq == row.first_seq
                assert await (await Laps(journal=third).resume(run_id)) == RESULT
            break
        moved = await target.import_(archive)
        assert (moved.first_seq, moved.seq, moved.status) == (row.first_seq, row.seq, row.status)
        assert moved.compacted_at == row.compacted_at
        assert await target.history("r") == await source.history("r")
        assert await folds(target, "r", [row.seq]) == await folds(source, "r", [row.seq])
        assert await target.pending() == []  # its answer is on the way
        assert not await target.send("r", LapAnswered(text="far"), message_id="letter")
        # Its stream begins where it began.
        there = [item.position for item in await target._shared.store.stream(await key_of(target))]
        assert there == [item.position for item in await source._shared.store.stream(await key_of(source))]
    assert await (await Laps(journal=memory).resume("r")) == RESULT


async def test_what_was_answered_and_taken_before_stays_so_after_a_move(journal: Journal, memory: Journal) -> None:
    await ended(journal)
    items = [item async for item in journal.stream("r")]
    await journal.compact("r")
    archive = io.BytesIO()
    await journal.export("r", archive)
    archive.seek(0)
    run = await memory.import_(archive)
    assert (run.status, run.finished_at is not None) == ("completed", True)
    moved = [item async for item in memory.stream("r")]
    assert [(i.position, i.step, i.wait_id, i.task) for i in moved] == [
        (i.position, i.step, i.wait_id, i.task) for i in items
    ]
    assert not await memory.send("r", LapAnswered(text="far"), message_id="letter")
    # The question had been answered, so nobody is shown it as open.
    events = await streamed(await Laps(journal=memory).resume("r"))
    assert not [event for event in events if isinstance(event, LapAsked)]
    key = await key_of(memory)
    assert [wait.outcome for wait in (await memory._shared.store.earlier(key))[0]] == ["answered"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: lines[0].update(first=3), "record .* where record 3 belongs"),
        (lambda lines: lines[0].update(uid="0" * 32), "of another run"),
        (lambda lines: lines.pop(next(n for n, at in enumerate(lines) if at.get("earlier") == "item")), "stream item"),
        (lambda lines: lines[1].update(record=1), "record 1 where record"),
        (lambda lines: lines.insert(2, {"earlier": "wait", "wait_id": "w", "outcome": "lost", "wanted": [],
                                        "strict": False, "human": False, "opened_at": 1}), "which is none"),
        (lambda lines: lines.append(lines.pop(2)), "follows the footer|does not belong"),
    ],
)  # fmt: skip
async def test_a_forged_archive_of_a_compacted_run_is_refused(memory: Journal, change: Any, match: str) -> None:
    from .test_archives import forged

    await ended(memory)
    await memory.compact("r", before="lap 4")
    archive = io.BytesIO()
    await memory.export("r", archive)
    async with Journal("memory://") as other:
        with pytest.raises(ArchiveError, match=match):
            await other.import_(io.BytesIO(forged(archive.getvalue(), change)))
        assert await other.runs() == []


async def test_the_state_is_sealed_and_belongs_to_its_place(new_journal: Callable[..., Journal]) -> None:
    seal = EncryptedSeal(keys=[EncryptedSeal.new_key()])
    async with new_journal(seal=seal) as journal:
        await asked(journal)
        await journal.compact("r", before="lap 3")
        await journal.send("r", LapAnswered(text="far"))
        assert await (await Laps(journal=journal).resume("r")) == RESULT
        if not journal.settings.url.startswith("memory"):
            [row] = await Tables(journal).rows("journal", "kind = 'JournalCompacted'")
            assert row["seal"] is not None
            assert b"seen" not in row["payload"]
            assert b"LapAsked" not in row["payload"]


# -- Pruning: what stays -----------------------------------------------------------------------------------------------

NOW = timedelta(0)


async def test_results_and_errors_stay_and_nothing_else(journal: Journal) -> None:
    flow = await ended(journal)
    with pytest.raises(ValueError, match="no ship"):
        await Shop(journal=journal, fail=ValueError("no ship")).run(run_id="failed", item="lamp")
    hold = asyncio.Event()
    shop = Shop(journal=journal, hold=hold)
    cancelled = shop.run(run_id="cancelled", item="lamp")
    await shop.shipping.wait()
    await cancelled.cancel_run()
    before = {run.run_id: run for run in await journal.runs()}

    made = await journal.prune(NOW)
    assert (made.runs, made.left, sorted(made.run_ids)) == (3, 0, ["cancelled", "failed", "r"])
    for run in await journal.runs(status=["completed", "failed", "cancelled"]):
        was = before[run.run_id]
        assert (run.status, run.seq, run.error, run.finished_at) == (was.status, was.seq, was.error, was.finished_at)
        assert run.pruned_at is not None
    assert await flow.run(run_id="r") == RESULT
    assert await (await flow.resume("r")) == RESULT
    with pytest.raises(RunFailedError, match="no ship") as error:
        await Shop(journal=journal).run(run_id="failed", item="lamp")
    assert isinstance(error.value.__cause__, ValueError)
    assert "pruned since" in str(error.value)
    assert "flow.retry" not in str(error.value)
    with pytest.raises(WorkflowCancelledByUser):
        await Shop(journal=journal).run(run_id="cancelled", item="lamp")
    with pytest.raises(RunConflictError, match="other arguments"):
        await Shop(journal=journal).run(run_id="failed", item="chair")
    if not journal.settings.url.startswith("memory"):
        tables = Tables(journal)
        counts = {table: len(await tables.rows(table)) for table in metadata.tables}
        assert {table for table, count in counts.items() if count} == {"runs", "journal", "workers"}
        assert counts["journal"] == counts["runs"] == 3
    assert (await journal.prune(NOW)).runs == 0


async def test_an_archive_of_a_pruned_run_comes_back_only_where_the_run_is_not(
    journal: Journal, memory: Journal
) -> None:
    await Shop(journal=journal).run(run_id="r", item="lamp")
    archive = io.BytesIO()
    await journal.export("r", archive)
    await journal.prune(NOW)
    for run_id in ("r", "other"):
        archive.seek(0)
        with pytest.raises(RunConflictError, match="if it was pruned, import the archive into another journal"):
            await journal.import_(archive, new_run_id=run_id)
    archive.seek(0)
    assert (await memory.import_(archive)).run_id == "r"
    await journal.prune(NOW, keep_results=False)
    archive.seek(0)
    assert (await journal.import_(archive)).run_id == "r"
    assert len(await journal.history("r")) == len(await memory.history("r")) > 1


async def test_what_is_gone_is_refused(journal: Journal) -> None:
    flow = await ended(journal)
    with pytest.raises(ValueError, match="no ship"):
        await Shop(journal=journal, fail=ValueError("no ship")).run(run_id="failed", item="lamp")
    handler = flow.run(run_id="r")
    await handler
    await journal.prune(NOW)
    refused: list[Callable[[], Any]] = [
        lambda: journal.state("r"),
        lambda: journal.state("r", 1),
        lambda: journal.checkpoints("r"),
        lambda: journal.blame("r", "seen"),
        lambda: journal.diff("r", 1),
        lambda: journal.history("r"),
        lambda: journal.fork("r"),
        lambda: journal.fork("r", "lap 1"),
        lambda: flow.fork("r", 3),
        lambda: journal.compact("r"),
        lambda: journal.export("r", io.BytesIO()),
        lambda: flow.replay("r"),
        lambda: anext(journal.follow("r")),
        lambda: anext(aiter(journal.stream("r"))),
        lambda: streamed(handler),
        lambda: Shop(journal=journal).retry("failed"),
        lambda: Shop(journal=journal).edit("failed", set={"a": 1}),
        lambda: journal.edit("failed", set={"a": 1}),
    ]
    for call in refused:
        with pytest.raises(CheckpointError, match=r"run (r|failed) was pruned at 20.*Only how it ended is kept"):
            await call()
    # Whoever has seen all of its stream misses nothing.
    position = len(RESULT[1]) + 1
    assert [item async for item in journal.stream("r", after=position)] == []
    with pytest.raises(RunFinishedError):
        await journal.send("r", LapAnswered(text="late"))
    with pytest.raises(ContextStateError):
        _ = (await flow.resume("r")).ctx.data["seen"]
    assert await (await flow.resume("r")) == RESULT


async def test_runs_that_have_not_ended_are_never_touched(journal: Journal) -> None:
    flow = await asked(journal)
    assert (await journal.prune(NOW)).runs == 0
    assert (await journal.prune(datetime.max.replace(tzinfo=UTC), keep_results=False)).runs == 0
    await journal.send("r", LapAnswered(text="far"))
    assert await (await flow.resume("r")) == RESULT


async def test_time_and_status_say_which(journal: Journal) -> None:
    await ended(journal)
    with pytest.raises(ValueError, match="no ship"):
        await Shop(journal=journal, fail=ValueError("no ship")).run(run_id="failed", item="lamp")
    finished = (await journal.run("r")).finished_at
    assert finished is not None
    assert (await journal.prune(timedelta(hours=1))).runs == 0
    assert (await journal.prune(finished)).runs == 0  # not before that moment
    assert (await journal.prune(NOW, "cancelled")).runs == 0
    dry = await journal.prune(NOW, ["failed", "cancelled"], dry_run=True)
    assert (dry.runs, dry.run_ids, dry.dry_run) == (1, ("failed",), True)
    assert dry.records == (await journal.run("failed")).seq
    assert (await journal.run("failed")).pruned_at is None
    assert (await journal.prune(finished + timedelta(microseconds=1))).run_ids == ("r",)
    assert (await journal.prune(NOW, "failed")).run_ids == ("failed",)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((timedelta(days=-1),), ValueError, "in the future"),
        ((datetime(2026, 1, 1),), ValueError, "no time zone"),
        ((30,), TypeError, "timedelta"),
        ((NOW, "running"), ValueError, "have ended"),
        ((NOW, []), ValueError, "have ended"),
        ((NOW, ["completed", "lost"]), ValueError, "have ended"),
    ],
)
async def test_arguments_that_make_no_sense_are_refused(
    memory: Journal, arguments: tuple[Any, ...], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        await memory.prune(*arguments)


# -- Pruning: all of it ------------------------------------------------------------------------------------------------


async def test_without_results_a_run_is_gone_and_its_forks_know_where_they_came_from(journal: Journal) -> None:
    flow = await ended(journal)
    fork = await flow.fork("r", "lap 3", new_run_id="f")
    await question(fork)
    before = (await journal.run("f")).forked_from
    assert before is not None
    made = await journal.prune(NOW, keep_results=False)
    assert made.run_ids == ("r",)
    for call in (journal.run("r"), journal.state("r"), journal.forks("r"), flow.resume("r")):
        with pytest.raises(RunNotFoundError):
            await call  # type: ignore[misc]
    assert (await journal.run("f")).forked_from == before
    assert [run.forked_from for run in await journal.runs()] == [before]
    await journal.send("f", LapAnswered(text="fork"))
    assert (await fork)[0] == "fork"
    # The id is free, and nothing of the first run comes back.
    handler = flow.run(run_id="r")
    await question(handler)
    assert (await journal._shared.store.stream(await key_of(journal)))[0].position == 1
    assert flow.called.count(0) == 2


async def test_a_run_that_was_pruned_before_goes_whole_later(journal: Journal) -> None:
    await ended(journal)
    await journal.prune(NOW)
    assert (await journal.prune(NOW, keep_results=False, dry_run=True)).runs == 1
    assert (await journal.prune(NOW, keep_results=False)).runs == 1
    assert await journal.runs() == []
    if not journal.settings.url.startswith("memory"):
        tables = Tables(journal)
        assert [table for table in metadata.tables if await tables.rows(table)] in ([], ["workers"])


async def test_a_child_stays_while_its_parent_may_ask_for_its_result(journal: Journal) -> None:
    handler = parent(journal).run(run_id="p")
    await recorded(journal, "p", ChildStarted)
    [child] = await children_of(journal, "p")
    await until(lambda: asks(journal, child))
    await journal.send(child, LapAnswered(text="one"))
    await recorded(journal, "p", ChildStarted, 2)
    _, second = await children_of(journal, "p")
    await until(lambda: asks(journal, second))
    await released(handler)

    assert (await journal.prune(NOW, keep_results=False)).left == 1
    assert (await journal.prune(NOW)).run_ids == (child,)  # its result stays
    assert (await journal.prune(NOW, keep_results=False)).left == 1
    await journal.send(second, LapAnswered(text="two"))
    assert await (await parent(journal).resume("p")) == ["one", "two"]
    assert (await journal.prune(NOW, keep_results=False)).runs == 3
    assert await journal.runs() == []


class _Naming(Workflow):
    """Starts a run with an id of its own, then waits."""

    def __init__(self, lane: Callable[[], Workflow], **kwargs: Any):
        super().__init__(**{"timeout": None, "workflow_name": "Naming", **kwargs})
        self.lane = lane

    @step
    async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await self.lane().run(run_id="named")
        await ctx.checkpoint("has it")
        await ctx.wait_for_event(LapAnswered)
        return StopEvent(result=first)


async def test_a_step_never_starts_a_run_anew_that_has_ended_and_is_gone(journal: Journal) -> None:
    def naming() -> Workflow:
        return _Naming(lambda: Lane(journal=journal, timeout=None), journal=journal)

    handler = naming().run(run_id="p")
    await until(lambda: asks(journal, "named"))
    await journal.send("named", LapAnswered(text="one"))
    await recorded(journal, "p", CheckpointNamed)
    await released(handler)
    assert (await journal.prune(NOW, keep_results=False)).run_ids == ("named",)
    with pytest.raises(NeedsAttentionError, match=r"run named of Lane.*was pruned together with its result"):
        await (await naming().resume("p"))
    with pytest.raises(RunNotFoundError):
        await journal.run("named")


# -- Pruning: beside others --------------------------------------------------------------------------------------------


async def test_a_run_that_somebody_retries_at_the_same_moment_is_left_alone(journal: Journal) -> None:
    store = journal._shared.store
    with pytest.raises(ValueError, match="no ship"):
        await Shop(journal=journal, fail=ValueError("no ship")).run(run_id="r", item="lamp")
    row = await store.find("r")
    assert row is not None
    assert await store.claim(row.run, _gone(1), epoch=row.epoch, status=row.status) is not None
    assert not await store.prune(row, None)
    assert (await journal.run("r")).status == "failed"
    # Its owner is gone, and so it may go.
    assert (await journal.prune(NOW)).runs == 1
    row = await store.find("r")
    assert row is not None
    # What was seen before is not claimed after.
    assert await store.claim(row.run, _gone(2), epoch=row.epoch - 1, status="failed") is None


async def test_a_run_that_cannot_be_read_is_left_and_keeps_none_back(
    new_journal: Callable[..., Journal], caplog: pytest.LogCaptureFixture
) -> None:
    if "memory" in str(new_journal.args):  # type: ignore[attr-defined]
        pytest.skip("memory keeps no rows")
    async with new_journal(seal=EncryptedSeal(keys=[EncryptedSeal.new_key()])) as journal:
        await ended(journal, "sealed")
    async with new_journal() as journal:
        await ended(journal, "plain")
        dry = await journal.prune(NOW, dry_run=True)
        made = await journal.prune(NOW)
        assert dataclasses.replace(dry, dry_run=False) == made
        assert (made.run_ids, made.left) == (("plain",), 1)
        assert "run sealed is not pruned" in caplog.text


async def test_a_dry_run_tells_what_goes(journal: Journal) -> None:
    """Also of a family that is looked at together: a child stays while its parent is there, which goes just then."""
    for n in range(3):
        family = _FailingParent(lambda: Shop(journal=journal), journal=journal)
        with pytest.raises(ValueError, match="after it"):
            await family.run(run_id=f"parent-{n}")
    dry = await journal.prune(NOW, keep_results=False, dry_run=True)
    assert (dry.runs, dry.left) == (3, 3)
    assert await journal.prune(NOW, keep_results=False) == dataclasses.replace(dry, dry_run=False)


async def test_many_runs_go_and_what_is_long_goes_in_parts(file: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_PAGE", 7)
    monkeypatch.setattr(retention, "BATCH", 20)
    await asyncio.gather(*(Shop(journal=file).run(run_id=f"s{n}", item="lamp") for n in range(20)))
    await ended(file)
    made = await file.prune(NOW)
    assert made.runs == 21
    tables = Tables(file)
    assert [len(await tables.rows(table)) for table in ("journal", "stream", "messages", "waits", "purges")] == [
        21, 0, 0, 0, 0,
    ]  # fmt: skip
    assert await Shop(journal=file).run(run_id="s3", item="lamp") == "shipped 1 lamp"


# -- From the command line ---------------------------------------------------------------------------------------------


async def test_the_commands_do_the_same(file: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    await ended(file)
    url = file.settings.url

    async def command(*words: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, [*words, "--url", url])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    code, out, _ = await command("compact", "r", "--before", "lap 3")
    assert (code, out.split()[0]) == (0, "r")
    first = (await file.run("r")).first_seq
    assert f"begins with checkpoint r/{first}" in out
    code, _, err = await command("compact", "r", "--before", "1")
    assert code == 1
    assert "durable-flow compact: run r: r/1 is gone" in err
    code, out, _ = await command("prune", "--older-than", "30d", "--dry-run")
    assert (code, out) == (0, "0 runs with 0 records would be pruned.\n")
    code, out, _ = await command("prune", "--older-than", "0s", "--status", "completed", "--dry-run")
    assert (code, out.splitlines()[0].startswith("1 runs with")) == (0, True)
    assert "r" in out.splitlines()[1:]
    assert (await file.run("r")).pruned_at is None
    code, out, _ = await command("prune", "--older-than", "0s", "--status", "completed")
    assert code == 0
    assert "were pruned" in out
    assert (await file.run("r")).pruned_at is not None
    code, out, _ = await command("prune", "--older-than", "2020-01-01T00:00:00+00:00", "--drop-results")
    assert out == "0 runs with 0 records were pruned.\n"
    code, out, _ = await command("prune", "--older-than", "0s", "--drop-results")
    assert code == 0
    assert await file.runs() == []


@pytest.mark.parametrize(
    "words",
    [
        ["--older-than", "soon"],
        ["--older-than", "5"],
        ["--older-than", "2020-01-01"],
        ["--older-than", "9999999999999d"],
        [],
    ],
)
def test_a_command_without_a_time_that_can_be_read_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["prune", *words, "--url", "memory://"])
    assert exit_.value.code == 2
    assert "older-than" in capsys.readouterr().err
