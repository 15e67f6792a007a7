"""The migrations lead to the tables of `tables.py`, and the database itself keeps history."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import TOMORROW, newer, rows
from sqlalchemy import create_engine

from durable_flow.errors import SchemaVersionError
from durable_flow.journal import files, migrate, tables

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.db"
    migrate.prepare(path)
    return path


def columns(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as file, file:
        return {row[1] for row in file.execute("PRAGMA table_info(runs)")}


def test_the_migrations_lead_to_the_tables(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        # Without the defaults: of Identity alembic expects there what only Postgres has. The next test sees them.
        context = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_what_compare_cannot_see_is_the_same_too(path: Path) -> None:
    """The texts of the database's objects: AUTOINCREMENT, conditions of indexes, names of constraints."""
    engine = create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.connect() as made, closing(sqlite3.connect(path)) as migrated:
        query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND type IN ('table', 'index')"
        expected = {name: sorted(sql.replace(",", " ").split()) for name, sql in made.exec_driver_sql(query)}
        found = {name: sorted(sql.replace(",", " ").split()) for name, sql in migrated.execute(query)}
    del found[migrate.VERSION_TABLE]
    assert found == expected
    engine.dispose()


def test_the_package_knows_its_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.migrations_path()))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


def test_nobody_rewrites_the_past_and_only_prune_forgets_it(path: Path) -> None:
    connection = files.connect(path)
    connection.execute("INSERT INTO journal (run, seq, kind, boundary, epoch, at) VALUES (1, 1, 'RunParked', 1, 1, 0)")
    for statement in ("UPDATE journal SET at = 1", "UPDATE journal SET payload = NULL WHERE run = 1"):
        with pytest.raises(sqlite3.IntegrityError, match="the journal is final"):
            connection.execute(statement)
    with pytest.raises(sqlite3.IntegrityError, match="only prune may delete"):
        connection.execute("DELETE FROM journal")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO maintenance (task, since) VALUES ('prune', 0)")
    with pytest.raises(sqlite3.IntegrityError, match="the journal is final"):
        connection.execute("UPDATE journal SET at = 1")
    assert connection.execute("DELETE FROM journal").rowcount == 1
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM journal").fetchone() == (1,)
    connection.close()


def test_an_older_file_is_copied_aside_and_upgraded(path: Path, tmp_path: Path) -> None:
    connection = files.connect(path)
    connection.execute("INSERT INTO workers VALUES ('w', 'h', 'b', 'n', 1, 1, 1)")
    migrate.upgrade(connection, path, folder=newer(tmp_path))
    assert migrate.version_of(connection) == TOMORROW
    connection.close()
    assert "colour" in columns(path)
    (copy,) = tmp_path.glob(f"jobs.db.before-{TOMORROW}-*Z")
    assert "colour" not in columns(copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as file:
        assert file.execute("SELECT id FROM workers").fetchall() == [("w",)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, tmp_path: Path) -> None:
    connection = files.connect(path)
    with pytest.raises(ZeroDivisionError):
        migrate.upgrade(connection, path, folder=newer(tmp_path, then="1 / 0"))
    assert migrate.version_of(connection) == migrate.HEAD
    connection.close()
    assert "colour" not in columns(path)


def test_a_file_of_tomorrow_is_refused_by_the_package_of_today(path: Path, tmp_path: Path) -> None:
    connection = files.connect(path)
    migrate.upgrade(connection, path, folder=newer(tmp_path))
    connection.close()
    with pytest.raises(SchemaVersionError, match=TOMORROW):
        migrate.prepare(path)


def test_alembics_command_line_works_from_the_repository(new_url: str) -> None:
    def alembic(*words: str, **environment: str) -> str:
        command = [sys.executable, "-m", "alembic", *words]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    alembic("upgrade", "head", DURABLE_FLOW_DATABASE_URL=new_url)
    rows(new_url, "CREATE TABLE orders (mine integer)")  # which `check` must not want to drop
    assert migrate.HEAD in alembic("-x", f"url={new_url}", "current")
    assert "No new upgrade operations" in alembic("check", DURABLE_FLOW_DATABASE_URL=new_url)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/jobs.db", "postgresql://nobody@nowhere.invalid/jobs"])
def test_alembics_command_line_prints_the_sql_without_connecting(url: str) -> None:
    command = [sys.executable, "-m", "alembic", "-x", f"url={url}", "upgrade", "head", "--sql"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == migrate.sql_of(url)
    assert done.stdout.startswith("BEGIN;")
    assert done.stdout.rstrip().endswith("COMMIT;")


def test_the_printed_sql_makes_the_same_file(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as file:
        file.executescript(migrate.sql_of("sqlite:////nowhere/jobs.db"))
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    made, migrated = (
        [
            " ".join(str(row).replace("\\t", " ").replace("\\n", " ").split())
            for row in rows(f"sqlite:///{file}", query)[0]
        ]
        for file in (other, path)
    )
    assert made == migrated
    assert migrate.version_at(f"sqlite:///{other}") == migrate.HEAD
