"""Who gets a run whose owner is killed, stopped, blocked, suspended or out of sight: real processes, both databases."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_flow import Journal, RunNotFoundError
from durable_flow.records import RunClaimed

from .processes import until
from .program import Go

Start = Callable[..., Any]
Notes = Callable[[], list[str]]

# Short enough to be waited for, and long enough that a busy machine does not miss six heartbeats in a row.
SHORT = {"heartbeat_seconds": 0.5, "expiry_seconds": 4.0}
EXPIRY = SHORT["expiry_seconds"]


async def claims(journal: Journal, run_id: str = "r") -> list[RunClaimed]:
    return [record.fact for record in await journal.history(run_id) if isinstance(record.fact, RunClaimed)]


async def owned(journal: Journal, run_id: str = "r") -> str | None:
    try:
        return (await journal.run(run_id)).owner
    except RunNotFoundError:
        return None


async def attached(journal: Journal, workers: int) -> None:
    """Wait until so many workers have made themselves known."""

    async def known() -> bool:
        return len(await journal._shared.store.workers()) >= workers

    await until(known)


async def test_a_killed_owner_loses_its_run_at_once(journal: Journal, alive: Start, notes: Notes) -> None:
    async with alive("owner", hold="file") as owner, alive("other") as other:
        await owner.go()
        await until(lambda: notes() == ["owner began r"])
        await other.go()
        await attached(journal, 2)
        assert notes() == ["owner began r"]

        killed_at = time.monotonic()
        await owner.kill()
        assert await other.result() == ["other"]
        # The default expiry is 30 seconds.
        assert time.monotonic() - killed_at < 15
    assert notes() == ["owner began r", "other began r", "other went on r"]
    assert len(await claims(journal)) == 1


async def test_recover_takes_up_the_runs_of_a_killed_owner_at_once(
    journal: Journal, alive: Start, notes: Notes
) -> None:
    async with alive("owner", hold="file", runs=["r", "s"]) as owner:
        await owner.go()
        await until(lambda: sorted(notes()) == ["owner began r", "owner began s"])
        async with alive("early", do="recover") as early:
            assert await early.result() == []
            assert await early.ends() == 0
        await owner.kill()
    killed_at = time.monotonic()
    async with alive("other", do="recover") as other:
        assert await other.result() == ["r", "s"]
        assert time.monotonic() - killed_at < 15
        assert await other.ends() == 0
    assert sorted(notes()[2:]) == ["other began r", "other began s", "other went on r", "other went on s"]


# "sleep": its step is stopped while it waits; "block": in the middle of a callback of the event loop.
@pytest.mark.parametrize("hold", ["sleep 1.5", "block 1.5"])
async def test_a_stopped_owner_keeps_its_run_for_an_expiry_and_does_nothing_when_it_wakes(
    journal: Journal, alive: Start, notes: Notes, hold: str
) -> None:
    async with alive("owner", hold=hold, **SHORT) as owner, alive("other", **SHORT) as other:
        await owner.go()
        await until(lambda: notes() == ["owner began r"])
        await owner.stop()
        stopped_at = time.monotonic()
        await other.go()
        assert await other.result() == ["other"]
        assert time.monotonic() - stopped_at > EXPIRY - 1
        assert await other.ends() == 0
        journaled = await journal.history("r")
        noted = notes()
        assert noted == ["owner began r", "other began r", "other went on r"]

        owner.continue_()
        # It does not fail, and does not give what it had in mind: the outcome is the other one's.
        assert await owner.result() == ["other"]
        assert await owner.ends() == 0
    assert await journal.history("r") == journaled
    # A callback cannot be stopped in its middle; a step that was waiting does not go on.
    assert notes() == (noted if hold.startswith("sleep") else [*noted, "owner went on r"])
    assert "this process stood still" in owner.log.read_text()


async def test_recover_waits_until_it_knows_whether_a_stopped_owner_lives(
    journal: Journal, alive: Start, notes: Notes
) -> None:
    async with alive("owner", hold="file", **SHORT) as owner:
        await owner.go()
        await until(lambda: notes() == ["owner began r"])
        await owner.stop()
        await asyncio.sleep(3 * SHORT["heartbeat_seconds"])  # its heartbeats are missing by now
        async with alive("other", do="recover", **SHORT) as other:
            assert await other.result() == ["r"]
            assert await other.ends() == 0
    assert notes() == ["owner began r", "other began r", "other went on r"]


async def test_a_step_that_blocks_the_event_loop_for_several_expiries_keeps_its_run(
    journal: Journal, alive: Start, notes: Notes
) -> None:
    blocked = 2.5 * EXPIRY
    async with alive("owner", hold=f"block {blocked}", **SHORT) as owner, alive("other", **SHORT) as other:
        await owner.go()
        await until(lambda: notes() == ["owner began r"])
        await other.go()
        assert await other.result() == ["owner"]
        assert await owner.result() == ["owner"]
    assert notes() == ["owner began r", "owner went on r"]
    assert await claims(journal) == []
    assert "the event loop has been blocked" in owner.log.read_text()


async def test_processes_that_were_stopped_together_do_not_take_runs_from_each_other(
    journal: Journal, alive: Start, notes: Notes, tmp_path: Path
) -> None:
    async with alive("owner", hold="file", **SHORT) as owner, alive("other", hold="file", **SHORT) as other:
        await owner.go()
        await until(lambda: notes() == ["owner began r"])
        await other.go()
        await attached(journal, 2)

        # As a machine that sleeps: the database stands still as well, nobody beats and nobody looks.
        await asyncio.gather(owner.stop(), other.stop())
        await asyncio.sleep(EXPIRY + 2)
        owner.continue_()
        other.continue_()
        (tmp_path / "go").touch()
        results = [await owner.result(), await other.result()]
        assert [await owner.ends(), await other.ends()] == [0, 0]

    assert results[0] == results[1]
    # Who slept over its expiry gives its run back, and takes it up again or leaves it to the other one. Nobody found
    # that the other was gone: that would be the `previous` owner of a claim.
    assert [claim.previous for claim in await claims(journal)] in ([], [None])
    assert "this process stood still" in owner.log.read_text()


async def test_of_two_processes_that_start_the_same_runs_one_runs_each_and_both_get_its_result(
    journal: Journal, alive: Start, notes: Notes
) -> None:
    runs = [f"r{number}" for number in range(20)]
    async with alive("one", runs=runs) as one, alive("two", runs=runs) as two:
        await asyncio.gather(one.go(), two.go())
        results = [await one.result(), await two.result()]
        assert [await one.ends(), await two.ends()] == [0, 0]
    assert results[0] == results[1]
    expected = [
        f"{who} {what} {run}" for run, who in zip(runs, results[0], strict=True) for what in ("began", "went on")
    ]
    assert sorted(notes()) == sorted(expected)
    for run in runs:
        assert await claims(journal, run) == []


# -- Out of sight ------------------------------------------------------------------------------------------------------

UNSHARED = ("unshare", "--pid", "--fork", "--kill-child")


@pytest.fixture
def unshared() -> tuple[str, ...]:
    """What starts a process in a pid namespace of its own, as in a container that shares the volume."""
    if shutil.which("unshare") is None:
        pytest.skip("NOT TESTED: processes in another pid namespace need the program `unshare` (util-linux)")
    done = subprocess.run([*UNSHARED, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: processes in another pid namespace need root or CAP_SYS_ADMIN: {done.stderr.strip()}")
    return UNSHARED


# Without a /proc of its own, a process there sees ours, in which its pids mean other processes.
@pytest.mark.parametrize("owner_is", ["here", "there, with our /proc"])
async def test_a_process_in_another_pid_namespace_takes_a_run_only_when_its_owner_has_expired(
    journal: Journal, alive: Start, notes: Notes, unshared: tuple[str, ...], owner_is: str
) -> None:
    here, there = (), unshared if owner_is.endswith("/proc") else (*unshared, "--mount-proc")
    of_owner, of_other = (here, there) if owner_is == "here" else (there, here)
    async with (
        alive("owner", hold="file", prefix=of_owner, **SHORT) as owner,
        alive("other", prefix=of_other, **SHORT) as other,
    ):
        await owner.go()
        await until(lambda: notes() == ["owner began r"])
        await other.go()
        await attached(journal, 2)
        first = await owned(journal)
        await heartbeats_over(journal, first, EXPIRY + 1)
        assert notes() == ["owner began r"]
        assert await owned(journal) == first

        await owner.kill()
        killed_at = time.monotonic()
        assert await other.result() == ["other"]
        assert time.monotonic() - killed_at > EXPIRY - 1
        assert await other.ends() == 0
    assert notes() == ["owner began r", "other began r", "other went on r"]
    assert [claim.previous for claim in await claims(journal)] == [first]


async def heartbeats_over(journal: Journal, worker: str | None, seconds: float) -> None:
    """Wait until a worker has shown that it lives over so many seconds."""

    async def heartbeat() -> int:
        return next(beat for known, beat in await journal._shared.store.workers() if known.id == worker)

    first = await heartbeat()

    async def over() -> bool:
        return await heartbeat() - first > seconds * 1_000_000

    await until(over)


# -- Within a process --------------------------------------------------------------------------------------------------


async def test_the_run_of_an_event_loop_that_was_closed_is_free_at_once_in_its_process(
    journal: Journal, alive: Start, notes: Notes
) -> None:
    async with alive("owner", do="loops") as owner:
        result, seconds = (await owner.says()).split()
        assert await owner.ends() == 0
    assert result == "owner"
    assert float(seconds) < 15
    assert notes() == ["owner began r", "owner began r", "owner went on r"]


async def test_after_a_fork_the_child_opens_its_own_and_the_parent_goes_on(
    journal: Journal, alive: Start, notes: Notes
) -> None:
    if journal.settings.url.startswith("sqlite"):
        pytest.skip("SQLite does not survive a fork from a running loop (README); test_ownership forks between loops")
    async with alive("parent", do="fork") as parent:
        assert await parent.says() == "0 parent", parent.log.read_text()
        assert await parent.says() == "2 parent"
        assert await parent.ends() == 0
    assert {info.run_id: info.status for info in await journal.runs()} == dict.fromkeys(
        ("parent", "child", "again"), "completed"
    )
    assert await claims(journal, "parent") == []


# -- Crash loops -------------------------------------------------------------------------------------------------------


async def test_a_run_that_kills_every_process_is_parked_and_another_run_goes_on(
    journal: Journal, alive: Start, tmp_path: Path
) -> None:
    lives = 0
    while True:
        async with alive("life", do="crash") as life:
            lives += 1
            said = await life.child.stdout.readline()
            if said == b"alive\n":
                (tmp_path / "go").touch()
                assert await life.says() == "well"
                assert await life.ends() == 0
                break
            assert await life.ends() == -signal.SIGKILL, life.log.read_text()
            assert lives < 10
    bad, good = await journal.run("bad"), await journal.run("good")
    assert (bad.status, good.status) == ("needs_attention", "completed")
    # The first life started it, five took it up and were killed, and the next one parked it.
    assert lives == 7
    assert "was taken up 6 times" in (bad.error or "")


async def test_runs_that_only_wait_are_not_to_blame_for_the_ends_of_their_processes(
    journal: Journal, alive: Start
) -> None:
    for _ in range(9):
        async with alive("life", do="waiting") as life:
            assert await life.says() == "waits"
            await life.kill()
    async with alive("life", do="waiting") as life:
        assert await life.says() == "waits"
        for wait in await journal.pending():
            await journal.send(wait.run_id, Go(), wait_id=wait.wait_id)
        assert json.loads(await life.says()) == ["answered"] * 2
        assert await life.ends() == 0


async def test_a_run_that_kills_every_process_takes_no_run_beside_it_into_its_crash_loop(
    journal: Journal, alive: Start
) -> None:
    runs = ["before", "beside", "after"]
    lives = 0
    while True:
        async with alive("life", do="beside", runs=runs) as life:
            lives += 1
            assert lives < 30
            said = await life.child.stdout.readline()
            if said:
                assert json.loads(said) == ["life"] * 3
                break
            assert await life.ends() == -signal.SIGKILL, life.log.read_text()
    assert (await journal.run("bad")).status == "needs_attention"
    assert [(await journal.run(run)).status for run in runs] == ["completed"] * 3
