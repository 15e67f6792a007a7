"""A caller's hold on a run: live in this engine, owned elsewhere, nobody's for now, or ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ContextStateError, DurableFlowError, RunFenced, RunFinishedError
from ..events import Event, InternalDispatchEvent
from ..journal.protocol import StreamRow
from ..logs import fields, said
from .internal import Listener
from .outcome import Outcome
from .run import GivenUp

if TYPE_CHECKING:
    from ..state import RunState
    from .beginning import Beginning
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
        # What the run begins with, if its caller has a Context for it; `found` is its state if it was found ended.
        self.beginning: Beginning | None = None
        self.found: RunState | None = None
        self.answered_before: frozenset[str] = frozenset()
        self.ended_before = False
        self.interested = 0
        self._abandoned = False
        self._pending: list[tuple[Event, str | None]] = []
        self._begun = False
        self._listeners: list[Listener] = []
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
        self.run, self.key, self.answered_before = run, run.claim.run, run.answered_before
        run.tail.listeners.add(self.notify)
        for listener in self._listeners:
            run.tell_internals(listener)
        self.notify()

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
        for future in changed:
            if not future.done():
                future.set_result(None)

    # -- What callers do -----------------------------------------------------------------------------------------------

    async def result(self) -> Outcome:
        """Wait for the outcome. When the last task that waits is cancelled, the run is released, not cancelled."""
        self.interested += 1
        self._abandoned = False
        try:
            while self.outcome is None:
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
        future: asyncio.Future[None] = self.engine.loop.create_future()
        self._changed.append(future)
        await future

    async def ready(self) -> None:
        """Wait until it is known where the run stands; raises why it could not be started."""
        self.interested += 1
        try:
            while not self._begun:
                future: asyncio.Future[None] = self.engine.loop.create_future()
                self._changed.append(future)
                await future
        finally:
            self.interested -= 1
        if self.failure is not None:
            raise self.failure

    async def rows(
        self, after: int, listener: Listener | None = None
    ) -> AsyncIterator[StreamRow | InternalDispatchEvent]:
        """Yield published items behind a position, live, until the run ends; between them what the listener gets."""
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
                    return
        finally:
            self.interested -= 1

    @contextlib.contextmanager
    def listening(self) -> Iterator[Listener]:
        """Within the block, get the internal events of the run while it is live here."""
        listener = Listener(self.notify)
        self._listeners.append(listener)
        if self.run is not None:
            self.run.tell_internals(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
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
        if self.run is not None and not self._competes(self.run, event, wait_id):
            # Not recorded by a run that is given up meanwhile: whoever has it then gets a message.
            with contextlib.suppress(GivenUp, RunFenced):
                await asyncio.shield(self.run.receive(event, step, wait_id))
                return
        self._require_running()
        await self.engine.sending.send(self, event, step, wait_id)

    def _competes(self, run: Run, event: Event, wait_id: str | None) -> bool:
        """Tell whether others may answer the same question: then the first one in the database counts, and the others
        learn that they came too late. What is sent after such an answer follows it on the same way.
        """
        return run.asks_for(event, wait_id) or self.engine.sending.is_under_way(run.run_id)

    async def cancel(self, reason: str) -> None:
        """Cancel the run for good and wait for its end."""
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

    def _require_running(self) -> None:
        if self.outcome is not None:
            raise RunFinishedError(
                f"run {self.run_id} has ended ({self.outcome.status}); nothing can be sent to it any more"
            )

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
