"""`ctx.lock`: one lock per run, for changes that several steps make to one value."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..engine.handed import Handed, awaited
from ..engine.live import LOCK_HELD

if TYPE_CHECKING:
    from ..engine.beginning import Beginning
    from ..engine.run import Run


class ContextLock:
    """An asyncio.Lock of the run. Leaving it records the step's changes in place, so that they are exact.

    `get`, `set` and `edit_state` do not take it, so they work inside. It is not persisted.
    """

    def __init__(self, run: Run | Beginning, face: Any, handed: Handed | None = None):
        self._run = run
        self._face = face
        self._handed = handed

    @property
    def _lock(self) -> asyncio.Lock:
        return self._run.lock

    @awaited
    async def acquire(self) -> bool:
        """Wait for the lock and take it."""
        await self._lock.acquire()
        # A step's thread has a face of its own, and its step has the lock.
        self._run.lock_holder = getattr(self._face, "execution", self._face)
        self._run.lock_held = object()
        LOCK_HELD.set(self._run.lock_held)
        return True

    def release(self) -> None:
        """Record changes in place and give the lock to the next who waits."""
        try:
            if getattr(self._face, "attached", True):
                self._face.detect_changes()
        finally:
            self._run.lock_holder = self._run.lock_held = None
            self._lock.release()

    def locked(self) -> bool:
        """Tell whether somebody holds it."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc: object) -> None:
        self.release()
