"""A plain script that is killed or interrupted, and what goes on with its run."""

from __future__ import annotations

import signal
import time

import pytest

from .app import LEGS
from .processes import IMPORTED, SCRIPT, Home, read_until

HELD = 3
# An owner that is judged by its heartbeat is given up after this long, at the earliest.
EXPIRY_SECONDS = 30.0
ARRIVED = f"arrived with {LEGS} tickets, the first by ROAD"
ONE_BEGAN_AGAIN = {leg: 1 + (leg == HELD) for leg in range(1, LEGS + 1)}
NOISE = ["never retrieved", "was destroyed", "Exception ignored", "StepReleased", "Task exception"]


def kill_in_the_middle(home: Home) -> None:
    with home.running(SCRIPT, JOURNEY_HOLD=str(HELD)) as process:
        read_until(process, f"leg {HELD}")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    home.database.come_to_rest()


def test_a_script_that_was_killed_is_finished_by_a_process_that_imports_it(home: Home):
    kill_in_the_middle(home)

    code, output, errors = home.run_to_end(IMPORTED)

    assert code == 0, errors
    assert ARRIVED in output.splitlines()
    assert home.legs() == ONE_BEGAN_AGAIN
    values = home.database.rows("SELECT payload FROM journal WHERE kind = 'ContextSet'")
    assert len(values) >= LEGS
    assert "__main__" not in str(values)


def test_a_run_that_was_begun_by_an_importing_process_is_finished_by_the_script(home: Home):
    with home.running(IMPORTED, JOURNEY_HOLD=str(HELD)) as process:
        read_until(process, f"leg {HELD}")
        process.kill()

    code, output, errors = home.run_to_end(SCRIPT)

    assert code == 0, errors
    assert ARRIVED in output.splitlines()
    assert home.legs() == ONE_BEGAN_AGAIN


def test_a_restarted_script_takes_its_run_over_at_once(home: Home):
    kill_in_the_middle(home)
    [(owner,)] = home.database.rows("SELECT owner FROM runs")
    assert owner is not None  # a killed process gives nothing back

    began = time.monotonic()
    with home.running(SCRIPT) as process:
        lines = read_until(process, ARRIVED)
    seconds = time.monotonic() - began

    # Legs 1 to 3 come from the journal, without a repetition.
    assert lines == [*(f"leg {leg}" for leg in range(1, LEGS + 1)), ARRIVED]
    assert seconds < EXPIRY_SECONDS / 2
    assert home.legs() == ONE_BEGAN_AGAIN


@pytest.mark.parametrize("how", ["plain", "--quiet"])
def test_control_c_releases_the_run_and_the_same_line_goes_on(home: Home, how: str):
    with home.running([*SCRIPT, how], JOURNEY_HOLD=str(HELD)) as process:
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
    assert home.database.rows("SELECT owner, status, finished_at FROM runs") == [(None, "running", None)]
    assert home.database.rows("SELECT id FROM workers") == []

    code, output, errors = home.run_to_end([*SCRIPT, how])

    assert (code, errors) == (0, "")
    assert ARRIVED in output.splitlines()
    assert home.legs() == ONE_BEGAN_AGAIN
