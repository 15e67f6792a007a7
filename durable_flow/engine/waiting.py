"""Steps that wait in memory for something that becomes durable."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Waiting(Generic[Key]):
    """Who waits for what: futures by the key of that."""

    __slots__ = ("_futures", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._futures: dict[Key, list[asyncio.Future[None]]] = {}

    def future(self, key: Key) -> asyncio.Future[None]:
        """Return a future that ends when what has this key is there."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._futures.setdefault(key, []).append(future)
        return future

    def wake(self, key: Key) -> None:
        """It is there."""
        wake_all(self._futures.pop(key, ()))

    def fail(self, key: Key, error: BaseException) -> None:
        """Raise the error where it is waited for: it will not be there."""
        for future in self._futures.pop(key, ()):
            if not future.done():
                future.set_exception(error)

    def cancel(self, key: Key) -> None:
        """Cancel whoever waits for it."""
        for future in self._futures.pop(key, ()):
            future.cancel()


def wake_all(futures: Iterable[asyncio.Future[None]]) -> None:
    """End futures, but those that were cancelled meanwhile."""
    for future in futures:
        if not future.done():
            future.set_result(None)
