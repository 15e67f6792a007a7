"""`Journal`: the public face of a database of runs. It needs no workflow class."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import (
    CheckpointError,
    JournalError,
    RunNotFoundError,
    SerializationError,
)
from ..events import Event, HumanResponseEvent
from ..records import EncodedEvent, EncodedValue, Record
from ..serializers.base import MAX_PAYLOAD_BYTES, Seal, Serializer, require_key
from ..serializers.codec import Codec
from ..serializers.json import JsonSerializer
from ..state import RunState
from ..version import __version__
from .archive_limits import MAX_LINE_BYTES, MAX_RECORDS, MAX_TOTAL_BYTES
from .bounds import cursor, limited
from .delivery import messages_that_open
from .deputies import deliver, deputy
from .folding import state_at
from .kept import require_followed, require_kept, require_streamed
from .protocol import FINAL_STATUSES, NewMessage, RunRow, StreamRow
from .runid import id_of, require_run_id
from .runid import new_run_id as made_run_id
from .seals import require_seal
from .shared import SharedStore, StoreSettings, acquire, give_back, settings_for
from .text import is_fit

# Workflows have a Journal that they seldom look into. What only looking, changing, archiving and keeping need is
# imported there, so that the import of the package is quick.
if TYPE_CHECKING:
    from .archive_files import ArchiveFile
    from .checkpoint import At, Checkpoint, KeyChange
    from .info import ArchiveInfo, CompactInfo, PruneInfo, RunInfo, StateInfo, StreamItem, WaitInfo
    from .listing import Listing
    from .patches import Patch
    from .shown import Shown

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
        readers: further serializers whose data are read, as the one that the journal was written with before, or those
            of its workflows.
        seal: encrypts (`EncryptedSeal`) or otherwise seals every payload; not used by memory://, which keeps no rows.
        compress: whether payloads above 64 KiB are compressed; what is compressed is read in any case.
        max_payload_bytes: the largest encoded event or value.
        idle_release_seconds: after how long a run that only waits leaves memory; None: never.
        max_suspended_steps: how many steps may wait in memory; above, the run that has waited longest is released.
        heartbeat_seconds, expiry_seconds: how often an engine shows that it lives, and after how long of standing
            still others take its runs up.

    Raises JournalUrlError, and SerializationError for an unsafe serializer without a key. Used as
    `async with Journal(url) as journal`, or passed to workflows as `journal=`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        durability: str = "full",
        serializer: Serializer | None = None,
        readers: Iterable[Serializer] = (),
        seal: Seal | None = None,
        compress: bool = True,
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
            seal=require_seal(seal),
            compress=compress,
        )
        exact = JsonSerializer()
        # What workflows of this journal read besides what they write.
        self.readers: tuple[Serializer, ...] = (*map(require_key, readers), serializer or exact)
        self._codec = Codec(
            serializer or exact, readers=(exact, *self.readers), max_payload_bytes=max_payload_bytes, per_class=True
        )
        # What others send is never taken from an unsafe codec.
        self._message_codec = Codec(exact, max_payload_bytes=max_payload_bytes)
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
        """Return runs, newest first, at most `limit`; `before` is the run id of the last one of the page before.

        Raises RunNotFoundError for that, ValueError or TypeError for a limit that is none.
        """
        statuses = (status,) if isinstance(status, str) else status
        most = limited(limit)
        if not all(map(is_fit, (workflow or "", *(statuses or ())))):
            return []  # no run has such a name, and not every database can be asked
        key = None if before is None else (await self._row(before)).run
        rows = await self._shared.store.list_runs(status=statuses, workflow=workflow, limit=most, before=key)
        return [self._shown.run(row, ()) for row in rows]

    async def run(self, run_id: str) -> RunInfo:
        """Return where a run stands. Raises RunNotFoundError."""
        row = await self._row(run_id)
        waits = () if row.status in FINAL_STATUSES else await self._shared.store.waits(row.run)
        return self._shown.run(row, waits)

    async def history(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Record]:
        """Return the records with a seq above `after`, in order; payloads are encoded, see `decode`.

        The journal of a run that was compacted begins with a JournalCompacted. Raises RunNotFoundError, and
        CheckpointError if records behind `after` are gone.
        """
        row = await self._row(run_id)
        after, most = cursor(after), limited(limit)
        records = await self._shared.store.read(row.run, after=after, limit=most)
        require_followed(row, after, records)
        return records

    def decode(self, encoded: EncodedEvent | EncodedValue) -> Any:
        """Return the event or value; an event of an unknown class as UnknownEvent."""
        if isinstance(encoded, EncodedEvent):
            return self._codec.decode_event(encoded)
        return self._codec.decode_value(encoded)

    async def state(self, run_id: str, at: At | None = None) -> StateInfo:
        """Return the folded state at a checkpoint: a Checkpoint or its id, a seq, a name given by `ctx.checkpoint`, or
        an aware time. A seq or time between two checkpoints stands for the one before; None is now.

        Raises RunNotFoundError, and CheckpointError for what leads to no checkpoint of the run.
        """
        return self._shown.state(run_id, await self._state(await self._row(run_id), at))

    async def pending(self, limit: int | None = None) -> list[WaitInfo]:
        """Return the open questions to humans over all unfinished runs, oldest first.

        A question whose answer was sent is no longer open, also if no process has taken the answer yet.
        """
        limit = limited(limit)
        store = self._shared.store
        runs = {row.run for row in await store.waits(human=True)}
        messages, _ = await messages_that_open(store, sorted(runs))
        answered = {(message.run, message.wait_id) for message in messages}
        # Once more, because a run may have taken an answer in between: it is neither a message nor an open wait then.
        rows = await store.waits(human=True) if runs else []
        return [self._shown.wait(row) for row in rows if (row.run, row.wait_id) not in answered][:limit]

    async def stream(self, run_id: str, after: int = 0) -> AsyncIterator[StreamItem]:
        """Yield what a run publishes, from position `after` on, live, until the run has ended.

        In order, without gaps or repetitions, in any process; whoever breaks off goes on with the last `position`.
        Raises RunNotFoundError, and CheckpointError if the run was pruned and items behind `after` with it.
        """
        after = cursor(after)
        row = await self._row(run_id)
        while True:
            ended = row.status in FINAL_STATUSES
            rows = await self._stream_rows(row.run, after, wait=not ended)
            for item in rows:
                after = item.position
                yield self._shown.item(item)
            if not rows and ended:
                await require_streamed(self._shared.store, row.run, run_id, after)
                return
            row = await self._row(run_id)

    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Record]:
        """Yield a run's records with a seq above `after`, live, until the run has ended.

        In order, without gaps or repetitions, in any process; whoever breaks off goes on with the last `seq`. Payloads
        are encoded, see `decode`. The journal of a run that was compacted begins with a JournalCompacted. Raises
        RunNotFoundError, and CheckpointError if records that were not yielded yet were compacted or pruned.
        """
        after = cursor(after)
        row = await self._row(run_id)
        while True:
            ended = row.status in FINAL_STATUSES
            records = await self._next_records(row.run, after, wait=not ended)
            require_followed(row, after, records)
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

    def checkpoints(self, run_id: str, after: int = 0, limit: int | None = None) -> Listing[Checkpoint]:
        """List the checkpoints of a run with a seq above `after`, at most `limit`: its start, each step that completed,
        named places, waits, edits and the end.

        `await` gives a list; `async for checkpoint in journal.checkpoints(run_id)` reads them in pages, so that memory
        does not grow with the history. Of a run that was compacted the first one is "compacted". Raises
        RunNotFoundError, CheckpointError for a run that was pruned.
        """
        from .listing import Listing, checkpoints

        async def listed() -> AsyncGenerator[Checkpoint]:
            row = await self._row(run_id)
            require_kept(row, "its checkpoints")
            store, event_of = self._shared.store, self._shown.event
            known, most = cursor(after), limited(limit)
            found = checkpoints(store, row.run, run_id, event_of, after=known, to=row.seq, limit=most)
            async with contextlib.aclosing(found):
                async for checkpoint in found:
                    yield checkpoint

        return Listing(listed)

    def blame(self, run_id: str, key: str) -> Listing[KeyChange]:
        """List every change of a context key, in order: who made it, when, the old value and the new one.

        Awaited or iterated over as `checkpoints`. What changed before a run was compacted is told as one change of the
        kind "compacted". Raises as `checkpoints`.
        """
        from .listing import Listing, changes

        async def listed() -> AsyncGenerator[KeyChange]:
            row = await self._row(run_id)
            require_kept(row, f"what changed {key!r}")
            found = changes(self._shared.store, row.run, run_id, key, self._shown.value, to=row.seq)
            async with contextlib.aclosing(found):
                async for change in found:
                    yield change

        return Listing(listed)

    async def diff(self, run_id: str, a: At | None, b: At | None = None) -> list[dict[str, Any]]:
        """Return the JSON Patch (RFC 6902) that leads from the context at `a` to that at `b`; None is now.

        Values are compared in the form in which JSON stores them, see docs/checkpoints.md. Raises as `state`.
        """
        from .patches import difference

        row = await self._row(run_id)
        return difference((await self._state(row, a)).context, (await self._state(row, b)).context)

    async def forks(self, run_id: str) -> list[RunInfo]:
        """Return the runs that were forked from this one, newest first; `forked_from` of each says where."""
        row = await self._row(run_id)
        return [self._shown.run(fork, ()) for fork in await self._shared.store.list_runs(parent=row.run)]

    # -- Changing ------------------------------------------------------------------------------------------------------

    async def fork(
        self,
        run_id: str,
        at: At | None = None,
        *,
        new_run_id: str | None = None,
        set: Mapping[str, Any] | None = None,
        patch: Patch | None = None,
        event: Event | None = None,
        drop_pending: bool = False,
    ) -> RunInfo:
        """Create a fork as `Workflow.fork` does, without the workflow's code and without running it.

        `flow.recover()` or `flow.resume(run_id)` goes on with it. An `event` can only replace one of the same class:
        who takes another one is known to the workflow alone. A typed state is not checked. Raises as `Workflow.fork`.
        """
        from .forking import ForkRequest, emit_like, fork, require_event

        row = await self._row(run_id)
        emit = None if event is None else emit_like(self._codec.encode_event(require_event(run_id, event)), run_id)
        new = made_run_id() if new_run_id is None else require_run_id(new_run_id)
        await fork(self._shared.store, row, self._codec, new, ForkRequest(at, set, patch, emit, drop_pending))
        return await self.run(new)

    async def edit(
        self, run_id: str, *, set: Mapping[str, Any] | None = None, patch: Patch | None = None, by: str = "journal.edit"
    ) -> str:
        """Change the context of a run that nobody has, as `Workflow.edit` does; return the id of the new checkpoint.

        A typed state is not checked. A run whose owner is in the table of workers is refused, though its process may be
        gone: `flow.edit` can tell. Raises as `Workflow.edit`.
        """
        from .editing import edit_free
        from .patches import edit_facts

        row = await self._row(run_id)
        facts = partial(edit_facts, codec=self._codec, run_id=run_id, by=by, values=set, patch=patch)
        seq = await edit_free(self._shared.store, row, lambda state: facts(state.context))
        self._shared.hear([row.run])
        return id_of(run_id, seq)

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

    # -- Archives ------------------------------------------------------------------------------------------------------

    async def export(self, run_id: str, file: ArchiveFile) -> ArchiveInfo:
        """Write all that is recorded of a run, up to its newest boundary, to a portable archive (docs/archives.md).

        `file` is a path, which gets the whole archive or keeps what it had (compressed if it ends in ".gz"), or a file
        opened for bytes. The run is not disturbed, and those that it started are not in it: each has its own archive.
        Raises RunNotFoundError, DeserializationError for a record that cannot be read, ArchiveError, OSError.
        """
        from .archives import export_run

        row = await self._row(run_id)
        return await export_run(self._shared.store, row.run, file, version=__version__, seal=self._seal)

    async def import_(
        self,
        file: ArchiveFile,
        new_run_id: str | None = None,
        *,
        allow_codecs: Collection[str] = (),
        max_line_bytes: int = MAX_LINE_BYTES,
        max_total_bytes: int = MAX_TOTAL_BYTES,
        max_records: int = MAX_RECORDS,
    ) -> RunInfo:
        """Make the run of an archive one of this journal, in one transaction: all of it or nothing.

        It is the same run, with its uid and so its idempotency keys: only one of the two may go on. `allow_codecs` are
        further codecs, as "pickle", whose data are accepted; nothing is decoded here. The limits are for the archive
        as it is read, uncompressed; `max_records` counts stream items and messages, too.

        Raises ArchiveError for what is damaged, incomplete, too large or not accepted, RunConflictError if the journal
        has the run, or another one of its id, RunIdError, OSError. Nothing was imported then.
        """
        from .archives import import_run

        run_id = await import_run(
            self._shared.store, file, new_run_id, seal=self._seal, allow_codecs=allow_codecs,
            max_line_bytes=max_line_bytes, max_total_bytes=max_total_bytes, max_records=max_records,
            max_payload_bytes=self.max_payload_bytes,
        )  # fmt: skip
        row = await self._row(run_id)
        self._shared.hear([row.run])
        return self._shown.run(row, ())

    # -- Retention -----------------------------------------------------------------------------------------------------

    async def compact(self, run_id: str, before: At | None = None) -> CompactInfo:
        """Let one record, which holds the state, take the place of all records of a run before a checkpoint.

        `before` is where that is, as in `state`; None is the newest checkpoint. Checkpoints from there on keep their
        ids, the run goes on as if nothing had happened, and it may be live meanwhile, here or elsewhere. Its stream
        and its messages stay. Raises RunNotFoundError, PayloadTooLargeError for a state that one record cannot hold,
        and CheckpointError as `Workflow.fork` does.
        """
        from .retention import compact_run

        return await compact_run(self._shared.store, await self._row(run_id), before)

    async def prune(
        self,
        older_than: timedelta | datetime,
        status: str | Sequence[str] | None = None,
        *,
        keep_results: bool = True,
        dry_run: bool = False,
    ) -> PruneInfo:
        """Forget the runs that ended before a time, or longer ago than that; `status` (None: any) is how they ended.

        Of each is kept what `run` tells, and its result or error: `flow.run(run_id=)` still gives them. With
        `keep_results=False` nothing is, and the run id is free again. Runs that have not ended are never touched. It
        works in small transactions with pauses; one that was interrupted is gone on with by the next. `dry_run` only
        tells what would go. Raises ValueError or TypeError for an argument that makes no sense.
        """
        from .retention import prune_runs

        store = self._shared.store
        return await prune_runs(store, older_than, status, keep_results=keep_results, dry_run=dry_run)

    @property
    def _seal(self) -> Seal | None:
        """What closes the lines of archives, too."""
        return self.settings.seal

    # -- Parts ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _shown(self) -> Shown:
        from .shown import Shown

        return Shown(self._codec)

    async def _row(self, run_id: str) -> RunRow:
        require_run_id(run_id)
        row = await self._shared.store.find(run_id)
        if row is None:
            raise RunNotFoundError(f"there is no run {run_id} in {self._shared.store.url}")
        return row

    async def _state(self, row: RunRow, at: At | None) -> RunState:
        require_kept(row, "its state")
        seq = None
        if at is not None:
            from .points import seq_of

            seq = await seq_of(self._shared.store, row, at)
        state = await state_at(self._shared.store, row.run, seq)
        if not state.seq:
            raise CheckpointError(f"run {row.run_id} has no checkpoint up to record {seq}; the first one comes later")
        return state
