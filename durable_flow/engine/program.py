"""What the engine asks of a workflow: the seam between floor 3 and the classes that users write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..events import Event
from ..incoming import Collectors

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
    """Steps, accepted and emitted events and state schema as text, never source text; recorded at a run's start."""
    fingerprint: str
    """Of the shape; in the run's row."""
    timeout: float | None
    """Budget of active time in seconds; None is no limit."""
    num_workers: Mapping[str, int]
    """Every step's name, and how many of its tasks may run at once within a run."""
    sync_steps: frozenset[str]
    """Names of the steps that are plain functions and run in a thread."""
    answer_types: tuple[type[Event], ...]
    """The HumanResponseEvent classes that steps accept: the answers to a returned question."""
    answer_bases: tuple[type[Event], ...]
    """Those of them that steps accept with their subclasses."""
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

    fan_outs: Mapping[str, Collectors]
    """The steps whose returned lists are collected again, and by whom."""
    has_joins: bool
    """Whether any step collects: a list, or several events of one each."""

    def targets(self, event: Event) -> tuple[str, ...]:
        """Return the names of the steps that run for each of these events, in definition order."""

    def event_class(self, name: str) -> type[Event] | None:
        """Return the event class of this stored name: the workflow's own, else what the program has defined last."""

    def joins(self, cls: type[Event]) -> tuple[str, ...]:
        """Return the fan-ins that may collect events of this class, as they stand in `EventEmitted.joins`."""

    def accepts(self, step: str, event: Event) -> bool:
        """Tell whether the step takes the event. Raises WorkflowStepDoesNotExistError."""

    def accepts_name(self, step: str, name: str) -> bool:
        """Tell whether the step takes events that are, or were, stored under this name."""

    async def inject(self, step: str, run_id: str) -> Mapping[str, Any]:
        """Return what one of `injected_steps` is given, by parameter. Raises what a factory raises."""

    def call(
        self,
        step: str,
        event: Event | tuple[Event, ...],
        execution: Execution | FromThread,
        given: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the step, with what it is given: a coroutine for an async step, the result for a sync one.

        A fan-in gets a tuple of events.
        """

    def check_input(self, step: str, joined: int | None) -> None:
        """Raise DeserializationError if the step does not take what its task was made with: `joined` events at once.

        None is a single event that is no fan-in's.
        """

    def emitted(self, step: str, result: Any) -> tuple[Event, ...]:
        """Return the events that a step's result stands for. Raises WorkflowRuntimeError for anything else."""

    def retry_delay(self, step: str, elapsed: float, failures: int, error: BaseException, seed: int) -> float | None:
        """Return after how many seconds the step is tried again, or None. Failures count from 1."""

    def handler_for(self, step: str) -> tuple[str, int] | None:
        """Return the step that takes this step's failures, and how often it may in one lineage."""
