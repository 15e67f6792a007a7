"""Retention: compacting the records of a run into one, and pruning runs that ended long ago.

Each run is dealt with in one short transaction, after which nothing shows what is gone. The rows are deleted then, some
at a time, with pauses as long as that took: so nobody who writes waits for long, and what a kill leaves over is deleted
by whoever compacts or prunes next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from ..errors import DurableFlowError, RunNotFoundError
from ..fold import fold
from ..logs import fields, said
from ..records import JournalCompacted, Record
from ..snapshot import encode_state
from ..state import FAILED, TIMED_OUT, RunState
from .checkpoint import At
from .folding import state_at
from .info import CompactInfo, PruneInfo
from .kept import require_kept
from .points import checkpoint_at
from .protocol import FINAL_STATUSES, JournalStore, RunRow
from .runid import id_of
from .times import EPOCH

logger = logging.getLogger("durable_flow")

# So many rows of a table are deleted at a time: some milliseconds.
BATCH = 200
# So many runs are pruned at a time; a store writes them in one transaction, or a few.
_RUNS = 8
# So many runs are looked at, at a time.
_PAGE = 200
_MICROSECOND = timedelta(microseconds=1)

# What is kept of the state of a run that is pruned: what it is, and how it ended.
_OUTCOME = (
    "workflow", "uid", "shape", "arguments", "seq", "boundary", "offset", "epoch", "created_at", "last_at", "active_us",
    "ended", "result", "error", "error_step", "timeout_message", "position", "streamed_before", "steps_completed",
    "revivals", "parent",
)  # fmt: skip


class _Going(NamedTuple):
    """A run that may be pruned, and the record that is kept of it, if any."""

    row: RunRow
    record: Record | None


async def compact_run(store: JournalStore, row: RunRow, before: At | None) -> CompactInfo:
    """Compact the records of a run up to a checkpoint, see Journal.compact."""
    cut = await checkpoint_at(store, row, before)
    records = 0
    if cut > row.first:
        state = await state_at(store, row.run, cut)
        record = await asyncio.to_thread(_standing_for, state)
        if await store.compact(row, record):
            records = cut - row.first
            logger.info(
                "run %s: %d records before seq %d were compacted", row.run_id, records, cut,
                extra=fields("run_compacted", row.run_id, seq=cut),
            )  # fmt: skip
        else:
            cut = await _compacted_by_others(store, row)
    await purge(store)
    return CompactInfo(row.run_id, id_of(row.run_id, cut), records)


async def _compacted_by_others(store: JournalStore, row: RunRow) -> int:
    """Return the seq with which the journal of a run begins that others have compacted at the same moment."""
    found = await store.find_many([row.run])
    if not found:
        raise RunNotFoundError(f"run {row.run_id} was pruned at the same moment; nothing of it is left")
    require_kept(found[0])
    return found[0].first


async def prune_runs(
    store: JournalStore,
    older_than: timedelta | datetime,
    status: str | Sequence[str] | None,
    *,
    keep_results: bool,
    dry_run: bool,
) -> PruneInfo:
    """Prune the runs that ended long ago, see Journal.prune."""
    ended_before = _microseconds(older_than, store.now())
    statuses = _final(status)
    runs = records = left = 0
    run_ids: list[str] = []
    if not dry_run:
        await purge(store)  # what an earlier one has left
    async for page in _ended(store, ended_before, statuses, unpruned=keep_results):
        for at in range(0, len(page), _RUNS):
            began = time.monotonic()
            rows = page[at : at + _RUNS]
            # All of them are judged before one goes: what a dry run says is what is done.
            going = await asyncio.gather(*(_going(store, row, keep_results=keep_results) for row in rows))
            if not dry_run:
                going = await asyncio.gather(*(_pruned(store, each) for each in going))
            for row, gone in zip(rows, going, strict=True):
                if gone is None:
                    left += 1
                    continue
                runs += 1
                records += row.seq - row.first + 1
                if len(run_ids) < 100:
                    run_ids.append(row.run_id)
            if not dry_run:
                await asyncio.sleep(time.monotonic() - began)
        if not dry_run:
            await purge(store)
    if runs and not dry_run:
        logger.info("%d runs with %d records were pruned", runs, records, extra=fields("runs_pruned"))
    return PruneInfo(runs, records, tuple(run_ids), left, dry_run)


async def purge(store: JournalStore) -> None:
    """Delete what compacting and pruning have left, some rows at a time."""
    while True:
        began = time.monotonic()
        if not await store.purge(BATCH):
            return
        # Others write as well, and on SQLite there is one writer at a time.
        await asyncio.sleep(time.monotonic() - began)


async def _ended(
    store: JournalStore, ended_before: int, statuses: Collection[str], *, unpruned: bool
) -> AsyncIterator[list[RunRow]]:
    before: int | None = None
    while True:
        page = await store.list_runs(
            status=sorted(statuses), ended_before=ended_before, unpruned=unpruned, before=before, limit=_PAGE
        )
        if not page:
            return
        before = page[-1].run
        yield page


async def _going(store: JournalStore, row: RunRow, *, keep_results: bool) -> _Going | None:
    """Return what pruning this run would do; None if it stays."""
    if row.owner is not None and row.owner in {worker.id for worker, _ in await store.workers()}:
        return None  # somebody is retrying it
    try:
        if not keep_results:
            return None if await _is_asked_for(store, row) else _Going(row, None)
        state = await state_at(store, row.run)
        if state.ended is None:
            return None  # it has been taken up since its row was read
        return _Going(row, await asyncio.to_thread(_standing_for, _outcome_of(state)))
    except DurableFlowError as error:
        _say_left(row, error)
        return None


async def _pruned(store: JournalStore, going: _Going | None) -> _Going | None:
    """Prune a run; return None if it stays."""
    if going is None:
        return None
    try:
        return going if await store.prune(going.row, going.record) else None
    except DurableFlowError as error:
        _say_left(going.row, error)
        return None


def _say_left(row: RunRow, error: DurableFlowError) -> None:
    logger.warning(
        "run %s is not pruned: %s", row.run_id, said(error), extra=fields("run_not_pruned", row.run_id)
    )  # fmt: skip


async def _is_asked_for(store: JournalStore, row: RunRow) -> bool:
    """Tell whether a run that may still go on has started this one: its step would start it anew if it were gone."""
    first = await store.read(row.run, limit=1)
    parent = fold(first).parent if first else None
    starter = None if parent is None else await store.find(parent)
    if starter is None or starter.pruned_at is not None:
        return False
    return starter.status not in FINAL_STATUSES or starter.status in (FAILED, TIMED_OUT)


def _standing_for(state: RunState) -> Record:
    return Record(state.seq, state.last_at, True, JournalCompacted(encode_state(state)))


def _outcome_of(state: RunState) -> RunState:
    return RunState(**{name: getattr(state, name) for name in _OUTCOME})


def _microseconds(older_than: timedelta | datetime, now: int) -> int:
    if isinstance(older_than, timedelta):
        if older_than < timedelta(0):
            raise ValueError(f"older_than={older_than!r} lies in the future; it is how long ago a run must have ended")
        return max(0, now - older_than // _MICROSECOND)
    if not isinstance(older_than, datetime):
        raise TypeError(f"older_than={older_than!r}: pass a timedelta, as timedelta(days=30), or an aware datetime")
    if older_than.utcoffset() is None:
        raise ValueError(f"older_than={older_than!r} has no time zone; pass an aware time, as datetime.now(UTC)")
    return max(0, (older_than - EPOCH) // _MICROSECOND)


def _final(status: str | Sequence[str] | None) -> frozenset[str]:
    if status is None:
        return FINAL_STATUSES
    statuses = frozenset((status,) if isinstance(status, str) else status)
    if not statuses or statuses - FINAL_STATUSES:
        raise ValueError(
            f"status={status!r}: only runs that have ended can be pruned; it is one or several of "
            f"{', '.join(sorted(FINAL_STATUSES))}"
        )
    return statuses
