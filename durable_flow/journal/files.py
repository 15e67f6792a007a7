"""SQLite files: how one is opened, and what to say when it cannot be."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path
from urllib.parse import quote

from ..errors import JournalUnavailableError

# How far the write-ahead log grows before its content moves to the main file: 1,000 pages of 4 KiB. A log that stays
# this short is written over and over at its full size, which makes each fsync about half as long as in one that grows.
CHECKPOINT_PAGES = 1000
_WAL_BYTES = CHECKPOINT_PAGES * 4096

# Longer than any tick of a clock that stamps files.
_TICK_NANOSECONDS = 1_000_000_000

# RETURNING and upserts with it.
_OLDEST_SQLITE = (3, 35, 0)


def connect(path: Path, *, durability: str = "full", busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open an existing file in autocommit mode, ready to be written. Raises sqlite3.Error.

    It never creates the file: one that has vanished must not be taken for an empty journal.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        if sys.platform == "darwin":
            # There fsync alone leaves the data in the drive's cache.
            connection.execute("PRAGMA fullfsync=ON")
            connection.execute("PRAGMA checkpoint_fullfsync=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def create_file(path: Path) -> None:
    """Make an empty file that only its owner may read, unless it exists. Raises JournalUnavailableError."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise JournalUnavailableError(
            f"{path}: this Python comes with SQLite {sqlite3.sqlite_version}, and durable_flow needs 3.35 or newer. "
            "Use a newer build of Python."
        )
    if path.is_dir():
        raise JournalUnavailableError(f"{path} is a directory, not a database file. Name a file in the journal's URL.")
    if not path.parent.is_dir():
        raise JournalUnavailableError(
            f"{path} cannot be created, because the directory {path.parent} does not exist. Create it, or name "
            "another file in the journal's URL."
        )
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise JournalUnavailableError(
            f"{path} cannot be opened for writing ({exc.strerror}). A journal must be writable, also to be read: give "
            "this user the right to write the file and its directory, or name another file."
        ) from exc


class OpenedFile:
    """Tells the file that was opened, and its write-ahead log, from what lies at their paths later.

    SQLite goes on writing to a file that was deleted or replaced, and all of that is gone when the process ends.
    """

    def __init__(self, path: Path):
        self._path = str(path)
        # Beside the file itself, if the path is a link.
        self._file_name = os.path.realpath(path)
        self._log_name = f"{self._file_name}-wal"
        self._folder = os.path.dirname(self._file_name)
        self._file = _inode(self._path)
        # The log that was found last, and the modification time of the folder since when no other can have come.
        self._log: tuple[int, int] | None = None
        self._folder_settled: int | None = None

    def check(self) -> None:
        """Raise JournalUnavailableError unless the file is still at its path. Takes 2 us."""
        found = _inode(self._path)
        if found is not None and found == self._file:
            return
        raise JournalUnavailableError(
            f"{self._path} was {'moved, deleted or emptied' if found is None else 'replaced by another file'} while it "
            "was open. Nothing is written any more. Put the file back to go on. To use another one there, end every "
            f"process that had this one open and delete {self._log_name} and {self._file_name}-shm first: they belong "
            "to the file that was opened, and would damage the other one."
        )

    def log(self) -> tuple[int, int] | None:
        """Return what tells the write-ahead log from another one, None if there is none. Takes 2 us.

        It looks at the folder, and at the log itself only if something in the folder came or went. Asking for the times
        of a file (Linux's multigrain timestamps, since 6.13) makes the next write to it change them, and each fsync of
        the log would then write its inode as well: a sixth of a durable step.
        """
        folder = _status(self._folder)
        changed = folder.st_mtime_ns if folder is not None else None
        if changed is None or changed != self._folder_settled:
            log = _status(self._log_name)
            # Empty it may be: whoever has the database open may shorten it, once all of it is in the main file.
            self._log = (log.st_dev, log.st_ino) if log is not None else None
            # Two changes within one tick of the clock leave the same time.
            settled = changed is not None and time.time_ns() - changed > _TICK_NANOSECONDS
            self._folder_settled = changed if settled else None
        return self._log

    def log_is_gone(self) -> JournalUnavailableError:
        """Return the error for a write-ahead log that is not at its place any more."""
        return JournalUnavailableError(
            f"{self._log_name} was deleted or replaced while the database was open. Nothing is written any more. End "
            "every process that has the database open, then start them again. Never delete this file: it holds what "
            "was committed last."
        )


def _inode(path: str) -> tuple[int, int] | None:
    found = _status(path)
    return (found.st_dev, found.st_ino) if found is not None and found.st_size else None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise JournalUnavailableError(
            f"{path} cannot be looked at any more ({exc.strerror}). Give this user the right to read its directory."
        ) from exc


def use_write_ahead_log(connection: sqlite3.Connection, *, wait_seconds: float = 5.0) -> None:
    """Put a database into WAL mode. Raises sqlite3.OperationalError if others keep it locked."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            # SQLite does not wait here by itself, because two that wait for each other would never end.
            if primary_code(exc) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def grow_write_ahead_log(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the log to the size at which it stays, so that no commit has to make the file longer, if there is room."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size >= _WAL_BYTES:
        return
    (pages,) = connection.execute("PRAGMA cache_size").fetchone()
    # With a cache this small the transaction spills into the log, and its rollback leaves the file as long as it is.
    connection.execute("PRAGMA cache_size=16")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE durable_flow_padding (filler)")
        connection.execute("INSERT INTO durable_flow_padding VALUES (zeroblob(?))", (_WAL_BYTES,))
    except sqlite3.OperationalError as exc:
        if not is_unwritten(exc):
            raise
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute(f"PRAGMA cache_size={pages}")


def primary_code(exc: sqlite3.Error) -> int:
    """Return SQLite's primary result code of an error, 0 if it has none."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def is_unwritten(exc: BaseException) -> bool:
    """Tell whether an error means that something could not be written: a commit that fails so was not made."""
    code = getattr(exc, "sqlite_errorcode", 0)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process keeps the database locked. Find it (`fuser` names it) or wait for it",
    sqlite3.SQLITE_LOCKED: "another connection keeps the database locked. Wait until it is done",
    sqlite3.SQLITE_FULL: "the disk is full. Make room, then resume the runs",
    sqlite3.SQLITE_READONLY: "it may not be written. Give this user the right to write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Look whether file and directory are there, and whether this user "
    "may read and write them",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database. Name another file in the journal's URL",
    sqlite3.SQLITE_CORRUPT: "the file is damaged. Restore it from a backup; `sqlite3 FILE .recover` saves what can be "
    "read",
    sqlite3.SQLITE_IOERR: "the disk reports an error. Look into the system's log",
}
# These may pass by themselves; every other one needs a person.
PASSING = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL, 0,
}  # fmt: skip


def unavailable(path: Path | str, exc: BaseException) -> JournalUnavailableError:
    """Return the error that says what is wrong with a file and what to do."""
    remedy = _REMEDIES.get(primary_code(exc)) if isinstance(exc, sqlite3.Error) else None
    error = JournalUnavailableError(f"{path}: {remedy or 'the database failed'} ({exc}).")
    error.__cause__ = exc
    return error
