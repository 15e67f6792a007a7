"""Kills the process that it is installed in, at a chosen point of a chosen commit of the journal."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncTransaction

from durable_flow.journal import writer
from durable_flow.journal.postgres_writer import PostgresWriter

BEFORE_COMMIT, IN_COMMIT, AFTER_COMMIT, AFTER_ACKNOWLEDGEMENT = POINTS = (
    "before the commit",
    "in the commit",
    "after the commit, before its acknowledgement",
    "after the acknowledgement",
)
# So long after a commit began a process is killed in it: one of these, by the commit's number. Enough for some kills to
# come while the database prepares, some while it writes, and some when its answer lies there unread.
IN_COMMIT_SECONDS = (0.0, 0.0003, 0.0006, 0.0012, 0.0024)


class Commits:
    """Counts the commits of this process and kills it at one point of one of them.

    Every commit counts: of a run's creation, of appends, of a claim, of a message that is sent, of a heartbeat. The
    server whose pid is `dies_with` dies in the same moment: it is told to end at once, without tidying up.
    """

    def __init__(self, dies_with: int | None = None) -> None:
        self.count = 0
        self.target: tuple[int, str] | None = None
        self._dies_with = dies_with
        self._install()

    def kill_at(self, number: int, point: str) -> None:
        """Kill at this point of this commit; they count from 1."""
        self.target = (number, point)

    def kill(self) -> None:
        """Kill this process."""
        if self._dies_with is not None:
            os.kill(self._dies_with, signal.SIGQUIT)
        os.kill(os.getpid(), signal.SIGKILL)

    def _begin(self) -> int:
        self.count += 1
        return self.count

    def _kill_if(self, number: int, point: str) -> None:
        if self.target == (number, point):
            self.kill()

    def _kill_from_a_thread(self, number: int) -> None:
        if self.target == (number, IN_COMMIT):
            threading.Timer(_seconds_into(number), self.kill).start()

    def _in_turns(self, call_soon: Callable[..., Any], turns: int) -> None:
        if turns == 0:
            self.kill()
        call_soon(self._in_turns, call_soon, turns - 1)

    async def _at_a_commit(self, commit: Awaitable[Any]) -> Any:
        """Make a commit by a request to a server; its caller hands on the acknowledgement without a further wait."""
        number = self._begin()
        self._kill_if(number, BEFORE_COMMIT)
        if self.target == (number, IN_COMMIT):
            # The request leaves in the task's first turn, and the server may do what it wants with it.
            await asyncio.wait({asyncio.ensure_future(commit)}, timeout=_seconds_into(number))
            self.kill()
        answer = await commit
        self._kill_if(number, AFTER_COMMIT)
        if self.target == (number, AFTER_ACKNOWLEDGEMENT):
            # Behind the callbacks of the acknowledgement and the first lines of the steps that they start; the loop of
            # another thread, that of a heartbeat, starts none and ends with this commit.
            in_steps = threading.current_thread() is threading.main_thread()
            self._in_turns(asyncio.get_running_loop().call_soon, 3 if in_steps else 0)
        return answer

    def _install(self) -> None:
        """Install the kills in what commits: the writer of SQLite, and that of Postgres and its rarer writes."""
        commits = self
        ready, tell = writer.Writer._ready, writer.Writer._tell

        def counted_ready(self: writer.Writer) -> Any:
            return _Connection(ready(self), commits)

        def counted_tell(self: writer.Writer, outcomes: list[tuple[Any, Any]]) -> None:
            commits._kill_if(commits.count, AFTER_COMMIT)
            loops = {job.future.get_loop() for job, _ in outcomes if hasattr(job.future, "get_loop")}
            dies = commits.target == (commits.count, AFTER_ACKNOWLEDGEMENT)
            tell(self, outcomes)
            if dies:
                for loop in loops:
                    # As above; from the writer's thread, the first turn is the one that it wakes the loop for.
                    loop.call_soon_threadsafe(commits._in_turns, loop.call_soon, 2)
                if not loops:
                    commits.kill()

        writer.Writer._ready = counted_ready
        writer.Writer._tell = counted_tell

        fetch, commit = PostgresWriter._fetch, AsyncTransaction.commit

        def counted_fetch(self: PostgresWriter, connection: Any, text: str, *arguments: Any) -> Awaitable[Any]:
            fetching = fetch(self, connection, text, *arguments)
            # The others only read.
            return commits._at_a_commit(fetching) if text.startswith("WITH ") else fetching

        def counted_commit(self: AsyncTransaction) -> Awaitable[Any]:
            return commits._at_a_commit(commit(self))

        PostgresWriter._fetch = counted_fetch
        AsyncTransaction.commit = counted_commit


def _seconds_into(number: int) -> float:
    return IN_COMMIT_SECONDS[number % len(IN_COMMIT_SECONDS)]


class _Connection:
    """The connection of SQLite's writer, with an eye on its commits."""

    def __init__(self, connection: Any, commits: Commits):
        self._connection = connection
        self._commits = commits

    def execute(self, text: str, *params: Any) -> Any:
        if text == "COMMIT":
            number = self._commits._begin()
            self._commits._kill_if(number, BEFORE_COMMIT)
            self._commits._kill_from_a_thread(number)
        return self._connection.execute(text, *params)
