"""What a step's parameters say about fan-ins: a list of events, or one each of several."""

from __future__ import annotations

import types
from collections.abc import Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Union, get_args, get_origin

from .collect import All, Cardinality, Collect, Take
from .events import Event

if TYPE_CHECKING:
    from .errors import WorkflowValidationError


class Reader(Protocol):
    """What reading a signature offers: annotations with their names resolved, and errors that name the step."""

    def resolve(self, annotation: Any, place: str) -> Any:
        """Return an annotation without strings in it."""

    def problem(self, text: str) -> WorkflowValidationError:
        """Return the error that says this about the step."""


def read_list(reader: Reader, parameter: Parameter) -> tuple[tuple[type[Event], ...], Cardinality] | None:
    """Return the classes and the cardinality of a `list[E]` parameter; None if it is none.

    Raises WorkflowValidationError for one that cannot work: several lists in a union, a list beside an event, a Collect
    that says nothing, or that stands on something else.
    """
    annotation = reader.resolve(parameter.annotation, f"parameter {parameter.name!r}")
    marks: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        marks += metadata
    marks = [mark for mark in marks if _is_mark(mark)]
    members = [member for member in members_of(annotation) if member is not None]
    classes = [members_of(get_args(member)[0]) for member in members if get_origin(member) is list]
    events = tuple(dict.fromkeys(cls for members in classes for cls in members if is_event(cls)))
    if not events:
        if marks:
            raise reader.problem(
                f"has a Collect on parameter {parameter.name!r}, which is no list of events. Collect says when a list "
                "is complete: annotate it as Annotated[list[MyEvent], Collect(...)], or leave Collect out."
            )
        return None
    if len(members) > 1 or any(not is_event(cls) for cls in classes[0]):
        raise reader.problem(
            f"mixes a list of events with something else in parameter {parameter.name!r}. A step takes one list; for "
            "several classes write list[A | B]."
        )
    return events, _cardinality(reader, parameter, marks)


def read_slots(
    reader: Reader, events: Mapping[str, tuple[type[Event], ...]], lists: Mapping[str, Cardinality]
) -> tuple[tuple[str, type[Event]], ...]:
    """Return the parameters of a step that takes one each of several events, with their classes.

    Raises WorkflowValidationError if one of them is a list or a union.
    """
    if len(lists) > 1:
        raise reader.problem(
            f"has several list parameters ({', '.join(lists)}). It would not be known which list an event belongs to "
            "or when each is complete: take one list[A | B], or collect each list in a step of its own and take their "
            "results together."
        )
    if lists:
        others = ", ".join(name for name in events if name not in lists)
        raise reader.problem(
            f"has a list parameter ({', '.join(lists)}) beside single events ({others}). A list is complete when its "
            "fan-out is, and single events come one by one: collect the list in a step of its own, and take its result "
            "together with the others."
        )
    for name, classes in events.items():
        if len(classes) > 1:
            raise reader.problem(
                f"takes several events ({', '.join(events)}), and a union in parameter {name!r}: it would not be known "
                "when they are complete. Give each parameter one event class, or take one union."
            )
    return tuple((name, classes[0]) for name, classes in events.items())


def _cardinality(reader: Reader, parameter: Parameter, marks: list[Any]) -> Cardinality:
    if not marks:
        return All()
    mark = marks[0]
    cardinality = mark.cardinality if isinstance(mark, Collect) else mark
    if len(marks) > 1 or not isinstance(mark, Collect) or not isinstance(cardinality, All | Take):
        raise reader.problem(
            f"says {', '.join(map(repr, marks))} about parameter {parameter.name!r}. It can be Collect(All()), which "
            "is what a list alone means, or Collect(Take(n)): Annotated[list[MyEvent], Collect(Take(3))]."
        )
    return cardinality


def _is_mark(mark: Any) -> bool:
    """Tell whether it is, or was meant to be, a Collect."""
    return isinstance(mark, Collect | Cardinality) or (
        isinstance(mark, type) and issubclass(mark, Collect | Cardinality)
    )


def members_of(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone; None stands for NoneType."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in members_of(member)]
    return [None if annotation is types.NoneType else annotation]


def is_event(annotation: Any) -> bool:
    """Tell whether an annotation is an event class."""
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, Event)
