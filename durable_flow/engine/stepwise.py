"""Stepwise runs: nothing starts but what was pending when `run_step` was called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..due import Limits
from ..errors import WorkflowRuntimeError
from ..events import Event
from ..records import EncodedEvent, TaskId
from ..state import Task

if TYPE_CHECKING:
    from .run import Run


class Gate:
    """Holds back the tasks of a run that nobody has let pass. The time that passes meanwhile counts for nothing."""

    def __init__(self, run: Run):
        self._run = run
        self._limits = run.limits
        self._let: set[TaskId] = set()
        self._shown: dict[int, tuple[Event, TaskId]] = {}
        self._held: list[Event] = []
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        run.limits = Limits(run.limits.num_workers, None)

    def lets(self, task: TaskId) -> bool:
        """Tell whether a task may start."""
        return task in self._let

    def open(self) -> None:
        """Let the run go on by itself."""
        if not self._run.closed:
            self._run.gate = None
            self._run.limits = self._limits
            self._run.wake()
        self.look()

    async def step(self) -> list[Event]:
        """Run what is pending; return the events that are held then, in order: of a run that has ended none."""
        await self._until(lambda: self._run.is_quiet)  # what has been sent before is pending, too
        self._let &= self._run.state.tasks.keys()
        self._let |= self._run.state.tasks.keys()
        going = set(self._let)
        await self._until(lambda: not any(self._is_going(task) for task in going) and not self._is_watched())
        return self._held

    def _hold(self) -> None:
        """Note the events of what is pending and may not start. Called when all is durable."""
        self._shown = {}
        held: list[Event] = []
        for task in self._run.state.tasks.values():
            if task.id in self._let or any(task.id.seq == shown.seq for _, shown in self._shown.values()):
                continue
            for encoded in _inputs(task):
                event = self._run.event_of(encoded)
                self._shown[id(event)] = (event, task.id)
                held.append(event)
        self._held = held

    def look(self) -> None:
        """Something has become durable, or the run is no longer live here: a step may be over."""
        for condition, future in tuple(self._waiting):
            if (self._run.closed or self._run.gate is not self or condition()) and not future.done():
                self._hold()
                future.set_result(None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a moment at which all is durable and the condition holds, or at which nothing is held any more."""
        if self._run.closed or self._run.gate is not self:
            return
        waiting = (condition, self._run.loop.create_future())
        self._waiting.append(waiting)
        self._run.wake()
        try:
            await waiting[1]
        finally:
            self._waiting.remove(waiting)

    def _is_going(self, id: TaskId) -> bool:
        task = self._run.state.tasks.get(id)
        if task is None:
            return False
        execution = self._run.executions.get(id)
        # One whose answer has come is still suspended for a moment.
        return execution is None or not execution.suspended or not task.open

    def _is_watched(self) -> bool:
        """Tell whether somebody is still being told what has completed."""
        return self._run.checkpointing is not None and self._run.checkpointing.is_busy

    def holds(self, event: Event) -> bool:
        """Tell whether this event is one that `step` has returned: it is in the journal, and goes on by itself.

        Raises WorkflowRuntimeError if it was changed since.
        """
        shown = self._shown.get(id(event))
        if shown is None or shown[0] is not event:
            return False
        task = self._run.state.tasks.get(shown[1])
        if task is not None and self._run.program.codec.encode_event(event) not in _inputs(task):
            raise WorkflowRuntimeError(
                f"run {self._run.run_id}: the held {type(event).__name__} was changed after its step had returned it. "
                "It stands in the journal as it was returned; let the step return what the next one is to get"
            )
        return True


def _inputs(task: Task) -> tuple[EncodedEvent, ...]:
    """Return what a task is called with: its event, or those that a fan-in has joined."""
    return (task.event,) if task.event is not None else task.joined or ()
