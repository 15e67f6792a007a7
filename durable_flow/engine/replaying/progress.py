"""Where a step stood in its run's history: what it can have seen of the context when it began, and at each effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...fold import evolve
from ...records import (
    CallRecorded,
    CheckpointNamed,
    ChildEnded,
    ChildStarted,
    ContextDeleted,
    ContextSet,
    ContextSpliced,
    EncodedValue,
    Fact,
    JournalCompacted,
    PendingDropped,
    Record,
    RunClaimed,
    RunResumed,
    StateImported,
    StepCompleted,
    StepFailed,
    StreamPublished,
    TaskId,
    TimerFired,
    TimerSet,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
    WaitTimedOut,
)
from ...state import RunState

Values = Mapping[str, EncodedValue]

NOTHING_SEEN: frozenset[str] = frozenset()

_CHANGE_CONTEXT = frozenset({ContextSet, ContextSpliced, ContextDeleted, StateImported, JournalCompacted})
# After these every pending step begins anew.
_BEGIN_ANEW = frozenset({RunClaimed, RunResumed, StateImported, JournalCompacted, PendingDropped})
# Effects that commit: they stand behind all that they carry.
_COMMIT = frozenset({CallRecorded, TimerSet, WaitOpened, ChildStarted, CheckpointNamed})
# A step that the workflow does not have any more; its limit is not known.
_SOME_WORKERS = 4


class Mark(NamedTuple):
    """An own record of a step, numbered as its effects are: the context before it, and after it.

    `seen` are the keys that others had changed and whose changes came with it: the step had read them, or written them.
    """

    seq: int
    before: Values
    after: Values
    seen: frozenset[str] = NOTHING_SEEN


class Progress:
    """Folds a history and keeps, of each step under way, when it began and how the context stood at its own records.

    A step that is due begins when a worker of it is free; that is not recorded, but follows from what is. Several
    groups of one time were appended together, and nothing began between them.
    """

    def __init__(self, num_workers: Mapping[str, int]):
        self.state = RunState()
        self._num_workers = num_workers
        self._marks: dict[TaskId, list[Mark]] = {}
        self._under_way: dict[str, dict[TaskId, None]] = {}
        self._filled: dict[TaskId, dict[str, EncodedValue]] = {}
        self._copy: Values | None = None
        # Within a group that a task has committed: what others had changed and it has carried, up to its next record.
        self._committer: TaskId | None = None
        self._carried: set[str] = set()

    @property
    def carried(self) -> frozenset[str]:
        """The keys whose changes by others come with the completion at hand."""
        return frozenset(self._carried)

    def marks(self, task: TaskId) -> list[Mark]:
        """Return the marks of a pending task: the first one is its beginning."""
        if task not in self._marks:
            self._begin(task)
        return self._marks[task]

    def filled(self, task: TaskId) -> Mapping[str, EncodedValue]:
        """Return the defaults of the typed state that were recorded with effects of a task."""
        return self._filled.get(task, {})

    def context(self) -> Values:
        """Return the context as it stands; never changed."""
        if self._copy is None:
            self._copy = dict(self.state.context)
        return self._copy

    def time_passes(self, now: int) -> None:
        """Let what is due begin: the next records are of a later time."""
        state = self.state
        if state.ended or state.attention:
            return
        for task, at in state.delayed.items():
            if at <= now and task not in self._marks and self._free(task.step) > 0:
                self._begin(task)
        for step, queue in state.runnable.items():
            mine = self._under_way.get(step, ())
            if not queue or (len(mine) >= len(queue) and not state.delayed):
                continue
            free = self._free(step)
            for task in queue:
                if free <= 0:
                    break
                if task not in mine:
                    self._begin(task)
                    free -= 1

    def take(self, record: Record) -> None:
        """Fold a record."""
        fact, state = record.fact, self.state
        kind = type(fact)
        task = self._owner(fact)
        marks = None
        if task is not None and task in state.tasks:
            marks = self.marks(task)
            before = self.context()
        evolve(state, record)
        if kind in _CHANGE_CONTEXT:
            self._copy = None
        if marks is not None and task is not None:
            if kind is StepCompleted or kind is StepFailed:
                self._end(task)
            else:
                seen = NOTHING_SEEN
                if self._carried and task == self._committer:
                    seen = frozenset(self._carried)
                    self._carried.clear()
                marks.append(Mark(record.seq + state.offset, before, self.context(), seen))
                if kind in _CHANGE_CONTEXT and self._committer is not None and task != self._committer:
                    self._carried.add(fact.key)  # type: ignore[union-attr]
        elif kind in _BEGIN_ANEW:
            self._marks.clear()
            self._under_way.clear()

    def take_group(self, group: Sequence[Record], completed: TaskId | None = None) -> None:
        """Fold the records of a group, or the first of them; `completed` is the task that completes with it."""
        filled = {r.fact.key: r.fact.value for r in group if type(r.fact) is ContextSet and r.fact.task is None}
        self._carried.clear()
        self._committer = completed if completed is not None else _committer(group)
        if filled and completed is not None:
            self._filled.setdefault(completed, {}).update(filled)
        for record in group:
            if filled and (task := self._owner(record.fact)) is not None:
                self._filled.setdefault(task, {}).update(filled)
            self.take(record)

    def _begin(self, task: TaskId) -> None:
        state, context = self.state, self.context()
        self._marks[task] = [Mark(state.seq + state.offset, context, context)]
        self._under_way.setdefault(task.step, {})[task] = None

    def _end(self, task: TaskId) -> None:
        self._marks.pop(task, None)
        self._filled.pop(task, None)
        self._under_way.get(task.step, {}).pop(task, None)

    def _free(self, step: str) -> int:
        tasks = self.state.tasks
        # One that waits has given its worker back.
        busy = sum(1 for task in self._under_way.get(step, ()) if task in tasks and not tasks[task].open)
        return self._num_workers.get(step, _SOME_WORKERS) - busy

    def _owner(self, fact: Fact) -> TaskId | None:
        """Return the task whose own record this is: an effect, what came of one, or its end."""
        match fact:
            case WaitAnswered() | WaitTimedOut() | WaitClosed():
                wait = self.state.waits.get(fact.wait_id)
                return None if wait is None else wait.task
            case TimerFired():
                return self.state.timers[fact.timer].task
            case ChildEnded():
                return self.state.children[fact.child].task
            case _:
                return getattr(fact, "task", None)


def _committer(group: Sequence[Record]) -> TaskId | None:
    """Return the task that committed a group, if its last effect tells."""
    for record in reversed(group):
        if type(record.fact) in _COMMIT:
            task: TaskId | None = record.fact.task  # type: ignore[union-attr]
            return task
        if type(record.fact) is not StreamPublished:
            break
    return None
