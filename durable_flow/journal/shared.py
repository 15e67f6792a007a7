"""Stores shared within an event loop: everything in a loop that names one database uses one writer and one pool."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakKeyDictionary

from ..serializers.base import MAX_PAYLOAD_BYTES
from .protocol import JournalStore
from .url import canonical_url, open_store


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What makes two uses of a database the same store. `url` is canonical; `identity` tells memory stores apart."""

    url: str
    durability: str = "full"
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    identity: int = 0


@dataclass(slots=True)
class SharedStore:
    """An open store, how many use it, and who wants to know of messages sent from this loop."""

    store: JournalStore
    users: int = 0
    on_message: list[Callable[[int], None]] = field(default_factory=list)


_stores: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[StoreSettings, SharedStore]] = WeakKeyDictionary()
_memories = count(1)


def settings_for(url: str, *, durability: str, max_payload_bytes: int) -> StoreSettings:
    """Return the settings for a URL, for a memory store new ones each time; raises JournalUrlError."""
    canonical = canonical_url(url)
    identity = next(_memories) if canonical.startswith("memory:") else 0
    return StoreSettings(canonical, durability, max_payload_bytes, identity)


async def acquire(settings: StoreSettings) -> SharedStore:
    """Return the running loop's store for these settings, open; give it back with `give_back`."""
    stores = _stores.setdefault(asyncio.get_running_loop(), {})
    shared = stores.get(settings)
    if shared is None:
        store = open_store(settings.url, durability=settings.durability, max_payload_bytes=settings.max_payload_bytes)
        shared = stores[settings] = SharedStore(store)
    shared.users += 1
    try:
        await shared.store.open()
    except BaseException:
        shared.users -= 1
        if not shared.users:
            stores.pop(settings, None)
        raise
    return shared


async def give_back(settings: StoreSettings) -> None:
    """Undo one `acquire`; the last one closes the store."""
    stores = _stores.get(asyncio.get_running_loop(), {})
    shared = stores.get(settings)
    if shared is None:
        return
    shared.users -= 1
    if not shared.users and not settings.url.startswith("memory:"):
        del stores[settings]
        await shared.store.close()


_inherited: list[object] = []


def _forget_after_fork() -> None:
    # A forked child must not touch its parent's connections, not even by closing them; it opens its own.
    _inherited.extend(_stores.values())
    _stores.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
