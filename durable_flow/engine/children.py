"""Runs within runs: a step starts a child and waits for it; the child's questions are this run's, and so is its end.

Design section 3, rules 4, 5, 9 and 11: a child is an effect of its step, awaiting it is a wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import (
    CheckpointError,
    ContextStateError,
    DurableFlowError,
    NeedsAttentionError,
    RunFailedError,
    RunFinishedError,
)
from ..events import Event, InternalDispatchEvent, StartEvent
from ..fold import fold
from ..incoming import AttentionNeeded, ChildAsks, ChildOver, ImportRequested, StartRequested
from ..journal.deputies import wait_id_of
from ..journal.folding import state_at
from ..journal.protocol import FINAL_STATUSES, Append, NewMessage, RunRow, RunUpdate, StreamRow
from ..logs import fields, said
from ..records import EncodedValue, Record, RunCancelled, TaskId
from ..state import CANCELLED, NEEDS_ATTENTION, Child
from .attachment import Attachment
from .child_ids import parent_in
from .current import current_execution, engine_of, executing
from .execution import Execution, PlannedChild
from .host import GivenUp
from .outcome import Outcome
from .routing import named_wait
from .starting import start_request
from .waiting import Waiting

if TYPE_CHECKING:
    from .beginning import Beginning
    from .engine import Engine
    from .program import Program
    from .run import Run

logger = logging.getLogger("durable_flow")


class Children:
    """The children of a live run as this process sees them, by the seq of their start."""

    def __init__(self, run: Run):
        self._run = run
        self._held: dict[int, list[ChildAttachment]] = {}
        self._followed: dict[int, asyncio.Task[None]] = {}
        self._ends: Waiting[int] = Waiting(run.loop)

    @property
    def unfinished(self) -> bool:
        """Tell whether a child is followed whose end is not known yet."""
        return bool(self._followed)

    def hold(self, attachment: ChildAttachment) -> None:
        """Keep what holds a child until the child or this run has ended."""
        self._held.setdefault(attachment.seq, []).append(attachment)

    def held(self, seq: int) -> ChildAttachment | None:
        """Return what holds a child here, if anything does."""
        found = self._held.get(seq)
        return found[0] if found else None

    def follow(self, attachment: ChildAttachment) -> None:
        """Hand on what the child asks, and take note of its end."""
        child = self._run.state.children.get(attachment.seq)
        if child is None or child.ended_at or attachment.seq in self._followed:
            return
        following = self._followed[attachment.seq] = attachment.engine.in_background(self._follow(attachment, child))
        following.add_done_callback(lambda _: self._followed.pop(attachment.seq, None))

    async def _follow(self, attachment: ChildAttachment, child: Child) -> None:
        try:
            async for row in attachment.rows(child.asked):
                if isinstance(row, InternalDispatchEvent) or row.wait_id is None or row.event is None:
                    continue
                if not await attachment.was_answered(row):
                    # Its codec may be another one.
                    prompt = self._run.program.codec.encode_event(attachment.program.codec.decode_event(row.event))
                    wait_id = wait_id_of(attachment.run_id, row.wait_id)
                    self._run.accept(ChildAsks(child.seq, row.position, prompt, wait_id))
        except CheckpointError:
            pass  # it was pruned, so it has ended, and asks nothing any more
        except DurableFlowError as error:
            self.failed(child.seq, error)
            return
        if attachment.outcome is None:
            assert attachment.failure is not None
            self.failed(child.seq, attachment.failure)
        elif attachment.outcome.status == NEEDS_ATTENTION:
            self._needs_attention(child, attachment.outcome.error)
        else:
            self._run.accept(ChildOver(child.seq, attachment.outcome.status))

    def _needs_attention(self, child: Child, error: BaseException | None) -> None:
        """The child has not ended: its parent is parked beside it, and its step stays where it is."""
        run = self._run
        reason = (
            f"run {run.run_id} waits for run {child.run_id} of {child.workflow}, which needs attention: {error}. Take "
            f"up that one with its workflow's resume({child.run_id!r}), then this one with resume({run.run_id!r})"
        )
        run.accept(AttentionNeeded(reason))

    def end_of(self, seq: int) -> asyncio.Future[None]:
        """Return a future that ends when the child's end is durable, or raises why it cannot be known."""
        return self._ends.future(seq)

    def ended(self, seq: int) -> None:
        """The child's end is durable."""
        self._held.pop(seq, None)
        self._ends.wake(seq)

    def failed(self, seq: int, error: BaseException) -> None:
        """The child could not be started, or cannot be reached."""
        child = self._run.state.children.get(seq)
        if isinstance(error, NeedsAttentionError) and child is not None:
            self._needs_attention(child, error)
            return
        self._ends.fail(seq, error)

    def forget(self, seq: int) -> None:
        """Follow a child no longer; whoever waits for it is cancelled."""
        if seq in self._followed:
            self._followed[seq].cancel()
        self._ends.cancel(seq)

    def close(self) -> dict[int, list[ChildAttachment]]:
        """Follow no child any more; return what holds those that have not ended."""
        for following in tuple(self._followed.values()):
            following.cancel()
        held, self._held = self._held, {}
        return held


class ChildAttachment(Attachment):
    """What a step holds of a run that it has started.

    In a step of the parent, waiting for it gives up the step's worker, and its end is known when the parent's journal
    has it. Elsewhere it is an attachment as any other. `seq` is that of its ChildStarted, 0 while that is not durable.
    """

    def __init__(self, engine: Engine, program: Program, run_id: str, parent: Run, *, independent: bool):
        super().__init__(engine, program, run_id)
        self._independent = independent
        self.above = parent.places
        self.seq = 0
        self._parent = parent

    async def begin(
        self, execution: Execution, planned: PlannedChild, event: StartEvent, start: StartRequested | ImportRequested
    ) -> None:
        """Create the child, or find it, as soon as it is durable that the parent has started it."""
        current_execution.set(None)  # what happens to the child is no part of its parent's step
        parent = self._parent
        try:
            if planned.durable is not None:
                await asyncio.wait([planned.durable])
                planned.durable.result()
            if parent.closed and not self._independent:
                raise GivenUp(f"run {self.run_id} was not started: run {parent.run_id} was given up by this process")
        except DurableFlowError as error:
            self.failure, self._begun = error, True
            self.notify()
            return
        if parent.children is None:
            parent.children = Children(parent)
        self.seq = planned.seq or _started_at(execution, planned)
        parent.children.hold(self)
        self.notify()
        recorded = parent.state.children.get(self.seq)
        if recorded is not None and recorded.ended_at and await self._is_gone():
            # To start it anew would do again what was done.
            reason = (
                f"run {parent.run_id} goes on with run {self.run_id} of {recorded.workflow}, which it has started and "
                f"which has ended ({recorded.status}), but that one is not here: it was pruned together with its "
                f"result, or not imported. Import it, then flow.resume({parent.run_id!r}); or fork run "
                f"{parent.run_id} from a checkpoint before it was started, or cancel it"
            )
            self.failure, self._begun = NeedsAttentionError(reason), True
            parent.accept(AttentionNeeded(reason))
            self.notify()
            return
        await self.engine.starting.begin(self, event, start, known=True)
        if not parent.closed:
            parent.children.follow(self)

    def fail(self, error: BaseException) -> None:
        """The child could not be started or reached: its parent's step is told."""
        self.interested += 1  # an error of this is told to the step that awaits the child, not to the log
        super().fail(error)
        self.interested -= 1
        if self._parent.children is not None:
            self._parent.children.failed(self.seq, error)

    async def _is_gone(self) -> bool:
        await self.engine.ready()
        return self.run_id not in self.engine.runs and await self.engine.store.find(self.run_id) is None

    async def was_answered(self, row: StreamRow) -> bool:
        """As `Attachment.was_answered`; a step that runs again sees what it saw before."""
        execution = executing()
        return (execution is None or execution.run is not self._parent) and await super().was_answered(row)

    def give_up(self) -> None:
        """Give up the child in this process, and with it those who wait for it."""
        super().give_up()
        if self._parent.children is not None:
            self._parent.children.forget(self.seq)

    async def result(self) -> Outcome:
        """Wait for the outcome: in a step as for an event, elsewhere as `Attachment.result`."""
        execution = executing()
        if execution is not None and execution.run is self._parent and execution.attached and not self.given_up:
            while not self.seq and self.failure is None:
                await self._change()
            if self.failure is not None and not isinstance(self.failure, NeedsAttentionError):
                raise self.failure
            await execution.child_ended(self.seq)
        return as_first_told(await super().result())

    async def _pause(self, future: asyncio.Future[None]) -> None:
        execution = executing()
        if execution is not None and execution.attached:
            await execution.pause_for_child(future)
        else:
            await future

    async def send(self, event: Event, step: str | None = None, wait_id: str | None = None) -> None:
        """Send an event to the child; what a step sends again when it runs again counts once."""
        execution = executing()
        if execution is None or not execution.attached:
            await super().send(event, step, wait_id)
            return
        message_id = execution.child_message_id(self.run_id, wait_id or named_wait(event))
        await self.ready()
        await self.engine.sending.send(self, event, step, wait_id, message_id)

    def send_soon(self, event: Event, step: str | None = None) -> None:
        """Send an event to the child: in order, not yet durable."""
        if executing() is None:
            super().send_soon(event, step)
            return
        sending = self.engine.in_background(self.send(event, step))
        sending.add_done_callback(self._sent_soon)

    def _sent_soon(self, sending: asyncio.Task[None]) -> None:
        error = sending.exception() if not sending.cancelled() else None
        if error is not None:
            logger.error("%s", said(error), extra=fields("send_failed", self.run_id))


def start_child(
    execution: Execution, engine: Engine, program: Program, run_id: str | None, event: StartEvent | None,
    arguments: EncodedValue | None, beginning: Beginning | None = None,
) -> Attachment:  # fmt: skip
    """Begin a run from within a step; returns at once. A `run_id` that the step names makes the run independent.

    Raises SerializationError, ContextStateError if the step has ended, and StepDivergedError.
    """
    parent = execution.run
    shared = engine.settings == engine_of(execution).settings
    above = parent.run_id if run_id is None and shared else None
    if event is None:
        raise ContextStateError(
            f"step {execution.step!r} of run {parent.run_id} starts a run that goes on from a saved context; start it "
            "outside of a step"
        )
    start = start_request(program, event, arguments, above, beginning)
    planned = execution.start_child(program, run_id, arguments)
    if planned.replayed is not None:
        return planned.replayed(engine, program, event, arguments, beginning)
    attachment = ChildAttachment(engine, program, planned.run_id, parent, independent=run_id is not None)
    attachment.beginning = beginning
    engine.in_background(attachment.begin(execution, planned, event, start))
    return attachment


def leave_children(engine: Engine, run: Run) -> None:
    """A run is no longer live here: its unfinished children are cancelled if it has ended, else given up as well."""
    held = run.children.close() if run.children is not None else {}
    ended = run.outcome is not None and run.state.ended is not None
    for child in run.state.children.values():
        if child.ended_at or child.independent:
            continue
        attachments = held.get(child.seq, [])
        if ended:
            reason = f"its parent run {run.run_id} has ended ({run.state.ended})"
            engine.in_background(_cancel(engine, child, attachments[0] if attachments else None, reason))
        else:
            for attachment in attachments:
                if attachment.leave_queue():
                    attachment.fail(GivenUp(f"run {child.run_id} was not started: its parent was given up"))
                else:
                    attachment.abandon()


def cancel_unused(engine: Engine, run: Run, task: TaskId, attempt: int) -> None:
    """A step has completed: cancel the children of its failed attempts that the last one did not use again."""
    for child in run.state.children.values():
        if child.task == task and child.attempt < attempt and not child.ended_at and not child.independent:
            attachment = run.children.held(child.seq) if run.children is not None else None
            reason = f"step {task.step!r} of its parent run {run.run_id} has completed without it"
            engine.in_background(_cancel(engine, child, attachment, reason))


async def _cancel(engine: Engine, child: Child, attachment: ChildAttachment | None, reason: str) -> None:
    """Cancel a child for good, wherever it lives. If this process dies first, whoever takes the child up does it."""
    current_execution.set(None)
    try:
        if attachment is not None:
            await attachment.cancel(reason)
            if attachment.outcome is None:
                # Nobody may have it: then this engine takes it up to end it.
                attachment.interested += 1
                engine.watch(attachment)
            return
        await _cancel_elsewhere(engine, child.run_id, reason)
    except RunFinishedError:
        pass  # by itself, in the same moment
    except DurableFlowError as error:
        logger.warning(
            "run %s could not be cancelled; it will be when it is taken up: %s", child.run_id, said(error),
            extra=fields("child_not_cancelled", child.run_id),
        )  # fmt: skip


async def _cancel_elsewhere(engine: Engine, run_id: str, reason: str) -> None:
    """Cancel a run that is not held here: by a message to whoever has it, or, if nobody does, by its journal alone."""
    row = await engine.store.find(run_id)
    if row is None or row.status in FINAL_STATUSES:
        return
    await engine.store.send(row.run, NewMessage("cancel", reason=reason))
    engine.shared.hear([row.run])
    if (await engine.owners.gone())(row.owner):
        await _end(engine, row, reason)


async def cancel_orphans(engine: Engine, rows: Iterable[RunRow]) -> None:
    """Cancel those of these runs whose parent has ended: its process died before it could tell them.

    One that only waits would never be taken up for it.
    """
    children = [row for row in rows if row.run_id not in engine.runs and parent_in(row.run_id) is not None]
    if not children:
        return
    unfinished = {row.run_id for row in await engine.store.list_runs(unfinished=True)}
    for row in children:
        if row.run_id not in unfinished or parent_in(row.run_id) in unfinished:
            continue
        parent = fold(await engine.store.read(row.run, limit=1)).parent
        ended = None if parent is None else await engine.store.find(parent)
        if ended is not None and ended.status in FINAL_STATUSES:
            with suppress(RunFinishedError):
                await _cancel_elsewhere(engine, row.run_id, f"its parent run {parent} has ended ({ended.status})")


async def _end(engine: Engine, row: RunRow, reason: str) -> None:
    """End a child that no process has by its journal alone: nobody here may have its workflow."""
    claim = await engine.store.claim(row.run, engine.worker, epoch=row.epoch, status=row.status)
    if claim is None:
        return  # whoever was faster gets the message
    try:
        state = await state_at(engine.store, row.run)
        record = Record(state.seq + 1, max(engine.store.now(), state.last_at), True, RunCancelled(reason))
        update = RunUpdate(CANCELLED, None, None, True)
        await engine.store.submit(Append(row.run, row.run_id, state.seq, claim.epoch, [record], update))
    except DurableFlowError:
        engine.taking.give_back(row.run_id, row.uid, claim.epoch)
        raise
    for child in state.children.values():
        if not child.ended_at and not child.independent:
            await _cancel(engine, child, None, f"its parent run {row.run_id} has ended ({CANCELLED})")


def _started_at(execution: Execution, planned: PlannedChild) -> int:
    """Return the seq of the ChildStarted that has just become durable, also if its step has ended meanwhile."""
    if execution.task_id in execution.run.state.tasks:
        return int(execution.effect_at(planned.place).outcome)
    children = execution.run.state.children.values()
    return next((c.seq for c in children if c.run_id == planned.run_id and c.task == execution.task_id), -1)


def as_first_told(outcome: Outcome) -> Outcome:
    """Let a step that runs again see the error that it saw before, as far as that can be rebuilt."""
    if isinstance(outcome.error, RunFailedError) and outcome.error.__cause__ is not None:
        return outcome._replace(error=outcome.error.__cause__)
    return outcome
