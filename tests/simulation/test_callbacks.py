"""Runs with a checkpoint callback under random kills: they end as they do without, and it is told what is durable."""

from __future__ import annotations

import os
from typing import Any

import pytest

from durable_flow.engine.checkpointing import Completion, call_back
from durable_flow.engine.run import Run
from durable_flow.fold import fold
from durable_flow.records import StepCompleted, TaskId

from .simulation import Simulation
from .test_simulation import FIRST_SEED, SCENARIOS, _quiet, violations

__all__ = ["_quiet"]

TRIALS = max(5, int(os.environ.get("DURABLE_FLOW_SIMULATION_TRIALS", "40")) // 8)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[Simulation, list[TaskId]]:
    """The completions that the callbacks were told of; each run of a simulation gets one that takes its time."""
    told: dict[Simulation, list[TaskId]] = {}
    new_run = Simulation._new_run

    def with_callback(simulation: Simulation, *args: Any) -> Run:
        run = new_run(simulation, *args)
        before = [record.seq for record in simulation.store.records]
        seen: list[int] = [before[-1] if before else 0]

        async def note(completion: Completion) -> None:
            at, point = completion.checkpoint.seq, completion.point
            records = simulation.store.records
            assert at <= len(records), "told before it is durable"
            assert at > seen[-1], "out of order, or twice"
            seen.append(at)
            assert point.state == fold(records[:at])
            [task] = [r.fact.task for r in point.group if isinstance(r.fact, StepCompleted)]
            of_this_run = told.setdefault(simulation, [])
            assert task not in of_this_run
            of_this_run.append(task)
            for _ in range(2):
                ahead = [t for t in run.executions if t.seq > point.before.offset + point.before.seq]
                assert not ahead, "what follows has begun"
                await simulation.world.pause()
            assert run.outcome is None, "the run has ended"

        call_back(run, [note])
        return run

    monkeypatch.setattr(Simulation, "_new_run", with_callback)
    return told


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_with_a_callback_ends_as_it_does_without(name: str, told: dict[Simulation, list[TaskId]]) -> None:
    found: dict[int, Any] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS):
        broken = violations(name, SCENARIOS[name], seed)
        if broken:
            found[seed] = broken
    assert not found, f"{name}: {len(found)} of {TRIALS} seeds, the first of them: {next(iter(found.items()))}"
    assert told
