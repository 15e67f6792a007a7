"""What the engine asks of a workflow: the seam between floor 3 and the classes that users write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..events import Event

if TYPE_CHECKING:
    from ..serializers.codec import Codec
    from .execution import Execution
    from .observing import Observers
    from .places import Limit
    from .threads import FromThread


class Program(Protocol):
    """A workflow as the engine sees it: a set of named steps, where events go, and how failures are retried."""

    name: str
    """The stored workflow name."""
    shape: str
    """Fingerprint of steps, accepted and emitted events and state schema; never of source text."""
    timeout: float | None
    """Budget of active time in seconds; None is no limit."""
    num_workers: Mapping[str, int]
    """Every step's name, and how many of its tasks may run at once within a run."""
    sync_steps: frozenset[str]
    """Names of the steps that are plain functions and run in a thread."""
    answer_types: tuple[type[Event], ...]
    """The HumanResponseEvent classes that steps accept: the answers to a returned question."""
    codec: Codec
    """Encodes and decodes events and context values."""
    verbose: bool
    """Whether to print and log a line at each step's start and end."""
    observers: Observers | None
    """Who is told what has become durable; None: nobody."""
    injected_steps: frozenset[str]
    """Names of the steps that are given resources or services."""
    instance: object
    """The workflow whose steps these are."""
    limit: Limit | None
    """How many of its runs may be live at once in a loop; None is no limit."""

    def targets(self, event: Event) -> tuple[str, ...]:
        """Return the names of the steps that accept this event, in definition order."""

    def accepts(self, step: str, event: Event) -> bool:
        """Tell whether the step takes the event. Raises WorkflowStepDoesNotExistError."""

    async def inject(self, step: str, run_id: str) -> Mapping[str, Any]:
        """Return what one of `injected_steps` is given, by parameter. Raises what a factory raises."""

    def call(
        self, step: str, event: Event, execution: Execution | FromThread, given: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the step, with what it is given: a coroutine for an async step, the result for a sync one."""

    def emitted(self, step: str, result: Any) -> tuple[Event, ...]:
        """Return the events that a step's result stands for. Raises WorkflowRuntimeError for anything else."""

    def retry_delay(self, step: str, elapsed: float, failures: int, error: BaseException, seed: int) -> float | None:
        """Return after how many seconds the step is tried again, or None. Failures count from 1."""

    def handler_for(self, step: str) -> tuple[str, int] | None:
        """Return the step that takes this step's failures, and how often it may in one lineage."""
