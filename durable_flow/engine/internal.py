"""Internal events: how the steps of a live run change state, made only while somebody listens; never journaled.

Each is stamped with the stream position after which it comes, so that a reader can put it between published items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..events import (
    InternalDispatchEvent,
    StepState,
    StepStateChanged,
    UnhandledEvent,
    WorkflowIdleEvent,
    find_event_class,
)
from ..records import (
    EventEmitted,
    JoinFired,
    Record,
    StepCompleted,
    StepFailed,
    StreamPublished,
    StreamReset,
    TaskId,
    WaitOpened,
)

if TYPE_CHECKING:
    import asyncio

    from .execution import Execution
    from .run import Run

ENQUEUED = "<enqueued>"


class Listener:
    """Internal events for one reader, in order; `wake` is called when there are new ones."""

    def __init__(self, wake: Callable[[], None]):
        self._wake = wake
        self._events: deque[tuple[int, InternalDispatchEvent]] = deque()

    def add(self, position: int, event: InternalDispatchEvent) -> None:
        """Take an event that comes behind a position of the stream."""
        self._events.append((position, event))
        self._wake()

    def up_to(self, position: int) -> Iterator[InternalDispatchEvent]:
        """Take out the events that come before the item behind this position."""
        while self.has(position):
            yield self._events.popleft()[1]

    def has(self, position: int) -> bool:
        """Tell whether there is one that comes before the item behind this position."""
        return bool(self._events) and self._events[0][0] <= position


class Internals:
    """What a run tells its listeners. A run has one while there are any."""

    def __init__(self, run: Run):
        self._run = run
        self._listeners: list[Listener] = []
        self._position = run.tail.last
        self._slots: dict[TaskId, int] = {}
        self._inputs: dict[TaskId, str] = {}
        self._queued: list[TaskId] = []
        self._unhandled: list[EventEmitted] = []
        self._idle = False
        for execution in run.executions.values():
            if execution.has_worker:
                self._take_slot(execution.task_id)

    def listen(self, listener: Listener) -> None:
        """Tell this one, too."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def end(self, listener: Listener) -> bool:
        """Tell this one no longer; returns whether any is left."""
        self._listeners.remove(listener)
        return bool(self._listeners)

    # -- What the run tells --------------------------------------------------------------------------------------------

    def appended(self, records: Sequence[Record]) -> None:
        """These records are durable."""
        outputs: list[str] = []
        asked = {record.fact.prompt for record in records if isinstance(record.fact, WaitOpened)}
        for record in records:
            fact = record.fact
            match fact:
                case StreamPublished():
                    self._position = fact.first + len(fact.digests) - 1
                case StreamReset():
                    self._position = fact.position
                case EventEmitted():
                    if fact.k is None and fact.task is not None:
                        outputs.append(_class_name(fact.event.name))
                    for step in fact.targets:
                        self._queued.append(TaskId(self._run.state.offset + record.seq, step))
                    if not fact.targets and not fact.joins and fact.answers is None and fact.event not in asked:
                        self._unhandled.append(fact)
                case JoinFired():
                    self._queued.append(TaskId(self._run.state.offset + record.seq, fact.step))
                case StepCompleted():
                    state = self._run.state
                    if state.ended and state.result is not None and record is _last_completion(records):
                        outputs.append(_class_name(state.result.name))
                    self._stopped(fact.task, ", ".join(dict.fromkeys(outputs)) or None)
                case StepFailed():
                    self._stopped(fact.task, None)
                    if fact.handler is not None:
                        self._queued.append(TaskId(self._run.state.offset + record.seq, fact.handler))
                case _:
                    pass
            if record.boundary:
                outputs = []

    def started(self, execution: Execution) -> None:
        """A step runs, or goes on after a wait."""
        self._idle = False
        worker_id = str(self._take_slot(execution.task_id))
        self._changed(execution.task_id, StepState.RUNNING, worker_id)

    def suspended(self, execution: Execution) -> None:
        """A step waits and has given its worker up."""
        self._stopped(execution.task_id, None, ended=False)
        self._look_for_idleness()

    def goes_on(self, execution: Execution, worker: asyncio.Future[None] | None) -> None:
        """A step goes on after a wait, as soon as it has a worker."""
        if worker is None:
            self.started(execution)
            return
        self._changed(execution.task_id, StepState.PREPARING, ENQUEUED)
        worker.add_done_callback(lambda done: None if done.cancelled() else self.started(execution))

    def acted(self) -> None:
        """The run has started what it may start."""
        queued, self._queued = self._queued, []
        for task_id in queued:
            if task_id in self._run.state.tasks and task_id not in self._run.executions:
                self._changed(task_id, StepState.PREPARING, ENQUEUED)
        unhandled, self._unhandled = self._unhandled, []
        for fact in unhandled:
            name = fact.event.name
            cls = find_event_class(name)
            qualified = name if cls is None else f"{cls.__module__}.{cls.__qualname__}"
            self._tell(
                UnhandledEvent(
                    event_type=_class_name(name), qualified_name=qualified, step_name=fact.step, idle=self._is_idle()
                )
            )
        self._look_for_idleness()

    # -- Parts ---------------------------------------------------------------------------------------------------------

    def _tell(self, event: InternalDispatchEvent) -> None:
        for listener in self._listeners:
            listener.add(self._position, event)

    def _changed(self, task_id: TaskId, state: StepState, worker_id: str, output: str | None = None) -> None:
        self._note_input(task_id)
        self._tell(
            StepStateChanged(
                name=task_id.step, step_state=state, worker_id=worker_id,
                input_event_name=self._inputs.get(task_id, ""), output_event_name=output,
            )
        )  # fmt: skip

    def _note_input(self, task_id: TaskId) -> None:
        """Keep the names of what a task has got: when it has ended the state does not have them any more."""
        task = self._run.state.tasks.get(task_id)
        if task is not None:
            events = (task.event,) if task.event is not None else task.joined or ()
            self._inputs[task_id] = ", ".join(dict.fromkeys(_class_name(event.name) for event in events))

    def _stopped(self, task_id: TaskId, output: str | None, *, ended: bool = True) -> None:
        slot = self._slots.pop(task_id, None)
        if slot is not None:
            self._changed(task_id, StepState.NOT_RUNNING, str(slot), output)
        if ended:
            self._inputs.pop(task_id, None)

    def _take_slot(self, task_id: TaskId) -> int:
        """Number the task among those of its step that run: the lowest number that is free."""
        self._note_input(task_id)
        if task_id not in self._slots:
            taken = {slot for other, slot in self._slots.items() if other.step == task_id.step}
            self._slots[task_id] = next(n for n in range(len(taken) + 1) if n not in taken)
        return self._slots[task_id]

    def _look_for_idleness(self) -> None:
        idle = self._is_idle()
        if idle and not self._idle:
            self._tell(WorkflowIdleEvent())
        self._idle = idle

    def _is_idle(self) -> bool:
        """Tell whether nothing runs, is queued or timed: only something from outside can make the run go on."""
        run = self._run
        state = run.state
        if state.ended or state.attention or run.closed or len(state.tasks) > state.waiting_tasks:
            return False
        if any(not timer.fired_at for timer in state.timers.values()):
            return False
        return not any(execution.has_worker for execution in run.executions.values())


def _last_completion(records: Sequence[Record]) -> Record | None:
    return next((record for record in reversed(records) if isinstance(record.fact, StepCompleted)), None)


def _class_name(stored: str) -> str:
    """Return the class's own name for a stored one, which may be qualified or chosen freely."""
    cls = find_event_class(stored)
    return stored if cls is None else cls.__name__
