"""The journal: its tables, and the triggers that keep it as it was written.

Revision: 0001, the first
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def row_key(name: str) -> sa.Column[int]:
    """Return the column of a key that the database counts up and never gives twice."""
    # SQLite numbers rows by itself only if the column's type is exactly INTEGER. In Postgres an identity, not a
    # bigserial: whoever may insert rows needs no right to its sequence.
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False)


def partial(condition: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "runs",
        row_key("run"),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("wake_at", sa.BigInteger),
        sa.Column("parent", sa.BigInteger),
        sa.Column("parent_seq", sa.BigInteger),
        sa.Column("tags", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("run", name="pk_runs"),
        sa.UniqueConstraint("run_id", name="uq_runs_run_id"),
        sqlite_autoincrement=True,
    )
    # Without the status: Postgres then parks and claims a run without touching an index, in 60 % of the time.
    op.create_index("ix_runs_unfinished", "runs", ["workflow"], **partial("finished_at IS NULL"))
    op.create_table(
        "journal",
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("boundary", sa.Boolean, nullable=False),
        sa.Column("task", sa.BigInteger),
        sa.Column("step", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("data", sa.Text),
        sa.Column("codec", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("seal", sa.Text),
        sa.Column("v", sa.SmallInteger),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("run", "seq", name="uq_journal_run_seq"),
    )
    op.create_table(
        "stream",
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("step", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("codec", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("seal", sa.Text),
        sa.Column("v", sa.SmallInteger),
        sa.Column("wait_id", sa.Text),
        sa.Column("reset_since", sa.BigInteger),
        sa.Column("task", sa.BigInteger),
        sa.UniqueConstraint("run", "position", name="uq_stream_run_position"),
    )
    op.create_table(
        "snapshots",
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("fold_version", sa.Integer, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("seal", sa.Text),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run", "seq", name="pk_snapshots"),
    )
    op.create_table(
        "messages",
        row_key("id"),
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("message_id", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("codec", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("seal", sa.Text),
        sa.Column("v", sa.SmallInteger),
        sa.Column("wait_id", sa.Text),
        sa.Column("step", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("sent_at", sa.BigInteger, nullable=False),
        sa.Column("consumed_seq", sa.BigInteger),
        sa.Column("undelivered_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.UniqueConstraint("run", "message_id", name="uq_messages_run_message_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_messages_answer",
        "messages",
        ["run", "wait_id"],
        unique=True,
        **partial("wait_id IS NOT NULL AND consumed_seq IS NULL"),
    )
    op.create_index(
        "ix_messages_unconsumed", "messages", ["run"], **partial("consumed_seq IS NULL AND undelivered_at IS NULL")
    )
    op.create_table(
        "waits",
        sa.Column("run", sa.BigInteger, nullable=False),
        sa.Column("wait_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("task", sa.BigInteger),
        sa.Column("step", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("data", sa.Text),
        sa.Column("codec", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("seal", sa.Text),
        sa.Column("v", sa.SmallInteger),
        sa.Column("human", sa.Boolean, nullable=False),
        sa.Column("deadline", sa.BigInteger),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.PrimaryKeyConstraint("run", "wait_id", name="pk_waits"),
    )
    op.create_index("ix_waits_open", "waits", ["opened_at"], **partial("outcome IS NULL"))
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "maintenance",
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("task", name="pk_maintenance"),
    )
    # Nobody rewrites the past. `prune` may forget it, if its transaction says so in a way that no other one sees.
    triggers = {"sqlite": SQLITE_TRIGGERS, "postgresql": POSTGRES_TRIGGERS}
    for statement in triggers[op.get_context().dialect.name]:
        op.execute(statement)


# `prune` puts a row into `maintenance` and takes it out again.
SQLITE_TRIGGERS = (
    "CREATE TRIGGER journal_is_final BEFORE UPDATE ON journal "
    "BEGIN SELECT RAISE(ABORT, 'the journal is final: its records are never changed'); END",
    "CREATE TRIGGER journal_is_kept BEFORE DELETE ON journal WHEN NOT EXISTS (SELECT 1 FROM maintenance) "
    "BEGIN SELECT RAISE(ABORT, 'the journal is kept: only prune may delete its records'); END",
)

# `prune` says `SET LOCAL durable_flow.maintenance = 'prune'`. The triggers are called once a statement, so they cost
# nothing per row, and refuse also what would touch no row.
POSTGRES_TRIGGERS = (
    """\
CREATE OR REPLACE FUNCTION durable_flow_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'the journal is final: its records are never changed' USING ERRCODE = '23000';
    END IF;
    RAISE EXCEPTION 'the journal is kept: only prune may delete its records' USING ERRCODE = '23000';
END
$$""",
    "CREATE TRIGGER journal_is_final BEFORE UPDATE OR TRUNCATE ON journal FOR EACH STATEMENT "
    "EXECUTE FUNCTION durable_flow_refuse()",
    "CREATE TRIGGER journal_is_kept BEFORE DELETE ON journal FOR EACH STATEMENT "
    "WHEN (current_setting('durable_flow.maintenance', true) IS DISTINCT FROM 'prune') "
    "EXECUTE FUNCTION durable_flow_refuse()",
)


def downgrade() -> None:
    raise NotImplementedError("a journal is never taken back to an older schema: use the copy made before the upgrade")
