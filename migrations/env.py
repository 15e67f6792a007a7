"""How alembic reaches a journal's database: through the connection that the package hands over, or by a URL."""

from __future__ import annotations

import os
from logging.config import fileConfig
from typing import Any

from alembic import context
from sqlalchemy import Connection

from durable_flow.journal import files, migrate, tables, url
from durable_flow.journal.journal import DEFAULT_URL, URL_VARIABLE


def configure(**how: Any) -> None:
    context.configure(
        target_metadata=tables.metadata,
        version_table=migrate.VERSION_TABLE,
        render_as_batch=True,
        # One transaction for everything: SQLite can do that if one asks it.
        transactional_ddl=True,
        # A database may hold the user's own tables, too.
        include_name=lambda name, kind, parents: kind != "table" or name in tables.metadata.tables,
        **how,
    )


def run(connection: Connection) -> None:
    # The transaction is the caller's, who has begun it and commits.
    configure(connection=connection)
    context.run_migrations()


def url_given() -> str:
    """Return the URL of the database, found as everywhere else."""
    given = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get("url")
    return migrate.kept_url(given or os.environ.get(URL_VARIABLE) or DEFAULT_URL)


def run_by_url() -> None:
    """Serve alembic's command line: the database is locked, and migrated at once."""
    given = url_given()
    if url.is_postgres(given):
        migrate.in_postgres(given, run)
        return
    path = url.sqlite_path(given)
    files.create_file(path)
    with migrate.locked_connection(path) as connection:
        run(connection)


def print_sql() -> None:
    """Print what the migrations do, for a person who runs it by other means; nothing is connected to."""
    postgres = url.is_postgres(url_given())
    configure(dialect_name="postgresql" if postgres else "sqlite", literal_binds=True)
    with context.begin_transaction():
        if postgres:
            context.execute(f"SELECT pg_advisory_xact_lock({migrate.POSTGRES_LOCK})")
        context.run_migrations()


if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

handed_over = context.config.attributes.get("connection")
if context.is_offline_mode():
    print_sql()
elif handed_over is not None:
    run(handed_over)
else:
    run_by_url()
