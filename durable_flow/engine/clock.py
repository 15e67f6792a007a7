"""Time for the engine: the only place where the loop meets the clock."""

from __future__ import annotations

from typing import Protocol

MICROSECONDS = 1_000_000
"""In a second."""


class Clock(Protocol):
    """The database's time in microseconds since 1970, UTC."""

    def now(self) -> int:
        """Return the time."""
