"""Resources: values that are made for a step when it is called, and never journaled.

`Annotated[Client, Resource(make_client)]` as the annotation of a step's parameter, or of another factory's parameter.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, get_args, get_origin
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ValidationError

from .errors import WorkflowValidationError

__all__ = ["Resource", "ResourceConfig", "ResourceDefinition", "ResourceManager"]

_Key = tuple[str, Hashable]


class Resource:
    """Says in `Annotated[T, Resource(factory)]` how the value of a parameter is made.

    The factory is a function, plain or async, or a class. Parameters of its own that are annotated in the same way are
    made first. It runs in the event loop.

    Args:
        factory: makes the value.
        cache: make it once per `ResourceManager`; False: once per call of a step, shared by all that need it there. If
            one of those says True, all of them get the one that is kept: a factory is one object within a call.
    """

    def __init__(self, factory: Callable[..., Any], cache: bool = True):
        if not callable(factory):
            raise WorkflowValidationError(
                f"Resource({factory!r}): it takes a function that makes the resource, as in Resource(make_client)"
            )
        self.factory = factory
        self.cache = cache
        self.name: str = getattr(factory, "__qualname__", None) or type(factory).__qualname__
        # Where the annotations of a factory that was defined inside a function find their names.
        self._frame: FrameType | None = _local_frame(sys._getframe(1))
        self._dependencies: dict[str, ResourceDescriptor] | None = None

    @property
    def key(self) -> _Key:
        """What tells this resource from others in a manager: two factories may have one name."""
        factory = self.factory
        return self.name, factory if isinstance(factory, Hashable) else id(factory)

    def dependencies(self) -> dict[str, ResourceDescriptor]:
        """Return the resources that the factory takes, by parameter. Raises NameError for an annotation unresolved."""
        if self._dependencies is None:
            self._dependencies = _dependencies(self.factory, self._frame)
            self._frame = None
        return self._dependencies

    async def make(self, given: Mapping[str, Any]) -> Any:
        """Call the factory."""
        made = self.factory(**given)
        return await made if inspect.iscoroutine(made) else made

    def typed(self, annotation: Any) -> Resource:
        """Return this; what a factory makes is not compared with the annotation."""
        return self


@dataclass(frozen=True)
class ResourceConfig:
    """Says in `Annotated[Settings, ResourceConfig("app.json", "database.main")]` that a JSON file holds the value.

    Attributes:
        config_file: the path of a `.json` file, relative to the working directory.
        path_selector: keys joined by dots that lead to the part to read; None: all of it.
        label, description: for people and tools that list the resources of a workflow.
        model: the pydantic model that the part is read as: the annotated type.
    """

    config_file: str
    path_selector: str | None = None
    label: str | None = None
    description: str | None = None
    model: type[BaseModel] | None = None

    cache = True

    def __post_init__(self) -> None:
        if Path(self.config_file).suffix != ".json":
            raise ValueError(
                f"ResourceConfig({self.config_file!r}): Only JSON files can be used to load Pydantic-based resources."
            )

    @property
    def name(self) -> str:
        """The file and the path in it."""
        return self.config_file if self.path_selector is None else f"{self.config_file}.{self.path_selector}"

    @property
    def key(self) -> _Key:
        """What tells this resource from others in a manager."""
        return self.name, self.model

    def dependencies(self) -> dict[str, ResourceDescriptor]:
        """Return nothing: a file needs no other resource."""
        return {}

    def typed(self, annotation: Any) -> ResourceConfig:
        """Return the same for the annotated type. Raises ValueError if that is no pydantic model."""
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            raise ValueError(
                f"ResourceConfig({self.config_file!r}) is read as a pydantic model, and the annotation says "
                f"{annotation!r}. Annotate with a subclass of BaseModel."
            )
        return ResourceConfig(self.config_file, self.path_selector, self.label, self.description, annotation)

    def load(self) -> BaseModel:
        """Read the file. Raises FileNotFoundError, and ValueError for what does not fit; no value is shown."""
        path = Path(self.config_file)
        where = f"{path.resolve()}" + (f" at path {self.path_selector}" if self.path_selector else "")
        if self.model is None:
            raise ValueError(f"the resource {self.name} has no type: write Annotated[MySettings, ResourceConfig(...)]")
        if not path.is_file():
            raise FileNotFoundError(f"No such file: {self.config_file} (in {Path.cwd()})")
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path.resolve()} is no JSON: {error}") from None
        for key in self.path_selector.split(".") if self.path_selector else ():
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise ValueError(f"Expected dictionary for configuration from {where}, got: {type(found)}")
        try:
            return self.model.model_validate(found)
        except ValidationError as error:
            # The text of the error itself shows the values, which may be secrets.
            problems = error.errors(include_input=False, include_url=False, include_context=False)
            listed = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
            raise ValueError(f"{where} does not fit {self.model.__name__}: {listed}") from None

    async def make(self, given: Mapping[str, Any]) -> BaseModel:
        """Read the file."""
        return self.load()


ResourceDescriptor = Resource | ResourceConfig


class ResourceDefinition(NamedTuple):
    """A parameter of a step that gets a resource: its `name`, how the value is made, and its annotated type."""

    name: str
    resource: ResourceDescriptor
    type_annotation: Any = None


class ResourceManager:
    """Makes resources and keeps those with `cache=True`, as long as it lives.

    Give one to several workflows with `Workflow(resource_manager=...)` to let them share; else each has its own. What
    several steps need at the same time is made once. Nothing of it is journaled.
    """

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        self._made: dict[_Key, Any] = {}
        self._under_way: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, asyncio.Future[None]]]
        self._under_way = WeakKeyDictionary()

    async def set(self, name: str, val: Any) -> None:
        """Let `val` be the resource of this name (the factory's `__qualname__`), as tests do. Nothing is called."""
        self._given[name] = val

    async def get(self, resource: ResourceDescriptor) -> Any:
        """Return a resource, made if need be. Raises what its factory raises, and ValueError for a cycle."""
        return await self.resolution([resource]).get(resource)

    def get_all(self) -> dict[str, Any]:
        """Return what was set or made and kept, by name."""
        return {**{name: value for (name, _), value in self._made.items()}, **self._given}

    def resolution(self, resources: Iterable[ResourceDescriptor]) -> Resolution:
        """Begin a resolution of these: within it a resource with `cache=False` is made once."""
        return Resolution(self, resources)

    def throwaway(self) -> ResourceManager:
        """Return a manager with what was set in this one, to try resources out: what it makes is not kept here."""
        manager = ResourceManager()
        manager._given.update(self._given)
        return manager


class Resolution:
    """All resources of one call of a step."""

    def __init__(self, manager: ResourceManager, resources: Iterable[ResourceDescriptor]):
        self._manager = manager
        self._resources = tuple(resources)
        self._kept_keys: set[_Key] | None = None
        self._here: dict[_Key, Any] = {}

    async def get(self, resource: ResourceDescriptor) -> Any:
        """Return a resource, see `ResourceManager.get`."""
        if self._kept_keys is None:
            self._kept_keys = _kept_keys(self._resources, self._manager._given)
        require_no_cycle(resource, self._manager._given)
        return await self._get(resource)

    async def _get(self, resource: ResourceDescriptor) -> Any:
        given, key = self._manager._given, resource.key
        if resource.name in given:
            return given[resource.name]
        assert self._kept_keys is not None
        if resource.cache or key in self._kept_keys:
            return await self._kept(resource, key)
        if key not in self._here:
            self._here[key] = await self._make(resource)
        return self._here[key]

    async def _kept(self, resource: ResourceDescriptor, key: _Key) -> Any:
        made = self._manager._made
        under_way = self._manager._under_way.setdefault(asyncio.get_running_loop(), {})
        while key not in made:
            other = under_way.get(key)
            if other is not None:
                # If whoever makes it fails or is cancelled, the next one tries.
                await asyncio.wait([other])
                continue
            under_way[key] = done = asyncio.get_running_loop().create_future()
            try:
                # A workflow in another loop may have been faster: the first one counts.
                made.setdefault(key, await self._make(resource))
            finally:
                del under_way[key]
                done.set_result(None)
        return made[key]

    async def _make(self, resource: ResourceDescriptor) -> Any:
        given = {name: await self._get(needed) for name, needed in resource.dependencies().items()}
        return await resource.make(given)


def _kept_keys(resources: Iterable[ResourceDescriptor], given: Mapping[str, Any]) -> set[_Key]:
    """Return which of these and of what they need are kept, wherever in the order they stand."""
    kept: set[_Key] = set()
    seen: set[_Key] = set()
    pending = list(resources)
    while pending:
        resource = pending.pop()
        if resource.cache:
            kept.add(resource.key)
        if resource.key not in seen and resource.name not in given:
            seen.add(resource.key)
            with suppress(NameError):  # raised when this one is made
                pending += resource.dependencies().values()
    return kept


def require_no_cycle(resource: ResourceDescriptor, given: Mapping[str, Any]) -> None:
    """Raise ValueError if a resource needs itself. What is `given` is not made, so it needs nothing."""
    done: set[_Key] = set()

    def look(found: ResourceDescriptor, above: tuple[_Key, ...]) -> None:
        if found.key in above:
            chain = " -> ".join(name for name, _ in (*above[above.index(found.key) :], found.key))
            raise ValueError(f"Circular resource dependency detected: {chain}. One of them must do without the other.")
        if found.key not in done and found.name not in given:
            for needed in found.dependencies().values():
                look(needed, (*above, found.key))
            done.add(found.key)

    look(resource, ())


def resource_of(annotation: Any) -> tuple[Any, ResourceDescriptor] | None:
    """Return type and descriptor of `Annotated[T, Resource(...)]` or `ResourceConfig(...)`; None for anything else.

    Raises ValueError for a ResourceConfig whose type is no pydantic model.
    """
    if get_origin(annotation) is not typing.Annotated:
        return None
    kind, *metadata = get_args(annotation)
    for found in metadata:
        if isinstance(found, Resource | ResourceConfig):
            return kind, found.typed(kind)
    return None


def _dependencies(factory: Callable[..., Any], frame: FrameType | None) -> dict[str, ResourceDescriptor]:
    function: Any = factory
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    names = {**vars(module)} if module is not None else {}
    names.update(getattr(function, "__globals__", {}))
    local = dict(frame.f_locals) if frame is not None else {}
    if inspect.isfunction(function):
        local.update(inspect.getclosurevars(function).nonlocals)
    found: dict[str, ResourceDescriptor] = {}
    for parameter in inspect.signature(factory).parameters.values():
        annotation = parameter.annotation
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if isinstance(annotation, str):
            try:
                annotation = _resolved(annotation, names, local)
            except Exception as error:  # an annotation may be any expression
                if parameter.default is not parameter.empty:
                    continue  # not ours to fill
                raise NameError(
                    f"parameter {parameter.name!r} of the resource factory {factory!r} has an annotation that cannot "
                    f"be resolved ({type(error).__name__}: {error}). Import its names at run time, not under "
                    "TYPE_CHECKING"
                ) from None
        if (resource := resource_of(annotation)) is not None:
            found[parameter.name] = resource[1]
    return found


def _resolved(annotation: str, names: dict[str, Any], local: dict[str, Any]) -> Any:
    # typing resolves strings, also nested ones, on functions only.
    def carrier() -> None: ...

    carrier.__annotations__ = {"it": annotation}
    return typing.get_type_hints(carrier, names, local, include_extras=True)["it"]


def _local_frame(frame: FrameType) -> FrameType | None:
    """Return the frame if it has names of its own, beside those of its module."""
    return None if frame.f_locals is frame.f_globals else frame
