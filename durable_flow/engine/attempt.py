"""One attempt of a step: it is called, and what it returned or raised becomes what the loop decides about."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import DeserializationError, SerializationError, StepDivergedError, StepReleased, WorkflowRuntimeError
from ..events import Event, HumanResponseEvent, InputRequiredEvent, StopEvent, UnknownEvent
from ..incoming import AttentionNeeded, Collectors, Question, StepRaised, StepReturned
from ..records import EncodedEvent, EventEmitted
from ..state import Task
from . import narration
from .answers import answer_names, answer_schema
from .collecting import joins_in
from .current import current_execution
from .execution import Execution
from .failure import after_failure, describe
from .handed import sentence
from .reasons import why_unreadable
from .threads import FromThread, in_a_thread

if TYPE_CHECKING:
    from .run import Run


async def make_attempt(run: Run, execution: Execution, task: Task, event: Event | tuple[Event, ...] | None) -> None:
    """Run one attempt of a step and accept its outcome."""
    step = task.id.step
    try:
        if event is None:
            event = _input(run, task)
            if event is None:
                return
        if run.program.verbose:
            narration.step_began(execution, event)
        given = await run.program.inject(step, run.run_id) if step in run.program.injected_steps else None
        if step in run.program.sync_steps:
            thread = FromThread(execution)
            current_execution.set(thread)
            result = await in_a_thread(thread, run.program.call, step, event, thread, given)
        else:
            current_execution.set(execution)
            result = await run.program.call(step, event, execution, given)
        current_execution.set(None)
        if forgotten := execution.handed.forgotten():
            raise WorkflowRuntimeError(
                f"step {step!r} of run {run.run_id} (attempt {execution.attempt}): "
                + sentence(forgotten, is_async=step not in run.program.sync_steps)
            )
        try:
            events = run.program.emitted(step, result)
        except WorkflowRuntimeError as error:
            if inspect.iscoroutine(result):
                result.close()  # else Python warns later, without saying which step it was
            raise WorkflowRuntimeError(f"{error} (run {run.run_id}, attempt {execution.attempt})") from None
        fan_out = run.program.fan_outs.get(step)
        if fan_out is not None and not isinstance(result, list | tuple):
            fan_out = None
        returned = _returned(run, execution, events, fan_out)
        if run.program.verbose:
            narration.step_returned(execution, events)
    except StepReleased:
        if not run.closed:
            raise
    except asyncio.CancelledError as error:
        if run.closed:
            return
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            run.release()  # as a crash: nothing is recorded, the step starts again when the run is taken up
            raise
        cancelled = WorkflowRuntimeError(
            f"step {step!r} of run {run.run_id} awaited something that was cancelled; catch "
            "asyncio.CancelledError around it, or let the step return"
        )
        cancelled.__cause__ = error
        await _raised(run, execution, task, cancelled)
    except (KeyboardInterrupt, SystemExit):
        run.release()
        raise
    except BaseException as error:
        if run.closed:
            return
        if isinstance(error, SerializationError | DeserializationError):
            error.add_note(f"This was in step {step!r} of run {run.run_id}, attempt {execution.attempt}.")
        if forgotten := execution.handed.forgotten():
            error.add_note(
                f"Before that, in step {step!r} of run {run.run_id}, attempt {execution.attempt}: "
                + sentence(forgotten, is_async=step not in run.program.sync_steps)
            )
        await _raised(run, execution, task, error)
    else:
        if run.closed:
            return
        run.accept(returned)
    finally:
        execution.handed.forgotten()  # what was never begun would keep the execution, which keeps it


def _input(run: Run, task: Task) -> Event | tuple[Event, ...] | None:
    """Return the task's event or events, decoded afresh, as far as the objects are not at hand.

    If one cannot be read, the step has not failed: the run is parked.
    """
    try:
        run.program.check_input(task.id.step, None if task.joined is None else len(task.joined))
        if task.joined is None:
            assert task.event is not None
            return _decoded(run, task, task.event)
        return tuple(run.take_live(task, encoded) or _decoded(run, task, encoded) for encoded in task.joined)
    except DeserializationError as error:
        run.accept(AttentionNeeded(why_unreadable(run.run_id, task.id, error)))
        return None


def _decoded(run: Run, task: Task, encoded: EncodedEvent) -> Event:
    event = run.program.codec.decode_event(encoded)
    step = task.id.step
    if run.program.accepts(step, event):
        return event
    if type(event) is UnknownEvent:
        raise DeserializationError(
            f"this program has no event class {encoded.name!r} any more; restore it, or, if it was renamed, let the "
            f'class say so: event_aliases = ("{encoded.name}",)'
        )
    # A class that was defined again, in a notebook or by another module, is another object of the same name.
    if not run.program.accepts_name(step, encoded.name):
        raise DeserializationError(f"step {step!r} takes {encoded.name} no longer; let it take that class again")
    return event


def _returned(run: Run, execution: Execution, events: Sequence[Event], fan_out: Collectors | None) -> StepReturned:
    emitted: list[EventEmitted | Question] = []
    stop: EncodedEvent | None = None
    stop_event: StopEvent | None = None
    joins: tuple[str, ...] = ()
    bound = _bound_joins(run, execution, fan_out) if run.program.has_joins else None
    for event in events:
        encoded, event = run.live.encode_event(event)
        if isinstance(event, StopEvent):
            stop, stop_event = encoded, event
            break
        targets = run.program.targets(event)
        if bound is not None:
            joins = joins_in(run.program, type(event), bound)
        if not joins:
            run.keep_live(encoded, event, targets)
        elif not targets and bound is not None and all(bound.get(join) == 0 for join in joins):
            # A join of all takes every one of them, so none is kept for nothing.
            run.keep_live(encoded, event, joins)
        fact = EventEmitted(encoded, execution.task_id, execution.attempt, None, targets, joins=joins)
        if isinstance(event, InputRequiredEvent):
            answers = run.program.answer_types or (HumanResponseEvent,)
            emitted.append(Question(fact, answer_names(run.program), answer_schema(answers)))
        else:
            emitted.append(fact)
    drafts = execution.finish(completed=True)
    run.stop_event = run.stop_event or stop_event  # not before: an attempt that fails here has returned nothing
    if stop is not None:
        drafts = (*drafts, *run.everybodys_drafts())
    return StepReturned(execution.task_id, execution.attempt, drafts, tuple(emitted), stop, fan_out)


def _bound_joins(run: Run, execution: Execution, fan_out: Collectors | None) -> Mapping[str, int]:
    """Return what collects lists in the fan-out that the step's events belong to, each with its number (0: all)."""
    if fan_out is not None:
        return dict(zip(fan_out.joins, fan_out.takes, strict=True))
    around = run.state.fan_outs.get(run.state.tasks[execution.task_id].scope)
    return {} if around is None else around.joins


async def _raised(run: Run, execution: Execution, task: Task, error: BaseException) -> None:
    current_execution.set(None)  # the retry policy is no part of the step
    await execution.calls_settled()
    if run.closed:
        return
    try:
        drafts = execution.finish(completed=False)
    except SerializationError as second:
        # A value changed in place into something that cannot be encoded: this goes with the attempt, for everybody.
        if str(second) != str(error):
            error.add_note(f"and a change in place of its context was undone: {second}")
        execution.drop_changes()
        drafts = execution.finish(completed=False)
    if run.program.verbose:
        narration.step_raised(execution, error)
    if isinstance(error, StepDivergedError):
        run.accept(StepRaised(task.id, execution.attempt, drafts, describe(error), None, str(error)))
    else:
        run.accept(after_failure(run, execution, task, drafts, error))
