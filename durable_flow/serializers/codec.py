"""The codec: events and values to encoded ones and back, with the serializer that each was written by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from ..errors import DeserializationError, PayloadTooLargeError, SerializationError
from ..events import Event, UnknownEvent, find_event_class
from ..records import EncodedEvent, EncodedValue
from .base import MAX_PAYLOAD_BYTES, Serializer, require_key
from .guarded import reader_of, writer_of

_IMMUTABLE = frozenset(
    {str, int, float, bool, type(None), bytes, complex, date, datetime, time, timedelta, UUID, Decimal}
)
_REST_OF_PATH = re.compile(r"[.\[].*", re.DOTALL)

# The constructors of named tuples written in Python take longer than the rest of a call here.
_new = tuple.__new__


class Codec:
    """Writes with one serializer, and reads what that one or one of the `readers` wrote, by the stored codec id.

    `per_class`: events of a class with an `event_serializer` are written and read with that one.
    """

    def __init__(
        self,
        serializer: Serializer,
        *,
        readers: Iterable[Serializer] = (),
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        per_class: bool = False,
    ):
        self.serializer = serializer
        self.max_payload_bytes = max_payload_bytes
        self._codec = serializer.codec
        self._serialize = writer_of(serializer)
        self._deserialize = reader_of(serializer)
        self._readers: dict[str, Callable[[bytes], Any]] = {reader.codec: reader_of(reader) for reader in readers}
        self._readers[serializer.codec] = self._deserialize
        self._per_class = per_class

    def encode_event(self, event: Event) -> EncodedEvent:
        """Return the event as bytes. Raises SerializationError, PayloadTooLargeError."""
        cls = type(event)
        if isinstance(event, UnknownEvent):
            return self._encode_unknown(event)
        if cls.event_serializer is not None and self._per_class:
            own: Serializer = require_key(cls.event_serializer)
            codec, data = own.codec, writer_of(own)(event)
        else:
            codec, data = self._codec, self._serialize(event)
        if len(data) > self.max_payload_bytes:
            raise self._too_large(cls.__name__, data)
        return _new(EncodedEvent, (cls._stored_name, codec, cls.event_version, data))

    def encode_value(self, value: Any, path: str = "value") -> EncodedValue:
        """Return the value as bytes; `path` is what errors call it. Raises SerializationError, PayloadTooLargeError."""
        try:
            data = self._serialize(value)
        except SerializationError as error:
            raise _at(path, error) from error.__cause__
        if len(data) > self.max_payload_bytes:
            raise self._too_large(path, data)
        return _new(EncodedValue, (self._codec, data))

    def decode_event(self, encoded: EncodedEvent) -> Event:
        """Return the event, an UnknownEvent if its class is not known. Raises DeserializationError."""
        # Two serializers of one codec id may have different keys: that of the class comes first. JSON has none.
        is_exact = encoded.codec == self._codec == "json"
        read = self._deserialize if is_exact else self._reader(encoded.codec, encoded.name)
        event: Event = read(encoded.data)
        if not isinstance(event, Event):
            raise DeserializationError(
                f"the stored data of event {encoded.name!r} are a {type(event).__qualname__}, which is no event"
            )
        if type(event) is UnknownEvent and event.name == encoded.name:
            event["version"] = encoded.v  # of its own class; for when it is stored again
        return event

    def decode_value(self, encoded: EncodedValue) -> Any:
        """Return the value. Raises DeserializationError."""
        return self._reader(encoded.codec)(encoded.data)

    def is_immutable(self, value: Any) -> bool:
        """Tell whether the value certainly cannot change in place, so that it need not be encoded again."""
        cls = type(value)
        if cls in _IMMUTABLE:
            return True
        if cls is tuple:
            return all(map(self.is_immutable, value))
        return isinstance(value, Enum)

    def copy(self, value: Any) -> Any:
        """Return what would be read if the value was stored now. Raises as encoding and decoding do."""
        return self._deserialize(self._serialize(value))

    def _encode_unknown(self, event: UnknownEvent) -> EncodedEvent:
        """Return an event that was read without its class under its own name and version, unchanged if possible."""
        version = event.get("version")
        if type(version) is int and len(event) == 1:
            event = UnknownEvent(name=event.name, raw=event.raw)
        else:
            version = UnknownEvent.event_version
        data = self._serialize(event)
        if len(data) > self.max_payload_bytes:
            raise self._too_large(event.name, data)
        return _new(EncodedEvent, (event.name, self._codec, version, data))

    def reads(self, codec: str, event: str | None = None) -> bool:
        """Tell whether data of this codec id can be read, for events if they are of this name."""
        return codec in self._readers or (event is not None and self._own_reader(codec, event) is not None)

    def _reader(self, codec: str, event: str | None = None) -> Callable[[bytes], Any]:
        own = self._own_reader(codec, event) if event is not None else None
        if own is not None:
            return own
        try:
            return self._readers[codec]
        except KeyError:
            raise DeserializationError(
                f"stored data were written by the serializer {codec!r}, but this program reads only "
                f"{', '.join(map(repr, self._readers))}; pass that serializer: Journal(url, readers=[...])"
            ) from None

    def _own_reader(self, codec: str, event: str) -> Callable[[bytes], Any] | None:
        """Return how the class of an event reads this codec, if it has a serializer of its own for it."""
        cls = find_event_class(event) if self._per_class else None
        own = cls.event_serializer if cls is not None else None
        return reader_of(require_key(own)) if own is not None and own.codec == codec else None

    def _too_large(self, path: str, data: bytes) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"{path}: takes {len(data):,} bytes, and the journal's max_payload_bytes is {self.max_payload_bytes:,}; "
            "store large data elsewhere and keep a reference to them, or raise the limit",
            path=path,
        )


def _at(path: str, error: SerializationError) -> SerializationError:
    """Return the same error for a value that the caller knows under another path."""
    reason = str(error).removeprefix(error.path).removeprefix(": ")
    rest = _REST_OF_PATH.search(error.path)
    path += rest.group() if rest is not None else ""
    return SerializationError(f"{path}: {reason}", path=path)
