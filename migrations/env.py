"""How alembic reaches a journal's database: through the connection that the package hands over, or by a URL."""

from __future__ import annotations

import os
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection

from durable_flow.journal import files, migrate, tables, url

DEFAULT_URL = "sqlite:///durable_flow.db"


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=tables.metadata,
        version_table=migrate.VERSION_TABLE,
        render_as_batch=True,
        # One transaction for everything, which the caller has begun and commits: SQLite can do that if one asks it.
        transactional_ddl=True,
        # A database may hold the user's own tables, too.
        include_name=lambda name, kind, parents: kind != "table" or name in tables.metadata.tables,
    )
    context.run_migrations()


def run_by_url() -> None:
    """Serve alembic's command line: the database is found as everywhere else, locked, and migrated at once."""
    given = context.get_x_argument(as_dictionary=True).get("url")
    path = url.sqlite_path(given or os.environ.get("DURABLE_FLOW_DATABASE_URL") or DEFAULT_URL)
    files.create_file(path)
    with migrate.locked_connection(path) as connection:
        run(connection)


if context.is_offline_mode():
    raise SystemExit("SQL for offline use is not made: a journal is migrated by the package that opens it.")

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    run_by_url()
