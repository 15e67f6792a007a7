"""How long to wait after a failure: delays by the number of failures, combined by `+` and `sum()`.

Jitter is drawn as tenacity draws it, from the failure's own seed instead of the process's generator: so the delay of a
failure is the same wherever and whenever it is worked out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import tenacity
from tenacity.wait import wait_base

from ..errors import WorkflowValidationError
from .moment import Moment, Seconds, require_blocks, require_number, require_seconds


class WaitStrategy(Protocol):
    """Anything that says how long to wait; also a plain function with this signature."""

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        """Return seconds, after this many failures, from 1; chance comes from the seed alone."""


class _Wait:
    """A delay over one of tenacity's; `_strategy` takes a Moment."""

    def __init__(self, strategy: Callable[[Any], float]):
        self._strategy = strategy

    def __call__(self, attempts: int, *, seed: int | None = None) -> float:
        """Return seconds, after this many failures, from 1."""
        return float(self._strategy(Moment(attempts, seed=seed)))

    def __add__(self, other: WaitStrategy) -> wait_combine:
        return wait_combine(self, other)

    def __radd__(self, other: WaitStrategy | int) -> _Wait:
        if isinstance(other, int):
            # sum() begins with the number 0.
            return self if other == 0 else NotImplemented
        return wait_combine(other, self)


class wait_fixed(_Wait):
    """The same each time."""

    def __init__(self, wait: Seconds):
        require_seconds("wait_fixed", wait=wait)
        super().__init__(tenacity.wait_fixed(wait))  # type: ignore[arg-type]  # tenacity names timedelta alone


class wait_none(_Wait):
    """Not at all."""

    def __init__(self) -> None:
        super().__init__(tenacity.wait_none())


class wait_random(_Wait):
    """Evenly between `min` and `max`."""

    def __init__(self, min: Seconds = 0.0, max: Seconds = 1.0):
        require_seconds("wait_random", min=min, max=max)
        bounds = tenacity.wait_random(min, max)  # type: ignore[arg-type]
        low, width = bounds.wait_random_min, bounds.wait_random_max - bounds.wait_random_min
        super().__init__(lambda retry_state: low + retry_state.dice.random() * width)


class wait_incrementing(_Wait):
    """`start` after the first failure, `increment` more after each further one, `max` at most."""

    def __init__(self, start: Seconds = 0.0, increment: Seconds = 100.0, max: Seconds = inf):
        require_seconds("wait_incrementing", start=start, max=max)
        if not hasattr(increment, "total_seconds"):
            require_number("wait_incrementing", -inf, increment=increment)
        super().__init__(tenacity.wait_incrementing(start, increment, max))  # type: ignore[arg-type]


class wait_exponential(_Wait):
    """`multiplier * exp_base ** (failures - 1)`, between `min` and `max`."""

    def __init__(self, multiplier: float = 1.0, exp_base: float = 2.0, max: Seconds = 60.0, min: Seconds = 0.0):
        super().__init__(_exponential("wait_exponential", multiplier, exp_base, max, min))


class wait_random_exponential(_Wait):
    """Evenly between `min` and what `wait_exponential` would wait ("full jitter")."""

    def __init__(self, multiplier: float = 1.0, exp_base: float = 2.0, max: Seconds = 60.0, min: Seconds = 0.0):
        window = _exponential("wait_random_exponential", multiplier, exp_base, max, min)
        super().__init__(lambda retry_state: retry_state.dice.uniform(window.min, window(retry_state)))


def wait_full_jitter(
    multiplier: float = 1.0, exp_base: float = 2.0, max: Seconds = 60.0, min: Seconds = 0.0
) -> wait_random_exponential:
    """Return the `wait_random_exponential` of these parameters."""
    return wait_random_exponential(multiplier, exp_base, max, min)


class wait_exponential_jitter(_Wait):
    """`initial * exp_base ** (failures - 1)` and up to `jitter` more, `max` at most."""

    def __init__(self, initial: float = 1.0, exp_base: float = 2.0, max: Seconds = 60.0, jitter: Seconds = 1.0):
        require_seconds("wait_exponential_jitter", jitter=jitter)
        plain = _exponential("wait_exponential_jitter", initial, exp_base, max, 0.0, "initial")
        more = tenacity.wait_fixed(jitter).wait_fixed  # type: ignore[arg-type]

        def strategy(retry_state: Moment) -> float:
            drawn = retry_state.dice.uniform(0, more)
            wait: float = plain(retry_state) + drawn
            return wait if wait < plain.max else plain.max

        super().__init__(strategy)


class wait_chain(_Wait):
    """The first strategy after the first failure, the second after the second, the last from then on."""

    def __init__(self, *strategies: WaitStrategy):
        require_blocks("wait_chain", strategies, wait_base, "wait_fixed(5)")
        if not strategies:
            raise WorkflowValidationError("wait_chain() needs at least one strategy, as wait_chain(wait_fixed(5)).")
        super().__init__(tenacity.wait_chain(*map(_strategy_of, strategies)))


class wait_combine(_Wait):
    """The sum of the strategies; also `a + b`."""

    def __init__(self, *strategies: WaitStrategy):
        require_blocks("wait_combine", strategies, wait_base, "wait_fixed(5)")
        super().__init__(tenacity.wait_combine(*map(_strategy_of, strategies)))


def _exponential(
    block: str, multiplier: float, exp_base: float, max: Seconds, min: Seconds, name: str = "multiplier"
) -> tenacity.wait_exponential:
    require_number(block, 0.0, **{name: multiplier, "exp_base": exp_base})
    require_seconds(block, max=max, min=min)
    return tenacity.wait_exponential(multiplier=multiplier, max=max, exp_base=exp_base, min=min)  # type: ignore[arg-type]


def _strategy_of(wait: WaitStrategy) -> Any:
    if isinstance(wait, _Wait):
        return wait._strategy
    return lambda retry_state: wait(retry_state.attempt_number, seed=retry_state.seed)
