"""How a run ended: what awaiting its handler gives or raises."""

from __future__ import annotations

import builtins
import sys
from typing import Any, NamedTuple

from ..errors import (
    DeserializationError,
    NeedsAttentionError,
    RunFailedError,
    WorkflowCancelledByUser,
    WorkflowTimeoutError,
)
from ..events import (
    Event,
    StopEvent,
    UnknownEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
    event_name,
)
from ..records import ErrorInfo
from ..state import CANCELLED, COMPLETED, FAILED, NEEDS_ATTENTION, TIMED_OUT, RunState
from .clock import MICROSECONDS


class Outcome(NamedTuple):
    """`event` is the stream's last event, `error` what awaiting raises; a run that needs attention has no event."""

    status: str
    event: Event | None
    error: BaseException | None

    def value(self) -> Any:
        """Return what awaiting gives: `result` of a plain StopEvent, else the event itself; or raise the error."""
        if self.error is not None:
            raise self.error
        assert isinstance(self.event, StopEvent)
        return self.event.result if type(self.event) is StopEvent else self.event

    @classmethod
    def completed(cls, run_id: str, stop: Event) -> Outcome:
        """A run that reached its StopEvent; awaiting raises if that is of a class which this program does not have."""
        return cls(COMPLETED, stop, None if isinstance(stop, StopEvent) else _unknown_result(run_id, stop))

    @classmethod
    def never_started(cls, run_id: str) -> Outcome:
        """A run that was cancelled while it waited for a place among the runs of its instance."""
        error = WorkflowCancelledByUser(f"run {run_id} was cancelled before it was started; nothing of it exists")
        return cls(CANCELLED, WorkflowCancelledEvent(), error)

    @classmethod
    def failed(cls, state: RunState, error: BaseException) -> Outcome:
        """A run that failed in this process: the original exception."""
        return cls(FAILED, _failed_event(state, error), error)

    @classmethod
    def recorded(cls, run_id: str, state: RunState, timeout: float | None, message: str | None = None) -> Outcome:
        """The outcome of a run whose end (other than completion) was folded from its journal."""
        if state.ended == FAILED:
            assert state.error is not None
            error = _failed_error(run_id, state.error, state.error_step)
            return cls(FAILED, _failed_event(state, error.__cause__), error)
        if state.ended == TIMED_OUT:
            event = WorkflowTimedOutEvent(timeout=timeout or 0.0, active_steps=sorted({t.step for t in state.tasks}))
            return cls(TIMED_OUT, event, WorkflowTimeoutError(message or state.timeout_message))
        if state.ended == CANCELLED:
            cancelled = WorkflowCancelledByUser(
                f"run {run_id} was cancelled; flow.retry({run_id!r}) does not take up cancelled runs, start a new one"
            )
            return cls(CANCELLED, WorkflowCancelledEvent(), cancelled)
        return cls(NEEDS_ATTENTION, None, NeedsAttentionError(state.attention or f"run {run_id} needs attention"))


def _unknown_result(run_id: str, event: Event) -> DeserializationError:
    name = event.name if isinstance(event, UnknownEvent) else event_name(type(event))
    return DeserializationError(
        f"run {run_id} has completed with an event {name!r}, and this program has no StopEvent of that name any more. "
        f'Restore the class, or, if it was renamed, let it say so: event_aliases = ("{name}",). What the event holds '
        f"is the last of its stream"
    )


def _failed_event(state: RunState, error: BaseException | None) -> WorkflowFailedEvent:
    assert state.error is not None
    event = WorkflowFailedEvent(
        step_name=state.error_step or "", exception_type=state.error.type, exception_message=state.error.message
    )
    event._exception = error
    for task in state.tasks.values():
        if task.id.step == state.error_step and task.error == state.error and task.retry_at is None:
            event.attempts = task.failures
            if task.began_at is not None and task.failed_at is not None:
                event.elapsed_seconds = (task.failed_at - task.began_at) / MICROSECONDS
    return event


def _failed_error(run_id: str, info: ErrorInfo, step: str | None) -> RunFailedError:
    where = f" in step {step!r}" if step else ""
    error = RunFailedError(
        f"run {run_id} failed{where}: {info.type.removeprefix('builtins.')}: {info.message}. "
        f"flow.retry({run_id!r}) takes up its pending work",
        error_type=info.type,
        error_message=info.message,
        error_traceback=info.traceback,
    )
    error.__cause__ = _rebuilt(info)
    return error


def _rebuilt(info: ErrorInfo) -> BaseException | None:
    """Return the original exception as far as class and message go, without importing anything."""
    module, _, name = info.type.rpartition(".")
    cls = getattr(builtins if module == "builtins" else sys.modules.get(module), name, None)
    if not (isinstance(cls, type) and issubclass(cls, Exception)):
        return None
    try:
        return cls(info.message)
    except Exception:
        return None  # a class with another constructor; the message names it all the same
