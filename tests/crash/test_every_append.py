"""Killed with SIGKILL at four points of every commit of the journal, a run comes to the same end."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Sequence

import pytest

from .checks import problems
from .histories import KILLED, History, Laboratory
from .kills import POINTS
from .orders import CRATES, FAILING_PART, PARTS, price_of
from .runs import ALONE, EIGHT, LAPS

# Commits share appends as it happens, so a history may need a few more than the undisturbed one did.
MORE = 4
# Eight runs die at so many commits of a life, others each time; a run alone does at every one.
KILLS_OF_EIGHT = int(os.environ.get("DURABLE_FLOW_TEST_KILLS", "16"))


def test_an_undisturbed_run_completes_with_all_that_is_to_be_killed(undisturbed: History):
    outcome = undisturbed.outcome()
    assert outcome["results"]["alone"] == {
        "order": "of alone",
        "total": sum(price_of(number) for number in range(1, PARTS + 1)),
        "by": "kim",
        "laps": list(range(1, LAPS + 1)),
        "truck": "booked K-42",
        "crates": list(range(1, CRATES + 1)),
    }
    books = undisturbed.last_books
    kinds = {row.kind for row in books.rows}
    assert kinds >= {
        "EventCollected", "BufferReleased", "StepFailed", "EffectReused", "WaitOpened", "WaitAnswered",
        "MessageReceived", "CallRecorded", "TimerSet", "TimerFired", "StreamPublished", "ContextSet", "FanOutOpened",
        "JoinFired", "FanOutClosed",
    }  # fmt: skip
    lines = undisturbed.lines()
    assert set(lines.values()) == {1}
    assert sum(line.what == "price" for line in lines) == PARTS + 1
    assert outcome["contexts"]["alone"][f"tries:{FAILING_PART}"] == 2


@pytest.mark.parametrize("point", POINTS)
def test_one_run_killed_at_any_append_comes_to_the_same_end(lab: Laboratory, undisturbed: History, point: str):
    def killed_at(number: int) -> tuple[History, list[str]]:
        with lab.new_history() as history:
            if lab.live(history, ALONE, laps=LAPS, kill=(number, point)) == KILLED:
                lab.live(history, ALONE, laps=LAPS)
            return history, _wrong(history, undisturbed, ALONE)

    numbers = _commits(lab, undisturbed)
    histories = _all_right(lab, killed_at, numbers)
    survived = [number for number, history in zip(numbers, histories, strict=True) if KILLED not in history.exits]
    assert not survived or min(survived) > 25
    killed_with = {len(history.snapshots[0].books.rows) for history in histories if history.snapshots}
    assert len(killed_with) >= len(numbers) // 3


def test_one_run_killed_anywhere_while_snapshots_are_taken_comes_to_the_same_end(lab: Laboratory, undisturbed: History):
    def killed_at(number: int) -> tuple[History, list[str]]:
        with lab.new_history() as history:
            point = POINTS[number % len(POINTS)]
            if lab.live(history, ALONE, laps=LAPS, kill=(number, point), snapshot_rows=1 + number % 7) == KILLED:
                lab.live(history, ALONE, laps=LAPS, snapshot_rows=1)
            return history, _wrong(history, undisturbed, ALONE)

    histories = _all_right(lab, killed_at, _commits(lab, undisturbed, at_most=2 * KILLS_OF_EIGHT))
    # Some who took the run up began with a snapshot; one that is wrong would have ended their life.
    assert any(history.snapshots and history.snapshots[0].books.snapshots for history in histories)


@pytest.mark.parametrize("point", POINTS)
def test_one_run_killed_again_and_again_comes_to_the_same_end(lab: Laboratory, undisturbed: History, point: str):
    def killed_every(number: int) -> tuple[History, list[str]]:
        with lab.new_history() as history:
            while lab.live(history, ALONE, laps=LAPS, kill=(number, point)) == KILLED and len(history.exits) < 60:
                pass
            return history, _wrong(history, undisturbed, ALONE)

    # The first commits of a life are those of its heartbeat and of its claim: each of these lives gets further.
    histories = _all_right(lab, killed_every, (6, 8, 11))
    assert all(len(history.snapshots) >= 3 for history in histories)


@pytest.mark.parametrize("point", POINTS)
def test_eight_runs_killed_at_any_append_are_recovered_to_the_same_end(
    lab: Laboratory, eight_undisturbed: History, point: str
):
    def killed_at(number: int) -> tuple[History, list[str]]:
        with lab.new_history() as history:
            killed = lab.live(history, EIGHT, kill=(number, point)) == KILLED
            if killed and number % 3 == 0:
                # And once more, at another point of a commit of the life that recovers them.
                again = (3 + number * 7 % 20, POINTS[(POINTS.index(point) + number) % len(POINTS)])
                killed = lab.live(history, EIGHT, recover=True, kill=again) == KILLED
            if killed:
                lab.live(history, EIGHT, recover=True)
            return history, _wrong(history, eight_undisturbed, EIGHT)

    numbers = _commits(lab, eight_undisturbed, at_most=KILLS_OF_EIGHT)
    histories = _all_right(lab, killed_at, numbers)
    killed = [KILLED in history.exits for history in histories]
    assert sum(killed) >= len(numbers) // 3, killed


def _commits(lab: Laboratory, undisturbed: History, *, at_most: int | None = None) -> list[int]:
    """Return the commits to kill: all, or one of each of as many equal parts of a life, any one of them."""
    commits = range(1, undisturbed.outcome()["commits"] + MORE)
    parts = min(lab.place.kills or len(commits), at_most or len(commits), len(commits))
    bounds = [part * len(commits) // parts for part in range(parts + 1)]
    return [commits[random.randrange(*part)] for part in itertools.pairwise(bounds)]


def _wrong(history: History, undisturbed: History, runs: list[str]) -> list[str]:
    if history.exits[-1] != 0:
        return [f"a life ended with {history.exits[-1]}", history.output()]
    return problems(history, undisturbed, runs)


def _all_right(
    lab: Laboratory, experiment: Callable[[int], tuple[History, list[str]]], numbers: Sequence[int]
) -> list[History]:
    """Do an experiment for each number, several at a time; all of them must end well."""
    done = lab.each(experiment, numbers)
    wrong = {number: found for number, (_, found) in zip(numbers, done, strict=True) if found}
    told = [f"killed at {number}: {found[0]}" for number, found in wrong.items()]
    assert not wrong, "\n".join(
        [f"{len(wrong)} of {len(numbers)} histories are wrong", *told, *next(iter(wrong.values()))]
    )
    return [history for history, _ in done]
