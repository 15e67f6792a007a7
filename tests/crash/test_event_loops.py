"""A process whose event loops end while a run is in the middle, and which goes on with it in another loop."""

from __future__ import annotations

import json
from pathlib import Path

from .processes import LOOPS, SCRIPT, legs, run_to_end
from .test_scripts import ARRIVED, ONE_BEGAN_AGAIN


def test_a_loop_that_ends_normally_releases_its_runs_and_the_next_one_goes_on(tmp_path: Path):
    code, output, errors = run_to_end([*LOOPS, "returns"], tmp_path)

    assert (code, errors) == (0, "")
    between, *printed, after = output.splitlines()
    assert json.loads(between) == {"owner": None, "status": "running", "workers": 0}
    assert printed[-1] == ARRIVED
    assert json.loads(after) == {"owner": None, "status": "completed", "workers": 0}
    assert legs(tmp_path) == ONE_BEGAN_AGAIN


def test_a_run_of_a_loop_that_was_closed_without_shutdown_is_taken_up_in_the_same_process(tmp_path: Path):
    code, output, errors = run_to_end([*LOOPS, "closes"], tmp_path)

    assert code == 0, errors
    *printed, after = output.splitlines()
    assert printed[-1] == ARRIVED
    assert json.loads(after)["status"] == "completed"
    assert legs(tmp_path) == ONE_BEGAN_AGAIN


def test_the_interpreter_exits_after_a_loop_was_closed_without_shutdown(tmp_path: Path):
    # run_to_end gives up on a process that hangs.
    code, _, errors = run_to_end([*LOOPS, "closes-and-exits"], tmp_path)
    assert code == 0, errors

    code, output, errors = run_to_end(SCRIPT, tmp_path)
    assert code == 0, errors
    assert ARRIVED in output.splitlines()
    assert legs(tmp_path) == ONE_BEGAN_AGAIN
