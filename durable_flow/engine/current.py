"""Which execution the code that runs now belongs to."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .execution import Execution
    from .threads import FromThread

current_execution: ContextVar[Execution | FromThread | None] = ContextVar("current_execution", default=None)
"""The execution of the step that runs, also in the tasks and threads that it starts; None outside any step."""


def outside_of_steps() -> Context:
    """Return a copy of the current context in which no step runs.

    What the engine begins because of a step and goes on with runs in one: it is no part of that step, and would keep
    it in memory.
    """
    context = copy_context()
    if current_execution.get() is not None:
        context.run(current_execution.set, None)
    return context
