"""Sending to runs that are not live in this engine: by the database, to whoever owns them or takes them up."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from ..errors import AlreadyAnsweredError
from ..events import Event, HumanResponseEvent
from ..journal.deputies import deliver, deputy
from ..journal.protocol import NewMessage
from ..logs import fields, said
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

    def is_under_way(self, run_id: str) -> bool:
        """Tell whether something for this run is on its way."""
        return run_id in self._last

    async def send(
        self, attachment: Attachment, event: Event, step: str | None, wait_id: str | None,
        message_id: str | None = None,
    ) -> None:  # fmt: skip
        """Put an event into the run's messages, once under one `message_id`.

        Raises what makes it unacceptable, and why it is not wanted.
        """
        message = self._message(attachment, event, step, wait_id)._replace(message_id=message_id)
        await asyncio.shield(self._in_order(attachment, message))

    def send_soon(self, attachment: Attachment, event: Event, step: str | None) -> None:
        """As `send`, for callers that cannot await. Raises what makes it unacceptable; the rest is logged."""
        sent = self._in_order(attachment, self._message(attachment, event, step, None))
        sent.add_done_callback(partial(_log_failure, attachment.run_id))

    async def cancel(self, attachment: Attachment, reason: str) -> None:
        """Ask the run's owner, or whoever takes it up, to cancel it."""
        await asyncio.shield(self._in_order(attachment, NewMessage("cancel", reason=reason)))

    def _in_order(self, attachment: Attachment, message: NewMessage) -> asyncio.Task[None]:
        """Insert a message after those that were sent to the run before."""
        previous = self._last.get(attachment.run_id)

        async def insert() -> None:
            if previous is not None:
                await asyncio.wait([previous])
            run, addressed = await self._addressed(attachment, message)
            run, _ = await deliver(self._engine.store, run, addressed)
            self._engine.shared.hear([run])

        sent = self._last[attachment.run_id] = self._engine.in_background(insert())
        sent.add_done_callback(partial(self._forget_sent, attachment.run_id))
        return sent

    async def _addressed(self, attachment: Attachment, message: NewMessage) -> tuple[int, NewMessage]:
        """Return the key of the run that the message is for, and the message as that run gets it."""
        run_id, wait_id = deputy(attachment.run_id, message.wait_id)
        if run_id == attachment.run_id:
            assert attachment.key is not None
            return attachment.key, message
        row = await self._engine.store.find(run_id)
        if row is None:
            raise AlreadyAnsweredError(
                f"run {attachment.run_id}: the question {message.wait_id} was asked by run {run_id}, which is not in "
                f"{self._engine.store.url}. Nothing was sent"
            )
        return row.run, message._replace(wait_id=wait_id)

    def _message(self, attachment: Attachment, event: Event, step: str | None, wait_id: str | None) -> NewMessage:
        route(attachment.program, attachment.run_id, event, step)
        encoded = self._codec.encode_event(event)
        human = isinstance(event, HumanResponseEvent)
        return NewMessage("event", None, encoded, wait_id or named_wait(event), step, human=human)

    def _forget_sent(self, run_id: str, sent: asyncio.Task[None]) -> None:
        if self._last.get(run_id) is sent:
            del self._last[run_id]
        if not sent.cancelled():
            sent.exception()  # whoever sent it may have gone


def _log_failure(run_id: str, sent: asyncio.Task[None]) -> None:
    error = sent.exception() if not sent.cancelled() else None
    if error is not None:
        logger.error("%s", said(error), extra=fields("send_failed", run_id))
