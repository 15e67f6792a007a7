"""The server is stopped in the middle of work: what was acknowledged stays, once, and the work goes on."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from contract.samples import owned
from postgres import PostgresServer

import durable_flow
from durable_flow import Journal, JournalUnavailableError
from durable_flow.errors import WriteOutcomeUnknown
from durable_flow.journal.postgres import PostgresStore
from durable_flow.records import CallRecorded, RunCompleted, StepCompleted

from .flows import LAST, RESULT, Count, Counting
from .looking import Writer, until, values_of, written, wrote_number

pytestmark = pytest.mark.usefixtures("discreet")

RUNS = 50
TESTS = Path(__file__).resolve().parents[1]
PRODUCT = Path(durable_flow.__file__).resolve().parents[1]
Mode = Literal["fast", "immediate"]


@pytest.fixture
def mortal_url(mortal: PostgresServer, mortal_database: str) -> str:
    """The URL, with a password, of a database on the server that tests may stop."""
    return mortal.tcp_url(mortal_database, mortal.USER, mortal.PASSWORD)


@asynccontextmanager
async def stopped(server: PostgresServer, mode: Mode) -> AsyncIterator[None]:
    """Stop the server for the block, while the loop goes on."""
    await asyncio.to_thread(server.stop, mode)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


def give_up_after(journal: Journal, seconds: float) -> None:
    """Make the open store of a journal try for so long to get something written."""
    store = journal._shared.store
    assert isinstance(store, PostgresStore)
    assert store._writer is not None
    store._deadline_seconds = store._writer._deadline_seconds = seconds


async def assert_counted_once(journal: Journal) -> None:
    """Every run has come to its end, by each of its steps once; and the effects that they recorded are there once."""
    for n in range(RUNS):
        records = await journal.history(f"run-{n}")
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        facts = [record.fact for record in records]
        completed = [fact.task for fact in facts if isinstance(fact, StepCompleted)]
        assert len(completed) == len(set(completed)) == LAST + 1
        assert len([fact for fact in facts if isinstance(fact, CallRecorded)]) == LAST
        assert isinstance(facts[-1], RunCompleted)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_runs_do_not_notice_that_the_server_was_stopped_and_started(
    mortal: PostgresServer, mortal_url: str, mode: Mode
) -> None:
    flow = Counting(journal=mortal_url, moment=RUNS * LAST // 4)
    handlers = [flow.run(run_id=f"run-{n}", start_event=Count(name=f"run-{n}")) for n in range(RUNS)]
    await flow.begun.wait()
    async with stopped(mortal, mode):
        assert not any(handler.is_done() for handler in handlers)
    assert await asyncio.gather(*handlers) == [RESULT] * RUNS
    # Nothing was given up: no step began twice.
    assert set(flow.ran.values()) == {1}
    async with Journal(mortal_url) as journal:
        await assert_counted_once(journal)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_what_the_server_acknowledged_before_it_was_stopped_again_and_again_is_there_once(
    mortal: PostgresServer, mortal_url: str, new_store: Callable[..., Any], mode: Mode
) -> None:
    store: PostgresStore = await new_store(mortal_url)
    writers = [Writer(await owned(store, f"run-{n}")) for n in range(20)]
    writing = asyncio.gather(*(writer.write() for writer in writers))
    for _ in range(2):
        await written(writers, 1_000)
        async with stopped(mortal, mode):
            assert not writing.done()
    await written(writers, 1_000)
    for writer in writers:
        writer.enough = True
    await writing
    for writer in writers:
        assert writer.error is None
        assert await values_of(store, writer.owner.run) == writer.acknowledged


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_runs_that_a_server_left_alone_for_too_long_are_finished_later(
    mortal: PostgresServer, mortal_url: str, where: str
) -> None:
    async with Journal(mortal_url) as journal:
        flow = Counting(journal=journal, moment=RUNS * LAST // 4)
        handlers = [flow.run(run_id=f"run-{n}", start_event=Count(name=f"run-{n}")) for n in range(RUNS)]
        await flow.begun.wait()
        # Not before and not after: a server that works may be slow.
        give_up_after(journal, 0.3)
        async with stopped(mortal, "immediate"):
            errors = await asyncio.gather(*handlers, return_exceptions=True)
        give_up_after(journal, 30.0)
        for error in errors:
            assert isinstance(error, JournalUnavailableError | WriteOutcomeUnknown)
            assert mortal_url.partition("@")[2] in str(error)

        async def given_back() -> bool:
            return all(row.owner is None for row in await journal._shared.store.list_runs(unfinished=True))

        await until(given_back)
        if where == "here":
            resumed = await asyncio.gather(*(flow.resume(f"run-{n}") for n in range(RUNS)))
            assert await asyncio.gather(*resumed) == [RESULT] * RUNS
        else:
            path = os.pathsep.join([str(PRODUCT), str(TESTS)])
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "faults.flows", mortal_url, env={**os.environ, "PYTHONPATH": path}
            )
            assert await child.wait() == 0
        await assert_counted_once(journal)


async def test_a_writer_hears_in_time_that_the_server_stays_away_and_whether_its_write_is_in_doubt(
    mortal: PostgresServer, mortal_url: str, new_store: Callable[..., Any]
) -> None:
    store: PostgresStore = await new_store(mortal_url, deadline_seconds=3)
    writers = [Writer(await owned(store, f"run-{n}")) for n in range(20)]
    writing = asyncio.gather(*(writer.write() for writer in writers))
    await written(writers, 200)
    async with stopped(mortal, "immediate"):
        await writing
        with pytest.raises(JournalUnavailableError, match="Start the server"):
            await store.find("run-1")
    for writer in writers:
        assert isinstance(writer.error, JournalUnavailableError | WriteOutcomeUnknown)
        found = await values_of(store, writer.owner.run)
        more = [f"key {len(writer.acknowledged)}"] if isinstance(writer.error, WriteOutcomeUnknown) else []
        assert found in (writer.acknowledged, writer.acknowledged + more)
    # And the same store goes on.
    for writer in writers:
        seq = len(await store.read(writer.owner.run))
        writer.owner.seq = seq
        await writer.owner.append(wrote_number(-1))
