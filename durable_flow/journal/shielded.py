"""Work on a database that nobody interrupts: who waits for it may be cancelled, the work itself ends as it would."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_under_way: set[asyncio.Task[None]] = set()


class _Shielded(asyncio.Task[None]):
    """A task that cannot be cancelled, not even by `asyncio.run` as it ends, which then waits for it.

    A statement that is cancelled half-way leaves its outcome unknown and its connection in an unknown state.
    """

    ending = False

    def cancel(self, msg: Any = None) -> bool:
        self.ending = True
        return False


def begin(work: Coroutine[Any, Any, Result]) -> asyncio.Future[Result]:
    """Start work that ends by itself, and soon: it has a deadline of its own."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result] = loop.create_future()
    outcome.add_done_callback(_retrieved)
    task = _Shielded(_done(work, outcome), loop=loop)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return outcome


async def shielded(work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work to its end and return its result; cancelling only gives up waiting for it."""
    return await asyncio.shield(begin(work))


def is_last_try() -> bool:
    """Tell whether the event loop waits for this work to end: what fails now is not to be tried again."""
    task = asyncio.current_task()
    return isinstance(task, _Shielded) and task.ending


async def _done(work: Coroutine[Any, Any, Result], outcome: asyncio.Future[Result]) -> None:
    # Told by a future: an error of a task would be reported by `asyncio.run`, although somebody has been told.
    try:
        result = await work
    except asyncio.CancelledError:
        outcome.cancel()
    except Exception as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)


def _retrieved(outcome: asyncio.Future[Any]) -> None:
    if not outcome.cancelled():
        outcome.exception()  # it may be that nobody waits for it any more
