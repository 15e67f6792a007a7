"""Edits of a run in place: its context is changed from outside, while nobody has the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ..branching import edited
from ..errors import DurableFlowError, RunConflictError, RunFenced, RunFinishedError
from ..records import Fact, Record
from ..state import CANCELLED, COMPLETED, RunState
from .folding import state_at
from .forking import nobody
from .kept import require_kept
from .protocol import Append, Claim, JournalStore, RunRow, RunUpdate
from .standing import row_update


async def edit_free(store: JournalStore, row: RunRow, changes: Callable[[RunState], list[Fact]]) -> int:
    """Edit a run as `edit` does, if it has no owner that may live. Raises RunConflictError otherwise."""
    if row.owner in {worker.id for worker, _ in await store.workers()}:
        raise owned(row)
    return await edit(store, row, changes)


async def edit(store: JournalStore, row: RunRow, changes: Callable[[RunState], list[Fact]]) -> int:
    """Append to a run that nobody has what `changes` makes of its state, and return the seq of that checkpoint.

    It is claimed for a moment, so that nobody goes on with it meanwhile, and given back by the same append. What goes
    wrong before that leaves nothing behind. Raises RunFinishedError, RunConflictError if somebody takes the run up at
    the same moment, CheckpointError if the run was pruned, and what `changes` raises.
    """
    if row.status in (COMPLETED, CANCELLED):
        raise RunFinishedError(
            f"run {row.run_id} was {row.status}, and stays as it is. Fork an earlier checkpoint of it instead: "
            f"flow.fork({row.run_id!r}, at=...)"
        )
    require_kept(row, "an edit")
    state = await state_at(store, row.run)
    facts = changes(state)
    worker = nobody()
    claim = await store.claim(row.run, worker, epoch=row.epoch, status=row.status)
    if claim is None:
        raise _lost(row.run_id)
    try:
        if claim.seq != state.seq + 1:
            facts = changes(await state_at(store, row.run))  # somebody has had it since it was read
        return await _append(store, row, claim, facts)
    except BaseException as error:
        # Should that fail, too: nobody knows this worker, so the run is as good as free.
        with contextlib.suppress(DurableFlowError):
            await store.release(row.run, claim.epoch, row.status, row.wake_at)
        if isinstance(error, RunFenced):
            raise _lost(row.run_id) from error
        raise


async def _append(store: JournalStore, row: RunRow, claim: Claim, facts: list[Fact]) -> int:
    state = await state_at(store, row.run)
    facts = edited(state, facts)
    now = max(store.now(), state.last_at)
    records = [Record(claim.seq + n, now, n == len(facts), fact) for n, fact in enumerate(facts, 1)]
    # An edit of the context changes neither the status nor the time of waking: the row says what it said.
    update = row_update(state, ("", None)) or RunUpdate(row.status, row.wake_at, row.error)
    await store.append(Append(row.run, row.run_id, claim.seq, claim.epoch, records, update._replace(release=True)))
    return records[-1].seq


def owned(row: RunRow) -> RunConflictError:
    """Return the error for a run whose owner lives."""
    return RunConflictError(
        f"run {row.run_id} is {row.status} and live: worker {row.owner} has it. Nothing was written. Change its "
        f"context through its handler, or fork it: flow.fork({row.run_id!r}, set=...) leaves it undisturbed"
    )


def _lost(run_id: str) -> RunConflictError:
    return RunConflictError(
        f"run {run_id} was taken up by another worker at the same moment. Nothing was written; try again when nobody "
        f"has it, or fork it: flow.fork({run_id!r}, set=...)"
    )
