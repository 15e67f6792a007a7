"""Time and ids for the engine: the only place where the loop meets the clock and chance."""

from __future__ import annotations

import os
import time
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """The database's time in microseconds since 1970, UTC."""

    def now(self) -> int:
        """Return the time."""


class Ids(Protocol):
    """Where new ids come from."""

    def run_id(self) -> str:
        """Return a new run id."""

    def uid(self) -> str:
        """Return a new random uid, from which idempotency keys are derived."""


class RandomIds:
    """Ids for real use: run ids are uuid7, so that they sort by time."""

    def run_id(self) -> str:
        """Return a uuid7 as text. Source: RFC 9562, section 5.7."""
        millis = time.time_ns() // 1_000_000
        bits = int.from_bytes(os.urandom(10))
        value = (millis & (1 << 48) - 1) << 80 | bits
        value = value & ~(0xF << 76) | 7 << 76
        value = value & ~(0x3 << 62) | 2 << 62
        return str(UUID(int=value))

    def uid(self) -> str:
        """Return 128 random bits as hex."""
        return os.urandom(16).hex()
