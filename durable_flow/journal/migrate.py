"""The schema of a journal: which version a database has, and how it is brought to this package's."""

from __future__ import annotations

import asyncio
import io
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from ..errors import JournalUnavailableError, JournalUrlError, SchemaVersionError
from .files import connect, create_file, unavailable, use_write_ahead_log
from .postgres_errors import unavailable as unavailable_postgres
from .url import canonical_url, is_postgres, masked, require_asyncpg, sqlite_path

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")

HEAD = "0002"
"""The newest revision in `migrations/versions`. Here too, so that opening a database of today needs no alembic."""

VERSION_TABLE = "durable_flow_version"

POSTGRES_LOCK = 0x6475_7261_626C_6521
"""The key of the advisory lock that whoever migrates a Postgres database holds; any number that nobody else uses."""

_OLDEST_POSTGRES = 140000
_CONNECT_SECONDS = 30.0


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
    config = _config(folder)
    # The lock first: of several processes that open a new file at once, one makes the tables and the others find them.
    with _locked(connection) as locked:
        version = version_of(connection)
        head = _check_upgradable(version, config, str(path))
        if version is None:
            there = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            _refuse_foreign_tables({name for (name,) in there}, str(path), "file")
        elif version != head:
            _copy_aside(path, head)
        _run(config, locked)


def upgrade_url(url: str) -> None:
    """Create the database's tables, or bring them to this package's schema: all of it or nothing.

    Several processes may do so at once. It runs an event loop of its own, so it must not be called within one. Raises
    JournalUrlError, JournalUnavailableError, SchemaVersionError.
    """
    canonical = kept_url(url)
    if not is_postgres(canonical):
        prepare(sqlite_path(canonical))
        return
    shown, config = masked(canonical), _config()

    def upgraded(locked: Connection) -> None:
        version = postgres_version_of(locked)
        _check_upgradable(version, config, shown)
        if version is None:
            _refuse_old_servers(locked, shown)
            # Also those of another schema in the search path, which ours would hide from their owner.
            there = (
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND pg_table_is_visible(oid)"
            )
            _refuse_foreign_tables(set(locked.scalars(text(there))), shown, "database")
        _run(config, locked)

    in_postgres(canonical, upgraded)


def version_at(url: str) -> str | None:
    """Return the revision of the database at a URL, None if it has no journal yet; nothing is created.

    Not to be called within an event loop. Raises JournalUrlError, JournalUnavailableError.
    """
    canonical = kept_url(url)
    if is_postgres(canonical):
        return in_postgres(canonical, postgres_version_of)
    path = sqlite_path(canonical)
    if not path.exists():
        return None
    try:
        with closing(connect(path)) as connection:
            return version_of(connection)
    except sqlite3.Error as exc:
        raise unavailable(path, exc) from exc


def sql_of(url: str) -> str:
    """Return the SQL that makes the newest schema in an empty database of this kind; nothing is connected to."""
    from alembic import command

    config = _config()
    config.attributes["url"] = kept_url(url)
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    return config.output_buffer.getvalue()


def check_version(found: str | None, shown_url: str) -> None:
    """Raise SchemaVersionError unless `found` is this package's revision; None: the database has no journal."""
    if found == HEAD:
        return
    if found is not None and found not in _known_revisions():
        raise _too_new(shown_url, found)
    state = "has no tables of durable_flow yet" if found is None else f"has the older schema {found}, {HEAD} is needed"
    raise SchemaVersionError(f"{shown_url} {state}. Run: durable-flow db upgrade --url {shlex.quote(shown_url)}")


def kept_url(url: str) -> str:
    """Return the canonical URL of a database that keeps something. Raises JournalUrlError."""
    canonical = canonical_url(url)
    if canonical.startswith("memory:"):
        raise JournalUrlError(f"{canonical} keeps nothing for anybody else. Name a database.")
    return canonical


def in_postgres(url: str, work: Callable[[Connection], T]) -> T:
    """Return what `work` returns, which it does in one transaction under the lock of migrations.

    Not to be called within an event loop. Raises JournalUrlError, JournalUnavailableError, and what `work` raises.
    """
    require_asyncpg(url)
    import asyncpg

    async def connected() -> Any:
        return await asyncpg.connect(url, timeout=_CONNECT_SECONDS)

    def locked(connection: Connection) -> T:
        # Each statement must see what others committed while this one waited for the lock.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK})"))
        return work(connection)

    async def worked() -> T:
        engine = create_async_engine("postgresql+asyncpg://", async_creator=connected, poolclass=NullPool)
        async with engine.begin() as connection:
            return await connection.run_sync(locked)

    try:
        return asyncio.run(worked())
    except (DBAPIError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        raise unavailable_postgres(masked(url), exc) from exc


def postgres_version_of(connection: Connection) -> str | None:
    """Return the revision that a Postgres database has; None if it has no journal yet."""
    if connection.scalar(text(f"SELECT to_regclass('{VERSION_TABLE}')")) is None:
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def _config(folder: Path | None = None) -> Config:
    # Only here, because it is slow to import and a database is seldom upgraded.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder or migrations_path()).replace("%", "%%"))
    return config


def _check_upgradable(version: str | None, config: Config, shown: str) -> str:
    """Return the newest revision. Raises SchemaVersionError if the database has one that is not known."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config)
    if version is not None and version not in {script.revision for script in scripts.walk_revisions()}:
        raise _too_new(shown, version)
    return str(scripts.get_current_head())


def _run(config: Config, connection: Connection) -> None:
    from alembic import command

    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _too_new(shown: str, version: str) -> SchemaVersionError:
    return SchemaVersionError(
        f"{shown} has schema version {version}, which this version of durable_flow does not know: a newer one made it. "
        "Upgrade the package (`pip install --upgrade durable-flow`)."
    )


def _known_revisions() -> set[str]:
    # By the names of the files, as this is asked without alembic.
    return {file.name.partition("_")[0] for file in (migrations_path() / "versions").glob("*_*.py")}


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


def _refuse_foreign_tables(there: set[str], shown: str, place: str) -> None:
    from .tables import metadata

    if taken := sorted(there & metadata.tables.keys()):
        raise JournalUnavailableError(
            f"{shown} has tables named {', '.join(taken)} that are not durable_flow's. Use another {place} for the "
            "journal."
        )


def _refuse_old_servers(connection: Connection, shown: str) -> None:
    version = int(connection.scalar(text("SHOW server_version_num")) or 0)
    if version < _OLDEST_POSTGRES:
        raise JournalUnavailableError(
            f"{shown} is Postgres {version // 10_000}, and durable_flow needs {_OLDEST_POSTGRES // 10_000} or newer."
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
