"""`@step` and `@catch_error`: mark a method, or a function outside any class, as a step of a workflow."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .errors import WorkflowValidationError
from .graph import GRAPH_CHECKS
from .problems import Problems
from .recovery import Recovery
from .retries import RetryPolicy
from .signatures import (
    StepConfig,
    StepFunction,
    StepOptions,
    UnresolvedAnnotation,
    inspect_step,
    is_free_function,
)

if TYPE_CHECKING:
    from .workflow import Workflow

__all__ = ["StepConfig", "StepDeclaration", "StepFunction", "catch_error", "declaration_of", "step"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_durable_step"


@overload
def step(function: F, /) -> F: ...
@overload
def step(
    *,
    workflow: type[Workflow] | None = None,
    num_workers: int = 4,
    retry_policy: RetryPolicy | None = None,
    skip_graph_checks: Collection[str] | None = None,
    accept_event_subclasses: bool = False,
) -> Callable[[F], F]: ...
def step(
    function: Any = None,
    /,
    *,
    workflow: type[Workflow] | None = None,
    num_workers: int = 4,
    retry_policy: RetryPolicy | None = None,
    skip_graph_checks: Collection[str] | None = None,
    accept_event_subclasses: bool = False,
) -> Any:
    """Make a step of a method or function; also usable without parentheses.

    The parameter annotated with an event class (or a union of such) gets the event, one annotated with `Context` gets
    the context; order and names are free. Other parameters keep their defaults. The return annotation names the events
    that the step may return: one, several (`A | B`), a list of them, or None. A plain function runs in a thread.

    A parameter `list[E]` collects what becomes of the list that a step returned: the step runs once, when nothing in
    that fan-out is pending any more; `Annotated[list[E], Collect(Take(n))]` at the n-th event. With several event
    parameters the step runs for each set of one each, the oldest first, within one fan-out.

    Args:
        workflow: for functions outside a class: the workflow class that gets the step. Its subclasses do not.
        num_workers: how many tasks of this step run at once within a run; the rest wait in order of arrival.
        retry_policy: decides after each failure whether and when to try again. None: the run fails.
        skip_graph_checks: checks that leave this step out, of "reachability", "terminal_event" and "dead_end".
        accept_event_subclasses: also take events whose class is derived from an accepted one; else it must be that one.

    Raises WorkflowValidationError if the signature or an argument cannot work. A name that the annotations use but
    that is not yet defined is looked up again when the workflow is first constructed.
    """
    checks = frozenset((skip_graph_checks,) if isinstance(skip_graph_checks, str) else skip_graph_checks or ())
    options = StepOptions(
        num_workers, retry_policy, accept_event_subclasses=accept_event_subclasses, skip_graph_checks=checks
    )
    if function is not None:
        return _declare(function, workflow, options, sys._getframe(1))

    def decorate(decorated: Any) -> Any:
        return _declare(decorated, workflow, options, sys._getframe(1))

    return decorate


@overload
def catch_error(function: F, /) -> F: ...
@overload
def catch_error(
    *, for_steps: Collection[str] | None = None, max_recoveries: int = 1, workflow: type[Workflow] | None = None
) -> Callable[[F], F]: ...
def catch_error(
    function: Any = None,
    /,
    *,
    for_steps: Collection[str] | None = None,
    max_recoveries: int = 1,
    workflow: type[Workflow] | None = None,
) -> Any:
    """Make a step of a method or function that takes the failures of others; also usable without parentheses.

    Its event parameter is annotated with `StepFailedEvent`. It runs when a step's retry policy has given up, instead of
    the run's failing, and what it returns goes on as from any step. It is not asked about timeouts and cancellations
    of the run. Its own failure fails the run.

    Args:
        for_steps: names of the steps whose failures it takes. None: all that no other handler names; one handler of a
            workflow may leave it out.
        max_recoveries: how often it may run for a task and what descends from it by events; the failure after that
            fails the run. An event from outside, as a human's answer, has no ancestors.
        workflow: for functions outside a class: the workflow class that gets the handler. Its subclasses do not.

    Raises WorkflowValidationError if the signature or an argument cannot work. Whether the steps exist, and have one
    handler each, is checked with the graph before the first run.
    """
    options = StepOptions(4, None, Recovery(_step_names(for_steps), _recoveries(max_recoveries)))
    if function is not None:
        return _declare(function, workflow, options, sys._getframe(1))

    def decorate(decorated: Any) -> Any:
        return _declare(decorated, workflow, options, sys._getframe(1))

    return decorate


class StepDeclaration:
    """What `@step` leaves on a function: its configuration, or what is needed to find it out later."""

    def __init__(self, function: StepFunction, options: StepOptions, caller: FrameType | None):
        self.function = function
        self.is_free = is_free_function(function)
        self._options = options
        self._frames = _enclosing_frames(function, caller)
        self._config: StepConfig | None = None
        try:
            self._config = self._inspect(last_try=False)
        except UnresolvedAnnotation:
            return  # a class that is defined further down; the frames are kept to find it
        self._frames = []

    def config(self) -> StepConfig:
        """Return the step's configuration. Raises WorkflowValidationError if an annotation is still unresolved."""
        if self._config is None:
            try:
                self._config = self._inspect(last_try=True)
            except UnresolvedAnnotation as error:
                raise WorkflowValidationError(str(error)) from error.__cause__
            self._frames = []
        return self._config

    def _inspect(self, *, last_try: bool) -> StepConfig:
        names: dict[str, Any] = {}
        for frame in reversed(self._frames):
            names.update(frame.f_locals)
        return inspect_step(self.function, self._options, is_method=not self.is_free, names=names, last_try=last_try)


def declaration_of(value: object) -> StepDeclaration | None:
    """Return what `@step` left on a function, or None; also through decorators made with functools.wraps."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    found = value.__dict__.get(_MARK) if inspect.isfunction(value) else None
    return found if isinstance(found, StepDeclaration) else None


def _declare(function: Any, workflow: Any, options: StepOptions, caller: FrameType) -> Any:
    _require_function(function)
    add_step = getattr(workflow, "add_step", None)
    name = function.__qualname__
    if is_free_function(function):
        if add_step is None:
            raise WorkflowValidationError(
                f"step {name!r} is a function outside a class, and workflow={workflow!r} names no workflow. "
                "Say whose step it is: @step(workflow=MyWorkflow). If it is a method: a decorator between it and @step "
                "must use functools.wraps."
            )
    elif workflow is not None:
        raise WorkflowValidationError(
            f"step {name!r} is a method: it belongs to the class around it. Remove workflow= from @step."
        )
    problems = Problems(f"step {name!r}")
    problems.check(_require_options, function, options)
    declaration = problems.check(StepDeclaration, function, options, caller)
    problems.raise_any()
    setattr(function, _MARK, declaration)
    if add_step is not None:
        add_step(function)
    return function


def _require_function(function: Any) -> None:
    if isinstance(function, classmethod):
        raise WorkflowValidationError(
            f"step {function.__func__.__qualname__!r} is a class method. Put @classmethod above @step."
        )
    if isinstance(function, staticmethod):
        raise WorkflowValidationError(
            f"step {function.__func__.__qualname__!r} is a static method. Make it a method with self, or a function "
            "outside the class: @step(workflow=...)."
        )
    if not inspect.isfunction(function):
        raise WorkflowValidationError(
            f"@step was put on {function!r}, which is no function. Arguments of @step are given by keyword."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise WorkflowValidationError(
            f"step {function.__qualname__!r} is a generator. Return a list of events, or send each one with "
            "ctx.send_event."
        )


def _require_options(function: StepFunction, options: StepOptions) -> None:
    workers = options.num_workers
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise WorkflowValidationError(
            f"step {function.__qualname__!r} has num_workers={workers!r}. It must be a whole number of at least 1."
        )
    if unknown := options.skip_graph_checks - GRAPH_CHECKS:
        raise WorkflowValidationError(
            f"step {function.__qualname__!r} has skip_graph_checks with {', '.join(sorted(map(str, unknown)))}. "
            f"The checks are {', '.join(sorted(GRAPH_CHECKS))}."
        )
    if not isinstance(options.accept_event_subclasses, bool):
        raise WorkflowValidationError(
            f"step {function.__qualname__!r} has accept_event_subclasses={options.accept_event_subclasses!r}. "
            "It must be True or False."
        )
    policy = options.retry_policy
    if policy is not None and (isinstance(policy, type) or not isinstance(policy, RetryPolicy)):
        raise WorkflowValidationError(
            f"step {function.__qualname__!r} has retry_policy={policy!r}, which is no retry policy. Give an object "
            "with a method next(elapsed_time, attempts, error, *, seed=None), as ConstantDelayRetryPolicy(delay=5)."
        )


def _step_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise WorkflowValidationError(
            f"@catch_error has for_steps={names!r}. It must be a list of step names, as for_steps=['fetch'], or None "
            "for every step that no other handler covers."
        )
    return tuple(names)


def _recoveries(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise WorkflowValidationError(
            f"@catch_error has max_recoveries={number!r}. It must be a whole number of at least 1."
        )
    return number


def _enclosing_frames(function: StepFunction, caller: FrameType | None) -> list[FrameType]:
    """Return the frames whose local names the annotations may use, innermost first.

    These are the class bodies around the function and the function around those. Frames of other modules in between
    belong to decorators that apply `@step` themselves.
    """
    frames: list[FrameType] = []
    frame = caller
    while frame is not None:
        if frame.f_globals is function.__globals__:
            if frame.f_locals is frame.f_globals:
                break
            frames.append(frame)
            if frame.f_code.co_flags & inspect.CO_OPTIMIZED:
                break
        frame = frame.f_back
    return frames
