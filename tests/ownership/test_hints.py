"""What a store hears of the others: a hint soon after they have written, and none of its own writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from durable_flow.journal.protocol import Claim, JournalStore, NewMessage, NewRun, RunUpdate, WorkerId
from durable_flow.journal.sqlite import SqliteStore
from durable_flow.journal.url import open_store
from durable_flow.records import Record, RunCancelled

WORKER = WorkerId("w", "host", "boot", "namespace", 1, 1)


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[tuple[JournalStore, JournalStore]]:
    """Two open stores on one database."""
    both = (open_store(database_url), open_store(database_url))
    for store in both:
        await store.open()
    yield both
    for store in both:
        await store.close()


class Ear:
    """Collects hints."""

    def __init__(self, store: JournalStore):
        self.hints: list[Collection[int] | None] = []
        self._heard = asyncio.Event()
        self.end = store.listen(self._hear)

    def _hear(self, runs: Collection[int] | None) -> None:
        self.hints.append(runs)
        self._heard.set()

    async def hears_of(self, run: int) -> None:
        async with asyncio.timeout(30):
            while not any(hint is None or run in hint for hint in self.hints):
                self._heard.clear()
                await self._heard.wait()


async def created(store: JournalStore, run_id: str) -> Claim:
    # Any record will do: stores do not look into it.
    claim = await store.create(
        NewRun(run_id, run_id, "W", "shape"), [Record(1, store.now(), True, RunCancelled("x"))], RunUpdate("running"),
        WORKER,
    )  # fmt: skip
    assert claim is not None
    return claim


async def settled(ear: Ear, writer: JournalStore) -> None:
    """Wait until the ear hears, and forget what it has heard so far."""
    claim = await created(writer, "first")
    async with asyncio.timeout(30):
        while not ear.hints:
            assert await writer.send(claim.run, NewMessage("cancel", reason="x"))
            await asyncio.sleep(0.02)
    ear.hints.clear()


async def test_a_message_that_another_store_sends_is_heard_of(stores: tuple[JournalStore, JournalStore]) -> None:
    ours, theirs = stores
    ear = Ear(ours)
    await settled(ear, theirs)
    run = (await created(ours, "r")).run
    await theirs.send(run, NewMessage("cancel", reason="x"))
    await ear.hears_of(run)
    ear.end()


async def test_one_that_listens_no_longer_hears_nothing(stores: tuple[JournalStore, JournalStore]) -> None:
    ours, theirs = stores
    ended, ear = Ear(ours), Ear(ours)
    await settled(ear, theirs)
    ended.end()
    ended.hints.clear()
    run = (await created(ours, "r")).run
    await theirs.send(run, NewMessage("cancel", reason="x"))
    await ear.hears_of(run)
    ear.end()
    assert ended.hints == []


async def test_a_file_that_only_this_store_writes_gives_no_hints(tmp_path: Path) -> None:
    ours, theirs = SqliteStore(f"sqlite:///{tmp_path / 'runs.db'}"), SqliteStore(f"sqlite:///{tmp_path / 'runs.db'}")
    await ours.open()
    await theirs.open()
    writer = ours._check_writer()
    writer.others_wrote()  # from here on
    await created(ours, "ours")
    assert not writer.others_wrote()
    await created(theirs, "theirs")
    assert writer.others_wrote()
    assert not writer.others_wrote()
    await ours.close()
    await theirs.close()


async def test_a_file_that_was_never_written_is_listened_to_as_well(tmp_path: Path) -> None:
    ours, theirs = SqliteStore(f"sqlite:///{tmp_path / 'runs.db'}"), SqliteStore(f"sqlite:///{tmp_path / 'runs.db'}")
    await ours.open()
    await theirs.open()
    writer = ours._check_writer()
    writer.others_wrote()
    await created(theirs, "theirs")
    assert writer.others_wrote()
    await ours.close()
    await theirs.close()
    # Both have given their connections back: nobody keeps the log.
    assert not (tmp_path / "runs.db-wal").exists()
