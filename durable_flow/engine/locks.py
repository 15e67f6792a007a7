"""A lock that plain steps may take in their threads, too."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, InvalidStateError
from typing import Literal


class LoopLock(asyncio.Lock):
    """An asyncio.Lock of one event loop; from loops of other threads it is taken and given back through that one.

    Without a loop (None), and once that one has ended, it is an asyncio.Lock and belongs to the first loop in which
    somebody waits for it: a Context may go from the run of one loop to that of the next.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None):
        super().__init__()
        self._home = loop

    async def acquire(self) -> Literal[True]:
        """Wait for the lock and take it."""
        home = self._elsewhere()
        if home is None:
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

        asyncio.run_coroutine_threadsafe(take(), home)
        try:
            return await asyncio.wrap_future(answer)
        except asyncio.CancelledError:
            if not answer.cancel():  # it was taken in this moment
                self.release()
            raise

    def release(self) -> None:
        """Give the lock to the next who waits."""
        home = self._elsewhere()
        if home is None:
            super().release()
        else:
            home.call_soon_threadsafe(super().release)

    def _elsewhere(self) -> asyncio.AbstractEventLoop | None:
        """Return the loop of the lock, if it runs in another thread."""
        home = self._home
        return home if home is not None and home.is_running() and asyncio._get_running_loop() is not home else None
