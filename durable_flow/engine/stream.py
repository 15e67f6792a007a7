"""The latest published items of a run in memory; older ones are read from the stream table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from ..journal.protocol import StreamRow

MAX_ITEMS_IN_MEMORY = 4096


class StreamTail:
    """Items by position, from a first one on that moves as more are published."""

    def __init__(self, position: int):
        self.last = position
        self._rows: deque[StreamRow] | None = None
        self.listeners: set[Callable[[], None]] = set()

    def add(self, row: StreamRow) -> None:
        """Append a durable item and tell the listeners."""
        if self._rows is None:
            self._rows = deque(maxlen=MAX_ITEMS_IN_MEMORY)
        self._rows.append(row)
        self.last = row.position
        for listener in tuple(self.listeners):
            listener()

    def after(self, position: int) -> list[StreamRow] | None:
        """Return the items behind a position; None if not all of them are in memory."""
        if position >= self.last:
            return []
        if not self._rows or self._rows[0].position > position + 1:
            return None
        # Positions have no gaps, so this many are new; from the end, because a live reader has seen almost all.
        new = list(islice(reversed(self._rows), self.last - position))
        new.reverse()
        return new
