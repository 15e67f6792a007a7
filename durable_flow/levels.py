"""Where a workflow's fan-outs lead, from annotations alone: which joins collect the list that a step returns.

A *level* is what happens within one fan-out: that of a step's returned list, or the run itself outside of any. An
element of a list is on the list's level, and so is what the steps return that handle it one by one. What a collecting
step returns is on the level around the list that it collects. A step that returns lists on several levels has one
level of its own for all of them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from .events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

RUN = ""
"""The level of the run itself; every other one has the name of the step that returns the list."""


class StepNode(NamedTuple):
    """A step as the checks see it.

    Attributes:
        name: the step's.
        accepted: the event classes it takes, in whichever way.
        emitted: the event classes it declares to return, in whichever way.
        listed: those that it declares as elements of a list.
        single: those that it declares outside of a list; None: all that are not listed.
        collects: whether it takes the accepted events as a list.
        slots: the parameters, each with its class, of a step that takes one each of several events.
        subclasses: whether it takes subclasses of the accepted events as well.
        skip: the checks that leave this step out.
        covers: the steps whose failures it takes; None for a step that is no `@catch_error` handler.
        astray: whether the handler covers none because of a problem that is told by itself, as of its `for_steps`.
    """

    name: str
    accepted: tuple[type[Event], ...]
    emitted: tuple[type[Event], ...]
    listed: tuple[type[Event], ...] = ()
    single: tuple[type[Event], ...] | None = None
    collects: bool = False
    slots: tuple[tuple[str, type[Event]], ...] = ()
    subclasses: bool = False
    skip: Collection[str] = frozenset()
    covers: tuple[str, ...] | None = None
    astray: bool = False

    def takes(self, event: type[Event]) -> bool:
        """Tell whether the step takes events of exactly this class. No StopEvent counts as a subclass of its base."""
        return event in self.accepted or (self.subclasses and _is_subclass(event, self.accepted))

    def returned_alone(self) -> tuple[type[Event], ...]:
        """Return the events that it declares to return outside of a list."""
        return tuple(e for e in self.emitted if e not in self.listed) if self.single is None else self.single


class Levels(NamedTuple):
    """What happens on which level: the event classes that come into being there, and the steps that run there.

    `collected` are the steps whose lists are collected again, each with the steps that take them as a list (none if
    only steps with several event parameters do).
    """

    events: Mapping[str, frozenset[type[Event]]]
    steps: Mapping[str, frozenset[str]]
    collected: Mapping[str, tuple[str, ...]]

    def of_event(self, step: StepNode, event: type[Event]) -> list[str]:
        """Return the levels on which something comes into being that fits a parameter of this class."""
        return [level for level, events in self.events.items() if any(_fits(step, event, e) for e in events)]


def find_levels(steps: Sequence[StepNode], start_event_class: type[StartEvent]) -> Levels:
    """Return what happens where. Only annotations count."""
    accepted = [(step, event) for step in steps if step.covers is None for event in step.accepted]
    answers = {event for _, event in accepted if issubclass(event, HumanResponseEvent)}
    # What no step returns comes from outside, if at all.
    returned = {event for step in steps for event in step.emitted}
    outside = {event for step, event in accepted if not any(_fits(step, event, r) for r in returned)}
    events: dict[str, set[type[Event]]] = {RUN: {start_event_class, *answers, *outside}}
    running: dict[str, set[str]] = {RUN: set()}
    size = -1
    while size != (size := sum(map(len, events.values())) + sum(map(len, running.values()))):
        for level in list(events):
            for step in steps:
                if not _runs(step, level, events, running):
                    continue
                running[level].add(step.name)
                events[level].update(step.returned_alone())
                if step.listed:
                    running.setdefault(step.name, set())
                    events.setdefault(step.name, set()).update(step.listed)
            if any(issubclass(event, InputRequiredEvent) for event in events[level]):
                events[level] |= answers
    slotted = {step.name for step in steps if step.slots}
    collected = {}
    for level in events:
        joins = tuple(s.name for s in steps if s.collects and level != RUN and any(map(s.takes, events[level])))
        if level != RUN and (joins or running[level] & slotted):
            collected[level] = joins
    return Levels(
        {level: frozenset(found) for level, found in events.items()},
        {level: frozenset(found) for level, found in running.items()},
        collected,
    )


def find_join_problems(steps: Sequence[StepNode], levels: Levels, explained: Collection[type[Event]]) -> list[str]:
    """Return what is wrong with the steps that collect: one sentence each, with its remedy.

    Nothing is said of a step whose events are `explained` already.
    """
    problems = []
    reached = set().union(*levels.steps.values())
    for step in steps:
        if not set(step.accepted).isdisjoint(explained):
            continue
        if step.collects and not any(step.name in joins for joins in levels.collected.values()):
            names = " | ".join(event.__name__ for event in step.accepted)
            problems.append(
                f"step {step.name!r} collects list[{names}], but no step that is reached returns a list whose elements "
                "lead there. Annotate the step that begins the fan-out with `-> list[...]` and let it return one; what "
                "is sent with ctx.send_event is gathered by ctx.collect_events."
            )
        if step.slots and step.name not in reached:
            places = {name: levels.of_event(step, event) for name, event in step.slots}
            if not all(places.values()):
                continue  # the step that returns the event is unreachable, and told as such
            found = "; ".join(f"{name} ({event.__name__}) {_and(places[name])}" for name, event in step.slots)
            problems.append(
                f"step {step.name!r} takes one each of several events that never meet within one fan-out: {found}. "
                "Return them on the same level, or take one of them and wait for the other with ctx.wait_for_event."
            )
    return problems


def _runs(step: StepNode, level: str, events: Mapping[str, set[type[Event]]], running: Mapping[str, set[str]]) -> bool:
    if step.covers is not None:
        return not running[level].isdisjoint(step.covers)
    if step.collects:
        # On the levels around those that it collects from.
        return any(
            inner != RUN and inner in running[level] and any(map(step.takes, found)) for inner, found in events.items()
        )
    if step.slots:
        return all(any(_fits(step, cls, event) for event in events[level]) for _, cls in step.slots)
    return any(map(step.takes, events[level]))


def _fits(step: StepNode, wanted: type[Event], event: type[Event]) -> bool:
    return event is wanted or (step.subclasses and _is_subclass(event, (wanted,)))


def _is_subclass(event: type[Event], bases: tuple[type[Event], ...]) -> bool:
    return issubclass(event, bases) and not issubclass(event, StopEvent)


def _and(levels: Sequence[str]) -> str:
    return "comes " + " and ".join(
        "outside of every list" if at == RUN else f"from the list of {at!r}" for at in levels
    )
