"""The statements that write, made from the tables once: as text for SQLite's own driver, as elements for Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    Executable,
    Select,
    Table,
    bindparam,
    case,
    delete,
    func,
    insert,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from .tables import journal, maintenance, messages, purges, runs, snapshots, stream, waits, workers

_positional = sqlite.dialect(paramstyle="qmark")
_named = sqlite.dialect(paramstyle="named")

# Rows of one INSERT: exact up to 16, then powers of two. Few different texts, so that all stay prepared.
_SIZES = (128, 64, 32, *range(16, 0, -1))

Params = tuple[Any, ...]


class Statement:
    """A statement with named parameters, `columns` being those that it sets besides.

    `text` is for SQLite; `fixed` are parameters that the statement itself gives. `element` is for Postgres, and `names`
    are the parameters that it takes.
    """

    __slots__ = ("element", "fixed", "names", "text")

    def __init__(
        self, element: Executable, columns: Sequence[str] | None = None, *, postgres: Executable | None = None
    ):
        compiled = element.compile(dialect=_named, column_keys=columns)  # type: ignore[attr-defined]
        self.text = str(compiled)
        given = {k: v for k, v in compiled.params.items() if k not in (columns or ())}
        self.fixed: Mapping[str, Any] = {k: v for k, v in given.items() if isinstance(v, int | str)}
        self.element = postgres if postgres is not None else element
        self.names = tuple(name for name in compiled.params if name not in self.fixed)


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
NEW_RUN_COLUMNS = (
    runs.c.run_id, runs.c.uid, runs.c.workflow, runs.c.shape, runs.c.status, runs.c.epoch, runs.c.owner, runs.c.wake_at,
    runs.c.parent, runs.c.parent_seq, runs.c.created_at, runs.c.updated_at, runs.c.finished_at, runs.c.error,
)  # fmt: skip

JOURNAL_NAMES = tuple(column.name for column in JOURNAL_COLUMNS)
insert_journal = MultiRowInsert(journal, JOURNAL_COLUMNS)
insert_stream = MultiRowInsert(stream, STREAM_COLUMNS)
insert_runs = MultiRowInsert(runs, NEW_RUN_COLUMNS, ending=" ON CONFLICT (run_id) DO NOTHING RETURNING run, run_id")


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
# Of the first record from a seq on: what was there may have been compacted into a later one, which keeps its epoch.
epoch_from_seq = Statement(
    select(journal.c.epoch)
    .where(journal.c.run == _run, journal.c.seq >= bindparam("seq_"))
    .order_by(journal.c.seq)
    .limit(1)
)
run_by_id = Statement(select(runs.c.run, runs.c.uid).where(runs.c.run_id == bindparam("run_id_")))
_run_head = select(runs.c.run_id, runs.c.uid, runs.c.status, runs.c.epoch, runs.c.owner).where(_this_run)
run_head = Statement(_run_head)
# A run that somebody is writing at this moment is not free. SQLite has one writer, and these words mean nothing to it.
run_if_free = Statement(_run_head.with_for_update(skip_locked=True))
run_locked = Statement(_run_head.with_for_update())


def _change_run(*columns: str) -> Statement:
    # `finished_at` is the time of the first end; a run that goes on has none.
    end: BindParameter[Any] = bindparam("end_", type_=runs.c.finished_at.type)
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

WAIT_COLUMNS = tuple(column for column in waits.columns if column.name != "run")


def _upsert(table: Table, keys: int) -> Statement:
    """Return a statement that writes a row in place of one with the same first columns."""
    names = [column.name for column in table.columns]
    made = []
    for new in (sqlite.insert(table), postgresql.insert(table)):
        values = {name: new.excluded[name] for name in names[keys:]}
        made.append(new.on_conflict_do_update(index_elements=names[:keys], set_=values))
    return Statement(made[0], names, postgres=made[1])


open_wait = _upsert(waits, 2)
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

# Runs that come from another journal.


def _upsert_nothing(table: Table, columns: Sequence[Column[Any]], *keys: Column[Any]) -> Statement:
    """Return a statement that inserts a row unless there is one with the same keys, and returns its first column."""
    first = next(iter(table.columns))
    lite, postgres = (
        new.on_conflict_do_nothing(index_elements=keys).returning(first)
        for new in (sqlite.insert(table), postgresql.insert(table))
    )
    return Statement(lite, [column.name for column in columns], postgres=postgres)


class ManyRows:
    """Inserts rows of a table, so many at a time as are good for a driver that is asked for each statement."""

    def __init__(self, table: Table, columns: Sequence[Column[Any]]):
        self._names = [column.name for column in columns]
        self._inserts = {
            size: Statement(
                insert(table).values(
                    [{c.name: bindparam(f"{c.name}_{n}", type_=c.type) for c in columns} for n in range(size)]
                )
            )
            for size in (32, 1)
        }

    def split(self, rows: Sequence[Params]) -> list[tuple[Statement, dict[str, Any]]]:
        """Return statements and their parameters that insert the rows in order."""
        statements = []
        at = 0
        for size, statement in self._inserts.items():
            while len(rows) - at >= size:
                some = enumerate(rows[at : at + size])
                values = {f"{name}_{n}": part for n, row in some for name, part in zip(self._names, row, strict=True)}
                statements.append((statement, values))
                at += size
        return statements


insert_records = ManyRows(journal, JOURNAL_COLUMNS)
insert_items = ManyRows(stream, STREAM_COLUMNS)
insert_run = _upsert_nothing(runs, NEW_RUN_COLUMNS, runs.c.run_id)
run_by_uid = Statement(select(runs.c.run, runs.c.run_id).where(runs.c.uid == bindparam("uid_")).limit(1))
# Two that import one archive at once under two run ids would not see each other; SQLite has one writer.
lock_uid = Statement(
    select(bindparam("uid_", type_=runs.c.uid.type)),
    postgres=select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("uid_", type_=runs.c.uid.type), 0))),
)
insert_any_message = Statement(insert(messages), (*(c.name for c in messages.columns if c.name != "id"),))
savepoint, undo_savepoint = (Statement(text(f"{word} SAVEPOINT import_run".strip())) for word in ("", "ROLLBACK TO"))

# Messages from others.

_message_columns = ("run", "message_id", "kind", "name", "codec", "payload", "seal", "v", "wait_id", "step", "reason",
                    "sent_at")  # fmt: skip


def _insert_message(*conditions: Any) -> Statement:
    """Return a statement that inserts a message unless the run has ended, or another one is in its place."""
    values = [bindparam(name, type_=messages.c[name].type).label(name) for name in _message_columns]
    source: Select[Any] = select(*values).where(
        runs.c.run == bindparam("run"), runs.c.finished_at.is_(None), *conditions
    )
    lite, postgres = (
        new.from_select(_message_columns, source.select_from(runs)).on_conflict_do_nothing().returning(messages.c.id)
        for new in (sqlite.insert(messages), postgresql.insert(messages))
    )
    return Statement(lite, postgres=postgres)


insert_message = _insert_message()
insert_answer = _insert_message(
    select(waits.c.run)
    .where(waits.c.run == runs.c.run, waits.c.wait_id == bindparam("wait_id"), waits.c.outcome.is_(None))
    .exists()
)
message_by_id = Statement(
    select(messages.c.sent_at).where(messages.c.run == _run, messages.c.message_id == bindparam("message_id_"))
)
_waits_of_run = (
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
)
open_waits_of_run = Statement(_waits_of_run.where(waits.c.outcome.is_(None)).order_by(waits.c.seq))
settled_waits_of_run = Statement(_waits_of_run.where(waits.c.outcome.is_not(None)).order_by(waits.c.seq.desc()))
wait_of_run = Statement(_waits_of_run.where(waits.c.wait_id == bindparam("wait_id_")))

# Snapshots.

write_snapshot = _upsert(snapshots, 2)
drop_snapshots = Statement(
    delete(snapshots).where(
        snapshots.c.run == _run, snapshots.c.seq >= bindparam("first_"), snapshots.c.seq < bindparam("before_")
    )
)

# Retention. Where SQLite asks for a row, Postgres asks for a setting of the transaction.

allow_deletes = Statement(
    insert(maintenance).values(task="prune", since=0),
    postgres=select(func.set_config("durable_flow.maintenance", "prune", True)),
)
forbid_deletes = Statement(
    delete(maintenance).where(maintenance.c.task == "prune"),
    postgres=select(func.set_config("durable_flow.maintenance", "", True)),
)
run_kept = Statement(
    select(runs.c.run_id, runs.c.status, runs.c.epoch, runs.c.owner, runs.c.first_seq, runs.c.pruned_at)
    .where(_this_run)
    .with_for_update()
)
record_at = Statement(
    select(journal.c.epoch, journal.c.at, journal.c.boundary).where(
        journal.c.run == _run, journal.c.seq == bindparam("seq_")
    )
)
delete_record = Statement(delete(journal).where(journal.c.run == _run, journal.c.seq == bindparam("seq_")))
keep_from = Statement(update(runs).values(first_seq=bindparam("seq_"), compacted_at=bindparam("now_")).where(_this_run))
# Its epoch is another one, so that nobody claims what he has seen before.
keep_outcome = Statement(
    update(runs)
    .values(
        first_seq=bindparam("seq_"), compacted_at=bindparam("now_"), pruned_at=bindparam("now_"),
        epoch=runs.c.epoch + 1, owner=null(),
    )
    .where(_this_run)
)  # fmt: skip
name_parent = Statement(update(runs).values(parent_id=bindparam("run_id_")).where(runs.c.parent == _run))
delete_run = Statement(delete(runs).where(_this_run))
note_purge = _upsert(purges, 1)
next_purge = Statement(select(purges.c.run, purges.c.seq, purges.c.rest).order_by(purges.c.run).limit(1))
end_purge = Statement(
    delete(purges).where(purges.c.run == _run, purges.c.seq == bindparam("seq_"), purges.c.rest == bindparam("rest_"))
)
end_purges = Statement(delete(purges).where(purges.c.run == _run))
drop_snapshots_until = Statement(delete(snapshots).where(snapshots.c.run == _run, snapshots.c.seq <= bindparam("seq_")))
_few: BindParameter[Any] = bindparam("few_", type_=journal.c.seq.type)
_lowest = select(func.min(journal.c.seq)).where(journal.c.run == _run).scalar_subquery()
_highest = select(func.max(stream.c.position)).where(stream.c.run == _run).scalar_subquery()
purge_records = Statement(
    delete(journal)
    .where(journal.c.run == _run, journal.c.seq <= bindparam("seq_"), journal.c.seq < _lowest + _few)
    .returning(journal.c.seq)
)
# The last ones first: who reads meanwhile gets no gap, but an end that comes too early, and asks why.
purge_items = Statement(
    delete(stream).where(stream.c.run == _run, stream.c.position > _highest - _few).returning(stream.c.position)
)


def _purge(table: Table, key: Column[Any]) -> Statement:
    some = select(key).where(table.c.run == _run).limit(_few)
    return Statement(delete(table).where(table.c.run == _run, key.in_(some)).returning(key))


purge_messages = _purge(messages, messages.c.id)
purge_waits = _purge(waits, waits.c.wait_id)
purge_snapshots = _purge(snapshots, snapshots.c.seq)

# Workers.

beat = _upsert(workers, 1)
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
