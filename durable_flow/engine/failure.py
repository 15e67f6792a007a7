"""What follows from a failed attempt: another one later, a handler that takes the failure, or the end of the run."""

from __future__ import annotations

import hashlib
import traceback
from typing import TYPE_CHECKING

from ..errors import DeserializationError, SerializationError
from ..events import CollectionReleaseEvent, Event, StepFailedEvent
from ..incoming import StepRaised
from ..journal.times import at_moment
from ..records import EncodedEvent, EncodedValue, ErrorInfo, Fact
from ..retries import RetryInfo
from ..serializers.exceptions import put_together, take_apart, unreconstructed
from ..state import Task
from .clock import MICROSECONDS

if TYPE_CHECKING:
    from ..serializers.codec import Codec
    from .execution import Execution
    from .run import Run

MAX_TRACEBACK = 20_000


def after_failure(
    run: Run, execution: Execution, task: Task, drafts: tuple[Fact, ...], error: BaseException
) -> StepRaised:
    """Return what an attempt's error leads to; `drafts` are those of its end, to which the end of a run adds all."""
    now = run.clock.now()
    began_at = _began_at(task) if task.failures else execution.began_at
    if isinstance(error, Exception):
        elapsed = max(0, now - began_at) / MICROSECONDS
        try:
            delay = run.program.retry_delay(task.id.step, elapsed, task.failures + 1, error, _seed(run, task))
        except Exception as policy_error:
            if policy_error is not error and policy_error.__cause__ is None:
                policy_error.__cause__ = error
            policy_error.add_note(
                f"This was raised by the retry policy of step {task.id.step!r}, run {run.run_id}, asked about failure "
                f"{task.failures + 1}, a {type(error).__name__}. Repair the policy: next() returns seconds or "
                f"None; flow.retry({run.run_id!r}) goes on with the run."
            )
            error, delay = policy_error, None
        if delay is not None:
            run.last_errors[task.id] = error
            retry_at = now + round(max(0.0, delay) * MICROSECONDS)
            return StepRaised(
                task.id, execution.attempt, drafts, describe(error), retry_at,
                exception=_encoded(run, error), began_at=began_at,
            )  # fmt: skip
        handler = _handler(run, task, error)
        encoded = _to_handler(run, task, error, elapsed, now, handler) if handler is not None else None
        if encoded is not None:
            return StepRaised(
                task.id, execution.attempt, drafts, describe(error), None, handler=handler, event=encoded,
                began_at=began_at,
            )  # fmt: skip
    drafts = (*drafts, *run.everybodys_drafts())
    run.failure = run.failure or error
    return StepRaised(task.id, execution.attempt, drafts, describe(error), None, began_at=began_at)


def retry_info(run: Run, task: Task, last_error: Exception | None) -> RetryInfo:
    """Return what `ctx.retry_info()` gives; `last_error` is the live exception, in the process where it was raised."""
    if not task.failures or task.error is None:
        return RetryInfo(0, 0.0, None, None)
    elapsed = max(0, run.clock.now() - _began_at(task)) / MICROSECONDS
    if last_error is None:
        last_error = _decoded(run, task.exception, task.error)
    failed_at = at_moment(task.failed_at) if task.failed_at is not None else None
    return RetryInfo(task.failures, elapsed, last_error, failed_at)


def describe(error: BaseException) -> ErrorInfo:
    """Return an exception as data."""
    cls = type(error)
    text = "".join(traceback.format_exception(error))
    try:
        message = str(error)
    except Exception:
        message = "<str() of the exception failed>"
    return ErrorInfo(f"{cls.__module__}.{cls.__qualname__}", _clean(message), _clean(text[-MAX_TRACEBACK:]))


def _seed(run: Run, task: Task) -> int:
    """Return a number that is this failure's alone, and the same wherever it is worked out."""
    text = f"{run.state.uid}:{task.id.seq}:{task.id.step}:{task.failures}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _began_at(task: Task) -> int:
    """Return when the first of the recorded attempts began; journals of older versions do not say it."""
    return task.created_at if task.began_at is None else task.began_at


def _handler(run: Run, task: Task, error: Exception) -> str | None:
    """Return the step that takes this task's failure, None if there is none or its budget is used up."""
    found = run.program.handler_for(task.id.step)
    if found is None:
        return None
    name, budget = found
    if (task.recoveries or {}).get(name, 0) < budget:
        return name
    error.add_note(
        f"@catch_error handler {name!r} did not get this failure of step {task.id.step!r}: it has taken "
        f"max_recoveries={budget} among the events that led here (run {run.run_id})"
    )
    return None


def _to_handler(run: Run, task: Task, error: Exception, elapsed: float, now: int, handler: str) -> EncodedEvent | None:
    """Return the encoded event for the handler, None if the failure cannot be stored: then nobody can take it."""
    codec = run.program.codec
    try:
        event = StepFailedEvent(
            step_name=task.id.step, input_event=_input_event(codec, task), exception=error,
            attempts=task.failures + 1, elapsed_seconds=elapsed, failed_at=at_moment(now),
        )  # fmt: skip
        encoded = _exactly(run, event)
        if encoded is None:
            info = describe(error)
            stored = event.model_copy(update={"exception": unreconstructed(info.type, info.message)})
            encoded = codec.encode_event(stored)
    except (SerializationError, DeserializationError) as second:
        error.add_note(
            f"@catch_error handler {handler!r} did not get this failure of step {task.id.step!r}, because the event "
            f"for it cannot be stored: {second} (run {run.run_id})"
        )
        return None
    run.keep_live(encoded, event, (handler,))
    return encoded


def _input_event(codec: Codec, task: Task) -> Event:
    if task.event is not None:
        return codec.decode_event(task.event)
    return CollectionReleaseEvent(events=[codec.decode_event(event) for event in task.joined or ()])


def _exactly(run: Run, event: StepFailedEvent) -> EncodedEvent | None:
    """Return the encoded event if its exception can be rebuilt as it is."""
    codec = run.program.codec
    try:
        encoded, _ = run.live.encode_event(event)
        again = codec.decode_event(encoded)
    except Exception:  # from the exception's own code, whatever it is
        return None
    same = isinstance(again, StepFailedEvent) and _is_same(again.exception, event.exception)
    return encoded if same else None


def _encoded(run: Run, error: Exception) -> EncodedValue | None:
    try:
        return run.program.codec.encode_value(take_apart(error), "exception")
    except Exception:  # from the exception's own code, or it holds what cannot be stored
        return None


def _decoded(run: Run, encoded: EncodedValue | None, info: ErrorInfo) -> Exception:
    if encoded is not None:
        try:
            return put_together(run.program.codec.decode_value(encoded))
        except Exception:
            pass  # it holds an object of a class that is gone
    return unreconstructed(info.type, info.message)


def _is_same(one: BaseException, other: BaseException) -> bool:
    return type(one) is type(other) and str(one) == str(other)


def _clean(text: str) -> str:
    """Return text that every database takes: no NUL, no lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
