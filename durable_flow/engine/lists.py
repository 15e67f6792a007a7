"""Long lists of plain values that grow: encoded by what is new, with the same bytes as from the beginning."""

from __future__ import annotations

from operator import is_
from typing import Any

from ..errors import SerializationError
from ..records import EncodedValue
from ..serializers.codec import Codec
from ..serializers.json import JsonSerializer
from ..serializers.scalars import PRIMITIVES

LEAST_ITEMS = 64
"""Shorter lists are encoded whole: that is as fast."""


class KnownLists:
    """Remembers by key the items of a list and what they were encoded to.

    Plain values cannot change, so a list that begins with the very same objects is encoded to the same beginning: to
    compare objects takes a quarter of the time. JSON writes the items of a list one after another, whatever is around.
    """

    def __init__(self, codec: Codec):
        self._codec = codec
        self._is_json = type(codec.serializer) is JsonSerializer
        self._known: dict[str, tuple[tuple[Any, ...], EncodedValue]] = {}

    def encode(self, key: str, value: list[Any]) -> EncodedValue:
        """Return what `codec.encode_value(value, key)` does. Raises what it raises."""
        if not self._is_json:
            return self._codec.encode_value(value, key)
        items, encoded = self._known.pop(key, ((), None))
        if encoded is not None and len(items) <= len(value) and all(map(is_, items, value)):
            new = value[len(items) :]
            grown = self._grown(encoded, new, key) if new else encoded
        else:
            new, grown = value, None
        result = grown if grown is not None else self._codec.encode_value(value, key)
        if value and PRIMITIVES.issuperset(map(type, new if grown is not None else value)):
            self._known[key] = tuple(value) if new else items, result
        return result

    def _grown(self, encoded: EncodedValue, new: list[Any], key: str) -> EncodedValue | None:
        """Return the encoding of a list that has more items; None if it is to be encoded as a whole."""
        try:
            tail = self._codec.encode_value(new, key).data
        except SerializationError:
            return None  # to be met again, and told with its place in the whole list
        data = encoded.data[:-1] + b"," + tail[1:]
        return None if len(data) > self._codec.max_payload_bytes else EncodedValue(encoded.codec, data)
