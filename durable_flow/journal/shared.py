"""Stores shared within an event loop: everything in a loop that names one database uses one writer and one pool."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from ..serializers.base import MAX_PAYLOAD_BYTES
from .protocol import Heard, JournalStore
from .url import canonical_url, masked, open_store

if TYPE_CHECKING:
    from ..serializers.base import Seal

# For so long a store is listened to when nobody wants to hear any more: to begin anew costs more.
QUIET_SECONDS = 5.0


class StoreSettings(NamedTuple):
    """What makes two uses of a database the same store. `url` is canonical; `identity` tells memory stores apart."""

    url: str
    durability: str = "full"
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    identity: int = 0
    seal: Seal | None = None
    compress: bool = True

    def __repr__(self) -> str:
        return (
            f"StoreSettings(url={masked(self.url)!r}, durability={self.durability!r}, "
            f"max_payload_bytes={self.max_payload_bytes}, identity={self.identity}, "
            f"seal={self.seal!r}, compress={self.compress})"
        )


class SharedStore:
    """An open store, how many use it, and who in this loop wants to hear what happens in it."""

    def __init__(self, store: JournalStore):
        self.store = store
        self.users = 0
        self._listeners: list[Heard] = []
        self._readers: dict[int, set[Callable[[], None]]] = {}
        # Who in this loop wants to know of every append to a run; the runs that are live here look at it.
        self.followers: dict[int, set[Callable[[], None]]] = {}
        self._end_listening: Callable[[], None] | None = None
        self._quiet: asyncio.TimerHandle | None = None

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Call `heard` with the keys of runs that others have written to or sent to, see JournalStore.listen.

        What was sent from this loop is heard of as well. Returns what ends it.
        """
        self._listeners.append(heard)
        self._listen()

        def end() -> None:
            self._listeners.remove(heard)
            self._rest_if_unheard()

        return end

    @contextmanager
    def reading(self, run: int, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` when the run may have published something, here or elsewhere, within the block."""
        try:
            with _among(self._readers, run, wake):
                self._listen()
                yield
        finally:
            self._rest_if_unheard()

    @contextmanager
    def following(self, run: int, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` when something may have been appended to the run's journal, within the block."""
        with _among(self.followers, run, wake), self.reading(run, wake):
            yield

    def hear(self, runs: Collection[int] | None) -> None:
        """Tell of runs that somebody has written to or sent to; None: it may be any of them."""
        for heard in tuple(self._listeners):
            heard(runs)
        for run in tuple(self._readers) if runs is None else runs:
            self.published(run)

    def published(self, run: int) -> None:
        """Wake who reads the run's stream."""
        for wake in tuple(self._readers.get(run, ())):
            wake()

    def _listen(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if self._end_listening is None:
            self._end_listening = self.store.listen(self.hear)

    def _rest_if_unheard(self) -> None:
        if not self._listeners and not self._readers and self._quiet is None:
            self._quiet = asyncio.get_running_loop().call_later(QUIET_SECONDS, self.rest)

    def rest(self) -> None:
        """Listen no longer."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if self._end_listening is not None:
            self._end_listening()
            self._end_listening = None


@contextmanager
def _among(wakes: dict[int, set[Callable[[], None]]], run: int, wake: Callable[[], None]) -> Iterator[None]:
    """Keep `wake` among those of a run within the block."""
    wakes.setdefault(run, set()).add(wake)
    try:
        yield
    finally:
        wakes[run].discard(wake)
        if not wakes[run]:
            del wakes[run]


_stores: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[StoreSettings, SharedStore]] = WeakKeyDictionary()
_memories = count(1)


def settings_for(
    url: str, *, durability: str, max_payload_bytes: int, seal: Seal | None = None, compress: bool = True
) -> StoreSettings:
    """Return the settings for a URL, for a memory store new ones each time; raises JournalUrlError."""
    canonical = canonical_url(url)
    identity = next(_memories) if canonical.startswith("memory:") else 0
    return StoreSettings(canonical, durability, max_payload_bytes, identity, seal, compress)


async def acquire(settings: StoreSettings) -> SharedStore:
    """Return the running loop's store for these settings, open; give it back with `give_back`."""
    stores = _stores.setdefault(asyncio.get_running_loop(), {})
    shared = stores.get(settings)
    if shared is None:
        store = open_store(
            settings.url, durability=settings.durability, seal=settings.seal, compress=settings.compress,
            max_payload_bytes=settings.max_payload_bytes,
        )  # fmt: skip
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
        shared.rest()
        await shared.store.close()


_inherited: list[object] = []


def _forget_after_fork() -> None:
    # A forked child must not touch its parent's connections, not even by closing them; it opens its own.
    _inherited.extend(_stores.values())
    _stores.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
