"""Services: objects that a workflow hands to its steps, by the name of the parameter that takes them."""

from __future__ import annotations

from inspect import Parameter
from typing import Any, NamedTuple

from .errors import ServiceNotFoundError

__all__ = ["ServiceDefinition", "ServiceManager", "ServiceNotFoundError"]


class ServiceManager:
    """Services by name: other workflows, clients of models and indexes, anything that steps are to share.

    Give it to several workflows with `Workflow(service_manager=...)`. Nothing of it is journaled: whoever goes on with
    a run later has to register the services again.
    """

    def __init__(self) -> None:
        self._services: dict[str, Any] = {}

    def add(self, name: str, service: Any) -> None:
        """Register a service; a step gets it by a parameter of this name. One of the same name is replaced."""
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"a service cannot be called {name!r}: steps get services by the name of a parameter, so it must be a "
                "Python name, as in add('summaries', SummaryWorkflow())"
            )
        self._services[name] = service

    def get(self, name: str, default: Any = None) -> Any:
        """Return a service, or the default. Raises ServiceNotFoundError if there is neither."""
        if name in self._services:
            return self._services[name]
        if default is None:
            known = ", ".join(self._services) or "none"
            raise ServiceNotFoundError(
                f"there is no service {name!r} (registered: {known}); register it with add({name!r}, ...) or "
                f"flow.add_workflows({name}=...)"
            )
        return default

    def __contains__(self, name: str) -> bool:
        """Tell whether a service of this name is registered."""
        return name in self._services


class ServiceDefinition(NamedTuple):
    """A parameter of a step that gets a service: `name` is both; `default` is `Parameter.empty` if there is none."""

    name: str
    type_annotation: Any
    default: Any

    @property
    def is_required(self) -> bool:
        """Tell whether the step cannot be called without the service."""
        return self.default is Parameter.empty
