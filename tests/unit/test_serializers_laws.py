"""The JSON serializer: laws over random values."""

from __future__ import annotations

import contextlib
import pathlib
from collections import OrderedDict
from datetime import timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from serializer_samples import Batch, Colour, Level, Pair, Permission, Person, Point, SampleWork, Slotted, same

from durable_flow.errors import DeserializationError
from durable_flow.events import Event
from durable_flow.serializers import JsonSerializer

json = JsonSerializer()

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["$", "$$", "$event", "$type", "$unset", "$tuple", "\n$", "n", "when"]
)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
zones = st.none() | st.timezones() | offsets | st.builds(timezone, st.just(timedelta(hours=1)), text)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(4085, 4110).map(lambda digits: 10**digits)
    | st.floats()
    | st.complex_numbers()
    | text
    | st.binary(max_size=8)
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.uuids()
    | st.decimals().filter(lambda value: not value.is_snan())  # has no hash
    | text.map(pathlib.PurePosixPath)
    | text.map(pathlib.PureWindowsPath)
    | st.sampled_from([*Colour, *Level, Permission(0), Permission(3), range(3)])
)
hashable = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(Slotted, inner, st.lists(inner, max_size=2).map(tuple))
    ),
    max_leaves=4,
)


def event_with(cls: type[Event], extra: dict[str, Any], **fields: Any) -> Event:
    event = cls(**fields)
    for name, value in extra.items():
        if name not in cls.model_fields:
            event._extra[name] = value
    return event


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(text, inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3).map(OrderedDict)
        | st.sets(hashable, max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(lambda tags: Person.model_construct(name="x", tags=tags), inner)
        | st.builds(
            lambda extra, n: event_with(SampleWork, extra, n=n), st.dictionaries(text, inner, max_size=3), st.integers()
        )
        | st.builds(lambda extra: event_with(Event, extra), st.dictionaries(text, inner, max_size=3))
        | st.builds(lambda when: Batch(when=when), inner)
        | st.builds(lambda parts: Batch(parts=parts), st.lists(inner, max_size=3))
    )


values = st.recursive(scalars | hashable | st.binary(max_size=8).map(bytearray), containers, max_leaves=12)


@given(values)
def test_what_is_stored_comes_back_and_is_stored_the_same(value: Any):
    data = json.serialize(value)
    again = json.deserialize(data)
    assert same(again, value)
    assert json.serialize(again) == data


@given(values, st.lists(st.tuples(st.integers(0), st.sampled_from([*b'{}[]",:$01an', None])), min_size=1, max_size=4))
def test_damaged_data_are_read_as_something_or_are_an_error_of_data(value: Any, damages: list[tuple[int, int | None]]):
    data = bytearray(json.serialize(value))
    for place, byte in damages:
        at = place % (len(data) or 1)
        data[at : at + 1] = b"" if byte is None else bytes([byte])
    with contextlib.suppress(DeserializationError):
        json.deserialize(bytes(data))


@given(st.lists(values, max_size=4))
def test_a_serializer_that_has_seen_no_class_before_writes_and_reads_the_same(batch: list[Any]):
    for value in batch:
        data = JsonSerializer().serialize(value)
        assert data == json.serialize(value)
        assert same(JsonSerializer().deserialize(data), value)


@given(st.floats())
def test_floats_are_exact(value: float):
    assert same(json.deserialize(json.serialize(value)), value)
