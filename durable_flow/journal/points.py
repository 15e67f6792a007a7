"""Where in a run: from what a caller names to the seq of a record, and to the group of records that ends there."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from ..errors import CheckpointError
from ..records import Record
from .checkpoint import At, Checkpoint
from .folding import state_at
from .kept import require_first, require_kept, row_now
from .protocol import JournalStore, RunRow
from .runid import id_of
from .times import EPOCH

_ID = re.compile(r"([^/]+)/([0-9]{1,18})")
# Groups are short: so many records are looked at first, then twice as many.
_FEW = 64
_MICROSECOND = timedelta(microseconds=1)


async def seq_of(store: JournalStore, row: RunRow, at: At) -> int:
    """Return the seq of the record that `at` leads to; it may lie within a group.

    Raises CheckpointError if it leads to none of this run, or to one that was compacted or pruned.
    """
    require_kept(row, at)
    if isinstance(at, Checkpoint):
        return _of_id(row, at.run_id, at.seq)
    if isinstance(at, datetime):
        return await _at_time(store, row, at)
    if isinstance(at, str):
        found = _ID.fullmatch(at)
        if found is not None and found[1] == row.run_id:
            return _checked(row, int(found[2]))
        return await _of_name(store, row, at, found is not None)
    if type(at) is int:
        return _checked(row, at)
    raise CheckpointError(
        f"run {row.run_id}: {at!r:.80} names no checkpoint; pass a seq, a Checkpoint or its id, a name given by "
        "ctx.checkpoint(name), or an aware datetime"
    )


async def checkpoint_at(store: JournalStore, row: RunRow, at: At | None) -> int:
    """Return the seq of the boundary that `at` leads to; None is the last one.

    A time leads to the last boundary up to it. Raises CheckpointError, also for a seq within a group of records.
    """
    if at is None:
        require_kept(row)
        return row.seq
    seq = await seq_of(store, row, at)
    if await _is_boundary(store, row.run, seq):
        return seq
    await _require_still(store, row, seq)
    before = await _boundary_before(store, row.run, seq)
    if isinstance(at, datetime) and before:
        return before
    after = await _boundary_from(store, row, seq)
    nearest = f"the next one is {id_of(row.run_id, after)}"
    if before:
        nearest = f"the nearest are {id_of(row.run_id, before)} and {id_of(row.run_id, after)}"
    raise CheckpointError(
        f"run {row.run_id}: record {seq} lies within the group of records {before + 1} to {after}, which was written "
        f"as one. Only the end of a group is a checkpoint: {nearest}"
    )


async def group_ending(store: JournalStore, row: RunRow, seq: int) -> list[Record]:
    """Return the group of records that ends at a boundary. Raises CheckpointError if it has gone meanwhile."""
    before = await _boundary_before(store, row.run, seq)
    group = await store.read(row.run, after=before, to=seq)
    if not group:
        await _require_still(store, row, seq)
    return group


def _checked(row: RunRow, seq: int) -> int:
    if not 1 <= seq <= row.seq:
        raise CheckpointError(
            f"run {row.run_id} has no record {seq}: its records are 1 to {row.seq}, and its last checkpoint is "
            f"{id_of(row.run_id, row.seq)}"
        )
    require_first(row, seq)
    return seq


def _of_id(row: RunRow, run_id: str, seq: int) -> int:
    if run_id != row.run_id:
        raise CheckpointError(
            f"{id_of(run_id, seq)} is a checkpoint of run {run_id}, not of run {row.run_id}, whose last one is "
            f"{id_of(row.run_id, row.seq)}"
        )
    return _checked(row, seq)


async def _of_name(store: JournalStore, row: RunRow, name: str, is_id: bool) -> int:
    """Return the end of the group in which a place was named last."""
    names = (await state_at(store, row.run)).checkpoints
    seq = names.get(name)
    if seq is not None:
        require_first(row, seq, repr(name))
        return await _boundary_from(store, row, seq)
    if is_id:
        run_id, _, number = name.rpartition("/")
        return _of_id(row, run_id, int(number))
    known = ", ".join(map(repr, list(names)[:20])) or "none"
    raise CheckpointError(
        f"run {row.run_id} has no checkpoint named {name!r}; its named ones: {known}. Its last checkpoint is "
        f"{id_of(row.run_id, row.seq)}"
    )


async def _at_time(store: JournalStore, row: RunRow, time: datetime) -> int:
    """Return the last record up to a time. The times of a run never go back, so it is searched by halves."""
    if time.utcoffset() is None:
        raise CheckpointError(f"run {row.run_id}: {time!r} has no time zone; pass an aware time, as datetime.now(UTC)")
    at = (time - EPOCH) // _MICROSECOND
    low, high = row.first - 1, row.seq
    while low < high:
        middle = (low + high + 1) // 2
        records = await store.read(row.run, after=middle - 1, to=middle)
        if records and records[0].at <= at:
            low = middle
        else:
            high = middle - 1
    if low < row.first:
        if row.first > 1:
            require_first(row, row.first - 1, time)
        await _require_still(store, row, row.first)
        raise CheckpointError(f"run {row.run_id} began after {time}; its first checkpoint is the first in the list")
    return low


async def _is_boundary(store: JournalStore, run: int, seq: int) -> bool:
    records = await store.read(run, after=seq - 1, to=seq)
    return bool(records) and records[0].boundary


async def _boundary_before(store: JournalStore, run: int, seq: int) -> int:
    """Return the last boundary before a record; 0 if there is none."""
    to, few = seq - 1, _FEW
    while to > 0:
        after = max(0, to - few)
        found = next((r.seq for r in reversed(await store.read(run, after=after, to=to)) if r.boundary), 0)
        if found:
            return found
        to, few = after, 2 * few
    return 0


async def _boundary_from(store: JournalStore, row: RunRow, seq: int) -> int:
    """Return the first boundary from a record on. Raises CheckpointError if that record has gone meanwhile."""
    after = seq - 1
    while records := await store.read(row.run, after=after, limit=_FEW):
        if records[0].seq != after + 1:
            break
        found = next((r.seq for r in records if r.boundary), 0)
        if found:
            return found
        after = records[-1].seq
    await _require_still(store, row, seq)
    return after


async def _require_still(store: JournalStore, row: RunRow, seq: int) -> None:
    """Raise CheckpointError, or RunNotFoundError, if a record was compacted or pruned since the row was read."""
    require_first(await row_now(store, row.run, f"run {row.run_id}"), seq)
