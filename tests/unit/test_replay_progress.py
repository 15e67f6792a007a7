"""Where a step stood in its history: when it began, and what of the context it can have seen at each own record."""

from __future__ import annotations

from typing import Any

from durable_flow.engine.replaying.progress import Progress
from durable_flow.records import (
    CallRecorded,
    ContextSet,
    EncodedEvent,
    EncodedValue,
    ErrorInfo,
    EventEmitted,
    Fact,
    Record,
    RunClaimed,
    RunStarted,
    StepCompleted,
    StepFailed,
    TaskId,
    WaitOpened,
)

EVENT = EncodedEvent("E", "json", 1, b"{}")
A, B, C = TaskId(2, "a"), TaskId(2, "b"), TaskId(2, "c")


def value(n: int) -> EncodedValue:
    return EncodedValue("json", str(n).encode())


def wrote(task: TaskId | None, n: int, key: str = "x", attempt: int = 1, k: int = 0) -> ContextSet:
    return ContextSet(key, value(n), task, attempt, k)


def called(task: TaskId, k: int = 0) -> CallRecorded:
    return CallRecorded(task, 1, "f", k, None, value(0))


class History:
    """Groups of facts, each at its time, taken as a replay takes them."""

    def __init__(self, *targets: str, num_workers: int = 4):
        self.progress = Progress(dict.fromkeys("abc", num_workers))
        self.seq, self.at = 0, 1
        self.add(RunStarted("W", "u", "", None), EventEmitted(EVENT, None, 0, None, targets))

    def add(self, *facts: Fact, at: int | None = None) -> History:
        at = self.at + 1 if at is None else at
        if at != self.at:
            self.progress.time_passes(at)
        self.at = at
        records = [Record(self.seq + n, at, n == len(facts), fact) for n, fact in enumerate(facts, 1)]
        self.seq += len(facts)
        self.progress.take_group(records)
        return self

    def x(self, values: Any) -> int | None:
        return None if "x" not in values else int(values["x"].data)

    def began_with(self, task: TaskId) -> int | None:
        return self.x(self.progress.marks(task)[0].after)


def test_a_step_begins_with_what_was_there_when_its_event_was_durable() -> None:
    history = History("a", "b").add(wrote(B, 1), called(B)).add(wrote(B, 2, k=1), called(B, 1))
    assert history.began_with(A) is None
    assert history.began_with(B) is None


def test_between_groups_of_one_append_nothing_begins() -> None:
    history = History("a", "b")
    # Appended together with the start.
    history.add(wrote(None, 5), at=history.at).add(wrote(None, 6))
    assert history.began_with(A) == history.began_with(B) == 5


def test_a_step_waits_for_a_free_worker_in_the_order_of_the_events() -> None:
    history = History("a", num_workers=1)
    history.add(EventEmitted(EVENT, None, 0, None, ("a",)))
    second = TaskId(history.seq, "a")
    history.add(wrote(A, 1), called(A)).add(wrote(A, 2, k=1), StepCompleted(A, 1))
    history.add(wrote(None, 3))
    assert history.began_with(second) == 2


def test_a_step_that_waits_gives_its_worker_to_the_next() -> None:
    history = History("a", num_workers=1)
    history.add(EventEmitted(EVENT, None, 0, None, ("a",)))
    second = TaskId(history.seq, "a")
    history.add(wrote(A, 1), WaitOpened("w1", A, 1, "E", 0, False, ("E",), None, None, None, False))
    history.add(wrote(None, 2)).add(wrote(None, 3))
    assert history.began_with(second) == 1


def test_a_retry_begins_not_before_its_time() -> None:
    history = History("a")
    history.add(StepFailed(A, 1, ErrorInfo("E", "e"), 50)).add(wrote(None, 1), at=40).add(wrote(None, 2), at=60)
    assert history.began_with(A) == 1


def test_after_a_claim_every_step_begins_anew() -> None:
    history = History("a", "b").add(wrote(B, 1), called(B)).add(RunClaimed(2, "w", "v")).add(wrote(None, 9))
    assert history.began_with(A) == history.began_with(B) == 1
    assert len(history.progress.marks(B)) == 1  # what it had recorded before moves it no more


def test_at_each_own_record_the_context_before_and_after_it_is_known() -> None:
    history = History("a", "b").add(wrote(B, 1)).add(wrote(A, 2), called(A)).add(wrote(B, 3, k=1), called(B))
    start, write, call = history.progress.marks(A)
    assert (history.x(start.after), history.x(write.before), history.x(write.after)) == (None, 1, 2)
    assert (history.x(call.before), history.x(call.after)) == (2, 2)
    assert history.x(history.progress.context()) == 3


def test_what_a_commit_carries_of_others_was_seen_before_it() -> None:
    history = History("a", "b", "c").add(wrote(B, 1), wrote(C, 1, "y"), called(A))
    [_, call] = history.progress.marks(A)
    assert call.seen == {"x", "y"}
    # They were carried, and have read nothing by that.
    assert all(mark.seen == frozenset() for task in (B, C) for mark in history.progress.marks(task))


def test_equal_contexts_are_one_object() -> None:
    history = History("a", "b").add(called(A)).add(called(B))
    [start, call] = history.progress.marks(A)
    assert start.after is call.before is call.after is history.progress.marks(B)[-1].after
