"""The decisions of a run: what is journaled when something reaches it. Pure: no clock, no chance, no user code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from .incoming import (
    AttentionNeeded,
    CameToRest,
    CancelRequested,
    ChildAsks,
    ChildOver,
    EditRequested,
    EffectsCommitted,
    EventReceived,
    ImportRequested,
    Incoming,
    Question,
    ResumeRequested,
    StartRequested,
    StepRaised,
    StepReturned,
    TimeIsUp,
    TimerDue,
    WaitDue,
)
from .records import (
    ChildAsked,
    ChildEnded,
    EventEmitted,
    Fact,
    FanOutOpened,
    MessageReceived,
    RunAtRest,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    RunTimedOut,
    StateImported,
    StepCompleted,
    StepFailed,
    StreamPublished,
    StreamReset,
    TaskId,
    TimerFired,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
    WaitTimedOut,
)
from .state import FAILED, TIMED_OUT, RunState


def decide(state: RunState, incoming: Incoming) -> list[Fact]:
    """Return the facts of one group, in order; empty if what came no longer matters to this run."""
    if state.ended and not isinstance(incoming, ResumeRequested | EditRequested):
        return []
    facts: list[Fact] = []
    match incoming:
        case StepReturned():
            if incoming.task not in state.tasks:
                return []
            _add_drafts(state, facts, incoming.drafts)
            opened = 0
            if incoming.fan_out is not None:
                facts.append(FanOutOpened(incoming.task, incoming.attempt, *incoming.fan_out))
                opened = state.offset + state.seq + len(facts)
            for emitted in incoming.emitted:
                if isinstance(emitted, Question):
                    _add_question(state, facts, emitted, opened or state.tasks[incoming.task].scope)
                else:
                    _add_event(facts, emitted)
            if state.waits:
                facts.extend(_closed_waits(state, incoming.task))
            facts.append(StepCompleted(incoming.task, incoming.attempt))
            if incoming.stop is not None:
                facts.append(RunCompleted(incoming.stop, incoming.task))
        case EffectsCommitted():
            _add_drafts(state, facts, incoming.drafts)
            if incoming.stop is not None:
                facts.append(RunCompleted(incoming.stop, None))
        case EventReceived():
            if incoming.message is not None:
                facts.append(MessageReceived(*incoming.message, "event"))
            _add_drafts(state, facts, incoming.drafts)
            _add_event(facts, incoming.emitted)
            if incoming.stop is not None:
                facts.append(RunCompleted(incoming.stop, None))
        case StepRaised():
            if incoming.task not in state.tasks:
                return []
            _add_drafts(state, facts, incoming.drafts)
            if incoming.attention is not None:
                # The attempt stands where it stood: after the remedy it runs again as after a crash.
                return [*facts, RunParked(incoming.attention)]
            if incoming.handler is not None:
                facts.extend(_closed_waits(state, incoming.task))
            facts.append(
                StepFailed(
                    incoming.task, incoming.attempt, incoming.error, incoming.retry_at,
                    incoming.handler, incoming.event, incoming.exception, incoming.began_at,
                )
            )  # fmt: skip
            if incoming.retry_at is None and incoming.handler is None:
                facts.append(RunFailed(incoming.error, incoming.task.step))
        case TimerDue():
            timer = state.timers.get(incoming.timer)
            if timer is not None and not timer.fired_at:
                facts.append(TimerFired(incoming.timer))
        case WaitDue():
            wait = state.waits.get(incoming.wait_id)
            if wait is not None and wait.is_open:
                facts.append(WaitTimedOut(incoming.wait_id))
        case ChildAsks():
            child = state.children.get(incoming.child)
            if child is not None and not child.ended_at and incoming.position > child.asked:
                facts.append(ChildAsked(incoming.child, incoming.position))
                first = state.position + 1
                facts.append(StreamPublished(first, ("",), None, 0, 0, (incoming.prompt,), incoming.wait_id))
        case ChildOver():
            child = state.children.get(incoming.child)
            if child is not None and not child.ended_at:
                facts.append(ChildEnded(incoming.child, incoming.status))
        case TimeIsUp():
            _add_drafts(state, facts, incoming.drafts)
            facts.append(RunTimedOut(incoming.message))
        case CancelRequested():
            if incoming.message is not None:
                facts.append(MessageReceived(*incoming.message, "cancel"))
            _add_drafts(state, facts, incoming.drafts)
            facts.append(RunCancelled(incoming.reason))
        case AttentionNeeded():
            if state.attention is None:
                facts.append(RunParked(incoming.reason))
        case CameToRest():
            if state.claims:
                facts.append(RunAtRest(state.claims))
        case ResumeRequested():
            # What completed or was cancelled has ended for good.
            if state.ended in (FAILED, TIMED_OUT) or (state.attention and not state.ended):
                facts.append(RunResumed(incoming.by))
        case EditRequested():
            # What completed or was cancelled has ended for good.
            if state.ended in (None, FAILED, TIMED_OUT):
                facts.extend(incoming.facts)
        case StartRequested():
            facts.append(
                RunStarted(incoming.workflow, incoming.uid, incoming.shape, incoming.arguments, incoming.parent)
            )
            facts.extend(incoming.context)
            facts.append(EventEmitted(incoming.event, None, 0, None, incoming.targets, joins=incoming.joins))
        case ImportRequested():
            facts.append(RunStarted(incoming.workflow, incoming.uid, incoming.shape, incoming.arguments))
            facts.append(StateImported(incoming.parent, incoming.seq, incoming.state))
            facts.extend(incoming.context)
            if incoming.resume:
                facts.append(RunResumed("run"))
        case _:
            assert_never(incoming)
    return facts


def _add_event(facts: list[Fact], emitted: EventEmitted) -> None:
    facts.append(emitted)
    if emitted.answers is not None:
        facts.append(WaitAnswered(emitted.answers))


def _add_drafts(state: RunState, facts: list[Fact], drafts: Iterable[Fact]) -> None:
    """Append drafts, numbering what only the journal can number."""
    for draft in drafts:
        match draft:
            case EventEmitted():
                _add_event(facts, draft)
            case StreamPublished():
                facts.append(draft._replace(first=_position(state, facts) + 1))
            case StreamReset():
                facts.append(draft._replace(position=_position(state, facts) + 1))
            case WaitOpened():
                _add_wait(state, facts, draft)
            case _:
                facts.append(draft)


def _add_wait(state: RunState, facts: list[Fact], draft: WaitOpened) -> None:
    """Append an opened wait under an id that no other wait of the run has, and publish its question."""
    wait_id = f"w{state.offset + state.seq + len(facts) + 1}"
    facts.append(draft._replace(wait_id=wait_id))
    if draft.prompt is not None:
        first = _position(state, facts) + 1
        facts.append(StreamPublished(first, ("",), None, 0, 0, (draft.prompt,), wait_id))


def question_facts(state: RunState, question: Question) -> list[Fact]:
    """Return the facts of a question that comes from outside of the steps, and belongs to no fan-out."""
    facts: list[Fact] = []
    _add_question(state, facts, question, 0)
    return facts


def _add_question(state: RunState, facts: list[Fact], question: Question, scope: int) -> None:
    prompt = question.emitted.event
    facts.append(question.emitted)
    wait = WaitOpened(
        "", None, 0, question.wanted[0], 0, False, question.wanted, None, None, prompt, True, question.schema, scope
    )  # fmt: skip
    _add_wait(state, facts, wait)


def _position(state: RunState, facts: Iterable[Fact]) -> int:
    """Return the position of the last stream item, those of this group included."""
    position = state.position
    for fact in facts:
        if isinstance(fact, StreamPublished):
            position = fact.first + len(fact.digests) - 1
        elif isinstance(fact, StreamReset):
            position = fact.position
    return position


def _closed_waits(state: RunState, task: TaskId) -> list[Fact]:
    """Return what closes the waits that a task leaves open as it ends."""
    return [WaitClosed(w.wait_id) for w in state.waits.values() if w.task == task and w.is_open]
