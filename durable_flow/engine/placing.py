"""Waiting for a place among the live runs of an instance, before a run is created or taken up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import DurableFlowError
from ..journal.protocol import RunRow, is_at_rest
from .attachment import Attachment

if TYPE_CHECKING:
    from .engine import Engine


class Placing:
    """Gets places for the runs of an engine whose instances limit them. A run gives its place back when it leaves."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def ask(self, attachment: Attachment) -> None:
        """Ask for a place."""
        assert attachment.program.limit is not None
        places = attachment.program.limit.here()
        attachment.asked = (places, places.ask(attachment.above))

    async def asked(self, attachment: Attachment, *, known: bool) -> None:
        """Wait for the place that was asked for, unless the run, whose id may be `known`, does not need one."""
        if known and not await self.is_needed(attachment):
            give_place_back(attachment)
            return
        assert attachment.asked is not None
        places, asked = attachment.asked
        if await asyncio.shield(asked):
            attachment.place = places
        attachment.asked = None

    async def wait(self, attachment: Attachment) -> None:
        """Take a place as soon as there is one, if the instance limits its runs."""
        if attachment.program.limit is not None:
            self.ask(attachment)
            await self.asked(attachment, known=False)

    async def is_needed(self, attachment: Attachment) -> bool:
        """Tell whether a run would live here, that is, it does not live elsewhere and has not ended."""
        engine = self._engine
        row = await engine.store.find(attachment.run_id)
        if row is None:
            return True
        attachment.key = row.run
        if row.run_id in engine.runs or is_at_rest(row.status):
            return False
        return (await engine.owners.gone())(row.owner) or engine.taking.giving_up(row.run_id) is not None

    def take_up_soon(self, attachment: Attachment, row: RunRow) -> None:
        """Take a run up as soon as there is a place for it; once at a time."""
        if attachment.asked is None and attachment.place is None:
            attachment.key = row.run
            self._engine.in_background(self._take_up(attachment, row))

    async def _take_up(self, attachment: Attachment, row: RunRow) -> None:
        try:
            await self.wait(attachment)
            if not await self._engine.taking.take_up(attachment, row):
                attachment.begun()  # somebody else has it: it is followed
        except DurableFlowError as error:
            attachment.fail(error)
        finally:
            give_place_back(attachment)


def give_place_back(attachment: Attachment) -> None:
    """Give back a place that no run has taken over, or wait for it no longer."""
    if attachment.asked is not None:
        (places, asked), attachment.asked = attachment.asked, None
        if not places.leave(asked) and asked.result():
            places.give_back()
    if attachment.place is not None:
        attachment.place.give_back()
        attachment.place = None
