"""Streams over processes: live, in order, without gap or repetition, resumed by position, though a writer is killed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import durable_flow.engine.watcher
import durable_flow.journal.journal
from durable_flow import Journal, RunNotFoundError, WorkflowHandler
from durable_flow.journal.info import StreamItem

from .processes import Process, until
from .program import ITEMS, Go, Numbered, Publisher

Start = Callable[..., Any]

FIRST_HALF = [f"{n} {n}" for n in range(1, ITEMS + 1)]
SECOND_HALF = [f"{n} {n}" for n in range(ITEMS + 1, 2 * ITEMS + 1)]


@pytest.fixture
def only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hints nothing would be seen before a test's deadline is over."""
    monkeypatch.setattr(durable_flow.journal.journal, "STREAM_POLL_SECONDS", 1000.0)
    monkeypatch.setattr(durable_flow.engine.watcher, "POLL_BEHIND_HINTS_SECONDS", 1000.0)


async def published(journal: Journal, run_id: str = "r") -> None:
    """Wait until the first half is there and the run waits."""

    async def waits() -> bool:
        try:
            return bool((await journal.run(run_id)).waits)
        except RunNotFoundError:
            return False

    await until(waits)


async def said(process: Process, count: int) -> list[str]:
    return [await process.says() for _ in range(count)]


async def taken(items: AsyncIterator[StreamItem], count: int) -> list[str]:
    """Return the next items, as the reading process says them."""
    found: list[str] = []
    async with asyncio.timeout(60):
        async for item in items:
            assert isinstance(item.event, Numbered)
            found.append(f"{item.position} {item.event.number}")
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("how", ["read", "follow"])
async def test_a_reader_in_another_process_reads_live_and_to_the_end(journal: Journal, alive: Start, how: str) -> None:
    async with alive("writer", do="publish") as writer:
        await published(journal)
        async with alive("reader", do=how) as reader:
            # The run is in its middle, and what it has published is read.
            assert await said(reader, ITEMS) == FIRST_HALF
            assert (await journal.run("r")).status == "waiting"
            await journal.send("r", Go(response="go"))
            assert await said(reader, ITEMS + 1) == [*SECOND_HALF, "end"]
            assert await reader.ends() == 0
        assert await writer.says() == "published"


@pytest.mark.parametrize("how", ["read", "follow"])
async def test_a_reader_that_is_killed_goes_on_behind_its_last_position(
    journal: Journal, alive: Start, how: str
) -> None:
    async with alive("writer", do="publish") as writer:
        await published(journal)
        async with alive("reader", do=how) as reader:
            assert await said(reader, 4) == FIRST_HALF[:4]
            await reader.kill()
        async with alive("reader", do=how, after=4) as reader:
            assert await said(reader, ITEMS - 4) == FIRST_HALF[4:]
            await journal.send("r", Go(response="go"))
            assert await said(reader, ITEMS + 1) == [*SECOND_HALF, "end"]
        assert await writer.says() == "published"


@pytest.mark.parametrize("how", ["read", "follow"])
async def test_a_reader_sees_each_item_once_although_the_writer_is_killed(
    journal: Journal, alive: Start, how: str
) -> None:
    async with alive("writer", do="publish") as writer:
        await published(journal)
        async with alive("reader", do=how) as reader, alive("other", do="publish") as other:
            assert await said(reader, ITEMS) == FIRST_HALF
            await writer.kill()
            await journal.send("r", Go(response="go"))
            assert await said(reader, ITEMS + 1) == [*SECOND_HALF, "end"]
            assert await other.says() == "published"


async def test_a_reader_is_woken_by_what_another_process_writes(
    journal: Journal, alive: Start, only_hints: None
) -> None:
    async with alive("writer", do="publish") as writer:
        await published(journal)
        stream = journal.stream("r")
        assert await taken(stream, ITEMS) == FIRST_HALF
        rest = asyncio.create_task(taken(journal.stream("r", after=ITEMS), 100))
        await asyncio.sleep(0)
        await journal.send("r", Go(response="go"))
        assert await rest == SECOND_HALF
        assert await writer.says() == "published"


async def test_the_handler_of_a_run_in_another_process_is_woken_by_what_it_writes(
    journal: Journal, alive: Start, only_hints: None, database_url: str
) -> None:
    async with alive("writer", do="publish") as writer:
        await published(journal)
        handler = Publisher(timeout=None, journal=database_url).run(run_id="r")
        items = asyncio.create_task(numbers(handler))
        await until(lambda: handler.stream_position == ITEMS)
        await journal.send("r", Go(response="go"))
        assert await items == list(range(1, 2 * ITEMS + 1))
        assert await handler == await writer.says() == "published"


async def numbers(handler: WorkflowHandler) -> list[int]:
    async with asyncio.timeout(60):
        return [event.number async for event in handler.stream_events() if isinstance(event, Numbered)]


async def test_a_run_is_woken_by_a_message_that_another_store_sends(
    journal: Journal, only_hints: None, database_url: str
) -> None:
    handler = Publisher(timeout=None, journal=Journal(database_url, durability="normal")).run(run_id="r")
    await published(journal)
    await journal.send("r", Go(response="go"))
    async with asyncio.timeout(60):
        assert await handler == "published"


async def test_a_reader_that_breaks_off_leaves_no_listener_behind(journal: Journal, alive: Start) -> None:
    async with alive("writer", do="publish"):
        await published(journal)
        kept = journal.stream("r")
        assert await taken(kept, 2) == FIRST_HALF[:2]
        cancelled = asyncio.create_task(taken(journal.stream("r", after=ITEMS), 1))
        await until(lambda: journal._shared._readers)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        gc.collect()
        assert journal._shared._readers == {}
        # The one that was kept goes on where it broke off.
        assert await taken(kept, ITEMS - 2) == FIRST_HALF[2:]
