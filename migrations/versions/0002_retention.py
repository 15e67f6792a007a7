"""Retention: which records of a run are kept, what is to be deleted, and the forks of a run by an index.

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # All of them may be NULL, so neither database rewrites a row.
    op.add_column("runs", sa.Column("first_seq", sa.BigInteger))
    op.add_column("runs", sa.Column("compacted_at", sa.BigInteger))
    op.add_column("runs", sa.Column("pruned_at", sa.BigInteger))
    op.add_column("runs", sa.Column("parent_id", sa.Text))
    condition = sa.text("parent IS NOT NULL")
    op.create_index("ix_runs_parent", "runs", ["parent"], sqlite_where=condition, postgresql_where=condition)
    op.create_table(
        "purges",
        sa.Column("run", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("rest", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_purges"),
    )


def downgrade() -> None:
    raise NotImplementedError("a journal is never taken back to an older schema: use the copy made before the upgrade")
