"""The migrations on Postgres: where they lead, who may run them at once, and what is refused."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import TOMORROW, rows, tomorrow
from postgres import PostgresServer, new_database
from sqlalchemy import Connection

from durable_flow import Journal
from durable_flow.errors import JournalUnavailableError, SchemaVersionError
from durable_flow.journal import migrate, tables
from durable_flow.journal.postgres_errors import unavailable

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0

# What makes up a schema, in words that do not depend on the order of creation.
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, identity_generation
FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position
"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY indexname"
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = current_schema()::regnamespace AND contype <> 'n' ORDER BY conrelid::regclass::text, conname
"""
OPTIONS = """
SELECT relname, reloptions FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY relname
"""
TRIGGERS = """
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = to_regclass('journal') ORDER BY tgname
"""

NEW_RUN = """
INSERT INTO runs (run_id, uid, workflow, shape, status, epoch, created_at, updated_at)
VALUES ('r', 'u', 'w', 's', 'running', 1, 0, 0) RETURNING run
"""
WAITING_FOR_A_LOCK = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def schema(url: str, *parts: str) -> list[list[tuple[Any, ...]]]:
    """What the statements return, without what belongs to the table of the version, which only migrations make."""
    return [[row for row in part if not row[0].startswith(migrate.VERSION_TABLE)] for part in rows(url, *parts)]


def test_the_migrations_lead_to_the_tables(postgres_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))

    assert migrate.in_postgres(postgres_url, differences) == []


def test_what_compare_cannot_see_is_the_same_too(empty_url: str, postgres_url: str) -> None:
    migrate.in_postgres(empty_url, tables.metadata.create_all)
    parts = (COLUMNS, INDEXES, CONSTRAINTS, OPTIONS)
    assert schema(postgres_url, *parts) == schema(empty_url, *parts)


def test_nobody_rewrites_the_past_and_only_prune_forgets_it(postgres_url: str) -> None:
    insert = "INSERT INTO journal (run, seq, kind, boundary, epoch, at) VALUES (1, 1, 'RunParked', true, 1, 0)"
    count, prune = "SELECT count(*) FROM journal", "SET LOCAL durable_flow.maintenance = 'prune'"
    rows(postgres_url, insert)
    for statement in ("UPDATE journal SET at = 1", "UPDATE journal SET payload = NULL WHERE run = 2"):
        for before in ((), (prune,)):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="the journal is final"):
                rows(postgres_url, *before, statement)
    for statement in ("DELETE FROM journal", "DELETE FROM journal WHERE run = 2", "TRUNCATE journal"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only prune may delete"):
            rows(postgres_url, statement)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only prune may delete"):
        rows(postgres_url, prune, "TRUNCATE journal")
    assert rows(postgres_url, count) == [[(1,)]]
    assert rows(postgres_url, prune, "DELETE FROM journal", count)[-1] == [(0,)]


async def test_the_right_to_forget_ends_with_its_transaction(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL durable_flow.maintenance = 'prune'")
            await connection.execute("DELETE FROM journal")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only prune may delete"):
            await connection.execute("DELETE FROM journal")
    finally:
        await connection.close()


def test_who_may_write_the_tables_needs_no_other_right(tcp_server: PostgresServer) -> None:
    role = "only_writes_rows"
    tcp_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        with new_database(tcp_server) as name:
            migrate.upgrade_url(tcp_server.url(name))
            rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO"
            tcp_server.execute(f"{rights} {role}", name)
            url = tcp_server.tcp_url(name, user=role, password="secret")
            (runs, messages) = rows(
                url, NEW_RUN, "INSERT INTO messages (run, kind, sent_at) VALUES (1, 'e', 0) RETURNING id"
            )
            assert runs[0][0] > 0
            assert messages[0][0] > 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                rows(url, "TRUNCATE journal")
    finally:
        tcp_server.execute(f"DROP ROLE {role}")


def test_a_key_is_never_given_twice(postgres_url: str) -> None:
    keys = [rows(postgres_url, NEW_RUN, "DELETE FROM runs")[0][0][0] for _ in range(3)]
    assert keys[0] < keys[1] < keys[2]


async def test_four_upgrades_at_once_all_succeed(empty_url: str) -> None:
    """They are let go only when all four wait for the lock, so they do meet."""
    holder = await asyncpg.connect(empty_url)
    await holder.execute(f"SELECT pg_advisory_lock({migrate.POSTGRES_LOCK})")
    environment = {**os.environ, "DURABLE_FLOW_DATABASE_URL": empty_url, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "durable_flow.cli", "db", "upgrade")
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe) for _ in range(4)
    ]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await holder.fetchval(WAITING_FOR_A_LOCK) < len(processes):
        assert time.monotonic() < deadline, [process.returncode for process in processes]
        await asyncio.sleep(0.02)
    await holder.close()
    errors = [(await process.communicate())[1] for process in processes]
    assert [(process.returncode, error) for process, error in zip(processes, errors, strict=True)] == [(0, b"")] * 4
    version = f"SELECT version_num FROM {migrate.VERSION_TABLE}"
    assert await asyncio.to_thread(rows, empty_url, version) == [[(migrate.HEAD,)]]


def test_an_older_database_is_upgraded(postgres_url: str, tmp_path: Path) -> None:
    with tomorrow(tmp_path):
        migrate.upgrade_url(postgres_url)
    assert migrate.version_at(postgres_url) == TOMORROW
    assert ("runs", "colour") in {row[:2] for row in rows(postgres_url, COLUMNS)[0]}


@pytest.mark.parametrize("version", [None, migrate.HEAD])
def test_a_migration_that_fails_leaves_the_database_as_it_was(
    version: str | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url: str = request.getfixturevalue("empty_url" if version is None else "postgres_url")
    before = rows(url, COLUMNS)
    with tomorrow(tmp_path, then="1 / 0"), pytest.raises(ZeroDivisionError):
        migrate.upgrade_url(url)
    assert migrate.version_at(url) == version
    assert rows(url, COLUMNS) == before


def test_a_database_of_the_first_schema_is_upgraded_with_its_runs(empty_url: str) -> None:
    """Its rows say of what came later that there was nothing of it."""
    config = migrate._config()

    def first(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    migrate.in_postgres(empty_url, first)
    columns = "run_id, uid, workflow, shape, status, epoch, created_at, updated_at"
    rows(empty_url, f"INSERT INTO runs ({columns}) VALUES ('old', 'u', 'Flow', 's', 'completed', 1, 0, 0)")
    migrate.upgrade_url(empty_url)
    kept = rows(empty_url, "SELECT run_id, first_seq, compacted_at, pruned_at, parent_id FROM runs")
    assert kept == [[("old", None, None, None, None)]]


def test_a_database_of_tomorrow_is_refused_by_the_package_of_today(postgres_url: str, tmp_path: Path) -> None:
    with tomorrow(tmp_path):
        migrate.upgrade_url(postgres_url)
    with pytest.raises(SchemaVersionError, match=rf"{TOMORROW}.*pip install --upgrade durable-flow"):
        migrate.upgrade_url(postgres_url)


def test_tables_that_are_somebody_elses_are_left_alone(empty_url: str) -> None:
    """Also those of another schema, which ours would hide."""
    rows(empty_url, "CREATE TABLE runs (colour text)", "CREATE VIEW waits AS SELECT 1", "CREATE SCHEMA ours")
    for url in (empty_url, f"{empty_url}&search_path=ours,public"):
        with pytest.raises(JournalUnavailableError, match=r"tables named runs, waits that are not durable_flow's"):
            migrate.upgrade_url(url)
        assert migrate.version_at(url) is None


def test_a_journal_may_live_in_a_schema_of_its_own(empty_url: str) -> None:
    rows(empty_url, "CREATE TABLE runs (colour text)", "CREATE SCHEMA ours")
    migrate.upgrade_url(f"{empty_url}&search_path=ours")
    assert migrate.version_at(f"{empty_url}&search_path=ours") == migrate.HEAD
    assert migrate.version_at(empty_url) is None
    assert rows(empty_url, "SELECT schemaname FROM pg_tables WHERE tablename = 'journal'") == [[("ours",)]]


def test_the_printed_sql_makes_the_same_database(empty_url: str, postgres_url: str) -> None:
    async def execute(script: str) -> None:
        connection = await asyncpg.connect(empty_url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    asyncio.run(execute(migrate.sql_of("postgresql://nobody@nowhere.invalid/jobs")))
    parts = (COLUMNS, INDEXES, CONSTRAINTS, OPTIONS, TRIGGERS)
    assert rows(empty_url, *parts) == rows(postgres_url, *parts)
    assert migrate.version_at(empty_url) == migrate.HEAD

    async def opened() -> None:
        async with Journal(empty_url) as journal:
            assert await journal.runs() == []

    asyncio.run(opened())


def test_a_database_is_opened_with_the_schema_of_today_alone(empty_url: str, postgres_url: str, tmp_path: Path) -> None:
    """Postgres is upgraded by its owner, not by whoever opens it first."""

    async def opened(url: str) -> None:
        async with Journal(url):
            pass

    with pytest.raises(SchemaVersionError, match=r"no tables.*durable-flow db upgrade --url"):
        asyncio.run(opened(empty_url))
    assert migrate.version_at(empty_url) is None
    asyncio.run(opened(postgres_url))
    today = migrate.HEAD
    with tomorrow(tmp_path):
        with pytest.raises(SchemaVersionError, match=rf"older schema {today}.*durable-flow db upgrade --url"):
            asyncio.run(opened(postgres_url))
        migrate.upgrade_url(postgres_url)
    with pytest.raises(SchemaVersionError, match=rf"{TOMORROW}.*pip install --upgrade durable-flow"):
        asyncio.run(opened(postgres_url))


def test_what_a_version_means_to_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "postgresql://me:***@host/jobs?a=b&c=d"
    command = f"Run: durable-flow db upgrade --url '{shown}'"
    migrate.check_version(migrate.HEAD, shown)
    for found in ("9999", "somebody's"):
        with pytest.raises(SchemaVersionError, match=r"newer one made it.*pip install --upgrade durable-flow"):
            migrate.check_version(found, shown)
    with pytest.raises(SchemaVersionError) as refused:
        migrate.check_version(None, shown)
    assert str(refused.value) == f"{shown} has no tables of durable_flow yet. {command}"
    monkeypatch.setattr(migrate, "HEAD", "9999")
    with pytest.raises(SchemaVersionError) as refused:
        migrate.check_version("0001", shown)
    assert str(refused.value) == f"{shown} has the older schema 0001, 9999 is needed. {command}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((":PORT/", ":1/"), "nobody listens there. Start the server"),
        (("127.0.0.1", "nowhere.invalid"), "host's name is not known"),
        (("app:", "nobody:"), "does not take this user and password"),
        (("s3cret-", "s3cret+"), "does not take this user and password"),
        (("/DATABASE", "/nowhere"), r"no such database. Create it \(`createdb`\)"),
        (("?", "?sslmode=require&"), r"rejected SSL upgrade"),
        (("?", "?sslmode=verify-full&sslrootcert=/nowhere&"), "a file is missing"),
        (("?", "?colour=blue&"), "does not know a setting that the URL names"),
        (("?", "?search_path=nowhere&"), "no schema to create tables in"),
        (("?", "?default_transaction_read_only=on&"), "takes no writes"),
    ],
)
def test_what_keeps_a_database_from_being_used_is_said_with_the_remedy(
    tcp_server: PostgresServer, change: tuple[str, str], says: str
) -> None:
    user = "app_with_a_secret"
    with new_database(tcp_server) as name:
        tcp_server.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 's3cret-'")
        try:
            good = tcp_server.tcp_url(name, user=user, password="s3cret-") + "?application_name=test"
            old, new = (part.replace("PORT", str(tcp_server.port)).replace("DATABASE", name) for part in change)
            bad = good.replace(old.replace("app:", f"{user}:"), new)
            assert bad != good
            with pytest.raises(JournalUnavailableError, match=says) as refused:
                migrate.upgrade_url(bad)
        finally:
            tcp_server.execute(f"DROP ROLE {user}")
    assert "s3cret" not in str(refused.value)
    assert str(urlsplit(bad).port) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_error_nobody_foresaw_is_told_in_its_own_words() -> None:
    error = unavailable("postgresql://host/jobs", RuntimeError("the moon\nis full"))
    assert str(error) == "postgresql://host/jobs: the database failed (the moon is full)."
    assert isinstance(error.__cause__, RuntimeError)
