"""Sending to runs that are not live in this engine: by the database, to whoever owns them or takes them up."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from ..errors import DurableFlowError
from ..events import Event, HumanResponseEvent
from ..journal.protocol import NewMessage
from ..serializers.codec import Codec
from ..serializers.json import JsonSerializer
from .attachment import Attachment
from .routing import named_wait, route

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("durable_flow")


class Sending:
    """Puts events and cancellations into the messages of runs."""

    def __init__(self, engine: Engine):
        self._engine = engine
        # What is sent to a run is never taken from an unsafe codec.
        self._codec = Codec(JsonSerializer(), max_payload_bytes=engine.settings.max_payload_bytes)
        self._last: dict[str, asyncio.Task[None]] = {}

    def __bool__(self) -> bool:
        """Tell whether something is on its way."""
        return bool(self._last)

    async def send(self, attachment: Attachment, event: Event, step: str | None, wait_id: str | None) -> None:
        """Put an event into the run's messages."""
        assert attachment.key is not None
        route(attachment.program, attachment.run_id, event, step)
        encoded = self._codec.encode_event(event)
        message = NewMessage(
            "event", None, encoded, wait_id or named_wait(event), step, human=isinstance(event, HumanResponseEvent)
        )
        await self._engine.store.send(attachment.key, message)
        self._engine.shared.hear([attachment.key])

    def send_soon(self, attachment: Attachment, event: Event, step: str | None) -> None:
        """As `send`, in order, for callers that cannot await; a failure is logged."""
        previous = self._last.get(attachment.run_id)

        async def in_order() -> None:
            if previous is not None:
                await asyncio.wait([previous])
            try:
                await self.send(attachment, event, step, None)
            except DurableFlowError as error:
                logger.error("%s", error, extra={"action": "send_failed", "run_id": attachment.run_id})

        sent = self._last[attachment.run_id] = self._engine.in_background(in_order())
        sent.add_done_callback(partial(self._forget_sent, attachment.run_id))

    def _forget_sent(self, run_id: str, sent: asyncio.Task[None]) -> None:
        if self._last.get(run_id) is sent:
            del self._last[run_id]

    async def cancel(self, attachment: Attachment, reason: str) -> None:
        """Ask the run's owner, or whoever takes it up, to cancel it."""
        assert attachment.key is not None
        await self._engine.store.send(attachment.key, NewMessage("cancel", reason=reason))
        self._engine.shared.hear([attachment.key])
