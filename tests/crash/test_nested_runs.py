"""Killed at the commits of a run and of its children, the run finds its children again: each one once."""

from __future__ import annotations

from collections import Counter

import pytest

from .histories import KILLED, Books, History, Laboratory
from .journeys import RESULT, RUNS
from .kills import AFTER_COMMIT, BEFORE_COMMIT

JOURNEY = ["journey"]


KINDS = {
    "ChildStarted", "ChildAsked", "ChildEnded", "EffectReused", "CallRecorded", "StepFailed", "StepCompleted",
    "WaitOpened", "WaitAnswered", "RunCompleted",
}  # fmt: skip


def shapes(books: Books) -> Counter[tuple[str, ...]]:
    """Return the runs by what must not depend on kills. Their ids do: they come from the uid of the journey."""
    return Counter(
        (status, *sorted(row.kind for row in books.rows if row.run_id == run_id and row.kind in KINDS))
        for run_id, (status, _) in books.runs.items()
    )


@pytest.mark.parametrize("point", [BEFORE_COMMIT, AFTER_COMMIT])
def test_killed_at_any_commit_a_run_and_its_children_come_to_the_same_end(lab: Laboratory, point: str):
    with lab.new_history() as undisturbed:
        assert lab.live(undisturbed, JOURNEY, journey=True) == 0, undisturbed.output()
        assert undisturbed.outcome()["results"]["journey"] == RESULT
        assert len(undisturbed.last_books.runs) == RUNS
        expected = shapes(undisturbed.last_books)
    commits = range(1, undisturbed.outcome()["commits"] + 1)
    numbers = commits if lab.place.kills is None else commits[:: max(1, len(commits) // lab.place.kills)]

    def killed_at(number: int) -> tuple[History, list[str]]:
        with lab.new_history() as history:
            if lab.live(history, JOURNEY, journey=True, kill=(number, point)) == KILLED:
                lab.live(history, JOURNEY, journey=True)
            if history.exits[-1] != 0:
                return history, [f"a life ended with {history.exits[-1]}", history.output()]
            return history, wrong(history, expected)

    done = lab.each(killed_at, numbers)
    assert sum(KILLED in history.exits for history, _ in done) > len(numbers) * 2 // 3
    found = {number: problems for number, (_, problems) in zip(numbers, done, strict=True) if problems}
    assert not found, f"{len(found)} of {len(numbers)} histories are wrong, the first: {next(iter(found.items()))}"


def wrong(history: History, expected: Counter[tuple[str, ...]]) -> list[str]:
    problems = []
    books = history.last_books
    if history.outcome()["results"]["journey"] != RESULT:
        problems.append(f"the result is {history.outcome()['results']['journey']}")
    if shapes(books) != expected:
        problems.append(f"the runs are {shapes(books)} instead of {expected}")
    if books.open_messages:
        problems.append(f"{books.open_messages} messages were left over")
    started = Counter(row.data["run_id"] for row in books.rows if row.kind == "ChildStarted")
    if set(started) != set(books.runs) - {"journey"} or set(started.values()) != {1}:
        problems.append(f"started: {started}")
    lines = history.lines()
    for then in history.snapshots:
        called = {row.run_id for row in then.books.rows if row.kind == "CallRecorded"}
        again = [line for line in lines if line.run_id in called and lines[line] != then.lines[line]]
        problems += [f"{line} was recorded, and called again" for line in again]
    return problems
