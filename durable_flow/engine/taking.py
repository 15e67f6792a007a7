"""Taking runs up and giving them back: from a claim to a live run, and from a run that was stopped to a free row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import DurableFlowError, JournalUnavailableError, WriteOutcomeUnknown
from ..incoming import CancelRequested, ResumeRequested
from ..journal.folding import folded
from ..journal.protocol import FINAL_STATUSES, RunRow
from ..logs import fields, said
from ..records import JournalCompacted, RunClaimed
from ..shape import changes
from ..snapshot import decode_state
from .asked import AskedBefore
from .attachment import Attachment
from .claims import SUSPICIOUS_CLAIMS, Trial, growing_pauses
from .readable import held, require_readable
from .run import Run
from .snapshots import note_snapshot
from .stepwise import Gate

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("durable_flow")


class Taking:
    """Claims runs for an engine and gives claims back, each to its end, whoever asked for it."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._giving_up: dict[str, asyncio.Task[None]] = {}
        self._trying = asyncio.Lock()
        self._trial: Trial | None = None

    def giving_up(self, run_id: str) -> asyncio.Task[None] | None:
        """Return the task that gives this run back, while its row does not say so yet."""
        return self._giving_up.get(run_id)

    def __bool__(self) -> bool:
        """Tell whether runs are being given back."""
        return bool(self._giving_up)

    async def take_up(self, attachment: Attachment, row: RunRow, *, resume: bool = False) -> bool:
        """Claim the run if its epoch is still the row's, fold its journal and enter the loop.

        Runs whose processes ended again and again before anything was recorded are taken up one after another, so that
        the one that kills its process takes no other one into its crash loop. False also while another one is tried.
        This is done to its end: a caller that is cancelled meanwhile releases the run, unless others wait for it.
        """
        taking = self._engine.in_background(self._take_up_in_turn(attachment, row, resume))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            attachment.abandon()
            raise

    async def _take_up_in_turn(self, attachment: Attachment, row: RunRow, resume: bool) -> bool:
        await self._engine.ready()
        if row.owner is None or await self._idle_claims(row) < SUSPICIOUS_CLAIMS:
            return await self._take_up(attachment, row, resume) is not None
        async with self._trying:
            if self._trial is not None and not self._trial.is_over():
                return False
            run = await self._take_up(attachment, row, resume)
            self._trial = None if run is None else Trial(run)
            return run is not None

    async def _idle_claims(self, row: RunRow) -> int:
        """Count the claims since which nothing was recorded, by workers that are gone."""
        last = await self._engine.store.read(row.run, after=max(0, row.seq - SUSPICIOUS_CLAIMS))
        idle = 0
        for record in reversed(last):
            match record.fact:
                case RunClaimed(previous=str()):
                    idle += 1
                case JournalCompacted() as compacted:
                    return idle + decode_state(compacted.state).claims
                case _:
                    break
        return idle

    async def _take_up(self, attachment: Attachment, row: RunRow, resume: bool) -> Run | None:
        try:
            claim = await self._engine.store.claim(row.run, self._engine.worker, epoch=row.epoch, status=row.status)
            if claim is None:
                return None
            state, seq, size = await folded(self._engine.store, row.run)
            newest = await self._engine.store.read(row.run, after=state.seq - 1)
            await require_readable(self._engine.store, row, attachment.program.codec, held(state))
            messages = await self._engine.store.messages([row.run])
            orphaned = state.parent is not None and await self._has_ended(state.parent)
        except Exception:
            self.give_back(row.run_id, row.uid, row.epoch + 1)
            raise
        run = self._engine.new_run(attachment.program, claim, state)
        note_snapshot(run, seq, size)
        run.asked_before = AskedBefore.of(state, messages)
        logger.info(
            "run %s taken up at seq %d", row.run_id, state.seq,
            extra=fields("run_recovered", row.run_id, seq=state.seq),
        )  # fmt: skip
        if state.shape != attachment.program.shape and (resume or not state.ended):
            logger.info(
                "run %s goes on with other code than it began with: %s",
                row.run_id, "; ".join(changes(state.shape, attachment.program.shape)),
                extra=fields("shape_changed", row.run_id),
            )  # fmt: skip
        run.told(newest)
        self._engine.adopt(attachment, run)
        if attachment.stepwise:
            run.gate = Gate(run)
        if resume and (state.ended or state.attention):
            run.accept(ResumeRequested("retry" if state.ended else "resume"))
        run.take_messages(messages)
        if orphaned and not state.ended:
            # The parent's process died before it could cancel its children.
            run.accept(CancelRequested(f"its parent run {state.parent} has ended"))
        self._engine.begin_run(run)
        return run

    async def _has_ended(self, run_id: str) -> bool:
        row = await self._engine.store.find(run_id)
        return row is not None and row.status in FINAL_STATUSES

    def give_up(self, run: Run) -> None:
        """Begin to give a run back that was live here."""
        self._giving_up[run.run_id] = self._engine.in_background(self._give_up(run))

    async def _give_up(self, run: Run) -> None:
        """Give a run back that was live here."""
        await run.settled()
        release = self._engine.store.release
        await self._released(run.run_id, partial(release, run.claim.run, run.claim.epoch, *run.standing))
        await self._engine.snapshots.take_of_parked(run)

    def give_back(self, run_id: str, uid: str, epoch: int) -> None:
        """Begin to give back a run whose claim may have been made: nobody else takes it while this engine lives."""

        async def release() -> None:
            row = await self._engine.store.find(run_id)
            if row is not None and (row.uid, row.owner, row.epoch) == (uid, self._engine.worker.id, epoch):
                await self._engine.store.release(row.run, epoch, row.status, row.wake_at)

        self._giving_up[run_id] = self._engine.in_background(self._released(run_id, release))

    async def _released(self, run_id: str, release: Callable[[], Awaitable[None]]) -> None:
        """Release a claim as soon as the database takes it: until then nobody has the run, for this engine lives."""
        try:
            for attempt, pause in enumerate(growing_pauses()):
                if self._engine.closed:
                    break  # with this engine all its claims end
                try:
                    await self._engine.ready()
                    await release()
                    break
                except (JournalUnavailableError, WriteOutcomeUnknown) as error:
                    if not attempt:
                        extra = fields("run_kept", run_id)
                        logger.warning("run %s is not yet given back: %s", run_id, said(error), extra=extra)
                    await asyncio.sleep(pause)
        except DurableFlowError as error:
            extra = fields("run_not_released", run_id)
            logger.warning("run %s could not be released: %s", run_id, said(error), extra=extra)
        finally:
            self._giving_up.pop(run_id, None)
        self._engine.look_soon()
