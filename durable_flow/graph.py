"""Whether a workflow's events and steps fit together: pure data in, a list of problems out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from .events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StepFailedEvent, StopEvent
from .levels import StepNode as StepNode
from .levels import find_join_problems, find_levels

GRAPH_CHECKS = frozenset({"reachability", "terminal_event", "dead_end"})
"""The checks that `skip_graph_checks` may name."""

_Node = str | type[Event]


def find_problems(
    steps: Sequence[StepNode], start_event_class: type[StartEvent], skip: Collection[str] = ()
) -> list[str]:
    """Return everything that is wrong with the graph, one sentence and its remedy each; empty if it is sound.

    Only annotations count: an event that a step sends with `ctx.send_event` is known if some return annotation names
    it. `skip` leaves out the checks for unreachable steps ("reachability"), for events that are returned but taken by
    no step ("terminal_event") and for steps from which the run cannot end ("dead_end"). A problem is told once: a step
    whose event nobody returns is not called unreachable as well. A step's own `skip` leaves that step out.
    """
    # What a handler takes comes from the engine.
    accepted_by = _index((event, step.name) for step in steps if step.covers is None for event in step.accepted)
    emitted_by = _index((event, step.name) for step in steps for event in step.emitted)
    produced: dict[type[Event], None] = dict.fromkeys((start_event_class, *emitted_by))
    for step in steps:
        # Who accepts subclasses takes those that are produced, and so does not miss the base.
        for event in [e for e in produced if step.subclasses and e not in step.accepted and step.takes(e)]:
            accepted_by.setdefault(event, []).append(step.name)
            produced.update(dict.fromkeys(base for base in step.accepted if issubclass(event, base)))
    problems: list[str] = []
    explained: set[type[Event]] = set()

    for event, names in accepted_by.items():
        if issubclass(event, StopEvent):
            explained.add(event)
            problems.append(
                f"{_steps(names)} accepts {event.__name__}: a StopEvent ends the run and is delivered to no step. "
                "Accept another event, and return that one where the step is to run."
            )
        elif event not in produced and not _crosses_the_boundary(event):
            explained.add(event)
            problems.append(
                f"{_steps(names)} accepts {event.__name__}, an event that is consumed but never produced. "
                + (
                    "Decorate it with @catch_error instead of @step, and it takes the failures of other steps."
                    if event is StepFailedEvent
                    else "Return it from a step; if one sends it with ctx.send_event, name it in that step's return "
                    "annotation."
                )
            )

    skipping = {check: {step.name for step in steps if check in step.skip} for check in GRAPH_CHECKS}
    unused = [event for event in emitted_by if event not in accepted_by and not _may_leave(event)]
    if "terminal_event" not in skip:
        for event in unused:
            names = [name for name in emitted_by[event] if name not in skipping["terminal_event"]]
            if names:
                explained.add(event)
                problems.append(
                    f"{_steps(names)} returns {event.__name__}, an event that is produced but never consumed. "
                    "Add a step that accepts exactly this class, or return a StopEvent instead."
                )

    problems += find_join_problems(steps, find_levels(steps, start_event_class), explained)

    if "reachability" not in skip:
        sources: set[_Node] = {start_event_class}
        sources.update(e for e in accepted_by if e in explained or issubclass(e, HumanResponseEvent))
        # What is wrong with their for_steps, or with the steps that they cover, is told there.
        sources.update(step.name for step in steps if step.covers or step.astray)
        reached = _closure(sources, _edges(steps, accepted_by, emitted_by, forwards=True))
        problems += [
            _unreachable(step, start_event_class)
            for step in steps
            if step.name not in reached and step.name not in skipping["reachability"]
        ]

    if "dead_end" not in skip:
        ends = {e for e in emitted_by if e in explained or issubclass(e, StopEvent | InputRequiredEvent)}
        ending = _closure(ends, _edges(steps, accepted_by, emitted_by, forwards=False))
        problems += [
            f"step {step.name!r} is a dead end: no path leads from {_events(step.emitted)} to a StopEvent or an "
            "InputRequiredEvent. Return one of them from a step on the way."
            for step in steps
            if step.emitted and step.name not in ending and step.name not in skipping["dead_end"]
        ]
    return problems


def uses_humans(steps: Iterable[StepNode]) -> bool:
    """Tell whether a step asks a human (returns an InputRequiredEvent) or takes an answer (a HumanResponseEvent)."""
    return any(
        any(issubclass(event, InputRequiredEvent) for event in step.emitted)
        or any(issubclass(event, HumanResponseEvent) for event in step.accepted)
        for step in steps
    )


def _may_leave(event: type[Event]) -> bool:
    return issubclass(event, InputRequiredEvent | HumanResponseEvent | StopEvent)


def _crosses_the_boundary(event: type[Event]) -> bool:
    return issubclass(event, InputRequiredEvent | HumanResponseEvent)


def _index(pairs: Iterable[tuple[type[Event], str]]) -> dict[type[Event], list[str]]:
    found: dict[type[Event], list[str]] = {}
    for event, name in pairs:
        found.setdefault(event, []).append(name)
    return found


def _edges(
    steps: Sequence[StepNode],
    accepted_by: Mapping[type[Event], Sequence[str]],
    emitted_by: Mapping[type[Event], Sequence[str]],
    *,
    forwards: bool,
) -> dict[_Node, list[_Node]]:
    edges: dict[_Node, list[_Node]] = {}
    pairs: list[tuple[_Node, _Node]] = [(event, name) for event, names in accepted_by.items() for name in names]
    pairs += [(name, event) for event, names in emitted_by.items() for name in names]
    if forwards:
        # By a failure a run gets on, but a step is not made to fail: it leads to no end.
        pairs += [(covered, step.name) for step in steps for covered in step.covers or ()]
    for source, target in pairs:
        edges.setdefault(source if forwards else target, []).append(target if forwards else source)
    return edges


def _closure(seeds: Set[_Node], edges: Mapping[_Node, Sequence[_Node]]) -> set[_Node]:
    seen: set[_Node] = set()
    pending = list(seeds)
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending += edges.get(node, ())
    return seen


def _unreachable(step: StepNode, start_event_class: type[StartEvent]) -> str:
    if step.covers is not None:
        return (
            f"@catch_error handler {step.name!r} is unreachable: none of the steps whose failures it takes "
            f"({', '.join(step.covers) or 'none'}) is reached. Correct its for_steps, or remove it."
        )
    return (
        f"step {step.name!r} is unreachable: no path leads from {start_event_class.__name__} or a HumanResponseEvent "
        f"to {_events(step.accepted)}. Return {_events(step.accepted)} from a step that is reached, or remove the step."
    )


def _steps(names: Sequence[str]) -> str:
    quoted = ", ".join(repr(name) for name in names)
    return f"step {quoted}" if len(names) == 1 else f"each of the steps {quoted}"


def _events(classes: Sequence[type[Event]]) -> str:
    return " or ".join(cls.__name__ for cls in classes)
