"""JSON where that is exact, pickle for everything else (opt-in, as unsafe as pickle)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import DeserializationError, SerializationError
from .json import JsonSerializer
from .pickle import Signature, pickled, unpickled

_JSON, _PICKLE = b"j", b"p"


class JsonPickleSerializer:
    """Stores a value as exact JSON, or as a pickle if that is refused, with a mark for which of the two it is.

    `key` and its lack are those of PickleSerializer; the signature covers JSON, too. `types` are those of
    JsonSerializer.
    """

    def __init__(self, key: bytes | str | None = None, types: Iterable[type] = ()):
        self._signature = Signature(key)
        self._json = JsonSerializer(types)
        self.lacks_key = not self._signature
        self.codec = "jsonpickle.unsigned" if self.lacks_key else "jsonpickle"

    def serialize(self, value: Any) -> bytes:
        """Return the value as bytes. Raises SerializationError for what neither JSON nor pickle can store."""
        try:
            data = _JSON + self._json.serialize(value)
        except SerializationError as refused:
            try:
                data = _PICKLE + pickled(value)
            except SerializationError as error:
                raise error from refused
        return self._signature.sign(data)

    def deserialize(self, data: bytes) -> Any:
        """Return the value. Raises DeserializationError for data that were not written with this key."""
        data = self._signature.open(data)
        if data[:1] == _JSON:
            return self._json.deserialize(data[1:])
        if data[:1] == _PICKLE:
            return unpickled(data[1:])
        raise DeserializationError(f"{len(data)} bytes of stored data were not written by JsonPickleSerializer")
