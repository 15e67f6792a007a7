"""The policies: pure, without a clock and without randomness of their own."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from ..errors import WorkflowValidationError
from ..retries import RetryPolicy
from .conditions import RetryCondition
from .moment import require_blocks
from .stops import StopCondition, stop_after_attempt
from .waits import WaitStrategy, wait_fixed


@dataclass(frozen=True)
class _ComposedRetryPolicy:
    """A policy of a condition, a wait strategy and a stop condition; made by `retry_policy`."""

    retry: RetryCondition | None
    wait: WaitStrategy
    stop: StopCondition

    def next(self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None) -> float | None:
        """Return the wait strategy's delay, or None if the error is not to be retried or it is time to stop."""
        if self.retry is not None and not self.retry(error):
            return None
        delay = self.wait(attempts, seed=seed)
        if self.stop(attempts, elapsed_time, upcoming_sleep=delay):
            return None
        return delay


def retry_policy(
    retry: RetryCondition | None = None,
    wait: WaitStrategy = wait_fixed(5),  # noqa: B008  # it holds nothing that changes
    stop: StopCondition = stop_after_attempt(3),  # noqa: B008
) -> RetryPolicy:
    """Return a policy of building blocks.

    Args:
        retry: which errors are tried again; None: all.
        wait: how long after each failure; by default 5 seconds.
        stop: when to give up; by default after 3 attempts.

    Raises WorkflowValidationError for what is no such block.
    """
    require_blocks("retry_policy(retry=)", () if retry is None else (retry,), retry_base, "retry_always()")
    require_blocks("retry_policy(wait=)", (wait,), wait_base, "wait_fixed(5)")
    require_blocks("retry_policy(stop=)", (stop,), stop_base, "stop_after_attempt(3)")
    return _ComposedRetryPolicy(retry, wait, stop)


@dataclass(frozen=True)
class ConstantDelayRetryPolicy:
    """Try at most `maximum_attempts` times, `delay` seconds after each failure."""

    maximum_attempts: int = 3
    delay: float = 5

    def __post_init__(self) -> None:
        _require_attempts(self.maximum_attempts)
        _require_seconds("delay", self.delay)

    def next(self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None) -> float | None:
        """Return the delay, or None once `maximum_attempts` have failed."""
        return None if attempts >= self.maximum_attempts else self.delay


@dataclass(frozen=True)
class ExponentialBackoffRetryPolicy:
    """Try at most `maximum_attempts` times; the delay begins at `initial_delay` seconds and grows by `multiplier`.

    No delay is longer than `max_delay` seconds. With `jitter` it is drawn evenly between 0 and that length, so that
    many runs that failed together do not come back together; without a seed there is no jitter.
    """

    maximum_attempts: int = 5
    initial_delay: float = 1.0
    multiplier: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True

    def __post_init__(self) -> None:
        _require_attempts(self.maximum_attempts)
        _require_seconds("initial_delay", self.initial_delay)
        _require_seconds("multiplier", self.multiplier)
        _require_seconds("max_delay", self.max_delay)

    def next(self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None) -> float | None:
        """Return the delay after this many failures, or None once `maximum_attempts` have failed."""
        if attempts >= self.maximum_attempts:
            return None
        try:
            delay = min(self.initial_delay * float(self.multiplier) ** (attempts - 1), self.max_delay)
        except OverflowError:
            delay = self.max_delay
        if not self.jitter or seed is None:
            return delay
        return random.Random(seed).uniform(0, delay)


def _require_attempts(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise WorkflowValidationError(f"maximum_attempts={value!r}: it must be a whole number of at least 1.")


def _require_seconds(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type,operator]  # it is a number here
        raise WorkflowValidationError(f"{name}={value!r}: it must be a finite number of at least 0.")
