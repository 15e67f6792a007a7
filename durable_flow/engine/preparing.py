"""What is added to what came, before it is decided about: what only the live objects of a run know."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..incoming import (
    CancelRequested,
    EffectsCommitted,
    EventReceived,
    Incoming,
    StepRaised,
    StepReturned,
    TimeIsUp,
)
from ..logs import fields, said
from ..records import WaitClosed

if TYPE_CHECKING:
    from .run import Run

logger = logging.getLogger("durable_flow")


def prepared(run: Run, incoming: Incoming, reply: asyncio.Future[None] | None) -> Incoming:
    """Add which wait an event satisfies, and at the end of the run the drafts of everybody.

    `reply` gets the error of an answer that comes too late.
    """
    match incoming:
        case StepReturned() | EffectsCommitted() | StepRaised() if run.state.waits:
            taken = {fact.wait_id for fact in incoming.drafts if isinstance(fact, WaitClosed)}
            incoming = incoming._replace(drafts=run.answers.matched(incoming.drafts, taken))
            if isinstance(incoming, StepReturned):
                incoming = incoming._replace(emitted=run.answers.matched(incoming.emitted, taken))
            return incoming
        case EventReceived(routable=False):
            return incoming
        case EventReceived() if incoming.stop is None:
            return _received(run, incoming, reply)
        case CancelRequested() | TimeIsUp() | EventReceived():
            return incoming._replace(drafts=run.everybodys_drafts())
        case _:
            return incoming


def _received(run: Run, incoming: EventReceived, reply: asyncio.Future[None] | None) -> EventReceived:
    emitted, error = run.answers.received(incoming.emitted)
    if error is None:
        pass
    elif reply is not None:
        reply.set_exception(error)
    else:
        logger.warning("%s", said(error), extra=fields("answer_dropped", run.run_id))
    return incoming._replace(emitted=emitted)
