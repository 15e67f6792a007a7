"""What every store does with runs and their records."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from durable_flow.errors import RunFenced, SerializationError
from durable_flow.journal.protocol import JournalStore, NewRun, RunUpdate
from durable_flow.records import (
    CheckpointNamed,
    EncodedEvent,
    ErrorInfo,
    EventEmitted,
    Fact,
    RunFailed,
    RunParked,
    RunStarted,
    StepCompleted,
    StepFailed,
    StreamPublished,
    TaskId,
)

from .samples import (
    ALL_BYTES,
    FACTS,
    UNICODE,
    Owner,
    asks,
    create,
    event,
    facts_of,
    item_at,
    numbered,
    owned,
    try_create,
    typed,
    value,
    worker,
    wrote,
)

TASK = TaskId(1, "a")


# Runs


async def test_a_new_run_is_owned_at_epoch_1_and_has_its_first_records(store: JournalStore) -> None:
    before = store.now()
    claim = await create(store, "run-1", wrote(), workflow=UNICODE, status="pending", wake_at=77, owner=worker("me"))
    row = await store.find("run-1")
    assert row is not None
    assert claim == (row.run, "run-1", "uid of run-1", 1, 2)
    assert row[1:9] == ("run-1", "uid of run-1", UNICODE, "shape-1", "pending", 1, "me", 77)
    assert before <= row.created_at <= row.updated_at <= store.now()
    assert (row.finished_at, row.error, row.seq, row.message) == (None, None, 2, False)
    assert await facts_of(store, claim.run) == [RunStarted(UNICODE, "uid of run-1", "shape-1", None), wrote()]


async def test_a_run_id_is_given_once(store: JournalStore) -> None:
    run = await owned(store)
    assert await try_create(store, "run-1", wrote(), workflow="Other", owner=worker("late")) is None
    row = await store.find("run-1")
    assert row is not None
    assert (row.run, row.workflow, row.owner, row.seq) == (run.run, "Flow", "worker-1", 1)
    await run.append(wrote())


async def test_of_creates_that_race_for_a_run_id_exactly_one_wins(store: JournalStore) -> None:
    racers = [try_create(store, f"run-{n % 4}", wrote(str(n)), owner=worker(f"w{n}")) for n in range(20)]
    claims = [claim for claim in await asyncio.gather(*racers) if claim is not None]
    assert sorted(claim.run_id for claim in claims) == ["run-0", "run-1", "run-2", "run-3"]
    assert len({claim.run for claim in claims}) == 4
    for claim in claims:
        assert [r.seq for r in await store.read(claim.run)] == [1, 2]
        await Owner(store, claim).append(wrote())


async def test_a_run_that_was_never_created_is_not_there(store: JournalStore) -> None:
    assert await store.find("no such run") is None
    assert await store.find_many([4711]) == []
    assert await store.read(4711) == []
    assert await store.stream(4711) == []
    assert await store.waits(4711) == []
    assert await store.messages([4711]) == []
    assert await store.claim(4711, worker(), epoch=1, status="running") is None


async def test_an_update_changes_the_row_with_the_append(store: JournalStore) -> None:
    run = await owned(store)
    await run.append(RunParked("x"), update=RunUpdate("needs_attention", wake_at=99, error=UNICODE))
    row = await store.find("run-1")
    assert row is not None
    assert (row.status, row.wake_at, row.error, row.owner) == ("needs_attention", 99, UNICODE, "worker-1")
    await run.append(wrote())
    assert await store.find("run-1") == row._replace(seq=3)
    await run.append(wrote(), update=RunUpdate("waiting", release=True))
    row = await store.find("run-1")
    assert row is not None
    assert (row.status, row.wake_at, row.error, row.owner, row.epoch) == ("waiting", None, None, None, 1)


async def test_a_run_is_finished_and_free_from_its_final_status_on(store: JournalStore) -> None:
    run = await owned(store)
    before = store.now()
    await run.append(RunFailed(ErrorInfo("E", "m"), None), update=RunUpdate("failed", error="E: m"))
    row = await store.find("run-1")
    assert row is not None
    assert (row.owner, row.error) == (None, "E: m")
    assert row.finished_at is not None
    assert before <= row.finished_at <= store.now()
    first_end = row.finished_at
    await run.append(wrote(), update=RunUpdate("failed"))
    row = await store.find("run-1")
    assert row is not None
    assert row.finished_at == first_end
    await run.append(wrote(), update=RunUpdate("running"))
    row = await store.find("run-1")
    assert row is not None
    assert (row.status, row.finished_at, row.error) == ("running", None, None)


async def test_runs_are_listed_newest_first_filtered_and_in_pages(store: JournalStore) -> None:
    for n, (workflow, status) in enumerate([("A", "running"), ("B", "completed"), ("A", "waiting"), ("A", "failed")]):
        await create(store, f"run-{n}", workflow=workflow, status=status)

    async def ids(**filters: object) -> list[str]:
        return [row.run_id for row in await store.list_runs(**filters)]  # type: ignore[arg-type]

    assert await ids() == ["run-3", "run-2", "run-1", "run-0"]
    assert await ids(workflow="A") == ["run-3", "run-2", "run-0"]
    assert await ids(workflow="a") == []
    assert await ids(status=["waiting", "completed"]) == ["run-2", "run-1"]
    assert await ids(status=[]) == []
    assert await ids(unfinished=True) == ["run-2", "run-0"]
    assert await ids(unfinished=True, workflow="A", limit=1) == ["run-2"]
    assert await ids(unfinished=True, status=["failed"]) == []
    page = await store.list_runs(limit=3)
    assert await ids(limit=3, before=page[-1].run) == ["run-0"]


async def test_rows_are_found_by_their_keys(store: JournalStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(3)]
    found = await store.find_many([runs[2].run, 4711, runs[0].run])
    assert {row.run_id for row in found} == {"run-0", "run-2"}
    assert await store.find_many([]) == []


# Appends


async def test_records_come_back_in_order_with_their_time_and_boundary(store: JournalStore) -> None:
    run = await owned(store)
    group = numbered([wrote("a"), wrote("b"), wrote("c")], after=1, at=1_700_000_000_000_123)
    await store.append(run.next()._replace(records=group))
    assert typed((await store.read(run.run))[1:]) == typed(group)
    assert [record.boundary for record in await store.read(run.run)] == [True, False, False, True]


async def test_every_kind_of_fact_survives(store: JournalStore) -> None:
    run = await owned(store, "run-1", *FACTS)
    back = await facts_of(store, run.run)
    for fact, found in zip(FACTS, back[1:], strict=True):
        assert typed(found) == typed(fact)


def test_every_kind_of_fact_has_a_sample() -> None:
    assert {type(fact) for fact in FACTS} == set(get_args(Fact))


async def test_a_history_is_read_in_parts(store: JournalStore) -> None:
    run = await owned(store)
    await run.append(*(wrote(str(n)) for n in range(9)))
    whole = await store.read(run.run)
    assert [record.seq for record in whole] == list(range(1, 11))
    assert await store.read(run.run, after=4) == whole[4:]
    assert await store.read(run.run, to=4) == whole[:4]
    assert await store.read(run.run, after=2, to=7, limit=3) == whole[2:5]
    assert await store.read(run.run, limit=2) == whole[:2]
    assert await store.read(run.run, after=10) == []
    assert await store.read(run.run, after=7, to=3) == []


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_an_append_at_another_seq_is_refused_whole(store: JournalStore, after: int) -> None:
    run = await owned(store, "run-1", wrote())
    before = await store.find("run-1"), await store.read(run.run)
    refused = run.next(wrote("x"), item_at(1), wrote("y"), after=after, update=RunUpdate("completed", release=True))
    with pytest.raises(RunFenced, match="run-1"):
        await store.append(refused)
    assert (await store.find("run-1"), await store.read(run.run)) == before
    assert await store.stream(run.run) == []
    await run.append(wrote("next"))


@pytest.mark.parametrize("epoch", [0, 1, 3])
async def test_an_append_of_another_epoch_is_refused_whole(store: JournalStore, epoch: int) -> None:
    run = await owned(store)
    claim = await store.claim(run.run, worker("next"), epoch=1, status="running")
    assert claim is not None
    before = await store.find("run-1")
    refused = Owner(store, claim._replace(epoch=epoch)).next(wrote(), update=RunUpdate("completed", release=True))
    with pytest.raises(RunFenced, match="run-1"):
        await store.append(refused)
    assert await store.find("run-1") == before
    await Owner(store, claim).append(wrote())


async def test_of_two_appends_at_one_seq_exactly_one_is_written(store: JournalStore) -> None:
    run = await owned(store)
    twins = [run.next(wrote("a"), wrote("a")), run.next(wrote("b"))]
    outcomes = await asyncio.gather(*map(store.append, twins), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "RunFenced"]
    winner = twins[outcomes.index(None)]
    assert await store.read(run.run, after=1) == winner.records


async def test_in_a_batch_every_caller_gets_its_own_outcome(store: JournalStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(12)]
    appends = [run.next(wrote(run.run_id), item_at(1)) for run in runs]
    await store.claim(runs[3].run, worker("thief"), epoch=1, status="running")
    appends[5] = runs[5].next(wrote(), after=9)
    appends[7] = runs[7].next(wrote("fine"), wrote("half a pair: \ud800"))
    appends[9] = appends[9]._replace(run=4711)
    outcomes = await asyncio.gather(*map(store.append, appends), return_exceptions=True)
    refused = {n: type(outcome) for n, outcome in enumerate(outcomes) if outcome is not None}
    assert refused == {3: RunFenced, 5: RunFenced, 7: SerializationError, 9: RunFenced}
    for n, run in enumerate(runs):
        count = 2 if n == 3 else 1 if n in refused else 3
        assert len(await store.read(run.run)) == count, run.run_id
        assert len(await store.stream(run.run)) == (n not in refused), run.run_id


async def test_submit_gives_the_outcome_as_a_future(store: JournalStore) -> None:
    run, fenced = await owned(store, "run-1"), await owned(store, "run-2")
    fine = store.submit(run.next(wrote()))
    refused = store.submit(fenced.next(wrote(), after=7))
    assert not fine.done()
    await fine
    with pytest.raises(RunFenced, match="run-2"):
        await refused
    with pytest.raises(SerializationError):
        store.submit(run.next(wrote("NUL \0 inside")))
    assert [record.seq for record in await store.read(run.run)] == [1, 2]


@pytest.mark.parametrize("turns", [0, 1, 2, 10])
async def test_cancelling_a_caller_does_not_tear_its_write(store: JournalStore, turns: int) -> None:
    run, other = await owned(store, "run-1"), await owned(store, "run-2")
    caller = asyncio.create_task(run.append(wrote("a"), item_at(1), wrote("b"), update=RunUpdate("waiting")))
    for _ in range(turns):
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    # Writes are made in their order, so this one tells that the one before is decided.
    await other.append(wrote())
    row = await store.find("run-1")
    assert row is not None
    found = row.seq, row.status, len(await store.read(run.run)), len(await store.stream(run.run))
    assert found in [(1, "running", 1, 0), (4, "waiting", 4, 1)]
    run.seq = row.seq
    await run.append(wrote("next"))
    assert [record.seq for record in await store.read(run.run)] == list(range(1, row.seq + 2))


async def test_a_cancelled_future_does_not_undo_its_write(store: JournalStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(3)]
    futures = [store.submit(run.next(wrote(), wrote())) for run in runs]
    futures[1].cancel()
    await futures[0]
    await futures[2]
    assert [len(await store.read(run.run)) for run in runs] == [3, 3, 3]


@pytest.mark.parametrize(
    "data", [b"", b"\0", ALL_BYTES, ALL_BYTES * 4096, UNICODE.encode()], ids=["empty", "nul", "all", "1 MiB", "text"]
)
async def test_payloads_are_any_bytes(store: JournalStore, data: bytes) -> None:
    emitted = EventEmitted(EncodedEvent("Work", "pickle", 1, data), None, 0, None, ())
    published = StreamPublished(1, ("digest",), TASK, 1, 0, (event("Item", data),))
    run = await owned(store, "run-1", emitted, published, wrote("n", data))
    assert await facts_of(store, run.run) == [
        RunStarted("Flow", "uid of run-1", "shape-1", None),
        emitted,
        published._replace(items=()),
        wrote("n", data),
    ]
    assert [row.event for row in await store.stream(run.run)] == [event("Item", data)]


BAD_TEXT = ["NUL \0 inside", "half a pair \udc00"]


@pytest.mark.parametrize("text", BAD_TEXT, ids=["nul", "surrogate"])
@pytest.mark.parametrize("place", ["key", "step", "event", "codec", "name", "wait"])
async def test_a_name_that_a_database_cannot_keep_is_refused(store: JournalStore, place: str, text: str) -> None:
    facts: dict[str, Fact] = {
        "key": wrote(text),
        "step": StepCompleted(TaskId(1, text), 1),
        "event": EventEmitted(event(text), TASK, 1, None, ()),
        "codec": wrote()._replace(value=value()._replace(codec=text)),
        "name": CheckpointNamed(TASK, 1, text, 0),
        "wait": asks(text),
    }
    run = await owned(store)
    with pytest.raises(SerializationError):
        await run.append(wrote(), facts[place])
    with pytest.raises(SerializationError):
        await create(store, "run-2", facts[place])
    assert await store.find("run-2") is None
    assert [record.seq for record in await store.read(run.run)] == [1]
    await run.append(wrote())


@pytest.mark.parametrize("text", BAD_TEXT, ids=["nul", "surrogate"])
async def test_a_run_with_a_name_of_bad_text_is_refused(store: JournalStore, text: str) -> None:
    new = NewRun("run-2", "uid-2", "Flow", "shape")
    for bad in (new._replace(run_id=text), new._replace(workflow=text)):
        with pytest.raises(SerializationError):
            await store.create(bad, numbered([wrote()], after=0, at=store.now()), RunUpdate("running"), worker())
    assert await store.list_runs() == []


@pytest.mark.parametrize("text", BAD_TEXT, ids=["nul", "surrogate"])
async def test_what_went_wrong_is_told_whatever_is_in_it(store: JournalStore, text: str) -> None:
    run = await owned(store)
    told = (StepFailed(TASK, 1, ErrorInfo("E", text, text), None), RunParked(text), RunFailed(ErrorInfo("E", text), ""))
    await run.append(*told, update=RunUpdate("failed", error=f"E: {text}"))
    assert (await facts_of(store, run.run))[1:] == list(told)
    row = await store.find("run-1")
    assert row is not None
    assert row.error is not None
    assert row.error.startswith("E: ")
    assert text not in row.error
