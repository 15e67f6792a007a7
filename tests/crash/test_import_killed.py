"""Killed at any point of an import, a journal has the whole run or nothing of it, and the same import works then.

Killed at any point of an export, a file has the whole archive or what it had before.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from durable_flow import Context, Journal, RunConflictError, StartEvent, StopEvent, Workflow, step
from durable_flow.journal.archives import _PAGE
from durable_flow.records import Record

from .exporting import COMPLETE, LINE, NAMED
from .importing import PAGE
from .kills import AFTER_ACKNOWLEDGEMENT, AFTER_COMMIT, BEFORE_COMMIT, IN_COMMIT
from .processes import Home

EXPORT = ["-m", "crash.exporting"]
IMPORT = ["-m", "crash.importing"]
TABLES = ("runs", "journal", "stream", "waits", "messages")


class Long(Workflow):
    """Its records fill several pages of an import."""

    @step
    async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(_PAGE):
            ctx.write_event_to_stream(StartEvent(n=n))
            await ctx.store.set("n", n)
            await ctx.checkpoint(f"at {n}")
        return StopEvent(result="done")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """An archive, and the records that are in it."""
    path = tmp_path_factory.mktemp("archive") / "long.jsonl"

    async def make() -> list[Record]:
        async with Journal("memory://") as journal:
            await Long(journal=journal).run(run_id="long")
            await journal.export("long", path)
            return await journal.history("long")

    return path, asyncio.run(make())


@pytest.mark.parametrize(
    ("when", "number"),
    [(PAGE, 0), (PAGE, 1), (PAGE, 3), (BEFORE_COMMIT, 1), (IN_COMMIT, 1), (AFTER_COMMIT, 1),
     (AFTER_ACKNOWLEDGEMENT, 1)],
)  # fmt: skip
async def test_killed_there_all_of_the_run_is_there_or_nothing(
    home: Home, archive: tuple[Path, list[Record]], when: str, number: int
) -> None:
    path, records = archive
    assert len(records) > 3 * _PAGE
    code, _, errors = await asyncio.to_thread(home.run_to_end, [*IMPORT, str(path), when, str(number)])
    assert code == -signal.SIGKILL, errors
    home.database.come_to_rest()

    async with Journal(home.database.url) as journal:
        runs = await journal.runs()
        if when in (PAGE, BEFORE_COMMIT):
            assert runs == []
        if when in (AFTER_COMMIT, AFTER_ACKNOWLEDGEMENT):
            assert [run.run_id for run in runs] == ["long"]
        if runs:
            with pytest.raises(RunConflictError):
                await journal.import_(path)
        else:
            assert [home.database.rows(f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)
            await journal.import_(path)
        assert await journal.history("long") == records
        assert len([item async for item in journal.stream("long")]) == _PAGE
        assert await (await Long(journal=journal).resume("long")) == "done"


@pytest.mark.parametrize(("when", "number"), [(LINE, 0), (LINE, 1), (LINE, 500), (COMPLETE, 0), (NAMED, 0)])
@pytest.mark.parametrize("name", ["long.jsonl", "long.jsonl.gz"])
async def test_killed_there_a_file_has_the_whole_archive_or_what_it_had(
    home: Home, archive: tuple[Path, list[Record]], tmp_path: Path, when: str, number: int, name: str
) -> None:
    path, records = archive
    folder = tmp_path / "exported"
    folder.mkdir()
    file = folder / name
    file.write_text("what stood there before")
    async with Journal(home.database.url) as journal:
        await journal.import_(path)
    code, _, errors = await asyncio.to_thread(home.run_to_end, [*EXPORT, str(file), when, str(number)])
    assert code == -signal.SIGKILL, errors

    if when == NAMED:
        assert [each.name for each in folder.iterdir()] == [name]
    else:
        assert file.read_text() == "what stood there before"
        (left,) = (each for each in folder.iterdir() if each != file)
        assert (left.name[:1], left.suffix) == (".", ".part")
        async with Journal(home.database.url) as journal:
            assert await journal.history("long") == records
            await journal.export("long", file)
    async with Journal("memory://") as other:
        await other.import_(file)
        assert await other.history("long") == records
