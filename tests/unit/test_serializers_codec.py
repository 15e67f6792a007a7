"""The codec: which serializer reads what, limits, versions, copies."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from serializer_samples import Batch, Colour, Level, Outer, Point, Renamed, SampleWork

from durable_flow.errors import DeserializationError, PayloadTooLargeError, SerializationError
from durable_flow.events import Event, UnknownEvent
from durable_flow.records import EncodedEvent, EncodedValue
from durable_flow.serializers import Codec, JsonSerializer, PickleSerializer

codec = Codec(JsonSerializer())


class Versioned(Event):
    event_version: ClassVar[int] = 3
    n: int = 0


class Mirror:
    """Stores text backwards, and refuses everything else without saying where."""

    codec = "mirror"

    def serialize(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise SerializationError("text only")
        return value[::-1].encode()

    def deserialize(self, data: bytes) -> Any:
        return data.decode()[::-1]


def test_an_event_is_encoded_with_its_name_and_version():
    assert codec.encode_event(SampleWork(n=1)) == EncodedEvent(
        "SampleWork", "json", 1, b'{"$event":"SampleWork","n":1}'
    )
    assert codec.encode_event(Renamed(n=1))[:3] == ("work.renamed", "json", 1)
    encoded = codec.encode_event(Versioned())
    assert type(encoded) is EncodedEvent
    assert encoded.v == 3
    assert codec.decode_event(encoded) == Versioned()


def test_a_value_is_encoded_with_its_codec():
    encoded = codec.encode_value({"a": (1,)})
    assert type(encoded) is EncodedValue
    assert encoded.codec == "json"
    assert codec.decode_value(encoded) == {"a": (1,)}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [object()]}, "state['k']['a'][0]"),
        (object(), "state['k']"),
        (Batch(when=object()), "state['k'].when"),
        ({"a.b": {"[x]": object()}}, "state['k']['a.b']['[x]']"),
    ],
)
def test_an_error_names_the_value_as_the_caller_knows_it(value: Any, path: str):
    with pytest.raises(SerializationError) as caught:
        codec.encode_value(value, "state['k']")
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: values of class builtins:object cannot be stored")


def test_an_error_without_a_path_gets_the_callers():
    with pytest.raises(SerializationError, match=r"^state\['k'\]: text only$"):
        Codec(Mirror()).encode_value(1, "state['k']")


def test_data_are_read_by_the_serializer_that_wrote_them():
    old = Codec(PickleSerializer(key="k")).encode_event(SampleWork(n=1))
    both = Codec(Mirror(), readers=[PickleSerializer(key="k"), JsonSerializer()])
    assert both.decode_event(old) == SampleWork(n=1)
    assert both.decode_event(codec.encode_event(SampleWork(n=2))) == SampleWork(n=2)
    assert both.decode_value(both.encode_value("abc")) == "abc"
    assert both.encode_value("abc") == EncodedValue("mirror", b"cba")


class Careless(Mirror):
    """Keeps to nothing that the protocol asks for."""

    codec = "careless"

    def __init__(self, returned: Any):
        self.returned = returned

    def serialize(self, value: Any) -> bytes:
        if self.returned is None:
            raise KeyError("oops")
        return self.returned  # type: ignore[no-any-return]

    def deserialize(self, data: bytes) -> Any:
        raise KeyError("oops")


class CarelessWork(Event):
    event_serializer: ClassVar[Any] = Careless(None)


@pytest.mark.parametrize("returned", ["text", bytearray(b"x"), memoryview(b"x"), 1])
def test_a_serializer_of_others_returns_bytes(returned: Any):
    with pytest.raises(SerializationError, match=r"^state\.x: the serializer 'careless' returned .*returns bytes$"):
        Codec(Careless(returned)).encode_value(1, "state.x")


def test_an_error_of_a_serializer_of_others_is_told_as_one_of_data():
    with pytest.raises(SerializationError, match=r"^CarelessWork: the serializer 'careless' failed: KeyError: 'oops'"):
        Codec(JsonSerializer(), per_class=True).encode_event(CarelessWork())
    with pytest.raises(SerializationError, match=r"^SampleWork: the serializer 'careless' failed"):
        Codec(Careless(None)).encode_event(SampleWork(n=1))
    for careless in (Codec(Careless(None)), Codec(JsonSerializer(), readers=[Careless(None)])):
        with pytest.raises(DeserializationError, match="'careless' failed to read 2 bytes: KeyError: 'oops'"):
            careless.decode_value(EncodedValue("careless", b"ab"))
    with pytest.raises(DeserializationError, match="'careless' failed to read 2 bytes"):
        Codec(JsonSerializer(), per_class=True).decode_event(EncodedEvent("CarelessWork", "careless", 1, b"ab"))


def test_an_unknown_codec_is_an_error_and_nothing_else_is_tried():
    with pytest.raises(DeserializationError, match="'mirror', but this program reads only 'json'; pass that"):
        codec.decode_value(EncodedValue("mirror", b"1"))
    with pytest.raises(DeserializationError, match="by the serializer 'pickle'"):
        codec.decode_event(Codec(PickleSerializer(key="k")).encode_event(SampleWork(n=1)))


def test_data_that_are_no_event_are_not_given_out_as_one():
    with pytest.raises(
        DeserializationError, match="the stored data of event 'SampleWork' are a dict, which is no event"
    ):
        codec.decode_event(EncodedEvent("SampleWork", "json", 1, b"{}"))


def test_a_payload_above_the_limit_is_refused():
    small = Codec(JsonSerializer(), max_payload_bytes=30)
    assert small.encode_value("x" * 28).data == b'"' + b"x" * 28 + b'"'
    with pytest.raises(PayloadTooLargeError, match=r"^state\.x: takes 31 bytes, .*max_payload_bytes is 30") as caught:
        small.encode_value("x" * 29, "state.x")
    assert caught.value.path == "state.x"
    assert small.encode_event(SampleWork(n=10)).v == 1
    with pytest.raises(PayloadTooLargeError, match=r"^SampleWork: takes 31 bytes"):
        small.encode_event(SampleWork(n=100))
    with pytest.raises(PayloadTooLargeError, match=r"^Gone: takes "):
        small.encode_event(UnknownEvent(name="Gone", raw={"text": "x" * 20}))


def test_an_event_of_an_unknown_class_keeps_name_version_and_data():
    stored = EncodedEvent("Gone", "json", 4, b'{"$event":"Gone","a":{"$tuple":[1]}}')
    event = codec.decode_event(stored)
    assert isinstance(event, UnknownEvent)
    assert event.name == "Gone"
    assert codec.encode_event(event) == stored
    assert codec.decode_event(codec.encode_event(event)) == event
    inside = Outer(original_event=event)
    assert codec.decode_event(codec.encode_event(inside)) == inside


def test_what_cannot_change_in_place():
    for value in (
        1,
        "x",
        None,
        True,
        1.5,
        b"",
        Colour.RED,
        Level.LOW,
        datetime.now(UTC),
        Decimal(1),
        (1, ("a", None)),
        (),
    ):
        assert codec.is_immutable(value)
        assert codec.is_immutable((1, ("a", value)))
    for value in ([], {}, set(), frozenset(), bytearray(), SampleWork(n=1), Point(1), ([],), (1, (2, [3])), object()):
        assert not codec.is_immutable(value)


def test_a_copy_is_equal_and_shares_nothing():
    value = {"a": [Batch(parts=[1])], "b": (1,)}
    copy = codec.copy(value)
    assert copy == value
    copy["a"][0].parts.append(2)
    assert value["a"][0].parts == [1]
