"""Kills the process that it is installed in, at a chosen point of a chosen commit of the journal's writer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from durable_flow.journal import writer

BEFORE_COMMIT, AFTER_COMMIT, AFTER_ACKNOWLEDGEMENT = POINTS = (
    "before the commit",
    "after the commit, before its acknowledgement",
    "after the acknowledgement",
)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Commits:
    """Counts the commits of this process and kills it at one point of one of them.

    Every commit counts: of a run's creation, of appends, of a claim, of a message that is sent, of a heartbeat.
    """

    def __init__(self) -> None:
        self.count = 0
        self.target: tuple[int, str] | None = None
        self._install()

    def kill_at(self, number: int, point: str) -> None:
        """Kill at this point of this commit; they count from 1."""
        self.target = (number, point)

    def reached(self, point: str) -> bool:
        """Tell whether the process must die here."""
        return self.target == (self.count, point)

    def _install(self) -> None:
        commits = self
        ready, tell = writer.Writer._ready, writer.Writer._tell

        def counted_ready(self: writer.Writer) -> Any:
            return _Connection(ready(self), commits)

        def counted_tell(self: writer.Writer, outcomes: list[tuple[Any, Any]]) -> None:
            if commits.reached(AFTER_COMMIT):
                kill_this_process()
            loops = {job.future.get_loop() for job, _ in outcomes if hasattr(job.future, "get_loop")}
            dies = commits.reached(AFTER_ACKNOWLEDGEMENT)
            tell(self, outcomes)
            if dies:
                for loop in loops:
                    # Behind the callbacks of the acknowledgement and the first lines of the steps that they start.
                    loop.call_soon_threadsafe(_in_turns, loop.call_soon, 2)

        writer.Writer._ready = counted_ready
        writer.Writer._tell = counted_tell


def _in_turns(call_soon: Callable[..., Any], turns: int) -> None:
    if turns == 0:
        kill_this_process()
    call_soon(_in_turns, call_soon, turns - 1)


class _Connection:
    """The writer's connection, with an eye on its commits."""

    def __init__(self, connection: Any, commits: Commits):
        self._connection = connection
        self._commits = commits

    def execute(self, text: str, *params: Any) -> Any:
        if text == "COMMIT":
            self._commits.count += 1
            if self._commits.reached(BEFORE_COMMIT):
                kill_this_process()
        return self._connection.execute(text, *params)
