"""The heartbeat of an engine, and its look at whether the event loop still turns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from ..journal.protocol import JournalStore, WorkerId

logger = logging.getLogger("durable_flow")

BLOCKED_LOOP_SECONDS = 1.0


class Heart(threading.Thread):
    """Beats in a thread of its own, so that a step that blocks the loop keeps its runs."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: JournalStore, worker: WorkerId, in_flight: Callable[[], set[str]],
        *, heartbeat_seconds: float, expiry_seconds: float,
    ):  # fmt: skip
        """Set up the thread; `in_flight` returns the names of the steps in flight, from any thread."""
        super().__init__(name="durable_flow-heartbeat", daemon=True)
        self._loop = loop
        self._store = store
        self._worker = worker
        self._in_flight = in_flight
        self._heartbeat_seconds = heartbeat_seconds
        self._expiry_seconds = expiry_seconds
        self._stopped = threading.Event()
        self._beat_at = (time.monotonic(), time.time())
        self._asked_at: float | None = None
        self._warned = False

    def run(self) -> None:
        """Beat until stopped, or until the loop has ended without a word."""
        while not self._stopped.wait(min(self._heartbeat_seconds, BLOCKED_LOOP_SECONDS)):
            if self._loop.is_closed():
                self._store.abandon(self._worker)
                return
            self._look_at_loop()
            began = (time.monotonic(), time.time())
            # A tick early is better than a tick late.
            due = self._beat_at[0] + self._heartbeat_seconds - BLOCKED_LOOP_SECONDS / 2
            if began[0] >= due and self._store.beat(self._worker):
                self._beat_at = began

    def _look_at_loop(self) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self._loop.call_soon_threadsafe(self._answered)
        elif now - self._asked_at > BLOCKED_LOOP_SECONDS and not self._warned:
            self._warned = True
            steps = sorted(self._in_flight())
            logger.warning(
                "the event loop has been blocked for over %.0f s; steps in flight: %s. Make the step that blocks it a "
                "plain `def` step, or use asyncio.to_thread. Its runs are kept",
                now - self._asked_at, ", ".join(steps) or "none", extra={"action": "loop_blocked", "steps": steps},
            )  # fmt: skip

    def _answered(self) -> None:
        self._asked_at = None
        self._warned = False

    def expired(self) -> bool:
        """Tell whether no heartbeat got through for a whole expiry, by the larger of both clocks."""
        monotonic, wall = self._beat_at
        elapsed = max(time.monotonic() - monotonic, time.time() - wall)
        return elapsed > self._expiry_seconds

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
