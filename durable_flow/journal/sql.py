"""The statements of the writer, made from the tables and compiled once to plain SQL for SQLite's own driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Column, Table, bindparam, case, delete, func, insert, null, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql import ClauseElement

from .tables import journal, messages, runs, stream, waits, workers

_positional = sqlite.dialect(paramstyle="qmark")
_named = sqlite.dialect(paramstyle="named")

# Rows of one INSERT: exact up to 16, then powers of two. Few different texts, so that all stay prepared.
_SIZES = (128, 64, 32, *range(16, 0, -1))

Params = tuple[Any, ...]


class Statement:
    """A statement as text with named parameters; `fixed` are those that the statement itself gives."""

    __slots__ = ("fixed", "text")

    def __init__(self, element: ClauseElement, columns: Sequence[str] | None = None):
        compiled = element.compile(dialect=_named, column_keys=columns)
        self.text = str(compiled)
        self.fixed: Mapping[str, Any] = {k: v for k, v in compiled.params.items() if isinstance(v, int | str)}


class MultiRowInsert:
    """An INSERT of any number of rows, split into statements of a few fixed sizes.

    One statement for many rows, because sqlite3 gives up the GIL for each statement and then has to get it back from
    a busy event loop; one statement a row (`executemany`) would wait for that once a row.
    """

    __slots__ = ("_texts",)

    def __init__(self, table: Table, columns: Sequence[Column[Any]], *, ending: str = ""):
        names = [column.name for column in columns]
        head, _, row = str(insert(table).compile(dialect=_positional, column_keys=names)).partition(" VALUES ")
        self._texts = {n: f"{head} VALUES {', '.join([row] * n)}{ending}" for n in _SIZES}

    def split(self, rows: list[Params]) -> list[tuple[str, list[Any]]]:
        """Return statements and their parameters that insert the rows in order."""
        statements = []
        at, left = 0, len(rows)
        for size in _SIZES:
            while left >= size:
                params = [value for row in rows[at : at + size] for value in row]
                statements.append((self._texts[size], params))
                at, left = at + size, left - size
            if not left:
                break
        return statements


JOURNAL_COLUMNS = (
    journal.c.run, journal.c.seq, journal.c.kind, journal.c.boundary, journal.c.task, journal.c.step, journal.c.name,
    journal.c.data, journal.c.codec, journal.c.payload, journal.c.seal, journal.c.v, journal.c.epoch, journal.c.at,
)  # fmt: skip
STREAM_COLUMNS = (
    stream.c.run, stream.c.position, stream.c.at, stream.c.step, stream.c.name, stream.c.codec, stream.c.payload,
    stream.c.seal, stream.c.v, stream.c.wait_id, stream.c.reset_since, stream.c.task,
)  # fmt: skip
_NEW_RUN_COLUMNS = (
    runs.c.run_id, runs.c.uid, runs.c.workflow, runs.c.shape, runs.c.status, runs.c.epoch, runs.c.owner, runs.c.wake_at,
    runs.c.created_at, runs.c.updated_at, runs.c.finished_at, runs.c.error,
)  # fmt: skip

JOURNAL_NAMES = tuple(column.name for column in JOURNAL_COLUMNS)
insert_journal = MultiRowInsert(journal, JOURNAL_COLUMNS)
insert_stream = MultiRowInsert(stream, STREAM_COLUMNS)
insert_runs = MultiRowInsert(runs, _NEW_RUN_COLUMNS, ending=" ON CONFLICT (run_id) DO NOTHING RETURNING run, run_id")


def select_epochs(count: int) -> str:
    """Return the text that asks for run, epoch and uid of this many runs."""
    places = ", ".join("?" * count)
    return f"SELECT run, epoch, uid FROM runs WHERE run IN ({places})"


_run: BindParameter[Any] = bindparam("run_")
_epoch: BindParameter[Any] = bindparam("epoch_")
_this_run = runs.c.run == _run

# Runs and their records.

last_record = Statement(
    select(journal.c.seq, journal.c.at).where(journal.c.run == _run).order_by(journal.c.seq.desc()).limit(1)
)
insert_record = Statement(insert(journal), JOURNAL_NAMES)
epoch_at_seq = Statement(select(journal.c.epoch).where(journal.c.run == _run, journal.c.seq == bindparam("seq_")))
run_by_id = Statement(select(runs.c.run, runs.c.uid).where(runs.c.run_id == bindparam("run_id_")))
run_head = Statement(select(runs.c.run_id, runs.c.uid, runs.c.status, runs.c.epoch, runs.c.owner).where(_this_run))


def _change_run(*columns: str) -> Statement:
    # `finished_at` is the time of the first end; a run that goes on has none.
    end: BindParameter[Any] = bindparam("end_")
    finished_at = case((end.is_(None), null()), else_=func.coalesce(runs.c.finished_at, end))
    changed = update(runs).values(finished_at=finished_at).where(_this_run, runs.c.epoch == _epoch)
    return Statement(changed, ("status", "wake_at", "updated_at", *columns))


change_run = _change_run("error")
change_and_release_run = _change_run("error", "owner")
release_run = _change_run("owner")
claim_run = Statement(
    update(runs).values(epoch=runs.c.epoch + 1).where(_this_run, runs.c.epoch == _epoch), ("owner", "updated_at")
)

# What records change in other tables.

_wait_columns = [column.name for column in waits.columns if column.name != "outcome"]
_new_wait = upsert(waits)
open_wait = Statement(
    # A question asked again under its own name takes the place of the one that was closed.
    _new_wait.on_conflict_do_update(
        index_elements=[waits.c.run, waits.c.wait_id],
        set_={**{name: _new_wait.excluded[name] for name in _wait_columns[2:]}, "outcome": null()},
    ),
    _wait_columns,
)
settle_wait = Statement(
    update(waits).where(waits.c.run == _run, waits.c.wait_id == bindparam("wait_id_"), waits.c.outcome.is_(None)),
    ("outcome",),
)
# A run that failed may be retried, so what its end closed is told apart from what was closed before.
end_waits = Statement(update(waits).where(waits.c.run == _run, waits.c.outcome.is_(None)).values(outcome="ended"))
reopen_waits = Statement(update(waits).where(waits.c.run == _run, waits.c.outcome == "ended").values(outcome=null()))

_unconsumed = (messages.c.run == _run, messages.c.consumed_seq.is_(None))
consume_message = Statement(
    update(messages).where(messages.c.run == _run, messages.c.id == bindparam("id_")).values(payload=null()),
    ("consumed_seq",),
)
undeliver_messages = Statement(
    update(messages).where(*_unconsumed, messages.c.undelivered_at.is_(None)), ("undelivered_at",)
)
redeliver_messages = Statement(
    update(messages).where(*_unconsumed, messages.c.kind != "cancel").values(undelivered_at=null())
)

# Messages from others.

_message_columns = ("run", "message_id", "kind", "name", "codec", "payload", "seal", "v", "wait_id", "step", "reason",
                    "sent_at")  # fmt: skip
insert_message = Statement(insert(messages), _message_columns)
message_by_id = Statement(
    select(messages.c.id).where(messages.c.run == _run, messages.c.message_id == bindparam("message_id_"))
)
message_sent_at = Statement(
    select(messages.c.id).where(
        messages.c.run == _run,
        messages.c.sent_at == bindparam("sent_at_"),
        messages.c.message_id.is_not_distinct_from(bindparam("message_id_")),
    )
)
waits_of_run = Statement(
    select(waits.c.wait_id, waits.c.outcome, waits.c.data, messages.c.id.label("answer"))
    .select_from(
        waits.outerjoin(
            messages,
            (messages.c.run == waits.c.run)
            & (messages.c.wait_id == waits.c.wait_id)
            & messages.c.consumed_seq.is_(None),
        )
    )
    .where(waits.c.run == _run)
    .order_by(waits.c.seq)
)

# Workers.

_new_worker = upsert(workers)
beat = Statement(
    _new_worker.on_conflict_do_update(
        index_elements=[workers.c.id], set_={name: _new_worker.excluded[name] for name in workers.columns.keys()[1:]}
    ),
    [column.name for column in workers.columns],
)
delete_worker = Statement(delete(workers).where(workers.c.id == bindparam("id_")))
forget_worker = Statement(
    delete(workers).where(
        workers.c.id == bindparam("id_"),
        ~select(runs.c.run).where(runs.c.owner == workers.c.id, runs.c.finished_at.is_(None)).exists(),
    )
)
# A run that has ended has no owner but for a retry that did not come about: an index over all of them costs too much.
disown = Statement(
    update(runs).where(runs.c.owner == bindparam("owner_"), runs.c.finished_at.is_(None)).values(owner=null())
)
