"""Telling a run's caller of each step that completes, once that is durable and before anything follows from it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

from ..branching import BranchPoint
from ..errors import WorkflowRuntimeError
from ..journal.checkpoint import Checkpoint
from ..journal.kept import require_kept
from ..journal.listing import Finder, groups, shown_by
from ..logs import fields, said
from ..records import Record, StepCompleted, StreamPublished, TaskId
from ..snapshot import copied
from ..state import CANCELLED, TIMED_OUT, RunState
from .current import outside_of_steps
from .known import require_row, require_workflow
from .observing import Observers

if TYPE_CHECKING:
    from .attachment import Attachment
    from .run import Run

logger = logging.getLogger("durable_flow")


class Completion(NamedTuple):
    """A step that completed: the checkpoint that this made, and the run's state there."""

    checkpoint: Checkpoint
    point: BranchPoint


# A loop keeps no task alive, and a run that was given up nobody.
_under_way: set[asyncio.Task[None]] = set()

OnCompletion = Callable[[Completion], Awaitable[None]]


class Completions:
    """Finds the steps that completed in the groups of a run's records, given one after another with the state before.

    What a fork completes anew in its first group is no step of its own.
    """

    def __init__(self, finder: Finder):
        self._finder = finder

    def next(self, state: RunState, group: Sequence[Record]) -> Completion | None:
        """Bring the state up to date with its next group; return the completion in it."""
        completes = any(type(record.fact) is StepCompleted for record in group)
        before = copied(state) if completes else state
        checkpoint = self._finder.next(state, group)
        if not completes or checkpoint is None or checkpoint.kind == "start":
            return None
        return Completion(checkpoint, BranchPoint(before, tuple(map(_without_items, group))))


def _without_items(record: Record) -> Record:
    """Return a record as the journal has it: published items are kept in the stream."""
    fact = record.fact
    if not isinstance(fact, StreamPublished):
        return record
    return record._replace(fact=fact._replace(items=()))


class Checkpointing(Observers):
    """Stands among the observers of a run that has callbacks, and holds back what follows from a completion.

    Callbacks are called one after another, in the order of the journal. While one is under way no task starts that came
    into being with the completion or after it, and the run does not end. What steps are doing goes on. Those of a run
    that was cancelled, or whose time is up, are cut short: nothing else would end one that hangs.
    """

    def __init__(self, run: Run):
        super().__init__(())
        self._run = run
        self._others = run.observers
        # The run's own is ahead of what is durable.
        self._state = copied(run.state)
        self._group: list[Record] = []
        self._completions = Completions(Finder(run.run_id, shown_by(run.program.codec)))
        self._callbacks: list[OnCompletion] = []
        self._due: deque[Completion] = deque()
        self._calling: asyncio.Task[None] | None = None
        self._is_cut = False

    @property
    def callbacks(self) -> tuple[OnCompletion, ...]:
        """Who is called."""
        return tuple(self._callbacks)

    @property
    def is_busy(self) -> bool:
        """Tell whether callbacks are under way."""
        return bool(self._due)

    @property
    def called_for(self) -> str | None:
        """The step for whose completion callbacks are under way; None if none are."""
        return self._due[0].checkpoint.last_completed_step if self._due else None

    def holds_the_end(self) -> bool:
        """Tell whether the end of the run, which is durable, waits for callbacks."""
        if self._due and self._run.state.ended in (CANCELLED, TIMED_OUT) and not self._is_cut:
            self._is_cut = True
            assert self._calling is not None
            # Soon: those that need not wait for anything are called before.
            self._run.loop.call_soon(self._calling.cancel)
        return bool(self._due)

    def add(self, callbacks: Iterable[OnCompletion]) -> None:
        """Call these, too, from now on."""
        self._callbacks += [callback for callback in callbacks if callback not in self._callbacks]

    def lets(self, task: TaskId) -> bool:
        """Tell whether a task may start: it was there before the completion that callbacks are called for."""
        if not self._due:
            return True
        before = self._due[0].point.before
        return task.seq <= before.offset + before.seq

    def tell(self, run_id: str, workflow: str, records: Sequence[Record]) -> None:
        """Take note of an append that has become durable."""
        if self._others is not None:
            self._others.tell(run_id, workflow, records)
        for record in records:
            if record.seq <= self._state.seq:
                continue  # it was under way when the run got its first callback
            self._group.append(record)
            if record.boundary:
                group, self._group = self._group, []
                completion = self._completions.next(self._state, group)
                if completion is not None:
                    self._due.append(completion)
        if self._due and self._calling is None:
            self._calling = self._run.loop.create_task(self._call(), context=outside_of_steps())
            _under_way.add(self._calling)
            self._calling.add_done_callback(_under_way.discard)

    async def _call(self) -> None:
        run = self._run
        try:
            while self._due:
                for callback in self.callbacks:
                    await callback(self._due[0])
                self._due.popleft()
        except (KeyboardInterrupt, SystemExit):
            run.release()
            raise
        except GeneratorExit:
            raise  # its loop was closed under it, long ago perhaps
        except BaseException as error:
            current = asyncio.current_task()
            is_asked = isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling()
            if is_asked and not self._is_cut:
                run.release()  # the loop ends
                raise
            if not is_asked:
                self._failed(error, self._due[0].checkpoint)
        finally:
            self._calling = None
            self._due.clear()
        run.wake()

    def _failed(self, error: BaseException, checkpoint: Checkpoint) -> None:
        """Stop the run in this process: whoever awaits it gets the error, and the journal has nothing of it.

        Where somebody learns of another end, or nobody of any, it is logged.
        """
        run, step = self._run, checkpoint.last_completed_step
        where = (
            f"the checkpoint_callback of run {run.run_id} raised this, at {checkpoint.id} (step {step!r} had completed "
            "and is recorded)"
        )
        if self._is_cut or run.closed:
            after = "the run had ended" if self._is_cut else "this process had given the run up"
            logger.error(
                "%s, after %s: %s", where, after, said(error),
                extra=fields("checkpoint_callback_failed", run.run_id, step),
            )  # fmt: skip
            return
        where += f". This process has dropped the run; flow.resume({run.run_id!r}) goes on with it"
        if not isinstance(error, Exception):
            raised = WorkflowRuntimeError(f"the checkpoint_callback awaited something that was cancelled; {where}")
            raised.__cause__ = error
            error = raised
        else:
            error.add_note(where)
        run.drop(error)


def call_back(run: Run, callbacks: Iterable[OnCompletion]) -> None:
    """Call these when a step of the run has completed."""
    if run.checkpointing is None:
        run.checkpointing = run.observers = Checkpointing(run)
    run.checkpointing.add(callbacks)


async def recorded_completions(attachment: Attachment) -> AsyncGenerator[Completion]:
    """Yield the completions in the journal of a run of the attachment's workflow, wherever it lived.

    Raises RunNotFoundError and RunConflictError, and CheckpointError if the run was pruned.
    """
    engine, program = attachment.engine, attachment.program
    await engine.ready()
    row = await require_row(engine.store, attachment.run_id)
    require_workflow(attachment, row.workflow)
    require_kept(row, "its checkpoints")
    completions = Completions(Finder(attachment.run_id, shown_by(program.codec)))
    async with aclosing(groups(engine.store, row.run, 0, row.seq)) as found:
        async for state, group in found:
            completion = completions.next(state, group)
            if completion is not None:
                yield completion
