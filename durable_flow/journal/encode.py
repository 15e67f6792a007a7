"""Records as rows of the journal, and what they change in other tables, checked before they are queued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PayloadTooLargeError
from ..records import (
    EncodedEvent,
    JournalCompacted,
    MessageReceived,
    Record,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunResumed,
    RunTimedOut,
    StateImported,
    StreamPublished,
    StreamReset,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
    WaitTimedOut,
)
from ..serializers.compression import COMPRESSED_ABOVE, limit_of
from ..snapshot import decode_state, open_waits
from . import sql
from .rows import to_columns
from .text import is_fit, unfit

# Places in the columns of a wait that hold text.
_WAIT_STEP, _WAIT_NAME, _WAIT_CODEC = 2, 3, 5

# Texts that were found fit for a database: few different ones in a program. Cleared when it has grown too large.
_fit: set[str] = set()


@dataclass(slots=True)
class Changes:
    """What the records of one append change in other tables, in the end: each row is changed once.

    `opened` are columns of waits to be written, by wait id, the outcome among them; `settled` are outcomes of waits
    that were there before, `settled_again` those that they got after the run had been resumed; `consumed` are messages,
    each with its record's seq. `resumed_at`: the run went on after its end, which opens again what that had closed.
    `ended_at`: after that, the run came to its end, which closes what is open.
    """

    opened: dict[str, dict[str, Any]] = field(default_factory=dict)
    settled: dict[str, str] = field(default_factory=dict)
    settled_again: dict[str, str] = field(default_factory=dict)
    consumed: list[tuple[int, int]] = field(default_factory=list)
    ended_at: int | None = None
    resumed_at: int | None = None

    def settle(self, wait_id: str, outcome: str) -> None:
        """Give a wait its outcome; the first one stands."""
        opened = self.opened.get(wait_id)
        if opened is None:
            (self.settled if self.resumed_at is None else self.settled_again).setdefault(wait_id, outcome)
        elif opened["outcome"] is None:
            opened["outcome"] = outcome

    def end(self, at: int) -> None:
        """Close what is open when the run ends."""
        self.ended_at = at
        for opened in self.opened.values():
            opened["outcome"] = opened["outcome"] or "ended"

    def resume(self, at: int) -> None:
        """Open again what the end of the run closed."""
        self.ended_at, self.resumed_at = None, at
        for opened in self.opened.values():
            opened["outcome"] = None if opened["outcome"] == "ended" else opened["outcome"]


class Encoded:
    """Rows to insert, and what they change in other tables; the run's key is filled in when it is known.

    `large`: a payload among them is worth compressing.
    """

    __slots__ = ("changes", "large", "rows", "stream")

    def __init__(
        self, rows: list[sql.Params], stream: list[sql.Params], changes: Changes | None = None, *, large: bool = False
    ):
        self.rows, self.stream, self.changes, self.large = rows, stream, changes, large

    def of_run(self, run: int) -> Encoded:
        """Return the same for a run whose key has just been given."""
        rows = [(run, *row[1:]) for row in self.rows]
        return Encoded(rows, [(run, *row[1:]) for row in self.stream], self.changes, large=self.large)

    def changing(self) -> Changes:
        """Return the changes, to add to them."""
        if self.changes is None:
            self.changes = Changes()
        return self.changes


def check_text(text: str, run_id: str, what: str) -> None:
    """Raise SerializationError for text that a database refuses or cuts short: NUL, or half a surrogate pair."""
    if text in _fit:
        return
    if not is_fit(text):
        raise unfit(f"run {run_id}: {what}", text, path=what)
    if len(_fit) > 10_000:
        _fit.clear()
    if len(text) <= 200:
        _fit.add(text)


def encode(run: int, run_id: str, after: int, epoch: int, records: Sequence[Record], limit: int) -> Encoded:
    """Return the rows that hold these records.

    Raises SerializationError for text that is not fit, PayloadTooLargeError for a record with more than `limit` bytes,
    ValueError if the records are not numbered from `after` + 1 on.
    """
    if not records or records[0].seq != after + 1 or records[-1].seq != after + len(records):
        raise ValueError(f"run {run_id}: the records to write are not numbered from seq {after + 1} on")
    encoded = Encoded([], [])
    rows, fit, effects = encoded.rows, _fit, _EFFECTS
    small = min(limit, COMPRESSED_ABOVE)
    for record in records:
        seq, at, boundary, fact = record
        kind, task, step, name, data, codec, payload, v = columns = to_columns(fact)
        if step is not None and step not in fit:
            check_text(step, run_id, f"{kind}.step")
        if name is not None and name not in fit:
            check_text(name, run_id, f"{kind}.name")
        if codec is not None and codec not in fit:
            check_text(codec, run_id, f"{kind}.codec")
        if payload is not None and len(payload) > small:
            if len(payload) > limit and len(payload) > limit_of(kind, limit):
                raise _too_large(run_id, kind, name, len(payload), limit)
            encoded.large = True
        if data is not None and len(data) > limit:
            raise _too_large(run_id, kind, name, len(data), limit)
        rows.append((run, seq, kind, boundary, task, step, name, data, codec, payload, None, v, epoch, at))
        effect = effects.get(type(fact))
        if effect is not None:
            effect(encoded, run, run_id, record, columns, limit)
    return encoded


def check_event(event: EncodedEvent, run_id: str, limit: int) -> None:
    """Check an event that is stored outside of the journal, as `encode` does."""
    check_text(event.name, run_id, "event.name")
    check_text(event.codec, run_id, "event.codec")
    if len(event.data) > limit:
        raise _too_large(run_id, "event", event.name, len(event.data), limit)


def _too_large(run_id: str, kind: str, name: str | None, size: int, limit: int) -> PayloadTooLargeError:
    what = kind if name is None else f"{kind} {name!r}"
    return PayloadTooLargeError(
        f"run {run_id}: {what} takes {size:,} bytes, more than max_payload_bytes = {limit:,}. Nothing was written. "
        "Keep large data in a file or a table of your own and pass a reference, or raise max_payload_bytes.",
        path=kind if name is None else f"{kind}.{name}",
    )


# The effects of records on other tables. Each gets the row's columns, so that nothing is encoded twice.

_Effect = Callable[[Encoded, int, str, Record, Sequence[Any], int], None]


def _published(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    fact = record.fact
    assert isinstance(fact, StreamPublished)
    if fact.wait_id is not None:
        check_text(fact.wait_id, run_id, "StreamPublished.wait_id")
    task, step = fact.task if fact.task is not None else (None, None)
    for position, (name, codec, v, data) in enumerate(fact.items, fact.first):
        if name not in _fit or codec not in _fit or len(data) > limit:
            check_event(EncodedEvent(name, codec, v, data), run_id, limit)
        if len(data) > COMPRESSED_ABOVE:
            encoded.large = True
        encoded.stream.append((run, position, record.at, step, name, codec, data, None, v, fact.wait_id, None, task))


def _reset(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    fact = record.fact
    assert isinstance(fact, StreamReset)
    encoded.stream.append(
        (run, fact.position, record.at, fact.task.step, None, None, None, None, None, None, fact.since, fact.task.seq)
    )


def _opened(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    fact = record.fact
    assert isinstance(fact, WaitOpened)
    check_text(fact.wait_id, run_id, "WaitOpened.wait_id")
    _, task, step, name, data, codec, payload, v = columns
    changes = encoded.changing()
    # A question asked again under its own name takes the place of the one that was closed.
    changes.settled.pop(fact.wait_id, None)
    changes.settled_again.pop(fact.wait_id, None)
    changes.opened[fact.wait_id] = {
        "wait_id": fact.wait_id, "seq": record.seq, "task": task, "step": step, "name": name, "data": data,
        "codec": codec, "payload": payload, "seal": None, "v": v, "human": fact.human, "deadline": fact.deadline,
        "opened_at": record.at, "outcome": None,
    }  # fmt: skip


def _imported(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    """What the other run still awaited is asked in this one, too; and so is what a run awaited that is imported."""
    fact = record.fact
    assert isinstance(fact, StateImported | JournalCompacted)
    state = decode_state(fact.state)
    for wait, opened_at in open_waits(state):
        columns = to_columns(wait)
        # The state may come from outside: its texts were not looked at yet.
        for text in (columns[_WAIT_STEP], columns[_WAIT_NAME], columns[_WAIT_CODEC]):
            check_text(text or "", run_id, f"{type(fact).__name__}.waits")
        _opened(encoded, run, run_id, record._replace(at=opened_at, fact=wait), columns, limit)
    if state.ended:
        encoded.changing().end(record.at)


_OUTCOMES: dict[type, str] = {WaitAnswered: "answered", WaitTimedOut: "timed_out", WaitClosed: "closed"}


def _settled(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    fact = record.fact
    assert isinstance(fact, WaitAnswered | WaitTimedOut | WaitClosed)
    encoded.changing().settle(fact.wait_id, _OUTCOMES[type(fact)])


def _received(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    fact = record.fact
    assert isinstance(fact, MessageReceived)
    encoded.changing().consumed.append((fact.row, record.seq))


def _ended(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    encoded.changing().end(record.at)


def _resumed(encoded: Encoded, run: int, run_id: str, record: Record, columns: Sequence[Any], limit: int) -> None:
    # A run that failed keeps its open waits in its state; retried, it goes on waiting for their answers.
    encoded.changing().resume(record.at)


_EFFECTS: dict[type, _Effect] = {
    StreamPublished: _published,
    StreamReset: _reset,
    WaitOpened: _opened,
    WaitAnswered: _settled,
    WaitTimedOut: _settled,
    WaitClosed: _settled,
    MessageReceived: _received,
    RunCompleted: _ended,
    RunFailed: _ended,
    RunCancelled: _ended,
    RunTimedOut: _ended,
    RunResumed: _resumed,
    StateImported: _imported,
    JournalCompacted: _imported,
}
