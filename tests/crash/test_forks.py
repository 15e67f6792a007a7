"""A fork, an edit and a retry, killed with SIGKILL at every commit, are made whole or not at all."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from .databases import Place
from .forked import RUNS
from .histories import KILLED, Books, Row
from .kills import POINTS
from .processes import Home

FORKED = ["-m", "crash.forked"]
RESULT = [["charged 1", "charged 2"], 1, 2]
# The call that the failed attempt had made is used again, and its result put into the list that the edit emptied.
EDITED = {"go", "on", "bought"}


def all_of(books: Books, run_id: str) -> list[Row]:
    return [row for row in books.rows if row.run_id == run_id]


@pytest.mark.parametrize("what", ["fork", "edit", "journal.fork", "journal.edit"])
def test_killed_at_any_commit_it_is_made_whole_or_not_at_all(place: Place, home: Home, what: str):
    assert home.run_to_end([*FORKED, "prepare"])[0] == 0
    kills, is_fork = 0, what.endswith("fork")
    for number in range(1, min(RUNS, place.kills or RUNS)):
        run = f"run-{number}"
        made = f"fork-of-{run}" if is_fork else run
        kill = f"{number} {POINTS[number % len(POINTS)]}"
        parent = all_of(Books(home.database), run)
        code, _, errors = home.run_to_end([*FORKED, what], FORKED_RUN=run, FORKED_KILL=kill)
        assert code in (0, KILLED), errors
        kills += code == KILLED
        books = Books(home.database)
        edits = books.of(made, "StateEdited")
        assert len(edits) in (0, 1)
        # All of the edit or nothing of it is there, in one group; the fork is there with it, or not.
        first = edits[0].seq + 1 if edits else 0
        behind = [row for row in books.of(made, "ContextSet") if first <= row.seq < first + len(EDITED)]
        assert {row.name for row in behind} == (EDITED if edits else set())
        assert (made in books.runs) == (not is_fork or bool(edits))
        after, output, errors = home.run_to_end([*FORKED, what], FORKED_RUN=run)
        assert (after, errors) == (0, "")
        assert json.loads(output) == RESULT
        books = Books(home.database)
        assert books.runs[made][0] == "completed"
        assert len(books.of(made, "StateEdited")) == 1
        assert len(books.of(made, "RunResumed")) == 1
        if is_fork:
            assert all_of(books, run) == parent
            assert len(books.of(made, "StateImported")) == 1
        notes = Counter((home.folder / "notes.txt").read_text().splitlines())
        assert notes[f"{run} begin"] == 1
        assert notes[f"{made} begin"] == (0 if is_fork else 1)
        assert notes[f"{made} charge 1"] == (0 if is_fork else 1)
        assert notes[f"{made} charge 2"] in (1, 2)  # one that was under way is made again
        if code == 0:
            break
    assert kills >= 5
