"""The heartbeat of an engine, and its look at whether the event loop still turns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..journal.protocol import JournalStore, WorkerId
from ..logs import fields

logger = logging.getLogger("durable_flow")

BLOCKED_LOOP_SECONDS = 1.0
# How often a loop that has runs looks whether it has lapsed. When a stopped process goes on, what is due is called
# before any step goes on: their tasks are woken in the turn after.
PULSE_SECONDS = 0.1


class Moment(NamedTuple):
    """Now, in seconds by both clocks: the monotonic one may stand still while the machine sleeps, the wall may jump."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Look at both clocks."""
        return cls(time.monotonic(), time.time())

    def since(self, earlier: Moment) -> float:
        """Return the seconds since an earlier moment, by the clock that shows more."""
        return max(self.monotonic - earlier.monotonic, self.wall - earlier.wall)


class Heart(threading.Thread):
    """Beats in a thread of its own, so that a step that blocks the loop keeps its runs.

    When no heartbeat got through for a whole expiry, others may have taken the engine's runs. That is a *lapse*. It
    lasts, whatever beats later, until the loop has dropped its runs and calls `renew`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: JournalStore, worker: WorkerId, in_flight: Callable[[], set[str]],
        *, lapsed: Callable[[], None], heartbeat_seconds: float, expiry_seconds: float,
    ):  # fmt: skip
        """Set up the thread; `in_flight` gives the steps in flight, from any thread; `lapsed` is called in the loop."""
        super().__init__(name="durable_flow-heartbeat", daemon=True)
        self._loop = loop
        self._store = store
        self._worker = worker
        self._in_flight = in_flight
        self._on_lapse = lapsed
        self._heartbeat_seconds = heartbeat_seconds
        self._expiry_seconds = expiry_seconds
        self._stopped = threading.Event()
        self._changing = threading.Lock()
        self._beat_at = Moment.now()
        self._lapsed = False
        self._silent_since = self._beat_at
        self._turned_at = time.monotonic()
        self._turned_seconds = 0.0
        self._asked_at: float | None = None
        self._warned = False

    def run(self) -> None:
        """Beat until stopped, or until the loop has ended without a word."""
        while not self._stopped.wait(min(self._heartbeat_seconds, BLOCKED_LOOP_SECONDS)):
            if self._loop.is_closed():
                self._store.abandon(self._worker)
                return
            self._look_at_loop()
            began = Moment.now()
            with self._changing:
                silent = began.since(self._beat_at)
                lapsing = silent > self._expiry_seconds and not self._lapsed
                self._lapsed = self._lapsed or lapsing
            if lapsing:
                # The loop first: a heartbeat makes this engine look alive again, and it is not what it was.
                self._call_soon(self._on_lapse)
            # A tick early is better than a tick late.
            if silent >= self._heartbeat_seconds - BLOCKED_LOOP_SECONDS / 2 and self._store.beat(self._worker):
                with self._changing:
                    # One that began before this process was stopped may end after the loop has made a newer one.
                    self._beat_at = max(self._beat_at, began)

    def _look_at_loop(self) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self._call_soon(self._answered)
        elif now - self._asked_at > BLOCKED_LOOP_SECONDS and not self._warned:
            self._warned = True
            steps = sorted(self._in_flight())
            logger.warning(
                "the event loop has been blocked for over %.0f s; steps in flight: %s. Make the step that blocks it a "
                "plain `def` step, or use asyncio.to_thread. Its runs are kept",
                now - self._asked_at, ", ".join(steps) or "none", extra=fields("loop_blocked", steps=steps),
            )  # fmt: skip

    def _answered(self) -> None:
        self._asked_at = None
        self._warned = False

    def _call_soon(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._loop.call_soon_threadsafe(callback)

    # -- For the loop --------------------------------------------------------------------------------------------------

    def turned(self) -> None:
        """Count the time without a heartbeat in which the loop turns; called by it every `PULSE_SECONDS`."""
        now = time.monotonic()
        if self._silent_since is not self._beat_at:
            self._silent_since, self._turned_seconds = self._beat_at, 0.0
        self._turned_seconds += min(now - self._turned_at, 2 * PULSE_SECONDS)
        self._turned_at = now

    def unanswered(self) -> bool:
        """Tell whether the loop turned while no heartbeat got through: then the database did not answer.

        Else this process stood still, or its loop was blocked, and what the database would have said is not known.
        """
        return self._turned_seconds > self._expiry_seconds / 2

    def lapsed(self) -> bool:
        """Tell whether there was a lapse since the last `renew`."""
        return self._lapsed or Moment.now().since(self._beat_at) > self._expiry_seconds

    def renew(self, began: Moment) -> None:
        """End a lapse by a heartbeat that the loop itself has made, after it has dropped its runs."""
        with self._changing:
            self._beat_at = began
            self._lapsed = False

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
