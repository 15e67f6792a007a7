"""Snapshots on every store: kept, replaced, judged, and never needed."""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from durable_flow.errors import DeserializationError, JournalError
from durable_flow.fold import FOLD_VERSION, fold
from durable_flow.journal import folding
from durable_flow.journal.folding import folded, hash_of, new_snapshot, state_at
from durable_flow.journal.protocol import JournalStore, SnapshotRow
from durable_flow.journal.seals import Seals
from durable_flow.records import ContextSet, Fact, WaitAnswered, WaitClosed, WaitTimedOut
from durable_flow.snapshot import encode_state
from durable_flow.state import RunState

from .conftest import Backend
from .samples import Owner, asks, create, numbered, owned, value
from .test_sqlite_rows import Swap


def wrote(n: int) -> ContextSet:
    return ContextSet("n", value(b"%d" % n), None, 0, 0)


async def written(store: JournalStore, groups: int, run_id: str = "run-1", size: int = 1) -> Owner:
    """A run of `groups` groups after the first record: "n" in the context is the seq of the last one."""
    run = await owned(store, run_id)
    for _ in range(groups):
        await run.append(*(wrote(run.seq + n) for n in range(1, size + 1)))
    return run


async def snapshot_of(run: Owner, at: int) -> SnapshotRow:
    return new_snapshot(fold(await run.store.read(run.run, to=at)), run.run_id, at)


async def save(run: Owner, *seqs: int) -> None:
    for seq in seqs:
        await run.store.save_snapshot(run.run, await snapshot_of(run, seq), seq)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "PAGE", 3)


# The store


async def test_the_newest_snapshot_at_or_before_a_seq_is_found(store: JournalStore) -> None:
    run = await written(store, 9)
    other = await written(store, 3, "run-2")
    await save(run, 3, 6)
    await save(other, 4)
    found = [await store.snapshot(run.run, at) for at in (None, 99, 6, 5, 3, 2, 0)]
    assert [row and row.seq for row in found] == [6, 6, 6, 3, 3, None, None]
    assert found[0] == await snapshot_of(run, 6)
    assert found[3] == await snapshot_of(run, 3)
    assert await store.snapshot(77) is None


async def test_a_snapshot_takes_the_place_of_those_before_it_from_a_seq_on(store: JournalStore) -> None:
    run = await written(store, 9)
    await save(run, 2, 4, 6, 9)
    await store.save_snapshot(run.run, await snapshot_of(run, 7), 4)
    found = {row.seq for at in range(10) if (row := await store.snapshot(run.run, at)) is not None}
    assert found == {2, 7, 9}


async def test_a_snapshot_that_is_saved_again_takes_its_own_place(store: JournalStore) -> None:
    run = await written(store, 3)
    await save(run, 3)
    newer = (await snapshot_of(run, 3))._replace(fold_version=7, hash="other", payload=b"\x00\xff", at=8)
    await store.save_snapshot(run.run, newer, 3)
    assert await store.snapshot(run.run) == newer


async def test_other_stores_see_them(store: JournalStore, other: JournalStore) -> None:
    run = await written(store, 3)
    await save(run, 2)
    assert await other.snapshot(run.run) == await store.snapshot(run.run)


async def test_they_are_sealed_like_rows(backend: Backend) -> None:
    if not backend.shared:
        pytest.skip("what memory keeps is not sealed")
    store = backend.new()
    store._seals = Seals(Swap())  # type: ignore[attr-defined]
    await store.open()
    try:
        run = await written(store, 3)
        await save(run, 3)
        assert await state_at(store, run.run) == fold(await store.read(run.run))
        assert (await folded(store, run.run)).snapshot == 3
        store._seals = Seals()  # type: ignore[attr-defined]
        with pytest.raises(DeserializationError, match=r"run run-1, seq 3 .snapshot.*seal 'swap'"):
            await store.snapshot(run.run)
    finally:
        await store.close()


# State at a boundary


async def test_the_state_at_any_seq_is_that_of_the_boundary_before(store: JournalStore) -> None:
    run = await written(store, 6, size=4)
    records = await store.read(run.run)
    await save(run, 5, 17)
    for at in range(run.seq + 1):
        boundary = max((r.seq for r in records[:at] if r.boundary), default=0)
        assert await state_at(store, run.run, at) == fold(records[:boundary])
    assert await state_at(store, run.run) == await state_at(store, run.run, 999) == fold(records)


async def test_a_snapshot_saves_reading_what_is_before_it(store: JournalStore) -> None:
    run = await written(store, 9)
    await save(run, 4, 7)
    assert [(await folded(store, run.run, at)).snapshot for at in (None, 9, 7, 6, 4, 3)] == [7, 7, 7, 4, 4, 0]
    assert (await folded(store, run.run)).size == len(encode_state(fold(await store.read(run.run, to=7))).data)


def shifted(row: SnapshotRow) -> SnapshotRow:
    return row._replace(payload=row.payload[:-1] + bytes([row.payload[-1] ^ 1]))


def of_another_run(row: SnapshotRow) -> SnapshotRow:
    state = RunState(workflow="Flow", uid="uid of run-2", seq=row.seq, boundary=row.seq)
    return new_snapshot(state, "run-2", 0)


def not_readable(row: SnapshotRow) -> SnapshotRow:
    payload = zlib.compress(b'{"version":1,"nonsense":2}')
    return row._replace(payload=payload, hash=hash_of(payload, row.seq, row.uid))


def not_compressed(row: SnapshotRow) -> SnapshotRow:
    payload = zlib.decompress(row.payload)
    return row._replace(payload=payload, hash=hash_of(payload, row.seq, row.uid))


def of_another_seq(row: SnapshotRow) -> SnapshotRow:
    state = RunState(workflow="Flow", uid=row.uid, seq=row.seq - 1, boundary=row.seq - 1)
    payload = zlib.compress(encode_state(state).data)
    return row._replace(payload=payload, hash=hash_of(payload, row.seq, row.uid))


def of_another_journal(row: SnapshotRow) -> SnapshotRow:
    """As after a server lost its last commits: another record has that seq now."""
    state = RunState(workflow="Flow", uid=row.uid, seq=row.seq, boundary=row.seq, last_at=1)
    return new_snapshot(state, row.run_id, 0)


@pytest.mark.parametrize(
    "damage",
    [
        shifted,
        of_another_run,
        not_readable,
        not_compressed,
        of_another_seq,
        of_another_journal,
        lambda row: row._replace(hash=hashlib.sha256(row.payload).hexdigest()),
        lambda row: row._replace(fold_version=FOLD_VERSION + 1),
        lambda row: row._replace(seq=row.seq + 1),
    ],
)
async def test_one_that_does_not_fit_is_ignored_with_a_warning(
    store: JournalStore, caplog: pytest.LogCaptureFixture, damage: Callable[[SnapshotRow], SnapshotRow]
) -> None:
    run = await written(store, 9)
    damaged = damage(await snapshot_of(run, 6))
    await store.save_snapshot(run.run, damaged, damaged.seq)
    with caplog.at_level(logging.WARNING, "durable_flow"):
        found = await folded(store, run.run)
    assert (found.snapshot, found.state) == (0, fold(await store.read(run.run)))
    [warning] = caplog.records
    assert (warning.__dict__["action"], warning.__dict__["run_id"]) == ("snapshot_ignored", "run-1")


@pytest.mark.parametrize("payload", ["text", 5])
async def test_one_whose_column_holds_something_else_is_ignored(
    store: JournalStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, payload: Any
) -> None:
    """SQLite keeps whatever plain SQL puts there."""
    run = await written(store, 9)
    row = (await snapshot_of(run, 6))._replace(payload=payload)

    async def snapshot(*_: object) -> SnapshotRow:
        return row

    monkeypatch.setattr(store, "snapshot", snapshot)
    assert (await folded(store, run.run)).state == fold(await store.read(run.run))
    assert [record.__dict__["action"] for record in caplog.records] == ["snapshot_ignored"]


async def test_one_beyond_the_head_or_within_a_group_is_ignored(
    store: JournalStore, caplog: pytest.LogCaptureFixture
) -> None:
    run = await written(store, 2, size=3)
    records = await store.read(run.run)
    ahead = [*records, *numbered([wrote(8)], after=7, at=records[-1].at)]
    await store.save_snapshot(run.run, new_snapshot(fold(ahead), "run-1", 0), 8)
    assert await state_at(store, run.run) == fold(records)
    await store.save_snapshot(run.run, new_snapshot(fold(records[:6]), "run-1", 0), 6)
    assert await state_at(store, run.run, 7) == fold(records)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


async def test_a_wrong_snapshot_is_found_out_in_tests(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await written(store, 3)
    state = fold(await store.read(run.run))
    state.steps_completed += 1
    await store.save_snapshot(run.run, new_snapshot(state, "run-1", 0), 4)
    with pytest.raises(JournalError, match="run run-1: the snapshot at seq 4 is not the fold"):
        await state_at(store, run.run)
    monkeypatch.delenv(folding.VERIFY_VARIABLE)
    assert (await state_at(store, run.run)).steps_completed == 1


# What a resume asks besides


async def test_the_waits_that_were_answered_are_known_by_their_ids(store: JournalStore) -> None:
    asked: list[Fact] = [asks(f"w{n}") for n in range(5)]
    run = await owned(store, "run-1", *asked)
    await run.append(WaitAnswered("w1"), WaitTimedOut("w2"), WaitClosed("w3"), WaitAnswered("w4"))
    await create(store, "run-2", asks("w7"))
    assert await store.answered(run.run) == {"w1", "w4"}
    assert await store.answered(99) == frozenset()
