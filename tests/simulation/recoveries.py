"""Programs that fail for good: their failures go to `@catch_error` handlers, wherever the process is killed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from durable_flow import Context, Event, StepFailedEvent, catch_error, step
from durable_flow.records import RunFailed, StepCompleted, StepFailed
from durable_flow.retry_policy import (
    retry_if_not_exception_type,
    retry_policy,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random,
)

from .programs import Programs, SimDone, SimGo
from .scenarios import Scenario, both, done, equal
from .simulation import Simulation

ATTEMPTS = 3
SECONDS = 2
SLOW_SECONDS = 5
BUDGET = 2


class SimOut(Exception):
    """What the programs raise; a constructor of its own, and attributes."""

    def __init__(self, task: str, level: int, attempt: int):
        super().__init__(f"{task} at level {level}")
        self.task = task
        self.level = level
        self.attempt = attempt


class SimFragile(Event):
    task: str
    total: int
    level: int = 0
    good_from: int = 99


class SimPatch(Event):
    task: str
    total: int
    level: int
    good_from: int


class SimSlow(Event):
    task: str
    total: int


class Recovering(Programs):
    """`fragile` fails until its event's level is high enough; its handler sends the next level, over another step."""

    @step
    async def split(self, ev: SimGo) -> SimFragile | SimSlow:
        if ev.arg is None:
            return SimSlow(task=ev.task, total=ev.total)
        return SimFragile(task=ev.task, total=ev.total, good_from=ev.arg)

    @step(
        num_workers=2,
        retry_policy=retry_policy(
            retry=retry_if_not_exception_type(KeyError),
            wait=wait_fixed(SECONDS) + wait_random(0, 1),
            stop=stop_after_attempt(ATTEMPTS),
        ),
    )
    async def fragile(self, ctx: Context, ev: SimFragile) -> SimDone:
        info = ctx.retry_info()
        if info.last_exception is not None:
            # Also in a process that did not see it raised.
            assert isinstance(info.last_exception, SimOut)
            assert vars(info.last_exception) == {
                "task": ev.task, "level": ev.level, "attempt": info.retry_number - 1
            }  # fmt: skip
            assert info.elapsed_seconds >= SECONDS * info.retry_number
        key = f"{ev.task}:{ev.level}"
        ctx.data[key] = ctx.data.get(key, 0) + 1
        await self.world.pause()
        if ev.level < ev.good_from:
            raise SimOut(ev.task, ev.level, info.retry_number)
        return SimDone(task=ev.task, result=ev.level, total=ev.total)

    @catch_error(for_steps=["fragile"], max_recoveries=BUDGET)
    async def rescue(self, ctx: Context, ev: StepFailedEvent) -> SimPatch:
        await self.world.at("rescue")
        await self.world.pause()
        failed, error = ev.input_event, ev.exception
        assert isinstance(failed, SimFragile)
        assert isinstance(error, SimOut)
        assert (error.task, error.level, error.attempt) == (failed.task, failed.level, ATTEMPTS - 1)
        assert ev.attempts == ATTEMPTS
        assert ev.elapsed_seconds >= SECONDS * (ATTEMPTS - 1)
        ctx.data[f"rescued:{failed.task}:{failed.level}"] = ctx.data.get(f"rescued:{failed.task}:{failed.level}", 0) + 1
        return SimPatch(task=failed.task, total=failed.total, level=failed.level + 1, good_from=failed.good_from)

    @step
    async def patch(self, ctx: Context, ev: SimPatch) -> None:
        await self.world.pause()
        ctx.send_event(SimFragile(task=ev.task, total=ev.total, level=ev.level, good_from=ev.good_from))
        await self.world.pause()

    @step(retry_policy=retry_policy(wait=wait_fixed(SECONDS), stop=stop_after_delay(SLOW_SECONDS)))
    async def slow(self, ctx: Context, ev: SimSlow) -> None:
        await self.world.pause()
        raise SimOut(ev.task, 0, ctx.retry_info().retry_number)

    @catch_error
    async def give_up(self, ev: StepFailedEvent) -> SimDone:
        failed = ev.input_event
        assert isinstance(failed, SimSlow)
        return SimDone(task=failed.task, result=ev.attempts, total=failed.total)


def every_failure_once(run: Simulation) -> list[str]:
    """Each task's attempts fail in order, then one handler gets it; what was handled has ended by that."""
    broken = []
    attempts: dict[Any, list[int]] = {}
    handled: Counter[Any] = Counter()
    for failed in run.facts(StepFailed):
        attempts.setdefault(failed.task, []).append(failed.attempt)
        handled[failed.task] += failed.handler is not None
    for task, numbers in attempts.items():
        if numbers != list(range(1, len(numbers) + 1)):
            broken.append(f"attempts of {task}: {numbers}")
        if task.step == "fragile" and len(numbers) != ATTEMPTS:
            broken.append(f"{len(numbers)} attempts of {task}")
        if handled[task] > 1 or any(c.task == task for c in run.facts(StepCompleted)):
            broken.append("doubled")
    return broken


def retries_are_never_early(run: Simulation) -> list[str]:
    """The next attempt fails later than the time that was recorded for it."""
    due: dict[Any, int] = {}
    early = []
    for record in run.store.records:
        if isinstance(record.fact, StepFailed):
            if record.at < due.get(record.fact.task, 0):
                early.append(f"early: {record.fact.task}")
            if record.fact.retry_at is not None:
                due[record.fact.task] = record.fact.retry_at
    return early


def began_at_the_first(run: Simulation) -> list[str]:
    """Every failure of a task says the same about the beginning of its first attempt."""
    began: dict[Any, set[Any]] = {}
    for failed in run.facts(StepFailed):
        began.setdefault(failed.task, set()).add(failed.began_at)
    return [f"began: {task}" for task, times in began.items() if len(times) != 1 or None in times]


def over_budget(run: Simulation) -> list[str]:
    """The failure that no handler may take fails the run."""
    failed = run.facts(RunFailed)
    broken = [f"ended: {run.state.ended}"] * (run.state.ended != "failed" or len(failed) != 1)
    taken = [f.handler for f in run.facts(StepFailed) if f.handler is not None]
    return broken + [f"taken {taken}"] * (taken != ["rescue"] * BUDGET)


def gave_up_in_time(run: Simulation) -> list[str]:
    """Elapsed time counts from the first attempt's beginning, over restarts: so the retries come to an end."""
    broken = []
    records = [r for r in run.store.records if isinstance(r.fact, StepFailed) and r.fact.task.step == "slow"]
    for record in records:
        fact = record.fact
        assert isinstance(fact, StepFailed)
        assert fact.began_at is not None
        over = record.at - fact.began_at >= SLOW_SECONDS * 1_000_000
        if over is not (fact.handler == "give_up"):
            broken.append(f"at {record.at - fact.began_at}: {fact.handler}")
    return broken + ["lost"] * (done(run).get("S") != len(records))


SOUND = both(every_failure_once, both(retries_are_never_early, began_at_the_first))

RECOVERIES = {
    "failures, rescued": Scenario(
        {"A": ("split", 2), "B": ("split", 1), "C": ("split", 0)},
        {"A:0": 3, "A:1": 3, "A:2": 1, "B:0": 3, "B:1": 1, "C:0": 1,
         "rescued:A:0": 1, "rescued:A:1": 1, "rescued:B:0": 1},
        workflow=Recovering,
        check=both(SOUND, equal(lambda r: [({"A": 2, "B": 1, "C": 0}, done(r))])),
    ),
    "failures, over budget": Scenario(
        {"A": ("split", 99)}, workflow=Recovering, may_fail=True, deterministic=False, check=both(SOUND, over_budget)
    ),
    "failures, until it takes too long": Scenario(
        {"S": ("split", None)}, workflow=Recovering, deterministic=False, check=both(SOUND, gave_up_in_time)
    ),
}  # fmt: skip

__all__ = ["RECOVERIES"]
