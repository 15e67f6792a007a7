"""A store that keeps one run's records over simulated processes, and is slow or dies where the seed says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from durable_flow.errors import RunFenced
from durable_flow.fold import evolve, fold
from durable_flow.journal.protocol import Append, Claim, MessageRow
from durable_flow.records import (
    EncodedEvent,
    JournalCompacted,
    MessageReceived,
    Record,
    RunClaimed,
    StreamPublished,
    StreamReset,
    TaskId,
)
from durable_flow.snapshot import encode_state
from durable_flow.state import RunState

from .loop import VirtualLoop

RUN, RUN_ID, UID = 1, "simulated", "0123456789abcdef0123456789abcdef"
BEGINNING = 1_700_000_000_000_000


class Killed(Exception):
    """The simulated process dies at this point."""


@dataclass
class _Pending:
    append: Append
    future: asyncio.Future[None]
    turns_to_commit: int
    turns_to_acknowledge: int
    committed: bool = False
    error: RunFenced | None = None


class SimulatedStore:
    """As much of a JournalStore as a Run uses, and what a claiming engine asks.

    `now`, `submit`, and the synchronous `create`, `claim`, `messages` and `send`. `kill_point` is called before each
    commit and after it (before the acknowledgement); what it raises leaves the append as it is.
    """

    def __init__(self, loop: VirtualLoop, rng: random.Random, kill_point: Callable[[str], None], max_delay: int):
        self.loop = loop
        self.records: list[Record] = []
        # What a process reads that takes the run up: without what was compacted.
        self.kept: list[Record] = []
        self.state = RunState()
        self.stream: list[tuple[int, TaskId | None, EncodedEvent | None, int | None]] = []
        self.epoch = 0
        self.delays: list[int] | None = None
        self.on_commit: Callable[[Append], None] = lambda append: None
        self._rng = rng
        self._kill_point = kill_point
        self._max_delay = max_delay
        self._pending: list[_Pending] = []
        self._messages: dict[int, MessageRow] = {}
        self._consumed: set[int] = set()

    def now(self) -> int:
        return BEGINNING + round(self.loop.now * 1_000_000)

    # -- What an engine does when it takes a run -----------------------------------------------------------------------

    def adopt(self, other: SimulatedStore, to: int) -> None:
        """Begin with the first records of another store's run, and what belongs to them in other tables."""
        self._keep(other.records[:to])
        self.stream = [item for item in other.stream if item[0] <= self.state.position]
        self._messages = {row: message for row, message in other._messages.items() if row in self._consumed}
        self.epoch = max((r.fact.epoch for r in self.records if isinstance(r.fact, RunClaimed)), default=1)

    def create(self, records: Sequence[Record]) -> Claim:
        self._keep(records)
        self.epoch = 1
        return Claim(RUN, RUN_ID, UID, 1, len(self.records))

    def claim(self) -> Claim:
        self.epoch += 1
        at = max(self.now(), self.state.last_at)
        claimed = RunClaimed(self.epoch, f"process {self.epoch}")
        self._keep([Record(len(self.records) + 1, at, True, claimed)])
        return Claim(RUN, RUN_ID, UID, self.epoch, len(self.records))

    def compact(self, rng: random.Random) -> None:
        """Put one record in the place of those up to a boundary, wherever the owner's next append is by now."""
        at = rng.choice([n for n, record in enumerate(self.kept, 1) if record.boundary])
        last = self.kept[at - 1]
        standing = JournalCompacted(encode_state(fold(self.kept[:at])))
        self.kept[:at] = [Record(last.seq, last.at, True, standing)]

    # -- What a Run does -----------------------------------------------------------------------------------------------

    def submit(self, append: Append) -> asyncio.Future[None]:
        assert all(p.append.epoch != append.epoch for p in self._pending), "a run has one append in flight at most"
        assert append.records, "an append has at least one record"
        future: asyncio.Future[None] = self.loop.create_future()
        delays = self.delays or [self._rng.randrange(self._max_delay + 1) for _ in range(2)]
        self._pending.append(_Pending(append, future, delays[0], delays[1]))
        return future

    # -- Messages ------------------------------------------------------------------------------------------------------

    def send(self, kind: str, event: EncodedEvent | None, wait_id: str | None = None) -> None:
        """Put a message into the table; it is durable at once."""
        row = len(self._messages) + 1
        reason = "cancelled" if kind == "cancel" else None
        self._messages[row] = MessageRow(row, RUN, f"message-{row}", kind, event, wait_id, None, reason)

    def messages(self) -> list[MessageRow]:
        """Return the unconsumed messages."""
        return [m for m in self._messages.values() if m.id not in self._consumed]

    def has_answer_for(self, wait_id: str) -> bool:
        return any(m.wait_id == wait_id for m in self._messages.values())

    # -- Time ----------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Tell whether an append is under way."""
        return bool(self._pending)

    def turn(self) -> None:
        """Let one turn of the loop pass: commit what is due, acknowledge what is due."""
        for pending in list(self._pending):
            if not pending.committed:
                if pending.turns_to_commit:
                    pending.turns_to_commit -= 1
                    continue
                if pending.append.epoch == self.epoch:
                    self._kill_point("before the commit")
                self._commit(pending)
                if pending.error is None:
                    self._kill_point("after the commit")
            elif pending.turns_to_acknowledge:
                pending.turns_to_acknowledge -= 1
            else:
                self._pending.remove(pending)
                if pending.future.done():
                    continue
                if pending.error is not None:
                    pending.future.set_exception(pending.error)
                else:
                    pending.future.set_result(None)

    def disconnect(self, epoch: int) -> None:
        """Forget what that process still had under way; it gets no acknowledgement."""
        self._pending = [p for p in self._pending if p.append.epoch != epoch]

    def _commit(self, pending: _Pending) -> None:
        append = pending.append
        pending.committed = True
        if append.epoch != self.epoch:
            pending.error = RunFenced(f"epoch {append.epoch} is older than {self.epoch}")
            return
        assert append.after == len(self.records), "the owner's append does not follow its journal"
        self._keep(append.records)
        self.on_commit(append)

    def _keep(self, records: Sequence[Record]) -> None:
        assert [r.seq for r in records] == list(range(len(self.records) + 1, len(self.records) + len(records) + 1))
        assert records[-1].boundary, "an append ends with a boundary"
        for record in records:
            assert record.at >= self.state.last_at, "the times of a run never go back"
            assert not self.state.ended, f"{record.fact} follows the run's end"
            match record.fact:
                case StreamPublished() as fact:
                    for n, item in enumerate(fact.items):
                        self.stream.append((fact.first + n, fact.task, item, None))
                    record = record._replace(fact=fact._replace(items=()))
                case StreamReset() as fact:
                    self.stream.append((fact.position, fact.task, None, fact.since))
                case MessageReceived() as fact:
                    assert fact.row not in self._consumed, "a message was consumed twice"
                    self._consumed.add(fact.row)
                case _:
                    pass
            self.records.append(record)
            self.kept.append(record)
            evolve(self.state, record)
