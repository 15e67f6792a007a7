"""What programs that build on workflows ask about steps, signatures and class names; the engine uses none of it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from .errors import WorkflowValidationError
from .events import Event, EventType
from .signatures import StepFunction, StepOptions, inspect_step
from .steps import step_table

__all__ = [
    "BUSY_WAIT_DELAY",
    "EventType",
    "StepSignatureSpec",
    "get_qualified_name",
    "get_steps_from_class",
    "get_steps_from_instance",
    "import_module_from_qualified_name",
    "inspect_signature",
    "is_free_function",
    "validate_step_signature",
]

BUSY_WAIT_DELAY = 0.01
"""Seconds. Kept for programs that import it; durable_flow waits for moments, never in a busy loop."""


class StepSignatureSpec(BaseModel):
    """What a step's signature says.

    Attributes:
        accepted_events: by parameter name, the event classes that it takes.
        return_types: the event classes that the return annotation names, those of a list included; NoneType alone for
            a step that returns no event.
        context_parameter: the name of the parameter that gets the Context, or None.
        context_state_type: the model in `Context[Model]`, or None.
        is_fan_out: whether the return annotation names a list.
        collection_param: the parameter that takes a list, with the classes in it, or None.
        collection_policy: when the step with that parameter runs: All() or Take(n).
        resources: the parameters that get a resource.
        requested_services: the annotated types of the parameters that get a service, by name.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    accepted_events: dict[str, list[type[Event]]]
    return_types: list[Any]
    context_parameter: str | None
    context_state_type: Any | None = None
    is_fan_out: bool = False
    collection_param: tuple[str, tuple[Any, ...]] | None = None
    collection_policy: Any | None = None
    resources: list[Any] = []
    requested_services: dict[str, list[Any]] = {}


def inspect_signature(fn: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> StepSignatureSpec:
    """Read the signature of a function or method as `@step` does; `localns` are names that its annotations may use.

    A first parameter called `self` or `cls` is left out. Raises WorkflowValidationError if it cannot be a step's
    signature.
    """
    function = fn.__func__ if inspect.ismethod(fn) else fn
    code = getattr(inspect.unwrap(function), "__code__", None)
    first = code.co_varnames[: code.co_argcount][:1] if code is not None else ()
    config = inspect_step(
        function,
        StepOptions(num_workers=1, retry_policy=None),
        is_method=first in (("self",), ("cls",)),
        names=localns or {},
        last_try=True,
    )
    return StepSignatureSpec(
        accepted_events={name: [event] for name, event in config.slots}
        or {config.event_parameter: list(config.accepted)},
        return_types=list(config.emitted) or [type(None)],
        context_parameter=config.context_parameter,
        context_state_type=config.state_class,
        is_fan_out=config.returns_list,
        collection_param=(config.event_parameter, config.accepted) if config.collect is not None else None,
        collection_policy=config.collect,
        resources=list(config.resources),
        requested_services={service.name: [service.type_annotation] for service in config.services},
    )


def validate_step_signature(spec: StepSignatureSpec) -> None:
    """Raise WorkflowValidationError unless the signature takes an event and names what it returns."""
    problems = []
    if not spec.accepted_events:
        problems.append("A step needs a parameter annotated with an event class, as in `ev: StartEvent`.")
    if not spec.return_types:
        problems.append("A step needs a return annotation, as in `-> StopEvent`; `-> None` if it returns no event.")
    if problems:
        raise WorkflowValidationError(" ".join(problems))


def get_steps_from_class(cls: type) -> dict[str, StepFunction]:
    """Return the functions of a workflow class that are steps, by name, those outside the class included.

    Raises WorkflowValidationError if the class cannot be a workflow.
    """
    return {name: step.function for name, step in step_table(cls).steps.items()}


def get_steps_from_instance(workflow: object) -> dict[str, StepFunction]:
    """Return the steps of a workflow by name, as they are called: methods are bound to the instance."""
    return {
        name: step.function.__get__(workflow) if step.is_method else step.function
        for name, step in step_table(type(workflow)).steps.items()
    }


def is_free_function(qualname: str) -> bool:
    """Tell whether a `__qualname__` is that of a function outside any class body; ValueError for an empty one."""
    if not qualname:
        raise ValueError("a qualified name must not be empty")
    parent, _, _ = qualname.rpartition(".")
    return not parent or parent.endswith("<locals>")


def get_qualified_name(value: Any) -> str:
    """Return `module.name` of a class, or of the class of a value."""
    cls = value if isinstance(value, type) else type(value)
    return f"{cls.__module__}.{cls.__qualname__}"


def import_module_from_qualified_name(qualified_name: str) -> Any:
    """Return what `module.name` names, importing the module. The engine never does that with names out of data.

    Raises ValueError for a name without a dot, ImportError, AttributeError.
    """
    module, _, name = qualified_name.rpartition(".")
    if not module:
        raise ValueError(f"{qualified_name!r} is no qualified name: it must have the form 'module.name'")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"module {module!r} cannot be imported: {error}") from error
    return getattr(found, name)
