"""The SQLite file is moved, replaced, emptied or barred while it is open: nobody writes to what is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from durable_flow import Journal, JournalUnavailableError

from .cancellation import eventually
from .sqlite_runs import HELD, Counting, completions

STEPS = 10
NOBODY = 65534


@pytest.fixture
async def other(tmp_path: Path) -> Path:
    """A journal that was closed, with a run of its own."""
    path = tmp_path / "other.db"

    async def make() -> None:
        async with Journal(f"sqlite:///{path}") as journal:
            assert await Counting(1, journal=journal).run(run_id="other") == [0]

    await asyncio.to_thread(asyncio.run, make())
    return path


@asynccontextmanager
async def in_the_middle(path: Path) -> AsyncIterator[tuple[Journal, Counting]]:
    """Give an open journal and a workflow whose run "r" is held in the middle."""
    async with Journal(f"sqlite:///{path}") as journal:
        flow = Counting(STEPS, journal=journal)
        flow.hold.clear()
        handler = flow.run(run_id="r")
        await eventually(lambda: flow.are_held(1), "the run is in the middle")
        yield journal, flow
        assert handler.run_id == "r"


async def stops(journal: Journal, flow: Counting, said: str) -> None:
    """Let the run go on: it stops, nothing can be read, and every error says what has happened."""
    handler = flow.run(run_id="r")
    flow.hold.set()
    with pytest.raises(JournalUnavailableError, match=said):
        await handler
    with pytest.raises(JournalUnavailableError, match=said):
        await journal.runs()
    with pytest.raises(JournalUnavailableError, match=said):
        await flow.run(run_id="another")


async def finishes(journal: Journal, flow: Counting) -> None:
    """Resume the run: what was told to be durable is there, once."""
    recorded = await completions(journal, "r")
    assert recorded >= len(flow.told["r"]) >= HELD
    assert await (await flow.resume("r")) == list(range(STEPS))
    assert await completions(journal, "r") == STEPS


def content_of(path: Path) -> bytes:
    return path.read_bytes()


async def test_a_file_that_another_one_replaces_is_not_written_to_and_goes_on_when_it_is_back(
    tmp_path: Path, other: Path
) -> None:
    path, kept = tmp_path / "jobs.db", tmp_path / "kept.db"
    content = content_of(other)
    async with in_the_middle(path) as (journal, flow):
        os.rename(path, kept)
        os.rename(other, path)
        await stops(journal, flow, r"jobs\.db was replaced by another file while it was open")
        assert content_of(path) == content
        os.rename(path, other)
        os.rename(kept, path)
        await finishes(journal, flow)


async def test_a_file_that_was_deleted_is_not_made_anew_and_the_run_is_told(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with in_the_middle(path) as (journal, flow):
        path.unlink()
        await stops(journal, flow, r"jobs\.db was moved, deleted or emptied while it was open")
        assert not path.exists()


async def test_a_file_that_was_emptied_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with in_the_middle(path) as (journal, flow):
        os.truncate(path, 0)
        await stops(journal, flow, r"jobs\.db was moved, deleted or emptied while it was open")


async def test_a_run_that_only_waits_is_told_by_the_missing_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with Journal(f"sqlite:///{path}", heartbeat_seconds=0.2, expiry_seconds=1.0) as journal:
        flow = Counting(STEPS, journal=journal)
        flow.hold.clear()
        handler = flow.run(run_id="r")
        await eventually(lambda: flow.are_held(1), "the run is in the middle")
        path.unlink()
        with pytest.raises(JournalUnavailableError, match=r"no heartbeat reached .*jobs\.db"):
            await handler


async def test_nothing_that_was_acknowledged_is_lost_with_a_deleted_write_ahead_log(tmp_path: Path) -> None:
    path, log = tmp_path / "jobs.db", tmp_path / "jobs.db-wal"

    async def first() -> Counting:
        async with in_the_middle(path) as (_, flow):
            log.unlink()
            handler = flow.run(run_id="r")
            flow.hold.set()
            with pytest.raises(JournalUnavailableError, match=r"jobs\.db-wal was deleted or replaced"):
                await handler
            # It is in the file already, also for those who do not wait for this process to end well.
            shutil.copy(path, tmp_path / "copy.db")
            return flow

    async def then(name: str, told: dict[str, set[int]]) -> None:
        async with Journal(f"sqlite:///{tmp_path / name}") as journal:
            flow = Counting(STEPS, journal=journal)
            flow.told = told
            await finishes(journal, flow)

    flow = await asyncio.to_thread(asyncio.run, first())
    for name in ("copy.db", "jobs.db"):
        await asyncio.to_thread(asyncio.run, then(name, {"r": set(flow.told["r"])}))


@pytest.mark.parametrize("quiet_seconds", [0, 3600])
async def test_a_log_that_another_one_replaces_is_found_in_a_busy_folder_and_in_a_quiet_one(
    tmp_path: Path, quiet_seconds: int
) -> None:
    path, log = tmp_path / "jobs.db", tmp_path / "jobs.db-wal"
    async with Journal(f"sqlite:///{path}") as journal:
        flow = Counting(STEPS, journal=journal)
        long_ago = time.time() - quiet_seconds
        os.utime(tmp_path, (long_ago, long_ago))
        # The folder is looked at here, and was not touched for as long as said.
        assert await flow.run(run_id="before") == list(range(STEPS))
        log.rename(tmp_path / "kept")
        shutil.copy(tmp_path / "kept", log)
        with pytest.raises(JournalUnavailableError, match=r"jobs\.db-wal was deleted or replaced"):
            await flow.run(run_id="after")


async def test_a_log_that_another_process_shortened_by_a_checkpoint_is_still_the_log(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with in_the_middle(path) as (journal, flow):
        other = sqlite3.connect(path, isolation_level=None)
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        other.close()
        assert (tmp_path / "jobs.db-wal").stat().st_size == 0
        flow.hold.set()
        assert await flow.run(run_id="r") == list(range(STEPS))
        assert await completions(journal, "r") == STEPS


@pytest.fixture
def barrable() -> Iterator[Path]:
    """A folder from which this process can be kept out: for the time of the test it is not root."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield folder
    else:
        # What the package imports when it first opens a file may be out of that user's reach.
        asyncio.run(_opened(folder / "jobs.db"))
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(0)
    shutil.rmtree(folder)


async def _opened(path: Path) -> None:
    async with Journal(f"sqlite:///{path}") as journal:
        await Counting(1, journal=journal).run(run_id="before")


async def test_a_run_stops_when_it_is_kept_out_of_the_folder_and_goes_on_when_it_is_let_in(barrable: Path) -> None:
    async with in_the_middle(barrable / "jobs.db") as (journal, flow):
        os.chmod(barrable, 0)
        try:
            await stops(journal, flow, r"jobs\.db cannot be looked at any more \(Permission denied\)")
        finally:
            os.chmod(barrable, 0o700)
        await finishes(journal, flow)
