"""Work on a database that nobody interrupts: who waits for it may be cancelled, the work itself ends as it would."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_under_way: set[asyncio.Task[Any]] = set()


class _Shielded(asyncio.Task[Result]):
    """A task that cannot be cancelled, not even by `asyncio.run` as it ends, which then waits for it.

    A statement that is cancelled half-way leaves its outcome unknown and its connection in an unknown state.
    """

    def cancel(self, msg: Any = None) -> bool:
        return False


def begin(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Start work that ends by itself, and soon: it has a deadline of its own."""
    task = _Shielded(work, loop=asyncio.get_running_loop())
    _under_way.add(task)
    task.add_done_callback(_end)
    return task


def _end(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # it may be that nobody waits for it any more


async def shielded(work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work to its end and return its result; cancelling only gives up waiting for it."""
    return await asyncio.shield(begin(work))
