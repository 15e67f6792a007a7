"""The live context of a run in this process: the objects that steps see, beside their encodings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from ..records import EncodedValue

if TYPE_CHECKING:
    from ..serializers.codec import Codec

MISSING: Any = object()
# As a default: there is none, so that a missing key is a KeyError. MISSING itself may be asked for as a default.
REQUIRED: Any = object()


class Entry:
    """One key: the live object and its encoding when it was last journaled or drafted."""

    __slots__ = ("encoded", "mutable", "value")

    def __init__(self, value: Any, encoded: EncodedValue, mutable: bool):
        self.value = value
        self.encoded = encoded
        self.mutable = mutable


class Mirror(Protocol):
    """A view that holds values itself and must be told of changes."""

    def mirror(self, key: str, value: Any) -> None:
        """Take over a new value; MISSING: the key is gone."""


class LiveContext:
    """Visible values by key. Values that were stored are decoded when first asked for."""

    def __init__(self, codec: Codec, stored: Mapping[str, EncodedValue]):
        self._codec = codec
        self._entries: dict[str, Entry] = {}
        self._stored: dict[str, EncodedValue] = dict(stored)
        self._order: dict[str, None] = dict.fromkeys(stored)
        self.mirrors: WeakSet[Any] = WeakSet()

    def __contains__(self, key: str) -> bool:
        return key in self._order

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def entry(self, key: str) -> Entry | None:
        """Return the key's entry, decoding the stored value if need be."""
        entry = self._entries.get(key)
        if entry is None and key in self._stored:
            encoded = self._stored.pop(key)
            value = self._codec.decode_value(encoded)
            mutable = not self._codec.is_immutable(value)
            # What the decoded object encodes to here is the baseline: other codecs than JSON are not canonical.
            entry = Entry(value, self._codec.encode_value(value, key) if mutable else encoded, mutable)
            self._entries[key] = entry
        return entry

    def set(self, key: str, value: Any, encoded: EncodedValue) -> None:
        """Make a value visible."""
        self._stored.pop(key, None)
        self._entries[key] = Entry(value, encoded, not self._codec.is_immutable(value))
        self._order[key] = None
        for view in self.mirrors:
            view.mirror(key, value)

    def delete(self, key: str) -> None:
        """Make a key vanish."""
        self._stored.pop(key, None)
        self._entries.pop(key, None)
        self._order.pop(key, None)
        for view in self.mirrors:
            view.mirror(key, MISSING)

    def encoded(self) -> dict[str, EncodedValue]:
        """Return the visible encodings by key."""
        return {key: self._entries[key].encoded if key in self._entries else self._stored[key] for key in self._order}
