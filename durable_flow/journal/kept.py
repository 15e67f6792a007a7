"""What of a run's journal is kept: the refusal of whatever asks for what was compacted or pruned."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CheckpointError, RunNotFoundError
from ..fold import fold
from ..records import JournalCompacted, Record
from .protocol import JournalStore, RunRow
from .runid import id_of
from .times import at_moment


def require_kept(row: RunRow, asked: object = None) -> None:
    """Raise CheckpointError if a run was pruned; `asked` is what was asked for."""
    if row.pruned_at is not None:
        of = "" if asked is None else f" (asked for: {asked})"
        raise CheckpointError(
            f"run {row.run_id} was pruned at {at_moment(row.pruned_at)}{of}: its records, checkpoints, stream and "
            "messages are gone. Only how it ended is kept: journal.run() tells the status, and awaiting "
            f"flow.resume({row.run_id!r}) gives the result or raises the error"
        )


def require_first(row: RunRow, seq: int, asked: object = None) -> None:
    """Raise CheckpointError if the record of this seq was compacted or pruned; `asked` is what led to it."""
    require_kept(row, id_of(row.run_id, seq) if asked is None else asked)
    if seq < row.first:
        since = "" if row.compacted_at is None else f" at {at_moment(row.compacted_at)}"
        named = id_of(row.run_id, seq)
        led = f"{named} is gone" if asked is None else f"{asked} leads to {named}, which is gone"
        raise CheckpointError(
            f"run {row.run_id}: {led}: what was before {id_of(row.run_id, row.first)} was compacted{since}. That is "
            "the nearest checkpoint that is left"
        )


async def row_now(store: JournalStore, run: int, named: str) -> RunRow:
    """Return a run's row as it is now. Raises RunNotFoundError if the run is gone; `named` is how it is called then."""
    rows = await store.find_many([run])
    if not rows:
        raise RunNotFoundError(f"{named} is gone: it was pruned meanwhile, together with its result")
    return rows[0]


def require_followed(row: RunRow, after: int, records: Sequence[Record]) -> None:
    """Raise CheckpointError if records behind `after` were compacted: these, which were read there, do not follow."""
    require_kept(row, f"its records after {after}")
    found = next((r.seq for r in records if type(r.fact) is JournalCompacted), None) if after else None
    if found is not None:
        raise CheckpointError(
            f"run {row.run_id}: the records after {after} were asked for, and what was before "
            f"{id_of(row.run_id, found)} was compacted. after=0 begins with the record that holds the state there, "
            f"after={found} behind it"
        )


async def require_streamed(store: JournalStore, run: int, run_id: str, after: int) -> None:
    """Raise CheckpointError if a reader that found no item behind `after` misses some: those of a run that was pruned.

    Raises RunNotFoundError if the run is gone.
    """
    rows = await store.find_many([run])
    if not rows:
        raise RunNotFoundError(f"run {run_id} is gone: it was pruned, and its stream with it")
    if rows[0].pruned_at is not None:
        position = fold(await store.read(run)).position
        if after < position:
            require_kept(rows[0], f"its stream after position {after} of {position}")
