"""A workflow as the engine runs it: the step table of its class with the settings of the instance."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from .context import Context
from .errors import DeserializationError, WorkflowRuntimeError, WorkflowStepDoesNotExistError
from .events import Event, current_name, event_name, find_event_class
from .injection import Injector
from .retries import RetryPolicy
from .serializers.codec import Codec
from .signatures import StepConfig, renamed
from .steps import Caller, StepTable, caller_of, joins_of, targets_of

if TYPE_CHECKING:
    from .engine.execution import Execution
    from .engine.observing import Observers
    from .engine.places import Limit
    from .engine.threads import FromThread
    from .journal.journal import Journal


class WorkflowProgram:
    """Implements `engine.program.Program` for a workflow instance. Never changes: a new table makes a new program."""

    def __init__(
        self, instance: object, table: StepTable, codec: Codec, *, name: str, timeout: float | None, verbose: bool,
        injector: Injector | None = None, observers: Observers | None = None,
        journal: Journal | str | None = None, limit: Limit | None = None,
    ):  # fmt: skip
        self.table = table
        self.name = name
        self.shape = table.shape
        self.fingerprint = table.fingerprint
        self.timeout = timeout
        self.num_workers: Mapping[str, int] = {step.name: step.num_workers for step in table.steps.values()}
        self.sync_steps = frozenset(step.name for step in table.steps.values() if not step.is_async)
        self.answer_types: tuple[type[Event], ...] = table.answer_types
        self.answer_bases: tuple[type[Event], ...] = table.answer_bases
        self.fan_outs = table.fan_outs
        self.has_joins = any(table.joins.values())
        self.codec = codec
        self.verbose = verbose
        self.observers = observers
        self.injector = injector
        self.injected_steps = frozenset() if injector is None else injector.steps
        # Runs that its steps start are kept there, too.
        self.journal = journal
        self.limit = limit
        self.instance = instance
        self._calls: dict[str, tuple[Caller, bool]] = {
            step.name: (table.callers[step.name], step.context_parameter is not None) for step in table.steps.values()
        }
        # Where events go by class; derived classes that no annotation names are added when they first come.
        self._takes_subclasses = any(step.accept_event_subclasses for step in table.steps.values())
        self._routes = dict(table.routes)
        self._joins = dict(table.joins)
        former = {alias: cls for cls in table.event_classes for alias in vars(cls).get("event_aliases", ())}
        self._classes = former | {event_name(cls): cls for cls in table.event_classes}
        self._seeded = {step.name: _takes_seed(step.retry_policy) for step in table.steps.values() if step.retry_policy}

    def targets(self, event: Event) -> tuple[str, ...]:
        """Return the names of the steps that run for each event of this class, in definition order.

        Those that accept exactly the class, or, with `accept_event_subclasses`, one that it is derived from.
        """
        cls = type(event)
        targets = self._routes.get(cls)
        if targets is None:
            if not self._takes_subclasses:
                return ()
            targets = self._routes[cls] = targets_of(self.table.steps.values(), cls)
        return targets

    def event_class(self, name: str) -> type[Event] | None:
        """Return the event class of this stored name: the workflow's own, else what the program has defined last."""
        return self._classes.get(name) or find_event_class(name)

    def joins(self, cls: type[Event]) -> tuple[str, ...]:
        """Return the fan-ins that may collect events of this class, as they stand in `EventEmitted.joins`."""
        joins = self._joins.get(cls)
        if joins is None:
            if not self._takes_subclasses:
                return ()
            joins = self._joins[cls] = joins_of(self.table.steps.values(), cls)
        return joins

    def accepts(self, step: str, event: Event) -> bool:
        """Tell whether the step takes events of this class. Raises WorkflowStepDoesNotExistError."""
        config = self._step(step)
        subclass = config.accept_event_subclasses and isinstance(event, config.accepted)
        return subclass or type(event) in config.accepted

    def accepts_name(self, step: str, name: str) -> bool:
        """Tell whether the step takes events that are, or were, stored under this name."""
        return current_name(name) in map(event_name, self._step(step).accepted)

    async def inject(self, step: str, run_id: str) -> Mapping[str, Any]:
        """Return the resources and services that the step is given. Raises what a resource's factory raises."""
        assert self.injector is not None
        return await self.injector.values(step, run_id)

    def check_input(self, step: str, joined: int | None) -> None:
        """Raise DeserializationError if the step does not take what its task was made with: `joined` events at once.

        None is a single event that is no fan-in's.
        """
        config = self._step(step)
        fits = joined is not None if config.collect else joined == (len(config.slots) or None)
        if not fits:
            had = "a single event" if joined is None else f"{joined} events at once"
            raise DeserializationError(
                f"the task has {had}, and step {step!r} takes something else now; restore its parameters"
            )

    def call(
        self,
        step: str,
        event: Event | tuple[Event, ...],
        execution: Execution | FromThread,
        given: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the step: a coroutine for an async step, the result for a plain function.

        A step that takes a list, or one each of several events, gets a tuple: in their order, or in that of the names
        of its parameters.
        """
        caller, takes_context = self._calls[step]
        if given:
            assert self.injector is not None
            config = self.table.steps[step]
            caller = caller_of(renamed(config, step, self.injector.filled(config, given)))
        context = Context._of(execution, self.table.state_class) if takes_context else None
        return caller(self.instance, event, context)

    def emitted(self, step: str, result: Any) -> tuple[Event, ...]:
        """Return the events that a step's result stands for, in order.

        A list (or tuple) counts only where the return annotation names a list, and where it names nothing else an event
        alone does not count: raises WorkflowRuntimeError, as for anything that is no event. None is no event. The
        classes of the events are not compared with the annotation.
        """
        if result is None:
            return ()
        if isinstance(result, Event):
            if not self.table.steps[step].returns_event:
                raise self._wrong_result(
                    step, type(result).__name__, "a list of events", "Return [event], as its annotation promises."
                )
            return (result,)
        if not self.table.steps[step].returns_list or not isinstance(result, list | tuple):
            cure = "Return an event, or None for no event; put the value into a field, as in StopEvent(result=...)."
            if isinstance(result, list | tuple):
                cure = "To return several events, annotate the step with `-> list[MyEvent]`."
            elif inspect.isawaitable(result):
                cure = "It was not awaited: await it in the step, or make the function that @step decorates async."
            raise self._wrong_result(step, type(result).__name__, "an Event instance", cure)
        for item in result:
            if not isinstance(item, Event):
                raise self._wrong_result(
                    step,
                    f"a list with {type(item).__name__}",
                    "an Event instance",
                    "Leave everything that is no event out of the list.",
                )
        return tuple(result)

    def retry_delay(self, step: str, elapsed: float, failures: int, error: BaseException, seed: int) -> float | None:
        """Ask the step's policy after how many seconds to try again; None if it gives up or there is no policy.

        `elapsed` is in seconds since the first attempt began, `failures` counts from 1. What the policy raises rises;
        an answer that is no delay raises WorkflowRuntimeError.
        """
        policy = self._step(step).retry_policy
        if policy is None:
            return None
        failure = cast("Exception", error)
        if self._seeded[step]:
            delay = policy.next(elapsed, failures, failure, seed=seed)
        else:
            delay = policy.next(elapsed, failures, failure)
        if delay is None:
            return None
        number = isinstance(delay, int | float) and not isinstance(delay, bool)
        if not number or not math.isfinite(delay) or delay < 0:
            raise WorkflowRuntimeError(
                f"The retry policy of step {step} returned {delay!r}. It must return a finite number of seconds of at "
                "least 0, or None to give up."
            )
        return float(delay)

    def handler_for(self, step: str) -> tuple[str, int] | None:
        """Return the `@catch_error` handler that takes the step's failures, and its budget in a lineage."""
        handler = self.table.handler_of.get(step)
        return None if handler is None else (handler, self.table.handlers[handler].max_recoveries)

    def _step(self, name: str) -> StepConfig:
        found = self.table.steps.get(name)
        if found is None:
            raise WorkflowStepDoesNotExistError(
                f"workflow {self.name} has no step {name!r}; its steps are {', '.join(self.table.steps)}."
            )
        return found

    def _wrong_result(self, step: str, got: str, wanted: str, cure: str) -> WorkflowRuntimeError:
        return WorkflowRuntimeError(f"Step function {step} returned {got} instead of {wanted}. {cure}")


class ReplayedProgram(WorkflowProgram):
    """A workflow's program whose steps run to be judged: nobody is told, and nothing is done about what they raise."""

    def __init__(self, program: WorkflowProgram):
        vars(self).update(vars(program))
        self.verbose, self.observers = False, None

    def retry_delay(self, step: str, elapsed: float, failures: int, error: BaseException, seed: int) -> float | None:
        """Ask no policy."""
        return None

    def handler_for(self, step: str) -> tuple[str, int] | None:
        """Give failures to no handler."""
        return None


def _takes_seed(policy: RetryPolicy) -> bool:
    parameters = inspect.signature(policy.next).parameters
    return "seed" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
