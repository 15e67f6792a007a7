"""The memory store: a journal for tests and throw-away runs, with the semantics of a database store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from typing import Any
from uuid import uuid4

from ..errors import JournalUnavailableError, RunFenced
from ..records import (
    ErrorInfo,
    JournalCompacted,
    Record,
    RunCancelled,
    RunClaimed,
    RunParked,
    RunTimedOut,
    StateImported,
)
from ..snapshot import decode_state, open_waits
from .delivery import no_such_run, require_unfinished, same_run
from .memory_run import MemoryRun
from .protocol import (
    FINAL_STATUSES,
    Append,
    Claim,
    EarlierMessage,
    EarlierWait,
    Heard,
    ImportedMessage,
    ImportedPage,
    ImportedRun,
    MessageRow,
    NewMessage,
    NewRun,
    RunRow,
    RunUpdate,
    SnapshotRow,
    StreamRow,
    WaitRow,
    WorkerId,
    is_at_rest,
)
from .text import is_fit, line, unfit

# What went wrong must be told, whatever characters are in it: a database store escapes these.
_ANY_TEXT = (ErrorInfo, RunParked, RunCancelled, RunTimedOut)


def host_microseconds() -> int:
    """Return the host's time in microseconds since 1970."""
    return time.time_ns() // 1000


class MemoryStore:
    """A JournalStore that keeps everything in this object, for one event loop, and nothing after `close`.

    Writes take effect at once; their callers go on in a later turn of the loop, as with a database. `clock` gives the
    "database's" time in microseconds.
    """

    url = "memory://"

    def __init__(self, *, clock: Callable[[], int] = host_microseconds):
        self.now = clock
        self._opened = False
        self._runs: dict[int, MemoryRun] = {}
        self._keys: dict[str, int] = {}
        self._workers: dict[str, tuple[WorkerId, int]] = {}
        # Never set back: as in a database, a key is not given twice.
        self._next_run = count(1)
        self._next_message = count(1)
        self._stats = dict.fromkeys(("commits", "rows", "appends", "creates"), 0)

    async def open(self) -> None:
        """Make the store usable; empty after a `close`."""
        if not self._opened:
            self._opened = True
            self._stats = dict.fromkeys(self._stats, 0)

    async def close(self) -> None:
        """Forget everything. Every later use but `open` raises JournalUnavailableError."""
        self._forget()

    def _forget(self) -> None:
        self._opened = False
        self._runs.clear()
        self._keys.clear()
        self._workers.clear()

    async def create(self, new: NewRun, records: Sequence[Record], update: RunUpdate, worker: WorkerId) -> Claim | None:
        """Create a run, see JournalStore. Raises SerializationError for text that no database takes."""
        _check_text((new, worker, *records), f"run {new.run_id!r}")
        self._check_open()
        claim = None
        if new.run_id not in self._keys:
            run = MemoryRun(next(self._next_run), new, self.now(), update.status, epoch=1, owner=worker.id)
            self._write(run, records, update)
            self._runs[run.run] = run
            self._keys[new.run_id] = run.run
            self._stats["creates"] += 1
            claim = Claim(run.run, new.run_id, new.uid, 1, len(records))
        await asyncio.sleep(0)
        return claim

    async def import_run(
        self, run: ImportedRun, pages: Callable[[], Iterable[ImportedPage]], messages: Sequence[ImportedMessage]
    ) -> int | None:
        """Keep a run as it is in another journal, see JournalStore."""
        run_id, uid = run.new.run_id, run.new.uid
        _check_text((run.new, run.status, *messages), f"run {run_id}")
        self._check_open()
        for other in self._runs.values():
            if other.new.uid == uid:
                raise same_run(run_id, other.new.run_id)
        if run_id in self._keys:
            return None
        parent = next((key for key, other in self._runs.items() if other.new.uid == run.parent_uid), None)
        made = MemoryRun(
            next(self._next_run), run.new._replace(parent=parent), run.created_at, run.status, run.epoch, None,
            run.wake_at, run.updated_at, run.finished_at, line(run.error), first=run.first,
            compacted_at=run.compacted_at,
        )  # fmt: skip
        for page in pages():
            _check_text((*page.records, *page.earlier), f"run {run_id}")
            made.keep(page.records)
            made.keep_earlier(page.earlier)
        for message, undelivered in messages:
            row = message._replace(id=next(self._next_message), run=made.run)
            (made.undelivered if undelivered else made.messages)[row.id] = row
            made.sent.add(row.message_id)
        self._runs[made.run] = made
        self._keys[run_id] = made.run
        self._stats["rows"] += len(made.records)
        return made.run

    async def append(self, append: Append) -> None:
        """Keep the records, see JournalStore. Raises RunFenced, or SerializationError for text no database takes."""
        await self.submit(append)

    def submit(self, append: Append) -> asyncio.Future[None]:
        """Keep the records; the future ends as `append` would. Cancelling it undoes nothing.

        Raises SerializationError at once for text that no database takes.
        """
        _check_text(tuple(append.records), f"run {append.run_id}")
        self._check_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        error: RunFenced | None = None
        run = self._runs.get(append.run)
        if run is None or run.epoch != append.epoch or run.seq != append.after:
            found = "there is no such run" if run is None else f"it is at epoch {run.epoch}, seq {run.seq}"
            error = RunFenced(
                f"run {append.run_id}: append after seq {append.after} at epoch {append.epoch} refused, {found}. "
                "Another worker owns this run; this one has dropped it. Nothing was written."
            )
        else:
            self._write(run, append.records, append.update)
        self._stats["appends"] += 1
        loop.call_soon(_resolve, future, error)
        return future

    def _write(self, run: MemoryRun, records: Sequence[Record], update: RunUpdate | None) -> None:
        after = run.seq
        if not records or [record.seq for record in records] != list(range(after + 1, after + 1 + len(records))):
            raise ValueError(f"run {run.new.run_id}: the records to write are not numbered from seq {after + 1} on")
        run.keep(records)
        if update is not None:
            run.change(update.status, update.wake_at, self.now())
            run.error = line(update.error)
            if update.release:
                run.owner = None
        self._stats["commits"] += 1
        self._stats["rows"] += len(records)

    async def claim(self, run: int, worker: WorkerId, *, epoch: int, status: str) -> Claim | None:
        """Take the run if its epoch is still `epoch` and its status no other one at rest, see JournalStore."""
        _check_text(worker, "worker")
        self._check_open()
        taken = self._runs.get(run)
        if taken is None or taken.epoch != epoch or (taken.status != status and is_at_rest(taken.status)):
            return None
        claimed = RunClaimed(epoch + 1, worker.id, taken.owner)
        taken.epoch, taken.owner, taken.updated_at = epoch + 1, worker.id, self.now()
        # The times of a run never go back, although clocks do.
        at = max(self.now(), taken.records[-1].at)
        self._write(taken, [Record(taken.seq + 1, at, True, claimed)], None)
        return Claim(run, taken.new.run_id, taken.new.uid, taken.epoch, taken.seq)

    async def release(self, run: int, epoch: int, status: str, wake_at: int | None) -> None:
        """Give up a claim; a no-op if the epoch is no longer the run's."""
        self._check_open()
        released = self._runs.get(run)
        if released is not None and released.epoch == epoch:
            released.owner = None
            released.change(status, wake_at, self.now())

    async def read(self, run: int, after: int = 0, to: int | None = None, limit: int | None = None) -> list[Record]:
        """Return the records with after < seq <= to, in order."""
        self._check_open()
        records = self._runs[run].between(after, to) if run in self._runs else []
        return records[:limit]

    async def snapshot(self, run: int, at: int | None = None) -> SnapshotRow | None:
        """Return the newest snapshot at or before a seq, see JournalStore."""
        self._check_open()
        kept = self._runs[run].snapshots if run in self._runs else {}
        newest = max((seq for seq in kept if at is None or seq <= at), default=0)
        return kept.get(newest)

    async def save_snapshot(self, run: int, row: SnapshotRow, replacing: int) -> None:
        """Keep a snapshot in the place of those since `replacing`, see JournalStore."""
        self._check_open()
        if run in self._runs:
            of = self._runs[run]
            of.snapshots = {seq: kept for seq, kept in of.snapshots.items() if not replacing <= seq <= row.seq}
            of.snapshots[row.seq] = row._replace(run_id=of.new.run_id, uid=of.new.uid)

    async def compact(self, row: RunRow, record: Record) -> bool:
        """Put a JournalCompacted in the place of a run's records, see JournalStore."""
        self._check_open()
        run = self._runs.get(row.run)
        if run is None or run.pruned_at is not None or run.first >= record.seq:
            return False
        return run.compact(record, self.now())

    async def prune(self, row: RunRow, record: Record | None) -> bool:
        """Forget a run that has ended, see JournalStore."""
        self._check_open()
        run = self._runs.get(row.run)
        seen = (row.status, row.epoch, row.owner, row.pruned_at)
        if run is None or (run.status, run.epoch, run.owner, run.pruned_at) != seen:
            return False
        if record is not None:
            return run.prune(record, self.now())
        del self._runs[row.run], self._keys[run.new.run_id]
        for fork in self._runs.values():
            if fork.new.parent == row.run:
                fork.parent_id = run.new.run_id
        return True

    async def purge(self, limit: int) -> int:
        """Return 0: what was compacted or pruned is gone at once."""
        return 0

    async def stream(self, run: int, after: int = 0, limit: int = 1000) -> list[StreamRow]:
        """Return published items with position > after, in order."""
        self._check_open()
        rows = self._runs[run].stream if run in self._runs else []
        return list(islice((row for row in rows if row.position > after), limit))

    async def asked(self, run: int) -> list[str]:
        """Return the wait ids of the questions that a run has published, in order."""
        self._check_open()
        rows = self._runs[run].stream if run in self._runs else []
        return [row.wait_id for row in rows if row.wait_id is not None]

    async def answered(self, run: int) -> frozenset[str]:
        """Return the ids of the waits of a run that were answered."""
        self._check_open()
        waits = self._runs[run].waits.values() if run in self._runs else ()
        return frozenset(wait.wait_id for wait in waits if wait.outcome == "answered")

    async def earlier(self, run: int) -> tuple[list[EarlierWait], list[EarlierMessage]]:
        """Return the waits of a run that are over and the messages that it has taken, see JournalStore."""
        self._check_open()
        of = self._runs[run]
        over = [
            EarlierWait(w.wait_id, w.outcome, w.wanted, w.requirements is not None, w.human, w.opened_at)
            for w in of.waits.values()
            if w.outcome is not None
        ]
        waiting = {row.message_id for row in (*of.messages.values(), *of.undelivered.values())}
        return over, [EarlierMessage(id_) for id_ in sorted(of.sent - waiting)]

    async def find(self, run_id: str) -> RunRow | None:
        """Return the run's row."""
        self._check_open()
        return self._row(self._runs[self._keys[run_id]]) if run_id in self._keys else None

    async def find_many(self, runs: Sequence[int]) -> list[RunRow]:
        """Return the rows of these keys."""
        self._check_open()
        return [self._row(self._runs[run]) for run in runs if run in self._runs]

    def _row(self, run: MemoryRun) -> RunRow:
        parent = None if run.new.parent is None else self._runs.get(run.new.parent)
        return run.row() if parent is None else run.row()._replace(parent=parent.new.run_id)

    async def list_runs(
        self,
        *,
        status: Sequence[str] | None = None,
        workflow: str | None = None,
        limit: int | None = None,
        before: int | None = None,
        unfinished: bool = False,
        parent: int | None = None,
        ended_before: int | None = None,
        unpruned: bool = False,
    ) -> list[RunRow]:
        """Return runs, newest first; `before` is the key of the last row of the page before."""
        self._check_open()
        found = (
            self._row(run)
            for run in reversed(self._runs.values())
            if (status is None or run.status in status)
            and (workflow is None or run.new.workflow == workflow)
            and (before is None or run.run < before)
            and not (unfinished and run.status in FINAL_STATUSES)
            and (parent is None or run.new.parent == parent)
            and (ended_before is None or (run.finished_at is not None and run.finished_at < ended_before))
            and not (unpruned and run.pruned_at is not None)
        )
        return list(islice(found, limit))

    async def waits(self, run: int | None = None, *, human: bool = False, limit: int | None = None) -> list[WaitRow]:
        """Return open waits, oldest first, of one run or of all unfinished runs."""
        self._check_open()
        if run is None:
            runs = [r for r in self._runs.values() if r.status not in FINAL_STATUSES]
        else:
            runs = [self._runs[run]] if run in self._runs else []
        found = [w for r in runs for w in r.waits.values() if w.outcome is None and (w.human or not human)]
        return sorted(found, key=lambda wait: wait.opened_at)[:limit]

    async def send(self, run: int, message: NewMessage) -> bool:
        """Insert a message; False if this message_id was sent before.

        Raises RunNotFoundError, RunFinishedError, AlreadyAnsweredError, SerializationError.
        """
        _check_text(message, f"a message for run {run}")
        self._check_open()
        to = self._runs.get(run)
        if to is None:
            raise no_such_run(run, self.url)
        # A repetition first: it stays one when the run has ended meanwhile.
        if message.message_id in to.sent:
            return False
        require_unfinished(to.new.run_id, to.status)
        wait_id = to.bind(message)
        row = next(self._next_message)
        message_id = message.message_id if message.message_id is not None else uuid4().hex
        to.messages[row] = MessageRow(
            row, run, message_id, message.kind if wait_id is None else "answer", message.event, wait_id,
            message.step, message.reason,
        )  # fmt: skip
        to.sent.add(message_id)
        return True

    async def messages(self, runs: Sequence[int]) -> list[MessageRow]:
        """Return the unconsumed messages of these runs in id order."""
        self._check_open()
        return sorted(row for run in set(runs) & self._runs.keys() for row in self._runs[run].messages.values())

    async def unconsumed(self, run: int) -> list[ImportedMessage]:
        """Return the messages that the run has not taken, also those that an end of it has left over, in id order."""
        self._check_open()
        if run not in self._runs:
            return []
        found = self._runs[run]
        rows = [ImportedMessage(row, False) for row in found.messages.values()]
        return sorted(rows + [ImportedMessage(row, True) for row in found.undelivered.values()])

    async def waiting_messages(self, worker: WorkerId) -> list[int]:
        """Return the keys of the runs owned by `worker` that have unconsumed messages."""
        self._check_open()
        return [run.run for run in self._runs.values() if run.messages and run.owner == worker.id]

    async def heartbeat(self, worker: WorkerId) -> None:
        """Insert or refresh the worker's row."""
        _check_text(worker, "worker")
        self._check_open()
        self._workers[worker.id] = (worker, self.now())

    def beat(self, worker: WorkerId) -> bool:
        """Refresh the worker's row from any thread; False if the store is closed."""
        if self._opened:
            self._workers[worker.id] = (worker, self.now())
        return self._opened

    def abandon(self, worker: WorkerId) -> None:
        """Forget everything, from a thread: the event loop has ended, and with it all who could read this store."""
        self._forget()

    async def workers(self) -> list[tuple[WorkerId, int]]:
        """Return every worker with its last heartbeat in microseconds."""
        self._check_open()
        return list(self._workers.values())

    async def retire(self, worker: WorkerId) -> None:
        """Delete the worker's row and give up its claims of unfinished runs."""
        self._check_open()
        self._workers.pop(worker.id, None)
        for run in self._runs.values():
            if run.owner == worker.id and run.finished_at is None:
                run.owner = None

    async def forget(self, worker: WorkerId) -> None:
        """Delete the row of a worker that is gone, unless an unfinished run still names it."""
        self._check_open()
        if not any(run.owner == worker.id and run.finished_at is None for run in self._runs.values()):
            self._workers.pop(worker.id, None)

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Hear nothing: nobody else writes to this store."""
        return lambda: None

    def stats(self) -> dict[str, Any]:
        """Return counters since the store was opened; each write is a commit of its own."""
        return dict(self._stats)

    def _check_open(self) -> None:
        if not self._opened:
            raise JournalUnavailableError(f"{self.url} is not open, or was closed. Open it before it is used.")


def _resolve(future: asyncio.Future[None], error: RunFenced | None) -> None:
    if future.done():  # its caller was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _check_text(value: object, path: str) -> None:
    """Raise SerializationError for text with NUL or lone surrogates, which databases refuse or cut short."""
    if isinstance(value, str):
        if not is_fit(value):
            raise unfit(f"{path}:", value, path=path)
    elif isinstance(value, WorkerId):
        _check_text((value.id, value.host, value.boot, value.namespace), path)
    elif isinstance(value, tuple) and not isinstance(value, _ANY_TEXT):
        names = getattr(value, "_fields", range(len(value)))
        for name, part in zip(names, value, strict=True):
            if type(part) is not bytes:
                _check_text(part, f"{path}.{name}")
        if isinstance(value, StateImported | JournalCompacted):
            for wait, _ in open_waits(decode_state(value.state)):
                _check_text(wait, f"{path}.state")
