"""The storage protocol: what the engine asks of a database. Implementations keep facts and never decide."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..records import EncodedEvent, EncodedValue, Record
from ..state import NEEDS_ATTENTION

FINAL_STATUSES = frozenset({"completed", "failed", "timed_out", "cancelled", "terminated"})

# What is called with the keys of runs that others have written to; None: any may be among them.
Heard = Callable[[Collection[int] | None], None]


def is_at_rest(status: str) -> bool:
    """Tell whether a run of this status goes on only if somebody asks for it: its owner leaves it without a trace."""
    return status in FINAL_STATUSES or status == NEEDS_ATTENTION


@dataclass(frozen=True, slots=True)
class WorkerId:
    """One engine instance (one event loop on one database).

    `boot` and `namespace` tell whether two workers can see each other's processes; `started` (clock ticks since boot)
    tells a process from a later one of the same pid.
    """

    id: str
    host: str
    boot: str
    namespace: str
    pid: int
    started: int


class NewRun(NamedTuple):
    """A run to be created. `parent` is the key of the run that it is forked from, `parent_seq` the checkpoint's seq."""

    run_id: str
    uid: str
    workflow: str
    shape: str
    parent: int | None = None
    parent_seq: int | None = None


class RunUpdate(NamedTuple):
    """What of a run's row changes with an append.

    `wake_at` is the earliest time (us) at which a run that is not in memory must be taken up; None: only a message
    wakes it. `error` is one line for a failed or parked run. `release` gives up the claim.
    """

    status: str
    wake_at: int | None = None
    error: str | None = None
    release: bool = False


class Append(NamedTuple):
    """Records for one run: refused whole unless `after` is its last seq and `epoch` its current epoch."""

    run: int
    run_id: str
    after: int
    epoch: int
    records: Sequence[Record]
    update: RunUpdate | None = None


class Claim(NamedTuple):
    """Ownership of a run until a higher epoch exists. `run` is the key of its row, `seq` its last record's."""

    run: int
    run_id: str
    uid: str
    epoch: int
    seq: int


class RunRow(NamedTuple):
    """A row of `runs`; times in microseconds. `seq` is its last record's; `message` tells of unconsumed messages.

    `parent` is the run id of the run that it was forked from, `parent_seq` the seq of the checkpoint there. `first` is
    the seq of the first record that is kept, `compacted_at` since when, `pruned_at` when all but the outcome was
    forgotten.
    """

    run: int
    run_id: str
    uid: str
    workflow: str
    shape: str
    status: str
    epoch: int
    owner: str | None
    wake_at: int | None
    created_at: int
    updated_at: int
    finished_at: int | None
    error: str | None
    seq: int
    message: bool
    parent: str | None = None
    parent_seq: int | None = None
    first: int = 1
    compacted_at: int | None = None
    pruned_at: int | None = None


class MessageRow(NamedTuple):
    """An unconsumed message. `kind` is event, answer or cancel; `event` is None for cancel."""

    id: int
    run: int
    message_id: str
    kind: str
    event: EncodedEvent | None
    wait_id: str | None
    step: str | None
    reason: str | None


class NewMessage(NamedTuple):
    """A message to be sent. A wait of the event's type is looked up unless `wait_id`; no `message_id`: it gets one.

    `asked_only`: it is refused with NotAsked unless an open question of the run may take it.
    """

    kind: str
    message_id: str | None = None
    event: EncodedEvent | None = None
    wait_id: str | None = None
    step: str | None = None
    reason: str | None = None
    human: bool = False
    asked_only: bool = False


class WaitRow(NamedTuple):
    """A row of `waits`; `outcome` is None while it is open, else answered, timed_out or closed."""

    run: int
    run_id: str
    workflow: str
    wait_id: str
    step: str | None
    wanted: tuple[str, ...]
    prompt: EncodedEvent | None
    schema: str | None
    requirements: EncodedValue | None
    deadline: int | None
    human: bool
    opened_at: int
    outcome: str | None


class StreamRow(NamedTuple):
    """A published item. `reset_since` is set on a reset, whose `event` is None.

    `step` and `task` (its event's seq) are who published it: a reset voids items of its own task only.
    """

    position: int
    at: int
    step: str | None
    event: EncodedEvent | None
    wait_id: str | None
    reset_since: int | None
    task: int | None = None


class ImportedRun(NamedTuple):
    """What the row of a run from another journal says; times in microseconds. Nobody owns it.

    `parent_uid` is the uid of the run that it was forked from: its parent here, if this journal has that run too.
    `first` is the seq of its first record, `compacted_at` since when, if those before were compacted.
    """

    new: NewRun
    status: str
    epoch: int
    wake_at: int | None
    created_at: int
    updated_at: int
    finished_at: int | None
    error: str | None
    parent_uid: str | None = None
    first: int = 1
    compacted_at: int | None = None


class EarlierWait(NamedTuple):
    """A wait that is over, of which no record tells any more. `strict`: it had requirements; times in microseconds."""

    wait_id: str
    outcome: str
    wanted: tuple[str, ...]
    strict: bool
    human: bool
    opened_at: int


class EarlierMessage(NamedTuple):
    """The id of a message that the run has taken, of which no record tells any more: a repetition stays one."""

    message_id: str


Earlier = StreamRow | EarlierWait | EarlierMessage
"""What the rows of a run that was compacted tell of the time before: items, waits that are over, messages taken."""


class ImportedPage(NamedTuple):
    """Records as another journal has them, with the items that they published, all written in one epoch.

    `earlier` is what belongs to the records that were compacted into the first one.
    """

    epoch: int
    records: Sequence[Record]
    earlier: Sequence[Earlier] = ()


class ImportedMessage(NamedTuple):
    """A message that a run has not taken; `undelivered`: an end of the run has left it over."""

    message: MessageRow
    undelivered: bool


class SnapshotRow(NamedTuple):
    """A folded state as of boundary `seq`, a disposable cache. `payload` is it as bytes, compressed.

    `hash` covers the payload, `seq`, `fold_version` and `uid`. `run_id` and `uid` are the run's own, not stored again.
    """

    run_id: str
    uid: str
    seq: int
    fold_version: int
    hash: str
    payload: bytes
    at: int


class JournalStore(Protocol):
    """Where journals are kept. Every method may raise JournalUnavailableError; none leaves anything half-written."""

    url: str
    """The database's URL, password masked."""

    async def open(self) -> None:
        """Connect, and create or upgrade the schema where that is this store's business. May be called again."""

    async def close(self) -> None:
        """Finish the writes that are under way and give back every connection and thread."""

    def now(self) -> int:
        """Return the database's time in microseconds."""

    async def create(self, new: NewRun, records: Sequence[Record], update: RunUpdate, worker: WorkerId) -> Claim | None:
        """Create a run with its first records, owned by `worker` at epoch 1; None if the run id exists.

        Goes through the same group commit as `append`.
        """

    async def append(self, append: Append) -> None:
        """Make the records durable. Raises RunFenced (nothing was written), JournalUnavailableError when it could not
        be written before the self-fence deadline, or WriteOutcomeUnknown when it may have been.
        """

    def submit(self, append: Append) -> asyncio.Future[None]:
        """Queue an append in the loop's thread; the future ends as `append` would. The engine's hot path.

        Raises SerializationError or PayloadTooLargeError at once for what the database would refuse.
        """

    async def import_run(
        self, run: ImportedRun, pages: Callable[[], Iterable[ImportedPage]], messages: Sequence[ImportedMessage]
    ) -> int | None:
        """Write a run as it is in another journal, all of it or nothing, and return its key; None if its run id exists.

        `pages` may be asked for more than once, from another thread. Messages that records have taken keep their ids.
        Raises RunConflictError if the journal has a run with this uid, and what `pages` raises.
        """

    async def claim(self, run: int, worker: WorkerId, *, epoch: int, status: str) -> Claim | None:
        """Take the run if its epoch is still `epoch`: set the owner and epoch + 1, then append `RunClaimed`, a group
        of its own, at max(seq) + 1. None if somebody else was faster or is writing the run at this moment, or if the
        run has ended or needs attention and `status`, which the caller has seen, says otherwise. Whether the run may be
        taken (owner gone, due, a message waits) is the caller's decision. Source: fencing tokens, Kleppmann 2016.
        """

    async def release(self, run: int, epoch: int, status: str, wake_at: int | None) -> None:
        """Give up a claim; a no-op if the epoch is no longer the run's."""

    async def read(self, run: int, after: int = 0, to: int | None = None, limit: int | None = None) -> list[Record]:
        """Return the records with after < seq <= to, in order; of a run that was compacted only those that are kept."""

    async def snapshot(self, run: int, at: int | None = None) -> SnapshotRow | None:
        """Return the newest snapshot at or before a seq (None: at all), as it is stored; `folding` judges it.

        Raises DeserializationError if its seal cannot be opened.
        """

    async def save_snapshot(self, run: int, row: SnapshotRow, replacing: int) -> None:
        """Keep a snapshot in the place of those with `replacing` <= seq <= its own. Nothing may rest on it.

        Nothing is kept if the run is gone, was pruned, or was compacted beyond it.
        """

    async def compact(self, row: RunRow, record: Record) -> bool:
        """Put a JournalCompacted in the place of a run's records up to its seq, in one short transaction.

        From then on nothing shows the records before it; `purge` deletes them. Whoever owns the run goes on. False if
        no boundary is at that seq any more, as the run was compacted beyond it, pruned or removed.
        """

    async def prune(self, row: RunRow, record: Record | None) -> bool:
        """Put a JournalCompacted in the place of all records of a run that has ended, and forget what else there is of
        it, in one short transaction; `purge` deletes the rows. None: the run and its row are gone, and its forks keep
        the id of their parent. False if the run is not any more as `row` says.
        """

    async def purge(self, limit: int) -> int:
        """Delete some of what `compact` and `prune` have left, at most so many rows of a table, and return how many
        rows there were; 0: nothing is left.
        """

    async def stream(self, run: int, after: int = 0, limit: int = 1000) -> list[StreamRow]:
        """Return published items with position > after, in order."""

    async def asked(self, run: int) -> list[str]:
        """Return the wait ids of the questions that a run has published, in order."""

    async def answered(self, run: int) -> frozenset[str]:
        """Return the ids of the waits of a run that were answered."""

    async def earlier(self, run: int) -> tuple[list[EarlierWait], list[EarlierMessage]]:
        """Return the waits of a run that are over, in the order of their opening, and the messages that it has taken,
        also those that records tell of.
        """

    async def find(self, run_id: str) -> RunRow | None:
        """Return the run's row."""

    async def find_many(self, runs: Sequence[int]) -> list[RunRow]:
        """Return the rows of these keys."""

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
        """Return runs, newest first; `before` is the key of the last row of the page before.

        `parent` is the key of the run that they were forked from, `ended_before` a time in microseconds.
        """

    async def waits(self, run: int | None = None, *, human: bool = False, limit: int | None = None) -> list[WaitRow]:
        """Return open waits, oldest first, of one run or of all unfinished runs."""

    async def send(self, run: int, message: NewMessage) -> bool:
        """Insert a message; False if this message_id was sent before. Raises RunFinishedError, AlreadyAnsweredError."""

    async def messages(self, runs: Sequence[int]) -> list[MessageRow]:
        """Return the unconsumed messages of these runs in id order."""

    async def unconsumed(self, run: int) -> list[ImportedMessage]:
        """Return the messages that the run has not taken, also those that an end of it has left over, in id order."""

    async def waiting_messages(self, worker: WorkerId) -> list[int]:
        """Return the keys of the runs owned by `worker` that have unconsumed messages. Cheap: it is polled."""

    async def heartbeat(self, worker: WorkerId) -> None:
        """Insert or refresh the worker's row with the database's time."""

    def beat(self, worker: WorkerId) -> bool:
        """Refresh the worker's heartbeat from any thread; tell whether it became durable in time."""

    def abandon(self, worker: WorkerId) -> None:
        """Retire the worker and close, from a thread, when its event loop has ended without closing the store."""

    async def workers(self) -> list[tuple[WorkerId, int]]:
        """Return every worker with its last heartbeat in microseconds."""

    async def retire(self, worker: WorkerId) -> None:
        """Delete the worker's row and give up its claims of unfinished runs."""

    async def forget(self, worker: WorkerId) -> None:
        """Delete the row of a worker that is gone, unless an unfinished run still names it as its owner."""

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Call `heard` in this loop soon after others have written something that concerns runs: with their keys, or
        None for "look at all".

        Only a hint, which may get lost: whoever needs to know polls as well. Returns what ends the listening.
        """

    def stats(self) -> dict[str, Any]:
        """Return counters: commits, rows and appends since the store was opened."""
