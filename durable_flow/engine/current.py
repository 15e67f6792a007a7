"""Which execution the code that runs now belongs to."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .execution import Execution
    from .threads import FromThread

current_execution: ContextVar[Execution | FromThread | None] = ContextVar("current_execution", default=None)
"""The execution of the step that runs, also in the tasks and threads that it starts; None outside any step."""
