"""Time and ids for the engine: the only place where the loop meets the clock and chance."""

from __future__ import annotations

import os
import time
from typing import Protocol
from uuid import UUID

MICROSECONDS = 1_000_000
"""In a second."""


class Clock(Protocol):
    """The database's time in microseconds since 1970, UTC."""

    def now(self) -> int:
        """Return the time."""


def new_run_id() -> str:
    """Return a uuid7 as text, so that run ids sort by time. Source: RFC 9562, section 5.7."""
    millis = time.time_ns() // 1_000_000
    bits = int.from_bytes(os.urandom(10))
    value = (millis & (1 << 48) - 1) << 80 | bits
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(UUID(int=value))


def new_uid() -> str:
    """Return 128 random bits as hex: a worker's id, or the uid of a run, from which idempotency keys are derived."""
    return os.urandom(16).hex()
