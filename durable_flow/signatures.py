"""What a step's signature says: read once, when the step is decorated or its workflow class is first used."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args, get_origin

from pydantic import BaseModel

from .collect import Cardinality
from .errors import WorkflowValidationError
from .events import Event, StepFailedEvent
from .fan_in import is_event, members_of, read_list, read_slots
from .injection import Injected, read_injection
from .problems import Problems
from .recovery import Recovery
from .resource import ResourceDefinition
from .retries import RetryPolicy
from .service import ServiceDefinition

StepFunction = Callable[..., Any]
Parameter = inspect.Parameter
P = ParamSpec("P")
T = TypeVar("T")

_CONTEXT_TEXT = re.compile(r"(?:\w+\.)*Context(?:\[(?P<state>.+)\])?", re.DOTALL)


class StepConfig(NamedTuple):
    """A step: what it takes, what it gives, and how it is run.

    Attributes:
        name: under which it is journaled; the name of the function or method.
        function: what is called; for a method the plain function.
        accepted: the event classes it takes, exactly.
        emitted: the event classes that its return annotation names, those of a list included.
        returns_list: whether the annotation names a list, so that a list may be returned.
        returns_event: whether something other than a list may be returned.
        event_parameter: the name of the parameter that gets the event, or the list of events.
        context_parameter: the name of the parameter that gets the Context, or None.
        state_class: the model in `Context[Model]`, or None.
        is_async: whether it is a coroutine function; others run in a thread.
        is_method: whether the workflow instance is its first argument.
        num_workers: how many of its tasks run at once within a run.
        retry_policy: asked after each failure; None: the run fails.
        resources: the parameters that get a resource.
        services: the parameters that get a service, by their name.
        recovery: which steps' failures it handles, for a step declared by `@catch_error`; None for every other.
        listed: the event classes that the return annotation names within a list.
        single: those that it names outside of one.
        collect: when a step that takes a list runs; None: it takes no list.
        slots: the parameters of a step that takes one each of several events, in order, with their classes.
        accept_event_subclasses: whether it takes subclasses of the accepted events as well.
        skip_graph_checks: the checks of the graph that leave this step out.
    """

    name: str
    function: StepFunction
    accepted: tuple[type[Event], ...]
    emitted: tuple[type[Event], ...]
    returns_list: bool
    returns_event: bool
    event_parameter: str
    context_parameter: str | None
    state_class: type[BaseModel] | None
    is_async: bool
    is_method: bool
    num_workers: int
    retry_policy: RetryPolicy | None
    resources: tuple[ResourceDefinition, ...] = ()
    services: tuple[ServiceDefinition, ...] = ()
    recovery: Recovery | None = None
    listed: tuple[type[Event], ...] = ()
    single: tuple[type[Event], ...] = ()
    collect: Cardinality | None = None
    slots: tuple[tuple[str, type[Event]], ...] = ()
    accept_event_subclasses: bool = False
    skip_graph_checks: frozenset[str] = frozenset()


class StepOptions(NamedTuple):
    """The arguments of `@step`; `recovery` are those of `@catch_error`."""

    num_workers: int
    retry_policy: RetryPolicy | None
    recovery: Recovery | None = None
    accept_event_subclasses: bool = False
    skip_graph_checks: frozenset[str] = frozenset()


class UnresolvedAnnotation(WorkflowValidationError):
    """An annotation uses a name that is not defined, or not yet; `StepDeclaration` tries again later."""


def inspect_step(
    function: StepFunction, options: StepOptions, *, is_method: bool, names: Mapping[str, Any], last_try: bool
) -> StepConfig:
    """Read a step's signature.

    `names` are the local names that its annotations may use beside the globals of its module. Unless it is the
    `last_try`, a name that is missing may still be defined later.

    Raises UnresolvedAnnotation, and WorkflowValidationError for everything that no later definition can cure.
    """
    reader = _Reader(function, names, last_try)
    found = _Found(reader, function)
    parameters = reader.parameters()
    if is_method:
        parameters = found.try_to(_without_self, reader, parameters) or parameters[1:]
    for parameter in parameters:
        found.try_to(found.read, parameter)
    events, lists, contexts, injected = found.events, found.lists, found.contexts, found.injected
    if len(contexts) > 1:
        found.problems.keep(
            reader.problem(f"has several Context parameters ({', '.join(contexts)}). Keep one of them.")
        )
    if not events and not found.stopped:
        found.problems.keep(reader.problem(_no_event(parameters)))
    slots = (found.try_to(read_slots, reader, events, lists) or ()) if len(events) > 1 else ()
    returns = found.try_to(reader.returns) or _Returns()
    event_parameter = next(iter(events), "")
    accepted = tuple(dict.fromkeys(event for classes in events.values() for event in classes))
    if options.recovery is not None and events and (accepted != (StepFailedEvent,) or lists or slots):
        found.problems.keep(
            reader.problem(
                f"is a @catch_error handler and takes {', '.join(map(_name, accepted))}. A handler takes failures: "
                "annotate its event parameter with StepFailedEvent alone."
            )
        )
    found.raise_any()
    context_parameter, state_class = next(iter(contexts.items()), (None, None))
    return StepConfig(
        name=function.__name__,
        function=function,
        accepted=accepted,
        emitted=returns.events,
        returns_list=returns.lists,
        returns_event=returns.single,
        event_parameter=event_parameter,
        context_parameter=context_parameter,
        state_class=state_class,
        # A plain wrapper around a coroutine function returns its coroutine.
        is_async=inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(function),
        is_method=is_method,
        num_workers=options.num_workers,
        retry_policy=options.retry_policy,
        resources=tuple(found for found in injected if isinstance(found, ResourceDefinition)),
        services=tuple(found for found in injected if isinstance(found, ServiceDefinition)),
        recovery=options.recovery,
        listed=returns.listed,
        single=tuple(returns.alone),
        collect=lists.get(event_parameter),
        slots=slots,
        accept_event_subclasses=options.accept_event_subclasses,
        skip_graph_checks=options.skip_graph_checks,
    )


def is_free_function(function: StepFunction) -> bool:
    """Tell whether a function was defined outside any class body."""
    parent, _, _ = function.__qualname__.rpartition(".")
    return not parent or parent.endswith("<locals>")


def _without_self(reader: "_Reader", parameters: list[Parameter]) -> list[Parameter]:
    first = parameters[0] if parameters else None
    if first is None or first.kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
        raise reader.problem("is a method without a self parameter. Write it as `async def name(self, ev: MyEvent)`.")
    if first.annotation is not Parameter.empty and reader.events(first):
        raise reader.problem(
            f"takes its event as the first parameter ({first.name}), where a method takes self. Add self; static "
            "methods cannot be steps, a function outside the class can: @step(workflow=...)."
        )
    return parameters[1:]


def _require_default(reader: "_Reader", parameter: Parameter) -> None:
    if parameter.default is Parameter.empty and parameter.kind not in (
        Parameter.VAR_POSITIONAL,
        Parameter.VAR_KEYWORD,
    ):
        raise reader.problem(
            f"has a parameter {parameter.name!r} that is neither an event nor a Context. Annotate it with an event "
            "class; with Annotated[T, Resource(...)] or, for a service, its class; or give it a default value."
        )


def _no_event(parameters: list[Parameter]) -> str:
    names = ", ".join(parameter.name for parameter in parameters) or "none"
    return (
        f"has no parameter annotated with an event class (its parameters: {names}). Annotate one with a subclass of "
        "Event or a union of such, as in `ev: StartEvent`, or with a list of them to collect a fan-out."
    )


_NO_CONTEXT: Any = object()


class _Found:
    """What the parameters of a step are, and everything that is wrong with its signature."""

    def __init__(self, reader: "_Reader", function: StepFunction):
        self.events: dict[str, tuple[type[Event], ...]] = {}
        self.lists: dict[str, Cardinality] = {}
        self.contexts: dict[str, type[BaseModel] | None] = {}
        self.injected: list[Injected] = []
        self.problems = Problems(f"step {function.__qualname__!r}")
        # Whether a parameter could not be read: then it is not known that none takes an event.
        self.stopped = False
        self._reader = reader
        self._unresolved: UnresolvedAnnotation | None = None

    def read(self, parameter: Parameter) -> None:
        """Find out what a parameter gets."""
        reader, name = self._reader, parameter.name
        if parameter.annotation is Parameter.empty:
            if name == "ctx":
                self.contexts["ctx"] = None
                return
        elif (state := reader.context(parameter)) is not _NO_CONTEXT:
            self.contexts[name] = state
            return
        elif accepted := reader.events(parameter):
            self.events[name] = accepted
            return
        elif (found := read_list(reader, parameter)) is not None:
            self.events[name], self.lists[name] = found
            return
        elif (injection := reader.injection(parameter)) is not None:
            self.injected.append(injection)
            return
        _require_default(reader, parameter)

    def try_to(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what the function returns; None if it raises a WorkflowValidationError, which is told with others."""
        try:
            return function(*args, **kwargs)
        except UnresolvedAnnotation as error:
            if self._reader.last_try:
                self.problems.keep(error)
            elif not self.problems:
                self._unresolved = self._unresolved or error
        except WorkflowValidationError as error:
            self.problems.keep(error)
        self.stopped = True
        return None

    def raise_any(self) -> None:
        """Raise everything that was found; if it began with what may yet be defined, that: all is told later."""
        if self._unresolved is not None:
            raise self._unresolved
        self.problems.raise_any()


@dataclass(slots=True)
class _Returns:
    events: tuple[type[Event], ...] = ()
    lists: bool = False
    single: bool = False
    listed: tuple[type[Event], ...] = ()
    alone: dict[type[Event], None] = dataclasses.field(default_factory=dict)


class _Reader:
    """Resolves the annotations of one function; every error names the step."""

    def __init__(self, function: StepFunction, names: Mapping[str, Any], last_try: bool):
        self.function = function
        self.names = dict(names)
        self.last_try = last_try
        # A wrapper made with functools.wraps shows the signature, and needs the names, of what it wraps.
        self.globals = getattr(inspect.unwrap(function), "__globals__", {})

    def problem(self, text: str) -> WorkflowValidationError:
        return WorkflowValidationError(f"step {self.function.__qualname__!r} {text}")

    def parameters(self) -> list[Parameter]:
        return list(self._signature().parameters.values())

    def _signature(self) -> inspect.Signature:
        try:
            return inspect.signature(self.function)
        except NameError as error:  # from Python 3.14 on annotations are evaluated here, not by `def`
            raise self._unresolved("its signature", str(error)) from error

    def context(self, parameter: Parameter) -> Any:
        """Return the state class (or None) of a Context parameter, `_NO_CONTEXT` for any other."""
        try:
            annotation = self.resolve(parameter.annotation, f"parameter {parameter.name!r}")
        except UnresolvedAnnotation:
            # Context imported under TYPE_CHECKING only: its name is enough. A state class must be importable.
            text = parameter.annotation
            match = _CONTEXT_TEXT.fullmatch(text.strip()) if self.last_try and isinstance(text, str) else None
            if match is None:
                raise
            state = match["state"]
            return None if state is None else self._state(self.resolve(state, f"parameter {parameter.name!r}"))
        from .context import Context  # here, because the context package may one day import steps

        members = [member for member in members_of(annotation) if member is not None]
        if len(members) != 1 or (get_origin(members[0]) or members[0]) is not Context:
            return _NO_CONTEXT
        arguments = get_args(members[0])
        return self._state(arguments[0]) if arguments else None

    def _state(self, annotation: Any) -> type[BaseModel] | None:
        if annotation is Any or isinstance(annotation, typing.TypeVar):
            return None
        if (get_origin(annotation) or annotation) in (dict, Mapping):
            return None  # as untyped as without it
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        raise self.problem(
            f"has Context[{_name(annotation)}]: the state must be a pydantic model. Write a subclass of BaseModel "
            "whose fields all have defaults, or plain Context for untyped state."
        )

    def events(self, parameter: Parameter) -> tuple[type[Event], ...]:
        """Return the event classes of a parameter's annotation, none if it is no event parameter."""
        annotation = self.resolve(parameter.annotation, f"parameter {parameter.name!r}")
        members = [member for member in members_of(annotation) if member is not None]
        events = tuple(dict.fromkeys(member for member in members if is_event(member)))
        if events and len(events) < len(set(members)):
            others = ", ".join(_name(member) for member in members if not is_event(member))
            raise self.problem(
                f"mixes events with {others} in parameter {parameter.name!r}. Keep the event classes only."
            )
        return events

    def injection(self, parameter: Parameter) -> Injected | None:
        """Return what a parameter that takes neither event nor Context asks for, None if it cannot be injected."""
        annotation = self.resolve(parameter.annotation, f"parameter {parameter.name!r}")
        try:
            return read_injection(annotation, parameter)
        except ValueError as error:
            raise self.problem(f"has a parameter {parameter.name!r} that cannot be injected: {error}") from error

    def returns(self) -> _Returns:
        annotation = self._signature().return_annotation
        if annotation is inspect.Signature.empty:
            raise self.problem(
                "has no return annotation. Say which events it returns, as in `-> StopEvent`, `-> A | B | None` or "
                "`-> list[A]`; `-> None` if it returns none."
            )
        events: dict[type[Event], None] = {}
        result = _Returns()
        members = members_of(_bare(self.resolve(annotation, "the return annotation")))
        for member in map(_bare, members):
            if member is list or get_origin(member) is list:
                result.lists = True
                for item in get_args(member)[:1]:
                    for element in members_of(_bare(item)):
                        self._add_event(events, element, in_list=True)
                        if is_event(element):
                            result.listed = (*result.listed, element)
            elif member is not None:
                result.single = True
                self._add_event(events, member, in_list=False)
                if is_event(member):
                    result.alone[member] = None
        # `-> None` alone declares nothing, and an event that no annotation names may be returned all the same.
        result.single = result.single or not result.lists
        result.events = tuple(events)
        return result

    def _add_event(self, events: dict[type[Event], None], annotation: Any, *, in_list: bool) -> None:
        if is_event(annotation):
            events[annotation] = None
        elif annotation is not Any:
            where = "a list of " if in_list else ""
            raise self.problem(
                f"returns {where}{_name(annotation)}, which is no event class. Steps return events, lists of events "
                "or None: put the value into a field of an event, as in StopEvent(result=...)."
            )

    def resolve(self, annotation: Any, place: str) -> Any:
        # typing resolves strings, also nested ones, on functions only.
        def carrier() -> None: ...

        carrier.__annotations__ = {"it": annotation}
        try:
            return typing.get_type_hints(carrier, self.globals, self.names, include_extras=True)["it"]
        except Exception as error:  # an annotation may be any expression, so it may raise anything
            raise self._unresolved(place, f"{type(error).__name__}: {error}") from error

    def _unresolved(self, place: str, why: str) -> UnresolvedAnnotation:
        return UnresolvedAnnotation(
            f"step {self.function.__qualname__!r} has an annotation that cannot be resolved ({place}; {why}). Import "
            "the class at run time, not under TYPE_CHECKING, and define it where the annotation can see it, before the "
            "workflow is first constructed."
        )


def _bare(annotation: Any) -> Any:
    """Return an annotation without `Annotated`, which says nothing about the events that are returned."""
    return get_args(annotation)[0] if get_origin(annotation) is typing.Annotated else annotation


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and get_origin(annotation) is None else str(annotation)


def renamed(config: StepConfig, name: str, function: StepFunction) -> StepConfig:
    """Return the step under another name, or with what a decorator has put around its function."""
    if config.name == name and config.function is function:
        return config
    return config._replace(name=name, function=function)
