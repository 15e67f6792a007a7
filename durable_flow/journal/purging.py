"""Compacting, pruning and purging in a SQL database: functions on the writer's transaction, each of them short."""

from __future__ import annotations

from ..records import JournalCompacted, Record
from . import sql
from .calls import Call
from .encode import encode
from .protocol import RunRow
from .seals import Seals, seal_rows
from .units import Execute

# So many rows of a table are deleted at once with a run that is pruned: most runs have fewer, and leave nothing over.
_FEW = 64

_EPOCH = sql.JOURNAL_NAMES.index("epoch")


def sealed_row(row: RunRow, record: Record, seals: Seals, limit: int) -> sql.Params:
    """Return the row of a JournalCompacted, its epoch left open. It may take a while: a state may be large.

    Raises PayloadTooLargeError.
    """
    assert isinstance(record.fact, JournalCompacted)
    encoded = encode(row.run, row.run_id, record.seq - 1, 0, [record], limit)
    return seal_rows(encoded, seals, row.uid).rows[0]


def compact(run: int, record: Record, columns: sql.Params, now: int) -> Call:
    """Put the record in the place of those up to its seq: tells whether it was done."""

    def call(execute: Execute, again: bool) -> bool:
        head = execute(sql.run_kept, {"run_": run})
        if not head:
            return False
        _, _, _, _, first, pruned_at = head[0]
        if again and first == record.seq and pruned_at is None:
            return True
        if pruned_at is not None or (first or 1) >= record.seq or not _replaced(execute, run, record, columns):
            return False
        execute(sql.keep_from, {"run_": run, "seq_": record.seq, "now_": now})
        execute(sql.drop_snapshots_until, {"run_": run, "seq_": record.seq})
        execute(sql.note_purge, {"run": run, "seq": record.seq - 1, "rest": False})
        return True

    return call


def prune(row: RunRow, record: Record | None, columns: sql.Params | None, now: int) -> Call:
    """Forget a run that has ended, all but the record, or whole: tells whether it was done."""
    run = row.run

    def call(execute: Execute, again: bool) -> bool:
        head = execute(sql.run_kept, {"run_": run})
        if not head:
            return again and record is None
        run_id, status, epoch, owner, _, pruned_at = head[0]
        if again and record is not None and pruned_at is not None and epoch == row.epoch + 1:
            return True
        # Whoever takes up a run raises its epoch.
        if (status, epoch, owner, pruned_at) != (row.status, row.epoch, row.owner, row.pruned_at):
            return False
        to = row.seq
        if record is not None:
            assert columns is not None
            to = record.seq - 1
            if not _replaced(execute, run, record, columns):
                return False
            execute(sql.keep_outcome, {"run_": run, "seq_": record.seq, "now_": now})
        else:
            execute(sql.name_parent, {"run_": run, "run_id_": run_id})
            execute(sql.delete_run, {"run_": run})
        if max(_deleted(execute, run, to, rest=True, few=_FEW)) >= _FEW:
            execute(sql.note_purge, {"run": run, "seq": to, "rest": True})
        else:
            # Of an earlier compaction, which this has done as well.
            execute(sql.end_purges, {"run_": run})
        return True

    return call


def purge(limit: int) -> Call:
    """Delete some of what nobody sees any more: gives the number of rows."""

    def call(execute: Execute, again: bool) -> int:
        while purges := execute(sql.next_purge, {}):
            run, to, rest = purges[0]
            deleted = sum(_deleted(execute, run, to, rest=bool(rest), few=limit))
            if deleted:
                return deleted
            execute(sql.end_purge, {"run_": run, "seq_": to, "rest_": rest})
        return 0

    return call


def _replaced(execute: Execute, run: int, record: Record, columns: sql.Params) -> bool:
    """Put the record in the place of the one with its seq, and in that one's epoch, if that is still a boundary."""
    there = execute(sql.record_at, {"run_": run, "seq_": record.seq})
    if [(at, bool(boundary)) for _, at, boundary in there] != [(record.at, True)]:
        return False
    execute(sql.allow_deletes, {})
    execute(sql.delete_record, {"run_": run, "seq_": record.seq})
    execute(sql.forbid_deletes, {})
    values = (*columns[:_EPOCH], there[0][0], *columns[_EPOCH + 1 :])
    execute(sql.insert_record, dict(zip(sql.JOURNAL_NAMES, values, strict=True)))
    return True


def _deleted(execute: Execute, run: int, to: int, *, rest: bool, few: int) -> list[int]:
    """Delete so many rows of each table at most: records up to a seq, and if `rest` says so all else of the run."""
    values = {"run_": run, "seq_": to, "few_": few}
    execute(sql.allow_deletes, {})
    counts = [len(execute(sql.purge_records, values))]
    execute(sql.forbid_deletes, {})
    if rest:
        others = (sql.purge_items, sql.purge_messages, sql.purge_waits, sql.purge_snapshots)
        counts += [len(execute(statement, values)) for statement in others]
    return counts
