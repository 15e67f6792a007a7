"""A run's journal in words: one row for each group of records that was decided, and written, together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, assert_never

from ..records import (
    BufferReleased,
    CallRecorded,
    CheckpointNamed,
    ChildAsked,
    ChildEnded,
    ChildStarted,
    ContextDeleted,
    ContextSet,
    ContextSpliced,
    EffectReused,
    EventCollected,
    EventEmitted,
    Fact,
    FanOutClosed,
    FanOutOpened,
    JoinFired,
    JournalCompacted,
    MessageReceived,
    PendingDropped,
    Record,
    RunAtRest,
    RunCancelled,
    RunClaimed,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    RunTimedOut,
    StateEdited,
    StateImported,
    StepCompleted,
    StepDiverged,
    StepFailed,
    StreamPublished,
    StreamReset,
    TaskId,
    TimerFired,
    TimerSet,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
    WaitTimedOut,
)


class Row(NamedTuple):
    """A group of records: their numbers, seconds since the run began, the step that acted ("" for none), and what."""

    seq: str
    seconds: str
    step: str
    what: str


def rows(records: Sequence[Record]) -> list[Row]:
    """Return the rows of a run's whole journal."""
    return [_row(group, records[0].at) for group in _groups(records)]


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    for record in records:
        group.append(record)
        if record.boundary:
            yield group
            group = []
    if group:
        yield group


def _row(group: Sequence[Record], start: int) -> Row:
    first, last = group[0], group[-1]
    tasks = [task for record in group if (task := _task(record.fact)) is not None]
    return Row(
        seq=str(first.seq) if first is last else f"{first.seq}-{last.seq}",
        seconds=f"{(first.at - start) / 1_000_000:.3f}",
        step=tasks[0].step if tasks else "",
        what="; ".join(_counted(describe(record.fact) for record in group)),
    )


def _counted(words: Iterable[str]) -> Iterator[str]:
    for word, same in groupby(words):
        times = sum(1 for _ in same)
        yield word if times == 1 else f"{word} (x{times})"


def _task(fact: Fact) -> TaskId | None:
    return getattr(fact, "task", None)


def describe(fact: Fact) -> str:
    """Return what happened, in a few words."""
    match fact:
        case ContextSet():
            return f"context {fact.key} set"
        case ContextSpliced():
            return f"context {fact.key} set: {fact.keep:,} bytes as before, {len(fact.tail.data):,} others"
        case ContextDeleted():
            return f"context {fact.key} deleted"
        case EventEmitted():
            takers = [*fact.targets, *(f"{join} (collects)" for join in fact.joins)]
            return f"{fact.event.name} -> {', '.join(takers)}" if takers else fact.event.name
        case StepCompleted():
            return "completed"
        case StepFailed():
            taken = f"; {fact.handler} takes it" if fact.handler is not None else ""
            return f"attempt {fact.attempt} failed: {fact.error.type}: {fact.error.message}{taken}"
        case StreamPublished():
            return "published to the stream"
        case CallRecorded():
            return f"call {fact.name} returned"
        case EventCollected():
            return f"collected {fact.event.name}"
        case BufferReleased():
            return f"joined {len(fact.events)} events"
        case WaitOpened():
            return (
                f"asks, waits for {' or '.join(fact.wanted)}" if fact.human else f"waits for {' or '.join(fact.wanted)}"
            )
        case WaitAnswered():
            return "the wait is answered"
        case WaitTimedOut():
            return "the wait timed out"
        case WaitClosed():
            return "the wait is closed"
        case MessageReceived():
            return f"{fact.kind} received from outside"
        case EffectReused():
            return f"{fact.kind} {fact.name} of an earlier attempt used again"
        case TimerSet():
            return "sleeps"
        case TimerFired():
            return "woken by its timer"
        case ChildStarted():
            return f"starts run {fact.run_id} of {fact.workflow}"
        case ChildAsked():
            return "asked by a child"
        case ChildEnded():
            return f"the child is {fact.status}"
        case StreamReset():
            return "stream reset"
        case StepDiverged():
            return f"ran again with another {fact.kind} {fact.name}"
        case CheckpointNamed():
            return f"checkpoint {fact.name}"
        case FanOutOpened():
            return f"fan-out for {', '.join(fact.joins)}" if fact.joins else "fan-out"
        case JoinFired():
            return f"{len(fact.events)} events collected -> {fact.step}"
        case FanOutClosed():
            return f"fan-out of record {fact.source} closed"
        case RunStarted():
            return f"run of {fact.workflow} started"
        case RunClaimed():
            return f"taken over (epoch {fact.epoch})"
        case RunAtRest():
            return "only waits"
        case RunParked():
            return f"needs attention: {fact.reason}"
        case RunResumed():
            return f"resumed by {fact.by}"
        case RunCompleted():
            return "run completed"
        case RunFailed():
            return f"run failed: {fact.error.type}: {fact.error.message}"
        case RunCancelled():
            return "run cancelled"
        case RunTimedOut():
            return f"run timed out: {fact.message}"
        case StateImported():
            return f"goes on from run {fact.parent} at record {fact.seq}"
        case StateEdited():
            return f"edited by {fact.by}"
        case JournalCompacted():
            return "all before was compacted"
        case PendingDropped():
            return f"{fact.tasks} pending tasks dropped"
        case _:
            assert_never(fact)
