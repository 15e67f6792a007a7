"""The live context of a run in this process: the objects that steps see, beside their encodings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from ..errors import DeserializationError, SerializationError
from ..records import EncodedEvent, EncodedValue
from .lists import LEAST_ITEMS, KnownLists
from .locks import LoopLock

if TYPE_CHECKING:
    from ..events import Event
    from ..serializers.codec import Codec

MISSING: Any = object()
# As a default: there is none, so that a missing key is a KeyError. MISSING itself may be asked for as a default.
REQUIRED: Any = object()
# Which taking of `ctx.lock` the current asyncio task, or the one that began it, is inside of: other strands of the same
# step are not.
LOCK_HELD: ContextVar[object | None] = ContextVar("durable_flow_lock_held", default=None)
# The task that is inside of `edit_state`: what it has others do, in another loop too, is inside of it as well.
EDITING: ContextVar[object | None] = ContextVar("durable_flow_editing", default=None)


class Entry:
    """One key: the live object and its encoding when it was last journaled or drafted."""

    __slots__ = ("encoded", "mutable", "value")

    def __init__(self, value: Any, encoded: EncodedValue, mutable: bool):
        self.value = value
        self.encoded = encoded
        self.mutable = mutable


class Mirror(Protocol):
    """A view that holds values itself and must be told of changes."""

    def mirror(self, key: str) -> None:
        """Take over what is now seen of a key."""

    def mirror_all(self, values: Mapping[str, Any]) -> None:
        """Take over what is now seen of many keys, in their order."""

    def forget(self) -> None:
        """Hold no values any more."""

    def shows(self, face: object) -> bool:
        """Tell whether this is a view of what `face` sees."""


class ContextLocks:
    """The locks of a context, which belongs to a run or to what is no run yet. They are made when first asked for."""

    # That of a run; what is no run yet has none.
    loop: asyncio.AbstractEventLoop | None = None
    lock_holder: Any = None
    lock_held: object | None = None
    editor: asyncio.Task[Any] | None = None

    @cached_property
    def lock(self) -> asyncio.Lock:
        """That of `ctx.lock`."""
        return LoopLock(self.loop)

    @cached_property
    def write_lock(self) -> asyncio.Lock:
        """Keeps other writers out while somebody edits the state."""
        return LoopLock(self.loop)


class LiveContext:
    """Visible values by key. Values that were stored are decoded when first asked for."""

    def __init__(self, codec: Codec, stored: Mapping[str, EncodedValue]):
        self._codec = codec
        self._entries: dict[str, Entry] = {}
        self._stored: dict[str, EncodedValue] = dict(stored)
        self._order: dict[str, None] = dict.fromkeys(stored)
        self._mirrors: WeakSet[Any] | None = None
        self._lists: KnownLists | None = None
        # Counts the readings of all keys: to encode what holds a view of the context is one.
        self.whole_reads = 0

    def __contains__(self, key: str) -> bool:
        return key in self._order

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def entry(self, key: str) -> Entry | None:
        """Return the key's entry, decoding the stored value if need be. Raises DeserializationError."""
        entry = self._entries.get(key)
        if entry is None and key in self._stored:
            encoded = self._stored[key]
            try:
                value = self._codec.decode_value(encoded)
            except DeserializationError as error:
                raise DeserializationError(f"context[{key!r}]: {error}") from error
            mutable = not self._codec.is_immutable(value)
            # What the decoded object encodes to here is the baseline: other codecs than JSON are not canonical.
            entry = Entry(value, self._codec.encode_value(value, key) if mutable else encoded, mutable)
            self._entries[key] = entry
            del self._stored[key]  # not before: what cannot be read is still there
        return entry

    def values(self) -> dict[str, Any]:
        """Return every visible value by key, decoding what is stored. Raises DeserializationError."""
        for key in tuple(self._stored):
            self.entry(key)
        entries = self._entries
        return {key: entries[key].value for key in self._order}

    def set(self, key: str, value: Any, encoded: EncodedValue) -> None:
        """Make a value visible."""
        self._stored.pop(key, None)
        self._entries[key] = Entry(value, encoded, not self._codec.is_immutable(value))
        self._order[key] = None
        self.refresh(key)

    def delete(self, key: str) -> None:
        """Make a key vanish."""
        self._stored.pop(key, None)
        self._entries.pop(key, None)
        self._order.pop(key, None)
        self.refresh(key)

    def restore(self, key: str) -> None:
        """Undo changes in place that were not journaled or drafted: the object is decoded afresh."""
        self._stored[key] = self._entries.pop(key).encoded
        self.refresh(key)

    def add_view(self, view: Mirror) -> None:
        """Tell a view of changes from now on, as long as somebody keeps it."""
        if self._mirrors is None:
            self._mirrors = WeakSet()
        self._mirrors.add(view)

    def refresh(self, key: str) -> None:
        """Tell the views that a key changed."""
        for view in self._mirrors or ():
            view.mirror(key)

    def encode_value(self, value: Any, path: str) -> tuple[EncodedValue, Any]:
        """Return a value's encoding and the object to keep: a plain copy if the value holds a view of the context."""
        before = self.whole_reads
        if type(value) is list and len(value) >= LEAST_ITEMS:
            if self._lists is None:
                self._lists = KnownLists(self._codec)
            encoded = self._lists.encode(path, value)
        else:
            encoded = self._codec.encode_value(value, path)
        return encoded, value if self.whole_reads == before else self._codec.decode_value(encoded)

    def encode_event(self, event: Event) -> tuple[EncodedEvent, Event]:
        """Return an event's encoding and the object to hand on: a plain copy if it holds a view of the context."""
        before = self.whole_reads
        encoded = self._codec.encode_event(event)
        return encoded, event if self.whole_reads == before else self._codec.decode_event(encoded)

    def taken_over(self, codec: Codec, face: object = None) -> LiveContext:
        """Return a context of the same objects, each with its encoding of now, by this codec.

        The views of `face` are of that one from now on. Raises SerializationError for a value that cannot be encoded.
        """
        other = LiveContext(codec, {})
        same = codec.serializer.codec == self._codec.serializer.codec
        for key in self._order:
            stored = self._stored.get(key)
            if stored is not None and same:
                other._stored[key], other._order[key] = stored, None
                continue
            entry = self.entry(key)
            assert entry is not None
            kept = same and not entry.mutable
            other.set(key, entry.value, entry.encoded if kept else codec.encode_value(entry.value, key))
        for view in self.views_of(face):
            other.add_view(view)
            assert self._mirrors is not None
            self._mirrors.discard(view)
        return other

    def views_of(self, face: object) -> list[Mirror]:
        """Return the views of what `face` sees."""
        return [view for view in self._mirrors or () if view.shows(face)]

    def encoded(self) -> dict[str, EncodedValue]:
        """Return the visible encodings by key."""
        return {key: self._entries[key].encoded if key in self._entries else self._stored[key] for key in self._order}


def held_by_caller(host: ContextLocks) -> str | None:
    """Return which lock of the run this very strand of work is inside of, None if it is in none."""
    if host.editor is not None and EDITING.get() is host.editor:
        return "edit_state"
    if host.lock_held is not None and LOCK_HELD.get() is host.lock_held:
        return "ctx.lock"
    return None


def require_key(key: object, where: str) -> None:
    """Raise SerializationError for what can be no key of the context."""
    path = f"context[{key!r}]"
    if type(key) is not str:
        message = f"context keys are strings, not {type(key).__name__}: {key!r} in {where}; use str(key)"
        raise SerializationError(message, path=path)
    if not key.isascii() or "\0" in key:
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise SerializationError(f"context key {key!r} in {where} is not valid Unicode", path=path) from error
        if "\0" in key:
            raise SerializationError(f"context key {key!r} in {where} holds a NUL, which no database takes", path=path)
