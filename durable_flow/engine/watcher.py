"""What an engine looks for in the database: messages for its runs, and what became of runs that it does not own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import JournalUnavailableError, RunNotFoundError
from ..journal.protocol import FINAL_STATUSES, RunRow
from ..state import NEEDS_ATTENTION
from .attachment import Attachment
from .claims import is_claimable

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("durable_flow")

MAX_WATCHED_AT_ONCE = 500


class Watcher:
    """Polls, while the engine has runs or somebody waits for one that is not live here."""

    def __init__(self, engine: Engine, poll_seconds: float):
        self._engine = engine
        self._poll_seconds = poll_seconds
        self._poke = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._watched: OrderedDict[Attachment, None] = OrderedDict()

    def __len__(self) -> int:
        """Count the attachments that are followed."""
        return len(self._watched)

    def watch(self, attachment: Attachment) -> None:
        """Follow a run that is not live here: its end, its stream, and whether it may be taken up."""
        self._watched[attachment] = None
        self.start()

    def forget(self, attachment: Attachment) -> None:
        """Follow it no longer."""
        self._watched.pop(attachment, None)

    def look_soon(self) -> None:
        """Look at the database now, not only when it is time for it."""
        self._poke.set()

    def start(self) -> None:
        """Look at the database again and again, as long as there is anything to look after."""
        if self._poller is None or self._poller.done():
            self._poller = self._engine.loop.create_task(self._poll())

    async def _poll(self) -> None:
        while self._engine.runs or self._watched:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), self._poll_seconds)
            self._poke.clear()
            try:
                await self._look_for_messages()
                await self._look_after_watched()
            except JournalUnavailableError as error:
                logger.warning("polling failed, trying again: %s", error, extra={"action": "poll_failed"})
            except Exception:
                logger.exception("polling failed, trying again", extra={"action": "poll_failed"})
            self._engine.fence_if_expired()

    async def _look_for_messages(self) -> None:
        keys = await self._engine.store.waiting_messages(self._engine.worker) if self._engine.runs else []
        if not keys:
            return
        by_key = {run.claim.run: run for run in self._engine.runs.values()}
        for row in await self._engine.store.messages([key for key in keys if key in by_key]):
            run = by_key[row.run]
            if not run.closed:
                run.take_messages((row,))

    async def _look_after_watched(self) -> None:
        watched = [a for a in self._watched if a.key is not None and a.run is None][:MAX_WATCHED_AT_ONCE]
        for attachment in list(self._watched):
            if attachment.run is not None or not attachment.interested:
                self._watched.pop(attachment, None)
        if not watched:
            return
        keys = [attachment.key for attachment in watched if attachment.key is not None]
        rows = {row.run: row for row in await self._engine.store.find_many(keys)}
        gone = await self._engine.owners.gone()
        for attachment in watched:
            if attachment in self._watched:
                self._watched.move_to_end(attachment)
            assert attachment.key is not None
            row = rows.get(attachment.key)
            if row is None:
                attachment.fail(RunNotFoundError(f"run {attachment.run_id} is gone from {self._engine.store.url}"))
            else:
                await self._look_after(attachment, row, gone)

    async def _look_after(self, attachment: Attachment, row: RunRow, gone: Callable[[str | None], bool]) -> None:
        live = self._engine.runs.get(row.run_id)
        if live is not None:
            self._engine.adopt(attachment, live)
        elif row.status in FINAL_STATUSES or row.status == NEEDS_ATTENTION:
            self.forget(attachment)
            await self._engine.tell_end(attachment, row)
        elif is_claimable(row, self._engine.now(), gone):
            await self._engine.take_up(attachment, row)
        else:
            attachment.notify()  # there may be new stream items
