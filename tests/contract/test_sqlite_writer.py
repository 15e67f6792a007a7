"""The writer under trouble: group commit, refusals, failing commits, locks, ended loops and forks."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from durable_flow.errors import (
    JournalError,
    JournalUnavailableError,
    RunFenced,
    WriteOutcomeUnknown,
)
from durable_flow.journal import files, writer
from durable_flow.journal import sqlite as sqlite_module
from durable_flow.journal.protocol import RunUpdate
from durable_flow.journal.sqlite import SqliteStore
from durable_flow.records import RunClaimed

from .samples import Owner, answer, create, facts_of, item_at, owned, try_create, worker, wrote


class Faulty(sqlite3.Connection):
    """A connection that fails as a disk does: each fault is used once, when a statement begins with its text."""

    faults: ClassVar[list[tuple[str, str, int]]] = []
    opened: ClassVar[int] = 0

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        Faulty.opened += 1

    def execute(self, text: str, *params: Any) -> sqlite3.Cursor:
        for fault in Faulty.faults:
            start, when, code = fault
            if text.startswith(start):
                if code != -1:
                    Faulty.faults.remove(fault)
                if when == "after":
                    super().execute(text, *params)
                elif self.in_transaction:
                    # As SQLite does by itself after such an error.
                    super().execute("ROLLBACK")
                error = sqlite3.OperationalError(f"simulated {when} {start}")
                error.sqlite_errorcode = abs(code) if code != -1 else sqlite3.SQLITE_IOERR
                raise error
        return super().execute(text, *params)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, int]]]:
    """Faults of the connections of stores opened after this; code -1 is an I/O error that comes again and again."""

    def connect(path: Path, **options: Any) -> sqlite3.Connection:
        with monkeypatch.context() as patch:
            patch.setattr(files.sqlite3, "connect", partial(sqlite3.connect, factory=Faulty))
            return files.connect(path, **options)

    monkeypatch.setattr(sqlite_module, "connect", connect)
    Faulty.faults = []
    Faulty.opened = 0
    yield Faulty.faults
    Faulty.faults = []


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(f"sqlite:///{tmp_path}/jobs.db", durability="normal")
    await store.open()
    yield store
    await store.close()


async def impatient(path: Path, seconds: float = 0.3) -> SqliteStore:
    store = SqliteStore(f"sqlite:///{path}/jobs.db", durability="normal", deadline_seconds=seconds)
    await store.open()
    return store


@contextmanager
def locked(store: SqliteStore) -> Iterator[None]:
    """Keep the database's write lock, as another process would."""
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_what_waits_is_committed_together(store: SqliteStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(50)]
    before = store.stats()["commits"]
    with locked(store):
        first = asyncio.gather(*(store.submit(run.next(wrote(), wrote())) for run in runs))
    await first
    # The first may have gone ahead of the others to wait for the lock.
    assert store.stats()["commits"] - before <= 2
    for run in runs:
        assert [record.seq for record in await store.read(run.run)] == [1, 2, 3]


async def test_what_one_turn_of_the_loop_brings_is_committed_together(store: SqliteStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(3)]
    before = store.stats()["commits"]
    submitted = []
    for run in runs:
        submitted.append(store.submit(run.next(wrote())))
        # What else the turn does meanwhile, in which the thread could commit.
        time.sleep(0.02)  # noqa: ASYNC251
    await asyncio.gather(*submitted)
    assert store.stats()["commits"] - before == 1


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 33, 128, 129, 500])
async def test_groups_of_every_size_are_written_whole_and_in_order(store: SqliteStore, count: int) -> None:
    run = await owned(store)
    facts = [wrote(f"key {n}", str(n).encode()) for n in range(count)]
    await run.append(*facts)
    assert (await facts_of(store, run.run))[1:] == facts


async def test_only_the_guilty_unit_of_a_batch_fails(store: SqliteStore) -> None:
    good, too_large, taken, stale = [await owned(store, f"run-{n}") for n in range(4)]
    await taken.append(item_at(1))
    impossible = too_large.next(wrote())
    impossible = impossible._replace(records=[impossible.records[0]._replace(at=1 << 70)])
    with locked(store):
        outcomes = [
            store.submit(append)
            for append in (
                good.next(wrote()),
                impossible,
                taken.next(item_at(1)),
                stale.next(wrote(), after=5),
            )
        ]
    results = await asyncio.gather(*outcomes, return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], JournalError)
    assert "run-1" in str(results[1])
    assert isinstance(results[2], JournalError)
    assert "run-2" in str(results[2])
    assert not isinstance(results[2], RunFenced)
    assert isinstance(results[3], RunFenced)
    heads = {row.run_id: row.seq for row in await store.list_runs()}
    assert heads == {"run-0": 2, "run-1": 1, "run-2": 2, "run-3": 1}
    # And the refused runs are not lost for good.
    await too_large.append(wrote())


async def test_a_writer_that_has_seen_less_of_a_run_than_the_journal_is_fenced(
    store: SqliteStore, tmp_path: Path
) -> None:
    run = await owned(store)
    await run.append(wrote())
    other = await impatient(tmp_path)
    # Somebody else writes in this epoch, which must not happen; the unique key still keeps the first one's record.
    append = run.next(wrote("other"))
    await other.append(append)
    with pytest.raises(RunFenced, match="run-1"):
        await run.append(wrote("late"))
    assert await facts_of(store, run.run) == [*(await facts_of(other, run.run))[:2], wrote("other")]
    await other.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failed_commit_is_made_exactly_once(faults: list[Any], store: SqliteStore, when: str) -> None:
    run = await owned(store)
    await store.heartbeat(worker())
    faults.append(("COMMIT", when, sqlite3.SQLITE_IOERR))
    await run.append(wrote(), item_at(1), update=RunUpdate("waiting", 99))
    assert not faults
    assert Faulty.opened == 2  # a connection is not used any more after such an error
    row = await store.find("run-1")
    assert row is not None
    assert (row.seq, row.status, row.wake_at) == (3, "waiting", 99)
    assert len(await store.stream(run.run)) == 1

    faults.append(("COMMIT", when, sqlite3.SQLITE_IOERR))
    claim = await try_create(store, "run-2")
    assert claim is not None
    row = await store.find("run-2")
    assert row is not None
    assert (claim.run, claim.seq, claim.epoch) == (row.run, 1, 1)

    faults.append(("COMMIT", when, sqlite3.SQLITE_IOERR))
    taken = await store.claim(claim.run, worker("other"), epoch=1, status="running")
    assert taken is not None
    assert (taken.epoch, taken.seq) == (2, 2)
    assert [type(fact) for fact in await facts_of(store, claim.run)].count(RunClaimed) == 1

    faults.append(("COMMIT", when, sqlite3.SQLITE_IOERR))
    assert await store.send(claim.run, answer())
    faults.append(("COMMIT", when, sqlite3.SQLITE_IOERR))
    assert await store.send(claim.run, answer("mail-7"))
    assert len(await store.messages([claim.run])) == 2
    assert not faults


async def test_a_commit_that_failed_is_not_taken_for_that_of_a_later_owner(
    faults: list[Any], store: SqliteStore, tmp_path: Path
) -> None:
    run = await owned(store)
    other = await impatient(tmp_path)
    faults.append(("COMMIT", "before", sqlite3.SQLITE_IOERR))
    pending = store.submit(run.next(wrote("old")))
    # Whichever comes first: the record at this place is one of the two, and only its writer hears of success.
    claim = await other.claim(run.run, worker("other"), epoch=1, status="running")
    result = (await asyncio.gather(pending, return_exceptions=True))[0]
    facts = await facts_of(store, run.run)
    assert claim is not None
    assert (wrote("old") in facts) == (result is None)
    assert result is None or isinstance(result, RunFenced)
    await other.close()


@pytest.mark.parametrize("start", ["INSERT INTO journal", "INSERT INTO stream", "UPDATE runs", "SELECT run, epoch"])
async def test_nothing_is_committed_alone_after_a_full_disk(faults: list[Any], store: SqliteStore, start: str) -> None:
    run = await owned(store)
    faults.append((start, "before", sqlite3.SQLITE_FULL))
    await run.append(wrote(), item_at(1), wrote(), update=RunUpdate("waiting"))
    assert not faults
    assert [record.seq for record in await store.read(run.run)] == [1, 2, 3, 4]
    assert len(await store.stream(run.run)) == 1


async def test_a_disk_that_stays_broken_is_told_in_time(tmp_path: Path, faults: list[Any]) -> None:
    store = await impatient(tmp_path)
    run = await owned(store)
    faults.append(("BEGIN", "before", -1))
    with pytest.raises(JournalUnavailableError, match=r"jobs\.db.*disk"):
        await run.append(wrote())
    faults[:] = [("COMMIT", "before", -1)]
    with pytest.raises(WriteOutcomeUnknown, match=r"jobs\.db.*Resume the run"):
        await run.append(wrote())
    faults.clear()
    await run.append(wrote())
    assert [record.seq for record in await store.read(run.run)] == [1, 2]
    await store.close()


async def test_a_write_waits_for_a_lock_to_go(store: SqliteStore) -> None:
    run = await owned(store)
    with locked(store):
        append = store.submit(run.next(wrote()))
        # A second connection reads meanwhile.
        assert len(await store.read(run.run)) == 1
        assert not append.done()
    await append
    assert len(await store.read(run.run)) == 2


async def test_a_lock_that_stays_is_told_with_path_and_remedy(tmp_path: Path) -> None:
    store = await impatient(tmp_path)
    run = await owned(store)
    with locked(store), pytest.raises(JournalUnavailableError, match=r"jobs\.db: another process keeps .* locked"):
        await run.append(wrote())
    await run.append(wrote())
    assert [record.seq for record in await store.read(run.run)] == [1, 2]
    await store.close()


async def test_the_queue_is_bounded_for_callers_that_can_wait(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_QUEUED", 4)
    assert store._writer is not None
    with locked(store):
        creates = [asyncio.ensure_future(create(store, f"run-{n}")) for n in range(20)]
        await asyncio.sleep(0)
        assert store._writer._queued == 4
        creates[10].cancel()
    await asyncio.gather(*creates, return_exceptions=True)
    assert len(await store.list_runs()) == 19


async def test_close_finishes_what_is_queued(store: SqliteStore, tmp_path: Path) -> None:
    run = await owned(store)
    with locked(store):
        append = store.submit(run.next(wrote()))
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
    await closing
    await append
    with pytest.raises(JournalUnavailableError, match="Open it"):
        await store.append(run.next(wrote()))
    await store.open()
    assert [record.seq for record in await store.read(run.run)] == [1, 2]


def test_a_loop_that_ended_makes_the_thread_neither_raise_nor_stay(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    store = SqliteStore(f"sqlite:///{tmp_path}/jobs.db")
    loop.run_until_complete(store.open())
    run = loop.run_until_complete(owned(store))
    assert store._writer is not None
    thread = store._writer._thread
    assert thread is not None

    async def leave() -> None:
        store.submit(run.next(wrote()))

    with locked(store):
        loop.run_until_complete(leave())
        loop.close()
    store.abandon(worker())
    thread.join(10)
    assert not thread.is_alive()

    async def look() -> tuple[list[int], str | None]:
        later = SqliteStore(store.url)
        await later.open()
        row = await later.find("run-1")
        seqs = [record.seq for record in await later.read(run.run)]
        await later.close()
        assert row is not None
        return seqs, row.owner

    assert asyncio.run(look()) == ([1, 2], None)


def test_several_loops_one_after_another_leave_no_thread(tmp_path: Path) -> None:
    async def work(n: int) -> None:
        store = SqliteStore(f"sqlite:///{tmp_path}/jobs.db", durability="normal")
        await store.open()
        await create(store, f"run-{n}")
        await store.close()

    before = set(threading.enumerate())
    for n in range(3):
        asyncio.run(work(n))
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= before


async def test_a_heartbeat_gets_through_while_the_loop_is_blocked(store: SqliteStore) -> None:
    beaten: list[bool] = []
    thread = threading.Thread(target=lambda: beaten.append(store.beat(worker())))
    thread.start()
    thread.join()  # blocks the loop
    assert beaten == [True]
    assert [known for known, _ in await store.workers()] == [worker()]


async def test_a_forked_child_is_told_to_open_its_own(store: SqliteStore) -> None:
    run = await owned(store)
    reader, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            store.submit(run.next(wrote("child")))
        except BaseException as exc:
            said = f"{type(exc).__name__}: {exc}"
        os.write(to_parent, said.encode())
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    os.close(to_parent)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    assert said.startswith("JournalUnavailableError")
    assert "forked" in said
    await run.append(wrote("parent"))
    assert (await facts_of(store, run.run))[1:] == [wrote("parent")]


async def test_owner_counts_as_the_store_does(store: SqliteStore) -> None:
    claim = await create(store)
    run = Owner(store, claim)
    await run.append(wrote())
    await run.append(wrote(), wrote())
    stats = store.stats()
    assert (stats["creates"], stats["appends"], stats["rows"], stats["commits"]) == (1, 2, 4, 3)
