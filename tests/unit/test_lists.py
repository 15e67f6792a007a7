"""Lists that grow are encoded by what is new: to the same bytes, or refused with the same words, as from the start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_flow.engine.lists import KnownLists
from durable_flow.errors import PayloadTooLargeError, SerializationError
from durable_flow.serializers.codec import Codec
from durable_flow.serializers.json import JsonSerializer
from durable_flow.serializers.pickle import PickleSerializer

CODEC = Codec(JsonSerializer())

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
odd = st.sampled_from([10**5000, "$tag", "\ud800", (1,), {"$a": 1}, [1, [2]], {3}, b"x", object()])
change = st.tuples(st.sampled_from(["append", "append", "extend", "pop", "replace", "insert", "nothing"]), plain | odd)


def changed(values: list[object], how: str, item: object) -> None:
    match how:
        case "append":
            values.append(item)
        case "extend":
            values.extend([item, 1, "two"])
        case "pop" if values:
            values.pop()
        case "replace" if values:
            values[len(values) // 2] = item
        case "insert":
            values.insert(len(values) // 2, item)


def outcome(encode, *arguments):
    try:
        return encode(*arguments)
    except SerializationError as error:
        return type(error), str(error), error.path


@given(st.lists(plain, max_size=8), st.lists(change, max_size=12))
def test_whatever_happens_to_a_list_it_is_encoded_as_from_the_start(values, changes):
    known = KnownLists(CODEC)
    for how, item in changes:
        changed(values, how, item)
        assert outcome(known.encode, "notes", values) == outcome(CODEC.encode_value, values, "notes")


@pytest.mark.parametrize(
    ("old", "new"), [(1, True), (1, 1.0), (0.0, -0.0), (0, False), ("a", type("T", (str,), {})("a"))]
)
def test_an_equal_item_is_not_the_same_item(old, new):
    known, values = KnownLists(CODEC), [old, old]
    known.encode("notes", values)
    values[0] = new
    assert outcome(known.encode, "notes", [*values, 3]) == outcome(CODEC.encode_value, [*values, 3], "notes")


def test_only_what_is_new_is_encoded():
    seen = []

    class Counting(Codec):
        def encode_value(self, value, path="value"):
            seen.append(list(value))
            return super().encode_value(value, path)

    known, values = KnownLists(Counting(JsonSerializer())), ["a", "b"]
    known.encode("notes", values)
    known.encode("notes", values)
    values += ["c", "d"]
    assert known.encode("notes", values).data == b'["a","b","c","d"]'
    assert seen == [["a", "b"], ["c", "d"]]


def test_a_list_that_grows_too_large_is_refused():
    known = KnownLists(Codec(JsonSerializer(), max_payload_bytes=20))
    known.encode("notes", ["0123456789"])
    with pytest.raises(PayloadTooLargeError, match="notes"):
        known.encode("notes", ["0123456789", "0123456789"])


def test_other_codecs_encode_everything():
    codec = Codec(PickleSerializer(key=b"secret" * 8))
    known, values = KnownLists(codec), ["a"]
    for _ in range(3):
        values.append("b")
        assert codec.decode_value(known.encode("notes", values)) == values
