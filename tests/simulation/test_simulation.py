"""The loop under random kills: whatever dies where, a run ends as the undisturbed one does.

`DURABLE_FLOW_SIMULATION_TRIALS` sets how many seeds each scenario is tried with, `DURABLE_FLOW_SIMULATION_SEED` the
first of them. A violation names its seed: `violations(name, scenario, seed)` plays it again, always the same.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from .more import MORE
from .recoveries import RECOVERIES
from .scenarios import MODEL_SCENARIOS, simulation, violations

TRIALS = int(os.environ.get("DURABLE_FLOW_SIMULATION_TRIALS", "40"))
FIRST_SEED = int(os.environ.get("DURABLE_FLOW_SIMULATION_SEED", "1"))
SCENARIOS = MODEL_SCENARIOS | MORE | RECOVERIES


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Every simulated kill and divergence would be logged."""
    caplog.set_level("CRITICAL", logger="durable_flow")


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_anywhere_a_run_ends_as_if_nothing_had_happened(name: str) -> None:
    found: dict[int, Any] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS):
        broken = violations(name, SCENARIOS[name], seed)
        if broken:
            found[seed] = broken
    assert not found, f"{name}: {len(found)} of {TRIALS} seeds, the first of them: {next(iter(found.items()))}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_compacted_and_killed_anywhere_a_run_ends_as_if_nothing_had_happened(name: str) -> None:
    found: dict[int, Any] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + max(1, TRIALS // 4)):
        broken = violations(name, SCENARIOS[name], seed, compactions=1 + seed % 5)
        if broken:
            found[seed] = broken
    assert not found, f"{name}: {len(found)} seeds, the first of them: {next(iter(found.items()))}"


def test_compactions_strike_before_kills_and_more_than_once() -> None:
    run = simulation(SCENARIOS["fan-out of 20, join"], seed=5, crashes=4, compactions=5).finish()
    assert run.compactions == 0
    assert run.lives > 1
    assert run.store.kept[0].seq > 1


@pytest.mark.parametrize("name", ["fan-out of 20, join", "strands of every kind", "question by call, retried"])
def test_the_same_seed_makes_the_same_journal(name: str) -> None:
    first, second = (simulation(SCENARIOS[name], seed=5, crashes=4).finish() for _ in range(2))
    assert first.store.records == second.store.records
    assert first.lives == second.lives > 1


def test_the_kills_fall_before_commits_after_commits_and_between_turns() -> None:
    places = set()
    for seed in range(60):
        run = simulation(SCENARIOS["charge, three attempts"], seed=seed, crashes=3).finish()
        places.update(run.killed_at)
    assert places == {"before the commit", "after the commit", "between two turns"}
