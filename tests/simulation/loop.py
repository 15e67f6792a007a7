"""An event loop without waiting: time is virtual and jumps to the next timer, and every turn passes one function."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class Hang(Exception):
    """Nothing is left to do and nobody will bring anything."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks in order, as asyncio does, and never sleeps.

    `between_turns` is called before each turn; it tells whether there is something to do at the present time, so that
    the clock must not jump. `when_idle` is called when nothing is ready and no timer is set.
    """

    def __init__(self, between_turns: Callable[[], bool], when_idle: Callable[[], None]):
        self.now = 0.0
        super().__init__(_Turns(self, between_turns, when_idle))

    def time(self) -> float:
        return self.now


class _Turns(selectors.SelectSelector):
    """What the loop asks once per turn for news from outside, and how long it may sleep meanwhile."""

    def __init__(self, loop: VirtualLoop, between_turns: Callable[[], bool], when_idle: Callable[[], None]):
        super().__init__()
        self._loop = loop
        self._between_turns = between_turns
        self._when_idle = when_idle

    def select(self, timeout: float | None = None) -> list[Any]:
        if self._between_turns() or timeout == 0:
            return []
        if timeout is None:
            self._when_idle()
        else:
            self._loop.now += timeout
        return []
