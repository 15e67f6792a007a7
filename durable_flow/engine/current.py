"""Which execution the code that runs now belongs to."""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .engine import Engine
    from .execution import Execution
    from .threads import FromThread

current_execution: ContextVar[Execution | FromThread | None] = ContextVar("current_execution", default=None)
"""The execution of the step that runs, also in the tasks and threads that it starts; None outside any step."""


def executing() -> Execution | None:
    """Return the execution of the step that this code runs in, if that belongs to the running loop."""
    current = current_execution.get()
    if current is None:
        return None
    from .execution import Execution

    if isinstance(current, Execution) and current.run.loop is asyncio._get_running_loop():
        return current
    return None


def engine_of(execution: Execution) -> Engine:
    """Return the engine that owns the run of a step."""
    return cast("Engine", execution.run.host)


def outside_of_steps() -> Context:
    """Return a copy of the current context in which no step runs.

    What the engine begins because of a step and goes on with runs in one: it is no part of that step, and would keep
    it in memory.
    """
    context = copy_context()
    if current_execution.get() is not None:
        context.run(current_execution.set, None)
    return context
