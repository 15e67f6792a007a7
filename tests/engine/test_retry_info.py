"""What a step and its retry policy are told about the attempts before, also those of another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    Journal,
    RetryInfo,
    StartEvent,
    StopEvent,
    UnreconstructedException,
    Workflow,
    step,
)
from durable_flow.records import StepFailed
from durable_flow.retry_policy import retry_policy, stop_after_attempt, stop_after_delay, wait_fixed

from .flows import in_another_loop, records_of, time_stands_still, until

SOON = timedelta(seconds=1)


class Item(Event):
    n: int = 0


class Busy(Exception):
    def __init__(self, host: str, tries: int):
        super().__init__(f"{host} is busy")
        self.host = host
        self.tries = tries


class Peculiar(Exception):
    def __init__(self) -> None:
        super().__init__("peculiar")
        self.connection = object()


def failing(failures: int, raises: Callable[[int], Exception], policy: Any, **options: Any) -> Any:
    """A workflow that notes its `infos`; its step fails so many times in this process."""

    class Failing(Workflow):
        def __init__(self) -> None:
            super().__init__(**{"workflow_name": "Failing", **options})
            self.infos: list[RetryInfo] = []

        @step(retry_policy=policy)
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.infos.append(ctx.retry_info())
            if len(self.infos) <= failures:
                raise raises(len(self.infos))
            return StopEvent(result="done")

    return Failing()


async def test_the_first_attempt_has_nothing_before_it(memory: Journal) -> None:
    flow = failing(0, ValueError, None, journal=memory)
    await flow.run()
    assert flow.infos == [RetryInfo(0, 0.0, None, None)]


async def test_later_attempts_are_told_of_those_before(journal: Journal) -> None:
    before = datetime.now(UTC)
    flow = failing(2, lambda n: Busy("db", n), ConstantDelayRetryPolicy(delay=0.02), journal=journal)
    await flow.run(run_id="r")
    _, second, third = flow.infos
    assert (second.retry_number, third.retry_number) == (1, 2)
    assert second.elapsed_seconds >= 0.02
    assert second.elapsed_seconds + 0.02 <= third.elapsed_seconds
    assert isinstance(second.last_exception, Busy)
    assert isinstance(third.last_exception, Busy)
    assert (second.last_exception.tries, third.last_exception.tries) == (1, 2)
    assert second.last_exception.__traceback__ is not None
    failed = [r for r in await journal.history("r") if isinstance(r.fact, StepFailed)]
    assert [round(info.last_failed_at.timestamp() * 1e6) for info in (second, third)] == [r.at for r in failed]
    assert before - SOON < second.last_failed_at < third.last_failed_at < datetime.now(UTC) + SOON


async def test_a_plain_function_is_told_too(memory: Journal) -> None:
    class Plain(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(delay=0))
        def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            info = ctx.retry_info()
            if not info.retry_number:
                raise ValueError("once")
            return StopEvent(result=str(info.last_exception))

    assert await Plain(journal=memory).run() == "once"


async def test_only_a_running_step_is_told(memory: Journal) -> None:
    flow = failing(0, ValueError, None, journal=memory)
    handler = flow.run()
    with pytest.raises(ContextStateError, match="retry_info works inside a step only"):
        handler.ctx.retry_info()
    await handler


class Outside:
    """Failures that another process made: it dies in the delay that follows them."""

    def __init__(self, url: str, raises: Callable[[int], Exception], policy: Any, failures: int = 1):
        self.url = url
        self.raises = raises
        self.policy = policy
        self.failures = failures

    async def fail(self) -> None:
        async def dies() -> None:
            async with Journal(self.url, durability="normal") as journal:
                flow = failing(self.failures, self.raises, self.policy, journal=journal)
                flow.run(run_id="r")

                async def failed() -> bool:
                    known = any(info.run_id == "r" for info in await journal.runs())
                    return known and len(await records_of(journal, "r", StepFailed)) == self.failures

                await until(failed)

        # However long that takes, the delay is not over before.
        with time_stands_still():
            await in_another_loop(dies)


DELAY = 0.3


async def test_another_process_tells_the_same(url: str) -> None:
    policy = ConstantDelayRetryPolicy(delay=DELAY)
    await Outside(url, lambda n: Busy("db", n), policy).fail()
    async with Journal(url) as journal:
        flow = failing(0, ValueError, policy, journal=journal)
        assert await (await flow.resume("r")) == "done"
        [failed] = [r for r in await journal.history("r") if isinstance(r.fact, StepFailed)]
    [info] = flow.infos
    assert info.retry_number == 1
    assert info.elapsed_seconds >= DELAY
    assert type(info.last_exception) is Busy
    assert str(info.last_exception) == "db is busy"
    assert vars(info.last_exception) == {"host": "db", "tries": 1}
    assert round(info.last_failed_at.timestamp() * 1e6) == failed.at


async def test_an_exception_that_cannot_be_rebuilt_is_told_by_class_and_text(url: str) -> None:
    policy = ConstantDelayRetryPolicy(delay=DELAY)
    await Outside(url, lambda n: Peculiar(), policy).fail()
    async with Journal(url) as journal:
        flow = failing(0, ValueError, policy, journal=journal)
        await (await flow.resume("r"))
    error = flow.infos[0].last_exception
    assert type(error) is UnreconstructedException
    assert (str(error), error.original_type) == ("peculiar", f"{__name__}.Peculiar")


async def test_elapsed_time_and_attempts_go_on_in_another_process(url: str) -> None:
    """One attempt there and one here: together they are as many, and take as long, as the policy allows."""
    told: list[tuple[float, int]] = []

    class Listening:
        def __init__(self, policy: Any):
            self.policy = policy

        def next(self, elapsed: float, attempts: int, error: Exception, *, seed: int | None = None) -> float | None:
            told.append((elapsed, attempts))
            delay: float | None = self.policy.next(elapsed, attempts, error, seed=seed)
            return delay

    policy = Listening(retry_policy(wait=wait_fixed(DELAY), stop=stop_after_delay(DELAY)))
    await Outside(url, lambda n: Busy("db", n), policy).fail()
    async with Journal(url) as journal:
        flow = failing(9, lambda n: Busy("there", n), policy, journal=journal)
        with pytest.raises(Busy, match="there is busy"):
            await (await flow.resume("r"))
        failed = await records_of(journal, "r", StepFailed)
    assert [attempts for _, attempts in told] == [1, 2]
    assert told[0][0] < DELAY <= told[1][0]
    assert failed[0].began_at == failed[1].began_at


async def test_time_in_the_queue_is_not_elapsed_time(memory: Journal) -> None:
    """It counts from the beginning of the first attempt, however long the event waited for a worker."""
    told: list[float] = []

    class Listening:
        def next(self, elapsed: float, attempts: int, error: Exception) -> float | None:
            told.append(elapsed)
            return None

    class Queue(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(2)]

        @step(num_workers=1, retry_policy=Listening())
        async def work(self, ev: Item) -> StopEvent | None:
            if ev.n == 0:
                await asyncio.sleep(0.3)
                return None
            raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        await Queue(journal=memory).run()
    assert told[0] < 0.15


async def test_a_run_retried_by_hand_counts_anew(memory: Journal) -> None:
    policy = retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2))
    flow = failing(3, ValueError, policy, journal=memory)
    with pytest.raises(ValueError, match="2"):
        await flow.run(run_id="r")
    assert await (await flow.retry("r")) == "done"
    assert [info.retry_number for info in flow.infos] == [0, 1, 0, 1]
    first, second, third = [failed.began_at for failed in await records_of(memory, "r", StepFailed)]
    assert first == second < third


async def test_a_policy_that_raises_the_steps_own_error_makes_no_circle(memory: Journal) -> None:
    class Rethrows:
        def next(self, elapsed: float, attempts: int, error: Exception) -> float | None:
            raise error

    with pytest.raises(ValueError, match="1") as raised:
        await failing(1, ValueError, Rethrows(), journal=memory).run()
    assert raised.value.__cause__ is None


async def test_a_cause_that_a_policy_names_itself_is_kept(memory: Journal) -> None:
    class Names:
        def next(self, elapsed: float, attempts: int, error: Exception) -> float | None:
            raise ZeroDivisionError("policy") from KeyError("its own cause")

    with pytest.raises(ZeroDivisionError) as raised:
        await failing(1, ValueError, Names(), journal=memory).run()
    assert isinstance(raised.value.__cause__, KeyError)


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_an_exception_without_a_text_is_a_failure_like_others(journal: Journal) -> None:
    flow = failing(1, lambda n: Speechless(), ConstantDelayRetryPolicy(delay=0), journal=journal)
    assert await flow.run(run_id="r") == "done"
    assert type(flow.infos[1].last_exception) is Speechless
    [failed] = await records_of(journal, "r", StepFailed)
    assert failed.error.message == "<str() of the exception failed>"


async def test_a_failed_step_that_is_not_retried_stores_no_exception(memory: Journal) -> None:
    with pytest.raises(Busy):
        await failing(1, lambda n: Busy("db", n), None, journal=memory).run(run_id="r")
    [failed] = await records_of(memory, "r", StepFailed)
    assert failed.exception is None
