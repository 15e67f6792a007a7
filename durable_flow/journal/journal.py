"""`Journal`: the public face of a database of runs. It needs no workflow class."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import DeserializationError, JournalError, RunNotFoundError, SerializationError
from ..events import Event, HumanResponseEvent, InputRequiredEvent, UnknownEvent
from ..records import EncodedEvent, EncodedValue, Record
from ..serializers.base import MAX_PAYLOAD_BYTES, Serializer, require_key
from ..serializers.codec import Codec
from ..serializers.json import JsonSerializer
from .deputies import deliver, deputy
from .folding import state_at
from .info import ChildInfo, RunInfo, StateInfo, StreamItem, TaskInfo, WaitInfo, at_moment, moment, parsed_schema
from .protocol import FINAL_STATUSES, NewMessage, RunRow, StreamRow, WaitRow
from .runid import require_run_id
from .shared import SharedStore, StoreSettings, acquire, give_back, settings_for

DEFAULT_URL = "sqlite:///durable_flow.db"
URL_VARIABLE = "DURABLE_FLOW_DATABASE_URL"
# Behind the hints of the store.
STREAM_POLL_SECONDS = 1.0
# So many records are read at a time by those who follow a run.
FOLLOW_PAGE = 1000


class Journal:
    """A database of runs.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user:password@host/database` (extra
            `postgres`; run `durable-flow db upgrade` first) or `memory://` (kept by this object only, for tests).
            None: the environment's DURABLE_FLOW_DATABASE_URL, else `sqlite:///durable_flow.db` in this folder.
        durability: "full" (default) survives a power cut, "normal" a process crash; the last commits may then be lost
            by a power cut.
        serializer: stores the events and values of workflows that have none of their own; default is exact JSON.
        max_payload_bytes: the largest encoded event or value.
        idle_release_seconds: after how long a run that only waits leaves memory; None: never.
        max_suspended_steps: how many steps may wait in memory; above, the run that has waited longest is released.
        heartbeat_seconds, expiry_seconds: how often an engine shows that it lives, and after how long of standing
            still others take its runs up.

    Raises JournalUrlError. Used as `async with Journal(url) as journal`, or passed to workflows as `journal=`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        durability: str = "full",
        serializer: Serializer | None = None,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        idle_release_seconds: float | None = 60.0,
        max_suspended_steps: int = 1000,
        heartbeat_seconds: float = 5.0,
        expiry_seconds: float = 30.0,
    ):
        if durability not in ("full", "normal"):
            raise ValueError(f"durability={durability!r}: it is 'full' or 'normal'")
        self.serializer = require_key(serializer)
        self.max_payload_bytes = max_payload_bytes
        self.idle_release_seconds = idle_release_seconds
        self.max_suspended_steps = max_suspended_steps
        self.heartbeat_seconds = heartbeat_seconds
        self.expiry_seconds = expiry_seconds
        self.settings: StoreSettings = settings_for(
            url if url is not None else os.environ.get(URL_VARIABLE) or DEFAULT_URL,
            durability=durability,
            max_payload_bytes=max_payload_bytes,
        )
        readers = (JsonSerializer(),)
        self._codec = Codec(serializer or readers[0], readers=readers, max_payload_bytes=max_payload_bytes)
        # What others send is never taken from an unsafe codec.
        self._message_codec = Codec(readers[0], max_payload_bytes=max_payload_bytes)
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, list[SharedStore]] = WeakKeyDictionary()

    # -- Life ----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Journal:
        shared = await acquire(self.settings)
        self._open.setdefault(asyncio.get_running_loop(), []).append(shared)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open[asyncio.get_running_loop()].pop()
        await give_back(self.settings)

    @property
    def _shared(self) -> SharedStore:
        opened = self._open.get(asyncio.get_running_loop())
        if not opened:
            raise JournalError(
                "this Journal is not open in the running event loop; use it inside "
                "`async with Journal(...) as journal:`"
            )
        return opened[-1]

    def stats(self) -> dict[str, Any]:
        """Return the counters of the writer that this loop uses: commits, appends, rows and creates."""
        return self._shared.store.stats()

    # -- Looking -------------------------------------------------------------------------------------------------------

    async def runs(
        self,
        *,
        status: str | Sequence[str] | None = None,
        workflow: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[RunInfo]:
        """Return runs, newest first, at most `limit`; `before` is the run id of the last one of the page before."""
        statuses = (status,) if isinstance(status, str) else status
        key = None if before is None else (await self._row(before)).run
        rows = await self._shared.store.list_runs(status=statuses, workflow=workflow, limit=limit, before=key)
        return [self._info(row, ()) for row in rows]

    async def run(self, run_id: str) -> RunInfo:
        """Return where a run stands. Raises RunNotFoundError."""
        row = await self._row(run_id)
        waits = () if row.status in FINAL_STATUSES else await self._shared.store.waits(row.run)
        return self._info(row, waits)

    async def history(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Record]:
        """Return the records with a seq above `after`, in order; payloads are encoded, see `decode`."""
        row = await self._row(run_id)
        return await self._shared.store.read(row.run, after=after, limit=limit)

    def decode(self, encoded: EncodedEvent | EncodedValue) -> Any:
        """Return the event or value; an event of an unknown class as UnknownEvent."""
        if isinstance(encoded, EncodedEvent):
            return self._codec.decode_event(encoded)
        return self._codec.decode_value(encoded)

    async def state(self, run_id: str, at: int | None = None) -> StateInfo:
        """Return the folded state at a checkpoint: the last boundary up to seq `at`; None is now.

        Raises RunNotFoundError, and ValueError for a seq that the run does not have.
        """
        row = await self._row(run_id)
        if at is not None and not 1 <= at <= row.seq:
            raise ValueError(f"run {run_id} has no record {at}: its records are 1 to {row.seq}")
        state = await state_at(self._shared.store, row.run, at)
        if not state.seq:
            raise ValueError(f"run {run_id} has no checkpoint up to record {at}; the first one comes later")
        waits = tuple(
            WaitInfo(
                run_id, state.workflow, w.wait_id, w.task.step if w.task else None, w.wanted,
                None if w.prompt is None else self._event(w.prompt, w.wait_id), parsed_schema(w.schema),
                moment(w.deadline), at_moment(w.opened_at), w.human,
            )
            for w in state.waits.values() if w.is_open
        )  # fmt: skip
        tasks = tuple(
            TaskInfo(
                t.id, t.id.step, None if t.event is None else self._event(t.event), t.attempt, moment(t.retry_at),
                t.error, tuple(self._event(event) for event in t.joined or ()),
            )
            for t in state.tasks.values()
        )  # fmt: skip
        return StateInfo(
            run_id=run_id,
            seq=state.seq,
            at=at_moment(state.last_at),
            status=state.status,
            context={key: self._value(value) for key, value in state.context.items()},
            tasks=tasks,
            waits=waits,
            result=None if state.result is None else self._event(state.result),
            error=state.error,
            attention=state.attention,
            steps_completed=state.steps_completed,
            stream_position=state.position,
            checkpoints=dict(state.checkpoints),
            children=tuple(
                ChildInfo(c.run_id, c.workflow, c.task.step, c.status, c.independent) for c in state.children.values()
            ),
            parent=state.parent,
        )

    async def pending(self, limit: int | None = None) -> list[WaitInfo]:
        """Return the open questions to humans over all unfinished runs, oldest first.

        A question whose answer was sent is no longer open, also if no process has taken the answer yet.
        """
        store = self._shared.store
        runs = {row.run for row in await store.waits(human=True)}
        answered = {(m.run, m.wait_id) for m in await store.messages(sorted(runs))}
        # Once more, because a run may have taken an answer in between: it is neither a message nor an open wait then.
        rows = await store.waits(human=True) if runs else []
        return [self._wait(row) for row in rows if (row.run, row.wait_id) not in answered][:limit]

    async def stream(self, run_id: str, after: int = 0) -> AsyncIterator[StreamItem]:
        """Yield what a run publishes, from position `after` on, live, until the run has ended.

        In order, without gaps or repetitions, in any process; whoever breaks off goes on with the last `position`.
        """
        row = await self._row(run_id)
        while True:
            ended = row.status in FINAL_STATUSES
            rows = await self._stream_rows(row.run, after, wait=not ended)
            for item in rows:
                after = item.position
                yield self._item(item)
            if not rows and ended:
                return
            row = await self._row(run_id)

    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Record]:
        """Yield a run's records with a seq above `after`, live, until the run has ended.

        In order, without gaps or repetitions, in any process; whoever breaks off goes on with the last `seq`. Payloads
        are encoded, see `decode`. Raises RunNotFoundError.
        """
        row = await self._row(run_id)
        while True:
            ended = row.status in FINAL_STATUSES
            records = await self._next_records(row.run, after, wait=not ended)
            for record in records:
                after = record.seq
                yield record
            if not records and ended:
                return
            row = await self._row(run_id)

    async def _next_records(self, run: int, after: int, *, wait: bool) -> list[Record]:
        """Return records; if there are none and `wait` says so, after something may have been written."""
        changed = asyncio.Event()
        with self._shared.following(run, changed.set):
            records = await self._shared.store.read(run, after=after, limit=FOLLOW_PAGE)
            if not records and wait:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STREAM_POLL_SECONDS):
                        await changed.wait()
            return records

    async def _stream_rows(self, run: int, after: int, *, wait: bool) -> list[StreamRow]:
        """Return published items; if there are none and `wait` says so, after something may have been written."""
        changed = asyncio.Event()
        # Told only in here: a reader that breaks off between two items leaves nothing behind.
        with self._shared.reading(run, changed.set):
            rows = await self._shared.store.stream(run, after)
            if not rows and wait:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STREAM_POLL_SECONDS):
                        await changed.wait()
            return rows

    # -- Sending -------------------------------------------------------------------------------------------------------

    async def send(
        self,
        run_id: str,
        event: Event,
        *,
        message_id: str | None = None,
        wait_id: str | None = None,
        step: str | None = None,
    ) -> bool:
        """Send an event to a run, whether a process owns it or not; durable on return.

        `wait_id` (or the event's own `wait_id`) names the question that is answered; without one an answer closes the
        oldest open wait of its type, of the run itself or else of a run that it started. The same `message_id` counts
        once: False is returned for a repetition. Raises
        RunNotFoundError, RunFinishedError, AlreadyAnsweredError, SerializationError.
        """
        if not isinstance(event, Event):
            raise SerializationError(f"run {run_id}: journal.send takes an Event, not {type(event).__name__}")
        human = isinstance(event, HumanResponseEvent)
        named = wait_id or (event.get("wait_id") if human else None)
        run_id, named = deputy(run_id, named)
        row = await self._row(run_id)
        encoded = self._message_codec.encode_event(event)
        message = NewMessage("event", message_id, encoded, named, step, human=human)
        run, sent = await deliver(self._shared.store, row.run, message)
        self._shared.hear([run])
        return sent

    async def cancel(self, run_id: str, reason: str = "cancelled through its journal") -> None:
        """Ask for the cancellation of a run: at once if a process owns it, else when one takes it up."""
        row = await self._row(run_id)
        await self._shared.store.send(row.run, NewMessage("cancel", reason=reason))
        self._shared.hear([row.run])

    # -- Parts ---------------------------------------------------------------------------------------------------------

    async def _row(self, run_id: str) -> RunRow:
        require_run_id(run_id)
        row = await self._shared.store.find(run_id)
        if row is None:
            raise RunNotFoundError(f"there is no run {run_id} in {self._shared.store.url}")
        return row

    def _info(self, row: RunRow, waits: Sequence[WaitRow]) -> RunInfo:
        return RunInfo(
            run_id=row.run_id,
            uid=row.uid,
            workflow=row.workflow,
            shape=row.shape,
            status=row.status,
            seq=row.seq,
            epoch=row.epoch,
            owner=row.owner,
            created_at=at_moment(row.created_at),
            updated_at=at_moment(row.updated_at),
            finished_at=moment(row.finished_at),
            wake_at=moment(row.wake_at),
            error=row.error,
            waits=tuple(self._wait(wait) for wait in waits),
        )

    def _wait(self, row: WaitRow) -> WaitInfo:
        prompt = None if row.prompt is None else self._event(row.prompt, row.wait_id)
        return WaitInfo(
            row.run_id, row.workflow, row.wait_id, row.step, row.wanted, prompt, parsed_schema(row.schema),
            moment(row.deadline), at_moment(row.opened_at), row.human,
        )  # fmt: skip

    def _item(self, row: StreamRow) -> StreamItem:
        event = None if row.event is None else self._event(row.event, row.wait_id)
        return StreamItem(row.position, at_moment(row.at), row.step, event, row.wait_id, row.reset_since, row.task)

    def _event(self, encoded: EncodedEvent, wait_id: str | None = None) -> Event:
        try:
            event = self._codec.decode_event(encoded)
        except DeserializationError:
            # Its class here does not fit it any more. One such event must not hide the rest of the database.
            event = UnknownEvent(name=encoded.name, raw=encoded.data)
        if wait_id is not None and isinstance(event, InputRequiredEvent):
            event._wait_id = wait_id
        return event

    def _value(self, encoded: EncodedValue) -> Any:
        try:
            return self._codec.decode_value(encoded)
        except DeserializationError:
            return encoded  # its class is not known here; shown raw, never dropped
