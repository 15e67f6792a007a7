"""`Journal`: looking at runs and sending to them, without their workflow classes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    Context,
    DeserializationError,
    HumanResponseEvent,
    Journal,
    JournalError,
    JsonSerializer,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)
from durable_flow.fold import fold
from durable_flow.records import EventEmitted, RunStarted
from durable_flow.serializers.pickle import PickleSerializer

from .conftest import Log
from .flows import Answer, Asking, Order, Packed, Question, Shop, in_another_loop, question, records_of, streamed

ROOT = Path(__file__).resolve().parents[2]


class Sum(Workflow):
    """Adds up parts; its context grows step by step."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Packed]:
        ctx.data["total"] = 0
        return [Packed(item=str(n)) for n in range(3)]

    @step
    async def add(self, ctx: Context, ev: Packed) -> StopEvent | None:
        ctx.data["total"] += int(ev.item)
        ctx.data[f"seen {ev.item}"] = True
        return StopEvent(result=ctx.data["total"]) if ctx.collect_events(ev, [Packed] * 3) else None


# -- runs and run ------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first_and_filtered(journal: Journal) -> None:
    shop, other = Shop(journal=journal), Shop(journal=journal, workflow_name="OtherShop")
    for n in range(3):
        await shop.run(run_id=f"s{n}", item="lamp")
    await other.run(run_id="o0", item="lamp")
    with pytest.raises(ValueError, match="no truck"):
        await Shop(journal=journal, fail=ValueError("no truck")).run(run_id="failed", item="lamp")
    asking = Asking(journal=journal).run(run_id="asking")
    await question(asking)

    async def listed(**filters: object) -> list[str]:
        return [info.run_id for info in await journal.runs(**filters)]

    assert await listed() == ["asking", "failed", "o0", "s2", "s1", "s0"]
    assert await listed(workflow="Shop") == ["failed", "s2", "s1", "s0"]
    assert await listed(status="completed") == ["o0", "s2", "s1", "s0"]
    assert await listed(status="completed", workflow="Shop") == ["s2", "s1", "s0"]
    assert await listed(status=["failed", "waiting"]) == ["asking", "failed"]
    assert await listed(status="cancelled") == []
    assert await listed(workflow="Nobody") == []


async def test_runs_come_in_pages(journal: Journal) -> None:
    shop = Shop(journal=journal)
    for n in range(5):
        await shop.run(run_id=f"s{n}", item="lamp")
    pages, before = [], None
    while page := [info.run_id for info in await journal.runs(limit=2, before=before)]:
        pages.append(page)
        before = page[-1]
    assert pages == [["s4", "s3"], ["s2", "s1"], ["s0"]]


async def test_a_runs_info_tells_where_it_stands(journal: Journal) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    info = await journal.run("r")
    assert (info.run_id, info.workflow, info.status) == ("r", "Asking", "waiting")
    assert info.seq == (await journal.history("r"))[-1].seq
    assert [w.prompt.text for w in info.waits] == ["go on?"]
    assert info.finished_at is None
    assert info.error is None
    assert began <= info.created_at <= info.updated_at
    await handler.send_event(Answer(text="yes"))
    await handler
    info = await journal.run("r")
    assert (info.status, info.waits, info.owner) == ("completed", (), None)
    assert info.created_at <= info.finished_at <= datetime.now(UTC) + timedelta(seconds=1)


async def test_a_live_run_has_an_owner_and_a_higher_epoch_after_each_claim(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    info = await journal.run("r")
    assert info.owner is not None
    assert (info.status, info.epoch) == ("running", 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handler, 0.01)
    flow.hold.set()
    await handler
    assert (await journal.run("r")).epoch == 2


async def test_the_error_of_a_failed_run_is_one_line(journal: Journal) -> None:
    with pytest.raises(ValueError, match="no truck"):
        await Shop(journal=journal, fail=ValueError("no truck\nat all")).run(run_id="r", item="lamp")
    error = (await journal.run("r")).error
    assert error.startswith("builtins.ValueError: no truck")
    state = await journal.state("r")
    assert (state.error.type, state.error.message) == ("builtins.ValueError", "no truck\nat all")


async def test_an_unknown_run_is_named(journal: Journal) -> None:
    for look in (journal.run, journal.history, journal.state):
        with pytest.raises(RunNotFoundError, match="no run nowhere"):
            await look("nowhere")
    with pytest.raises(RunNotFoundError, match="no run nowhere"):
        _ = [item async for item in journal.stream("nowhere")]
    with pytest.raises(RunNotFoundError, match="no run nowhere"):
        await journal.runs(before="nowhere")


# -- history and state -------------------------------------------------------------------------------------------------


async def test_history_gives_all_records_or_those_after_a_seq(journal: Journal) -> None:
    await Sum(journal=journal).run(run_id="r")
    records = await journal.history("r")
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert [record.at for record in records] == sorted(record.at for record in records)
    assert isinstance(records[0].fact, RunStarted)
    assert await journal.history("r", after=3) == records[3:]
    assert await journal.history("r", after=3, limit=2) == records[3:5]
    assert await journal.history("r", after=len(records)) == []


async def test_cursors_and_limits_mean_the_same_on_every_store(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="r", item="lamp")
    everything = await journal.history("r")
    points = await journal.checkpoints("r")
    items = [item async for item in journal.stream("r")]
    huge = 1 << 70
    assert await journal.history("r", after=-5, limit=huge) == everything
    assert await journal.history("r", after=huge) == []
    assert [record async for record in journal.follow("r", after=huge)] == []
    assert await journal.checkpoints("r", after=-5, limit=huge) == points
    assert await journal.checkpoints("r", after=huge) == []
    assert [item async for item in journal.stream("r", after=-5)] == items
    assert [item async for item in journal.stream("r", after=huge)] == []
    assert [run.run_id for run in await journal.runs(limit=huge)] == ["r"]
    assert await journal.runs(limit=0) == []
    for name in ("\0", "\ud800"):
        assert await journal.runs(workflow=name) == await journal.runs(status=name) == []


async def test_what_is_no_cursor_or_limit_is_refused(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="r", item="lamp")
    for limited in (journal.runs, journal.pending, partial(journal.history, "r"), partial(journal.checkpoints, "r")):
        with pytest.raises(ValueError, match="limit=-1: it is 0 or more"):
            await limited(limit=-1)
        with pytest.raises(TypeError, match="limit='2': it is a number"):
            await limited(limit="2")
    for after in (partial(journal.history, "r"), partial(journal.checkpoints, "r")):
        with pytest.raises(TypeError, match=r"after=1\.5: it is a number"):
            await after(after=1.5)
    with pytest.raises(TypeError, match="after=None: it is a number"):
        _ = [item async for item in journal.stream("r", after=None)]  # type: ignore[arg-type]


async def test_payloads_are_decoded_on_request(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="r", item="lamp")
    records = await journal.history("r")
    emitted = [journal.decode(r.fact.event) for r in records if isinstance(r.fact, EventEmitted)]
    assert emitted[:2] == [Order(item="lamp"), Packed(item="1 lamp")]
    assert journal.decode(records[0].fact.arguments) == {"item": "lamp"}


async def test_the_state_at_every_record_is_that_of_the_boundary_before_it(journal: Journal) -> None:
    await Sum(journal=journal).run(run_id="r")
    records = await journal.history("r")
    boundaries = [record.seq for record in records if record.boundary]
    assert records[0].seq not in boundaries
    assert len(boundaries) < len(records)
    for record in records:
        before = [seq for seq in boundaries if seq <= record.seq]
        if not before:
            with pytest.raises(ValueError, match="no checkpoint"):
                await journal.state("r", at=record.seq)
            continue
        state = await journal.state("r", at=record.seq)
        folded = fold(records[: before[-1]])
        assert state.seq == before[-1]
        assert state.status == folded.status
        assert state.context == {key: journal.decode(value) for key, value in folded.context.items()}
        assert [task.id for task in state.tasks] == list(folded.tasks)


async def test_states_along_a_run_show_it_grow(journal: Journal) -> None:
    await Sum(journal=journal).run(run_id="r")
    boundaries = [record.seq for record in await journal.history("r") if record.boundary]
    states = [await journal.state("r", at=seq) for seq in boundaries]
    assert [task.step for task in states[0].tasks] == ["split"]
    assert states[0].context == {}
    after_split = next(state for state in states if state.steps_completed == 1)
    assert after_split.context == {"total": 0}
    assert [task.event for task in after_split.tasks] == [Packed(item=str(n)) for n in range(3)]
    assert {task.attempt for task in after_split.tasks} == {1}
    last = await journal.state("r")
    assert last == states[-1]
    assert (last.status, last.result, last.steps_completed) == ("completed", StopEvent(result=3), 4)
    assert last.context == {"total": 3, "seen 0": True, "seen 1": True, "seen 2": True}


@pytest.mark.parametrize("at", [0, -1, 10_000])
async def test_a_seq_that_the_run_does_not_have_is_refused(journal: Journal, at: int) -> None:
    await Sum(journal=journal).run(run_id="r")
    with pytest.raises(ValueError, match=f"no record {at}: its records are 1 to"):
        await journal.state("r", at=at)


async def test_the_state_of_a_waiting_run_shows_its_question(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    asked = await question(handler)
    state = await journal.state("r")
    (wait,) = state.waits
    assert (wait.wait_id, wait.prompt.text, wait.prompt.wait_id) == (asked.wait_id, "go on?", asked.wait_id)
    assert wait.schema["properties"]["text"]["type"] == "string"
    assert state.tasks == ()
    assert state.stream_position == 1


# -- stats, life -------------------------------------------------------------------------------------------------------


async def test_workflows_of_the_loop_share_the_journals_writer(journal: Journal) -> None:
    before = journal.stats()
    await asyncio.gather(*(Shop(journal=journal).run(item="lamp") for _ in range(3)))
    after = journal.stats()
    assert after["creates"] - before["creates"] == 3
    assert after["appends"] - before["appends"] == 6  # one for each of the two steps of a run
    assert after["rows"] > before["rows"]
    assert after["commits"] > before["commits"]


async def test_concurrent_runs_share_commits(file: Journal) -> None:
    before = file.stats()
    flow = Shop(journal=file)
    await asyncio.gather(*(flow.run(item="lamp") for _ in range(50)))
    after = file.stats()
    assert after["appends"] - before["appends"] == 100
    assert after["commits"] - before["commits"] < 100


async def test_a_url_and_a_journal_of_it_are_the_same_database(file: Journal, url: str) -> None:
    await Shop(journal=url).run(run_id="r", item="lamp")
    assert (await file.run("r")).status == "completed"
    async with Journal(url) as second:
        assert await second.history("r") == await file.history("r")
    assert (await file.run("r")).status == "completed"  # closing one does not close the other


async def test_two_journals_in_memory_are_two_databases(memory: Journal) -> None:
    await Shop(journal=memory).run(run_id="r", item="lamp")
    for _ in range(50):  # also one that lies where another lay
        async with Journal("memory://") as other:
            assert await other.runs() == []
            await Shop(journal=other).run(item="lamp")
        del other
    assert [info.run_id for info in await memory.runs()] == ["r"]


async def test_a_journal_is_used_while_it_is_open(url: str) -> None:
    journal = Journal(url)
    with pytest.raises(JournalError, match="async with"):
        await journal.runs()
    async with journal:
        assert await journal.runs() == []
        async with journal:  # again, inside
            assert await journal.runs() == []
        assert await journal.runs() == []
    with pytest.raises(JournalError, match="async with"):
        await journal.runs()


async def test_streams_of_finished_runs_end(journal: Journal) -> None:
    handler = Shop(journal=journal).run(run_id="r", item="lamp")
    events = await streamed(handler)
    items = [item async for item in journal.stream("r")]
    assert [item.event for item in items] == events[:-1]
    assert [item async for item in journal.stream("r", after=1)] == []


async def test_another_process_without_the_classes_sees_and_answers(url: str) -> None:
    program = f"""
import asyncio, json
from durable_flow import HumanResponseEvent, Journal

async def main():
    async with Journal({url!r}) as journal:
        (wait,) = await journal.pending()
        state = await journal.state(wait.run_id)
        run = await journal.run(wait.run_id)
        items = []
        async for item in journal.stream(wait.run_id):
            items.append(type(item.event).__name__)
            break
        kinds = [type(r.fact).__name__ for r in await journal.history(wait.run_id)]
        sent = await journal.send(wait.run_id, HumanResponseEvent(response="from afar"), message_id="m1")
        again = await journal.send(wait.run_id, HumanResponseEvent(response="from afar"), message_id="m1")
        left = await journal.pending()
        print(json.dumps([wait.run_id, wait.wanted, type(wait.prompt).__name__, wait.prompt.name, state.context,
                          run.status, run.workflow, items, kinds[0], sent, again, left]))

asyncio.run(main())
"""

    class Remote(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["asked"] = [1, "two"]
            answer = await ctx.wait_for_event(HumanResponseEvent, waiter_event=Question(text="?"))
            return StopEvent(result=answer.response)

    handler = Remote(journal=url, workflow_name="Remote").run(run_id="r")
    await question(handler)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    assert json.loads(output) == [
        "r", ["HumanResponseEvent"], "UnknownEvent", "Question", {"asked": [1, "two"]},
        "waiting", "Remote", ["UnknownEvent"], "RunStarted", True, False, [],
    ]  # fmt: skip
    assert await handler == "from afar"


async def test_a_journal_can_be_used_by_several_loops_one_after_another(url: str) -> None:
    journal = Journal(url)

    async def use(n: int) -> int:
        async with journal:
            await Shop(journal=journal).run(run_id=f"r{n}", item="lamp")
            return len(await journal.runs())

    for n in range(3):
        assert await in_another_loop(lambda n=n: use(n)) == n + 1


async def test_the_journals_serializer_serves_workflows_that_have_none_of_their_own(
    new_journal: Callable[..., Journal],
) -> None:
    async with new_journal(serializer=PickleSerializer(key=b"secret")) as journal:
        handler = Asking(journal=journal).run(run_id="r")
        await question(handler)
        await journal.send("r", Answer(text="as JSON, like every message"))
        assert await handler == "as JSON, like every message"
        exact = Shop(journal=journal, serializer=JsonSerializer())
        await exact.run(run_id="exact", item="lamp")
        codecs = {
            run_id: {fact.event.codec for fact in await records_of(journal, run_id, EventEmitted)}
            for run_id in ("r", "exact")
        }
        assert codecs == {"r": {"pickle", "json"}, "exact": {"json"}}
        assert (await journal.state("r")).result == StopEvent(result="as JSON, like every message")


async def test_what_a_handler_sends_to_a_run_that_is_not_live_is_never_pickled(
    new_journal: Callable[..., Journal], log: Log
) -> None:
    async with new_journal(serializer=PickleSerializer(key=b"secret"), idle_release_seconds=0.01) as journal:
        handler = Asking(journal=journal).run(run_id="r")
        await question(handler)
        await log.seen("run_released")
        await handler.send_event(Answer(text="yes"))
        assert await handler == "yes"
        received = [
            fact for fact in await records_of(journal, "r", EventEmitted) if fact.event.name == Answer.__qualname__
        ]
        assert [fact.event.codec for fact in received] == ["json"]


async def test_a_workflow_says_which_serializer_it_was_given_and_stores_by_it(
    new_journal: Callable[..., Journal],
) -> None:
    own = PickleSerializer(key=b"secret")
    async with new_journal() as journal:
        flow = Asking(journal=journal, serializer=own)
        assert flow.serializer is own
        assert Shop(journal=journal).serializer is None
        handler = flow.run(run_id="r")
        await question(handler)
        await journal.send("r", Answer(text="yes"))
        assert await handler == "yes"
        assert {f.event.codec for f in await records_of(journal, "r", EventEmitted)} == {"pickle", "json"}
        # Another instance reads what the first one wrote, if it has the serializer.
        again = Asking(journal=journal, serializer=PickleSerializer(key=b"secret"))
        assert await again.run(run_id="r") == "yes"


async def test_a_workflow_without_the_serializer_of_its_run_says_what_is_missing(
    new_journal: Callable[..., Journal],
) -> None:
    async with new_journal() as journal:
        handler = Asking(journal=journal, serializer=PickleSerializer(key=b"secret")).run(run_id="r")
        await question(handler)
        await journal.send("r", Answer(text="yes"))
        await handler
        with pytest.raises(DeserializationError, match=r"run r, seq \d+ \(RunCompleted\): written by .*'pickle'"):
            await (await Asking(journal=journal).resume("r"))


async def test_parent_and_child_may_have_a_serializer_each(new_journal: Callable[..., Journal]) -> None:
    class Asks(Workflow):
        child = Asking(serializer=PickleSerializer(key=b"secret"))

        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=[await self.child.run()])

    async with new_journal() as journal:
        handler = Asks(journal=journal).run(run_id="r")
        asked = await question(handler)
        await handler.send_event(Answer(text="yes"), wait_id=asked.wait_id)
        assert await handler == ["yes"]
        child = next(info.run_id for info in await journal.runs() if info.run_id != "r")
        codecs = [{f.event.codec for f in await records_of(journal, id, EventEmitted)} for id in ("r", child)]
        assert codecs == [{"json"}, {"json", "pickle"}]


class AsksForAges(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="go on?"), timeout=1e12)
        return StopEvent(result=answer.text)


async def test_a_deadline_beyond_the_calendar_hides_no_run(journal: Journal) -> None:
    await question(AsksForAges(journal=journal, timeout=None).run(run_id="ages"))
    await question(Asking(journal=journal).run(run_id="now"))
    assert [(wait.run_id, wait.deadline) for wait in await journal.pending()] == [
        ("ages", datetime.max.replace(tzinfo=UTC)), ("now", None),
    ]  # fmt: skip
    assert {run.run_id for run in await journal.runs()} == {"ages", "now"}
    assert (await journal.state("ages")).waits[0].deadline == datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize("bad", [3, object(), PickleSerializer, "json"])
def test_what_is_no_serializer_is_refused(bad: Any) -> None:
    with pytest.raises(WorkflowValidationError, match=r"serializer=.*an id `codec` and the methods serialize"):
        Asking(journal="memory://", serializer=bad)
