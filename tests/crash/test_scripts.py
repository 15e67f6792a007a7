"""A plain script that is killed or interrupted, and what goes on with its run."""

from __future__ import annotations

import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from .app import LEGS
from .processes import IMPORTED, SCRIPT, legs, read_until, run_to_end, running

HELD = 3
# An owner that is judged by its heartbeat is given up after this long, at the earliest.
EXPIRY_SECONDS = 30.0
ARRIVED = f"arrived with {LEGS} tickets, the first by ROAD"
ONE_BEGAN_AGAIN = {leg: 1 + (leg == HELD) for leg in range(1, LEGS + 1)}
NOISE = ["never retrieved", "was destroyed", "Exception ignored", "StepReleased", "Task exception"]


def query(folder: Path, statement: str) -> list[Any]:
    connection = sqlite3.connect(folder / "journeys.db")
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def kill_in_the_middle(folder: Path) -> None:
    with running(SCRIPT, folder, JOURNEY_HOLD=str(HELD)) as process:
        read_until(process, f"leg {HELD}")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_script_that_was_killed_is_finished_by_a_process_that_imports_it(tmp_path: Path):
    kill_in_the_middle(tmp_path)

    code, output, errors = run_to_end(IMPORTED, tmp_path)

    assert code == 0, errors
    assert ARRIVED in output.splitlines()
    assert legs(tmp_path) == ONE_BEGAN_AGAIN
    [types] = query(tmp_path, "SELECT group_concat(payload) FROM journal WHERE kind = 'ContextSet'")
    assert "__main__" not in str(types)


def test_a_run_that_was_begun_by_an_importing_process_is_finished_by_the_script(tmp_path: Path):
    with running(IMPORTED, tmp_path, JOURNEY_HOLD=str(HELD)) as process:
        read_until(process, f"leg {HELD}")
        process.kill()

    code, output, errors = run_to_end(SCRIPT, tmp_path)

    assert code == 0, errors
    assert ARRIVED in output.splitlines()
    assert legs(tmp_path) == ONE_BEGAN_AGAIN


def test_a_restarted_script_takes_its_run_over_at_once(tmp_path: Path):
    kill_in_the_middle(tmp_path)
    [(owner,)] = query(tmp_path, "SELECT owner FROM runs")
    assert owner is not None  # a killed process gives nothing back

    began = time.monotonic()
    with running(SCRIPT, tmp_path) as process:
        lines = read_until(process, ARRIVED)
    seconds = time.monotonic() - began

    # Legs 1 to 3 come from the journal, without a repetition.
    assert lines == [*(f"leg {leg}" for leg in range(1, LEGS + 1)), ARRIVED]
    assert seconds < EXPIRY_SECONDS / 2
    assert legs(tmp_path) == ONE_BEGAN_AGAIN


@pytest.mark.parametrize("how", ["plain", "--quiet"])
def test_control_c_releases_the_run_and_the_same_line_goes_on(tmp_path: Path, how: str):
    with running([*SCRIPT, how], tmp_path, JOURNEY_HOLD=str(HELD)) as process:
        read_until(process, f"leg {HELD}")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    if how == "--quiet":
        assert (process.returncode, errors) == (130, "")
    else:
        # What Python prints of an interrupt, once, and nothing else.
        assert process.returncode == -signal.SIGINT
        assert errors.rstrip().endswith("KeyboardInterrupt")
        # The interrupt, and the cancellation of `main` that it came from.
        assert errors.count("Traceback") <= 2
        assert [noise for noise in NOISE if noise in errors] == []
    assert output == ""
    assert query(tmp_path, "SELECT owner, status, finished_at FROM runs") == [(None, "running", None)]
    assert query(tmp_path, "SELECT id FROM workers") == []

    code, output, errors = run_to_end([*SCRIPT, how], tmp_path)

    assert (code, errors) == (0, "")
    assert ARRIVED in output.splitlines()
    assert legs(tmp_path) == ONE_BEGAN_AGAIN
