"""What every store does when records are compacted and runs pruned: the row and the records stay, or go, together."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_flow.errors import RunFenced, RunFinishedError, RunNotFoundError
from durable_flow.journal.folding import new_snapshot
from durable_flow.journal.memory import MemoryStore
from durable_flow.journal.protocol import Append, JournalStore, NewRun, RunRow, RunUpdate
from durable_flow.records import (
    Fact,
    JournalCompacted,
    MessageReceived,
    Record,
    RunClaimed,
    RunCompleted,
    WaitAnswered,
)
from durable_flow.snapshot import encode_state
from durable_flow.state import RunState

from .conftest import sqlite_store
from .samples import answer, asks, create, event, item_at, numbered, try_create, worker, wrote

EMPTY = encode_state(RunState())


def standing(record: Record) -> Record:
    """Return a record in the place of this one and those before."""
    return Record(record.seq, record.at, True, JournalCompacted(EMPTY))


async def row_of(store: JournalStore, run_id: str = "run-1") -> RunRow:
    row = await store.find(run_id)
    assert row is not None
    return row


async def grown(store: JournalStore, *groups: tuple[Fact, ...], run_id: str = "run-1") -> tuple[RunRow, list[Record]]:
    """A run with a group for each append."""
    claim = await create(store, run_id, owner=worker())
    seq = claim.seq
    for group in groups:
        records = numbered(group, after=seq, at=store.now())
        await store.append(Append(claim.run, run_id, seq, 1, records))
        seq += len(group)
    return await row_of(store, run_id), await store.read(claim.run)


async def purged(store: JournalStore, limit: int = 3) -> int:
    parts = 0
    while await store.purge(limit):
        parts += 1
    return parts


async def test_one_record_takes_the_place_of_those_before(store: JournalStore) -> None:
    row, records = await grown(store, (wrote(), wrote()), (wrote(),), (wrote(), wrote(), wrote()))
    cut = standing(records[3])
    assert await store.compact(row, cut)
    for _ in range(2):
        kept = [cut, *records[4:]]
        assert await store.read(row.run) == kept
        assert await store.read(row.run, limit=1) == kept[:1]
        assert await store.read(row.run, after=1, to=4) == kept[:1]
        assert await store.read(row.run, to=3) == await store.read(row.run, after=1, to=2) == []
        assert await store.read(row.run, after=4, to=6) == kept[1:3]
        now = await row_of(store)
        assert (now.seq, now.first, now.status, now.epoch, now.owner) == (7, 4, row.status, row.epoch, row.owner)
        assert now.compacted_at is not None
        assert now.pruned_at is None
        await purged(store)


async def test_the_owner_goes_on_and_a_claim_follows_it(store: JournalStore) -> None:
    row, records = await grown(store, (wrote(),), (wrote(),))
    assert await store.compact(row, standing(records[-1]))
    await store.append(Append(row.run, "run-1", 3, 1, numbered([wrote()], after=3, at=store.now())))
    claim = await store.claim(row.run, worker("other"), epoch=1, status=row.status)
    assert claim is not None
    assert claim.seq == 5
    with pytest.raises(RunFenced):
        await store.append(Append(row.run, "run-1", 5, 1, numbered([wrote()], after=5, at=store.now())))
    assert [type(r.fact) for r in await store.read(row.run)][-1] is RunClaimed


async def test_only_at_a_boundary_that_is_there_and_never_back(store: JournalStore) -> None:
    row, records = await grown(store, (wrote(), wrote()), (wrote(),))
    within = Record(2, records[1].at, True, JournalCompacted(EMPTY))
    assert not await store.compact(row, within)
    assert not await store.compact(row, Record(9, records[1].at, True, JournalCompacted(EMPTY)))
    assert not await store.compact(row, Record(3, records[2].at + 1, True, JournalCompacted(EMPTY)))
    assert await store.read(row.run) == records
    assert await store.compact(row, standing(records[3]))
    assert not await store.compact(row, standing(records[2]))
    assert not await store.compact(row._replace(run=99), standing(records[3]))
    assert (await row_of(store)).first == 4


async def test_what_belongs_to_the_run_stays(store: JournalStore) -> None:
    row, _ = await grown(store, (asks("w"), item_at(1)))
    assert await store.send(row.run, answer("letter"))
    [message] = await store.messages([row.run])
    taken = numbered(
        [MessageReceived(message.id, "letter", "answer"), WaitAnswered("w"), asks("x", "Other")],
        after=3,
        at=store.now(),
    )
    await store.append(Append(row.run, "run-1", 3, 1, taken))
    state = RunState(uid=row.uid, seq=3, boundary=3)
    await store.save_snapshot(row.run, new_snapshot(state, "run-1", 1), 3)
    records = await store.read(row.run)
    assert await store.compact(row, standing(records[-1]))
    await purged(store)
    assert not await store.send(row.run, answer("letter"))
    assert [wait.wait_id for wait in await store.waits(row.run)] == ["x"]
    assert await store.answered(row.run) == {"w"}
    assert [item.position for item in await store.stream(row.run)] == [1]
    assert await store.snapshot(row.run) is None
    over, messages = await store.earlier(row.run)
    assert [(wait.wait_id, wait.outcome, wait.wanted) for wait in over] == [("w", "answered", ("Answer",))]
    assert [message.message_id for message in messages] == ["letter"]


async def ended(store: JournalStore, run_id: str = "run-1", *, items: int = 1) -> tuple[RunRow, list[Record]]:
    row, _ = await grown(
        store, (asks("w"), asks("x", "Other")), *((item_at(n),) for n in range(1, items + 1)), run_id=run_id
    )
    assert await store.send(row.run, answer("letter"))
    end = numbered([RunCompleted(event(), None)], after=row.seq, at=store.now())
    await store.append(Append(row.run, run_id, row.seq, 1, end, RunUpdate("completed")))
    return await row_of(store, run_id), await store.read(row.run)


@pytest.mark.parametrize("items", [1, 200])
async def test_of_a_pruned_run_one_record_and_the_row_stay(store: JournalStore, items: int) -> None:
    row, records = await ended(store, items=items)
    last = standing(records[-1])
    assert await store.prune(row, last)
    for _ in range(2):
        now = await row_of(store)
        assert (now.seq, now.first, now.status, now.finished_at) == (row.seq, row.seq, "completed", row.finished_at)
        assert now.pruned_at is not None
        assert await store.read(row.run) == [last]
        parts = await purged(store)
    assert not parts
    assert await store.stream(row.run) == await store.waits(row.run) == await store.unconsumed(row.run) == []
    assert await store.earlier(row.run) == ([], [])
    with pytest.raises(RunFinishedError):
        await store.send(row.run, answer("letter"))
    assert await store.claim(row.run, worker("late"), epoch=row.epoch, status="completed") is None
    assert not await store.prune(row, last)
    assert await store.list_runs(status=["completed"], unpruned=True) == []
    assert not await store.compact(row, last)


async def test_a_run_that_is_pruned_whole_is_gone_and_its_key_with_it(store: JournalStore) -> None:
    row, _ = await ended(store, items=150)
    forked = await store.create(
        _fork_of(row), numbered([wrote()], after=0, at=store.now()), RunUpdate("running"), worker()
    )
    assert forked is not None
    assert await store.prune(row, None)
    assert await store.find("run-1") is None
    assert await store.read(row.run) == []
    with pytest.raises(RunNotFoundError):
        await store.send(row.run, answer())
    assert await store.claim(row.run, worker(), epoch=row.epoch, status="completed") is None
    fork = await row_of(store, "fork")
    assert (fork.parent, fork.parent_seq) == ("run-1", 3)
    again = await try_create(store, "run-1")
    assert again is not None
    assert again.run > forked.run
    await purged(store)
    assert len(await store.read(again.run)) == 1
    assert await store.read(forked.run) != []
    assert await store.stream(row.run) == []


def _fork_of(row: RunRow) -> NewRun:
    return NewRun("fork", "uid of the fork", "Flow", "shape", row.run, 3)


async def test_a_run_that_was_taken_up_since_it_was_seen_is_left_alone(store: JournalStore) -> None:
    row, records = await ended(store)
    claim = await store.claim(row.run, worker("other"), epoch=row.epoch, status="completed")
    assert claim is not None
    assert not await store.prune(row, standing(records[-1]))
    assert not await store.prune(row, None)
    assert len(await store.read(row.run)) == len(records) + 1


async def test_runs_are_found_by_when_they_ended(store: JournalStore) -> None:
    first, _ = await ended(store, "run-1")
    second, _ = await ended(store, "run-2")
    await create(store, "run-3")
    assert first.finished_at is not None
    assert second.finished_at is not None

    async def found(before: int) -> list[str]:
        return [row.run_id for row in await store.list_runs(ended_before=before)]

    assert await found(first.finished_at) == []
    assert await found(second.finished_at + 1) == ["run-2", "run-1"]


async def test_an_append_whose_outcome_was_unknown_is_found_in_what_it_was_compacted_into(
    store: JournalStore,
) -> None:
    """Its records are gone when its writer looks for them, and must not be written again."""
    writer = getattr(store, "_writer", None)
    if writer is None:
        pytest.skip("this store knows every outcome")
    row, _ = await grown(store, (wrote(),))
    lost = Append(row.run, "run-1", 2, 1, numbered([wrote("a"), wrote("b"), wrote("c")], after=2, at=store.now()))
    await store.append(lost)
    head = (await store.read(row.run))[-1]
    assert await store.compact(await row_of(store), standing(head))
    await purged(store)
    future = store.submit(lost)
    unit = _queued(writer)
    unit.again = True
    await future
    assert [r.seq for r in await store.read(row.run)] == [5]


def _queued(writer: Any) -> Any:
    """Return the unit that waits, on any kind of writer."""
    jobs = getattr(writer, "_here", None) or writer._jobs
    [job] = jobs
    return job.unit


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_random_cuts_leave_the_same_on_sqlite_as_in_memory(sqlite_template: Path, seed: int) -> None:
    async def lived(store: JournalStore) -> list[object]:
        dice = random.Random(seed)
        await store.open()
        try:
            seen: list[object] = []
            claim = await create(store, owner=worker())
            seq = claim.seq
            for n in range(dice.randrange(3, 12)):
                group = [wrote(f"k{n}"), wrote()][: dice.randrange(1, 3)]
                records = numbered(group, after=seq, at=1_800_000_000_000_000 + n)
                await store.append(Append(claim.run, "run-1", seq, 1, records))
                seq += len(group)
                if dice.random() < 0.5:
                    at = dice.randrange(1, seq + 1)
                    there = await store.read(claim.run, after=at - 1, to=at)
                    if there and there[0].seq > 1:
                        seen.append(await store.compact(await row_of(store), standing(there[0])))
                if dice.random() < 0.3:
                    await store.purge(dice.randrange(1, 4))
                seen.append([r.seq for r in await store.read(claim.run, after=dice.randrange(seq))])
                seen.append(((await row_of(store)).first, (await row_of(store)).seq))
            return seen
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(sqlite_template, folder, dirs_exist_ok=True)
        expected = asyncio.run(lived(MemoryStore()))
        assert asyncio.run(lived(sqlite_store(Path(folder) / "jobs.db"))) == expected
