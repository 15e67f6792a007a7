"""Connections that break at the worst moment: every write is made once, and its caller is told so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from contract.samples import Owner, answer, create, item_at, numbered, owned, try_create, worker, wrote

from durable_flow.errors import JournalUnavailableError, RunFenced, WriteOutcomeUnknown
from durable_flow.journal.postgres import PostgresStore
from durable_flow.journal.protocol import NewRun, RunUpdate
from durable_flow.records import RunClaimed, RunStarted

from .flows import RESULT, Count, Counting
from .looking import until, values_of, whole_run, wrote_number
from .proxy import Fate, Proxy

pytestmark = pytest.mark.usefixtures("discreet")

# What executes an append, and what a creation.
APPEND, CREATE = "WITH ok AS", "WITH creates AS"
CUTS = [Fate.LOST, Fate.TORN, Fate.UNANSWERED, Fate.HALF_ANSWERED]
PATIENCE_SECONDS = 1.0
# How much later than its patience a store may give up on two busy cores.
LATE_SECONDS = 15.0

Store = Callable[..., Any]


@pytest.fixture
async def store(proxy: Proxy, database: str, new_store: Store) -> PostgresStore:
    """A store behind the proxy."""
    return await new_store(proxy.url(database))


@pytest.fixture
async def direct(url: str, new_store: Store) -> PostgresStore:
    """A store on the same database that no fault concerns."""
    return await new_store(url)


async def create_another(store: PostgresStore, run_id: str) -> None:
    """Create a run as another worker does, which gives it another uid."""
    new = NewRun(run_id, "another uid", "Flow", "shape-1")
    records = numbered([RunStarted("Flow", "another uid", "shape-1", None)], after=0, at=store.now())
    assert await store.create(new, records, RunUpdate("running"), worker("other")) is not None


@pytest.mark.parametrize("fate", CUTS)
async def test_appends_of_a_cut_connection_are_made_once(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore, fate: Fate
) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(5)]
    fault = proxy.fault(fate, APPEND)
    await asyncio.gather(*(run.append(wrote_number(1), item_at(1), update=RunUpdate("waiting", 99)) for run in runs))
    assert fault.struck.is_set()
    await asyncio.gather(*(run.append(wrote_number(2)) for run in runs))
    for run in runs:
        assert await values_of(direct, run.run) == ["key 1", "key 2"]
        assert len(await direct.stream(run.run)) == 1
        row = await direct.find(run.run_id)
        assert row is not None
        assert (row.status, row.wake_at) == ("waiting", 99)


@pytest.mark.parametrize("fate", CUTS)
async def test_creations_of_a_cut_connection_are_made_once_and_claimed(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore, fate: Fate
) -> None:
    await create_another(direct, "run-taken")
    fault = proxy.fault(fate, CREATE)
    *claims, taken = await asyncio.gather(*(try_create(store, f"run-{n}") for n in (1, 2, 3, "taken")))
    assert fault.struck.is_set()
    assert taken is None
    for claim in claims:
        assert claim is not None
        row = await direct.find(claim.run_id)
        assert row is not None
        assert (claim.run, claim.epoch, claim.seq, row.owner) == (row.run, 1, 1, "worker-1")
        assert len(await whole_run(direct, claim.run)) == 1
    assert len(await direct.list_runs()) == 4


@pytest.mark.parametrize("fate", CUTS)
@pytest.mark.parametrize("statement", ["BEGIN", "FOR UPDATE", "UPDATE runs", "INSERT INTO journal", "COMMIT"])
async def test_a_claim_over_a_cut_connection_is_made_once(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore, statement: str, fate: Fate
) -> None:
    run = await owned(direct)
    fault = proxy.fault(fate, statement)
    claim = await store.claim(run.run, worker("other"), epoch=1, status="running")
    assert fault.struck.is_set()
    assert claim is not None
    assert (claim.epoch, claim.seq) == (2, 2)
    facts = await whole_run(direct, run.run)
    assert [fact for fact in facts if isinstance(fact, RunClaimed)] == [RunClaimed(2, "other", "worker-1")]
    with pytest.raises(RunFenced):
        await run.append(wrote())


@pytest.mark.parametrize("fate", CUTS)
@pytest.mark.parametrize("message_id", [None, "mail-7"])
@pytest.mark.parametrize("statement", ["INSERT INTO messages", "COMMIT"])
async def test_a_message_over_a_cut_connection_is_sent_once(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore, statement: str, message_id: str | None, fate: Fate
) -> None:
    run = await owned(direct)
    fault = proxy.fault(fate, statement)
    assert await store.send(run.run, answer(message_id))
    assert fault.struck.is_set()
    assert len(await direct.messages([run.run])) == 1


@pytest.mark.parametrize("fate", CUTS)
async def test_releases_and_heartbeats_over_a_cut_connection_are_made(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore, fate: Fate
) -> None:
    run = await owned(direct)
    faults = [proxy.fault(fate, "UPDATE runs"), proxy.fault(fate, "INSERT INTO workers")]
    await store.release(run.run, 1, "waiting", 99)
    await store.heartbeat(worker())
    # From a thread it is tried again with the next heartbeat only.
    faults.append(proxy.fault(fate, "INSERT INTO workers"))
    assert not await asyncio.to_thread(store.beat, worker("second"))
    assert await asyncio.to_thread(store.beat, worker("second"))
    assert all(fault.struck.is_set() for fault in faults)
    row = await direct.find("run-1")
    assert row is not None
    assert (row.status, row.wake_at, row.owner) == ("waiting", 99, None)
    assert {known.id for known, _ in await direct.workers()} == {"worker-1", "second"}


@pytest.mark.parametrize("fate", CUTS)
async def test_a_reader_of_a_cut_connection_does_not_notice(proxy: Proxy, store: PostgresStore, fate: Fate) -> None:
    run = await owned(store, "run-1", wrote_number(1))
    fault = proxy.fault(fate, "FROM journal")
    assert await values_of(store, run.run) == ["key 1"]
    assert fault.struck.is_set()


# -- Statements that linger --------------------------------------------------------------------------------------------


async def test_an_append_that_arrives_after_it_was_made_again_changes_nothing(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore
) -> None:
    run = await owned(store)
    fault = proxy.fault(Fate.LATE, APPEND)
    await run.append(wrote_number(1), item_at(1))
    await fault.arrive()
    await run.append(wrote_number(2))
    assert await values_of(direct, run.run) == ["key 1", "key 2"]
    assert len(await direct.stream(run.run)) == 1


async def test_a_creation_that_arrives_after_it_was_made_again_changes_nothing(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore
) -> None:
    fault = proxy.fault(Fate.LATE, CREATE)
    run = Owner(store, await create(store, "run-1"))
    await fault.arrive()
    await run.append(wrote_number(1))
    assert await values_of(direct, run.run) == ["key 1"]
    assert len(await direct.list_runs()) == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_an_append_that_arrives_between_the_look_and_the_second_try_counts(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore, count: int
) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(count)]
    late, again = proxy.fault(Fate.LATE, APPEND), proxy.fault(Fate.HELD, APPEND)
    appends = asyncio.gather(*(run.append(wrote_number(1), item_at(1)) for run in runs))
    await again.struck.wait()
    await late.arrive()
    await again.arrive()
    await appends
    await asyncio.gather(*(run.append(wrote_number(2), item_at(2)) for run in runs))
    for run in runs:
        assert await values_of(direct, run.run) == ["key 1", "key 2"]
        assert len(await direct.stream(run.run)) == 2


async def test_a_creation_that_arrives_between_the_look_and_the_second_try_is_claimed(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore
) -> None:
    late, again = proxy.fault(Fate.LATE, CREATE), proxy.fault(Fate.HELD, CREATE)
    creating = asyncio.ensure_future(try_create(store, "run-1"))
    await again.struck.wait()
    await late.arrive()
    await again.arrive()
    claim = await creating
    assert claim is not None
    assert (claim.epoch, claim.seq) == (1, 1)
    assert len(await whole_run(direct, claim.run)) == 1


async def test_a_creation_that_somebody_else_makes_between_the_tries_is_not_ours(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore
) -> None:
    proxy.fault(Fate.LOST, CREATE)
    again = proxy.fault(Fate.HELD, CREATE)
    creating = asyncio.ensure_future(try_create(store, "run-1"))
    await again.struck.wait()
    await create_another(direct, "run-1")
    await again.arrive()
    assert await creating is None
    row = await direct.find("run-1")
    assert row is not None
    assert (row.uid, row.owner) == ("another uid", "other")


async def test_an_append_that_was_made_before_its_run_was_taken_is_told_as_made(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore
) -> None:
    run = await owned(store)
    late, again = proxy.fault(Fate.LATE, APPEND), proxy.fault(Fate.HELD, APPEND)
    appending = asyncio.ensure_future(run.append(wrote_number(1)))
    await again.struck.wait()
    await late.arrive()
    assert await direct.claim(run.run, worker("other"), epoch=1, status="running") is not None
    await again.arrive()
    await appending
    assert await values_of(direct, run.run) == ["key 1"]


async def test_a_fenced_append_that_arrives_late_writes_nothing(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore
) -> None:
    run = await owned(store)
    late, again = proxy.fault(Fate.LATE, APPEND), proxy.fault(Fate.HELD, APPEND)
    appending = asyncio.ensure_future(run.append(wrote_number(1)))
    await again.struck.wait()
    assert await direct.claim(run.run, worker("other"), epoch=1, status="running") is not None
    await again.arrive()
    with pytest.raises(RunFenced, match="run-1"):
        await appending
    await late.arrive()
    assert await values_of(direct, run.run) == []


async def test_claims_and_messages_that_arrive_late_are_neither_lost_nor_doubled(
    proxy: Proxy, store: PostgresStore, direct: PostgresStore
) -> None:
    run = await owned(direct)
    for statement in ("FOR UPDATE", "UPDATE runs", "COMMIT"):
        fault = proxy.fault(Fate.LATE, statement)
        row = await direct.find("run-1")
        assert row is not None
        claiming = asyncio.ensure_future(store.claim(run.run, worker(statement), epoch=row.epoch, status="running"))
        await fault.struck.wait()
        await fault.arrive()
        claim = await claiming
        assert claim is not None
        assert (claim.epoch, claim.seq) == (row.epoch + 1, row.seq + 1)
    for statement in ("INSERT INTO messages", "COMMIT"):
        fault = proxy.fault(Fate.LATE, statement)
        sending = asyncio.ensure_future(store.send(run.run, answer()))
        await fault.struck.wait()
        await fault.arrive()
        assert await sending
    await whole_run(direct, run.run)
    assert len(await direct.messages([run.run])) == 2


# -- Nobody answers ----------------------------------------------------------------------------------------------------


async def test_what_is_swallowed_is_made_again_on_another_connection(
    proxy: Proxy, database: str, direct: PostgresStore, new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_flow.journal.postgres_writer.STATEMENT_SECONDS", 0.3)
    monkeypatch.setattr("durable_flow.journal.postgres_connections._COMMAND_SECONDS", 0.3)
    monkeypatch.setattr("durable_flow.journal.postgres._BEAT_SECONDS", 0.3)
    store = await new_store(proxy.url(database))
    run = await owned(store)
    faults = [proxy.fault(Fate.SWALLOWED, text) for text in (APPEND, "COMMIT", "FROM journal")]
    await run.append(wrote_number(1))
    assert await store.send(run.run, answer())
    assert await values_of(store, run.run) == ["key 1"]
    faults.append(proxy.fault(Fate.SWALLOWED, "INSERT INTO workers"))
    assert not await asyncio.to_thread(store.beat, worker())
    monkeypatch.setattr("durable_flow.journal.postgres._BEAT_SECONDS", 10.0)
    assert await asyncio.to_thread(store.beat, worker())
    assert all(fault.struck.is_set() for fault in faults)
    assert len(await direct.messages([run.run])) == 1


async def test_when_nobody_answers_any_more_all_are_told_in_time(
    proxy: Proxy, database: str, direct: PostgresStore, new_store: Store
) -> None:
    store = await new_store(proxy.url(database), deadline_seconds=PATIENCE_SECONDS)
    first, *runs = [await owned(store, f"run-{n}") for n in range(300)]
    fault = proxy.fault(Fate.SWALLOWED, APPEND)
    began = asyncio.get_running_loop().time()
    swallowed = asyncio.ensure_future(first.append(wrote()))
    await fault.struck.wait()
    proxy.go_dark()
    calls = [run.append(wrote()) for run in runs] + [store.find("run-1"), store.send(first.run, answer())]
    errors = await asyncio.gather(swallowed, *calls, return_exceptions=True)
    assert asyncio.get_running_loop().time() - began < 3 * PATIENCE_SECONDS + LATE_SECONDS
    assert isinstance(errors[0], WriteOutcomeUnknown)
    assert {type(error) for error in errors[1:-1]} == {JournalUnavailableError}
    assert isinstance(errors[-1], JournalUnavailableError | WriteOutcomeUnknown)
    for error in errors:
        assert proxy._server.PASSWORD not in repr(error)
    # And it goes on where it can.
    proxy.go_light()
    await asyncio.gather(*(run.append(wrote_number(1)) for run in runs))
    for run in runs[::50]:
        assert await values_of(direct, run.run) == ["key 1"]


async def test_a_store_is_closed_although_nobody_answers(proxy: Proxy, database: str, new_store: Store) -> None:
    store = await new_store(proxy.url(database), deadline_seconds=PATIENCE_SECONDS)
    await owned(store)
    assert await asyncio.to_thread(store.beat, worker())
    end_listening = store.listen(lambda runs: None)
    await store.find("run-1")
    end_listening()
    proxy.go_dark()
    asked = asyncio.ensure_future(store.find("run-1"))
    await asyncio.sleep(0)
    asked.cancel()
    async with asyncio.timeout(LATE_SECONDS):
        await store.close()
    assert [c for c in store._connections._made if not c.is_closed()] == []


# -- Round trips -------------------------------------------------------------------------------------------------------


async def test_a_commit_is_one_round_trip_however_many_share_it(proxy: Proxy, store: PostgresStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(100)]
    await asyncio.gather(*(run.append(wrote(), wrote()) for run in runs))  # prepares the statement
    link = proxy.link_of(APPEND)
    before, commits = len(link.requests), store.stats()["commits"]
    for _ in range(3):
        await asyncio.gather(*(run.append(wrote(), wrote()) for run in runs))
    assert len(link.requests) - before == 3
    assert store.stats()["commits"] - commits == 3


async def test_a_chain_of_appends_makes_one_round_trip_for_each(proxy: Proxy, store: PostgresStore) -> None:
    run = await owned(store, "run-1")
    await run.append(wrote(), wrote())  # prepares the statement
    link = proxy.link_of(APPEND)
    before = len(link.requests)
    for _ in range(20):
        await run.append(wrote(), wrote())
    assert len(link.requests) - before == 20
    assert all(APPEND in sql for sql in link.requests[before:])


# -- Runs --------------------------------------------------------------------------------------------------------------


async def in_another_loop(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main()` in a loop and thread of its own: what it has opened is closed while the proxy still works."""
    with ThreadPoolExecutor(1) as threads:
        return await asyncio.wrap_future(threads.submit(lambda: asyncio.run(asyncio.wait_for(main(), LATE_SECONDS))))


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED, Fate.SWALLOWED])
async def test_a_run_whose_creation_is_in_doubt_can_be_started_again(
    proxy: Proxy, database: str, impatient: Callable[[float], None], fate: Fate
) -> None:
    impatient(PATIENCE_SECONDS)
    told, light = threading.Event(), threading.Event()

    async def work() -> Any:
        flow = Counting(journal=proxy.url(database))
        await flow.run(run_id="first", start_event=Count(name="first"))
        proxy.fault(fate, CREATE, blackout=True)
        with pytest.raises(WriteOutcomeUnknown):
            await flow.run(run_id="second", start_event=Count(name="second"))
        told.set()
        await asyncio.to_thread(light.wait)
        return await flow.run(run_id="second", start_event=Count(name="second"))

    async def failed() -> bool:
        return told.is_set() or working.done()

    working = asyncio.ensure_future(in_another_loop(work))
    await until(failed)
    proxy.go_light()
    light.set()
    assert await working == RESULT


@pytest.mark.parametrize("fate", CUTS)
async def test_a_run_does_not_notice_cut_connections(proxy: Proxy, database: str, fate: Fate) -> None:
    async def work() -> None:
        flow = Counting(journal=proxy.url(database))
        assert await flow.run(run_id="run", start_event=Count(name="run")) == RESULT
        assert set(flow.ran.values()) == {1}

    faults = [proxy.fault(fate, text) for text in (CREATE, APPEND, APPEND, APPEND)]
    await in_another_loop(work)
    assert all(fault.struck.is_set() for fault in faults)
