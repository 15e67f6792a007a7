"""A run that three generations of its code work on, the first two killed with SIGKILL at any commit, ends as ever."""

from __future__ import annotations

import json

from durable_flow.journal.folding import VERIFY_VARIABLE

from .databases import Place
from .histories import KILLED, Books
from .kills import POINTS
from .processes import Home

CHANGING = ["-m", "crash.changing"]
LAPS = 5
RESULT = [list(range(LAPS)), list(range(LAPS)), sorted([*(f"lap {n}" for n in range(LAPS)), "over"])]
# More than a life that is not disturbed makes, snapshots included.
MOST_COMMITS = 28


def test_killed_at_any_commit_other_code_goes_on_with_the_run(place: Place, home: Home):
    kills = [0, 0]
    numbers = range(1, MOST_COMMITS, 1 if place.kills is None else MOST_COMMITS // place.kills)
    for number in numbers:
        run = f"run-{number}"
        for generation in (1, 2):
            # The second is killed early and late by turns: there is less left for it the later the first one was.
            at = number if generation == 1 else 2 + number * 7 % 9
            env = {
                "CHANGING_RUN": run,
                "CHANGING_GENERATION": str(generation),
                "CHANGING_KILL": f"{at} {POINTS[(number + generation) % len(POINTS)]}",
                VERIFY_VARIABLE: "yes",
            }
            code, _, errors = home.run_to_end(CHANGING, **env)
            assert code in (0, KILLED), errors
            kills[generation - 1] += code == KILLED
        env = {"CHANGING_RUN": run, "CHANGING_GENERATION": "3", VERIFY_VARIABLE: "yes"}
        code, output, errors = home.run_to_end(CHANGING, **env)
        assert (code, errors) == (0, "")
        assert json.loads(output) == RESULT
        books = Books(home.database)
        assert books.runs[run][0] == "completed"
        assert not books.of(run, "StepDiverged")
        if kills[0] < number and place.kills is None:
            break  # the first generation came to the end
    assert min(kills) >= 3
