"""A run's state at a boundary: the newest snapshot that fits, then the tail of records. A snapshot is only a cache."""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from typing import NamedTuple

from ..errors import DeserializationError, JournalError
from ..fold import FOLD_VERSION, fold
from ..logs import fields, said
from ..records import EncodedValue, Record
from ..snapshot import CODEC, decode_state, encode_state
from ..state import RunState
from .kept import require_first, row_now
from .protocol import JournalStore, SnapshotRow

logger = logging.getLogger("durable_flow")

VERIFY_VARIABLE = "DURABLE_FLOW_VERIFY_SNAPSHOTS"
"""Set in the environment, each snapshot that is read is compared with the records that it stands for: for tests."""

# So many records are in memory at a time.
PAGE = 1000


class _Unfit(DeserializationError):
    """A snapshot that is not used; its text quotes no data."""


class Folded(NamedTuple):
    """A state, and the snapshot that it was folded on: its seq (0: none fitted) and its bytes, not compressed."""

    state: RunState
    snapshot: int
    size: int


async def state_at(store: JournalStore, run: int, at: int | None = None) -> RunState:
    """Return the state at the last boundary up to seq `at`; None is now. One of seq 0 if there is no such boundary.

    Raises DeserializationError for a record that cannot be read, CheckpointError for a seq that was compacted,
    RunNotFoundError for one of a run that is gone.
    """
    return (await folded(store, run, at)).state


async def folded(store: JournalStore, run: int, at: int | None = None) -> Folded:
    """Return the same, and what it was folded on."""
    state, size = await _from_snapshot(store, run, at)
    found = state.seq
    after, held = state.seq, list[Record]()
    while at is None or after < at:
        page = await store.read(run, after=after, to=at, limit=PAGE)
        if not page:
            break
        after = page[-1].seq
        # Of a group that has not ended nothing is folded.
        last = next((n for n in range(len(page), 0, -1) if page[n - 1].boundary), 0)
        if last:
            fold(held, state)
            fold(page[:last], state)
            held = page[last:]
        else:
            held += page
        if len(page) < PAGE:
            break
    if at is not None and after < at:
        # Compacted or removed before this began, or while it was under way.
        row = await row_now(store, run, "the run")
        if at < row.first:
            require_first(row, at)
    return Folded(state, found, size)


def new_snapshot(state: RunState, run_id: str, at: int, encoded: EncodedValue | None = None) -> SnapshotRow:
    """Return the snapshot of a state at a boundary; `encoded` is what `encode_state` gave for it."""
    # Text like this shrinks to a fifth and less, in a fraction of the time that it took to write.
    payload = zlib.compress((encode_state(state) if encoded is None else encoded).data, 1)
    return SnapshotRow(
        run_id, state.uid, state.seq, FOLD_VERSION, hash_of(payload, state.seq, state.uid), payload, at
    )  # fmt: skip


def hash_of(payload: bytes, seq: int, uid: str) -> str:
    """Return what tells a whole snapshot from one that was changed, moved, or written by another fold."""
    digest = hashlib.sha256(f"{FOLD_VERSION}\n{seq}\n{uid}\n".encode())
    digest.update(payload)
    return digest.hexdigest()


async def _from_snapshot(store: JournalStore, run: int, at: int | None) -> tuple[RunState, int]:
    """Return the state of the newest snapshot and its size; if there is none that fits, an empty state."""
    row: SnapshotRow | None = None
    try:
        row = await store.snapshot(run, at)
        if row is None:
            return RunState(), 0
        state, size = _restored(row)
        recorded = await store.read(run, after=row.seq - 1, to=row.seq)
        if not recorded and all(now.first > row.seq for now in await store.find_many([run])):
            return RunState(), 0  # the run was compacted beyond it, or removed, since it was read
        if [(record.seq, record.at, record.boundary) for record in recorded] != [(row.seq, state.last_at, True)]:
            raise _Unfit("the journal has no such boundary")
    except DeserializationError as error:
        which = f"of key {run}" if row is None else row.run_id
        seq = 0 if row is None else row.seq
        why = str(error) if isinstance(error, _Unfit) else said(error)
        logger.warning(
            "run %s: the snapshot at seq %d does not fit and is not used; its journal is folded from the start: %s",
            which, seq, why, extra=fields("snapshot_ignored", which, seq=seq),
        )  # fmt: skip
        return RunState(), 0
    if os.environ.get(VERIFY_VARIABLE):
        await _verify(store, run, row)
    return state, size


def _restored(row: SnapshotRow) -> tuple[RunState, int]:
    """Return the state in a snapshot and its size in bytes.

    Raises DeserializationError if it is none of this run at this seq.
    """
    if row.fold_version != FOLD_VERSION:
        raise _Unfit(f"it is of fold version {row.fold_version}, this is {FOLD_VERSION}")
    # SQLite keeps whatever plain SQL puts into a column.
    if not isinstance(row.payload, bytes) or row.hash != hash_of(row.payload, row.seq, row.uid):
        raise _Unfit("its hash does not match")
    content = _content(row)
    state = decode_state(EncodedValue(CODEC, content))
    if (state.uid, state.seq, state.boundary) != (row.uid, row.seq, row.seq):
        raise _Unfit("it holds the state of another run, or at another seq")
    return state, len(content)


def _content(row: SnapshotRow) -> bytes:
    try:
        return zlib.decompress(row.payload)
    except zlib.error as error:
        raise _Unfit("it cannot be decompressed") from error


async def _verify(store: JournalStore, run: int, row: SnapshotRow) -> None:
    """Raise JournalError if a snapshot is not what its records fold to."""
    records = await store.read(run, to=row.seq)
    if not records and all(now.first > row.seq for now in await store.find_many([run])):
        return  # the run was compacted beyond it, or removed, since it was read
    whole = fold(records)
    # As bytes, because the order of what is pending counts and equal dicts may differ in it.
    if encode_state(whole).data != _content(row):
        raise JournalError(
            f"run {row.run_id}: the snapshot at seq {row.seq} is not the fold of the records up to there. This is an "
            "error of durable_flow"
        )
