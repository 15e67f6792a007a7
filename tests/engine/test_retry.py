"""Retries of failed steps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    ExponentialBackoffRetryPolicy,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from durable_flow.records import StepFailed

from .conftest import Log
from .flows import in_another_loop, records_of, until


class Item(Event):
    n: int = 0


class Asked:
    """A policy that notes what it is asked and answers from a list."""

    def __init__(self, *answers: Any):
        self.answers = list(answers)
        self.questions: list[tuple[float, int, str, int | None]] = []

    def next(self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None) -> float | None:
        self.questions.append((elapsed_time, attempts, str(error), seed))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def flaky(policy: Any, failures: int, **options: Any) -> Workflow:
    """A workflow whose step fails so many times."""

    class Flaky(Workflow):
        def __init__(self) -> None:
            super().__init__(**options)
            self.began: list[float] = []

        @step(retry_policy=policy)
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.began.append(time.monotonic())
            if len(self.began) <= failures:
                raise ValueError(f"failure {len(self.began)}")
            return StopEvent(result=len(self.began))

    return Flaky()


async def test_a_failed_step_is_tried_again_and_never_early(journal: Journal) -> None:
    flow = flaky(ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.05), 2, journal=journal)
    assert await flow.run(run_id="r") == 3
    first, second, third = flow.began
    assert second - first >= 0.05
    assert third - second >= 0.05
    failed = await records_of(journal, "r", StepFailed)
    assert [(f.attempt, f.error.message) for f in failed] == [(1, "failure 1"), (2, "failure 2")]
    assert all("in work" in f.error.traceback for f in failed)


async def test_when_the_attempts_are_used_up_the_last_error_fails_the_run(journal: Journal) -> None:
    flow = flaky(ConstantDelayRetryPolicy(maximum_attempts=3, delay=0), 99, journal=journal)
    with pytest.raises(ValueError, match="failure 3"):
        await flow.run(run_id="r")
    assert len(flow.began) == 3
    assert [f.retry_at is None for f in await records_of(journal, "r", StepFailed)] == [False, False, True]


async def test_without_a_policy_the_first_error_fails_the_run(journal: Journal) -> None:
    flow = flaky(None, 99, journal=journal)
    with pytest.raises(ValueError, match="failure 1"):
        await flow.run()
    assert len(flow.began) == 1


async def test_a_policy_is_told_attempts_elapsed_time_error_and_a_seed_of_its_own_for_each(journal: Journal) -> None:
    policy = Asked(0.03, 0, None)
    with pytest.raises(ValueError, match="failure 3"):
        await flaky(policy, 99, journal=journal).run()
    elapsed, attempts, errors, seeds = zip(*policy.questions, strict=True)
    assert attempts == (1, 2, 3)
    assert errors == ("failure 1", "failure 2", "failure 3")
    assert 0 <= elapsed[0] < elapsed[1] <= elapsed[2]
    assert elapsed[1] >= 0.03
    assert len(set(seeds)) == 3
    assert all(isinstance(seed, int) for seed in seeds)


async def test_two_steps_that_fail_on_one_event_get_seeds_of_their_own(memory: Journal) -> None:
    one, two = Asked(0, 0), Asked(0, 0)

    class Twins(Workflow):
        @step(retry_policy=one)
        async def first(self, ev: StartEvent) -> Item:
            return self.fails_twice(one)

        @step(retry_policy=two)
        async def second(self, ev: StartEvent) -> Item:
            return self.fails_twice(two)

        @step
        async def end(self, ctx: Context, ev: Item) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [Item] * 2) else None

        def fails_twice(self, policy: Asked) -> Item:
            if policy.answers:
                raise ValueError("again")
            return Item()

    await Twins(journal=memory).run()
    seeds = [seed for *_, seed in one.questions + two.questions]
    assert len(seeds) == len(set(seeds)) == 4


async def test_a_policy_without_seed_is_asked_without(memory: Journal) -> None:
    class Old:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            return 0 if attempts < 2 else None

    assert await flaky(Old(), 1, journal=memory).run() == 2


async def test_a_policy_that_raises_fails_the_run_by_its_error(journal: Journal) -> None:
    with pytest.raises(ZeroDivisionError, match="in the policy") as raised:
        await flaky(Asked(ZeroDivisionError("in the policy")), 99, journal=journal).run(run_id="r")
    assert str(raised.value.__cause__) == "failure 1"
    [note] = raised.value.__notes__
    assert "retry policy of step 'work', run r" in note
    assert (await journal.run("r")).status == "failed"


@pytest.mark.parametrize("answer", [-1, float("nan"), float("inf"), "soon", True])
async def test_a_policy_that_answers_nonsense_fails_the_run(memory: Journal, answer: object) -> None:
    with pytest.raises(WorkflowRuntimeError, match="retry policy of step work"):
        await flaky(Asked(answer), 99, journal=memory).run()


async def test_a_retry_delay_occupies_no_worker(memory: Journal) -> None:
    class Queue(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=memory)
            self.order: list[int] = []

        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(3)]

        @step(num_workers=1, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.05))
        async def work(self, ctx: Context, ev: Item) -> StopEvent | None:
            self.order.append(ev.n)
            if self.order == [0]:
                raise ValueError("the first one")
            return StopEvent(result=self.order) if ctx.collect_events(ev, [Item] * 3) else None

    assert await Queue().run() == [0, 1, 2, 0]


async def test_the_next_attempt_gets_the_event_as_it_was_and_the_context_as_it_is(journal: Journal) -> None:
    seen: list[tuple[list[str], int]] = []

    class Changes(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            tries = ctx.data.get("tries", 0)
            seen.append((list(ev.names), tries))
            ev.names.append("changed")
            ctx.data["tries"] = tries + 1
            if tries < 2:
                raise ValueError("again")
            return StopEvent()

    await Changes(journal=journal).run(run_id="r", names=["a"])
    assert seen == [(["a"], 0), (["a"], 1), (["a"], 2)]
    assert (await journal.state("r")).context == {"tries": 3}


async def test_other_steps_go_on_during_a_retry_delay(memory: Journal) -> None:
    class Two(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=memory)
            self.other_ran = asyncio.Event()

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item:
            return Item()

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.01))
        async def flaky(self, ev: Item) -> StopEvent:
            if not self.other_ran.is_set():
                await self.other_ran.wait()
                raise ValueError("once")
            return StopEvent(result="ok")

        @step
        async def other(self, ev: Item) -> None:
            self.other_ran.set()

    assert await Two().run() == "ok"


async def journal_shows_failure(journal: Journal, run_id: str) -> bool:
    started = any(info.run_id == run_id for info in await journal.runs())
    return started and bool(await records_of(journal, run_id, StepFailed))


async def test_the_time_of_the_next_attempt_survives_a_restart(url: str) -> None:
    policy = ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.4)

    async def begin() -> None:
        async with Journal(url) as journal:
            flow = flaky(policy, 1, journal=url, workflow_name="Flaky")
            flow.run(run_id="r")
            await until(lambda: journal_shows_failure(journal, "r"))

    await in_another_loop(begin)
    async with Journal(url) as journal:
        (failed,) = await records_of(journal, "r", StepFailed)
        state = await journal.state("r")
        assert [(t.step, t.attempt) for t in state.tasks] == [("work", 2)]
        assert state.tasks[0].retry_at.timestamp() == pytest.approx(failed.retry_at / 1e6)
        flow = flaky(policy, 0, journal=url, workflow_name="Flaky")
        began = []

        async def note_time() -> Any:
            result = await (await flow.resume("r"))
            began.append(time.time())
            return result

        assert await note_time() == 1
        assert began[0] >= failed.retry_at / 1e6
        assert len(flow.began) == 1


async def test_backoff_grows(memory: Journal) -> None:
    policy = ExponentialBackoffRetryPolicy(maximum_attempts=3, initial_delay=0.02, multiplier=3, jitter=False)
    flow = flaky(policy, 2, journal=memory)
    assert await flow.run() == 3
    first, second, third = flow.began
    assert second - first >= 0.02
    assert third - second >= 0.06


async def test_failures_are_logged_with_run_and_step_and_without_payload(memory: Journal, log: Log) -> None:
    await flaky(ConstantDelayRetryPolicy(maximum_attempts=2, delay=0), 1, journal=memory).run(run_id="r")
    (line,) = log.of("step_failed")
    assert (line.run_id, line.step) == ("r", "work")
    assert "tried again" in line.getMessage()
    assert "failure 1" not in line.getMessage()
