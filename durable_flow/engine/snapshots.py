"""Taking snapshots of an engine's runs: in the background, one at a time, out of every step's way."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ..errors import DurableFlowError
from ..journal.folding import new_snapshot
from ..journal.protocol import SnapshotRow
from ..logs import fields, said
from ..records import EncodedValue
from ..snapshot import copied, encoded_parts, joined
from ..state import WAITING, RunState

if TYPE_CHECKING:
    from .engine import Engine
    from .run import Run

logger = logging.getLogger("durable_flow")

# So many records after the last snapshot the next one is due: of a run that is live, and of one that leaves memory.
# Folding as many takes some 10 ms.
LIVE_ROWS = 1000
PARKED_ROWS = 50
# A large state is written more rarely: a record pays for this much of it.
BYTES_PER_ROW = 256
# What steps in flight have recorded is in the state until they are done. Above so much, a snapshot is taken only if
# it stands for this many times as many records: else it would spare nobody much.
_MANY_EFFECTS = 500
_RECORDS_PER_EFFECT = 4
# The same for what these hold: results, and each value that such a step has written, with the one before it.
_LARGE_EFFECTS_BYTES = 1 << 20
# So much is encoded at a time; then whoever else wants to run does.
_SLICE_CHARACTERS = 50_000
_PAUSE_SECONDS = 0.0005


def rows_between(least: int, size: int) -> int:
    """Return after how many records the next snapshot is due if the last one held `size` bytes."""
    return max(least, size // BYTES_PER_ROW)


def note_snapshot(run: Run, seq: int, size: int) -> None:
    """Let the run know its last snapshot, and so when the next one is due; seq 0: there is none."""
    run.snapshot_seq, run.snapshot_size = seq, size
    run.snapshot_due = seq + rows_between(LIVE_ROWS, size)


class Snapshots:
    """Takes the snapshots. Nothing rests on any: one that cannot be taken now is taken later, or never."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._busy = False

    def take(self, run: Run) -> None:
        """Begin to take one of a live run, of which everything so far is durable; asked again if it cannot be now."""
        if self._busy or run.closed or self._engine.closed:
            return
        run.snapshot_due = run.state.seq + LIVE_ROWS  # whatever becomes of this one
        if _holds_too_much(run):
            return
        self._busy = True
        # Steps go on and change the state meanwhile.
        self._engine.in_background(self._taken(run, copied(run.state)))

    async def _taken(self, run: Run, state: RunState) -> None:
        try:
            await self._take(run, state)
        finally:
            self._busy = False

    async def take_of_parked(self, run: Run) -> None:
        """Take one of a run that only waits and has just left memory, if enough has happened since the last one."""
        state = run.state
        waits = state.status == WAITING and run.durable_seq == state.offset + state.seq
        enough = state.seq - run.snapshot_seq >= rows_between(PARKED_ROWS, run.snapshot_size)
        if waits and enough and run.error is None and not self._engine.closed and not _holds_too_much(run):
            await self._take(run, state)

    async def _take(self, run: Run, state: RunState) -> None:
        row, size = await asyncio.to_thread(_encoded, state, run.run_id, self._engine.now())
        if self._engine.closed:
            return
        every = rows_between(LIVE_ROWS, size)
        note_snapshot(run, row.seq, size)
        try:
            await self._engine.store.save_snapshot(run.claim.run, row, replacing=row.seq - row.seq % every)
        except DurableFlowError as error:
            extra = fields("snapshot_not_saved", run.run_id, seq=row.seq)
            logger.warning("run %s: no snapshot at seq %d: %s", run.run_id, row.seq, said(error), extra=extra)
            return
        logger.debug(
            "run %s: snapshot at seq %d", run.run_id, row.seq, extra=fields("snapshot_saved", run.run_id, seq=row.seq)
        )


def _holds_too_much(run: Run) -> bool:
    """Tell whether steps in flight have recorded so much that a snapshot now costs more than it spares."""
    rows = run.state.seq - run.snapshot_seq
    effects = size = 0
    for task in run.state.tasks.values():
        for recorded in (task.effects or {}).values():
            effects += len(recorded)
            for effect in recorded.values():
                size += _size(effect.content) + _size(effect.outcome) + _size(effect.before)
    too_many = effects > _MANY_EFFECTS and effects * _RECORDS_PER_EFFECT > rows
    return too_many or (size > _LARGE_EFFECTS_BYTES and size > BYTES_PER_ROW * rows)


def _size(part: object) -> int:
    return len(part.data) if type(part) is EncodedValue else 0


def _encoded(state: RunState, run_id: str, at: int) -> tuple[SnapshotRow, int]:
    """Return the snapshot of a state that nobody changes, and its size. In a thread; it lets others run in between."""
    parts: list[str] = []
    left = _SLICE_CHARACTERS
    for part in encoded_parts(state):
        parts.append(part)
        left -= len(part)
        if left < 0:
            time.sleep(_PAUSE_SECONDS)
            left = _SLICE_CHARACTERS
    encoded = joined(parts)
    return new_snapshot(state, run_id, at, encoded), len(encoded.data)
