"""What a run asks of the engine that owns it, and what it says when it is no longer owned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import DurableFlowError
from ..records import TaskId

if TYPE_CHECKING:
    from .run import Run


class GivenUp(DurableFlowError):
    """What came to a run when this process had dropped it. Nothing of it was recorded."""


class Host(Protocol):
    """What a run asks of the engine that owns it."""

    def run_ended(self, run: Run) -> None:
        """The run has an outcome and holds nothing any more."""

    def run_dropped(self, run: Run, error: BaseException | None) -> None:
        """The run stopped in this process without an outcome; it stays recoverable."""

    def snapshot_is_due(self, run: Run) -> None:
        """Enough has happened since the run's last snapshot; all of it is durable."""

    def step_left(self, run: Run, task: TaskId, attempt: int) -> None:
        """A step of a run with children has completed with this attempt."""

    def step_suspended(self, run: Run) -> None:
        """One more step of the run waits in memory."""

    def step_resumed(self, run: Run) -> None:
        """One less."""
