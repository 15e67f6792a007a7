"""What an engine looks for in the database: messages for its runs, and what became of runs that it does not own."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ..errors import DeserializationError, JournalUnavailableError, RunNotFoundError
from ..incoming import AttentionNeeded
from ..journal.delivery import messages_that_open
from ..journal.protocol import RunRow, is_at_rest
from ..logs import fields, said
from .attachment import Attachment
from .claims import is_claimable
from .current import outside_of_steps
from .heart import PULSE_SECONDS

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("durable_flow")

MAX_WATCHED_AT_ONCE = 500
# Hints may get lost: this often everything is looked at without one.
POLL_BEHIND_HINTS_SECONDS = 1.0
MIN_PAUSE_SECONDS = 0.02


class Watcher:
    """Looks, while the engine has runs or somebody waits for one that is not live here.

    A hint of the store's tells when there is something to see. Behind the hints it polls: every `poll_seconds` for what
    became of runs that are owned elsewhere, because an owner that is killed sends no hint, and now and then for all.
    """

    def __init__(self, engine: Engine, poll_seconds: float):
        self._engine = engine
        self._poll_seconds = poll_seconds
        self._poke = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self._watched: OrderedDict[Attachment, None] = OrderedDict()
        # The runs that hints named since the last look; None: any of them.
        self._heard: set[int] | None = set()
        self._owners_at = self._all_at = 0.0

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
        self._hear(None)

    def start(self) -> None:
        """Look at the database again and again, as long as there is anything to look after."""
        if self._poller is None or self._poller.done():
            self._poller = self._engine.loop.create_task(self._poll(), context=outside_of_steps())

    def _hear(self, runs: Collection[int] | None) -> None:
        if runs is None:
            self._heard = None
        elif self._heard is not None:
            self._heard.update(runs)
        self._poke.set()

    def _on_pulse(self) -> None:
        """Before anything else in this turn of the loop: stop what this process may no longer own."""
        self._engine.fence_if_lapsed()
        now = self._engine.loop.time()
        if now >= self._all_at or (self._watched and now >= self._owners_at):
            self._poke.set()
        self._pulse = self._engine.loop.call_later(PULSE_SECONDS, self._on_pulse)

    async def _poll(self) -> None:
        end_listening = self._engine.shared.listen(self._hear)
        self._all_at = self._engine.loop.time() + self._poll_seconds
        self._on_pulse()
        try:
            while self._engine.runs or self._watched:
                await self._poke.wait()
                self._poke.clear()
                try:
                    await self._look()
                except JournalUnavailableError as error:
                    logger.warning("polling failed, trying again: %s", error, extra=fields("poll_failed"))
                except Exception as error:
                    logger.error("polling failed, trying again: %s", said(error), extra=fields("poll_failed"))
        finally:
            end_listening()
            if self._pulse is not None:
                self._pulse.cancel()

    async def _look(self) -> None:
        now = self._engine.loop.time()
        heard, self._heard = self._heard, set()
        everything = heard is None or now >= self._all_at
        if everything:
            self._all_at = now + POLL_BEHIND_HINTS_SECONDS
        if everything or now >= self._owners_at:
            self._owners_at = now + self._poll_seconds
            wanted = None
        else:
            wanted = heard
        await self._look_for_messages(None if everything else heard)
        await self._look_after_watched(wanted, told=everything)
        if heard is None:
            # Others who write without a pause must not make this loop look without one.
            await asyncio.sleep(MIN_PAUSE_SECONDS)

    async def _look_for_messages(self, heard: set[int] | None) -> None:
        """Take the messages of this engine's runs, of those heard of or of all."""
        by_key = {run.claim.run: run for run in self._engine.runs.values()}
        keys: Collection[int]
        if heard is None:
            keys = await self._engine.store.waiting_messages(self._engine.worker) if by_key else ()
        else:
            keys = heard
        keys = [key for key in keys if key in by_key]
        if not keys:
            return
        messages, errors = await messages_that_open(self._engine.store, keys)
        for key, error in errors.items():
            run = by_key[key]
            run.accept(AttentionNeeded(f"{error}. Repair that, then flow.resume({run.run_id!r})"))
        for row in messages:
            run = by_key[row.run]
            if not run.closed:
                run.take_messages((row,))

    async def _look_after_watched(self, heard: set[int] | None, *, told: bool) -> None:
        """Look at the runs of attachments, those heard of or all; `told`: there may be new stream items."""
        for attachment in list(self._watched):
            if attachment.run is not None or not attachment.interested:
                self._watched.pop(attachment, None)
        watched = [a for a in self._watched if a.key is not None and (heard is None or a.key in heard)]
        del watched[MAX_WATCHED_AT_ONCE:]
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
                continue
            await self._look_after(attachment, row, gone)
            if told:
                attachment.notify()

    async def _look_after(self, attachment: Attachment, row: RunRow, gone: Callable[[str | None], bool]) -> None:
        live = self._engine.runs.get(row.run_id)
        if live is not None:
            self._engine.adopt(attachment, live)
        elif is_at_rest(row.status) and gone(row.owner):  # else somebody is about to go on with it
            if await self._engine.tell_end(attachment, row):
                self.forget(attachment)
        elif is_claimable(row, self._engine.now(), gone):
            if attachment.program.limit is None:
                try:
                    await self._engine.taking.take_up(attachment, row)
                except DeserializationError as error:  # no other look would change that
                    attachment.fail(error)
            else:
                self._engine.placing.take_up_soon(attachment, row)
