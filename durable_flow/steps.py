"""The step table of a workflow class: its steps, where events go, and how steps are called; built once per class."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, signature
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from .collect import Take
from .decorators import StepDeclaration, declaration_of
from .errors import WorkflowConfigurationError, WorkflowValidationError
from .events import Event, HumanResponseEvent, StartEvent, StopEvent, event_name
from .fold_joins import SlotRoute
from .graph import StepNode, find_problems
from .incoming import Collectors
from .levels import find_levels
from .problems import Problems
from .recovery import Recovery, find_recovery_problems, handlers_by_step
from .serializers.mentioned import local_classes
from .shape import StepShape, fingerprint_of, shape_text
from .signatures import StepConfig, StepFunction, renamed

# Both lie in the `__dict__` of the very class they belong to: subclasses have a table and free steps of their own.
_TABLE = "_durable_step_table"
_FREE_STEPS = "_durable_free_steps"

Caller = Callable[[Any, Any, Any], Any]
"""Calls a step: (workflow instance, event, context) -> a coroutine, or the result of a plain function."""

E = TypeVar("E", bound=Event)


class StepTable(NamedTuple):
    """Everything about a workflow that its class determines.

    Attributes:
        steps: by name, inherited ones first, then in definition order.
        start_event_class: the one StartEvent class that steps accept.
        stop_event_class: the one StopEvent class that steps return.
        routes: the names of the steps that run for each event of a class, exactly that one.
        joins: the fan-ins that collect events of a class, as they stand in `EventEmitted.joins`.
        fan_outs: the steps whose returned lists are collected again, and by whom.
        event_classes: every event class that a step accepts or returns.
        answer_types: the HumanResponseEvent classes among the accepted.
        answer_bases: those of them that are accepted with their subclasses.
        local_classes: what fields of events and state are annotated with, as far as it was defined in a function.
        state_class: the most derived model of all `Context[Model]` parameters, or None.
        shape: steps, accepted and emitted events and state schema, as text (see `shape.py`).
        fingerprint: of the shape.
        callers: by step name.
        handlers: the steps declared by `@catch_error`.
        handler_of: the handler of each step that has one.
    """

    steps: Mapping[str, StepConfig]
    start_event_class: type[StartEvent]
    stop_event_class: type[StopEvent]
    routes: Mapping[type[Event], tuple[str, ...]]
    joins: Mapping[type[Event], tuple[str, ...]]
    fan_outs: Mapping[str, Collectors]
    event_classes: tuple[type[Event], ...]
    answer_types: tuple[type[HumanResponseEvent], ...]
    answer_bases: tuple[type[HumanResponseEvent], ...]
    local_classes: tuple[type, ...]
    state_class: type[BaseModel] | None
    shape: str
    fingerprint: str
    callers: Mapping[str, Caller]
    handlers: Mapping[str, Recovery]
    handler_of: Mapping[str, str]

    def nodes(self) -> list[StepNode]:
        """Return the steps as the graph checks take them."""
        return _nodes(self.steps.values(), self.handler_of)

    def starts_with(self, cls: type[Event]) -> bool:
        """Tell whether a run may begin with an event of this class: that of the workflow, or one derived from it that a
        step takes by `accept_event_subclasses`."""
        start = self.start_event_class
        return cls is start or (
            issubclass(cls, start) and any(_fits(step, cls, step.accepted) for step in self.steps.values())
        )

    def recovery_problems(self) -> list[str]:
        """Return what is wrong with the handlers of failures."""
        return find_recovery_problems(self.steps.keys(), self.handlers)


def step_table(cls: type) -> StepTable:
    """Return the table of a workflow class, built at the first call and after a step was added.

    Raises WorkflowValidationError for steps that cannot work, WorkflowConfigurationError for start or stop events
    that are missing or ambiguous, event classes of one stored name and unrelated state classes; either with every
    problem of the class.
    """
    table = cls.__dict__.get(_TABLE)
    if not isinstance(table, StepTable):
        table = _build(cls)
        setattr(cls, _TABLE, table)
    return table


def add_free_step(cls: type, function: StepFunction) -> None:
    """Attach a decorated function to exactly this class. Raises WorkflowValidationError if that cannot be."""
    declaration = declaration_of(function)
    name = getattr(function, "__name__", repr(function))
    if declaration is None:
        raise WorkflowValidationError(
            f"{name!r} is no step and cannot be added to {cls.__qualname__}: it is missing the @step decorator. "
            f"Decorate it with @step(workflow={cls.__name__})."
        )
    if not declaration.is_free:
        raise WorkflowValidationError(
            f"step {function.__qualname__!r} is a method and cannot be added to {cls.__qualname__}. "
            "Inherit from its class, or move it out of the class."
        )
    if name in _declared(cls):
        raise WorkflowValidationError(
            f"workflow {cls.__qualname__} already has a step {name!r}, and a step's name is how the journal knows it. "
            "Rename the function."
        )
    free = dict(cls.__dict__.get(_FREE_STEPS, {}))
    free[name] = function
    setattr(cls, _FREE_STEPS, free)
    setattr(cls, _TABLE, None)


def _declared(cls: type) -> dict[str, tuple[StepDeclaration, StepFunction]]:
    """Return the class's steps by name, as they are called: inherited methods, its own, its free functions."""
    found: dict[str, tuple[StepDeclaration, StepFunction]] = {}
    for base in reversed(cls.__mro__):
        for name, value in base.__dict__.items():
            declaration = declaration_of(value)
            if declaration is None:
                # An override without @step takes the place of the inherited step.
                found.pop(name, None)
            elif isinstance(value, staticmethod):
                raise WorkflowValidationError(
                    f"step {name!r} of {base.__qualname__} is a static method. Make it a method with self, or a "
                    "function outside the class: @step(workflow=...)."
                )
            elif isinstance(value, classmethod):
                found[name] = (declaration, _called_on_the_class(value.__func__))
            elif declaration.is_free:
                raise WorkflowValidationError(
                    f"step {name!r} of {base.__qualname__} was defined outside a class. Do not assign it to the "
                    "class: @step(workflow=...) has attached it already."
                )
            else:
                found[name] = (declaration, value)
    for name, function in cls.__dict__.get(_FREE_STEPS, {}).items():
        declaration = declaration_of(function)
        if declaration is not None:
            found[name] = (declaration, function)
    return found


def _called_on_the_class(function: StepFunction) -> StepFunction:
    """Return a class method as a method: its first argument is the class of the instance that it is given."""

    @wraps(function)
    def call(instance: object, *args: Any, **kwargs: Any) -> Any:
        return function(type(instance), *args, **kwargs)

    return call


def _build(cls: type) -> StepTable:
    steps = _configs(cls)
    if not steps:
        raise WorkflowConfigurationError(
            f"workflow {cls.__qualname__} has no steps. Decorate its methods with @step, or give functions outside "
            f"the class @step(workflow={cls.__name__})."
        )
    accepted = dict.fromkeys(event for step in steps.values() for event in step.accepted)
    emitted = dict.fromkeys(event for step in steps.values() for event in step.emitted)
    event_classes = tuple(accepted | emitted)
    _require_sound(cls, steps.values())
    state_class = _most_derived(cls, steps.values())
    handlers = _handlers(steps.values())
    handler_of = handlers_by_step(steps.keys(), handlers)
    shape = _shape(steps.values(), state_class)
    # What collects a list does not start a run.
    accepted_alone = dict.fromkeys(event for step in steps.values() if not step.collect for event in step.accepted)
    start_event_class = _the_only(cls, accepted_alone, StartEvent, "accepts")
    return StepTable(
        steps=steps,
        start_event_class=start_event_class,
        stop_event_class=_the_only(cls, emitted, StopEvent, "returns"),
        routes={event: targets_of(steps.values(), event) for event in accepted},
        joins={event: joins_of(steps.values(), event) for event in accepted},
        fan_outs=_fan_outs(_nodes(steps.values(), handler_of), start_event_class, steps),
        event_classes=event_classes,
        local_classes=local_classes(event_classes if state_class is None else (*event_classes, state_class)),
        answer_types=tuple(event for event in accepted if issubclass(event, HumanResponseEvent)),
        answer_bases=_answer_bases(steps.values()),
        state_class=state_class,
        shape=shape,
        fingerprint=fingerprint_of(shape),
        callers={step.name: caller_of(step) for step in steps.values()},
        handlers=handlers,
        handler_of=handler_of,
    )


def targets_of(steps: Iterable[StepConfig], cls: type[Event]) -> tuple[str, ...]:
    """Return the names of the steps that run for each event of this class."""
    return tuple(
        s.name for s in steps if not s.collect and not s.slots and not s.recovery and _fits(s, cls, s.accepted)
    )


def joins_of(steps: Iterable[StepConfig], cls: type[Event]) -> tuple[str, ...]:
    """Return the fan-ins that collect events of this class, as they stand in `EventEmitted.joins`."""
    joins = []
    for step in steps:
        if step.collect and _fits(step, cls, step.accepted):
            joins.append(step.name)
        # The exact class first: it is filled before a parameter that would take any subclass.
        parameters = [name for name, accepted in step.slots if cls is accepted]
        parameters += [n for n, accepted in step.slots if cls is not accepted and _fits(step, cls, (accepted,))]
        if parameters:
            joins.append(str(SlotRoute(step.name, tuple(parameters), len(step.slots))))
    return tuple(joins)


def _fits(step: StepConfig, cls: type[Event], accepted: tuple[type[Event], ...]) -> bool:
    return cls in accepted or (step.accept_event_subclasses and issubclass(cls, accepted))


def _answer_bases(steps: Iterable[StepConfig]) -> tuple[type[HumanResponseEvent], ...]:
    accepted = (event for step in steps if step.accept_event_subclasses for event in step.accepted)
    return tuple(dict.fromkeys(event for event in accepted if issubclass(event, HumanResponseEvent)))


def _nodes(steps: Iterable[StepConfig], handler_of: Mapping[str, str]) -> list[StepNode]:
    covers: dict[str, list[str]] = {}
    for covered, handler in handler_of.items():
        covers.setdefault(handler, []).append(covered)
    steps = tuple(steps)
    several = sum(s.recovery is not None and s.recovery.for_steps is None for s in steps) > 1
    return [
        StepNode(
            s.name, s.accepted, s.emitted, s.listed, s.single, s.collect is not None, s.slots,
            s.accept_event_subclasses, s.skip_graph_checks,
            None if s.recovery is None else tuple(covers.get(s.name, ())),
            s.recovery is not None
            and s.name not in covers
            and bool(several if s.recovery.for_steps is None else s.recovery.for_steps),
        )
        for s in steps
    ]  # fmt: skip


def _fan_outs(
    nodes: Sequence[StepNode], start_event_class: type[StartEvent], steps: Mapping[str, StepConfig]
) -> dict[str, Collectors]:
    """Return whose lists are collected again; nothing is looked for where no step collects."""
    if not any(node.collects or node.slots for node in nodes):
        return {}
    takes = {name: step.collect.n if isinstance(step.collect, Take) else 0 for name, step in steps.items()}
    collected = find_levels(nodes, start_event_class).collected
    return {name: Collectors(joins, tuple(takes[join] for join in joins)) for name, joins in collected.items()}


def _require_distinct_names(cls: type, classes: Iterable[type[Event]]) -> None:
    by_name: dict[str, type[Event]] = {}
    classes = tuple(classes)
    for event in classes:
        for former in vars(event).get("event_aliases", ()):
            other = by_name.setdefault(former, event)
            if other is not event:
                raise WorkflowConfigurationError(
                    f"workflow {cls.__qualname__} uses two event classes that were both called {former!r} before: "
                    f"{event_name(other)} and {event_name(event)}. Leave that to one of them in its `event_aliases`."
                )
    for event in classes:
        other = by_name.setdefault(event_name(event), event)
        if other is not event:
            raise WorkflowConfigurationError(
                f"workflow {cls.__qualname__} uses two event classes that the journal would store under one name, "
                f"{event_name(event)!r}: {other.__module__}.{other.__qualname__} and "
                f"{event.__module__}.{event.__qualname__}. Give one of them an `event_name: ClassVar[str]`."
            )


def _the_only(cls: type, candidates: Iterable[type[Event]], base: type[E], verb: str) -> type[E]:
    found = [event for event in candidates if issubclass(event, base)]
    if not found:
        cure = (
            f"A run begins with one: annotate the event of the first step with {base.__name__} or a subclass."
            if base is StartEvent
            else f"A run ends with one: name {base.__name__} or a subclass in the return annotation of the last step."
        )
        raise WorkflowConfigurationError(
            f"workflow {cls.__qualname__} has no step that {verb} a {base.__name__}. {cure}"
        )
    if len(found) > 1:
        names = ", ".join(event.__name__ for event in found)
        raise WorkflowConfigurationError(
            f"workflow {cls.__qualname__} has steps for several {base.__name__} classes: {names}. Only one type of "
            f"{base.__name__} is allowed: use one class for all of them."
        )
    return found[0]


def _configs(cls: type) -> dict[str, StepConfig]:
    """Return the steps of the class. Raises WorkflowValidationError with every step whose signature cannot work."""
    problems = Problems(f"workflow {cls.__qualname__}")
    steps: dict[str, StepConfig] = {}
    for name, (declaration, function) in _declared(cls).items():
        config = problems.check(declaration.config)
        if config is not None:
            steps[name] = renamed(config, name, function)
    # Without all of the steps, what the others lack says little.
    problems.raise_any()
    return steps


def _require_sound(cls: type, steps: Collection[StepConfig]) -> None:
    """Raise WorkflowConfigurationError for what no run could do without, with all that is wrong with the class."""
    accepted = dict.fromkeys(event for step in steps for event in step.accepted)
    emitted = dict.fromkeys(event for step in steps for event in step.emitted)
    # What collects a list does not start a run.
    starting = dict.fromkeys(event for step in steps if not step.collect for event in step.accepted)
    problems = Problems(f"workflow {cls.__qualname__}")
    start = problems.check(_the_only, cls, starting, StartEvent, "accepts")
    stop = problems.check(_the_only, cls, emitted, StopEvent, "returns")
    problems.check(_require_distinct_names, cls, tuple(accepted | emitted))
    problems.check(_most_derived, cls, steps)
    if problems:
        # The graph is checked before a run; here it is told along. Where a run begins or ends is told already.
        names, handlers = [step.name for step in steps], _handlers(steps)
        nodes = _nodes(steps, handlers_by_step(names, handlers))
        skip = set()
        if start is None:
            # Of several any may be the right one; of none, nothing can be said of what is reached.
            starts = {event for event in accepted if issubclass(event, StartEvent)}
            as_one = {event: StartEvent if event in starts else event for event in accepted}
            nodes = [n._replace(accepted=tuple(dict.fromkeys(as_one[e] for e in n.accepted))) for n in nodes]
            if not starts:
                skip.add("reachability")
        if stop is None:
            skip.add("dead_end")
        problems.add(find_problems(nodes, start or StartEvent, skip))
        problems.add(find_recovery_problems(names, handlers))
        problems.raise_any()


def _handlers(steps: Iterable[StepConfig]) -> dict[str, Recovery]:
    return {step.name: step.recovery for step in steps if step.recovery is not None}


def _most_derived(cls: type, steps: Iterable[StepConfig]) -> type[BaseModel] | None:
    classes = list(dict.fromkeys(step.state_class for step in steps if step.state_class is not None))
    if not classes:
        return None
    for candidate in classes:
        if all(issubclass(candidate, other) for other in classes):
            return candidate
    names = ", ".join(state.__qualname__ for state in classes)
    raise WorkflowConfigurationError(
        f"workflow {cls.__qualname__} has steps with unrelated state classes: {names}. A run has one state: use one "
        "class, or derive one of them from all others."
    )


def _shape(steps: Iterable[StepConfig], state_class: type[BaseModel] | None) -> str:
    shapes = {
        step.name: StepShape(map(event_name, step.accepted), map(event_name, step.emitted), _fan_in(step))
        for step in steps
    }
    return shape_text(shapes, None if state_class is None else (state_class.__qualname__, state_class.model_fields))


def _fan_in(step: StepConfig) -> list[Any]:
    if step.collect:
        return ["list", step.collect.n if isinstance(step.collect, Take) else 0]
    return [[event_name(cls) for _, cls in step.slots]] if step.slots else []


def caller_of(step: StepConfig) -> Caller:
    """Return the call of a step with nothing left to find out; the usual signatures get a call of their own."""
    if step.collect:
        return _list_caller(_event_caller(step))
    return _event_caller(step)


def _list_caller(call: Caller) -> Caller:
    return lambda instance, events, context: call(instance, list(events), context)


def _event_caller(step: StepConfig) -> Caller:
    function = step.function
    positional, keyword, defaults = _plan(step)
    if not keyword and not step.slots:
        match positional:
            case (0, 1):
                return lambda instance, event, context: function(instance, event)
            case (0, 2, 1):
                return lambda instance, event, context: function(instance, context, event)
            case (0, 1, 2):
                return lambda instance, event, context: function(instance, event, context)
            case (1,):
                return lambda instance, event, context: function(event)
            case (2, 1):
                return lambda instance, event, context: function(context, event)

    def call(instance: Any, event: Any, context: Any) -> Any:
        values = (instance, event, context, *defaults)
        return function(*[values[i] for i in positional], **{name: values[i] for name, i in keyword.items()})

    def call_with_each(instance: Any, events: Any, context: Any) -> Any:
        values = (instance, None, context, *defaults, *events)
        return function(*[values[i] for i in positional], **{name: values[i] for name, i in keyword.items()})

    return call_with_each if step.slots else call


def _plan(step: StepConfig) -> tuple[tuple[int, ...], dict[str, int], list[Any]]:
    """Return what goes where, as indexes into (instance, event, context, *defaults): positional and by keyword.

    Parameters with defaults are passed only where a positional one that we fill comes after them. One each of several
    events come behind the defaults, in the order of the parameters' names: indexes from the end.
    """
    roles = {step.event_parameter: 1} if not step.slots else {}
    for at, name in enumerate(sorted(name for name, _ in step.slots)):
        roles[name] = at - len(step.slots)
    if step.context_parameter is not None:
        roles[step.context_parameter] = 2
    parameters = list(signature(step.function).parameters.values())
    positional: list[int] = []
    if step.is_method:
        positional.append(0)
        parameters = parameters[1:]
    by_position = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    while by_position and by_position[-1].name not in roles:
        by_position.pop()
    defaults: list[Any] = []
    for parameter in by_position:
        if parameter.name in roles:
            positional.append(roles[parameter.name])
        else:
            positional.append(3 + len(defaults))
            defaults.append(parameter.default)
    keyword = {p.name: roles[p.name] for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.name in roles}
    return tuple(positional), keyword, defaults
