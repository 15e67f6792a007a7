"""The two seams of stored data: a Serializer turns values into bytes, a Seal wraps those bytes as a row is written."""

from __future__ import annotations

from typing import Any, Protocol

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


def require_key(serializer: Serializer | None) -> Serializer | None:
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

    `uid` is the run's, `seq` the record's place in the journal, `kind` the record's kind: a seal that binds them
    notices a payload that was moved to another row.
    """

    id: str
    """The id stored in every row that this seal has closed."""

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return the sealed payload."""

    def open(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return the payload. Raises DeserializationError if it was changed, moved, or sealed with another key."""
