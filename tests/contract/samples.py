"""Facts, records and rows to fill a store with."""

from __future__ import annotations

from collections.abc import Sequence

from durable_flow.journal.protocol import Append, Claim, JournalStore, NewMessage, NewRun, RunUpdate, WorkerId
from durable_flow.records import (
    BufferReleased,
    CallRecorded,
    CheckpointNamed,
    ChildAsked,
    ChildEnded,
    ChildStarted,
    ContextDeleted,
    ContextSet,
    ContextSpliced,
    EffectReused,
    EncodedEvent,
    EncodedValue,
    ErrorInfo,
    EventCollected,
    EventEmitted,
    Fact,
    FanOutClosed,
    FanOutOpened,
    JoinFired,
    JournalCompacted,
    MessageReceived,
    PendingDropped,
    Record,
    RunAtRest,
    RunCancelled,
    RunClaimed,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    RunTimedOut,
    StateEdited,
    StateImported,
    StepCompleted,
    StepDiverged,
    StepFailed,
    StreamPublished,
    StreamReset,
    TaskId,
    TimerFired,
    TimerSet,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
    WaitTimedOut,
)
from durable_flow.snapshot import encode_state
from durable_flow.state import RunState

UNICODE = "größe 步骤 🦄 'quoted\" \\ % ; --\n\t"
ALL_BYTES = bytes(range(256))


def event(name: str = "Work", data: bytes = b"{}") -> EncodedEvent:
    return EncodedEvent(name, "json", 1, data)


def value(data: bytes = b"1") -> EncodedValue:
    return EncodedValue("json", data)


def worker(name: str = "worker-1") -> WorkerId:
    return WorkerId(name, "host", "boot-1", "pid:[4026531836]", 4711, 123456)


def wrote(key: str = "n", data: bytes = b"1") -> ContextSet:
    """A fact without any effect outside of the journal."""
    return ContextSet(key, value(data), TaskId(1, "a"), 1, 0)


def item_at(position: int) -> StreamPublished:
    return StreamPublished(position, (f"digest {position}",), TaskId(1, "a"), 1, 0, (event("Item"),))


def asks(wait_id: str, *wanted: str, human: bool = False, requirements: EncodedValue | None = None) -> WaitOpened:
    """A step's question for events of these names."""
    names = wanted or ("Answer",)
    return WaitOpened(wait_id, TaskId(1, "a"), 1, names[0], 0, False, names, requirements, None, None, human)


def answer(
    message_id: str | None = None, *, name: str = "Answer", wait_id: str | None = None, human: bool = False
) -> NewMessage:
    return NewMessage("event", message_id, event(name, b'{"yes": true}'), wait_id, human=human)


def numbered(facts: Sequence[Fact], *, after: int, at: int) -> list[Record]:
    """One group of records: the last one is the boundary."""
    return [Record(after + n, at, n == len(facts), fact) for n, fact in enumerate(facts, 1)]


async def create(
    store: JournalStore,
    run_id: str = "run-1",
    *facts: Fact,
    workflow: str = "Flow",
    status: str = "running",
    wake_at: int | None = None,
    owner: WorkerId | None = None,
) -> Claim:
    """Create a run that must not exist yet."""
    claim = await try_create(store, run_id, *facts, workflow=workflow, status=status, wake_at=wake_at, owner=owner)
    assert claim is not None
    return claim


async def try_create(
    store: JournalStore,
    run_id: str,
    *facts: Fact,
    workflow: str = "Flow",
    status: str = "running",
    wake_at: int | None = None,
    owner: WorkerId | None = None,
) -> Claim | None:
    started = RunStarted(workflow, f"uid of {run_id}", "shape-1", None)
    return await store.create(
        NewRun(run_id, f"uid of {run_id}", workflow, "shape-1"),
        numbered([started, *facts], after=0, at=store.now()),
        RunUpdate(status, wake_at),
        owner or worker(),
    )


class Owner:
    """Appends to a claimed run and counts its seq, as an engine does."""

    def __init__(self, store: JournalStore, claim: Claim):
        self.store = store
        self.run, self.run_id, self.epoch, self.seq = claim.run, claim.run_id, claim.epoch, claim.seq

    def next(self, *facts: Fact, update: RunUpdate | None = None, after: int | None = None) -> Append:
        """The append of these facts at the expected seq."""
        at = self.seq if after is None else after
        records = numbered(facts, after=at, at=self.store.now())
        return Append(self.run, self.run_id, at, self.epoch, records, update)

    async def append(self, *facts: Fact, update: RunUpdate | None = None) -> None:
        await self.store.append(self.next(*facts, update=update))
        self.seq += len(facts)


async def owned(store: JournalStore, run_id: str = "run-1", *facts: Fact) -> Owner:
    return Owner(store, await create(store, run_id, *facts))


async def facts_of(store: JournalStore, run: int) -> list[Fact]:
    return [record.fact for record in await store.read(run)]


_A = TaskId(2, "rank")
_B = TaskId(5, UNICODE)
_ERROR = ErrorInfo("builtins.ValueError", UNICODE, "Traceback (most recent call last):\n  ...")
_BYTES = EncodedEvent("Work", "pickle", 3, ALL_BYTES)

# Every kind at least once; optional fields with and without a value, empty tuples, text that is hard to quote.
FACTS: list[Fact] = [
    RunStarted("Flow", "uid", "shape", value(ALL_BYTES)),
    RunStarted(UNICODE, "uid", "", None),
    RunStarted("Flow", "uid", "shape", None, "run-1"),
    ChildStarted(_A, 1, 0, "Leg", "run-1.0f", value(ALL_BYTES)),
    ChildStarted(_B, 2, 3, UNICODE, "leg-7", None, True),
    ChildAsked(7, 4),
    ChildEnded(7, "completed"),
    RunClaimed(2, "worker-2"),
    MessageReceived(901, "mail-7", "answer"),
    MessageReceived(902, None, "cancel"),
    EventEmitted(_BYTES, None, 0, None, ("rank", UNICODE)),
    EventEmitted(event(UNICODE, b""), _A, 1, 0, (), "rank", None),
    EventEmitted(event(), _B, 2, 3, ("rank",), None, "wait-1"),
    EventEmitted(event(), _A, 1, None, ("a",), None, None),
    EventEmitted(event(), _A, 1, None, ("a",), joins=("gather", "pair.a|b/3")),
    EventEmitted(event(), _A, 1, None, (), joins=("gather",)),
    EventEmitted(event(), None, 0, None, (), joins=(UNICODE,)),
    EventEmitted(event(), _B, 2, 3, ("rank",), None, "wait-1", ("gather",)),
    FanOutOpened(_A, 1, ("gather", UNICODE), (0, 3)),
    FanOutOpened(_B, 2, (), ()),
    JoinFired("gather", 7, 3, (8, 9, 12)),
    JoinFired(UNICODE, 0, 0, ()),
    FanOutClosed(7),
    StepCompleted(_A, 1),
    StepCompleted(_B, 17),
    StepFailed(_A, 1, _ERROR, 1_700_000_000_000_000),
    StepFailed(_B, 2, ErrorInfo("E", ""), None),
    StepFailed(_A, 2, _ERROR, 1_700_000_000_000_000, None, None, value(ALL_BYTES), 1_600_000_000_000_000),
    StepFailed(_A, 3, _ERROR, None, UNICODE, event("StepFailedEvent", ALL_BYTES), None, 0),
    StepFailed(_B, 3, _ERROR, None, "rescue", _BYTES, value(), 7),
    ContextSet("n", value(), _A, 1, 0),
    ContextSet(UNICODE, EncodedValue("pickle", b""), None, 0, 2),
    ContextSpliced("n", 7, value(ALL_BYTES), _A, 1, 0),
    ContextSpliced(UNICODE, 0, value(b""), None, 0, 3),
    ContextDeleted("n", _B, 1, 1),
    ContextDeleted("", None, 0, 0),
    EventCollected(_A, 1, "buffer", 0, _BYTES),
    BufferReleased(_A, 1, UNICODE, 0, ("Work", "Other", "Work")),
    BufferReleased(_A, 1, "", 1, ()),
    WaitOpened("wait-1", _A, 1, "approval", 0, True, ("Answer", "No"), value(), 99, _BYTES, True, '{"type": "object"}'),
    WaitOpened("wait-2", None, 0, "Answer", 0, False, ("Answer",), None, None, None, False, None),
    WaitOpened("wait-3", _B, 2, UNICODE, 4, False, (), None, 0, event("Ask", b""), False),
    WaitOpened("wait-4", None, 0, "Answer", 0, False, ("Answer",), None, None, event("Ask"), True, None, 7),
    WaitAnswered("wait-1"),
    WaitTimedOut("wait-2"),
    WaitClosed("wait-3"),
    CallRecorded(_A, 1, "charge", 0, "digest", value(ALL_BYTES)),
    CallRecorded(_A, 1, UNICODE, 1, None, EncodedValue("json", b"")),
    EffectReused(_A, 2, "call", "charge", 0, 7),
    EffectReused(_B, 2, "wait", "", 1, 8),
    TimerSet(_A, 1, 0, 1_700_000_000_000_001),
    TimerFired(31),
    StreamPublished(1, ("d1", "d2"), _A, 1, 0),
    StreamPublished(3, ("d3",), None, 0, 0),
    StreamReset(_A, 1, 1, 4, 2),
    StepDiverged(_A, 1, "send_event", UNICODE, 0),
    CheckpointNamed(_A, 1, UNICODE, 0),
    RunAtRest(2),
    RunParked(UNICODE),
    RunResumed("someone"),
    RunCompleted(_BYTES, _A),
    RunCompleted(event("StopEvent", b""), None),
    RunFailed(_ERROR, "rank"),
    RunFailed(ErrorInfo("E", "", ""), None),
    RunCancelled(""),
    RunTimedOut(UNICODE),
    StateEdited(UNICODE, value(ALL_BYTES)),
    StateEdited("", None),
    PendingDropped(0),
    PendingDropped(7),
    StateImported(UNICODE, 7, encode_state(RunState(context={UNICODE: value(ALL_BYTES)}))),
    JournalCompacted(encode_state(RunState(seq=7, boundary=7, context={UNICODE: value(ALL_BYTES)}))),
]


def typed(found: object) -> object:
    """A value together with its types: named tuples of different classes are equal to each other."""
    if isinstance(found, (tuple, list)):
        return type(found).__name__, [typed(part) for part in found]
    return type(found).__name__, found
