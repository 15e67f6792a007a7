"""Compression of large payloads, bounded when they are read."""

from __future__ import annotations

import zlib

from ..errors import DeserializationError
from .base import MAX_PAYLOAD_BYTES

COMPRESSED_ABOVE = 64 * 1024
"""How many bytes a payload has at most that is stored as it is."""

SNAPSHOT_KIND = "snapshot"

# These hold every value of a run, and each of them may have as many bytes as a payload.
_STATE_KINDS = frozenset({SNAPSHOT_KIND, "StateImported", "JournalCompacted"})
_STATE_TIMES = 16
# The fastest level: JSON shrinks to a quarter at 150 MB/s, by the slower ones hardly further.
_LEVEL = 1
# What does not shrink here to this part, as pictures do, is not worth the time of those who write and read it.
_PROBE = 16 * 1024
_WORTH = 0.9


def limit_of(kind: str, max_payload_bytes: int) -> int:
    """Return how many bytes the payload of a row of this kind may have: those of a run's state 16 times as many."""
    return max_payload_bytes * _STATE_TIMES if kind in _STATE_KINDS else max_payload_bytes


class Compression:
    """The seal of large payloads, by zlib. What it opens has at most `max_payload_bytes`, a state 16 times that."""

    id = "zlib"

    def __init__(self, max_payload_bytes: int = MAX_PAYLOAD_BYTES):
        self._limit = max_payload_bytes

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return large data compressed, the same object where that is not worth it."""
        if not COMPRESSED_ABOVE < len(data) <= limit_of(kind, self._limit):
            return data
        if len(zlib.compress(data[:_PROBE], _LEVEL)) > _PROBE * _WORTH:
            return data
        compressed = zlib.compress(data, _LEVEL)
        return compressed if len(compressed) < len(data) * _WORTH else data

    def open(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return the data. Raises DeserializationError for what zlib did not write, and before it grows too large."""
        limit = limit_of(kind, self._limit)
        unpacker = zlib.decompressobj()
        try:
            opened = unpacker.decompress(data, limit + 1)
        except zlib.error as error:
            raise DeserializationError(f"its {len(data):,} compressed bytes were changed ({error})") from error
        if len(opened) > limit:
            raise DeserializationError(
                f"its {len(data):,} bytes are compressed from more than {limit:,}, which max_payload_bytes allows; "
                "nothing more was unpacked. Raise that limit if it was higher when they were written"
            )
        if not unpacker.eof or unpacker.unused_data:
            raise DeserializationError(f"its {len(data):,} compressed bytes were cut short or added to")
        return opened
