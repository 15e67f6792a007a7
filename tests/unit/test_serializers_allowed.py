"""`JsonSerializer(allowed_types=...)`: a closed set of classes, for writing and for reading."""

from __future__ import annotations

import dataclasses
import datetime
import enum

import pytest
from pydantic import BaseModel
from serializer_samples import Outer, SampleWork

from durable_flow import Event, JsonSerializer, StartEvent, StopEvent, UnknownEvent, register_adapter
from durable_flow.errors import DeserializationError, SerializationError


@dataclasses.dataclass
class Point:
    x: int


class Model(BaseModel):
    inner: object = None


class Color(enum.Enum):
    RED = 1


class Handle:
    def __init__(self, n: int):
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.n == self.n

    __hash__ = None  # type: ignore[assignment]


register_adapter(Handle, lambda handle: handle.n, Handle)

VALUES = [Point(1), Model(), Color.RED, Handle(1)]
each_value = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@each_value
def test_a_class_of_the_set_comes_back(value):
    cls = type(value)
    names = [f"{cls.__module__}.{cls.__qualname__}"], [f"{cls.__module__}:{cls.__qualname__}"]
    for allowed in ([cls], (cls, Event), *names):
        closed = JsonSerializer(allowed_types=allowed)
        assert closed.deserialize(closed.serialize({"v": [value]})) == {"v": [value]}


@each_value
def test_another_class_is_neither_written_nor_read(value):
    closed = JsonSerializer(allowed_types=[SampleWork])
    with pytest.raises(SerializationError, match=r"value\['v'\]\[0\]: .* is not among the allowed_types"):
        closed.serialize({"v": [value]})
    with pytest.raises(DeserializationError, match="allowed_types"):
        closed.deserialize(JsonSerializer().serialize({"v": [value]}))


def test_what_is_in_an_object_of_the_set_is_looked_at_too():
    closed = JsonSerializer(allowed_types=[Model])
    with pytest.raises(SerializationError, match="Point is not among"):
        closed.serialize(Model(inner=Point(1)))
    with pytest.raises(DeserializationError, match="allowed_types"):
        closed.deserialize(JsonSerializer().serialize(Model(inner=Point(1))))


def test_events_of_other_classes_are_kept_and_not_built():
    closed = JsonSerializer(allowed_types=[Outer])
    event = closed.deserialize(JsonSerializer().serialize(SampleWork(n=1)))
    assert isinstance(event, UnknownEvent)
    assert event.name == "SampleWork"
    nested = closed.deserialize(JsonSerializer().serialize(Outer(original_event=SampleWork(n=1))))
    assert isinstance(nested.original_event, UnknownEvent)
    with pytest.raises(SerializationError, match="SampleWork is not among"):
        closed.serialize(SampleWork(n=1))


def test_plain_values_and_durable_flows_own_events_always_come_back():
    closed = JsonSerializer(allowed_types=[])
    events = [StartEvent(topic="x"), StopEvent(result=(1, {2})), Event()]
    for value in (*events, datetime.date(2026, 5, 1), b"\xff", {1: None}):
        assert closed.deserialize(closed.serialize(value)) == value


def test_classes_of_the_set_may_be_local():
    class Local(BaseModel):
        n: int

    closed = JsonSerializer(allowed_types=[Local])
    assert closed.deserialize(closed.serialize(Local(n=1))) == Local(n=1)


def test_without_a_set_everything_that_is_loaded_is_found():
    assert JsonSerializer().deserialize(JsonSerializer().serialize(VALUES)) == VALUES


def test_a_set_can_be_widened():
    class Local(BaseModel):
        n: int

    closed = JsonSerializer(allowed_types=[Point])
    wider = closed.with_types(Local, Color)
    assert wider.deserialize(wider.serialize([Point(1), Local(n=1), Color.RED])) == [Point(1), Local(n=1), Color.RED]
    with pytest.raises(SerializationError, match="Color is not among"):
        closed.serialize(Color.RED)
    with pytest.raises(SerializationError, match="Model is not among"):
        wider.serialize(Model())
    found = JsonSerializer().with_types(Local)
    assert found.deserialize(found.serialize([Local(n=1), Model()])) == [Local(n=1), Model()]
