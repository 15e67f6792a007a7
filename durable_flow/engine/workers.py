"""The workers of a run's steps: how many tasks of a step hold one, and who gets the next that is free."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping


class Workers:
    """Counts, by step, the workers that are taken. A step that goes on after a wait comes before one that starts."""

    __slots__ = ("_limits", "_loop", "_waiting", "busy")

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Mapping[str, int]):
        self.busy: dict[str, int] = {}
        self._loop = loop
        self._limits = limits
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def take(self, step: str) -> None:
        """Take a worker for a task that starts; `due` has seen that one is free."""
        self.busy[step] = self.busy.get(step, 0) + 1

    def take_again(self, step: str) -> asyncio.Future[None] | None:
        """Take a worker for a task that goes on; returns a future to await first if none is free."""
        if self.busy[step] >= self._limits[step]:
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiting.setdefault(step, deque()).append(future)
            return future
        self.busy[step] += 1
        return None

    def give_back(self, step: str) -> None:
        """Give a worker to a task that waits to go on, or make it free."""
        waiting = self._waiting.get(step)
        while waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self.busy[step] -= 1
