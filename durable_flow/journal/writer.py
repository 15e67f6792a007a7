"""The writer: one thread that commits whatever waits, together, and wakes all who wait by one callback."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import JournalError, JournalUnavailableError
from .batch import Batch, is_trouble
from .files import PASSING, OpenedFile, grow_write_ahead_log, is_unwritten, primary_code, unavailable
from .seals import Seals
from .units import AppendUnit, Unit, unknown

# Above this many units in the queue, callers that can wait do so.
MAX_QUEUED = 1024
# How long to wait before trying again what failed by trouble that may pass.
_PAUSE_SECONDS = 0.05
# After so many commits of a single quick append each, the next one is made on the event loop itself: waking the thread
# and being woken by it costs as much as the commit. A slow commit, or two appends at once: the thread has it again.
_ALONE = 16
_QUICK_SECONDS = 0.001


class _Job:
    """A unit in the queue: who waits for it, and until when. `in_doubt`: nobody knows whether it was committed."""

    __slots__ = ("deadline", "future", "in_doubt", "unit")

    def __init__(self, unit: Unit, future: asyncio.Future[Any] | concurrent.futures.Future[Any], deadline: float):
        self.unit, self.future, self.deadline, self.in_doubt = unit, future, deadline, False


class Writer:
    """Group commit: takes all units that wait while a commit is under way and commits them together.

    A unit's future gives its result; RunFenced, or another error of its own; JournalUnavailableError if it could not be
    written within `deadline_seconds`; or WriteOutcomeUnknown if it may have been. Cancelling a future stops nothing.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        file: OpenedFile,
        *,
        seals: Seals,
        deadline_seconds: float = 30.0,
    ):
        self._path = path
        self._connect = connect
        self._file = file
        self._seals = seals
        self._deadline_seconds = deadline_seconds
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False
        self._queued = 0
        self._room: list[asyncio.Future[None]] = []
        self._heads: dict[int, tuple[int, int]] = {}
        self._connection: sqlite3.Connection | None = None
        self._working = threading.Lock()
        self._alone = 0
        self._patient = True
        self._grown = False
        self._log: tuple[int, int] | None = None
        self._data_version: int | None = None
        self._busy_milliseconds = 0
        self._here: list[_Job] = []
        self.commits = self.rows = 0
        # Why the last commit failed; None: it did not.
        self.trouble: Exception | None = None

    # On the event loop.

    def put(self, unit: Unit) -> asyncio.Future[Any]:
        """Queue a unit and return the future of its result."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._check()
        self._queued += 1
        job = _Job(unit, future, time.monotonic() + self._deadline_seconds)
        self._here.append(job)
        if len(self._here) == 1:
            # All that this turn of the loop brings is handed over at once: from the first unit on the thread would
            # commit whatever is there, and runs that have come apart stay apart, each part with commits of its own.
            alone = self._alone >= _ALONE and isinstance(unit, AppendUnit)
            future.get_loop().call_soon(self._commit_here if alone else self._hand_over)
        return future

    def _hand_over(self) -> None:
        """Leave what has come on the loop to the thread, before anything that comes later."""
        jobs, self._here = self._here, []
        for job in jobs:
            self._queue.put(job)

    def _commit_here(self) -> None:
        """Commit on the event loop, unless somebody else has work or the file is locked: then the thread does."""
        if len(self._here) != 1 or not self._queue.empty() or not self._working.acquire(blocking=False):
            self._alone = 0
            self._hand_over()
            return
        jobs, self._here = self._here, []
        try:
            left = self._work(jobs, patient=False)
        finally:
            self._working.release()
        for job in left:
            self._alone = 0
            self._queue.put(job)

    def put_from_thread(self, unit: Unit) -> concurrent.futures.Future[Any]:
        """Queue a unit from any thread; the future is for threads, too."""
        self._check()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._queue.put(_Job(unit, future, time.monotonic() + self._deadline_seconds))
        return future

    async def room(self) -> None:
        """Wait until the queue is short enough: the back-pressure on callers that bring new work."""
        while self._queued >= MAX_QUEUED:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            await waiter

    async def close(self) -> None:
        """Write what is queued, then end the thread."""
        self.stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def stop(self) -> None:
        """Let the thread end after what is queued. For any thread, also at the interpreter's exit."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put(None)
            if self._thread is None:
                self._drop()  # nothing was written; it may have been listened to

    def others_wrote(self) -> bool:
        """Tell whether other connections may have committed since this was last asked.

        It never waits: while the writer is at work or the file is locked, it is left for the next time.
        """
        if self._closed or not self._working.acquire(blocking=False):
            return False
        try:
            connection = self._connected()
            self._be(connection, patient=False)
            # On the writer's own connection: this number does not count its own commits.
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        except (sqlite3.Error, JournalError):
            return False
        finally:
            self._working.release()
        before, self._data_version = self._data_version, int(version)
        return before != self._data_version

    def _check(self) -> None:
        if self._closed:
            raise JournalUnavailableError(f"{self._path} was closed. Open it before it is used.")
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="durable-flow-writer", daemon=True)
                    self._thread.start()

    def _wake(self, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
        self._queued -= len(results)
        for future, result in results:
            if future.done():  # its caller was cancelled
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        # All of them, in order: each looks again, and a cancelled one keeps nobody waiting.
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
        self._room.clear()

    # On the thread.

    def _run(self) -> None:
        jobs: list[_Job] = []
        ending = False
        try:
            while jobs or not ending:
                if not jobs:
                    job = self._queue.get()
                    if job is None:
                        ending = True
                        continue
                    jobs.append(job)
                try:
                    while True:
                        job = self._queue.get_nowait()
                        if job is None:
                            ending = True
                        else:
                            jobs.append(job)
                except Empty:
                    pass
                with self._working:
                    jobs = self._work(jobs, patient=True)
                if jobs:
                    time.sleep(_PAUSE_SECONDS)
        finally:
            with self._working:
                self._drop()

    def _work(self, jobs: list[_Job], *, patient: bool) -> list[_Job]:
        """Commit the jobs in one transaction. Returns those to be tried again.

        Patient: wait a while for a file that others keep locked, which an event loop must not do.
        """
        units = [job.unit for job in jobs]
        committing = False
        began = time.perf_counter()
        try:
            connection = self._ready()
            self._be(connection, patient=patient)
            self._check_files(connection)
            batch = Batch(connection, self._seals, self._heads)
            connection.execute("BEGIN IMMEDIATE")
            try:
                batch.apply(units)
            except Exception as exc:
                if is_trouble(exc):
                    raise
                # One of the units was refused: only that one may fail.
                connection.execute("ROLLBACK")
                batch = Batch(connection, self._seals, self._heads)
                connection.execute("BEGIN IMMEDIATE")
                batch.apply_one_by_one(units)
            committing = True
            connection.execute("COMMIT")
        except Exception as exc:
            return self._failed(jobs, exc, committing=committing)
        self.trouble = None
        self.commits += 1
        self.rows += batch.rows
        self._heads.update(batch.new_heads)
        for unit in units:
            if isinstance(unit, AppendUnit) and (unit.last or batch.outcomes[unit] is not None):
                self._heads.pop(unit.run, None)
        if len(jobs) > 1 or time.perf_counter() - began > _QUICK_SECONDS:
            self._alone = 0
        elif isinstance(units[0], AppendUnit):
            self._alone += 1
        self._tell([(job, batch.outcomes[job.unit]) for job in jobs])
        return []

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._file.check()
            self._connection = self._connect()
            self._patient = True
            self._grown = False
            self._data_version = None
        return self._connection

    def _ready(self) -> sqlite3.Connection:
        connection = self._connected()
        if not self._grown:
            grow_write_ahead_log(connection, self._path)
            self._grown = True
            self._log = self._file.log()
        return connection

    def _check_files(self, connection: sqlite3.Connection) -> None:
        """Raise JournalUnavailableError if what is written now would go to a file that has lost its name."""
        self._file.check()
        if self._file.log() != self._log:
            # What it holds was acknowledged, and nobody else can read it any more.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(FULL)")
            raise self._file.log_is_gone()

    def _be(self, connection: sqlite3.Connection, *, patient: bool) -> None:
        if patient != self._patient:
            if self._patient:
                (self._busy_milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
            connection.execute(f"PRAGMA busy_timeout={self._busy_milliseconds if patient else 0}")
            self._patient = patient

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # nothing of it is used any more
                connection.close()

    def _failed(self, jobs: list[_Job], exc: Exception, *, committing: bool) -> list[_Job]:
        """Undo a transaction that failed; tell those whose time is over and return the others, to be tried again."""
        self.trouble = exc
        if isinstance(exc, JournalError):
            # The files are not what they were. The connection stays: a new one would be to others.
            self._tell([(job, JournalUnavailableError(str(exc))) for job in jobs])
            return []
        busy = isinstance(exc, sqlite3.Error) and primary_code(exc) == sqlite3.SQLITE_BUSY
        connection = self._connection
        if connection is not None and connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()
        elif committing or not busy:
            # SQLite has rolled back by itself, and a statement on this connection would now commit alone.
            self._drop()
        # What was remembered of these runs may be wrong now; the journal tells.
        self._heads.clear()
        passing = isinstance(exc, sqlite3.Error) and primary_code(exc) in PASSING
        now = time.monotonic()
        over: list[tuple[_Job, Any]] = []
        left = []
        for job in jobs:
            if committing:
                # If it was in doubt before, it was looked for in this transaction, and not found.
                job.in_doubt = not is_unwritten(exc)
                job.unit.again = True
            if (passing or job.in_doubt) and now < job.deadline:
                left.append(job)
            else:
                over.append((job, self._lost(job, exc)))
        self._tell(over)
        return left

    def _lost(self, job: _Job, exc: Exception) -> JournalError:
        if not job.in_doubt:
            return unavailable(self._path, exc)
        return unknown(str(self._path), exc, self._deadline_seconds, exc)

    def _tell(self, outcomes: list[tuple[_Job, Any]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for job, result in outcomes:
            if isinstance(job.future, asyncio.Future):
                by_loop.setdefault(job.future.get_loop(), []).append((job.future, result))
            elif isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
        here = asyncio._get_running_loop()  # None on the thread
        for loop, results in by_loop.items():
            if loop is here:
                self._wake(results)
                continue
            with contextlib.suppress(RuntimeError):  # a loop that has ended, and with it everybody who waited
                loop.call_soon_threadsafe(self._wake, results)
