"""Families of runs that are killed and cancelled at random: a run is cancelled with its parent, and only with it."""

from __future__ import annotations

import os
import random

import pytest

from .families import PARENTS, RESULT
from .histories import KILLED, Books, Laboratory
from .kills import POINTS

SEEDS = int(os.environ.get("DURABLE_FLOW_FAMILY_SEEDS", "4"))
FIRST_SEED = int(os.environ.get("DURABLE_FLOW_FAMILY_SEED", "1"))
LIVES = 4


def wrong(books: Books, results: dict[str, object]) -> list[str]:
    problems = []
    parents = {row.run_id: row.data.get("parent") for row in books.rows if row.kind == "RunStarted"}
    for run_id, (status, _) in books.runs.items():
        parent = parents[run_id]
        if status not in ("completed", "cancelled"):
            problems.append(f"{run_id} is left {status}; its parent is {books.runs.get(parent or '')}")
        if status == "cancelled" and parent is not None and books.runs[parent][0] != "cancelled":
            problems.append(f"{run_id} was cancelled and its parent {parent} is {books.runs[parent]}")
    if books.runs[PARENTS[0]][0] != "completed":
        problems.append(f"{PARENTS[0]} was not cancelled by anybody and is {books.runs[PARENTS[0]]}")
    problems += [f"{id}: {result}" for id, result in results.items() if result not in (RESULT, "cancelled")]
    return problems


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_children_are_cancelled_with_their_parents_and_no_others(lab: Laboratory, seed: int):
    chance = random.Random(seed)
    with lab.new_history() as history:
        for life in range(LIVES):
            kill = (chance.randrange(2, 24), chance.choice(POINTS))
            code = lab.live(history, PARENTS, family=seed * LIVES + life, kill=kill)
            assert code in (0, KILLED), history.output()
        assert lab.live(history, PARENTS, family=0) == 0, history.output()
        problems = wrong(history.last_books, history.outcome()["results"])
        assert KILLED in history.exits
    assert not problems, "\n".join(problems)
