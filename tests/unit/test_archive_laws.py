"""Archives: what is exported and imported is the same run, and what was changed by a byte or a line is refused."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import Server, new_database
from strategies import histories, random_history

from durable_flow.errors import ArchiveError
from durable_flow.fold import fold
from durable_flow.journal.archives import export_run, import_run
from durable_flow.journal.memory import MemoryStore
from durable_flow.journal.postgres import PostgresStore
from durable_flow.journal.protocol import ImportedPage, ImportedRun, JournalStore, NewRun
from durable_flow.journal.sqlite import SqliteStore
from durable_flow.records import EncodedEvent, Record, RunClaimed, StreamPublished

LIMIT = 1 << 20


@contextlib.asynccontextmanager
async def opened(*stores: JournalStore) -> AsyncIterator[None]:
    for store in stores:
        await store.open()
    try:
        yield
    finally:
        for store in stores:
            await store.close()


def with_items(record: Record) -> Record:
    """Items are not read back with their records, so a history as it was written has to bring them."""
    fact = record.fact
    if not isinstance(fact, StreamPublished):
        return record
    items = tuple(EncodedEvent("Item", "json", 1, b"%d" % (fact.first + n)) for n in range(len(fact.digests)))
    return record._replace(fact=fact._replace(items=items))


async def keep(store: JournalStore, history: Sequence[Record]) -> int:
    """Put a history into a store, row by row as it is."""
    pages, epoch = [], 1
    for record in history:
        if isinstance(record.fact, RunClaimed):
            epoch = record.fact.epoch
        pages.append(ImportedPage(epoch, [with_items(record)]))
    state = fold(history)
    run = ImportedRun(
        NewRun("run", state.uid, state.workflow, state.shape), state.status, epoch, None, history[0].at,
        state.last_at, None, None,
    )  # fmt: skip
    key = await store.import_run(run, lambda: pages, [])
    assert key is not None
    return key


async def exported(store: JournalStore, run: int) -> bytes:
    file = io.BytesIO()
    await export_run(store, run, file, version="test")
    return file.getvalue()


async def imported(store: JournalStore, archive: bytes) -> int:
    run_id = await import_run(store, io.BytesIO(archive), None, max_payload_bytes=LIMIT)
    row = await store.find(run_id)
    assert row is not None
    return row.run


async def all_of(store: JournalStore, run: int) -> object:
    """Everything that a store shows of a run, but its key and what the store itself timed."""
    [row] = await store.find_many([run])
    records = await store.read(run)
    items = await store.stream(run, limit=1_000_000)
    waits = [wait[1:] for wait in await store.waits(run)]
    return row._replace(run=0, wake_at=None, error=None, finished_at=None), records, items, waits


async def passed_on(history: Sequence[Record], *stores: JournalStore) -> list[object]:
    """Export and import a run from store to store; what each of them shows of it."""
    async with opened(*stores):
        run = await keep(stores[0], history)
        shown = [await all_of(stores[0], run)]
        for source, target in itertools.pairwise(stores):
            run = await imported(target, await exported(source, run))
            shown.append(await all_of(target, run))
        return shown


def stored(history: Sequence[Record]) -> list[Record]:
    return [r._replace(fact=r.fact._replace(items=())) if isinstance(r.fact, StreamPublished) else r for r in history]


@settings(max_examples=60)
@given(histories())
def test_exported_and_imported_a_run_is_the_same(history: list[Record]) -> None:
    first, second, third = asyncio.run(passed_on(history, MemoryStore(), MemoryStore(), MemoryStore()))
    assert first[1] == stored(history)  # type: ignore[index]
    assert first == second == third


@settings(max_examples=12)
@given(histories())
def test_a_run_is_the_same_in_memory_on_sqlite_and_on_postgres_and_back(
    postgres_server: Server, postgres_template: str, history: list[Record]
) -> None:
    with tempfile.TemporaryDirectory() as folder, new_database(postgres_server, postgres_template) as name:
        lite = [SqliteStore(f"sqlite:///{Path(folder) / name}.db", durability="normal") for name in "ab"]
        stores = [MemoryStore(), lite[0], PostgresStore(postgres_server.url(name)), lite[1]]
        first, *others = asyncio.run(passed_on(history, *stores))
    assert others == [first] * 3


async def archive_of(history: Sequence[Record]) -> bytes:
    store = MemoryStore()
    async with opened(store):
        return await exported(store, await keep(store, history))


@pytest.fixture(scope="module")
def archive() -> bytes:
    """The archive of a run in which much has happened."""
    return asyncio.run(archive_of(random_history(7)))


def refused(archive: bytes) -> str:
    """Import an archive that must be refused without any effect; return what was said."""

    async def tried() -> str:
        store = MemoryStore()
        async with opened(store):
            with pytest.raises(ArchiveError) as error:
                await imported(store, archive)
            assert await store.list_runs() == []
            return str(error.value)

    return asyncio.run(tried())


@settings(max_examples=300)
@given(st.data())
def test_any_byte_that_is_changed_is_found(archive: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(archive) - 1))
    other = data.draw(st.integers(1, 255))
    assert "Nothing was imported" in refused(archive[:at] + bytes([archive[at] ^ other]) + archive[at + 1 :])


def test_every_line_that_is_missing_is_found(archive: bytes) -> None:
    lines = archive.splitlines(keepends=True)
    assert len(lines) > 30
    for n in range(len(lines)):
        refused(b"".join(lines[:n] + lines[n + 1 :]))


@settings(max_examples=100)
@given(st.data())
def test_lines_that_are_swapped_or_repeated_are_found(archive: bytes, data: st.DataObject) -> None:
    lines = archive.splitlines(keepends=True)
    one, other = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True))
    swapped = list(lines)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    refused(b"".join(swapped))
    refused(b"".join((*lines[:one], lines[other], *lines[one:])))


@settings(max_examples=100)
@given(st.data())
def test_an_archive_that_was_cut_off_is_found(archive: bytes, data: st.DataObject) -> None:
    refused(archive[: data.draw(st.integers(0, len(archive) - 1))])


def test_something_behind_the_end_is_found(archive: bytes) -> None:
    for more in (b"\n", b" ", b"{}\n", archive):
        refused(archive + more)
