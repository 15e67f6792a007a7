"""`verbose=True`: a line on stdout and in the log when a step starts and ends. Names only, never a payload."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..logs import fields

if TYPE_CHECKING:
    from ..events import Event
    from .execution import Execution

logger = logging.getLogger("durable_flow")


def step_began(execution: Execution, event: Event | tuple[Event, ...]) -> None:
    """Tell that a step starts."""
    events = event if isinstance(event, tuple) else (event,)
    names = ", ".join(type(event).__name__ for event in events)
    _say(execution, logging.INFO, "step_started", f"Running step {execution.step}", event=names)


def step_returned(execution: Execution, events: Sequence[Event]) -> None:
    """Tell what a step has returned, and the context keys that it wrote."""
    names = [type(event).__name__ for event in events]
    produced = f"event {', '.join(names)}" if names else "no event"
    _say(execution, logging.INFO, "step_returned", f"Step {execution.step} produced {produced}", events=names)
    _tell_keys(execution)


def step_raised(execution: Execution, error: BaseException) -> None:
    """Tell that a step has raised, and the context keys that it wrote."""
    name = type(error).__name__
    _say(execution, logging.INFO, "step_raised", f"Step {execution.step} raised {name}", error=name)
    _tell_keys(execution)


def _tell_keys(execution: Execution) -> None:
    keys = execution.written_keys()
    if keys:
        text = f"Step {execution.step} wrote context keys {', '.join(keys)}"
        _say(execution, logging.DEBUG, "context_written", text, keys=keys)


def _say(execution: Execution, level: int, action: str, text: str, **more: object) -> None:
    print(text)
    run_id = execution.run.run_id
    extra = fields(action, run_id, execution.step, execution.attempt, **more)
    logger.log(level, "%s (run %s, attempt %d)", text, run_id, execution.attempt, extra=extra)
