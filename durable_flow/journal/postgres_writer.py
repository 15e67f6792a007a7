"""The writer for Postgres: one task that commits whatever waits by one statement, in one round trip."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import asyncpg

from ..errors import DurableFlowError, JournalError, JournalUnavailableError
from . import shielded
from .postgres_connections import Connect, Line
from .postgres_errors import unavailable
from .postgres_rows import rows_of
from .postgres_sql import batch_statement
from .postgres_trouble import Trouble, hide_values, may_be_of_one, said, trouble
from .protocol import Claim
from .seals import Seals
from .units import AppendUnit, CreateUnit, fenced, refused, unknown

# Above this many units in the queue, callers that can wait do so.
MAX_QUEUED = 1024
# In one statement. A created run's rows are found by comparing its id with every other new one's.
_MAX_APPENDS, _MAX_CREATES = 256, 128
# How long to wait before trying again what failed by trouble that may pass.
_PAUSE_SECONDS = 0.05
# How long a statement may take before its connection is given up; a batch takes milliseconds.
STATEMENT_SECONDS = 10.0

# The epoch of the record that is where an append wanted to write, or of the one into which that was compacted since.
_EPOCH_FROM = "(SELECT j.epoch FROM journal j WHERE j.run = x.run AND j.seq >= x.seq ORDER BY j.seq LIMIT 1)"
_WRITTEN_BEFORE = f"SELECT x.run, x.seq, {_EPOCH_FROM} FROM unnest($1::bigint[], $2::bigint[]) AS x(run, seq)"
_HEADS = (
    "SELECT r.run, r.epoch, coalesce((SELECT max(j.seq) FROM journal j WHERE j.run = r.run), 0), "
    f"{_EPOCH_FROM} FROM unnest($1::bigint[], $2::bigint[]) AS x(run, seq) JOIN runs r ON r.run = x.run"
)
_CREATED_BEFORE = "SELECT run_id, uid, run FROM runs WHERE run_id = ANY($1::text[])"
_UIDS = "SELECT run, uid FROM runs WHERE run = ANY($1::bigint[])"

Unit = AppendUnit | CreateUnit


class _Job:
    """A unit in the queue: who waits for it, until when it is tried, and not before when."""

    __slots__ = ("deadline", "future", "not_before", "unit")

    def __init__(self, unit: Unit, future: asyncio.Future[Any], deadline: float):
        self.unit, self.future, self.deadline, self.not_before = unit, future, deadline, 0.0


class PostgresWriter:
    """Group commit: takes all units that wait while a commit is under way and commits them together.

    A unit's future gives its result; RunFenced, or another error of its own; JournalUnavailableError if it could not be
    written within `deadline_seconds`; or WriteOutcomeUnknown if it may have been. Cancelling a future stops nothing.
    `tell` is called with the runs of each batch that have changed something for others to see.
    """

    def __init__(
        self,
        url: str,
        connect: Connect,
        *,
        tell: Callable[[Iterable[int]], None],
        seals: Seals,
        deadline_seconds: float = 30.0,
    ):
        self._url = url
        self._line = Line(connect)
        self._tell_others = tell
        self._seals = seals
        self._deadline_seconds = deadline_seconds
        self._jobs: list[_Job] = []
        # Those of a batch that failed, where it may have been due to one of them.
        self._alone: list[_Job] = []
        self._brought = asyncio.Event()
        self._draining: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self._uids: dict[int, str] = {}
        self._closed = False
        self.commits = self.rows = self.round_trips = 0

    def put(self, unit: Unit) -> asyncio.Future[Any]:
        """Queue a unit and return the future of its result."""
        if self._closed:
            raise JournalUnavailableError(f"{self._url} was closed. Open it before it is used.")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(unit, future, time.monotonic() + self._deadline_seconds))
        self._brought.set()
        if self._draining is None:
            # Begins in the loop's next turn: with everything that this one still brings.
            self._draining = shielded.begin(self._drain())
        return future

    async def room(self) -> None:
        """Wait until the queue is short enough: the back-pressure on callers that bring new work."""
        while len(self._jobs) >= MAX_QUEUED:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            await waiter

    async def close(self) -> None:
        """Write what is queued."""
        self._closed = True
        if self._draining is not None:
            await asyncio.wait({self._draining})
        self._line.drop()

    async def _drain(self) -> None:
        try:
            while self._jobs or self._alone:
                try:
                    connection = await self._line.ready()
                except Exception as exc:
                    self._not_connected(exc)
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                jobs = self._next()
                if jobs:
                    await self._work(connection, jobs)
                else:
                    await self._pause()
        finally:
            self._draining = None

    async def _pause(self) -> None:
        """Wait until something is brought, or it is time to try again."""
        self._brought.clear()
        timer = asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._brought.set)
        await self._brought.wait()
        timer.cancel()

    def _next(self) -> list[_Job]:
        """Take the jobs of one statement, in order; of two appends to one run, by different claims, only the first."""
        now = time.monotonic()
        if self._alone and self._alone[0].not_before <= now:
            return [self._alone.pop(0)]
        jobs: list[_Job] = []
        others: list[_Job] = []
        runs: set[int] = set()
        creates = 0
        for job in self._jobs:
            unit = job.unit
            fits = job.not_before <= now
            if isinstance(unit, CreateUnit):
                fits = fits and creates < _MAX_CREATES
                creates += fits
            else:
                fits = fits and len(runs) < _MAX_APPENDS and unit.run not in runs
                runs.add(unit.run)
            (jobs if fits else others).append(job)
        self._jobs = others
        return jobs

    # -- One batch -----------------------------------------------------------------------------------------------------

    async def _work(self, connection: asyncpg.Connection, jobs: list[_Job]) -> None:
        """Commit the jobs by one statement. What is to be tried again goes back into the queue."""
        try:
            if any(job.unit.again for job in jobs):
                jobs = await self._settle_doubts(connection, jobs)
            if jobs:
                jobs = await self._write(connection, jobs)
            if jobs:
                await self._look_why(connection, jobs)
        except Exception as exc:
            self._in_trouble(jobs, exc)

    async def _write(self, connection: asyncpg.Connection, jobs: list[_Job]) -> list[_Job]:
        """Write what is taken, and tell so; return the other jobs."""
        if self._seals.always:
            await self._learn_uids(connection, [job.unit.run for job in jobs if isinstance(job.unit, AppendUnit)])
        text, arrays = batch_statement(rows_of([job.unit for job in jobs], self._seals, self._uids))
        written: set[int] = set()
        created: dict[str, int] = {}
        for run, run_id in await self._fetch(connection, text, *arrays):
            if run_id is None:
                written.add(run)
            else:
                created[run_id] = run
        outcomes: list[tuple[_Job, Any]] = []
        others: list[_Job] = []
        seen: set[int] = set()
        self.commits += 1
        for job in jobs:
            unit = job.unit
            if isinstance(unit, CreateUnit):
                run_id, uid = unit.values[:2]
                # The first unit of this run id made the run; for a second one in the same batch the id exists.
                key = created.pop(run_id, None)
                if key is None:
                    others.append(job)
                    continue
                outcomes.append((job, Claim(key, run_id, uid, 1, len(unit.encoded.rows))))
                if self._seals.always:
                    self._uids[key] = uid
            elif unit.run in written:
                key = unit.run
                outcomes.append((job, None))
                if unit.last:
                    self._uids.pop(key, None)
            else:
                others.append(job)
                continue
            self.rows += len(unit.encoded.rows)
            if unit.encoded.stream or (isinstance(unit, AppendUnit) and unit.update is not None):
                seen.add(key)
        self._tell(outcomes)
        if seen:
            self._tell_others(seen)
        return others

    async def _learn_uids(self, connection: asyncpg.Connection, runs: list[int]) -> None:
        unknown = [run for run in runs if run not in self._uids]
        if unknown:
            self._uids.update(await self._fetch(connection, _UIDS, unknown))

    async def _settle_doubts(self, connection: asyncpg.Connection, jobs: list[_Job]) -> list[_Job]:
        """Look which of the units that may have been committed were; return the jobs that are left."""
        doubtful = [job.unit for job in jobs if job.unit.again]
        appends = [unit for unit in doubtful if isinstance(unit, AppendUnit)]
        creates = [unit for unit in doubtful if isinstance(unit, CreateUnit)]
        epochs: dict[tuple[int, int], int] = {}
        made: dict[str, tuple[str, int]] = {}
        if appends:
            places = [unit.run for unit in appends], [unit.after + 1 for unit in appends]
            epochs = {(run, seq): epoch for run, seq, epoch in await self._fetch(connection, _WRITTEN_BEFORE, *places)}
        if creates:
            rows = await self._fetch(connection, _CREATED_BEFORE, [unit.values[0] for unit in creates])
            made = {run_id: (uid, run) for run_id, uid, run in rows}
        outcomes: list[tuple[_Job, Any]] = []
        left = []
        for job in jobs:
            unit = job.unit
            if not unit.again:
                left.append(job)
            elif isinstance(unit, AppendUnit):
                # One epoch has one writer, so a row of this epoch at this seq is the one that this unit wrote.
                epoch = epochs.get((unit.run, unit.after + 1))
                if epoch is None:
                    left.append(job)
                else:
                    here = None if epoch == unit.epoch else fenced(unit, "other records are at that place")
                    outcomes.append((job, here))
            else:
                run_id, uid = unit.values[:2]
                # The uid is random: a run that has it is the one that this unit made.
                found = made.get(run_id)
                if found is None:
                    left.append(job)
                else:
                    mine = found[0] == uid
                    outcomes.append((job, Claim(found[1], run_id, uid, 1, len(unit.encoded.rows)) if mine else None))
        self._tell(outcomes)
        return left

    async def _look_why(self, connection: asyncpg.Connection, jobs: list[_Job]) -> None:
        """Tell the jobs that a commit has left out why. Those that only had to wait go back into the queue."""
        outcomes: list[tuple[_Job, Any]] = []
        appends: list[tuple[_Job, AppendUnit]] = []
        for job in jobs:
            unit = job.unit
            if isinstance(unit, AppendUnit):
                appends.append((job, unit))
            elif unit.again:
                # What was sent before may have made the run only now.
                self._jobs.insert(0, job)
            else:
                outcomes.append((job, None))
        self._tell(outcomes)
        places = [unit.run for _, unit in appends], [unit.after + 1 for _, unit in appends]
        heads = {run: head for run, *head in await self._fetch(connection, _HEADS, *places)} if appends else {}
        outcomes = []
        locked: list[_Job] = []
        for job, unit in appends:
            epoch, seq, here = heads.get(unit.run, (None, None, None))
            if epoch is None:
                outcomes.append((job, fenced(unit, "there is no such run")))
            elif unit.again and here == unit.epoch:
                # What was sent before has arrived since it was looked for.
                outcomes.append((job, None))
            elif epoch != unit.epoch:
                outcomes.append((job, fenced(unit, f"its epoch is {epoch} now")))
            elif seq != unit.after:
                outcomes.append((job, fenced(unit, f"its last record is {seq}")))
            else:
                locked.append(job)
                continue
            self._uids.pop(unit.run, None)
        self._tell(outcomes)
        exc = asyncpg.LockNotAvailableError("the run is locked")
        self._jobs[:0] = self._later(self._failed(locked, exc, Trouble.REFUSED))

    async def _fetch(self, connection: asyncpg.Connection, text: str, *arguments: Any) -> list[Any]:
        self.round_trips += 1
        seconds = min(STATEMENT_SECONDS, self._deadline_seconds)
        rows: list[Any] = await connection.fetch(text, *arguments, timeout=seconds)
        return rows

    # -- Outcomes ------------------------------------------------------------------------------------------------------

    def _not_connected(self, exc: Exception) -> None:
        """Nothing was sent, nor will be for now."""
        found = Trouble.LASTING if trouble(exc) in (Trouble.LASTING, Trouble.DATA) else Trouble.REFUSED
        self._jobs = self._failed(self._jobs, exc, found)
        self._alone = self._failed(self._alone, exc, found)

    def _in_trouble(self, jobs: list[_Job], exc: Exception) -> None:
        """Tell, or try again, the jobs of a statement that failed; if it may be because of one of them, each alone."""
        hide_values(exc)
        found = trouble(exc)
        if found in (Trouble.DOUBT, Trouble.RECONNECT):
            self._line.drop()
        one = may_be_of_one(exc)
        if one and len(jobs) > 1 and found in (Trouble.DATA, Trouble.LASTING):
            self._alone += jobs
            return
        left = self._later(self._failed(jobs, exc, found))
        if found is not Trouble.DATA:
            # Those that wait have a deadline as well.
            self._jobs = self._failed(self._jobs, exc, Trouble.REFUSED)
            self._alone = self._failed(self._alone, exc, Trouble.REFUSED)
        if one:
            self._alone += left
        else:
            self._jobs[:0] = left

    def _failed(self, jobs: list[_Job], exc: Exception, found: Trouble) -> list[_Job]:
        """Tell those that can have no other outcome; return the others, to be tried again."""
        now = time.monotonic()
        over: list[tuple[_Job, Any]] = []
        left = []
        for job in jobs:
            unit = job.unit
            # What was absent when it was looked for may have arrived since.
            arrived = unit.again and isinstance(exc, asyncpg.UniqueViolationError)
            if found is Trouble.DATA and not arrived:
                over.append((job, self._refusal(unit, exc)))
                continue
            # Once in doubt, a unit stays it until it was looked for.
            unit.again = unit.again or found is Trouble.DOUBT
            if found is not Trouble.LASTING and now < job.deadline and not shielded.is_last_try():
                left.append(job)
            else:
                over.append((job, self._lost(unit, exc)))
        self._tell(over)
        return left

    def _later(self, jobs: list[_Job]) -> list[_Job]:
        for job in jobs:
            job.not_before = time.monotonic() + _PAUSE_SECONDS
        return jobs

    def _refusal(self, unit: Unit, exc: Exception) -> DurableFlowError:
        if isinstance(unit, AppendUnit) and getattr(exc, "constraint_name", None) == "uq_journal_run_seq":
            return fenced(unit, "other records are at that place")
        return refused(unit, exc)

    def _lost(self, unit: Unit, exc: Exception) -> JournalError:
        if not unit.again:
            return unavailable(self._url, exc)
        return unknown(self._url, said(exc), self._deadline_seconds, exc)

    def _tell(self, outcomes: Iterable[tuple[_Job, Any]]) -> None:
        for job, result in outcomes:
            if job.future.done():  # its caller was cancelled
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
        # All of them, in order: each looks again, and a cancelled one keeps nobody waiting.
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
        self._room.clear()
