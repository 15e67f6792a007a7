"""The schema of a journal: which version a database has, and how it is brought to this package's."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from ..errors import JournalUnavailableError, SchemaVersionError
from .files import connect, create_file, unavailable, use_write_ahead_log

HEAD = "0001"
"""The newest revision in `migrations/versions`. Here too, so that opening a database of today needs no alembic."""

VERSION_TABLE = "durable_flow_version"


def migrations_path() -> Path:
    """Return the folder of the migrations: beside the code in a wheel, beside the package in a source tree.

    Raises SchemaVersionError if there is none.
    """
    package = Path(__file__).parents[1]
    # The wheel's folder first: `migrations` beside an installed package would be somebody else's.
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file() and (folder / "versions").is_dir():
            return folder
    raise SchemaVersionError(f"the migrations are missing from {package}. Install durable_flow again.")


def prepare(path: Path, *, busy_seconds: float = 5.0) -> None:
    """Create a database file, or bring an older one to this package's schema after copying it aside.

    Several processes may do so at once. Raises JournalUnavailableError, SchemaVersionError.
    """
    create_file(path)
    try:
        connection = connect(path, busy_seconds=busy_seconds)
        try:
            use_write_ahead_log(connection, wait_seconds=busy_seconds)
            if version_of(connection) != HEAD:
                upgrade(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as exc:
        raise unavailable(path, exc) from exc


def version_of(connection: sqlite3.Connection) -> str | None:
    """Return the revision that a database has; None if it has no journal yet."""
    try:
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    except sqlite3.OperationalError as exc:
        if "no such table" not in str(exc):
            raise
        return None
    return str(row[0]) if row is not None else None


def upgrade(connection: sqlite3.Connection, path: Path, *, folder: Path | None = None) -> None:
    """Bring the database to the newest revision in `folder`. Raises SchemaVersionError if it is newer still."""
    # Only here, because it is slow to import and a database is seldom upgraded.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(folder or migrations_path()).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    # The lock first: of several processes that open a new file at once, one makes the tables and the others find them.
    with _locked(connection) as locked:
        version, head = version_of(connection), scripts.get_current_head()
        if version is None:
            _refuse_foreign_tables(connection, path)
        elif version not in {script.revision for script in scripts.walk_revisions()}:
            raise SchemaVersionError(
                f"{path} has schema version {version}, which this version of durable_flow does not know: a newer one "
                "made it. Upgrade the package (`pip install --upgrade durable-flow`)."
            )
        elif version != head:
            _copy_aside(path, str(head))
        config.attributes["connection"] = locked
        command.upgrade(config, "head")


@contextmanager
def locked_connection(path: Path) -> Iterator[Connection]:
    """Give alembic a connection inside of a write transaction, which is committed at the end."""
    connection = connect(path)
    try:
        use_write_ahead_log(connection)
        with _locked(connection) as locked:
            yield locked
    finally:
        connection.close()


@contextmanager
def _locked(connection: sqlite3.Connection) -> Iterator[Connection]:
    # Alembic leaves a transaction alone that it finds begun, and SQLAlchemy is never asked to commit or to tidy up.
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool, pool_reset_on_return=None)
    locked = engine.connect()
    locked.begin()
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield locked
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _refuse_foreign_tables(connection: sqlite3.Connection, path: Path) -> None:
    from .tables import metadata

    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    taken = sorted(there & metadata.tables.keys())
    if taken:
        raise JournalUnavailableError(
            f"{path} has tables named {', '.join(taken)} that are not durable_flow's. Use another file for the journal."
        )


def _copy_aside(path: Path, head: str) -> None:
    """Copy the database to a file beside it, as it is before the upgrade. The caller holds the write lock."""
    copy = path.with_name(f"{path.name}.before-{head}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    create_file(copy)
    source, target = connect(path), connect(copy)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()
