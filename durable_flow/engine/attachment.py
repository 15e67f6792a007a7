"""A caller's hold on a run: live in this engine, owned elsewhere, nobody's for now, or ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ContextStateError, DurableFlowError, RunFenced, RunFinishedError, WorkflowRuntimeError
from ..events import Event, HumanResponseEvent, InternalDispatchEvent
from ..journal.deputies import OF, deputy
from ..journal.kept import require_streamed
from ..journal.protocol import StreamRow
from ..logs import fields, said
from .asked import AskedBefore
from .host import GivenUp
from .internal import Listener
from .outcome import Outcome
from .places import NOTHING, Places
from .waiting import wake_all

if TYPE_CHECKING:
    from ..state import RunState
    from .beginning import Beginning
    from .checkpointing import OnCompletion
    from .engine import Engine
    from .program import Program
    from .run import Run

logger = logging.getLogger("durable_flow")


class Attachment:
    """What a handler holds. `key` is the run's row once it is known, `run` the live run while this engine owns it."""

    def __init__(self, engine: Engine, program: Program, run_id: str):
        self.engine = engine
        self.program = program
        self.run_id = run_id
        self.key: int | None = None
        self.run: Run | None = None
        self.outcome: Outcome | None = None
        self.failure: BaseException | None = None
        # Whether no such run can have been there before.
        self.is_new = False
        # The key of the run that it is forked from, and the seq of the checkpoint there.
        self.forked_from: tuple[int, int] | tuple[()] = ()
        # What the run begins with, if its caller has a Context for it; `found` is its state if its end was read.
        self.beginning: Beginning | None = None
        self.found: RunState | None = None
        # The questions of before this engine took the run up, and which of those that were settled had an answer.
        self.asked_before: AskedBefore | None = None
        self._answered: frozenset[str] | None = None
        self.ended_before = False
        self.interested = 0
        # A stepwise run is taken up here with a gate.
        self.stepwise = False
        # Who is called when a step has completed here.
        self.callbacks: tuple[OnCompletion, ...] = ()
        # The place among the runs of its instance that it has asked for, or has until a run takes it over.
        self.asked: tuple[Places, asyncio.Future[bool]] | None = None
        self.place: Places | None = None
        self.above: frozenset[Places] = NOTHING
        self._given_up = False
        self._abandoned = False
        self._pending: list[tuple[Event, str | None]] = []
        self._begun = False
        self._listeners: tuple[Listener, ...] = ()
        self._changed: list[asyncio.Future[None]] = []
        self._changes = 0

    @property
    def started(self) -> bool:
        """Tell whether it is known where the run stands."""
        return self._begun

    # -- What the engine tells -----------------------------------------------------------------------------------------

    def begun(self) -> None:
        """The run was created, claimed, found elsewhere or found ended."""
        self._begun = True
        for event, step in self._pending:
            try:
                self.send_soon(event, step)
            except DurableFlowError as error:
                # Its sender went on long ago: it was sent before the run had begun.
                logger.error("%s", said(error), extra=fields("send_failed", self.run_id))
        self._pending.clear()
        if self._abandoned and not self.interested:
            self.engine.loop.call_soon(self._release)
        self.notify()

    def attach(self, run: Run) -> None:
        """The run is live in this engine."""
        self.run, self.key = run, run.claim.run
        self.asked_before, self._answered = run.asked_before, None
        run.tail.listeners.add(self.notify)
        for listener in self._listeners:
            run.tell_internals(listener)
        self._tell_callbacks(run)
        self.notify()

    def call_back(self, callback: OnCompletion) -> None:
        """Call this when a step of the run has completed here, from now on."""
        self.callbacks = (*self.callbacks, callback)
        if self.run is not None:
            self._tell_callbacks(self.run)

    def _tell_callbacks(self, run: Run) -> None:
        if self.callbacks:
            from .checkpointing import call_back  # few runs have callbacks

            call_back(run, self.callbacks)

    def detach(self) -> None:
        """The run is no longer live here."""
        if self.run is not None:
            self.run.tail.listeners.discard(self.notify)
            if self.outcome is None:
                self.run = None
        self.notify()

    def end(self, outcome: Outcome) -> None:
        """The run has an outcome."""
        self.outcome = outcome
        self.detach()

    def fail(self, error: BaseException) -> None:
        """The run could not be started or went on being unreachable; awaiting raises the error."""
        self.failure = error
        if not self.interested:
            # Nobody may ever await the handler; an error must not pass in silence.
            logger.error("%s", said(error), extra=fields("run_unavailable", self.run_id))
        self._begun = True
        self._pending.clear()
        self.detach()

    def notify(self) -> None:
        """Wake everybody who waits for a change."""
        self._changes += 1
        changed, self._changed = self._changed, []
        wake_all(changed)

    # -- What callers do -----------------------------------------------------------------------------------------------

    async def result(self) -> Outcome:
        """Wait for the outcome. When the last task that waits is cancelled, the run is released, not cancelled."""
        self.interested += 1
        self._abandoned = False
        try:
            while self.outcome is None:
                if self._given_up:
                    raise asyncio.CancelledError(
                        f"the handler of run {self.run_id} was cancelled; the run goes on "
                        f"when it is taken up, by run(run_id=) or resume({self.run_id!r})"
                    )
                if self.failure is not None:
                    raise self.failure
                await self._next_change()
            return self.outcome
        except asyncio.CancelledError:
            if self.interested == 1:
                self.abandon()
            raise
        finally:
            self.interested -= 1

    def give_up(self) -> None:
        """Release the run unless others wait for it; whoever waits by this attachment, now or later, is cancelled."""
        self._given_up = True
        if self.leave_queue():
            self.failure = GivenUp(f"run {self.run_id} was not started: its handler was cancelled")
            self._begun = True
        self.notify()
        self.abandon()

    @property
    def given_up(self) -> bool:
        """Tell whether it was given up before the run's end was known."""
        return self._given_up and self.outcome is None

    def abandon(self) -> None:
        """Release the run as soon as it is live: the last who waited for it by this attachment has given up."""
        self._abandoned = True
        self._release()

    def _release(self) -> None:
        if self._abandoned and self.run is not None:
            self._abandoned = False
            if not self.engine.is_awaited(self.run, beside=self):
                self.run.release()

    async def ended(self) -> None:
        """Wait for the outcome; cancelling this releases nothing."""
        self.interested += 1
        try:
            while self.outcome is None and self.failure is None:
                await self._next_change()
        finally:
            self.interested -= 1

    async def _next_change(self) -> None:
        if self._begun and self.run is None:
            self.engine.watch(self)
        await self._pause(self._change())

    def _change(self) -> asyncio.Future[None]:
        """Return a future that ends with the next change."""
        future: asyncio.Future[None] = self.engine.loop.create_future()
        self._changed.append(future)
        return future

    async def _pause(self, future: asyncio.Future[None]) -> None:
        await future

    async def ready(self) -> None:
        """Wait until it is known where the run stands; raises why it could not be started."""
        self.interested += 1
        try:
            while not self._begun:
                await self._change()
        finally:
            self.interested -= 1
        if self.failure is not None:
            raise self.failure

    async def rows(
        self, after: int, listener: Listener | None = None
    ) -> AsyncIterator[StreamRow | InternalDispatchEvent]:
        """Yield published items behind a position, live, until the run ends; between them what the listener gets.

        Raises CheckpointError if there were more, which are gone because the run was pruned.
        """
        self.interested += 1
        try:
            await self.ready()
            while True:
                ended = self.outcome is not None or self.failure is not None
                if self.run is not None and after < self.run.state.streamed_before:
                    after = self.run.state.streamed_before
                rows = self.run.tail.after(after) if self.run is not None else None
                if rows is None and self.key is not None:
                    rows = await self._stored_rows(self.key, after, wait=not ended)
                elif not rows and not ended and not (listener is not None and listener.has(after)):
                    await self._next_change()
                for row in rows or ():
                    if listener is not None:
                        for event in listener.up_to(row.position - 1):
                            yield event
                    after = row.position
                    yield row
                if listener is not None:
                    for event in listener.up_to(after):
                        yield event
                if not rows and ended:
                    if self.run is None and self.key is not None:
                        await require_streamed(self.engine.store, self.key, self.run_id, after)
                    return
        finally:
            self.interested -= 1

    @contextlib.contextmanager
    def listening(self) -> Iterator[Listener]:
        """Within the block, get the internal events of the run while it is live here."""
        listener = Listener(self.notify)
        self._listeners += (listener,)
        if self.run is not None:
            self.run.tell_internals(listener)
        try:
            yield listener
        finally:
            self._listeners = tuple(other for other in self._listeners if other is not listener)
            if self.run is not None:
                self.run.end_internals(listener)

    async def _stored_rows(self, key: int, after: int, *, wait: bool) -> list[StreamRow]:
        """Return published items from the database; if there are none and `wait` says so, after the next change."""
        # Told only in here: a reader that breaks off between two items leaves nothing behind.
        with self.engine.shared.reading(key, self.notify):
            changes = self._changes
            rows = await self.engine.store.stream(key, after)
            if not rows and wait and changes == self._changes:
                await self._next_change()
            return rows

    def send_soon(self, event: Event, step: str | None = None) -> None:
        """Send an event to the run: in order, not yet durable."""
        if not self._begun:
            self._pending.append((event, step))
        elif self._is_held(event):
            pass  # it goes on by itself
        elif self.run is not None and not self._competes(self.run, event, None):
            self.run.receive(event, step).add_done_callback(partial(self._received, event, step))
        else:
            self._require_running()
            self.engine.sending.send_soon(self, event, step)

    def _received(self, event: Event, step: str | None, reply: asyncio.Future[None]) -> None:
        """Send what a run that was given up meanwhile has not recorded to whoever has it then."""
        error = None if reply.cancelled() else reply.exception()
        if isinstance(error, GivenUp | RunFenced):
            try:
                self.engine.sending.send_soon(self, event, step)
            except DurableFlowError as refused:
                error = refused
            else:
                return
        if error is not None:
            logger.error("%s", said(error), extra=fields("send_failed", self.run_id))

    async def send(self, event: Event, step: str | None = None, wait_id: str | None = None) -> None:
        """Send an event to the run; it is durable on return."""
        await self.ready()
        if self._is_held(event):
            return  # it goes on by itself
        if self.run is not None and not self._competes(self.run, event, wait_id):
            # Not recorded by a run that is given up meanwhile: whoever has it then gets a message.
            with contextlib.suppress(GivenUp, RunFenced):
                await asyncio.shield(self.run.receive(event, step, wait_id))
                return
        self._require_running()
        await self.engine.sending.send(self, event, step, wait_id)

    def _competes(self, run: Run, event: Event, wait_id: str | None) -> bool:
        """Tell whether others may answer the same question: then the first one in the database counts, and the others
        learn that they came too late. What is sent after such an answer follows it on the same way. So does what may
        be meant for a run that this one has started.
        """
        if run.asks_for(event, wait_id) or self.engine.sending.is_under_way(run.run_id):
            return True
        if OF in (wait_id or ""):
            return True
        return bool(run.state.children) and isinstance(event, HumanResponseEvent)

    def leave_queue(self) -> bool:
        """Wait for a place no longer; tell whether the run will therefore not be created."""
        if self.asked is None or self.key is not None:
            return False
        places, asked = self.asked
        return places.leave(asked)

    async def cancel(self, reason: str) -> None:
        """Cancel the run for good and wait for its end."""
        if self.leave_queue():
            self.end(Outcome.never_started(self.run_id))
            self.begun()
            return
        if self.asked is not None and self.key is not None:
            await self.engine.sending.cancel(self, reason)  # it exists, and is taken up later
            return
        await self.ready()
        if self.outcome is not None:
            return
        # A run that comes to its end in the same moment needs no cancelling; its outcome tells.
        with contextlib.suppress(RunFinishedError):
            if self.run is not None:
                with contextlib.suppress(GivenUp, RunFenced):
                    await asyncio.shield(self.run.cancel(reason))
                    return
            await self.engine.sending.cancel(self, reason)

    async def run_step(self) -> list[Event] | None:
        """Run what is pending in a stepwise run and return the events that it holds then; None once it has ended."""
        await self.ready()
        self.interested += 1
        try:
            while self.outcome is None:
                if self.failure is not None:
                    raise self.failure
                if self.run is None:
                    await self._next_change()
                    continue
                if self.run.gate is None:
                    raise WorkflowRuntimeError(
                        f"run {self.run_id} is not stepwise; start it, or take it up, with run(stepwise=True)"
                    )
                run, gate = self.run, self.run.gate
                run.take_messages(await self.engine.store.messages([run.claim.run]))
                held = await gate.step()
                if not run.closed:
                    return held
            return None
        finally:
            self.interested -= 1

    def go_on(self) -> None:
        """Let a stepwise run go on by itself."""
        if self.stepwise:
            self.stepwise = False
            if self.run is not None and self.run.gate is not None:
                self.run.gate.open()

    def _is_held(self, event: Event) -> bool:
        gate = self.run.gate if self.run is not None else None
        return gate is not None and gate.holds(event)

    def _require_running(self) -> None:
        if self.outcome is not None:
            raise RunFinishedError(
                f"run {self.run_id} has ended ({self.outcome.status}); nothing can be sent to it any more"
            )

    async def was_answered(self, row: StreamRow) -> bool:
        """Tell whether an item is a question that had been answered before this engine took the run up."""
        if row.wait_id is None:
            return False
        before = self.asked_before
        if self.ended_before or (before is not None and row.wait_id in before.answered):
            return True
        run_id, wait_id = deputy(self.run_id, row.wait_id)
        if run_id == self.run_id:
            if before is None or row.position > before.position or wait_id in before.open:
                return False
            if self._answered is None:
                assert self.key is not None
                self._answered = await self.engine.store.answered(self.key)
            return wait_id in self._answered
        if self.run is not None and row.position > self.run.position_before:
            return False
        # Asked by a run that this one has started, before this engine took it up.
        store = self.engine.store
        asking = await store.find(run_id)
        if asking is None or wait_id not in {wait.wait_id for wait in await store.waits(asking.run)}:
            return True
        return wait_id in {message.wait_id for message in await store.messages([asking.run])}

    def live(self) -> Run:
        """Return the live run, also one that has ended while this attachment was held."""
        if self.run is None and not self._begun:
            raise ContextStateError(
                f"where run {self.run_id} stands is not known yet: it is being looked up. Its context can be used once "
                "its first event has come from handler.stream_events(), or it has ended"
            )
        if self.run is None:
            raise ContextStateError(
                f"run {self.run_id} is not live in this process; read its state with Journal.state({self.run_id!r})"
            )
        return self.run
