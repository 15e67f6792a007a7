"""The runs of one workflow instance in one event loop, for the methods that name none of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from weakref import WeakSet, ref

from ..errors import DurableFlowError, WorkflowRuntimeError
from ..events import Event
from ..logs import fields, said
from .attachment import Attachment

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("durable_flow")

# How long a caller waits for the next run when there is none.
PATIENCE_SECONDS = 5.0


class InstanceRuns:
    """What `run()` of an instance has returned in one loop, and who waits for the next run."""

    def __init__(self, instance: object, engine: Engine):
        self._instance = instance
        # Kept by the engine, which is not to be kept by this.
        self._engine = ref(engine)
        self._attachments: WeakSet[Attachment] = WeakSet()
        self._waiting: list[asyncio.Future[None]] = []
        self._sending: set[asyncio.Task[None]] = set()

    def add(self, attachment: Attachment) -> None:
        """Note a run that has just been started."""
        self._attachments.add(attachment)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def active(self, what: str) -> Attachment | None:
        """Return what holds the only run that is about to begin, or lives; None if there is none.

        Raises WorkflowRuntimeError if there are several.
        """
        found = {a.run_id: a for a in self._attachments if _is_active(a)}
        engine = self._engine()
        for run in engine.runs.values() if engine is not None else ():
            if run.run_id not in found and run.program.instance is self._instance:
                # Nobody has kept its handler.
                assert engine is not None
                found[run.run_id] = Attachment(engine, run.program, run.run_id)
                engine.adopt(found[run.run_id], run)
        if len(found) > 1:
            raise WorkflowRuntimeError(
                f"workflow.{what} needs exactly one active run, and {len(found)} are active: "
                f"{', '.join(sorted(found))}. Use that of the handler which run() has returned"
            )
        return next(iter(found.values()), None)

    async def next_active(self, what: str, patience_seconds: float = PATIENCE_SECONDS) -> Attachment | None:
        """As `active`; if there is none, wait a while for the next run, then say so and return None."""
        await asyncio.sleep(0)  # a task that starts the run may have been created just before
        found = self.active(what)
        if found is not None:
            return found
        begun = asyncio.get_running_loop().create_future()
        self._waiting.append(begun)
        try:
            async with asyncio.timeout(patience_seconds):
                await begun
        except TimeoutError:
            logger.warning(
                "workflow.%s: no run of this instance was active, and none was started within %g seconds; nothing "
                "was done. Call run() first, and use the handler that it returns", what, patience_seconds,
                extra=fields("no_active_run"),
            )  # fmt: skip
            return None
        return self.active(what)

    def send_soon(self, event: Event, step: str | None) -> None:
        """Send an event to the active run, or to the next one if that is started soon."""
        found = self.active("send_event")
        if found is not None:
            found.send_soon(event, step)
            return
        sending = asyncio.get_running_loop().create_task(self._send_later(event, step))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send_later(self, event: Event, step: str | None) -> None:
        try:
            found = await self.next_active("send_event")
            if found is not None:
                await found.send(event, step)
        except DurableFlowError as error:
            logger.error("%s", said(error), extra=fields("send_failed"))


def _is_active(attachment: Attachment) -> bool:
    if attachment.outcome is not None or attachment.failure is not None:
        return False
    return not attachment.started or attachment.run is not None or attachment.interested > 0
