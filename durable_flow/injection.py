"""What steps are given beside event and context: resources and services, found in signatures, fetched for each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, get_args

from .errors import WorkflowValidationError
from .events import Event
from .resource import ResourceConfig, ResourceDefinition, ResourceManager, resource_of
from .service import ServiceDefinition, ServiceManager

if TYPE_CHECKING:
    from .signatures import StepConfig

Injected = ResourceDefinition | ServiceDefinition


def read_injection(annotation: Any, parameter: Parameter) -> Injected | None:
    """Return what a step's parameter asks for: a resource, or a service of its name; None if it cannot be injected.

    Raises ValueError for a ResourceConfig whose type is no pydantic model, or a parameter that is positional only.
    """
    if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) or _mentions_event(annotation):
        return None
    resource = resource_of(annotation)
    if parameter.kind is Parameter.POSITIONAL_ONLY:
        if resource is None and parameter.default is not Parameter.empty:
            return None
        raise ValueError("it is given by name, and the parameter is positional only. Move it behind the `/`.")
    if resource is not None:
        return ResourceDefinition(parameter.name, resource[1], resource[0])
    return ServiceDefinition(parameter.name, annotation, parameter.default)


def _mentions_event(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Event):
        return True
    return any(_mentions_event(part) for part in get_args(annotation))


class Filled:
    """A step's function with the values that were injected; its signature shows what is left to give."""

    __slots__ = ("__signature__", "_function", "_given")

    def __init__(self, function: Callable[..., Any], rest: Signature, given: Mapping[str, Any]):
        self._function = function
        self._given = given
        self.__signature__ = rest

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with what is left to give."""
        return self._function(*args, **kwargs, **self._given)


class Injector:
    """Fetches what the steps of a workflow are given, from its managers, at each call."""

    def __init__(self, steps: Iterable[StepConfig], services: ServiceManager, resources: ResourceManager):
        self._services = services
        self._resources = resources
        self._steps = {step.name: step for step in steps if step.resources or step.services}
        self._rest = {
            name: signature(partial(step.function, **dict.fromkeys(_names(step)))) for name, step in self._steps.items()
        }

    @property
    def steps(self) -> frozenset[str]:
        """The names of the steps that are given something."""
        return frozenset(self._steps)

    async def values(self, name: str, run_id: str) -> dict[str, Any]:
        """Return what a step is given, by parameter. What a factory raises rises, with a note that names the place."""
        step = self._steps[name]
        given: dict[str, Any] = {}
        for service in step.services:
            if service.name in self._services:
                given[service.name] = self._services.get(service.name)
            elif service.is_required:
                raise WorkflowValidationError(f"run {run_id}: {_missing([(name, service)])}")
        if step.resources:
            resolution = self._resources.resolution(definition.resource for definition in step.resources)
            for definition in step.resources:
                try:
                    given[definition.name] = await resolution.get(definition.resource)
                except Exception as error:
                    error.add_note(
                        f"This was raised by the factory of resource {definition.resource.name!r}, parameter "
                        f"{definition.name!r} of step {name!r}, run {run_id}. The step was not called. Repair what the "
                        f"factory needs, or give the step a retry policy; flow.retry({run_id!r}) goes on with the run."
                    )
                    raise
        return given

    def filled(self, step: StepConfig, given: Mapping[str, Any]) -> Filled:
        """Return the step's function with what it is given."""
        return Filled(step.function, self._rest[step.name], given)

    def require_services(self, workflow: str) -> None:
        """Raise WorkflowValidationError if a step needs a service that is not registered."""
        missing = [
            (name, service)
            for name, step in self._steps.items()
            for service in step.services
            if service.is_required and service.name not in self._services
        ]
        if missing:
            raise WorkflowValidationError(f"workflow {workflow}: {_missing(missing)}")

    def require_configs(self) -> None:
        """Raise WorkflowValidationError for configuration files that cannot be read, all of them."""
        problems = []
        for name, definition in self._definitions():
            if isinstance(definition.resource, ResourceConfig):
                try:
                    definition.resource.load()
                except (OSError, ValueError) as error:
                    problems.append(f"In step {name!r}, parameter {definition.name!r}: {error}")
        _raise("Resource config validation failed:", problems)

    def require_resources(self) -> None:
        """Make every resource once, in a loop and thread of its own, and forget them.

        Raises WorkflowValidationError that lists what cannot be made.
        """

        async def problems() -> list[str]:
            found, manager = [], self._resources.throwaway()
            for name, definition in self._definitions():
                try:
                    await manager.get(definition.resource)
                except Exception as error:
                    found.append(
                        f"In step {name!r}, parameter {definition.name!r}: {str(error) or type(error).__name__}"
                    )
            return found

        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as threads:
            _raise("Resource validation failed:", threads.submit(lambda: asyncio.run(problems())).result())

    def _definitions(self) -> list[tuple[str, ResourceDefinition]]:
        return [(name, definition) for name, step in self._steps.items() for definition in step.resources]


def _names(step: StepConfig) -> list[str]:
    return [*(definition.name for definition in step.resources), *(service.name for service in step.services)]


def _missing(missing: list[tuple[str, ServiceDefinition]]) -> str:
    names = ", ".join(dict.fromkeys(service.name for _, service in missing))
    kinds = [getattr(s.type_annotation, "__name__", s.type_annotation) for _, s in missing]
    listed = "".join(
        f"\n  - step {step!r} takes {service.name!r} ({kind})"
        for (step, service), kind in zip(missing, kinds, strict=True)
    )
    first = missing[0][1].name
    return (
        f"The following services are not available: {names}.{listed}\nRegister them before the run: "
        f"flow.add_workflows({first}=...) for a workflow, ServiceManager.add({first!r}, ...) for any object; or give "
        "the parameter a default. An event parameter is annotated with an event class."
    )


def _raise(title: str, problems: list[str]) -> None:
    if problems:
        raise WorkflowValidationError(title + "".join(f"\n  - {problem}" for problem in problems))
