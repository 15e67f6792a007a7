"""What every store does with claims and workers, and when it is opened, closed and shared."""

from __future__ import annotations

import asyncio

import pytest

from durable_flow.errors import JournalUnavailableError, RunFenced
from durable_flow.journal.protocol import Claim, JournalStore, RunRow, RunUpdate
from durable_flow.records import RunClaimed

from .conftest import Backend
from .samples import FACTS, Owner, create, item_at, numbered, owned, try_create, typed, worker, wrote

# Claims


async def test_a_claim_raises_the_epoch_and_is_a_group_of_its_own(store: JournalStore) -> None:
    run = await owned(store, "run-1", wrote())
    before = await store.find("run-1")
    claim = await store.claim(run.run, worker("next"), epoch=1, status="running")
    assert claim == (run.run, "run-1", "uid of run-1", 2, 3)
    [record] = await store.read(run.run, after=2)
    assert (record.seq, record.boundary, typed(record.fact)) == (
        3,
        True,
        typed(RunClaimed(2, "next", before.owner if before else None)),
    )
    row = await store.find("run-1")
    assert row is not None
    assert before is not None
    assert row == before._replace(epoch=2, owner="next", seq=3, updated_at=row.updated_at)


async def test_times_of_a_run_do_not_go_back(store: JournalStore) -> None:
    ahead = store.now() + 3_600_000_000
    run = await owned(store)
    await store.append(run.next()._replace(records=numbered([wrote()], after=1, at=ahead)))
    await store.claim(run.run, worker("next"), epoch=1, status="running")
    assert (await store.read(run.run))[-1].at >= ahead


async def test_the_former_owner_is_fenced_off(store: JournalStore) -> None:
    run = await owned(store)
    claim = await store.claim(run.run, worker("next"), epoch=1, status="running")
    assert claim is not None
    with pytest.raises(RunFenced):
        await run.append(wrote())
    run.seq = claim.seq  # it may even have read the journal again
    with pytest.raises(RunFenced):
        await run.append(wrote())
    await Owner(store, claim).append(wrote())


@pytest.mark.parametrize("status", ["completed", "failed", "needs_attention"])
async def test_a_run_that_came_to_rest_is_claimed_only_by_who_has_seen_that(store: JournalStore, status: str) -> None:
    run = await owned(store)
    await run.append(wrote(), update=RunUpdate(status, release=True))
    assert await store.claim(run.run, worker("late"), epoch=1, status="running") is None
    row = await store.find("run-1")
    assert row is not None
    assert (row.status, row.owner, row.epoch, row.seq) == (status, None, 1, run.seq)
    assert await store.claim(run.run, worker("retries"), epoch=1, status=status) is not None


async def test_of_two_claimers_one_wins(store: JournalStore) -> None:
    run = await owned(store)
    claims = await asyncio.gather(*(store.claim(run.run, worker(f"w{n}"), epoch=1, status="running") for n in range(5)))
    [won] = [claim for claim in claims if claim is not None]
    row = await store.find("run-1")
    assert row is not None
    assert (row.owner, row.epoch, row.seq) == (f"w{claims.index(won)}", 2, 2)
    await Owner(store, won).append(wrote())


async def test_a_claim_and_an_append_at_once_leave_no_gap(store: JournalStore) -> None:
    run = await owned(store)
    append, claim = await asyncio.gather(
        run.append(wrote()), store.claim(run.run, worker("next"), epoch=1, status="running"), return_exceptions=True
    )
    assert append is None or isinstance(append, RunFenced)
    if claim is None:  # a run is not free while it is being written
        assert append is None
        claim = await store.claim(run.run, worker("next"), epoch=1, status="running")
    assert isinstance(claim, Claim)
    assert claim.seq == (3 if append is None else 2)
    await Owner(store, claim).append(wrote())


async def test_a_released_run_has_no_owner_and_keeps_its_epoch(store: JournalStore) -> None:
    run = await owned(store)
    await store.release(run.run, 1, "waiting", 123)
    row = await store.find("run-1")
    assert row is not None
    assert (row.owner, row.status, row.wake_at, row.epoch, row.seq) == (None, "waiting", 123, 1, 1)
    assert await store.claim(run.run, worker("next"), epoch=1, status="running") is not None


async def test_a_claim_that_is_no_longer_held_cannot_be_released(store: JournalStore) -> None:
    run = await owned(store)
    await store.claim(run.run, worker("next"), epoch=1, status="running")
    before = await store.find("run-1")
    await store.release(run.run, 1, "completed", None)
    assert await store.find("run-1") == before


# Workers


async def test_a_heartbeat_is_kept_with_its_worker(store: JournalStore) -> None:
    assert await store.workers() == []
    before = store.now()
    first, second = worker("w1"), worker("w2")
    await store.heartbeat(first)
    await store.heartbeat(second)
    await store.heartbeat(first)
    found = dict(await store.workers())
    assert set(found) == {first, second}
    assert before <= found[second] <= found[first] <= store.now()


async def test_a_heart_beats_from_any_thread(store: JournalStore) -> None:
    await store.heartbeat(worker())
    before = store.now()
    assert await asyncio.to_thread(store.beat, worker()) is True
    [(found, at)] = await store.workers()
    assert found == worker()
    assert before <= at <= store.now()


def test_a_store_whose_loop_has_ended_can_be_abandoned(backend: Backend) -> None:
    store = backend.new()

    async def work() -> None:
        await store.open()
        await store.heartbeat(worker())
        await (await owned(store)).append(wrote())

    async def look() -> list[RunRow]:
        later = backend.new()
        await later.open()
        try:
            assert await later.workers() == []
            return await later.list_runs()
        finally:
            await later.close()

    asyncio.run(work())
    store.abandon(worker())
    assert store.beat(worker()) is False
    assert [(row.owner, row.seq) for row in asyncio.run(look())] == ([(None, 2)] if backend.shared else [])


async def test_a_retired_worker_gives_up_its_claims(store: JournalStore) -> None:
    for name in ("w1", "w2"):
        await store.heartbeat(worker(name))
        await create(store, f"run-1 of {name}", owner=worker(name))
        await create(store, f"run-2 of {name}", owner=worker(name))
    await store.retire(worker("w1"))
    await store.retire(worker("never seen"))
    assert [found.id for found, _ in await store.workers()] == ["w2"]
    owners = {row.run_id: (row.owner, row.epoch) for row in await store.list_runs()}
    assert owners == {
        "run-1 of w1": (None, 1),
        "run-2 of w1": (None, 1),
        "run-1 of w2": ("w2", 1),
        "run-2 of w2": ("w2", 1),
    }


# The store itself


async def test_opening_twice_is_fine(store: JournalStore) -> None:
    await create(store)
    await store.open()
    assert len(await store.list_runs()) == 1


async def test_a_store_that_is_closed_says_so(backend: Backend) -> None:
    store = backend.new()
    await store.open()
    run = await owned(store)
    await store.close()
    await store.close()
    assert store.beat(worker()) is False
    with pytest.raises(JournalUnavailableError, match="open"):
        await store.find("run-1")
    with pytest.raises(JournalUnavailableError, match="open"):
        await run.append(wrote())
    with pytest.raises(JournalUnavailableError, match="open"):
        await create(store, "run-2")
    with pytest.raises(JournalUnavailableError, match="open"):
        await store.claim(run.run, worker(), epoch=1, status="running")


async def test_close_finishes_the_writes_under_way(backend: Backend) -> None:
    store = backend.new()
    await store.open()
    runs = [await owned(store, f"run-{n}") for n in range(8)]
    futures = [store.submit(run.next(wrote())) for run in runs]
    await store.close()
    assert await asyncio.gather(*futures) == [None] * 8
    await store.open()
    assert [row.seq for row in await store.list_runs()] == ([2] * 8 if backend.shared else [])
    await store.close()


async def test_counters_count(store: JournalStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(4)]
    before = store.stats()
    await asyncio.gather(*(run.append(wrote(), wrote()) for run in runs))
    after = store.stats()
    assert after["appends"] - before["appends"] == 4
    assert after["rows"] - before["rows"] == 8
    assert 1 <= after["commits"] - before["commits"] <= 4


async def test_the_url_names_the_store(store: JournalStore) -> None:
    assert "://" in store.url


# Two stores of one database


async def test_another_store_sees_everything(store: JournalStore, other: JournalStore) -> None:
    run = await owned(store, "run-1", *FACTS)
    await store.heartbeat(worker())
    assert await other.find("run-1") == await store.find("run-1")
    assert await other.read(run.run) == await store.read(run.run)
    assert await other.stream(run.run) == await store.stream(run.run)
    assert await other.workers() == await store.workers()


async def test_a_claim_by_another_store_fences_this_one(store: JournalStore, other: JournalStore) -> None:
    run, unhurt = await owned(store, "run-1"), await owned(store, "run-2")
    await run.append(wrote())
    claim = await other.claim(run.run, worker("other"), epoch=1, status="running")
    assert claim is not None
    assert claim.seq == 3
    outcomes = await asyncio.gather(run.append(wrote()), unhurt.append(wrote()), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RunFenced, type(None)]
    await Owner(other, claim).append(wrote())


async def test_two_stores_that_race_agree_on_one_winner(store: JournalStore, other: JournalStore) -> None:
    created = await asyncio.gather(*(try_create(s, f"run-{n}") for n in range(10) for s in (store, other)))
    assert sorted(claim.run_id for claim in created if claim) == [f"run-{n}" for n in range(10)]
    runs = [claim.run for claim in created if claim]
    claims = await asyncio.gather(
        *(s.claim(run, worker(), epoch=1, status="running") for run in runs for s in (store, other))
    )
    assert sorted(claim.run for claim in claims if claim) == sorted(runs)


async def test_two_stores_write_at_once(store: JournalStore, other: JournalStore) -> None:
    async def work(through: JournalStore, run_id: str) -> None:
        run = await owned(through, run_id)
        for n in range(20):
            await run.append(wrote(str(n)), item_at(n + 1))

    await asyncio.gather(*(work(s, f"{n} of {i}") for n in range(4) for i, s in enumerate((store, other))))
    assert [row.seq for row in await other.list_runs()] == [41] * 8


async def test_a_worker_that_is_gone_is_forgotten_once_no_run_names_it(store: JournalStore) -> None:
    gone, next_ = worker(), worker("next")
    await store.heartbeat(gone)
    run = await owned(store, "run-1")
    await store.forget(gone)
    assert [w.id for w, _ in await store.workers() if w == gone] == [gone.id]
    assert await store.claim(run.run, next_, epoch=1, status="running") is not None
    await store.forget(gone)
    assert [w.id for w, _ in await store.workers() if w == gone] == []
