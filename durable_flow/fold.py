"""The fold: records to state. Pure; `fold(tail, fold(head)) == fold(head + tail)`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Protocol, TypeVar, assert_never

from .fold_joins import add_to_joins, close_fan_out, fire_join, hold, open_fan_out
from .records import (
    CALL,
    CHECKPOINT,
    CHILD,
    COLLECT,
    SENT,
    SLEEP,
    STREAM,
    WAIT,
    WRITE,
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
    EncodedValue,
    EventCollected,
    EventEmitted,
    FanOutClosed,
    FanOutOpened,
    JoinFired,
    JournalCompacted,
    MessageReceived,
    PendingDropped,
    Place,
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
from .snapshot import decode_state
from .state import CANCELLED, COMPLETED, FAILED, TIMED_OUT, Child, Effect, Member, RunState, Task, Timer, Wait

MAX_UNHANDLED = 20

FOLD_VERSION = 1
"""Raised with every change after which records, or a state as bytes, give another state: older snapshots then count no
more. A test folds a recorded history and fails if it was forgotten.
"""


def fold(records: Iterable[Record], state: RunState | None = None) -> RunState:
    """Return the state after these records; `state`, if given, is that of the records before and is changed."""
    state = RunState() if state is None else state
    for record in records:
        evolve(state, record)
    return state


def evolve(state: RunState, record: Record) -> None:
    """Change the state by one record."""
    seq, at, boundary, fact = record
    # Downtime is not active time: what lies before a claim is not counted.
    if state.active and type(fact) is not RunClaimed:
        state.active_us += at - state.last_at
    state.seq = seq
    state.last_at = at
    if boundary:
        state.boundary = seq
    if state.claims and type(fact) is not RunClaimed:
        state.claims = 0
    seq += state.offset
    match fact:
        case ContextSet():
            if fact.task is not None:
                effect = Effect(Place(WRITE, fact.key, fact.k), seq, fact.value, before=state.context.get(fact.key))
                _keep(state, fact.task, fact.attempt, effect)
            state.context[fact.key] = fact.value
        case EventEmitted():
            _emitted(state, fact, seq, at)
        case StepCompleted():
            _ended_task(state, fact.task)
            state.steps_completed += 1
        case StreamPublished():
            state.position = fact.first + len(fact.digests) - 1
            if fact.task is not None:
                for n, digest in enumerate(fact.digests):
                    effect = Effect(Place(STREAM, "", fact.k + n), seq, digest, fact.first + n)
                    _keep(state, fact.task, fact.attempt, effect)
        case CallRecorded():
            place = Place(CALL, fact.name, fact.k)
            _keep(state, fact.task, fact.attempt, Effect(place, seq, fact.arguments, fact.result))
        case EventCollected():
            state.buffers.setdefault(fact.buffer, []).append(fact.event)
            _keep(state, fact.task, fact.attempt, Effect(Place(COLLECT, fact.buffer, fact.k), seq, fact.event))
        case BufferReleased():
            released = take_from_buffer(state.buffers[fact.buffer], fact.events)
            if not state.buffers[fact.buffer]:
                del state.buffers[fact.buffer]
            effects = _effects(state, fact.task, fact.attempt)
            place = Place(COLLECT, fact.buffer, fact.k)
            effects[place] = replace(effects[place], outcome=released)
        case ContextDeleted():
            if fact.task is not None:
                effect = Effect(Place(WRITE, fact.key, fact.k), seq, None, before=state.context.get(fact.key))
                _keep(state, fact.task, fact.attempt, effect)
            state.context.pop(fact.key, None)
        case ContextSpliced():
            before = state.context[fact.key]
            value = EncodedValue(fact.tail.codec, before.data[: fact.keep] + fact.tail.data)
            if fact.task is not None:
                effect = Effect(Place(WRITE, fact.key, fact.k), seq, value, before=before)
                _keep(state, fact.task, fact.attempt, effect)
            state.context[fact.key] = value
        case WaitOpened():
            _opened(state, fact, seq)
        case WaitAnswered():
            wait = state.waits[fact.wait_id]
            if wait.human:
                for name in wait.wanted:
                    state.answered[name] = wait.wait_id
            _settle(state, wait, seq)
        case WaitTimedOut():
            state.waits[fact.wait_id].timed_out = True
            _settle(state, state.waits[fact.wait_id], seq)
        case WaitClosed():
            wait = state.waits[fact.wait_id]
            if wait.is_open:
                _settle(state, wait, seq)
            state.waits.pop(fact.wait_id, None)
        case MessageReceived():
            pass  # the event that it carried is a record of its own
        case EffectReused():
            _reused(state, fact, seq)
        case TimerSet():
            state.timers[seq] = Timer(seq, fact.task, fact.due_at)
            _keep(state, fact.task, fact.attempt, Effect(Place(SLEEP, "", fact.k), seq, None, seq))
            _suspend(state, fact.task, 1)
        case TimerFired():
            state.timers[fact.timer].fired_at = seq
            _suspend(state, state.timers[fact.timer].task, -1)
        case ChildStarted():
            _child_started(state, fact, seq)
        case ChildAsked():
            state.children[fact.child].asked = fact.position
        case ChildEnded():
            _child_ended(state, fact, seq)
        case StreamReset():
            state.position = fact.position
            effects = _effects(state, fact.task, fact.attempt)
            for place in [p for p in effects if p.kind == STREAM and p.k >= fact.k]:
                del effects[place]
        case StepDiverged():
            if fact.task in state.tasks:
                task = state.tasks[fact.task]
                task.diverged = {*(task.diverged or ()), Place(fact.kind, fact.name, fact.k)}
        case CheckpointNamed():
            state.checkpoints[fact.name] = state.seq
            _keep(state, fact.task, fact.attempt, Effect(Place(CHECKPOINT, fact.name, fact.k), seq))
        case StepFailed():
            if fact.handler is None:
                _failed(state, fact, at)
            else:
                _handled(state, fact, fact.handler, seq, at)
        case FanOutOpened():
            open_fan_out(state, fact, seq)
        case JoinFired():
            joined, recoveries = fire_join(state, fact)
            task_id = TaskId(seq, fact.step)
            _add_task(state, Task(task_id, None, at, recoveries=recoveries, joined=joined, scope=fact.scope))
        case FanOutClosed():
            close_fan_out(state, fact)
        case RunStarted():
            state.workflow, state.uid, state.shape, state.arguments = (
                fact.workflow,
                fact.uid,
                fact.shape,
                fact.arguments,
            )
            state.parent = fact.parent
            state.created_at = at
            state.epoch = 1
        case RunClaimed():
            state.epoch = fact.epoch
            # Who gave the run back has survived it.
            state.claims = 0 if fact.previous is None else state.claims + 1
        case RunAtRest():
            pass  # it ends the count of claims, as every other record does
        case RunParked():
            state.attention = fact.reason
        case RunResumed():
            _resumed(state)
        case RunCompleted():
            state.ended, state.result = COMPLETED, fact.result
            _cleared(state)
        case RunFailed():
            state.ended, state.error, state.error_step = FAILED, fact.error, fact.step
        case RunCancelled():
            state.ended, state.attention = CANCELLED, None
            _cleared(state)
        case RunTimedOut():
            state.ended, state.timeout_message = TIMED_OUT, fact.message
        case StateImported():
            _imported(state, fact)
        case JournalCompacted():
            _restored(state, fact)
        case StateEdited():
            pass  # the writes that follow are records of their own
        case PendingDropped():
            _cleared(state)
            for child in [c for c in state.children.values() if c.ended_at]:
                del state.children[child.seq]
        case _:
            assert_never(fact)
    # A boundary at the earliest: inside a group the run is as active as it was before it.
    if boundary:
        state.active = not state.ended and not state.attention and not state.parked


class Named(Protocol):
    """An event in a buffer, encoded or live."""

    @property
    def name(self) -> str:
        """The event's stored name."""


NamedT = TypeVar("NamedT", bound=Named)


def take_from_buffer(buffer: list[NamedT], names: Iterable[str]) -> tuple[NamedT, ...]:
    """Take the oldest event of each name out of the buffer, in the order of the names."""
    taken = []
    for name in names:
        at = next((i for i, event in enumerate(buffer) if event.name == name), None)
        assert at is not None
        taken.append(buffer.pop(at))
    return tuple(taken)


def _restored(state: RunState, fact: JournalCompacted) -> None:
    """Put what the records before folded to in the place of whatever is left of them: nothing, or any part."""
    restored = decode_state(fact.state)
    for each in fields(RunState):
        setattr(state, each.name, getattr(restored, each.name))


def _imported(state: RunState, fact: StateImported) -> None:
    """Put the state of another run in the place of this one's; what tells the two runs apart stays."""
    imported = decode_state(fact.state)
    for name in _INHERITED:
        setattr(state, name, getattr(imported, name))
    # They belong to the other run and end with it: a step that runs again here starts children of its own.
    _forget_unfinished_children(state)
    state.offset = imported.offset + imported.seq - state.seq
    state.streamed_before = imported.position


# All but what the run is by itself, where it stands in its own journal, and checkpoints, which are places in the other.
_INHERITED = tuple(
    field.name
    for field in fields(RunState)
    if field.name
    not in {
        *("workflow", "uid", "shape", "arguments", "seq", "boundary", "offset", "epoch", "claims", "created_at"),
        *("last_at", "active", "checkpoints", "streamed_before", "parent"),
    }
)


def _effects(state: RunState, task_id: TaskId, attempt: int) -> dict[Place, Effect]:
    task = state.tasks[task_id]
    if task.effects is None:
        task.effects = {}
    return task.effects.setdefault(attempt, {})


def _keep(state: RunState, task_id: TaskId, attempt: int, effect: Effect) -> None:
    _effects(state, task_id, attempt)[effect.place] = effect


def _emitted(state: RunState, fact: EventEmitted, seq: int, at: int) -> None:
    if fact.task is not None and fact.k is not None:
        effect = Effect(Place(SENT, fact.event.name, fact.k), seq, (fact.event, fact.step))
        _keep(state, fact.task, fact.attempt, effect)
    recoveries = _recoveries(state, fact.task)
    scope = _scope(state, fact) if state.fan_outs else 0
    for step in fact.targets:
        _add_task(state, Task(TaskId(seq, step), fact.event, at, recoveries=recoveries, scope=scope))
    if fact.joins:
        add_to_joins(state, fact.joins, Member(seq, fact.event, recoveries), scope)
    if fact.answers is not None:
        state.waits[fact.answers].answer = fact.event
    elif (
        not fact.targets
        and not fact.joins
        and len(state.unhandled) < MAX_UNHANDLED
        and fact.event.name not in state.unhandled
    ):
        state.unhandled.append(fact.event.name)


def _add_task(state: RunState, task: Task) -> None:
    task_id = task.id
    state.tasks[task_id] = task
    queue = state.runnable.get(task_id.step)
    if queue is None:
        queue = state.runnable[task_id.step] = {}
    queue[task_id] = None
    if task.scope:
        hold(state, task.scope, 1)


def _recoveries(state: RunState, parent: TaskId | None) -> dict[str, int] | None:
    """Return what all that descends from a task carries of the failures before it; it is shared, never changed."""
    task = state.tasks.get(parent) if parent is not None else None
    return None if task is None else task.recoveries


def _scope(state: RunState, fact: EventEmitted) -> int:
    """Return the fan-out that an event belongs to: that of its question, or what its task was in or has opened."""
    if fact.answers is not None and state.waits[fact.answers].task is None:
        return state.waits[fact.answers].scope
    task = state.tasks.get(fact.task) if fact.task is not None else None
    if task is None:
        return 0
    return task.opened if task.opened and fact.k is None else task.scope


def _opened(state: RunState, fact: WaitOpened, seq: int) -> None:
    state.waits[fact.wait_id] = Wait(
        fact.wait_id, fact.task, fact.attempt, fact.wanted, fact.requirements, fact.deadline, fact.prompt, fact.human,
        state.last_at, fact.schema, scope=fact.scope,
    )  # fmt: skip
    if fact.scope:
        hold(state, fact.scope, 1)
    if fact.task is None:
        # The question was returned, so nobody has to handle its event.
        if fact.prompt is not None and fact.prompt.name in state.unhandled:
            state.unhandled.remove(fact.prompt.name)
        return
    content = (fact.wanted, fact.prompt, fact.requirements)
    _keep(state, fact.task, fact.attempt, Effect(Place(WAIT, fact.name, fact.k), seq, content, fact.wait_id))
    _suspend(state, fact.task, 1)


def _settle(state: RunState, wait: Wait, seq: int) -> None:
    wait.settled_at = seq
    if wait.task is None:
        del state.waits[wait.wait_id]
        if wait.scope:
            hold(state, wait.scope, -1)
    elif wait.task in state.tasks and state.tasks[wait.task].attempt == wait.attempt:
        _suspend(state, wait.task, -1)


def _suspend(state: RunState, task_id: TaskId, change: int) -> None:
    task = state.tasks[task_id]
    state.waiting_tasks -= task.open > 0
    task.open += change
    state.waiting_tasks += task.open > 0


def _child_started(state: RunState, fact: ChildStarted, seq: int) -> None:
    state.children[seq] = Child(seq, fact.task, fact.attempt, fact.workflow, fact.run_id, fact.independent)
    content = (fact.arguments, fact.run_id if fact.independent else None)
    _keep(state, fact.task, fact.attempt, Effect(Place(CHILD, fact.workflow, fact.k), seq, content, seq))
    _suspend(state, fact.task, 1)


def _child_ended(state: RunState, fact: ChildEnded, seq: int) -> None:
    child = state.children[fact.child]
    child.ended_at, child.status = seq, fact.status
    if child.task not in state.tasks:
        del state.children[fact.child]
    elif state.tasks[child.task].attempt == child.attempt:
        _suspend(state, child.task, -1)


def _reused(state: RunState, fact: EffectReused, seq: int) -> None:
    place = Place(fact.kind, fact.name, fact.k)
    task = state.tasks[fact.task]
    assert task.effects is not None
    old = next((e for effects in task.effects.values() for e in effects.values() if e.seq == fact.seq), None)
    assert old is not None
    _keep(state, fact.task, fact.attempt, Effect(place, seq, old.content, old.outcome, origin=fact.seq))
    if fact.kind == WAIT:
        wait = state.waits[old.outcome]
        wait.attempt = fact.attempt
        if wait.is_open:
            _suspend(state, fact.task, 1)
    elif fact.kind == CHILD:
        child = state.children[old.outcome]
        child.attempt = fact.attempt
        if not child.ended_at:
            _suspend(state, fact.task, 1)


def _ended_task(state: RunState, task_id: TaskId) -> None:
    task = state.tasks.pop(task_id)
    state.runnable[task_id.step].pop(task_id, None)
    state.delayed.pop(task_id, None)
    if task.open:
        state.waiting_tasks -= 1
    if task.scope:
        hold(state, task.scope, -1)
    if task.effects is not None:
        for timer in [t for t in state.timers.values() if t.task == task_id]:
            del state.timers[timer.seq]
        for wait in [w for w in state.waits.values() if w.task == task_id]:
            del state.waits[wait.wait_id]
        for child in [c for c in state.children.values() if c.task == task_id and c.ended_at]:
            del state.children[child.seq]


def _handled(state: RunState, fact: StepFailed, handler: str, seq: int, at: int) -> None:
    """End the failed task; its failure goes to a handler, whose lineage remembers that."""
    assert fact.event is not None
    before = _recoveries(state, fact.task) or {}
    recoveries = {**before, handler: before.get(handler, 0) + 1}
    scope = state.tasks[fact.task].scope
    _add_task(state, Task(TaskId(seq, handler), fact.event, at, recoveries=recoveries, scope=scope))
    _ended_task(state, fact.task)


def _failed(state: RunState, fact: StepFailed, at: int) -> None:
    task = state.tasks[fact.task]
    if task.open:
        state.waiting_tasks -= 1
    task.open = 0
    task.attempt = fact.attempt + 1
    task.failures += 1
    task.error = fact.error
    task.retry_at = fact.retry_at
    task.began_at, task.failed_at, task.exception = fact.began_at, at, fact.exception
    for timer in [t for t in state.timers.values() if t.task == fact.task]:
        del state.timers[timer.seq]
    state.runnable[fact.task.step].pop(fact.task, None)
    state.delayed.pop(fact.task, None)
    if fact.retry_at is not None:
        state.delayed[fact.task] = fact.retry_at


def _resumed(state: RunState) -> None:
    if state.ended:
        state.revivals += 1
        _forget_unfinished_children(state)
    state.ended = state.error = state.error_step = state.attention = None
    state.active_us = 0
    for task in state.tasks.values():
        if task.retry_at is None and task.error is not None:
            task.failures, task.error = 0, None
            task.began_at = task.failed_at = task.exception = None
            # Back to its place: the oldest event comes first.
            queue = state.runnable[task.id.step]
            state.runnable[task.id.step] = dict.fromkeys(sorted([*queue, task.id]))


def _forget_unfinished_children(state: RunState) -> None:
    """A step that runs again starts another child: at the run's end what was unfinished was cancelled with it."""
    for child in [c for c in state.children.values() if not c.ended_at and not c.independent]:
        del state.children[child.seq]
        task = state.tasks.get(child.task)
        if task is None:
            continue
        for effects in (task.effects or {}).values():
            for place in [p for p, e in effects.items() if p.kind == CHILD and e.outcome == child.seq]:
                del effects[place]
        if task.attempt == child.attempt:
            _suspend(state, child.task, -1)


def _cleared(state: RunState) -> None:
    """Nothing is pending in a run that ended for good, or that was told to give all of it up."""
    state.tasks.clear()
    state.runnable.clear()
    state.delayed.clear()
    state.waits.clear()
    state.timers.clear()
    state.buffers.clear()
    state.fan_outs.clear()
    state.slots.clear()
    state.ripe.clear()
    state.idle.clear()
    state.waiting_tasks = 0
