"""Going on with runs that exist: one by its id, all that nobody has, and those that a lapse has cost."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..errors import (
    DeserializationError,
    DurableFlowError,
    JournalUnavailableError,
    NeedsAttentionError,
    RunConflictError,
    WorkflowRuntimeError,
)
from ..fold import fold
from ..journal.kept import require_kept
from ..journal.protocol import FINAL_STATUSES, RunRow
from ..logs import fields, said
from ..records import EncodedValue
from ..state import FAILED, NEEDS_ATTENTION, TIMED_OUT
from .attachment import Attachment
from .children import cancel_orphans
from .claims import growing_pauses, is_claimable
from .known import recorded_outcome, require_arguments, require_row, require_workflow
from .placing import give_place_back
from .program import Program
from .run import Run

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("durable_flow")


class Continuing:
    """Attaches callers of an engine to runs that exist, and takes runs up that nobody has."""

    def __init__(self, engine: Engine):
        self._engine = engine

    async def resume(self, program: Program, run_id: str) -> Attachment:
        """Take up an unfinished run, clearing its need for attention; a finished one only shows its outcome."""
        await self._engine.ready()
        row = await require_row(self._engine.store, run_id)
        attachment = Attachment(self._engine, program, run_id)
        if program.limit is None:
            await self.attach(attachment, row, None, resume=True)
            return attachment
        try:
            if row.status == NEEDS_ATTENTION or await self._engine.placing.is_needed(attachment):
                await self._engine.placing.wait(attachment)
                row = await require_row(self._engine.store, run_id)
            await self.attach(attachment, row, None, resume=True)
        finally:
            give_place_back(attachment)
        return attachment

    async def retry(self, program: Program, run_id: str) -> Attachment:
        """Take up a failed or timed-out run: its pending work runs again."""
        await self._engine.ready()
        attachment = Attachment(self._engine, program, run_id)
        for look, pause in enumerate(growing_pauses()):
            row = await require_row(self._engine.store, run_id)
            require_workflow(attachment, row.workflow)
            require_kept(row, "a retry")
            retried = row.owner is not None and not (await self._engine.owners.gone())(row.owner)
            if row.status not in (FAILED, TIMED_OUT) and not look:
                raise WorkflowRuntimeError(
                    f"run {run_id} is {row.status}; flow.retry takes up failed and timed-out runs only"
                    + ("" if row.status in FINAL_STATUSES else f", flow.resume({run_id!r}) unfinished ones")
                )
            if row.status not in (FAILED, TIMED_OUT) or retried:
                raise RunConflictError(
                    f"run {run_id} was taken up by another worker at the same moment; "
                    f"flow.resume({run_id!r}) follows it"
                )
            try:
                await self._engine.placing.wait(attachment)
                taken = await self._engine.taking.take_up(attachment, row, resume=True)
            finally:
                give_place_back(attachment)
            if taken:
                break
            # Its row was locked for a moment, or somebody was faster.
            await asyncio.sleep(pause)
        return attachment

    async def recover(self, program: Program) -> list[Attachment]:
        """Take up every claimable unfinished run of the workflow.

        Returns as soon as it is known of every owner whether it lives. That takes one look, unless the heartbeats of an
        owner whose process cannot be looked at (another machine, a container, before a reboot) are missing, or a
        process of this machine is stopped: such an owner is watched until it beats again or its expiry is over.
        """
        await self._engine.ready()
        taken: dict[str, Attachment] = {}
        unreadable: set[str] = set()
        while True:
            # The runs first: the owner of one that came up in between is not known, and must not pass for a gone one.
            rows = await self._engine.store.list_runs(workflow=program.name, unfinished=True)
            gone = await self._engine.owners.gone()
            undecided = False
            for row in rows:
                if row.run_id in taken or row.run_id in unreadable or row.run_id in self._engine.runs:
                    continue
                if is_claimable(row, self._engine.now(), gone):
                    attachment = Attachment(self._engine, program, row.run_id)
                    if program.limit is not None:
                        taken[row.run_id] = attachment
                        self._engine.placing.take_up_soon(attachment, row)
                    elif await self._taken_up(attachment, row, unreadable):
                        taken[row.run_id] = attachment
                    elif row.run_id not in unreadable:
                        undecided = undecided or await self._is_unclaimed(row)
                elif row.status != NEEDS_ATTENTION:
                    giving_up = self._engine.taking.giving_up(row.run_id) is not None
                    undecided = undecided or giving_up or self._engine.owners.in_doubt(row.owner)
                    if row.owner == self._engine.worker.id and not giving_up:
                        # It was live here, and may have been given back since its row was read.
                        undecided = undecided or (await require_row(self._engine.store, row.run_id)).owner is None
            if not undecided:
                await cancel_orphans(self._engine, (row for row in rows if row.run_id not in taken))
                return list(taken.values())
            await asyncio.sleep(self._engine.options.poll_seconds)

    async def _taken_up(self, attachment: Attachment, row: RunRow, unreadable: set[str]) -> bool:
        """Take a run up. One that cannot be read here is left as it is: it must not keep the others back."""
        try:
            return await self._engine.taking.take_up(attachment, row)
        except DeserializationError as error:
            unreadable.add(row.run_id)
            extra = fields("run_unreadable", row.run_id)
            logger.error(
                "run %s cannot be read and is left as it is; flow.resume(%r) tells why: %s",
                row.run_id, row.run_id, said(error), extra=extra,
            )  # fmt: skip
            return False

    async def _is_unclaimed(self, row: RunRow) -> bool:
        """Tell whether nobody has claimed the run since the row was read: its row was only locked for a moment."""
        rows = await self._engine.store.find_many([row.run])
        return bool(rows) and rows[0].epoch == row.epoch

    async def attach(
        self, attachment: Attachment, row: RunRow, arguments: EncodedValue | None, *, resume: bool = False
    ) -> None:
        """Attach to an existing run, taking it up if nobody has it."""
        require_workflow(attachment, row.workflow)
        if not resume:
            first = await self._engine.store.read(row.run, limit=1)
            require_arguments(attachment, fold(first).arguments, arguments)
        attachment.key = row.run
        pauses = growing_pauses()
        stale = True  # at first the row may say of a run that was given back since it was read that it is ours
        while True:
            # A run that is live here knows better than its row: it may have been retried a moment ago.
            live = self._engine.runs.get(row.run_id)
            if live is not None:
                self._engine.adopt(attachment, live)
                return
            gone = await self._engine.owners.gone()
            if row.owner is not None and not gone(row.owner) and self._engine.taking.giving_up(row.run_id) is None:
                if stale and row.owner == self._engine.worker.id:
                    stale = False
                    row = await require_row(self._engine.store, row.run_id)
                    continue
                self._engine.hold(attachment)
                attachment.begun()  # owned elsewhere: watched as soon as somebody waits for it
                return
            if row.status in FINAL_STATUSES:
                outcome = await recorded_outcome(self._engine.store, attachment, row)
                if outcome is not None:
                    attachment.ended_before = True
                    attachment.end(outcome)
                    attachment.begun()
                    return
                row = await require_row(self._engine.store, row.run_id)
                continue
            if row.status == NEEDS_ATTENTION and not resume:
                raise NeedsAttentionError(f"run {row.run_id} needs attention: {row.error}")
            giving_up = self._engine.taking.giving_up(row.run_id)
            if giving_up is not None:
                # This engine has dropped the run and its row does not say so yet.
                await asyncio.wait([giving_up])
                row = await require_row(self._engine.store, row.run_id)
                continue
            if await self._engine.taking.take_up(attachment, row, resume=resume):
                return
            before, row = row, await require_row(self._engine.store, row.run_id)
            if row.epoch == before.epoch:
                # Nobody was faster: its row was locked for a moment.
                await asyncio.sleep(next(pauses))

    async def after_lapse(self, run: Run, attachments: list[Attachment]) -> None:
        """After a lapse, take a run up again if it is free, whether anybody waits for it or not: it was live here."""
        try:
            await self._engine.ready()
        except JournalUnavailableError as error:
            for attachment in attachments:
                if attachment.run is None and attachment.outcome is None:
                    attachment.fail(error)
            return
        giving_up = self._engine.taking.giving_up(run.run_id)
        if giving_up is not None:
            await asyncio.wait([giving_up])
        try:
            row = await require_row(self._engine.store, run.run_id)
            if is_claimable(row, self._engine.now(), await self._engine.owners.gone()) and not self._engine.closed:
                attachment = Attachment(self._engine, run.program, run.run_id)
                attachment.stepwise = run.gate is not None
                attachment.callbacks = () if run.checkpointing is None else run.checkpointing.callbacks
                try:
                    await self._engine.placing.wait(attachment)
                    await self._engine.taking.take_up(attachment, row)
                finally:
                    give_place_back(attachment)
        except DurableFlowError as error:
            extra = fields("run_left", run.run_id)
            logger.warning("run %s is left to others: %s", run.run_id, said(error), extra=extra)
