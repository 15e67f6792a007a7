"""What `run` was called with: the event that starts the run, and the arguments by which its id is known again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import WorkflowRuntimeError
from .events import StartEvent
from .steps import step_table

if TYPE_CHECKING:
    from .program import WorkflowProgram
    from .records import EncodedValue
    from .workflow import Workflow


def start_event_of(
    workflow: type[Workflow], start_event: StartEvent | None, arguments: Mapping[str, Any]
) -> StartEvent:
    """Return the event that starts a run: the one given, or one made of the keyword arguments of `run`.

    Raises ValueError if the one given is not of the workflow's StartEvent class, WorkflowRuntimeError if the
    arguments do not make one. Arguments beside a given event are dropped with a warning.
    """
    table = step_table(workflow)
    wanted = table.start_event_class
    if start_event is None:
        try:
            return wanted(**arguments)
        except Exception as error:
            names = ", ".join(arguments) or "none"
            raise WorkflowRuntimeError(
                f"workflow {workflow.__qualname__}: the arguments of run() (given: {names}) do not make a "
                f"{wanted.__name__}: {error}"
            ) from error
    if not table.starts_with(type(start_event)):
        raise ValueError(
            f"workflow {workflow.__qualname__} starts with {wanted.__name__}, but start_event is of type "
            f"{type(start_event).__name__}. Events are routed by their exact class: pass a {wanted.__name__}, or "
            "let the step take subclasses, @step(accept_event_subclasses=True)."
        )
    if arguments:
        warnings.warn(
            f"run() got start_event and keyword arguments; {', '.join(arguments)} will be dropped",
            stacklevel=3,
        )
    return start_event


def passed_to_run(
    program: WorkflowProgram, event: StartEvent, start_event: StartEvent | None, arguments: Mapping[str, Any]
) -> EncodedValue:
    """Return what the caller passed to `run`, encoded: it is compared when the id is used again; defaults are not."""
    passed = arguments if start_event is None else {name: getattr(event, name) for name in event.model_fields_set}
    return program.codec.encode_value(dict(sorted(passed.items())), "arguments of run()")
