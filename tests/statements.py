"""SQL statements that a process of the tests compiles once, and not anew for each database that it opens.

SQLAlchemy keeps what it has compiled with each engine. That is right for a program, which has one; tests open thousands
of databases, and compiling took an eighth of all their processor time.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from durable_flow import Journal, StartEvent, StopEvent, Workflow, step


class Compiled(dict[Any, Any]):
    """Compiled statements by what they depend on: the kind of a database, and not which engine reaches it."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_of_any_engine(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_of_any_engine(key), value)


def _of_any_engine(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dialect, *statement = key
    return type(dialect), dialect.paramstyle, getattr(dialect, "server_version_info", None), *statement


_compiled = Compiled()


def share() -> None:
    """Let all engines of this process, and of those that are forked from it, share what they compile."""
    if not event.contains(Engine, "engine_connect", _lend):
        event.listen(Engine, "engine_connect", _lend)


def _lend(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_compiled)


class Nothing(Workflow):
    @step
    async def go(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


def compile_for_forks(url: str | None = None) -> None:
    """Compile what any run needs, by one on a database; by default in a file of its own. For a process that forks."""
    share()
    folder = tempfile.mkdtemp(prefix="durable-flow-")
    try:
        asyncio.run(_use(url or f"sqlite:///{folder}/jobs.db"))
    finally:
        shutil.rmtree(folder)
    # Some threads end a moment after their loop.
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join()


async def _use(url: str) -> None:
    async with Journal(url) as journal:
        flow = Nothing(journal=journal)
        await flow.run(run_id="r")
        await flow.run(run_id="r")  # of a run that is there
        await flow.recover()
        await journal.state("r")
        await journal.history("r")
        async for _ in journal.stream("r"):
            pass
