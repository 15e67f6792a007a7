"""What comes to a run from outside, as what its loop decides about: events of callers, and messages."""

from __future__ import annotations

import logging

from ..errors import DeserializationError, DurableFlowError
from ..events import Event, StopEvent
from ..incoming import CancelRequested, EventReceived
from ..journal.protocol import MessageRow
from ..logs import fields, said
from ..records import EventEmitted
from ..serializers.json import JsonSerializer
from .collecting import joins_of_sent
from .program import Program
from .routing import route

logger = logging.getLogger("durable_flow")


def from_caller(program: Program, run_id: str, event: Event, step: str | None, wait_id: str | None) -> EventReceived:
    """Return an event that a caller sends. Raises what makes it unacceptable."""
    targets = route(program, run_id, event, step)
    joins = joins_of_sent(program, event, step) if program.has_joins else ()
    encoded = program.codec.encode_event(event)
    if isinstance(event, StopEvent):
        return EventReceived(EventEmitted(encoded, None, 0, None, ()), None, encoded)
    return EventReceived(EventEmitted(encoded, None, 0, None, targets, step, wait_id, joins))


def from_message(program: Program, run_id: str, row: MessageRow) -> EventReceived | CancelRequested:
    """Return what a message asks for. What cannot be read or routed is journaled all the same, and reaches nobody."""
    message = (row.id, row.message_id)
    if row.kind == "cancel":
        return CancelRequested(row.reason or "cancelled by message", (), message)
    assert row.event is not None
    encoded = row.event
    try:
        if encoded.codec != JsonSerializer.codec:
            raise DeserializationError(f"messages come in JSON, and this one in {encoded.codec!r}; it is not read")
        event = program.codec.decode_event(encoded)
        targets = route(program, run_id, event, row.step)
        joins = joins_of_sent(program, event, row.step) if program.has_joins else ()
        stop = encoded if isinstance(event, StopEvent) else None
    except DurableFlowError as error:
        extra = fields("message_unroutable", run_id, row.step, row=row.id)
        logger.error("message %d of run %s reaches no step: %s", row.id, run_id, said(error), extra=extra)
        return EventReceived(EventEmitted(encoded, None, 0, None, (), row.step), message, routable=False)
    emitted = EventEmitted(encoded, None, 0, None, targets, row.step, row.wait_id, joins)
    return EventReceived(emitted, message, stop)
