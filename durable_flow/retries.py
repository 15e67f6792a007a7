"""What a retry policy is, and what a step is told of its retries. What policies are built of is in `retry_policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from datetime import datetime


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


class RetryInfo(NamedTuple):
    """What `ctx.retry_info()` tells about the attempts of this step before the present one.

    `retry_number` counts them: 0 in the first attempt. `elapsed_seconds` is the time since the first attempt began,
    0.0 in that one. `last_exception` is what the last one raised, rebuilt from the journal in another process than
    the one in which it was raised (an UnreconstructedException where that cannot be done exactly); `last_failed_at`
    is the time of it, in UTC.
    """

    retry_number: int
    elapsed_seconds: float
    last_exception: Exception | None
    last_failed_at: datetime | None
