"""SQLite files and the URLs that name them: what is created, what is refused, and in which words."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from durable_flow.errors import JournalUnavailableError, SchemaVersionError
from durable_flow.journal import files, migrate
from durable_flow.journal.sqlite import SqliteStore
from durable_flow.journal.url import open_store

from .samples import create, owned, wrote


@contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, as other programs see and change it."""
    with closing(sqlite3.connect(path)) as file, file:
        yield file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def log_size(folder: Path) -> int:
    return (folder / "jobs.db-wal").stat().st_size


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(f"sqlite:///{path}")
    await store.open()
    return store


async def test_a_new_file_may_be_read_by_its_owner_only(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        store = await opened(tmp_path / "jobs.db")
        await create(store)
    finally:
        os.umask(mask)
    assert {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in names(tmp_path)} == {
        "jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600,
    }  # fmt: skip
    await store.close()
    assert names(tmp_path) == ["jobs.db"]


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
def test_durability_is_sqlites_own(tmp_path: Path, durability: str, synchronous: int) -> None:
    path = tmp_path / "jobs.db"
    migrate.prepare(path)
    connection = files.connect(path, durability=durability)
    assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_durability_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'full' or 'normal'"):
        SqliteStore("sqlite:///jobs.db", durability="none")


async def test_the_log_has_its_size_before_the_first_commit_and_keeps_it(tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs.db")
    run = await owned(store)
    size = log_size(tmp_path)
    assert size >= 4_000_000
    for _ in range(20):
        await run.append(wrote(data=b"x" * 400_000))  # twice the log
    assert log_size(tmp_path) < 1.3 * size
    # Growing it has left nothing behind.
    with edited(store.path) as file:
        names = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
    assert "durable_flow_padding" not in names
    await store.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailableError, match=r"nowhere/jobs\.db .*nowhere does not exist. Create it"):
        await opened(tmp_path / "nowhere" / "jobs.db")


async def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailableError, match="is a directory"):
        await opened(tmp_path)


async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, and they are no database. " * 100)
    content = path.read_bytes()
    with pytest.raises(JournalUnavailableError, match=r"notes\.txt: it is not an SQLite database. Name another"):
        await opened(path)
    assert path.read_bytes() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
async def test_a_read_only_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs.db")
    await store.close()
    (tmp_path / "jobs.db").chmod(0o400)
    with pytest.raises(JournalUnavailableError, match=r"jobs\.db cannot be opened for writing .* right to write"):
        await store.open()


async def test_a_file_that_became_read_only_is_told_at_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, **options: object) -> sqlite3.Connection:
        connection = files.connect(path)
        files.grow_write_ahead_log(connection, path)
        connection.execute("PRAGMA query_only=ON")
        return connection

    monkeypatch.setattr("durable_flow.journal.sqlite.connect", read_only)
    store = await opened(tmp_path / "jobs.db")
    with pytest.raises(JournalUnavailableError, match=r"jobs\.db: it may not be written. Give this user"):
        await create(store)
    await store.close()


async def test_a_file_that_others_keep_locked_is_told(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    files.create_file(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = SqliteStore(f"sqlite:///{path}", deadline_seconds=0.2)
    with pytest.raises(JournalUnavailableError, match=r"jobs\.db: another process keeps the database locked"):
        await store.open()
    other.execute("ROLLBACK")
    other.close()
    await store.open()
    await create(store)
    await store.close()


async def test_a_file_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = SqliteStore(f"sqlite:///{path}", deadline_seconds=0.2)
    await store.open()
    path.unlink()
    with pytest.raises(JournalUnavailableError, match=r"jobs\.db was moved, deleted or emptied"):
        await create(store)
    with pytest.raises(JournalUnavailableError, match=r"jobs\.db was moved, deleted or emptied"):
        await store.find("run-1")
    assert not path.exists()
    await store.close()


async def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs.db")
    await create(store)
    await store.close()
    with edited(store.path) as file:
        file.execute("UPDATE durable_flow_version SET version_num = '9999'")
    content = store.path.read_bytes()
    with pytest.raises(SchemaVersionError, match=r"jobs\.db has schema version 9999.*Upgrade the package"):
        await store.open()
    assert store.path.read_bytes() == content
    assert names(tmp_path) == ["jobs.db"]


async def test_tables_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with edited(path) as file:
        file.execute("CREATE TABLE messages (mine)")
    with pytest.raises(JournalUnavailableError, match=r"app\.db has tables named messages .*another file"):
        await opened(path)
    with edited(path) as file:
        assert [name for (name,) in file.execute("SELECT name FROM sqlite_master")] == ["messages"]


async def test_a_journal_lives_beside_other_tables(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with edited(path) as file:
        file.execute("CREATE TABLE orders (mine)")
    store = await opened(path)
    await create(store)
    await store.close()


def test_of_many_that_open_a_new_file_at_once_one_creates_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with ThreadPoolExecutor(8) as threads:
        for outcome in [threads.submit(migrate.prepare, path) for _ in range(8)]:
            outcome.result()
    connection = files.connect(path)
    assert connection.execute(f"SELECT version_num FROM {migrate.VERSION_TABLE}").fetchall() == [(migrate.HEAD,)]
    connection.close()
    assert names(tmp_path) == ["jobs.db"]


@pytest.mark.parametrize("name", ["with space.db", "50%.db", "a#b.db", "größe.db", "100%41.db"])
async def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = await opened(tmp_path / name)
    await create(store)
    assert await store.find("run-1") is not None
    await store.close()
    assert names(tmp_path) == [name]


async def test_a_relative_path_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///jobs.db")
    monkeypatch.chdir("/")
    await store.open()
    await store.close()
    assert (tmp_path / "jobs.db").exists()
    assert store.url == f"sqlite:///{tmp_path}/jobs.db"


def test_opening_a_database_of_today_imports_no_alembic(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    migrate.prepare(path)
    program = (
        "import sys, asyncio; from durable_flow.journal.url import open_store\n"
        f"async def main():\n    store = open_store('sqlite:///{path}'); await store.open(); await store.close()\n"
        "asyncio.run(main()); print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def test_runs_keep_their_keys_for_good(tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs.db")
    first = await create(store, "run-1")
    with edited(store.path) as file:
        file.execute("DELETE FROM runs")
    second = await create(store, "run-2")
    assert second.run > first.run
    await store.close()
