"""Killed at the named moments of a failure, a step is tried again and its handler runs as if nothing had happened."""

from __future__ import annotations

from durable_flow.records import StepFailed

from .recoveries import ATTEMPTS, RECOVERIES, SECONDS, every_failure_once
from .scenarios import simulation
from .simulation import Simulation


def begun() -> Simulation:
    return simulation(RECOVERIES["failures, rescued"], seed=3, crashes=0)


def failures(run: Simulation, task: str) -> list[StepFailed]:
    found = [(f, run.codec.decode_event(run.state.tasks[f.task].event)) for f in run.facts(StepFailed)]
    return [failed for failed, event in found if event.get("task") == task]


def test_killed_in_each_retry_delay_a_step_keeps_its_attempts_its_times_and_its_first_beginning() -> None:
    run = begun()
    for number in range(1, ATTEMPTS):
        run.until(lambda number=number: max((f.attempt for f in run.facts(StepFailed)), default=0) == number)
        run.stay_dead()
        before = dict(run.state.delayed)
        began = {task.id: task.began_at for task in run.state.tasks.values() if task.failures}
        assert before
        run.come_back()
        assert run.state.delayed == before
        assert {task.id: task.began_at for task in run.state.tasks.values() if task.failures} == began
    run.finish()
    assert run.result() == {"A": 2, "B": 1, "C": 0}
    assert not every_failure_once(run)


def test_killed_between_the_failure_and_its_handler_the_handler_runs() -> None:
    run = begun()
    run.world.closed.add("rescue")
    run.until(lambda: any(f.handler for f in run.facts(StepFailed)))
    run.stay_dead()
    handled = [f for f in run.facts(StepFailed) if f.handler]
    waiting = [task for task in run.state.tasks.values() if task.id.step == "rescue"]
    assert len(waiting) == len(handled) >= 1
    assert all(task.recoveries == {"rescue": 1} for task in waiting)
    assert not any(f.task in run.state.tasks for f in handled)
    assert run.world.reached["rescue"] == 0
    run.world.open("rescue")
    run.come_back().finish()
    assert run.result() == {"A": 2, "B": 1, "C": 0}


def test_killed_in_the_handler_it_runs_again_and_is_counted_once() -> None:
    run = begun()
    run.world.closed.add("rescue")
    run.until(lambda: run.world.reached["rescue"] > 0)
    run.stay_dead()
    run.world.open("rescue")
    run.come_back().finish()
    assert run.result() == {"A": 2, "B": 1, "C": 0}
    assert run.value("rescued:A:0") == run.value("rescued:B:0") == 1
    assert not every_failure_once(run)


def test_a_jittered_delay_is_a_function_of_the_run_and_its_failure() -> None:
    def delays(seed: int) -> list[int]:
        run = simulation(RECOVERIES["failures, over budget"], seed=seed, crashes=0).finish()
        records = [r for r in run.store.records if isinstance(r.fact, StepFailed) and r.fact.retry_at is not None]
        return [r.fact.retry_at - r.at for r in records]  # type: ignore[union-attr,operator]

    # The seed of a simulation is that of the world outside: of pauses, and of the process's own chance.
    first, second = delays(1), delays(2)
    assert first == second
    assert len(set(first)) == len(first) > 2
    assert all(SECONDS * 1_000_000 <= delay <= (SECONDS + 1) * 1_000_000 for delay in first)
