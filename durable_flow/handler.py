"""`WorkflowHandler`: what `Workflow.run` returns; awaited, iterated over, sent to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Generator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from .context import Context
from .engine.attachment import Attachment
from .errors import WorkflowRuntimeError
from .events import Event, InputRequiredEvent, InternalDispatchEvent, StopEvent, StreamResetEvent
from .state import CANCELLED

if TYPE_CHECKING:
    from .journal.protocol import StreamRow


class WorkflowHandler(Coroutine[Any, Any, Any]):
    """A caller's hold on a run.

    `await handler` gives the run's result or raises its error, every time the same. Cancelling the last task that
    awaits it *releases* the run unfinished; only `cancel_run` ends it. A handler is also a coroutine, for
    `asyncio.create_task(flow.run())`; unlike others it may be awaited by several tasks, and again.
    """

    def __init__(
        self, attachment: Attachment, state_class: type[BaseModel] | None = None, ctx: Context[Any] | None = None
    ):
        self._attachment = attachment
        self._state_class = state_class
        self._ctx = ctx
        self._position = 0
        self._streamed = False
        # A task that uses this handler as its coroutine drives one of its own.
        self._driven: WeakKeyDictionary[asyncio.Task[Any], Coroutine[Any, Any, Any]] | None = None

    @cached_property
    def _streaming(self) -> asyncio.Lock:
        return asyncio.Lock()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._attachment.run_id

    @property
    def ctx(self) -> Context[Any]:
        """The run's context as seen from outside."""
        if self._ctx is None:
            self._ctx = Context._outside(self._attachment, self._state_class)
        return self._ctx

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    def send(self, value: Any) -> Any:
        """Go on with the task whose coroutine this is; called by asyncio."""
        return self._driver().send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error in the task whose coroutine this is; called by asyncio."""
        return self._driver().throw(*error)

    def close(self) -> None:
        """End what the running task does with this coroutine; called by asyncio."""
        self._driver().close()

    def _driver(self) -> Coroutine[Any, Any, Any]:
        task = asyncio.current_task()
        if task is None:
            raise WorkflowRuntimeError(f"await the handler of run {self.run_id}, or make a task of it")
        if self._driven is None:
            self._driven = WeakKeyDictionary()
        driver = self._driven.get(task)
        if driver is None:
            driver = self._driven[task] = self._result()
        return driver

    async def _result(self) -> Any:
        self._attachment.go_on()
        outcome = await self._attachment.result()
        return outcome.value()

    def __repr__(self) -> str:
        outcome = self._attachment.outcome
        return f"<WorkflowHandler {self.run_id} {outcome.status if outcome else 'unfinished'}>"

    def is_done(self) -> bool:
        """Tell whether the run has ended, or this handler was cancelled."""
        return self._has_ended() or self._attachment.given_up

    def _has_ended(self) -> bool:
        return self._attachment.outcome is not None or self._attachment.failure is not None

    def get_stop_event(self) -> StopEvent | None:
        """Return the event that ended the run; None while it has not ended."""
        outcome = self._attachment.outcome
        return outcome.event if outcome is not None and isinstance(outcome.event, StopEvent) else None

    async def stop_event_result(self) -> StopEvent:
        """Wait for the end and return the event that ended the run; raises its error."""
        self._attachment.go_on()
        outcome = await self._attachment.result()
        outcome.value()
        assert isinstance(outcome.event, StopEvent)
        return outcome.event

    def done(self) -> bool:
        """Return `is_done()`."""
        return self.is_done()

    def cancel(self) -> bool:
        """Give up the run in this process, unless others wait for it; False if it has ended.

        This ends the handler and not the run: who awaits the handler gets CancelledError, and the run stays unfinished
        in its journal, to be taken up by `run(run_id=)`, `resume` or `recover`. To end the run: `await cancel_run()`.
        """
        if self.done():
            return False
        self._attachment.give_up()
        return True

    def cancelled(self) -> bool:
        """Tell whether the run was cancelled, or this handler was."""
        outcome = self._attachment.outcome
        return self._attachment.given_up or (outcome is not None and outcome.status == CANCELLED)

    def exception(self) -> BaseException | None:
        """Return what awaiting raises; None if the run has a result or this handler was cancelled.

        Raises asyncio.InvalidStateError while the run has not ended.
        """
        if self._attachment.given_up:
            return None
        if not self._has_ended():
            raise asyncio.InvalidStateError(f"run {self.run_id} has not ended yet")
        outcome = self._attachment.outcome
        return self._attachment.failure if outcome is None else outcome.error

    async def run_step(self) -> list[Event] | None:
        """In a run started with `stepwise=True`: run what is pending; return the events that wait for their steps then.

        They are in the journal and go on with the next `run_step`; sending one of them again, as old programs do,
        changes nothing. The list is empty if the run only waits for something; None once it has ended. Awaiting the
        handler lets the run go on by itself.
        """
        return await self._attachment.run_step()

    @property
    def stream_position(self) -> int:
        """The position of the last stream item that this handler has yielded; a later reader goes on from it."""
        return self._position

    async def stream_events(
        self, expose_internal: bool = False, *, after: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield the published events in order, live, then the event that ended the run.

        A late reader gets everything, except questions that had been answered before this process took the run up or
        found it ended.
        After `break` the next iteration goes on; `after` begins behind a position instead. Raises WorkflowRuntimeError
        once everything was consumed, and what prevented the run from being started.
        """
        async with self._streaming:
            if after is not None:
                self._position, self._streamed = after, False
            if self._streamed:
                raise WorkflowRuntimeError(
                    f"All the streamed events have already been consumed (run {self.run_id}); "
                    "stream_events(after=0) begins anew"
                )
            with self._attachment.listening() if expose_internal else contextlib.nullcontext() as listener:
                async for row in self._attachment.rows(self._position, listener):
                    if isinstance(row, InternalDispatchEvent):
                        yield row
                        continue
                    self._position = row.position
                    if row.wait_id is not None and await self._attachment.was_answered(row):
                        continue
                    event = self._event(row)
                    if isinstance(event, StopEvent):
                        self._streamed = True
                        yield event
                        return
                    yield event
            outcome = await self._attachment.result()
            self._streamed = True
            if outcome.event is not None:
                yield outcome.event

    def _event(self, row: StreamRow) -> Event:
        if row.reset_since is not None:
            return StreamResetEvent(position=row.reset_since, step=row.step, task=row.task)
        assert row.event is not None
        event = self._attachment.program.codec.decode_event(row.event)
        if row.wait_id is not None and isinstance(event, InputRequiredEvent):
            event._wait_id = row.wait_id
        return event

    async def send_event(self, event: Event, step: str | None = None, *, wait_id: str | None = None) -> None:
        """Send an event to the run, wherever it lives; it is durable on return.

        `wait_id` names the question that it answers. Raises RunFinishedError, AlreadyAnsweredError.
        """
        await self._attachment.send(event, step, wait_id)

    async def cancel_run(self, *, timeout: float | None = 5.0) -> None:
        """Cancel the run for good: it is never resumed. Waits up to `timeout` seconds for its end."""
        await self._attachment.cancel("cancelled by its handler")
        try:
            async with asyncio.timeout(timeout):
                await self._attachment.ended()
        except TimeoutError:
            pass
