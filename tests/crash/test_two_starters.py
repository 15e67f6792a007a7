"""Two processes start the same run id at once: one runs it, the other attaches."""

from __future__ import annotations

import os
import signal

import pytest

from durable_flow import Journal

from .app import LEGS, Go, Journey
from .processes import SCRIPT, Home, Process, read_until
from .test_scripts import ARRIVED

GATE = 3
JOURNEY = SCRIPT[1:]
TOGETHER = [*JOURNEY, "--together"]


def start_together(*starters: Process) -> None:
    for starter in starters:
        read_until(starter, "ready")
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()


async def open_the_gate(home: Home) -> None:
    async with Journal(home.database.url) as journal:
        assert await journal.send("journey", Go())


async def test_of_two_starters_one_runs_and_the_other_gets_stream_and_result(home: Home):
    with (
        home.running(TOGETHER, JOURNEY_GATE=str(GATE)) as one,
        home.running(TOGETHER, JOURNEY_GATE=str(GATE)) as other,
    ):
        start_together(one, other)
        before = [read_until(starter, f"leg {GATE}") for starter in (one, other)]
        await open_the_gate(home)
        after = [read_until(starter, ARRIVED) for starter in (one, other)]
        codes = [starter.wait(timeout=60) for starter in (one, other)]

    assert codes == [0, 0]
    assert before == 2 * [[f"leg {leg}" for leg in range(1, GATE + 1)]]
    assert after == 2 * [[*(f"leg {leg}" for leg in range(GATE + 1, LEGS + 1)), ARRIVED]]
    assert home.legs() == dict.fromkeys(range(1, LEGS + 1), 1)
    assert len(home.runners()) == 1
    assert home.database.rows("SELECT count(*) FROM journal WHERE kind = 'RunClaimed'") == [(0,)]


async def test_a_run_whose_owner_lives_is_not_recovered_by_another_process(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(home.folder)
    monkeypatch.setenv("DURABLE_FLOW_DATABASE_URL", home.database.url)
    with home.running(JOURNEY, JOURNEY_GATE=str(GATE)) as owner:
        read_until(owner, f"leg {GATE}")
        assert await Journey().recover() == []
        await open_the_gate(home)
        read_until(owner, ARRIVED)

    assert home.runners() == {owner.pid}


async def test_the_attached_process_takes_over_when_the_owner_is_killed(home: Home):
    with (
        home.running(TOGETHER, JOURNEY_GATE=str(GATE)) as one,
        home.running(TOGETHER, JOURNEY_GATE=str(GATE)) as other,
    ):
        start_together(one, other)
        for starter in (one, other):
            read_until(starter, f"leg {GATE}")
        [owner] = home.runners()
        os.kill(owner, signal.SIGKILL)
        attached = other if one.pid == owner else one
        await open_the_gate(home)
        after = read_until(attached, ARRIVED)
        assert attached.wait(timeout=60) == 0

    # The stream goes on where it was, and the only leg that began again is the one that waited.
    assert after == [*(f"leg {leg}" for leg in range(GATE + 1, LEGS + 1)), ARRIVED]
    assert home.legs() == {leg: 1 + (leg == GATE) for leg in range(1, LEGS + 1)}
    assert home.runners() == {one.pid, other.pid}
    assert home.database.rows("SELECT count(*) FROM journal WHERE kind = 'RunClaimed'") == [(1,)]
