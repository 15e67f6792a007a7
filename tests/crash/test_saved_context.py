"""A run that goes on from a saved context, killed with SIGKILL at every commit, comes to the same end."""

from __future__ import annotations

import json
from collections import Counter

from .databases import Place
from .histories import KILLED, Books
from .kills import POINTS
from .processes import Home

# The first call was made before the context was saved.
RESULT = [[[0, 1], ["charged 1", "charged 2"], "yes"], {"bought": ["charged 1", "charged 2"], "counted": 3}]
SAVE = ["-m", "crash.saved", "save"]
GO_ON = ["-m", "crash.saved", "go on"]
# More than a life that is not disturbed makes.
MOST_COMMITS = 20


def test_killed_at_any_commit_it_goes_on_from_the_saved_state(place: Place, home: Home):
    assert home.run_to_end(SAVE)[0] == 0
    kills = 0
    for number in range(1, MOST_COMMITS if place.kills is None else place.kills):
        run = f"run-{number}"
        kill = f"{number} {POINTS[number % len(POINTS)]}"
        code, _, errors = home.run_to_end(GO_ON, SAVED_RUN=run, SAVED_KILL=kill)
        assert code in (0, KILLED), errors
        kills += code == KILLED
        after, output, errors = home.run_to_end(GO_ON, SAVED_RUN=run)
        assert (after, errors) == (0, "")
        assert json.loads(output) == RESULT
        notes = Counter(line for line in (home.folder / "notes.txt").read_text().splitlines() if line.startswith(run))
        assert notes.keys() == {f"{run} charge"}  # no step that had completed, and of the two calls the second
        assert notes[f"{run} charge"] in (1, 2)  # one that was under way is made again
        books = Books(home.database)
        assert len(books.of(run, "StateImported")) == 1
        assert {row.name for row in books.of(run, "EventEmitted")} == {"SavedAnswer"}
        assert [row.name for row in books.of(run, "CallRecorded")] == ["second"]
        assert books.runs[run][0] == "completed"
        if code == 0:
            break
    assert kills >= 5
