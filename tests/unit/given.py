"""Given a run's records, when something reaches it, then these facts: the words in which rules are tested.

`given` takes groups: a fact is a group of its own, a tuple of facts is one group. Times are seconds; a group comes one
second after the one before, unless `at` says when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from durable_flow.decide import decide
from durable_flow.fold import evolve, fold
from durable_flow.incoming import Incoming, StepReturned
from durable_flow.records import (
    EncodedEvent,
    EncodedValue,
    ErrorInfo,
    EventEmitted,
    Fact,
    Record,
    RunStarted,
    StepCompleted,
    StepFailed,
    StreamPublished,
    TaskId,
    WaitOpened,
)
from durable_flow.state import RunState

SECOND = 1_000_000
ERROR = ErrorInfo("builtins.ValueError", "wrong")


class At(NamedTuple):
    """A group of facts with its time."""

    seconds: float
    facts: tuple[Fact, ...]


Group = Fact | tuple[Fact, ...] | At


def at(seconds: float, *facts: Fact) -> At:
    return At(seconds, facts)


def event(name: str = "Work", data: str = "{}") -> EncodedEvent:
    return EncodedEvent(name, "json", 1, data.encode())


def value(data: object) -> EncodedValue:
    return EncodedValue("json", repr(data).encode())


def emitted(
    name: str,
    *targets: str,
    by: TaskId | None = None,
    attempt: int | None = None,
    k: int | None = None,
    answers: str | None = None,
    data: str = "{}",
) -> EventEmitted:
    """An event; with `k` it was sent, without it was returned or came from outside."""
    if attempt is None:
        attempt = 0 if by is None else 1
    return EventEmitted(event(name, data), by, attempt, k, targets, None, answers)


def started(*targets: str) -> tuple[Fact, ...]:
    """The first group of every run; its event has seq 2."""
    return (RunStarted("Flow", "uid", "shape", None), emitted("Start", *targets))


def task(step: str, seq: int = 2) -> TaskId:
    return TaskId(seq, step)


def completed(task_id: TaskId, attempt: int = 1) -> StepCompleted:
    return StepCompleted(task_id, attempt)


def failed(task_id: TaskId, attempt: int = 1, retry_at: float | None = None) -> StepFailed:
    return StepFailed(task_id, attempt, ERROR, None if retry_at is None else round(retry_at * SECOND))


def handled(task_id: TaskId, handler: str, attempt: int = 1) -> StepFailed:
    """A failure that a handler takes: the record delivers it."""
    return StepFailed(task_id, attempt, ERROR, None, handler, event("StepFailedEvent"))


def returned(task_id: TaskId, *events: object, drafts: tuple[Fact, ...] = (), stop: EncodedEvent | None = None):
    return StepReturned(task_id, 1, drafts, events, stop)


def wait(
    wait_id: str,
    wanted: str,
    by: TaskId | None = None,
    *,
    attempt: int | None = None,
    k: int = 0,
    name: str | None = None,
    deadline: float | None = None,
    prompt: EncodedEvent | None = None,
    human: bool = False,
) -> WaitOpened:
    """An open wait: of a step (`by`), or of a returned question."""
    return WaitOpened(
        wait_id,
        by,
        (0 if by is None else 1) if attempt is None else attempt,
        wanted if name is None else name,
        k,
        name is not None,
        (wanted,),
        None,
        None if deadline is None else round(deadline * SECOND),
        prompt,
        human,
    )


def published(first: int, *names: str, by: TaskId | None = None, attempt: int = 1, k: int = 0) -> StreamPublished:
    """Items of a step, one digest each: their names."""
    return StreamPublished(first, names, by, 0 if by is None else attempt, k, tuple(event(name) for name in names))


def numbered(groups: Iterable[Group]) -> list[Record]:
    """Give facts their places: seq without gaps, a time per group, the boundary on each group's last."""
    records: list[Record] = []
    now = 0
    for group in groups:
        if isinstance(group, At):
            now, facts = round(group.seconds * SECOND), group.facts
        else:
            now, facts = now + SECOND, (group,) if _is_fact(group) else group
        records += [Record(len(records) + n, now, n == len(facts), fact) for n, fact in enumerate(facts, 1)]
    return records


def _is_fact(group: object) -> bool:
    return hasattr(group, "_fields")


class Then(NamedTuple):
    """What came out: the facts of every decision, and the state after them."""

    facts: list[Fact]
    state: RunState

    def then(self, *expected: Fact) -> Then:
        assert self.facts == list(expected)
        return self

    def then_nothing(self) -> Then:
        return self.then()

    def then_status(self, status: str) -> Then:
        assert self.state.status == status
        return self


class Given:
    """A run whose journal holds these groups."""

    def __init__(self, groups: Sequence[Group]):
        self.records = numbered(groups)
        self.state = fold(self.records)

    def when(self, *incoming: Incoming, at: float | None = None) -> Then:
        """Decide about each in turn, as one turn of the loop does: the later ones see what the earlier changed."""
        now = self.state.last_at + SECOND if at is None else round(at * SECOND)
        result: list[Fact] = []
        for item in incoming:
            facts = decide(self.state, item)
            for n, fact in enumerate(facts, 1):
                evolve(self.state, Record(self.state.seq + 1, now, n == len(facts), fact))
            result += facts
        return Then(result, self.state)


def given(*groups: Group) -> Given:
    return Given(groups)
