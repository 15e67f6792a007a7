"""Another process keeps the SQLite file locked: for a while, and for longer than anybody waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_flow import Journal, JournalUnavailableError
from durable_flow.journal.sqlite import SqliteStore

from .cancellation import eventually
from .sqlite_runs import HELD, Counting, completions, locked, turning

RUNS = [f"run-{n}" for n in range(6)]
STEPS = 40
# A loop that waited for the file would stand still for at least a second.
BLOCKED_SECONDS = 0.9


@pytest.mark.parametrize(("mode", "seconds"), [("IMMEDIATE", 1.5), ("EXCLUSIVE", 5.0)])
async def test_runs_go_on_when_a_lock_is_given_up_in_time(mode: str, seconds: float, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with Journal(f"sqlite:///{path}") as journal:
        flow = Counting(STEPS, journal=journal)
        flow.hold.clear()
        handlers = [flow.run(run_id=run_id) for run_id in RUNS]
        await eventually(lambda: flow.are_held(len(RUNS)), "the runs are in the middle")
        async with turning() as gaps:
            async with locked(path, mode):
                flow.hold.set()
                # It is the time that is tested: nothing happens meanwhile.
                await asyncio.sleep(seconds)
                assert flow.progress == HELD * len(RUNS)
                # Whoever only looks is not kept waiting.
                assert {run.run_id for run in await journal.runs()} == set(RUNS)
            assert [await handler for handler in handlers] == [list(range(STEPS))] * len(RUNS)
        assert gaps[0] < BLOCKED_SECONDS
        assert [await completions(journal, run_id) for run_id in RUNS] == [STEPS] * len(RUNS)


async def test_runs_stop_with_a_remedy_when_a_lock_lasts_too_long_and_go_on_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SqliteStore.__init__.__kwdefaults__, "deadline_seconds", 0.5)
    path = tmp_path / "jobs.db"
    remedy = r"jobs\.db: another process keeps the database locked\. Find it"
    async with Journal(f"sqlite:///{path}") as journal:
        flow = Counting(STEPS, journal=journal)
        flow.hold.clear()
        handlers = [flow.run(run_id=run_id) for run_id in RUNS]
        await eventually(lambda: flow.are_held(len(RUNS)), "the runs are in the middle")
        async with turning() as gaps:
            async with locked(path, "EXCLUSIVE"):
                flow.hold.set()
                for handler in handlers:
                    with pytest.raises(JournalUnavailableError, match=remedy):
                        await handler
                with pytest.raises(JournalUnavailableError, match=remedy):
                    await journal.cancel("run-0")
                with pytest.raises(JournalUnavailableError, match=remedy):
                    await flow.run(run_id="new")
                assert await completions(journal, "run-0") == HELD
            resumed = [await flow.resume(run_id) for run_id in RUNS]
            assert [await handler for handler in resumed] == [list(range(STEPS))] * len(RUNS)
        assert gaps[0] < BLOCKED_SECONDS
        assert [await completions(journal, run_id) for run_id in RUNS] == [STEPS] * len(RUNS)


async def test_a_database_that_is_locked_when_it_is_opened_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.touch()
    journal = Journal(f"sqlite:///{path}")
    async with locked(path, "EXCLUSIVE"), turning() as gaps:
        opening = asyncio.create_task(journal.__aenter__())
        await asyncio.sleep(1.0)
        assert not opening.done()
    await opening
    assert await journal.runs() == []
    await journal.__aexit__(None, None, None)
    assert gaps[0] < BLOCKED_SECONDS
