"""The JSON serializer: what comes back equal and of the same type."""

from __future__ import annotations

import math
import pathlib
import uuid
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, ConfigDict, Field
from serializer_samples import (
    Batch,
    Bits,
    Cached,
    Colour,
    Computed,
    Employee,
    Guarded,
    Level,
    Numbers,
    Open,
    Outer,
    Outside,
    Pair,
    Permission,
    Person,
    Plain,
    Point,
    Renamed,
    SampleWork,
    Slotted,
    WithPrivate,
    Word,
    same,
)

from durable_flow.events import Event, InputRequiredEvent, StartEvent, StopEvent, UnknownEvent
from durable_flow.serializers import JsonSerializer

json = JsonSerializer()


BERLIN = ZoneInfo("Europe/Berlin")
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**53 + 1,
    2**63,
    -(2**64),
    10**4092,
    10**4094,
    10**4095,
    10**5000,
    -(10**20000),
    0.1,
    -0.0,
    1e308,
    5e-324,
    1e16,
    math.nan,
    math.inf,
    -math.inf,
    "",
    '\x00\u2028\U0001f600"\\',
    "9" * 10_000,
    "$5",
    [],
    [1, "a", None],
    [[]],
    {},
    {"": 1},
    {"$": 1},
    {"$tuple": [1]},
    {"$$tuple": [1]},
    {"a": 1, "$event": "SampleWork"},
    {"$event": "SampleWork", "n": 1},
    {"a\n$b": 1},
    {"a": [{"$set": 1}]},
    (),
    (1,),
    (1, (2, [3])),
    ((),),
    {1, 2},
    {"b", "a"},
    set(),
    frozenset({(1, 2), "x"}),
    {1: "a", "1": "b"},
    {None: 1, (1, 2): 2, 1.5: 3, True: 4, Level.LOW.name: 5},
    {frozenset({1}): {1: {2: 3}}},
    OrderedDict(b=1, a=2),
    OrderedDict({1: 2}),
    OrderedDict(),
    b"",
    bytes(range(256)),
    bytearray(b"x"),
    1 + 2j,
    complex(-0.0, math.nan),
    range(3),
    range(5, 0, -2),
    uuid.UUID(int=5),
    Decimal("1.10"),
    Decimal("-0E-10"),
    Decimal("sNaN123"),
    Decimal("Infinity"),
    Decimal("1E+999999"),
    date(1, 1, 1),
    datetime(2024, 1, 2),
    datetime(2024, 1, 2, 3, 4, 5, 6, fold=1),
    datetime(2024, 1, 2, tzinfo=UTC),
    datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    datetime(2024, 1, 2, fold=1, tzinfo=timezone(timedelta(seconds=1, microseconds=5))),
    datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=1), "CET")),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    time(1, 2, 3, 4),
    time(1, fold=1),
    time(1, tzinfo=UTC),
    time(1, tzinfo=BERLIN),
    time(1, tzinfo=timezone(timedelta(0), "Z")),
    timedelta(-1, 2, 3),
    timedelta.max,
    pathlib.Path("/a/../b"),
    pathlib.PurePosixPath(""),
    pathlib.PurePosixPath("//a"),
    pathlib.PureWindowsPath("c:/x"),
    Colour.RED,
    Colour.CRIMSON,
    Level.LOW,
    Word.YES,
    Permission.READ,
    Permission.READ | Permission.WRITE,
    Permission(0),
    Bits.A | Bits.B,
    Bits(8),
    range(10**5000),
    Pair(1),
    Point(1),
    Slotted(1, (2,)),
    Computed(3),
    Person(name="x"),
    Employee(name="x", salary=Decimal(1)),
    Open(b=(1,)),
    WithPrivate(),
    Numbers([1, 2]),
    Outside.Inside(a=1),
    SampleWork(n=1),
    SampleWork(n=1, more=(1,)),
    SampleWork(n=1, **{"$unset": 1, "$event": "x"}),
    Event(),
    Event(n=1),
    StartEvent(query="$"),
    StopEvent(),
    StopEvent(result={1, 2}),
    Renamed(n=2),
    Batch(),
    Batch(parts=[1, {"a": 1}], when=Colour.RED),
    Outer(original_event=SampleWork(n=1)),
    Outer(original_event=Outer(original_event=Event(a=[Person(name="p")]))),
    InputRequiredEvent(prefix="?"),
    [SampleWork(n=1), Person(name="x"), Point(1)],
    {"k": {"k": (Slotted(1), {Slotted(2)})}},
    UnknownEvent(name="Gone", raw={"a": 1}),
    UnknownEvent(name="Gone", raw={"a": {"$tuple": 5}, "$unset": ["a"]}),
    UnknownEvent(name="Gone", raw={"n": 10**5000}),
    UnknownEvent(name="Gone", raw={1: (2,)}),
    UnknownEvent(name="SampleWork", raw={"n": 1}),
    UnknownEvent(name="Gone"),
    UnknownEvent(name="Gone", raw={"$event": 1}),
    UnknownEvent(name="Gone", raw={"a": 1}, more=1),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_equal_and_of_the_same_type(value: Any):
    data = json.serialize(value)
    again = json.deserialize(data)
    assert same(again, value)
    assert json.serialize(again) == data
    # The same within other values, and after the short way for known event classes has opened.
    for holder in ([value], (value,), {"k": value}, {1: value}, Batch(when=value), Batch(when=[value], more=value)):
        data = json.serialize(holder)
        assert same(json.deserialize(data), holder)
        assert json.serialize(json.deserialize(data)) == data
        assert json.serialize(holder) == data


def test_plain_data_are_plain_json():
    assert json.serialize({"a": [1, 2.5, None, True, "x"]}) == b'{"a":[1,2.5,null,true,"x"]}'
    assert json.serialize(SampleWork(n=1, note="x")) == b'{"$event":"SampleWork","n":1,"note":"x"}'
    assert json.serialize(Renamed(n=1)) == b'{"$event":"work.renamed","n":1}'


def test_equal_sets_have_one_encoding():
    # 0 and 8 fall into one place of the hash table, so the order in which they came decides how they are iterated.
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)
    assert json.serialize(one) == json.serialize(other)


def test_an_event_is_exact_when_its_fields_were_given_other_types():
    event = SampleWork(n=1)
    event.n = ("not", "an int")  # type: ignore[assignment]
    assert same(json.deserialize(json.serialize(event)), event)


def test_which_fields_were_set_is_kept():
    event = Batch(when=1, x=1)
    event["later"] = 2
    again = json.deserialize(json.serialize(event))
    assert again.model_fields_set == {"when", "x"}
    assert again.parts == []


def test_decoding_runs_no_validator_and_no_init():
    class Strict(BaseModel):
        a: int

        def __init__(self, **data: Any):
            super().__init__(**data)
            calls.append("init")

        def model_post_init(self, context: Any) -> None:
            calls.append("post_init")

    calls: list[str] = []
    serializer = JsonSerializer([Strict])
    data = serializer.serialize(Strict(a=1))
    calls.clear()
    assert serializer.deserialize(data).a == 1
    assert calls == []


class Counted(BaseModel):
    """Says of which type its extra data are, in the way that pydantic's documentation has it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int] = Field(init=False)
    a: int = 1


def test_extra_data_of_a_type_come_back():
    for value in (Counted(), Counted(a=2, b=3), Counted(**{"$v": 3})):
        again = json.deserialize(json.serialize([value]))[0]
        assert again == value
        assert again.__pydantic_extra__ == value.__pydantic_extra__
        assert again.model_fields_set == value.model_fields_set


def test_an_excluded_field_is_not_kept_and_gets_its_default():
    again = json.deserialize(json.serialize(Guarded(shown=1, hidden=99)))
    assert again == Guarded(shown=1)
    assert b"hidden" not in json.serialize(Guarded(shown=1, hidden=99))


def test_the_wait_id_of_a_question_is_kept_elsewhere():
    question = InputRequiredEvent(prefix="?")
    question._wait_id = "w1"
    assert json.deserialize(json.serialize(question)).wait_id is None


def test_a_cached_property_is_left_out_and_computed_again():
    value = Cached(a=2)
    assert value.double == 4
    again = json.deserialize(json.serialize(value))
    assert "double" not in again.__dict__
    assert again.double == 4


def test_a_durable_plain_dict_is_stored_as_a_dict():
    assert same(json.deserialize(json.serialize(Plain(a=Plain(b=1)))), {"a": {"b": 1}})
