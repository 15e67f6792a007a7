"""One run as the memory store keeps it, and what its records change besides the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..records import (
    EncodedValue,
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
from ..snapshot import decode_state, open_waits
from .delivery import Asked, answered_wait
from .protocol import (
    FINAL_STATUSES,
    Earlier,
    EarlierMessage,
    EarlierWait,
    MessageRow,
    NewMessage,
    NewRun,
    RunRow,
    SnapshotRow,
    StreamRow,
    WaitRow,
)

# A run that failed may be retried, so what its end closed is told apart from what was closed before.
_ENDED = "ended"


@dataclass(slots=True)
class MemoryRun:
    """All that is kept of one run.

    `messages` are the unconsumed ones, `undelivered` those that an end of the run left over, `sent` every message id
    there ever was.
    """

    run: int
    new: NewRun
    created_at: int
    status: str
    epoch: int
    owner: str | None
    wake_at: int | None = None
    updated_at: int = 0
    finished_at: int | None = None
    error: str | None = None
    records: list[Record] = field(default_factory=list)
    stream: list[StreamRow] = field(default_factory=list)
    waits: dict[str, WaitRow] = field(default_factory=dict)
    messages: dict[int, MessageRow] = field(default_factory=dict)
    undelivered: dict[int, MessageRow] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    snapshots: dict[int, SnapshotRow] = field(default_factory=dict)
    # Retention: the seq of the first record that is kept, and what the row says of it.
    first: int = 1
    compacted_at: int | None = None
    pruned_at: int | None = None
    parent_id: str | None = None

    @property
    def seq(self) -> int:
        """The last record's."""
        return self.first - 1 + len(self.records)

    def between(self, after: int, to: int | None) -> list[Record]:
        """Return the records with after < seq <= to."""
        gone = self.first - 1
        return self.records[max(0, after - gone) : None if to is None else max(0, to - gone)]

    def compact(self, record: Record, now: int) -> bool:
        """Put a record in the place of those up to its seq; tell whether there is such a boundary."""
        there = self.between(record.seq - 1, record.seq)
        if [(r.seq, r.at, r.boundary) for r in there] != [(record.seq, record.at, True)]:
            return False
        self.records = [record, *self.between(record.seq, None)]
        self.first, self.compacted_at = record.seq, now
        self.snapshots = {seq: kept for seq, kept in self.snapshots.items() if seq > record.seq}
        return True

    def prune(self, record: Record, now: int) -> bool:
        """Forget all of a run that has ended but one record."""
        if not self.compact(record, now):
            return False
        self.pruned_at = now
        self.epoch += 1
        self.owner = None
        for kept in (self.stream, self.waits, self.messages, self.undelivered, self.sent, self.snapshots):
            kept.clear()
        return True

    def row(self) -> RunRow:
        """Return the run as a row of `runs`."""
        run_id, uid, workflow, shape, _, parent_seq = self.new
        return RunRow(
            self.run, run_id, uid, workflow, shape, self.status, self.epoch, self.owner, self.wake_at, self.created_at,
            self.updated_at, self.finished_at, self.error, self.seq, bool(self.messages), self.parent_id, parent_seq,
            self.first, self.compacted_at, self.pruned_at,
        )  # fmt: skip

    def change(self, status: str, wake_at: int | None, now: int) -> None:
        """Set what every change of the row sets. A run that has ended has no owner."""
        self.status, self.wake_at, self.updated_at = status, wake_at, now
        if status not in FINAL_STATUSES:
            self.finished_at = None
        else:
            self.owner = None
            self.finished_at = self.finished_at or now

    def keep(self, records: Iterable[Record]) -> None:
        """Keep the records and bring streams, waits and messages up to date."""
        for record in records:
            fact = record.fact
            match fact:
                case StreamPublished():
                    task, step = fact.task if fact.task is not None else (None, None)
                    for position, event in enumerate(fact.items, fact.first):
                        self.stream.append(StreamRow(position, record.at, step, event, fact.wait_id, None, task))
                    record = record._replace(fact=fact._replace(items=()))
                case StreamReset():
                    self.stream.append(
                        StreamRow(fact.position, record.at, fact.task.step, None, None, fact.since, fact.task.seq)
                    )
                case WaitOpened():
                    self.ask(fact, record.at)
                case StateImported() | JournalCompacted():
                    imported = decode_state(fact.state)
                    for wait, opened_at in open_waits(imported):
                        self.ask(wait, opened_at)
                    if imported.ended:
                        for wait_id in self.waits:
                            self.settle(wait_id, _ENDED)
                case WaitAnswered():
                    self.settle(fact.wait_id, "answered")
                case WaitTimedOut():
                    self.settle(fact.wait_id, "timed_out")
                case WaitClosed():
                    self.settle(fact.wait_id, "closed")
                case MessageReceived():
                    self.messages.pop(fact.row, None)
                    self.undelivered.pop(fact.row, None)
                    if fact.message_id is not None:
                        self.sent.add(fact.message_id)
                case RunCompleted() | RunFailed() | RunCancelled() | RunTimedOut():
                    for wait_id in self.waits:
                        self.settle(wait_id, _ENDED)
                    self.undelivered |= self.messages
                    self.messages.clear()
                case RunResumed():
                    self.resume()
                case _:
                    pass  # every other fact is a row of the journal and no more
            self.records.append(record)

    def keep_earlier(self, rows: Iterable[Earlier]) -> None:
        """Keep what belongs to records that were compacted in another journal."""
        for row in rows:
            match row:
                case StreamRow():
                    self.stream.append(row)
                case EarlierWait():
                    strict = EncodedValue("json", b"{}") if row.strict else None
                    self.ask(
                        WaitOpened(
                            row.wait_id, None, 0, "", 0, False, row.wanted, strict, None, None, row.human
                        ),
                        row.opened_at,
                    )  # fmt: skip
                    self.settle(row.wait_id, row.outcome)
                case EarlierMessage():
                    self.sent.add(row.message_id)

    def ask(self, wait: WaitOpened, at: int) -> None:
        """Keep an open wait. Asked again under its own name, a question is as young as the others of now."""
        self.waits.pop(wait.wait_id, None)
        self.waits[wait.wait_id] = WaitRow(
            self.run, self.new.run_id, self.new.workflow, wait.wait_id,
            wait.task.step if wait.task is not None else None, wait.wanted, wait.prompt, wait.schema,
            wait.requirements, wait.deadline, wait.human, at, None,
        )  # fmt: skip

    def settle(self, wait_id: str, outcome: str) -> None:
        """Give an open wait its outcome; the first one stays."""
        wait = self.waits.get(wait_id)
        if wait is not None and wait.outcome is None:
            self.waits[wait_id] = wait._replace(outcome=outcome)

    def resume(self) -> None:
        """Take back what the end of the run did to its waits and messages; a cancel that came too late stays so."""
        for wait_id, wait in self.waits.items():
            if wait.outcome == _ENDED:
                self.waits[wait_id] = wait._replace(outcome=None)
        self.messages |= {row: message for row, message in self.undelivered.items() if message.kind != "cancel"}
        self.undelivered.clear()

    def bind(self, message: NewMessage) -> str | None:
        """Return the wait that the message answers, None if it answers none. Raises AlreadyAnsweredError."""
        # Only the unconsumed: an answer that the run took and did not accept leaves its question open.
        taken = {row.wait_id for row in self.messages.values()}
        named = self.waits.get(message.wait_id) if message.wait_id is not None else None

        def asked(waits: Iterable[WaitRow]) -> Iterator[Asked]:
            for wait in waits:
                yield Asked(
                    wait.wait_id, wait.outcome, wait.wanted, wait.requirements is not None, wait.wait_id in taken
                )

        if named is not None:
            return answered_wait(message, self.new.run_id, asked([named]))
        still_open = asked(wait for wait in self.waits.values() if wait.outcome is None)
        settled = asked(wait for wait in reversed(self.waits.values()) if wait.outcome is not None)
        return answered_wait(message, self.new.run_id, still_open, settled)
