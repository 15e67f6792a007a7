"""A process whose event loops end while a run is in the middle, and which goes on with it in another loop."""

from __future__ import annotations

import json

from .processes import LOOPS, SCRIPT, Home
from .test_scripts import ARRIVED, ONE_BEGAN_AGAIN


def test_a_loop_that_ends_normally_releases_its_runs_and_the_next_one_goes_on(home: Home):
    code, output, errors = home.run_to_end([*LOOPS, "returns"])

    assert (code, errors) == (0, "")
    between, *printed, after = output.splitlines()
    assert json.loads(between) == {"owner": None, "status": "running", "workers": 0}
    assert printed[-1] == ARRIVED
    assert json.loads(after) == {"owner": None, "status": "completed", "workers": 0}
    assert home.legs() == ONE_BEGAN_AGAIN


def test_a_run_of_a_loop_that_was_closed_without_shutdown_is_taken_up_in_the_same_process(home: Home):
    code, output, errors = home.run_to_end([*LOOPS, "closes"])

    assert code == 0, errors
    *printed, after = output.splitlines()
    assert printed[-1] == ARRIVED
    assert json.loads(after)["status"] == "completed"
    assert home.legs() == ONE_BEGAN_AGAIN


def test_the_interpreter_exits_after_a_loop_was_closed_without_shutdown(home: Home):
    # `run_to_end` gives up on a process that hangs.
    code, _, errors = home.run_to_end([*LOOPS, "closes-and-exits"])
    assert code == 0, errors

    code, output, errors = home.run_to_end(SCRIPT)
    assert code == 0, errors
    assert ARRIVED in output.splitlines()
    assert home.legs() == ONE_BEGAN_AGAIN
