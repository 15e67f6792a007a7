"""What an archive must hold to be imported: records that fold, and nothing that is not looked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ..errors import ArchiveError, DurableFlowError, RunIdError
from ..fold import evolve
from ..records import (
    EncodedEvent,
    EncodedValue,
    Fact,
    JournalCompacted,
    MessageReceived,
    Record,
    RunStarted,
    StateImported,
    StreamPublished,
    StreamReset,
)
from ..snapshot import decode_state, with_payloads
from ..state import RUNNING, RunState
from .archive import Footer, ItemLine, Line, Manifest, RecordLine
from .archive_values import fits, require_sound
from .protocol import Earlier, EarlierMessage, EarlierWait, ImportedMessage, ImportedRun, NewRun, StreamRow
from .runid import require_run_id

SAFE_CODEC = "json"


class Checks:
    """Takes the lines of an archive in order. Each method raises ArchiveError for what does not belong there."""

    def __init__(self, manifest: Manifest, *, codecs: Collection[str], max_records: int, max_payload_bytes: int):
        try:
            require_run_id(manifest.run_id)
        except RunIdError as error:
            raise ArchiveError(str(error)) from error
        require_sound(manifest, "the manifest")
        self.manifest = manifest
        self.messages: list[ImportedMessage] = []
        self.footer: Footer | None = None
        self._state = RunState()
        self._codecs = {SAFE_CODEC, *codecs}
        self._max_records = max_records
        self._limit = max_payload_bytes
        self._items = 0
        # The positions of the items that the last record has published and that were not read yet.
        self._awaited = range(0)
        self._message_ids: set[str] = set()
        self._answered: set[str] = set()
        self._ended_at: int | None = None
        # The position of the last item of before the first record, and how many lines tell of that time.
        self._streamed = self._earlier = 0
        self._at = 0
        self._parent_uid: str | None = None
        self._parent_seq: int | None = None

    def take(self, line: Line) -> None:
        """Check the next line."""
        if self.footer is not None:
            raise ArchiveError("something follows the footer")
        if self._awaited and not isinstance(line, ItemLine):
            raise ArchiveError(f"stream item {self._awaited[0]} is missing")
        match line:
            case RecordLine():
                self._require_all_items()
                self._record(line)
            case StreamRow() | EarlierWait() | EarlierMessage():
                self._take_earlier(line)
            case ItemLine():
                self._item(line)
            case ImportedMessage():
                self._message(line)
            case Footer():
                self._require_all_items()
                self._end(line)
        records = self._state.seq - self.manifest.first + 1
        if records + self._earlier + self._items + len(self.messages) > self._max_records:
            raise ArchiveError(f"it holds more than max_records = {self._max_records:,} records, items and messages")

    def imported_run(self, run_id: str) -> ImportedRun:
        """Return the row of the run, as its records have it."""
        state, manifest = self._state, self.manifest
        status = state.status
        error = state.attention
        if state.ended and state.error is not None:
            error = f"{state.error.type}: {state.error.message}"[:500]
        return ImportedRun(
            NewRun(run_id, state.uid, state.workflow, manifest.shape, None, self._parent_seq), status, state.epoch,
            None if status == RUNNING else state.wake_at, manifest.created_at, state.last_at,
            self._ended_at if state.ended else None, error, self._parent_uid, manifest.first, manifest.compacted_at,
        )  # fmt: skip

    def _record(self, line: RecordLine) -> None:
        from .encode import encode  # brings SQLAlchemy, for which `import durable_flow` does not wait

        record, state = line.record, self._state
        fact = record.fact
        if self.messages:
            raise ArchiveError("a record stands behind the messages")
        expected = state.seq + 1 if state.seq else self.manifest.first
        if record.seq != expected:
            raise ArchiveError(f"it is record {record.seq} where record {expected} belongs")
        if isinstance(fact, RunStarted) != (record.seq == 1):
            raise ArchiveError("the first record of a run, and no other one, says that it was started")
        if isinstance(fact, JournalCompacted) != (record.seq == self.manifest.first > 1):
            raise ArchiveError("the first record of a run that was compacted, and no other one, says so")
        if not fits(fact, type(fact)):
            raise ArchiveError(f"a {type(fact).__name__} has a field of the wrong type")
        require_sound(fact, type(fact).__name__)
        if line.codec is not None:
            self._require_codec(line.codec)
        self._require_codecs_of(fact)
        if isinstance(fact, StreamPublished):
            if fact.first != state.position + 1:
                raise ArchiveError(f"it publishes position {fact.first} where position {state.position + 1} belongs")
            self._awaited = range(fact.first, fact.first + len(fact.digests))
        if isinstance(fact, StreamReset) and fact.position != state.position + 1:
            raise ArchiveError(f"it resets at position {fact.position} where {state.position + 1} belongs")
        if isinstance(fact, MessageReceived) and fact.message_id is not None:
            self._require_new_message(fact.message_id)
        was_ended = state.ended
        try:
            evolve(state, record)
            # As it will be written: also its texts and sizes are then known to be taken.
            encode(0, self.manifest.run_id, record.seq - 1, line.epoch, [record], self._limit)
        except DurableFlowError as error:
            raise ArchiveError(str(error)) from error
        except Exception as error:
            raise ArchiveError(
                f"the records do not fold: {type(fact).__name__} does not follow from those before ({error!r})"
            ) from error
        if isinstance(fact, JournalCompacted):
            self._require_compacted(record)
        if state.epoch != line.epoch:
            raise ArchiveError(f"it is of epoch {line.epoch}, and the run was at epoch {state.epoch} then")
        if record.at < self._at:
            raise ArchiveError("its time is before that of the record before it")
        self._at = record.at
        if state.ended and not was_ended:
            self._ended_at = record.at

    def _require_compacted(self, record: Record) -> None:
        """Refuse a state that is not the one of this run at this record."""
        state = self._state
        found = (state.uid, state.seq, state.boundary, state.last_at, record.boundary)
        if found != (self.manifest.uid, record.seq, record.seq, record.at, True):
            raise ArchiveError("the state of what was compacted is that of another run, or at another record")
        self._streamed = state.streamed_before

    def _take_earlier(self, row: Earlier) -> None:
        state = self._state
        if not state.seq or state.seq != self.manifest.first or self._items or self.messages:
            raise ArchiveError("what was before the first record does not belong here")
        self._earlier += 1
        require_sound(row, "a line about the time before the first record")
        match row:
            case StreamRow():
                if row.position != self._streamed + 1 or row.position > state.position:
                    raise ArchiveError(f"stream item {row.position} does not belong here")
                self._streamed = row.position
                if row.event is not None:
                    self._require_codec(row.event.codec)
                    self._require_size(row.event)
            case EarlierMessage():
                self._require_new_message(row.message_id)
            case EarlierWait():
                pass  # its outcome was looked at when it was read

    def _require_all_items(self) -> None:
        state = self._state
        if self.manifest.first > 1 and state.seq == self.manifest.first and self._streamed < state.position:
            # Those that later records publish follow them.
            raise ArchiveError(f"stream item {self._streamed + 1} is missing")

    def _item(self, line: ItemLine) -> None:
        if not self._awaited or line.position != self._awaited[0]:
            raise ArchiveError(f"stream item {line.position} does not belong here")
        self._awaited = self._awaited[1:]
        self._items += 1
        require_sound(line.event, "a stream item")
        self._require_codec(line.event.codec)
        self._require_size(line.event)

    def _message(self, line: ImportedMessage) -> None:
        require_sound(line.message, "a message")
        self._require_new_message(line.message.message_id)
        if self._state.ended and not line.undelivered:
            raise ArchiveError("a message is to be delivered to a run that has ended")
        if line.message.event is not None:
            # What others send is never taken from another codec.
            if line.message.event.codec != SAFE_CODEC:
                raise ArchiveError(f"a message in the codec {line.message.event.codec!r:.50} is never accepted")
            self._require_size(line.message.event)
        wait_id = line.message.wait_id
        if wait_id is not None:
            if wait_id in self._answered:
                raise ArchiveError(f"two messages answer the wait {wait_id!r:.100}")
            self._answered.add(wait_id)
        self.messages.append(line)

    def _end(self, footer: Footer) -> None:
        manifest, state = self.manifest, self._state
        counted = Footer(state.seq - manifest.first + 1, self._items, len(self.messages))
        if not footer == counted == Footer(manifest.records, manifest.items, manifest.messages):
            raise ArchiveError("it does not hold what the manifest and the footer count")
        if state.boundary != state.seq or not state.seq:
            raise ArchiveError("its last record is no boundary")
        if (manifest.uid, manifest.workflow, manifest.status) != (state.uid, state.workflow, state.status):
            raise ArchiveError("its records are those of another run than the manifest's")
        self.footer = footer

    def _require_new_message(self, message_id: str) -> None:
        if message_id in self._message_ids:
            raise ArchiveError(f"the message {message_id!r:.100} is there twice")
        self._message_ids.add(message_id)

    def _require_codecs_of(self, fact: Fact) -> None:
        for payload in _payloads(fact):
            self._require_codec(payload.codec)
        if isinstance(fact, StateImported | JournalCompacted):
            if isinstance(fact, StateImported):
                self._parent_uid, self._parent_seq = fact.parent, fact.seq
            try:
                state = decode_state(fact.state)
                with_payloads(state, self._accepted)
                require_sound(state, "the state that the run goes on from")
            except (DurableFlowError, RecursionError) as error:
                raise ArchiveError(f"the state that the run goes on from is not accepted: {error}") from error

    def _accepted(self, payload: EncodedEvent | EncodedValue) -> EncodedEvent | EncodedValue:
        self._require_codec(payload.codec)
        self._require_size(payload)
        return payload

    def _require_codec(self, codec: str) -> None:
        if codec not in self._codecs:
            raise ArchiveError(
                f"it holds data of the codec {codec!r:.50}, and reading them may run code. If you trust whoever "
                f"exported this archive, import it with allow_codecs=[{codec!r:.50}]"
            )

    def _require_size(self, payload: EncodedEvent | EncodedValue) -> None:
        if len(payload.data) > self._limit:
            raise ArchiveError(
                f"an event or value takes {len(payload.data):,} bytes, more than max_payload_bytes = {self._limit:,}"
            )


def _payloads(value: Any) -> Iterator[EncodedEvent | EncodedValue]:
    if isinstance(value, EncodedEvent | EncodedValue):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _payloads(part)
