"""Forks of random histories, at any of their boundaries, and edits in place: then killed anywhere, to their end."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from durable_flow.branching import Branch, Emission, branch, output_of, without_output
from durable_flow.fold import fold
from durable_flow.journal.forking import emit_like
from durable_flow.journal.patches import edit_facts
from durable_flow.records import (
    EventEmitted,
    Fact,
    PendingDropped,
    Record,
    StateEdited,
    StateImported,
    StepCompleted,
    StepDiverged,
)
from durable_flow.state import CANCELLED, COMPLETED, RunState

from .loop import Hang
from .more import MORE
from .programs import SimDone
from .scenarios import MODEL_SCENARIOS, Scenario, simulation
from .simulation import Simulation
from .store import UID

TRIALS = int(os.environ.get("DURABLE_FLOW_SIMULATION_TRIALS", "40")) // 2
FIRST_SEED = int(os.environ.get("DURABLE_FLOW_SIMULATION_SEED", "1"))
# Those whose end is known by the context and the result alone: the journal of a fork tells half the story.
SCENARIOS = {
    name: scenario
    for name, scenario in (MODEL_SCENARIOS | MORE).items()
    if scenario.final and not scenario.allowed and not scenario.may_fail
}
MARK = "edited from outside"
# What they return says which keys there are, or they take all of them away.
COUNTS_KEYS = {"clears", "deletes"}


def _counts_keys(scenario: Scenario) -> bool:
    return any(program in COUNTS_KEYS for program, _ in scenario.tasks.values())


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="durable_flow")


def given_up(scenario: Scenario, seed: int) -> Simulation:
    """A run under random kills, given up after some of its commits, or at its end."""
    records = len(simulation(scenario, seed, 0).finish().store.records)
    upto = random.Random(seed).randrange(1, records + 8)
    run = simulation(scenario, seed, crashes=seed % 3)
    run.until(lambda: len(run.store.records) >= upto or bool(run.state.ended)).close()
    return run


def boundary(run: Simulation, rng: random.Random) -> tuple[list[Record], list[Record]] | None:
    """The records up to any boundary at which the run had not ended for good: those before its group, and the group."""
    ends = [record.seq for record in run.store.records if record.boundary]
    while ends:
        at = ends.pop(rng.randrange(len(ends)))
        if fold(run.store.records[:at]).ended in (COMPLETED, CANCELLED):
            continue
        before = max((r.seq for r in run.store.records[: at - 1] if r.boundary), default=0)
        return run.store.records[:before], run.store.records[before:at]
    return None


def marked(run: Simulation) -> Callable[[RunState], list[Fact]]:
    return lambda state: edit_facts(state.context, run.codec, run_id="fork", by="sim", values={MARK: 7})


def forked(run: Simulation, rng: random.Random, *, edits: bool, replaces: bool) -> Branch | None:
    """A fork at any boundary: with a value more, or with the output of a step replaced by an equal event."""
    found = boundary(run, rng)
    if found is None:
        return None
    before, group = found
    output = output_of(group) if replaces else None
    if output is None or len(output.emitted) != 1 or output.fan_out is not None:
        return branch(fold([*before, *group]), None, UID[::-1], "", edit=marked(run) if edits else None)
    state = fold(before) if before else without_output(group, output)
    emit = emit_like(output.emitted[0].event, "fork")
    return branch(state, output, UID[::-1], "", edit=marked(run) if edits else None, emit=emit)


def ended(scenario: Scenario, run: Simulation, whole: Simulation) -> set[str]:
    """What does not hold at the end of a run that was to end as the whole one."""
    if run.state.ended != COMPLETED:
        return {f"progress: {run.state.ended or run.state.attention} {run.state.error}"}
    broken = set(run.broken) | {f"state once: {k}" for k, v in scenario.final.items() if run.value(k) != v}
    if set(run.result()) - {"last"} < set(scenario.tasks):
        broken.add("lost")
    if scenario.deterministic:
        results, results0 = (
            Counter(repr(v) for task, v in r.result().items() if not task.startswith("W")) for r in (run, whole)
        )
        if results != results0:
            broken.add(f"results: {results} {results0}")
        if run.facts(StepDiverged):
            broken.add(f"diverged: {run.facts(StepDiverged)}")
    return broken


def violations(scenario: Scenario, seed: int) -> set[str]:
    rng = random.Random(seed)
    parent = given_up(scenario, seed)
    whole = simulation(scenario, seed, 0).finish()
    for generation in range(rng.randrange(1, 4)):
        edits = rng.random() < 0.4 and not _counts_keys(scenario)
        made = forked(parent, rng, edits=edits, replaces=rng.random() < 0.5)
        if made is None:
            return set()
        before = list(parent.store.records)
        run = simulation(scenario, seed + 1000 * generation, crashes=rng.randrange(4), goes_on=parent, branch=made)
        try:
            if rng.random() < 0.5:
                # Another fork is made of this one.
                upto = rng.randrange(1, 30)
                run.until(lambda run=run, upto=upto: len(run.store.records) >= upto or bool(run.state.ended)).close()
                parent = run
                continue
            run.finish()
        except Hang as hang:
            return {f"hang: {hang}"}
        assert parent.store.records == before
        assert len(run.facts(StateImported)) == 1
        broken = ended(scenario, run, whole)
        if edits and (len(run.facts(StateEdited)), run.value(MARK)) != (1, 7):
            broken.add(f"the edit is gone: {run.value(MARK)}")
        return broken
    return set()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_fork_of_any_boundary_ends_as_the_whole_run_does(name: str) -> None:
    found: dict[int, Any] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS):
        if broken := violations(SCENARIOS[name], seed):
            found[seed] = broken
    assert not found, f"{name}: {len(found)} of {TRIALS} seeds, the first of them: {next(iter(found.items()))}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_with_all_dropped_a_fork_has_the_context_and_its_event(name: str) -> None:
    scenario = SCENARIOS[name]
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS // 2):
        parent = given_up(scenario, seed)
        found = boundary(parent, random.Random(seed))
        if found is None:
            continue
        before, group = found
        last = EventEmitted(parent.codec.encode_event(SimDone(task="last", total=1)), None, 0, None, ("finish",))

        def emit(*_: object, last: EventEmitted = last) -> Emission:
            return Emission(last)

        state = fold([*before, *group])
        made = branch(state, None, UID[::-1], "", emit=emit, drop_pending=True)
        run = simulation(scenario, seed, crashes=seed % 3, goes_on=parent, branch=made).finish()
        assert run.result() == {"last": None}
        assert run.state.context == state.context
        assert [fact.task.step for fact in run.facts(StepCompleted)] == ["finish"]
        assert len(run.facts(PendingDropped)) == 1


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not _counts_keys(SCENARIOS[name])])
def test_an_edit_of_a_run_that_nobody_has_changes_nothing_else(name: str) -> None:
    scenario = SCENARIOS[name]
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS // 2):
        whole = simulation(scenario, seed, 0).finish()
        upto = random.Random(seed).randrange(1, len(whole.store.records))
        run = simulation(scenario, seed, crashes=seed % 3)
        run.until(lambda run=run, upto=upto: len(run.store.records) >= upto or bool(run.state.ended))
        if not run.state.ended:
            run.edit(marked(run)(run.state))
            run.finish()
            assert (len(run.facts(StateEdited)), run.value(MARK)) == (1, 7)
        else:
            run.finish()
        assert not ended(scenario, run, whole), (name, seed)


def test_forks_are_made_in_the_middle_and_killed() -> None:
    scenario = MODEL_SCENARIOS["read-modify-write, 4 steps"]
    steps, lives = Counter[bool](), 0
    for seed in range(30):
        parent = given_up(scenario, seed)
        made = forked(parent, random.Random(seed), edits=False, replaces=False)
        assert made is not None
        steps[made.state.steps_completed > 0] += 1
        lives += simulation(scenario, seed, crashes=seed % 4, goes_on=parent, branch=made).finish().lives > 1
    assert min(steps[True], steps[False], lives) > 5
