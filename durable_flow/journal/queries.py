"""What is read from a journal, by SQLAlchemy's async engine: nothing here depends on the database."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, exists, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import DeserializationError, JournalUnavailableError
from ..records import EncodedEvent, Fact, Record, WaitOpened
from .protocol import (
    FINAL_STATUSES,
    EarlierMessage,
    EarlierWait,
    ImportedMessage,
    MessageRow,
    RunRow,
    SnapshotRow,
    StreamRow,
    WaitRow,
    WorkerId,
)
from .rows import to_fact
from .seals import MESSAGE_KIND, REASON_KIND, SNAPSHOT_KIND, STREAM_KIND, WAIT_KIND, Seals
from .shielded import shielded
from .tables import journal, messages, runs, snapshots, stream, waits, workers

Result = TypeVar("Result")

_unconsumed = (messages.c.consumed_seq.is_(None), messages.c.undelivered_at.is_(None))
_head = select(func.max(journal.c.seq)).where(journal.c.run == runs.c.run).scalar_subquery()
_has_message = exists().where(messages.c.run == runs.c.run, *_unconsumed)
_parent = runs.alias("parent")
_parent_id = select(_parent.c.run_id).where(_parent.c.run == runs.c.parent).scalar_subquery()
# A run that is not there has none.
_first = func.coalesce(runs.c.first_seq, 1)
_run_rows = select(
    runs.c.run, runs.c.run_id, runs.c.uid, runs.c.workflow, runs.c.shape, runs.c.status, runs.c.epoch, runs.c.owner,
    runs.c.wake_at, runs.c.created_at, runs.c.updated_at, runs.c.finished_at, runs.c.error,
    func.coalesce(_head, 0), _has_message, func.coalesce(_parent_id, runs.c.parent_id), runs.c.parent_seq, _first,
    runs.c.compacted_at, runs.c.pruned_at,
)  # fmt: skip
_records = select(
    journal.c.seq, journal.c.at, journal.c.boundary, journal.c.seal, journal.c.kind, journal.c.task, journal.c.step,
    journal.c.name, journal.c.data, journal.c.codec, journal.c.payload, journal.c.v,
).order_by(journal.c.seq)  # fmt: skip
_items = select(
    stream.c.position, stream.c.at, stream.c.step, stream.c.name, stream.c.codec, stream.c.payload, stream.c.seal,
    stream.c.v, stream.c.wait_id, stream.c.reset_since, stream.c.task,
).order_by(stream.c.position)  # fmt: skip
_open_waits = (
    select(
        waits.c.run, runs.c.run_id, runs.c.uid, runs.c.workflow, waits.c.seq, waits.c.opened_at, waits.c.seal,
        waits.c.wait_id, waits.c.task, waits.c.step, waits.c.name, waits.c.data, waits.c.codec, waits.c.payload,
        waits.c.v,
    )
    .join_from(waits, runs, waits.c.run == runs.c.run)
    .where(waits.c.outcome.is_(None))
    .order_by(waits.c.opened_at, waits.c.run, waits.c.seq)
)  # fmt: skip
_all_messages = (
    select(
        messages.c.id, messages.c.run, messages.c.message_id, messages.c.kind, messages.c.wait_id, messages.c.step,
        messages.c.reason, messages.c.name, messages.c.codec, messages.c.payload, messages.c.seal, messages.c.v,
        runs.c.run_id, runs.c.uid, messages.c.undelivered_at,
    )
    .join_from(messages, runs, messages.c.run == runs.c.run)
    .order_by(messages.c.id)
)  # fmt: skip
_messages = _all_messages.where(*_unconsumed)
_unconsumed_messages = _all_messages.where(messages.c.consumed_seq.is_(None))

_snapshots = (
    select(
        runs.c.run_id, runs.c.uid, snapshots.c.seq, snapshots.c.fold_version, snapshots.c.hash, snapshots.c.payload,
        snapshots.c.at, snapshots.c.seal,
    )
    .join_from(snapshots, runs, snapshots.c.run == runs.c.run)
    .where(snapshots.c.seq >= _first)
    .order_by(snapshots.c.seq.desc())
    .limit(1)
)  # fmt: skip

# The codec of what is shown without its content.
_NOT_OPENED = "(not opened)"
# Keys in one statement: SQLite takes 32,766 parameters, and the text should not grow without bound.
_MANY = 5_000


class SqlQueries:
    """The reading half of a store. Its engine is None while it is not open."""

    url: str
    _seals: Seals
    _engine: AsyncEngine | None = None
    _pid = 0

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[Any]] = set()

    def _check_open(self) -> AsyncEngine:
        if self._engine is None:
            raise JournalUnavailableError(f"{self.url} is not open, or was closed. Open it before it is used.")
        if self._pid != os.getpid():
            raise JournalUnavailableError(
                f"{self.url} was opened by process {self._pid}, before this one was forked from it. A connection must "
                "not be shared by two processes: use a Journal or a workflow that was made in this one."
            )
        return self._engine

    async def _rows(self, statement: Select[Any]) -> list[Any]:
        self._check_open()
        # A statement that is cancelled half-way leaves its connection in an unknown state.
        return await shielded(self._read(statement))

    async def _read(self, statement: Select[Any]) -> list[Any]:
        """Return the rows that a statement selects. Raises JournalUnavailableError."""
        raise NotImplementedError

    async def _awaited(self, work: Awaitable[Result]) -> Result:
        """Do the work on a connection, and let a close wait for it: whoever asked for it may have gone."""
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            return await work
        finally:
            self._under_way.discard(task)

    async def read(self, run: int, after: int = 0, to: int | None = None, limit: int | None = None) -> list[Record]:
        """Return the records with after < seq <= to, in order. Raises DeserializationError."""
        # What was compacted may still be there, to be deleted by and by.
        first = select(_first).where(runs.c.run == run).scalar_subquery()
        statement = _records.where(journal.c.run == run, journal.c.seq > after, journal.c.seq >= first).limit(limit)
        if to is not None:
            statement = statement.where(journal.c.seq <= to)
        rows = await self._rows(statement)
        seals = self._seals
        sealed = bool(rows) and (seals.always or any(row[3] is not None for row in rows))
        run_id, uid = await self._names(run) if sealed else (f"of key {run}", "")
        records = []
        for seq, at, boundary, seal, kind, task, step, name, data, codec, payload, v in rows:
            if sealed:
                payload = seals.open(payload, seal, run_id=run_id, uid=uid, seq=seq, kind=kind)
                data = seals.open_data(data, run_id=run_id, uid=uid, seq=seq, kind=kind)
                if payload is None and codec is not None:
                    raise _unreadable(run_id, seq, kind, DeserializationError("its payload is gone"))
            try:
                fact = to_fact(kind, task, step, name, data, codec, payload, v)
            except (DeserializationError, ValueError, TypeError, AttributeError) as exc:
                run_id, uid = await self._names(run)
                seals.open_data(data, run_id=run_id, uid=uid, seq=seq, kind=kind)  # raises for one that is sealed
                raise _unreadable(run_id, seq, kind, exc) from exc
            records.append(Record(seq, at, boundary, fact))
        return records

    def _run_row(self, row: Sequence[Any]) -> RunRow:
        found = RunRow(*row)
        error = self._seals.open_error(found.error, run_id=found.run_id, uid=found.uid)
        return found._replace(message=bool(found.message), error=error)

    async def _names(self, run: int) -> tuple[str, str]:
        rows = await self._rows(select(runs.c.run_id, runs.c.uid).where(runs.c.run == run))
        return (rows[0][0], rows[0][1]) if rows else (f"of key {run}", "")

    async def snapshot(self, run: int, at: int | None = None) -> SnapshotRow | None:
        """Return the newest snapshot at or before a seq, see JournalStore. Raises DeserializationError."""
        statement = _snapshots.where(snapshots.c.run == run)
        if at is not None:
            statement = statement.where(snapshots.c.seq <= at)
        for *columns, seal in await self._rows(statement):
            row = SnapshotRow(*columns)
            payload = self._seals.open(
                row.payload, seal, run_id=row.run_id, uid=row.uid, seq=row.seq, kind=SNAPSHOT_KIND
            )
            return row._replace(payload=payload or b"")
        return None

    async def stream(self, run: int, after: int = 0, limit: int = 1000) -> list[StreamRow]:
        """Return published items with position > after, in order. Raises DeserializationError."""
        rows = await self._rows(_items.where(stream.c.run == run, stream.c.position > after).limit(limit))
        sealed = bool(rows) and (self._seals.always or any(row[6] is not None for row in rows))
        run_id, uid = await self._names(run) if sealed else ("", "")
        items = []
        for position, at, step, name, codec, payload, seal, v, wait_id, reset_since, task in rows:
            if sealed:
                payload = self._seals.open(payload, seal, run_id=run_id, uid=uid, seq=position, kind=STREAM_KIND)
            event = EncodedEvent(name, codec, v, payload) if name is not None else None
            items.append(StreamRow(position, at, step, event, wait_id, reset_since, task))
        return items

    async def asked(self, run: int) -> list[str]:
        """Return the wait ids of the questions that a run has published, in order."""
        statement = select(stream.c.wait_id).where(stream.c.run == run, stream.c.wait_id.is_not(None))
        return [row[0] for row in await self._rows(statement.order_by(stream.c.position))]

    async def answered(self, run: int) -> frozenset[str]:
        """Return the ids of the waits of a run that were answered."""
        statement = select(waits.c.wait_id).where(waits.c.run == run, waits.c.outcome == "answered")
        return frozenset(row[0] for row in await self._rows(statement))

    async def earlier(self, run: int) -> tuple[list[EarlierWait], list[EarlierMessage]]:
        """Return the waits of a run that are over and the messages that it has taken, see JournalStore."""
        over = select(waits.c.wait_id, waits.c.outcome, waits.c.data, waits.c.human, waits.c.opened_at)
        over = over.where(waits.c.run == run, waits.c.outcome.is_not(None)).order_by(waits.c.seq)
        found = []
        for wait_id, outcome, data, human, opened_at in await self._rows(over):
            stored = json.loads(data)
            wanted = tuple(stored["wanted"])
            found.append(EarlierWait(wait_id, outcome, wanted, "requirements" in stored, bool(human), opened_at))
        taken = select(messages.c.message_id).where(messages.c.run == run, messages.c.consumed_seq.is_not(None))
        return found, [EarlierMessage(row[0]) for row in await self._rows(taken.order_by(messages.c.id))]

    async def find(self, run_id: str) -> RunRow | None:
        """Return the run's row."""
        rows = await self._rows(_run_rows.where(runs.c.run_id == run_id))
        return self._run_row(rows[0]) if rows else None

    async def find_many(self, runs_: Sequence[int]) -> list[RunRow]:
        """Return the rows of these keys, in the order of the keys."""
        found: dict[int, RunRow] = {}
        for at in range(0, len(runs_), _MANY):
            for row in await self._rows(_run_rows.where(runs.c.run.in_(runs_[at : at + _MANY]))):
                found[row[0]] = self._run_row(row)
        return [found[run] for run in runs_ if run in found]

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
        statement = _run_rows.order_by(runs.c.run.desc()).limit(limit)
        if status is not None:
            statement = statement.where(runs.c.status.in_(status))
        if workflow is not None:
            statement = statement.where(runs.c.workflow == workflow)
        if before is not None:
            statement = statement.where(runs.c.run < before)
        if parent is not None:
            statement = statement.where(runs.c.parent == parent)
        if ended_before is not None:
            statement = statement.where(runs.c.finished_at < ended_before)
        if unpruned:
            statement = statement.where(runs.c.pruned_at.is_(None))
        # Said also where the statuses imply it: only so the index of unfinished runs is used.
        if unfinished or (status is not None and FINAL_STATUSES.isdisjoint(status)):
            statement = statement.where(runs.c.finished_at.is_(None))
        return [self._run_row(row) for row in await self._rows(statement)]

    async def waits(self, run: int | None = None, *, human: bool = False, limit: int | None = None) -> list[WaitRow]:
        """Return open waits, oldest first, of one run or of all unfinished runs.

        Raises DeserializationError for one that cannot be opened; among those of all runs it has no content instead.
        """
        statement = _open_waits.limit(limit)
        statement = statement.where(waits.c.run == run if run is not None else runs.c.finished_at.is_(None))
        if human:
            statement = statement.where(waits.c.human)
        found = []
        for key, run_id, uid, workflow, seq, opened_at, seal, *columns in await self._rows(statement):
            wait_id, task, step, name, data, codec, payload, v = columns
            kind = WAIT_KIND.format(wait_id)
            try:
                payload = self._seals.open(payload, seal, run_id=run_id, uid=uid, seq=seq, kind=kind)
            except DeserializationError:
                if run is not None:
                    raise
                # One row must not hide the questions of all others; nothing of it is shown.
                codec, payload = _NOT_OPENED, b""
            fact: Fact = to_fact(WaitOpened.__name__, task, step, name, data, codec, payload, v)
            assert isinstance(fact, WaitOpened)
            found.append(
                WaitRow(
                    key, run_id, workflow, fact.wait_id, step, fact.wanted, fact.prompt, fact.schema, fact.requirements,
                    fact.deadline, fact.human, opened_at, None,
                )
            )  # fmt: skip
        return found

    async def messages(self, runs_: Sequence[int]) -> list[MessageRow]:
        """Return the unconsumed messages of these runs in id order. Raises DeserializationError."""
        found = []
        keys = sorted(set(runs_))
        for at in range(0, len(keys), _MANY):
            rows = await self._message_rows(_messages.where(messages.c.run.in_(keys[at : at + _MANY])))
            found += [row.message for row in rows]
        return sorted(found)

    async def unconsumed(self, run: int) -> list[ImportedMessage]:
        """Return the messages that the run has not taken, also those that an end of it has left over, in id order.

        Raises DeserializationError.
        """
        return await self._message_rows(_unconsumed_messages.where(messages.c.run == run))

    async def _message_rows(self, statement: Select[Any]) -> list[ImportedMessage]:
        found = []
        for row in await self._rows(statement):
            id_, run, message_id, kind, wait_id, step, reason, name, codec, payload, seal, v, run_id, uid, left = row
            place = {"run_id": run_id, "uid": uid, "seq": 0}
            payload = self._seals.open(payload, seal, **place, kind=MESSAGE_KIND.format(message_id))
            reason = self._seals.open_text(reason, **place, kind=REASON_KIND.format(message_id))
            event = EncodedEvent(name, codec, v, payload or b"") if name is not None else None
            message = MessageRow(id_, run, message_id, kind, event, wait_id, step, reason)
            found.append(ImportedMessage(message, left is not None))
        return found

    async def waiting_messages(self, worker: WorkerId) -> list[int]:
        """Return the keys of the runs owned by `worker` that have unconsumed messages."""
        statement = (
            select(messages.c.run)
            .distinct()
            .join_from(messages, runs, messages.c.run == runs.c.run)
            .where(*_unconsumed, runs.c.owner == worker.id)
        )
        return [row[0] for row in await self._rows(statement)]

    async def workers(self) -> list[tuple[WorkerId, int]]:
        """Return every worker with its last heartbeat in microseconds."""
        statement = select(
            workers.c.id, workers.c.host, workers.c.boot, workers.c.namespace, workers.c.pid, workers.c.started,
            workers.c.heartbeat_at,
        )  # fmt: skip
        return [(WorkerId(*worker), beat) for *worker, beat in await self._rows(statement)]


def _unreadable(run_id: str, seq: int, kind: str, exc: Exception) -> DeserializationError:
    said = str(exc) if isinstance(exc, DeserializationError) else f"its columns do not hold one ({exc!r})"
    if isinstance(exc, json.JSONDecodeError):
        said = f"its data are not JSON ({exc})"
    return DeserializationError(f"run {run_id}, seq {seq}: the record of kind {kind} cannot be read: {said}")
