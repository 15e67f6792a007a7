"""What leaves the loop of a run once an append is durable: who waits is told, and what is due is done."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, assert_never

from ..commands import Command, EndByTimeout, ExpireWait, FireTimer, ParkAside, RunStep, WakeAt
from ..incoming import AttentionNeeded, TimeIsUp, TimerDue, WaitDue
from ..journal.protocol import StreamRow
from ..logs import fields
from ..records import (
    ChildEnded,
    EventEmitted,
    Record,
    StepCompleted,
    StepDiverged,
    StepFailed,
    StreamPublished,
    StreamReset,
    TimerFired,
    WaitAnswered,
    WaitClosed,
    WaitTimedOut,
)
from .collecting import warn_if_ignored
from .reasons import why_aside, why_timed_out

if TYPE_CHECKING:
    from .run import Run

logger = logging.getLogger("durable_flow")


def publish(run: Run, record: Record) -> None:
    """Tell those who wait in this process what has become durable."""
    fact = record.fact
    match fact:
        case StepCompleted():
            run.step_ended(fact.task)
            if run.state.children:
                run.host.step_left(run, fact.task, fact.attempt)
        case StreamPublished():
            task, step = fact.task if fact.task is not None else (None, None)
            for position, item in enumerate(fact.items, fact.first):
                run.tail.add(StreamRow(position, record.at, step, item, fact.wait_id, None, task))
        case StreamReset():
            task, step = fact.task
            run.tail.add(StreamRow(fact.position, record.at, step, None, None, fact.since, task))
        case WaitAnswered() | WaitTimedOut() | WaitClosed():
            run.waiting.wake(fact.wait_id)
        case TimerFired():
            run.waiting.wake(fact.timer)
        case StepDiverged():
            logger.warning(
                "step %r of run %s ran again after a crash and came to another %s of %r; the recorded one stands",
                fact.task.step, run.run_id, fact.kind, fact.name,
                extra=fields("step_diverged", run.run_id, fact.task.step, fact.attempt),
            )  # fmt: skip
        case StepFailed():
            run.step_ended(fact.task)
            retry = "" if fact.retry_at is None else "; it is tried again"
            if fact.handler is not None:
                retry = f"; {fact.handler} takes it"
                if run.state.children:
                    run.host.step_left(run, fact.task, fact.attempt + 1)
            logger.warning(
                "step %r of run %s failed (attempt %d): %s%s",
                fact.task.step, run.run_id, fact.attempt, fact.error.type, retry,
                extra=fields("step_failed", run.run_id, fact.task.step, fact.attempt),
            )  # fmt: skip
        case ChildEnded():
            if run.children is not None:
                run.children.ended(fact.child)
        case EventEmitted(targets=(), joins=(), answers=None) if run.program.has_joins:
            warn_if_ignored(run.program, run.run_id, fact)
        case _:
            pass  # nobody in this process waits for it


def carry_out(run: Run, command: Command) -> None:
    """Do what is due."""
    match command:
        case RunStep():
            if (run.gate is None or run.gate.lets(command.task)) and (
                run.checkpointing is None or run.checkpointing.lets(command.task)
            ):
                run.start(run.state.tasks[command.task])
        case FireTimer():
            run.accept(TimerDue(command.timer))
        case ExpireWait():
            run.accept(WaitDue(command.wait_id))
        case EndByTimeout():
            called_for = None if run.checkpointing is None else run.checkpointing.called_for
            run.accept(TimeIsUp(why_timed_out(run.run_id, run.program, run.state, run.running_steps(), called_for)))
        case ParkAside():
            run.accept(AttentionNeeded(why_aside(run.run_id, run.program, run.state, command.steps)))
        case WakeAt():
            run.set_alarm(command.at)
        case _:
            assert_never(command)
