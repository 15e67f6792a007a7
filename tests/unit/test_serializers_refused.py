"""The JSON serializer: what is refused, with the path to it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter, OrderedDict, defaultdict, namedtuple
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field, PrivateAttr
from serializer_samples import (
    Batch,
    Outer,
    Pair,
    Person,
    Point,
    Renamed,
    SampleWork,
    WithPrivate,
    refused,
    same,
)

from durable_flow.errors import DeserializationError, SerializationError
from durable_flow.events import Event, UnknownEvent
from durable_flow.serializers import JsonSerializer

json = JsonSerializer()

T = TypeVar("T")


def test_a_class_with_an_excluded_field_that_has_no_default_is_refused():
    class Bad(Event):
        secret: str = Field(exclude=True)

    refused(Bad(secret="x"), "Bad", "Bad.secret has exclude=True and no default")
    refused({"a": [Bad(secret="x")]}, "value['a'][0]")


class Sub(str):
    pass


class SubList(list[int]):
    pass


class SubInt(int):
    pass


class SubBytes(bytes):
    pass


class Wrong(Exception):
    pass


@dataclasses.dataclass
class DataError(Exception):
    code: int


class OtherZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1)


Local = namedtuple("NotThisName", "a")


class NoNamedTuple(tuple[int, ...]):
    _fields = ("a",)


def no_field(value: Any) -> Any:
    value.__dict__["other"] = 1
    return value


def no_value(value: Any) -> Any:
    del value.__dict__[next(iter(value.__dict__))]
    return value


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (object(), "value", "values of class builtins:object cannot be stored"),
        ({"a": [1, 2, object()]}, "value['a'][2]", "register_adapter"),
        (Batch(parts=[0, 1, 2, {"when": Sub("x")}]), "Batch.parts[3]['when']", "subclass of str"),
        (Outer(original_event=Batch(when=Wrong())), "Outer.original_event.when", "Wrong"),
        (SampleWork(n=1, extra=len), "SampleWork.extra", ""),
        (Point(1, object()), "value.y", ""),  # type: ignore[arg-type]
        ({1: {"x": object()}}, "value[1]['x']", ""),
        ({Sub("k"): 1}, "value.key('k')", "subclass of str"),
        ({(1, SubInt(3)): 1}, "value.key((1, 3))[1]", "subclass of int"),
        (Pair(1, Sub("x")), "value.right", ""),
        ({SubInt(3)}, "value.member(3)", "subclass of int"),
        (SubList(), "value", "subclass of list"),
        (SubBytes(), "value", "subclass of bytes"),
        (defaultdict(int), "value", "subclass of dict"),
        (Counter("aa"), "value", "subclass of dict"),
        (memoryview(b"x"), "value", ""),
        (len, "value", ""),
        (SampleWork, "value", ""),
        (UTC, "value", ""),
        (DataError(1), "value", "derives from the builtin"),
        (Local(1), "value", "define the class at module level"),
        (NoNamedTuple([1]), "value", "subclass of tuple"),
        (datetime(2024, 1, 1, tzinfo=OtherZone()), "value", "tzinfo is a OtherZone"),
        (datetime(2024, 1, 1, tzinfo=ZoneInfo.no_cache("Europe/Berlin")), "value", "ZoneInfo"),
        (no_field(Person(name="x")), "value", "attribute 'other' is no field of Person"),
        (no_field(Point(1)), "value", "attribute 'other' is no field of Point"),
        (no_field(SampleWork(n=1)), "SampleWork", "attribute 'other' is no field of SampleWork"),
        (no_field(OrderedDict()), "value", "attributes"),
        (no_value(Person(name="x")), "value", "field name has no value"),
        (no_value(SampleWork(n=1)), "SampleWork", "field n has no value"),
        ("\ud800", "value", "not valid Unicode"),
        (["a", "\ud800"], "value[1]", "not valid Unicode"),
        ({"a": {"\ud800": 1}}, "value['a']['\\ud800']", "not valid Unicode"),
        ({"\ud800": 1}, "value['\\ud800']", "not valid Unicode"),
        (SampleWork(n=1, s="\ud800"), "SampleWork.s", "not valid Unicode"),
        ({"\ud800"}, "value.member('\\ud800')", "not valid Unicode"),
        (pathlib.PurePosixPath("\udcff"), "value", "not valid Unicode"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_a_value_that_would_not_come_back_is_refused_with_its_path(value: Any, path: str, reason: str):
    refused(value, path, reason)
    refused([value], f"value[0]{path.removeprefix('value').removeprefix(type(value).__name__)}", reason)


def test_a_refusal_can_be_printed_whatever_names_are_in_its_path():
    for value in (SampleWork.model_construct(n=1, **{"\ud800": 1}), Person.model_construct(name={"x": {"\ud800": 1}})):
        with pytest.raises(SerializationError) as caught:
            json.serialize(value)
        assert "\\ud800" in str(caught.value).encode().decode()
        assert "\\ud800" in caught.value.path.encode().decode()


def test_private_attributes_that_differ_from_their_default_are_refused():
    for name, value in (("_cache", {"a": 1}), ("_unset", 1)):
        model = WithPrivate()
        setattr(model, name, value)
        refused(model, "value", f"private attribute {name} differs")


class Undecided:
    def __eq__(self, other: object) -> bool:
        raise ValueError("neither equal nor unequal")

    __hash__ = None  # type: ignore[assignment]


class WithUndecided(BaseModel):
    _value: Undecided = PrivateAttr(default_factory=Undecided)


def test_a_private_attribute_that_cannot_be_compared_is_refused():
    refused(WithUndecided(), "value", "private attribute _value differs")


class Hidden:
    __slots__ = ("__secret",)

    def hide(self) -> Any:
        self.__secret = 1
        return self


@dataclasses.dataclass
class HidingPoint(Hidden):
    __slots__ = ("x",)
    x: int


class HidingModel(BaseModel):
    __slots__ = ("_secret",)
    a: int = 1


class HidingEvent(Event):
    __slots__ = ("_secret",)
    a: int = 1


@dataclasses.dataclass
class Boxed(Generic[T]):
    item: T


def test_an_object_that_knows_its_type_argument_is_refused_with_the_way_to_make_it():
    assert JsonSerializer().deserialize(json.serialize(Boxed(3))) == Boxed(3)
    refused([Boxed[int](3)], "value[0]", "Boxed[int](...)")
    refused([Boxed[int](3)], "value[0]", "make it as Boxed(...)")


def test_slots_that_are_no_fields_are_refused_if_they_hold_something():
    assert JsonSerializer().deserialize(json.serialize(HidingPoint(1))) == HidingPoint(1)
    refused(HidingPoint(1).hide(), "value", "attribute '_Hidden__secret' is no field of HidingPoint")
    for cls, root in ((HidingModel, "value"), (HidingEvent, "HidingEvent")):
        value = cls(a=1)
        assert json.deserialize(json.serialize(value)) == value
        object.__setattr__(value, "_secret", 1)
        refused(value, root, "attribute '_secret' is no field of")


def test_extra_data_under_the_name_of_a_field_is_refused():
    for event in (SampleWork(n=1), Renamed()):
        json.serialize(event)
        event._extra["n"] = 2
        refused(event, type(event).__name__, "extra data under the name of its field 'n'")


@pytest.mark.parametrize(
    "make", [lambda x: [x], lambda x: {"a": x}, lambda x: (x,), lambda x: {1: x}, Point, lambda x: Batch(when=x)]
)
def test_any_depth_comes_back_or_is_refused(make: Any):
    refusals: list[str] = []
    for depth in (*range(80, 200), 1_000, 10_000):
        value: Any = 1
        for _ in range(depth):
            value = make(value)
        try:
            data = json.serialize(value)
        except SerializationError as error:
            refusals.append(str(error))
            continue
        assert not refusals
        # Compared as text: comparing deep values recurses too.
        assert json.serialize(json.deserialize(data)) == data
    assert all("nested too deep" in message and len(message) < 1000 for message in refusals)
    assert 2 <= len(refusals) <= 108  # at least 94 levels come back


def test_the_deepest_scalars_can_be_read():
    value: Any = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET"))
    for _ in range(187):
        value = [value]
    json.deserialize(json.serialize(value))
    unknown = UnknownEvent(name="Gone", raw={"a": value})
    refused(unknown, "UnknownEvent.raw['a']" + "[0]" * 10 + "...", "nested too deep")


def test_a_value_that_contains_itself_is_refused():
    items: list[Any] = []
    items.append(items)
    refused(items, "value" + "[0]" * 12 + "...", "contains itself")
    event = Batch()
    event.parts.append(event)
    refused(event, "Batch" + ".parts[0]" * 6 + "...", "contains itself")


def test_a_full_call_stack_is_no_crash():
    def deeper() -> None:
        try:
            deeper()
        except RecursionError:
            pass
        else:
            return
        for value in ({"a": [{1: (2, [Person(name="x")])}]}, Batch(when={"a": [{1: (2,)}]})):
            try:
                data = json.serialize(value)
                assert same(json.deserialize(data), value)
                return
            except (SerializationError, DeserializationError):
                pass

    deeper()
