"""Cancels a call at each of its suspensions, and tells what an event loop and its databases have left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
import types
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, NamedTuple

DEADLINE_SECONDS = 30.0


class Point(NamedTuple):
    """Where a call is cancelled: at its `at`-th suspension, counted from 1.

    `late`: what it waits for has happened, and it has not gone on yet. So it is done, and its caller is not told.
    """

    at: int
    late: bool


class Cancelled(NamedTuple):
    """The call was cancelled and ended with CancelledError."""


class Ended(NamedTuple):
    """The call ended as if nothing had been: it had fewer suspensions, or was not to be held up by a cancellation."""

    result: Any
    asked: bool


Outcome = Cancelled | Ended


@types.coroutine
def _counted(work: Coroutine[Any, Any, Any], point: Point, asked: list[Point]) -> Generator[Any, Any, Any]:
    """Drive a coroutine as `await` does, and cancel the current task at the point."""
    task = asyncio.current_task()
    assert task is not None
    suspensions = 0
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as end:
            return end.value
        suspensions += 1
        if suspensions == point.at:
            asked.append(point)
            if point.late and waits_for is not None:
                # Called before the task is: it has registered itself later.
                waits_for.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        thrown = None
        try:
            yield waits_for
        except BaseException as exc:  # whatever comes, it is the coroutine's
            thrown = exc


async def cancelled_at(point: Point, work: Coroutine[Any, Any, Any]) -> Outcome:
    """Run a coroutine in a task of its own and cancel it at a point; an error of its own is raised."""
    asked: list[Point] = []

    async def counted() -> Any:
        return await _counted(work, point, asked)

    task = asyncio.create_task(counted())
    await asyncio.wait({task}, timeout=DEADLINE_SECONDS)
    assert task.done(), f"the call hangs after it was cancelled at {point}: {task.get_stack()}"
    return Cancelled() if task.cancelled() else Ended(task.result(), bool(asked))


async def cancelled_at_every_point(case: Callable[[Point], Awaitable[Outcome]]) -> int:
    """Go through a case again and again, cancelling at its 1st, 2nd, ... suspension until there is none left.

    `case` makes a call by `cancelled_at` and looks at what came of it. Returns the number of points.
    """
    points = 0
    for late in (False, True):
        at = 1
        while True:
            outcome = await case(Point(at, late))
            if isinstance(outcome, Ended) and not outcome.asked:
                break
            points += 1
            at += 1
    return points


async def eventually(holds: Callable[[], Awaitable[Any]], what: str) -> None:
    """Wait for what other tasks, threads or processes bring about."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await holds():
        assert time.monotonic() < deadline, f"not so after {DEADLINE_SECONDS:g} s: {what}"
        await asyncio.sleep(0.002)


class Leftovers:
    """What a loop must not leave behind: threads, files, warnings, errors that nobody has looked at."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._files = open_files()
        self._said: list[str] = []

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run `main` in a loop of its own, then raise AssertionError if anything was left behind."""
        handler = _Said(self._said)
        logging.getLogger("asyncio").addHandler(handler)
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                asyncio.run(main)
                gc.collect()
        finally:
            logging.getLogger("asyncio").removeHandler(handler)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._left() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not self._left()
        assert not self._said, "\n".join(self._said)
        assert not told, "\n".join(str(warning.message) for warning in told)

    def _left(self) -> list[str]:
        threads = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        return threads + sorted(open_files() - self._files)


class _Said(logging.Handler):
    def __init__(self, said: list[str]):
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(self.format(record))


def open_files() -> set[str]:
    """Return the files and sockets that this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return found
