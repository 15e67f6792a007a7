"""Runs that begin with the state of another one, which was given up anywhere, and are killed anywhere themselves."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from durable_flow.records import EventEmitted, StateImported, StepDiverged

from .loop import Hang
from .more import MORE
from .scenarios import MODEL_SCENARIOS, Scenario, simulation
from .simulation import Simulation

TRIALS = int(os.environ.get("DURABLE_FLOW_SIMULATION_TRIALS", "40")) // 2
FIRST_SEED = int(os.environ.get("DURABLE_FLOW_SIMULATION_SEED", "1"))
# Those whose outcome is known by the context and the result alone: the journal of the second run tells half the story.
SCENARIOS = {
    name: scenario
    for name, scenario in (MODEL_SCENARIOS | MORE).items()
    if scenario.final and not scenario.allowed and not scenario.may_fail
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="durable_flow")


def given_up(scenario: Scenario, seed: int) -> Simulation:
    """A run that was given up after some of its commits."""
    records = len(simulation(scenario, seed, 0).finish().store.records)
    upto = random.Random(seed).randrange(1, records)
    run = simulation(scenario, seed, 0)
    run.until(lambda: len(run.store.records) >= upto).close()
    return run


def continued(scenario: Scenario, seed: int) -> Simulation:
    """A run that goes on from such a one, under random kills, to its end."""
    first = given_up(scenario, seed)
    if first.state.ended:
        return first
    return simulation(scenario, seed, crashes=seed % 4, goes_on=first).finish()


def violations(scenario: Scenario, seed: int) -> set[str]:
    try:
        run = continued(scenario, seed)
    except Hang as hang:
        return {f"hang: {hang}"}
    if run.state.ended != "completed":
        return {f"progress: {run.state.ended or run.state.attention} {run.state.error}"}
    broken = set(run.broken) | {f"state once: {k}" for k, v in scenario.final.items() if run.value(k) != v}
    if set(run.result()) - {"last"} < set(scenario.tasks):
        broken.add("lost")
    if scenario.deterministic and run.facts(StepDiverged):
        broken.add(f"diverged: {run.facts(StepDiverged)}")
    return broken


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_that_goes_on_from_another_ends_as_that_one_would_have(name: str) -> None:
    found: dict[int, Any] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS):
        if broken := violations(SCENARIOS[name], seed):
            found[seed] = broken
    assert not found, f"{name}: {len(found)} of {TRIALS} seeds, the first of them: {next(iter(found.items()))}"


def test_calls_are_not_made_again_in_a_run_that_goes_on() -> None:
    scenario = MODEL_SCENARIOS["progress loop with calls"]
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS):
        first = given_up(scenario, seed)
        if first.state.ended:
            continue
        recorded = len(first.calls("get"))
        before = len(first.world.ran("get"))
        second = simulation(scenario, seed, 0, goes_on=first).finish()
        assert len(second.calls("get")) == 6 - recorded
        assert len(second.world.ran("get")) - before == 6 - recorded
        assert [f.event.name for f in second.facts(EventEmitted) if f.event.name == "SimBegin"] == []
        assert len(second.facts(StateImported)) == 1


def test_the_runs_are_given_up_and_killed_in_the_middle() -> None:
    lives = [continued(MODEL_SCENARIOS["read-modify-write, 4 steps"], seed).lives for seed in range(30)]
    assert sum(n > 1 for n in lives) > 5
