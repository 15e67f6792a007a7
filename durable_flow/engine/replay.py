"""The order in which a step that runs again gets its recorded outcomes: that of the journal, before any new one."""

from __future__ import annotations

import asyncio

# A replayed strand may need a few turns of the loop (nested tasks) before it asks for its recorded outcome.
TURNS_TO_SETTLE = 3
# Behind every record: for what a later attempt takes over from an earlier one.
NEVER_RECORDED = 1 << 62


class ReplayOrder:
    """Hands outcomes to the strands of a step, the oldest of those awaited at the same time first."""

    __slots__ = ("_loop", "_turns", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._turns = 0

    @property
    def under_way(self) -> bool:
        """Tell whether recorded outcomes are being handed out."""
        return self._turns > 0

    async def in_turn(self, seq: int) -> None:
        """Wait until every outcome awaited at the same time that is older has been handed out and made use of."""
        future = self._loop.create_future()
        self._waiting.append((seq, future))
        if not self._turns:
            self._loop.call_soon(self._hand_out)
        self._turns = TURNS_TO_SETTLE
        await future

    def _hand_out(self) -> None:
        self._turns -= 1
        if not self._turns:
            if not self._waiting:
                return
            oldest = min(self._waiting, key=lambda item: item[0])
            self._waiting.remove(oldest)
            if not oldest[1].done():
                oldest[1].set_result(None)
            self._turns = TURNS_TO_SETTLE
        self._loop.call_soon(self._hand_out)
