"""The settings of a workflow instance: what `Workflow()` was given, checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .engine.observing import Observers
from .engine.places import Limit
from .errors import WorkflowValidationError
from .graph import GRAPH_CHECKS
from .observers import RunObserver
from .resource import ResourceManager
from .service import ServiceManager

if TYPE_CHECKING:
    from .journal.journal import Journal
    from .serializers import Serializer

M = TypeVar("M")


class WorkflowSettings(NamedTuple):
    """The validated arguments of `Workflow()`."""

    name: str
    timeout: float | None
    verbose: bool
    journal: Journal | str | None
    serializer: Serializer | None
    resource_manager: ResourceManager
    service_manager: ServiceManager
    observers: Observers | None
    limit: Limit | None
    checked: bool
    skip_graph_checks: frozenset[str]


def validated(
    *,
    workflow_name: str | None,
    default_name: str,
    timeout: float | None,
    disable_validation: bool,
    verbose: bool,
    resource_manager: ResourceManager | None,
    service_manager: ServiceManager | None,
    num_concurrent_runs: int | None,
    runtime: None,
    skip_graph_checks: Collection[str] | None,
    serializer: Serializer | None,
    journal: Journal | str | None,
    observers: Iterable[RunObserver],
) -> WorkflowSettings:
    """Return the settings; the arguments are those of `Workflow()`. Raises WorkflowValidationError for a wrong one."""
    _require_timeout(timeout)
    _require_concurrency(num_concurrent_runs)
    if runtime is not None:
        raise WorkflowValidationError(
            f"runtime={runtime!r} cannot run this workflow: durable_flow has an engine of its own. Leave it out."
        )
    if workflow_name is not None and (not isinstance(workflow_name, str) or not workflow_name):
        raise WorkflowValidationError(f"workflow_name={workflow_name!r}: it must be a string that is not empty.")
    return WorkflowSettings(
        name=workflow_name or default_name,
        timeout=timeout,
        verbose=verbose,
        journal=journal,
        serializer=_serializer(serializer),
        resource_manager=_manager(ResourceManager, resource_manager, "resource_manager"),
        service_manager=_manager(ServiceManager, service_manager, "service_manager"),
        observers=_observers(observers),
        limit=None if num_concurrent_runs is None else Limit(num_concurrent_runs),
        checked=not disable_validation,
        skip_graph_checks=_known_checks(skip_graph_checks),
    )


def _serializer(serializer: Serializer | None) -> Serializer | None:
    methods = ("serialize", "deserialize")
    if serializer is None or (
        isinstance(getattr(serializer, "codec", None), str)
        and not isinstance(serializer, type)
        and all(callable(getattr(serializer, method, None)) for method in methods)
    ):
        return serializer
    raise WorkflowValidationError(
        f"serializer={serializer!r}: it must be an object with an id `codec` and the methods serialize(value) -> bytes "
        "and deserialize(data) -> value, as PickleSerializer(key=...)."
    )


def _manager(kind: type[M], given: M | None, name: str) -> M:
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise WorkflowValidationError(
            f"{name}={type(given).__name__}: it must be a {kind.__name__}, or None for one of its own."
        )
    return given


def _observers(observers: Iterable[RunObserver]) -> Observers | None:
    if not isinstance(observers, Iterable):
        raise WorkflowValidationError(f"observers={observers!r}: it takes a list, as in observers=[MyObserver()].")
    found = tuple(observers)
    for observer in found:
        method = getattr(observer, "appended", None)
        if not callable(method) or isinstance(observer, type) or inspect.iscoroutinefunction(method):
            raise WorkflowValidationError(
                f"observers=[{observer!r}]: an observer is an object with a plain (not async) method "
                "appended(run_id, workflow, records)."
            )
    return Observers(found) if found else None


def _require_timeout(timeout: object) -> None:
    if timeout is None:
        return
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not math.isfinite(timeout) or timeout < 0:  # type: ignore[arg-type,operator]  # a number here
        raise WorkflowValidationError(
            f"timeout={timeout!r}: it must be a finite number of seconds of at least 0, or None for no limit."
        )


def _require_concurrency(value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise WorkflowValidationError(
            f"num_concurrent_runs={value!r}: it must be a whole number of at least 1, or None for no limit."
        )


def _known_checks(names: Collection[str] | None) -> frozenset[str]:
    chosen = frozenset((names,) if isinstance(names, str) else names or ())
    if unknown := chosen - GRAPH_CHECKS:
        raise WorkflowValidationError(
            f"skip_graph_checks names {', '.join(sorted(map(str, unknown)))}. "
            f"The checks are {', '.join(sorted(GRAPH_CHECKS))}."
        )
    return chosen
