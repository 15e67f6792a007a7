"""Two processes start the same run id at once: one runs it, the other attaches."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from durable_flow import Journal

from .app import LEGS, Go, Journey
from .processes import SCRIPT, legs, read_until, running
from .test_scripts import ARRIVED, query

GATE = 3
TOGETHER = [*SCRIPT, "--together"]


def start_together(*starters: subprocess.Popen[str]) -> None:
    for starter in starters:
        read_until(starter, "ready")
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()


async def open_the_gate(folder: Path) -> None:
    async with Journal(f"sqlite:///{folder / 'journeys.db'}") as journal:
        assert await journal.send("journey", Go())


def runners(folder: Path) -> set[int]:
    return {int(line.split()[1]) for line in (folder / "legs.txt").read_text().splitlines()}


async def test_of_two_starters_one_runs_and_the_other_gets_stream_and_result(tmp_path: Path):
    with (
        running(TOGETHER, tmp_path, JOURNEY_GATE=str(GATE)) as one,
        running(TOGETHER, tmp_path, JOURNEY_GATE=str(GATE)) as other,
    ):
        start_together(one, other)
        before = [read_until(starter, f"leg {GATE}") for starter in (one, other)]
        await open_the_gate(tmp_path)
        after = [read_until(starter, ARRIVED) for starter in (one, other)]
        codes = [starter.wait(timeout=60) for starter in (one, other)]

    assert codes == [0, 0]
    assert before == 2 * [[f"leg {leg}" for leg in range(1, GATE + 1)]]
    assert after == 2 * [[*(f"leg {leg}" for leg in range(GATE + 1, LEGS + 1)), ARRIVED]]
    assert legs(tmp_path) == dict.fromkeys(range(1, LEGS + 1), 1)
    assert len(runners(tmp_path)) == 1
    assert query(tmp_path, "SELECT count(*) FROM journal WHERE kind = 'RunClaimed'") == [(0,)]


async def test_a_run_whose_owner_lives_is_not_recovered_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with running(SCRIPT, tmp_path, JOURNEY_GATE=str(GATE)) as owner:
        read_until(owner, f"leg {GATE}")
        assert await Journey().recover() == []
        await open_the_gate(tmp_path)
        read_until(owner, ARRIVED)

    assert runners(tmp_path) == {owner.pid}


async def test_the_attached_process_takes_over_when_the_owner_is_killed(tmp_path: Path):
    with (
        running(TOGETHER, tmp_path, JOURNEY_GATE=str(GATE)) as one,
        running(TOGETHER, tmp_path, JOURNEY_GATE=str(GATE)) as other,
    ):
        start_together(one, other)
        for starter in (one, other):
            read_until(starter, f"leg {GATE}")
        [owner] = runners(tmp_path)
        os.kill(owner, signal.SIGKILL)
        attached = other if one.pid == owner else one
        await open_the_gate(tmp_path)
        after = read_until(attached, ARRIVED)
        assert attached.wait(timeout=60) == 0

    # The stream goes on where it was, and the only leg that began again is the one that waited.
    assert after == [*(f"leg {leg}" for leg in range(GATE + 1, LEGS + 1)), ARRIVED]
    assert legs(tmp_path) == {leg: 1 + (leg == GATE) for leg in range(1, LEGS + 1)}
    assert runners(tmp_path) == {one.pid, other.pid}
    assert query(tmp_path, "SELECT count(*) FROM journal WHERE kind = 'RunClaimed'") == [(1,)]
