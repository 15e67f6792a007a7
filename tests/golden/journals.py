"""The journals that earlier releases wrote are folded as they stood, shown, and gone on with by today's code.

Run by `test_golden_journals.py` in a process of its own: their event classes have names that other tests use, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from engine.flows import recorded

from durable_flow import Journal, WorkflowHandler
from durable_flow.fold import fold
from durable_flow.records import StepCompleted, WaitAnswered
from tests.golden.programs import STANDINGS, Address, AsksInside, Customer, Fails, Item

GOLDEN = sorted(Path(__file__).parent.glob("*.sql"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The journal of a release, in a file of the test's own."""
    with contextlib.closing(sqlite3.connect(tmp_path / "golden.db")) as connection:
        connection.executescript(request.param.read_text(encoding="utf-8"))
    return f"sqlite:///{tmp_path}/golden.db"


@pytest.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    async with Journal(url, durability="normal") as journal:
        yield journal


def test_this_release_has_a_golden_journal() -> None:
    from durable_flow import __version__

    assert __version__ in [path.stem for path in GOLDEN]


@pytest.mark.parametrize("run_id", STANDINGS)
async def test_a_golden_run_stands_where_it_was_left(journal: Journal, run_id: str) -> None:
    standing = STANDINGS[run_id]
    run = await journal.run(run_id)
    assert (run.workflow, run.status) == (standing.flow.__name__, standing.status)
    records = await journal.history(run_id)
    assert [record.seq for record in records] == list(range(1, run.seq + 1))
    if run_id != "imported":
        assert sum(isinstance(record.fact, standing.until) for record in records) == standing.count
    for middle in range(len(records)):
        assert fold(records[middle:], fold(records[:middle])) == fold(records)


@pytest.mark.parametrize("run_id", STANDINGS)
async def test_a_golden_run_replays_as_it_was(journal: Journal, run_id: str) -> None:
    flow = STANDINGS[run_id].flow(journal=journal)
    records = await journal.history(run_id)
    completed = sum(isinstance(record.fact, StepCompleted) for record in records)
    report = await flow.replay(run_id)
    assert report.ok, report
    assert report.replayed == completed


@pytest.mark.parametrize("run_id", STANDINGS)
async def test_a_golden_run_goes_on_to_its_end(journal: Journal, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    standing = STANDINGS[run_id]
    monkeypatch.setattr(Fails, "repaired", True)
    flow = standing.flow(journal=journal, timeout=None)
    before = await journal.history(run_id)
    handler = await (flow.retry(run_id) if run_id == "failed" else flow.resume(run_id))
    assert await ended(journal, run_id, handler) == standing.result
    after = await journal.history(run_id)
    assert after[: len(before)] == before
    done = [record.fact.task for record in after if isinstance(record.fact, StepCompleted)]
    assert len(done) == len(set(done))  # what had completed has not run again
    # What was recorded by both releases replays as a whole.
    report = await flow.replay(run_id)
    assert report.ok, report
    assert report.replayed == len(done)


async def ended(journal: Journal, run_id: str, handler: WorkflowHandler) -> Any:
    async with asyncio.timeout(20):
        for n, event in enumerate(STANDINGS[run_id].answers, 1):
            await journal.send(run_id, event)
            if run_id == "fan-out":
                await recorded(journal, run_id, WaitAnswered, n)
        return await handler


async def test_a_golden_call_is_not_made_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsksInside, "calls", 100)
    handler = await AsksInside(journal=journal, timeout=None).resume("asks-inside")
    assert await ended(journal, "asks-inside", handler) == [1, "yes"]
    assert AsksInside.calls == 100


async def test_golden_values_and_stream_items_are_read_as_they_were_written(journal: Journal) -> None:
    context = (await journal.state("finished")).context
    assert context["customer"] == Customer(name="Ada", since=context["customer"].since)
    assert context["customer"].since.isoformat() == "2024-02-29T00:00:00+00:00"
    assert context["address"] == Address("Main", ("a", "b"))
    assert str(context["sum"]) == "12.50"
    items = [item.event async for item in journal.stream("finished")]
    assert [item for item in items if isinstance(item, Item)] == [Item(number=0), Item(number=1), Item(number=2)]
