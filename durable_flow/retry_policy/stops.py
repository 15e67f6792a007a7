"""When to give up: by the number of failures and the time since the first attempt, combined by `|` and `&`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tenacity
from tenacity.stop import stop_base

from .moment import Moment, Seconds, require_blocks, require_number, require_seconds


class StopCondition(Protocol):
    """Anything that says whether to give up; also a plain function with this signature."""

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        """Tell whether to give up after this many failures, from 1, so many seconds after the first attempt began.

        `upcoming_sleep` are the seconds until the next attempt, if there is one.
        """


class _Stop:
    """A condition over one of tenacity's."""

    def __init__(self, strategy: Callable[[Any], bool]):
        self._strategy = strategy

    def __call__(self, attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        """Tell whether to give up."""
        return bool(self._strategy(Moment(attempts, elapsed_time, upcoming_sleep=upcoming_sleep)))

    def __or__(self, other: StopCondition) -> stop_any:
        return stop_any(self, other)

    def __ror__(self, other: StopCondition) -> stop_any:
        return stop_any(other, self)

    def __and__(self, other: StopCondition) -> stop_all:
        return stop_all(self, other)

    def __rand__(self, other: StopCondition) -> stop_all:
        return stop_all(other, self)


class stop_never(_Stop):
    """Never; the workflow's timeout still holds."""

    def __init__(self) -> None:
        super().__init__(tenacity.stop_never)


class stop_after_attempt(_Stop):
    """After so many attempts, the first one included."""

    def __init__(self, max_attempt_number: int):
        require_number("stop_after_attempt", 0, max_attempt_number=max_attempt_number)
        super().__init__(tenacity.stop_after_attempt(max_attempt_number))


class stop_after_delay(_Stop):
    """Once so many seconds have passed since the first attempt began. The last delay may go beyond."""

    def __init__(self, max_delay: Seconds):
        require_seconds("stop_after_delay", max_delay=max_delay)
        super().__init__(tenacity.stop_after_delay(max_delay))  # type: ignore[arg-type]  # tenacity names timedelta


class stop_before_delay(_Stop):
    """If the next attempt would begin so many seconds, or more, after the first one began."""

    def __init__(self, max_delay: Seconds):
        require_seconds("stop_before_delay", max_delay=max_delay)
        super().__init__(tenacity.stop_before_delay(max_delay))  # type: ignore[arg-type]


class stop_any(_Stop):
    """As soon as one of the conditions says so; also `a | b`."""

    def __init__(self, *stops: StopCondition):
        require_blocks("stop_any", stops, stop_base, "stop_after_attempt(3)")
        super().__init__(tenacity.stop_any(*map(_strategy_of, stops)))


class stop_all(_Stop):
    """As soon as all of the conditions say so; also `a & b`."""

    def __init__(self, *stops: StopCondition):
        require_blocks("stop_all", stops, stop_base, "stop_after_attempt(3)")
        super().__init__(tenacity.stop_all(*map(_strategy_of, stops)))


def _strategy_of(stop: StopCondition) -> Any:
    if isinstance(stop, _Stop):
        return stop._strategy
    return lambda moment: stop(moment.attempt_number, moment.seconds_since_start, upcoming_sleep=moment.upcoming_sleep)
