"""`num_concurrent_runs`: how many runs of a workflow instance are live in an event loop at once; the rest wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

# Each call of frozenset() makes an object, and nearly every run would have some of them.
NOTHING: frozenset[Any] = frozenset()


class Places:
    """The places of one instance in one loop, given in the order in which they were asked for.

    A run within runs that hold places of other instances waits for one only if nobody has ever waited the other way
    round. Else two runs could wait for each other for ever; then it goes on without a place.
    """

    def __init__(self, number: int):
        self._free = number
        self._queue: deque[asyncio.Future[bool]] = deque()
        # The instances for whose places runs have waited while they, or runs above them, held one of this.
        self._waited_for: WeakSet[Places] = WeakSet()

    def ask(self, held: Collection[Places]) -> asyncio.Future[bool]:
        """Return a future of whether there is a place to give back; `held` are those of the runs above.

        Whoever does not want it any more calls `leave`.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if any(self._leads_to(places, set()) for places in held):
            future.set_result(False)
            return future
        for places in held:
            places._waited_for.add(self)
        if self._free:
            self._free -= 1
            future.set_result(True)
        else:
            self._queue.append(future)
        return future

    def leave(self, asked: asyncio.Future[bool]) -> bool:
        """Wait for a place no longer; tell whether it was waited for."""
        if asked.done():
            return False
        self._queue.remove(asked)
        asked.set_result(False)
        return True

    def give_back(self) -> None:
        """Give a place to the one that has waited longest, or make it free."""
        if self._queue:
            self._queue.popleft().set_result(True)
        else:
            self._free += 1

    def _leads_to(self, other: Places, seen: set[Places]) -> bool:
        if self is other:
            return True
        seen.add(self)
        return any(places not in seen and places._leads_to(other, seen) for places in self._waited_for)


class Limit:
    """`num_concurrent_runs` of an instance: places of its own in each event loop."""

    def __init__(self, number: int):
        self._number = number
        self._places: WeakKeyDictionary[asyncio.AbstractEventLoop, Places] = WeakKeyDictionary()

    def here(self) -> Places:
        """Return the running loop's places."""
        loop = asyncio.get_running_loop()
        places = self._places.get(loop)
        if places is None:
            places = self._places[loop] = Places(self._number)
        return places
