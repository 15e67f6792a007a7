"""A lock that plain steps may take in their threads, too."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, InvalidStateError
from typing import Literal


class LoopLock(asyncio.Lock):
    """An asyncio.Lock of one event loop; from loops of other threads it is taken and given back through that one.

    Without a loop (None) it is an asyncio.Lock and belongs to the first loop in which somebody waits for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None):
        super().__init__()
        self._home = loop

    async def acquire(self) -> Literal[True]:
        """Wait for the lock and take it."""
        if self._home is None or asyncio._get_running_loop() is self._home:
            return await super().acquire()
        answer: Future[Literal[True]] = Future()

        async def take() -> None:
            try:
                await asyncio.Lock.acquire(self)
            except BaseException:
                answer.cancel()
                raise
            try:
                answer.set_result(True)
            except InvalidStateError:  # whoever waited was cancelled meanwhile
                asyncio.Lock.release(self)

        asyncio.run_coroutine_threadsafe(take(), self._home)
        try:
            return await asyncio.wrap_future(answer)
        except asyncio.CancelledError:
            if not answer.cancel():  # it was taken in this moment
                self.release()
            raise

    def release(self) -> None:
        """Give the lock to the next who waits."""
        if self._home is None or asyncio._get_running_loop() is self._home:
            super().release()
        else:
            self._home.call_soon_threadsafe(super().release)
