"""The two seams of stored data: a Serializer turns values into bytes, a Seal wraps those bytes as a row is written."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from ..errors import SerializationError

MAX_PAYLOAD_BYTES = 32 * 1024 * 1024
"""How large an encoded event or value may be, unless a journal says otherwise."""


class Serializer(Protocol):
    """Turns events and context values into bytes and back.

    What `serialize` accepts, `deserialize` must give back equal and of the same type.
    """

    codec: str
    """The id stored in every row. Data are read by the serializer of this id and by no other."""

    def serialize(self, value: Any) -> bytes:
        """Return the value as bytes.

        Raises SerializationError for a value that would not come back as it is. Its `path` starts with the event's
        class name, or with "value"; its message starts with the path.
        """

    def deserialize(self, data: bytes) -> Any:
        """Return the value that these bytes stand for. Raises DeserializationError."""


SerializerT = TypeVar("SerializerT", Serializer, Serializer | None)


def require_key(serializer: SerializerT) -> SerializerT:
    """Return a serializer that a journal may use. Raises SerializationError for an unsafe one without a key."""
    if getattr(serializer, "lacks_key", False):
        raise SerializationError(
            f"{type(serializer).__name__} needs a secret key, because unpickling data that somebody else wrote runs "
            "their code: pass key=, or set the environment variable DURABLE_FLOW_SERIALIZER_KEY, the same for all "
            "workers"
        )
    return serializer


class Seal(Protocol):
    """Compresses, authenticates or encrypts payloads as they are written to a row, and opens them again.

    `uid` is the run's, `seq` the record's place in the journal (the position of a stream item; 0 for what has no place
    of its own), `kind` the record's kind or what else the row is: a seal that binds them notices a payload that was
    moved to another row.

    A seal may have two more attributes. `encrypts` (default False): texts with what users wrote, as the messages of
    errors, go through it too. `is_required` (default False): what it has not sealed is refused when it is read.
    Journals with equal seals share a connection, so a seal that is made from settings compares by them.
    """

    id: str
    """The id stored in every row that this seal has closed: letters, digits, "-", "_" and "."."""

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return the sealed payload; the very same object if this one is left as it is."""

    def open(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return the payload. Raises DeserializationError if it was changed, moved, or sealed with another key."""
