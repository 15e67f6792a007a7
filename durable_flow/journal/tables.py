"""The tables of a journal, described once for every database.

Times are integer microseconds since 1970, UTC. `run` is the key of a row of `runs`; no table says so by a foreign key,
because the check would cost every append a lookup and nothing deletes a run but `prune`, which deletes its rows too.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})


def _where(condition: str) -> dict[str, Any]:
    """Return the options that make an index partial, in each dialect's words."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


# SQLite numbers rows by itself only if the column's type is exactly INTEGER.
RowKey = BigInteger().with_variant(Integer, "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("run", RowKey, Identity(), primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", Text),
    Column("wake_at", BigInteger),
    Column("parent", BigInteger),
    Column("parent_seq", BigInteger),
    Column("tags", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("error", Text),
    # What retention has done: the first record that is kept (NULL: all are) and since when, when the run was pruned,
    # and the run id of a parent whose row is gone.
    Column("first_seq", BigInteger),
    Column("compacted_at", BigInteger),
    Column("pruned_at", BigInteger),
    Column("parent_id", Text),
    UniqueConstraint("run_id", name="uq_runs_run_id"),
    # Recovery and the inbox ask for the few runs that go on, among many that have ended.
    # Without the status: Postgres then parks and claims a run without touching an index.
    Index("ix_runs_unfinished", "workflow", **_where("finished_at IS NULL")),
    # Few runs are forks, so it costs the others nothing.
    Index("ix_runs_parent", "parent", **_where("parent IS NOT NULL")),
    sqlite_autoincrement=True,
)

journal = Table(
    "journal",
    metadata,
    Column("run", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("boundary", Boolean, nullable=False),
    Column("task", BigInteger),
    Column("step", Text),
    Column("name", Text),
    Column("data", Text),
    Column("codec", Text),
    Column("payload", LargeBinary),
    Column("seal", Text),
    Column("v", SmallInteger),
    Column("epoch", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    # The fence: two writers cannot both be right. And no other index, each would cost every append.
    UniqueConstraint("run", "seq", name="uq_journal_run_seq"),
)

stream = Table(
    "stream",
    metadata,
    Column("run", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("step", Text),
    Column("name", Text),
    Column("codec", Text),
    Column("payload", LargeBinary),
    Column("seal", Text),
    Column("v", SmallInteger),
    Column("wait_id", Text),
    Column("reset_since", BigInteger),
    Column("task", BigInteger),
    UniqueConstraint("run", "position", name="uq_stream_run_position"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("run", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("fold_version", Integer, nullable=False),
    Column("hash", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("seal", Text),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("run", "seq"),
)

messages = Table(
    "messages",
    metadata,
    Column("id", RowKey, Identity(), primary_key=True),
    Column("run", BigInteger, nullable=False),
    Column("message_id", Text),
    Column("kind", Text, nullable=False),
    Column("name", Text),
    Column("codec", Text),
    Column("payload", LargeBinary),
    Column("seal", Text),
    Column("v", SmallInteger),
    Column("wait_id", Text),
    Column("step", Text),
    Column("reason", Text),
    Column("sent_at", BigInteger, nullable=False),
    Column("consumed_seq", BigInteger),
    Column("undelivered_at", BigInteger),
    UniqueConstraint("run", "message_id", name="uq_messages_run_message_id"),
    # A second answer to one question fails when it is inserted. One that the run took and did not count is no answer.
    Index(
        "uq_messages_answer", "run", "wait_id", unique=True, **_where("wait_id IS NOT NULL AND consumed_seq IS NULL")
    ),
    Index("ix_messages_unconsumed", "run", **_where("consumed_seq IS NULL AND undelivered_at IS NULL")),
    sqlite_autoincrement=True,
)

waits = Table(
    "waits",
    metadata,
    Column("run", BigInteger, nullable=False),
    Column("wait_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("task", BigInteger),
    Column("step", Text),
    Column("name", Text),
    Column("data", Text),
    Column("codec", Text),
    Column("payload", LargeBinary),
    Column("seal", Text),
    Column("v", SmallInteger),
    Column("human", Boolean, nullable=False),
    Column("deadline", BigInteger),
    Column("opened_at", BigInteger, nullable=False),
    Column("outcome", Text),
    PrimaryKeyConstraint("run", "wait_id"),
    Index("ix_waits_open", "opened_at", **_where("outcome IS NULL")),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("heartbeat_at", BigInteger, nullable=False),
)

# Rows that nobody sees any more, of runs that were compacted or pruned, to be deleted a few at a time: records up to
# `seq`, and if `rest` says so the run's stream items, messages, waits and snapshots. `run` may have no row any more.
purges = Table(
    "purges",
    metadata,
    Column("run", BigInteger, nullable=False, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("rest", Boolean, nullable=False),
    PrimaryKeyConstraint("run"),
)

# A row here, put in and taken out within one transaction, is what lets retention delete rows of `journal`.
maintenance = Table(
    "maintenance",
    metadata,
    Column("task", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),
)
