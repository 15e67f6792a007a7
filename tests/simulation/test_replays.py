"""Whatever was killed where: today's code, which is the same, does what the journal says, step by step.

Of programs that are deterministic nothing differs. Where a step reads what others change meanwhile, which value it saw
is not recorded: a difference is allowed there if the replay says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from durable_flow import ReplayReport
from durable_flow.records import CallRecorded, StepCompleted, StepFailed

from .more import MORE
from .recoveries import RECOVERIES
from .replaying import replayed
from .scenarios import MODEL_SCENARIOS, simulation
from .simulation import Simulation
from .test_continued import SCENARIOS as CONTINUED
from .test_continued import continued
from .test_fan_in import TREE, simulated

TRIALS = int(os.environ.get("DURABLE_FLOW_SIMULATION_TRIALS", "40")) // 2
FIRST_SEED = int(os.environ.get("DURABLE_FLOW_SIMULATION_SEED", "1"))
ALL = MODEL_SCENARIOS | MORE | RECOVERIES
# Their steps branch on chance, or store what is another value each time.
BY_CHANCE = {
    "own key, llm value", "send llm value, go on", "question by llm", "stream of llm items",
    "attempt 2 matches, is killed", "charge of llm amount", "branch by chance, reported", "question of two, by chance",
}  # fmt: skip
# Their steps read what others write at the same time, without a lock, and write nothing there themselves.
RACING = {
    "progress loop with calls", "progress loop, raises, retried", "charge, three attempts", "gathered calls, one sum",
    "poll a key", "counts the keys", "nested reads", "LIMIT: loop of equal events",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="durable_flow")


def complete(run: Simulation, report: ReplayReport) -> bool:
    """Tell whether every step that completed was replayed."""
    return report.replayed == len(run.facts(StepCompleted)) and report.failed_attempts == len(run.facts(StepFailed))


def require_equal(name: str, make: Callable[[int], Simulation]) -> None:
    found: dict[int, Any] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS):
        run = make(seed)
        report = replayed(run)
        unexplained = [d for d in report.divergences if name not in RACING or not d.raced]
        if unexplained or report.defaults or not complete(run, report):
            found[seed] = str(report)
    assert not found, f"{len(found)} of {TRIALS} seeds, the first of them: {next(iter(found.items()))}"


@pytest.mark.parametrize("name", sorted(ALL.keys() - BY_CHANCE))
def test_killed_anywhere_a_run_replays_as_it_was(name: str) -> None:
    require_equal(name, lambda seed: simulation(ALL[name], seed, crashes=1 + seed % 4).finish())


@pytest.mark.parametrize("name", sorted(CONTINUED.keys() - BY_CHANCE))
def test_a_run_that_goes_on_from_another_replays_as_it_was(name: str) -> None:
    require_equal(name, lambda seed: continued(CONTINUED[name], seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_tree_of_fan_outs_replays_as_it_was(seed: int) -> None:
    run = simulated(TREE, seed, crashes=6).finish()
    report = replayed(run)
    assert report.ok, report
    assert complete(run, report)


def test_no_call_is_made_again() -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + 5):
        run = simulation(ALL["progress loop with calls"], seed, crashes=3).finish()
        made = len(run.world.log)
        replayed(run)
        assert len(run.facts(CallRecorded)) == 6
        assert len(run.world.log) == made


@pytest.mark.parametrize("name", ["own key, llm value", "question by llm", "charge of llm amount"])
def test_what_is_another_value_each_time_is_found(name: str) -> None:
    run = simulation(ALL[name], FIRST_SEED, crashes=0).finish()
    report = replayed(run)
    assert not report.ok
    assert {divergence.raced for divergence in report.divergences} == {()}
