"""What tenacity's strategies are asked with: the moment after a failure, made of data alone."""

from __future__ import annotations

import random
from typing import Any, Protocol

import tenacity

from ..errors import WorkflowValidationError

_NO_CALLS = tenacity.Retrying()


class Span(Protocol):
    """A length of time that knows its seconds, as `datetime.timedelta`."""

    def total_seconds(self) -> float:
        """Return the length in seconds."""


Seconds = float | Span
"""A number of seconds, or a timedelta."""


class Moment(tenacity.RetryCallState):
    """The moment after a failure. Tenacity reads its own clock only where this does not say the time.

    `seed` is the failure's own, `dice` the generator that it starts: drawn from in the order in which tenacity draws.
    """

    def __init__(
        self,
        attempts: int = 1,
        elapsed_time: float = 0.0,
        *,
        error: BaseException | None = None,
        seed: int | None = None,
        upcoming_sleep: float = 0.0,
    ):
        super().__init__(_NO_CALLS, None, (), {})
        self.attempt_number = attempts
        self.start_time = 0.0
        self.outcome_timestamp = elapsed_time
        self.upcoming_sleep = upcoming_sleep
        if error is not None:
            self.outcome = tenacity.Future.construct(attempts, error, has_exception=True)
        self.seed = seed
        # Without a seed it is not left to chance either: the same attempt always waits as long.
        self.dice = random.Random(attempts if seed is None else seed)


def require_seconds(block: str, **values: object) -> None:
    """Raise WorkflowValidationError for a length of time that is none: not a number, or negative."""
    for name, value in values.items():
        total = getattr(value, "total_seconds", None)
        require_number(block, 0.0, **{name: total() if callable(total) else value})


def require_number(block: str, least: float, **values: object) -> None:
    """Raise WorkflowValidationError for what is no number, NaN, or less than `least`."""
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not value >= least:  # type: ignore[operator]  # it is a number here; NaN compares with nothing
            raise WorkflowValidationError(f"{block}({name}={value!r}): it must be a number of at least {least:g}.")


def require_blocks(where: str, blocks: tuple[Any, ...], foreign: type, example: str) -> None:
    """Raise WorkflowValidationError for what cannot be asked: a class, or tenacity's own strategy."""
    for block in blocks:
        if isinstance(block, type) or not callable(block):
            raise WorkflowValidationError(
                f"{where} got {block!r}, which cannot be asked. Give an object, as {example}; a class needs its "
                "parentheses."
            )
        if isinstance(block, foreign):
            raise WorkflowValidationError(
                f"{where} got tenacity's own {type(block).__name__}. Import the block of this name from "
                "durable_flow.retry_policy: its jitter is the same when a run is recovered."
            )
