"""When a failed step is tried again: pure policies, without a clock and without randomness of their own."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .errors import WorkflowValidationError


@runtime_checkable
class RetryPolicy(Protocol):
    """Anything with this `next` is a policy for `@step(retry_policy=...)`.

    It is asked once after each failure, and the answer is recorded as an absolute time: a restart neither asks again
    nor tries early. A policy that raises fails the run.
    """

    def next(self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None) -> float | None:
        """Return after how many seconds to try again, or None to give up.

        Args:
            elapsed_time: seconds since the first attempt began.
            attempts: how many attempts have failed, from 1.
            error: what the last attempt raised.
            seed: for jitter: the same for the same failure, another for every other. Policies may leave it out of
                their signature.
        """


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
