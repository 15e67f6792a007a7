"""What every store does with streams, waits and messages: what a run says to others, and they to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_flow.errors import (
    AlreadyAnsweredError,
    RunFenced,
    RunFinishedError,
    RunNotFoundError,
    SerializationError,
)
from durable_flow.journal import calls, memory_run
from durable_flow.journal.delivery import Asked, NotAsked
from durable_flow.journal.protocol import JournalStore, MessageRow, NewMessage, RunUpdate, StreamRow, WaitRow
from durable_flow.records import (
    ErrorInfo,
    Fact,
    MessageReceived,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunResumed,
    RunTimedOut,
    StateImported,
    StreamPublished,
    StreamReset,
    TaskId,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
    WaitTimedOut,
)
from durable_flow.snapshot import encode_state
from durable_flow.state import RunState, Wait

from .samples import ALL_BYTES, UNICODE, Owner, answer, asks, create, event, owned, typed, value, worker, wrote

TASK = TaskId(1, "a")
ENDS: list[tuple[str, Fact]] = [
    ("completed", RunCompleted(event("StopEvent"), TASK)),
    ("failed", RunFailed(ErrorInfo("E", "m"), "a")),
    ("cancelled", RunCancelled("")),
    ("timed_out", RunTimedOut("")),
]
each_end = pytest.mark.parametrize(("status", "end"), ENDS, ids=[status for status, _ in ENDS])


async def take(run: Owner, *facts: Fact) -> None:
    """Journal every unconsumed message of the run, then the facts, as an owner does at its next append."""
    rows = await run.store.messages([run.run])
    await run.append(*(MessageReceived(row.id, row.message_id, row.kind) for row in rows), *facts)


async def open_waits(store: JournalStore, run: Owner) -> list[str]:
    return [wait.wait_id for wait in await store.waits(run.run)]


async def bound(store: JournalStore, run: Owner) -> list[tuple[str, str | None]]:
    return [(row.kind, row.wait_id) for row in await store.messages([run.run])]


# Streams


async def test_published_items_keep_their_positions(store: JournalStore) -> None:
    run = await owned(store)
    items = [event("Item", bytes([n])) for n in range(3)]
    await run.append(StreamPublished(1, ("a", "b"), TASK, 1, 0, (items[0], items[1])))
    await run.append(StreamPublished(3, ("c",), None, 0, 0, (items[2],), "wait-1"), StreamReset(TASK, 1, 1, 4, 2))
    at = [record.at for record in await store.read(run.run)]
    rows = [
        StreamRow(1, at[1], "a", items[0], None, None, TASK.seq),
        StreamRow(2, at[1], "a", items[1], None, None, TASK.seq),
        StreamRow(3, at[2], None, items[2], "wait-1", None, None),
        StreamRow(4, at[3], "a", None, None, 2, TASK.seq),
    ]
    assert typed(await store.stream(run.run)) == typed(rows)


async def test_a_stream_is_read_in_parts(store: JournalStore) -> None:
    run, other = await owned(store, "run-1"), await owned(store, "run-2")
    for first in (1, 4, 7):
        items = tuple(event("Item", b"%d" % n) for n in range(first, first + 3))
        await run.append(StreamPublished(first, ("a", "b", "c"), TASK, 1, first - 1, items))
    await other.append(StreamPublished(1, ("x",), TASK, 1, 0, (event("Other"),)))
    whole = await store.stream(run.run)
    assert [(row.position, row.event) for row in whole] == [(n, event("Item", b"%d" % n)) for n in range(1, 10)]
    assert await store.stream(run.run, after=5) == whole[5:]
    assert await store.stream(run.run, after=5, limit=2) == whole[5:7]
    assert await store.stream(run.run, after=9) == []


# Waits


async def test_an_open_wait_is_a_row_with_everything_that_was_asked(store: JournalStore) -> None:
    prompt = event(UNICODE, ALL_BYTES)
    opened = WaitOpened("w1", TASK, 1, "n", 0, True, ("A", UNICODE), value(ALL_BYTES), 99, prompt, True, '{"a": 1}')
    returned = WaitOpened("w2", None, 0, "A", 0, False, ("A",), None, None, None, False)
    run = await owned(store, "run-1", opened, returned)
    at = (await store.read(run.run))[1].at
    rows = [
        WaitRow(run.run, "run-1", "Flow", "w1", "a", opened.wanted, prompt, '{"a": 1}', value(ALL_BYTES), 99, True, at,
                None),
        WaitRow(run.run, "run-1", "Flow", "w2", None, ("A",), None, None, None, None, False, at, None),
    ]  # fmt: skip
    assert typed(await store.waits(run.run)) == typed(rows)


@pytest.mark.parametrize("fact", [WaitAnswered("w1"), WaitTimedOut("w1"), WaitClosed("w1")])
async def test_a_settled_wait_is_no_longer_listed(store: JournalStore, fact: Fact) -> None:
    run = await owned(store, "run-1", asks("w1"), asks("w2"))
    same_id = await owned(store, "run-2", asks("w1"))
    await run.append(fact)
    assert await open_waits(store, run) == ["w2"]
    assert await open_waits(store, same_id) == ["w1"]


async def test_open_waits_of_all_unfinished_runs_are_listed_oldest_first(store: JournalStore) -> None:
    runs = [await owned(store, f"run-{n}") for n in range(3)]
    for at, (n, wait) in enumerate([(2, "z"), (0, "y"), (1, "x"), (2, "b")], 1_700_000_000_000_000):
        append = runs[n].next(asks(wait, human=n != 0))
        await store.append(append._replace(records=[append.records[0]._replace(at=at)]))
        runs[n].seq += 1
    everyone = await store.waits()
    assert [(row.run_id, row.wait_id) for row in everyone] == [
        ("run-2", "z"), ("run-0", "y"), ("run-1", "x"), ("run-2", "b")
    ]  # fmt: skip
    assert await store.waits(human=True) == [everyone[0], *everyone[2:]]
    assert await store.waits(limit=2) == everyone[:2]
    assert await store.waits(runs[2].run, human=True, limit=1) == everyone[:1]
    await runs[1].append(wrote(), update=RunUpdate("completed"))
    assert [row.wait_id for row in await store.waits()] == ["z", "y", "b"]


async def test_waits_opened_at_one_time_are_in_journal_order(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("z"), asks("a"), asks("m"))
    assert await open_waits(store, run) == ["z", "a", "m"]
    await store.send(run.run, answer())
    assert await bound(store, run) == [("answer", "z")]


@each_end
async def test_the_end_of_a_run_closes_its_waits(store: JournalStore, status: str, end: Fact) -> None:
    run, other = await owned(store, "run-1", asks("w1")), await owned(store, "run-2", asks("w1"))
    await run.append(asks("w2"), end)
    assert await open_waits(store, run) == []
    assert await open_waits(store, other) == ["w1"]


@each_end
async def test_a_run_that_is_resumed_awaits_again_what_its_end_closed(
    store: JournalStore, status: str, end: Fact
) -> None:
    run = await owned(store, "run-1", asks("timed out"), asks("w1"), asks("w2"), asks("w3"), WaitTimedOut("timed out"))
    await store.send(run.run, answer("mail-1", wait_id="w2"))
    await store.send(run.run, NewMessage("cancel", "stop"))
    await store.send(run.run, NewMessage("event", "read too late", event("Unrelated")))
    read = (await store.messages([run.run]))[-1]
    await run.append(end, update=RunUpdate(status))
    await run.append(MessageReceived(read.id, read.message_id, read.kind))
    await run.append(RunResumed("someone"), update=RunUpdate("running"))
    assert await open_waits(store, run) == ["w1", "w2", "w3"]
    assert await bound(store, run) == [("answer", "w2")]
    with pytest.raises(AlreadyAnsweredError):
        await store.send(run.run, answer(wait_id="w2"))
    await store.send(run.run, answer())
    await store.send(run.run, answer())
    assert await bound(store, run) == [("answer", "w2"), ("answer", "w1"), ("answer", "w3")]


async def test_an_answer_to_what_the_end_closed_counts_only_after_the_resume(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("before"), asks("after"), asks("both"), asks("none"))
    await run.append(RunCompleted(event(), None), update=RunUpdate("completed"))
    early = [WaitAnswered("before"), WaitAnswered("both")]
    late = [WaitAnswered("after"), WaitTimedOut("both")]
    await run.append(*early, RunResumed("someone"), *late, update=RunUpdate("running"))
    assert await open_waits(store, run) == ["before", "none"]
    with pytest.raises(AlreadyAnsweredError):
        await store.send(run.run, answer(wait_id="after"))
    with pytest.raises(AlreadyAnsweredError):
        await store.send(run.run, answer(wait_id="both"))
    assert await store.send(run.run, answer(wait_id="before"))


async def test_a_question_asked_again_under_its_name_is_a_new_one(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("name"), asks("other"), WaitClosed("name"), asks("name", "Answer", "No"))
    assert [(wait.wait_id, wait.wanted) for wait in await store.waits(run.run)] == [
        ("other", ("Answer",)), ("name", ("Answer", "No"))
    ]  # fmt: skip
    await store.send(run.run, answer(wait_id="name"))
    await take(run, WaitAnswered("name"), asks("name"))
    assert await store.send(run.run, answer("second", wait_id="name"))
    assert await bound(store, run) == [("answer", "name")]


# Messages


async def test_a_message_waits_until_a_record_says_that_it_was_received(store: JournalStore) -> None:
    run, other = await owned(store, "run-1"), await owned(store, "run-2")
    assert await store.send(run.run, NewMessage("event", UNICODE, event(UNICODE, ALL_BYTES), step="a"))
    assert await store.send(other.run, NewMessage("event", None, event("E")))
    assert await store.send(run.run, NewMessage("cancel", None, reason=UNICODE))
    first, second = await store.messages([run.run])
    data = event(UNICODE, ALL_BYTES)
    assert typed(first) == typed(MessageRow(first.id, run.run, UNICODE, "event", data, None, "a", None))
    assert second[1:] == (run.run, second.message_id, "cancel", None, None, None, UNICODE)
    assert len(second.message_id) == 32  # a message that its sender has not named gets a name
    assert first.id < second.id
    assert [row.run for row in await store.messages([other.run, run.run, 4711])] == [run.run, other.run, run.run]
    assert await store.messages([]) == []
    await run.append(MessageReceived(first.id, UNICODE, "event"))
    assert await store.messages([run.run]) == [second]
    await run.append(MessageReceived(second.id, None, "cancel"))
    assert await store.messages([run.run]) == []
    assert len(await store.messages([other.run])) == 1


async def test_the_owner_hears_of_runs_with_messages(store: JournalStore) -> None:
    runs = [Owner(store, await create(store, f"run-{n}", owner=worker(f"w{n % 2}"))) for n in range(4)]
    for n in (0, 0, 1, 2):
        await store.send(runs[n].run, NewMessage("event", None, event()))
    assert sorted(await store.waiting_messages(worker("w0"))) == [runs[0].run, runs[2].run]
    assert [row.message for row in await store.list_runs()] == [False, True, True, True]
    await take(runs[0])
    await store.release(runs[2].run, 1, "waiting", None)
    assert await store.waiting_messages(worker("w0")) == []
    assert [row.message for row in await store.list_runs()] == [False, True, True, False]
    assert await store.waiting_messages(worker("nobody")) == []


async def test_a_fenced_owner_does_not_consume(store: JournalStore) -> None:
    run = await owned(store)
    await store.send(run.run, NewMessage("event", None, event()))
    [row] = await store.messages([run.run])
    await store.claim(run.run, worker("next"), epoch=1, status="running")
    with pytest.raises(RunFenced):
        await run.append(MessageReceived(row.id, None, "event"))
    assert await store.messages([run.run]) == [row]


async def test_the_same_message_id_counts_once_in_a_run(store: JournalStore) -> None:
    run, other = await owned(store, "run-1"), await owned(store, "run-2")
    message = NewMessage("event", "mail-7", event())
    outcomes = await asyncio.gather(*(store.send(run.run, message) for _ in range(5)))
    assert sorted(outcomes) == [False] * 4 + [True]
    await take(run)
    assert await store.send(run.run, message) is False
    assert await store.messages([run.run]) == []
    assert await store.send(other.run, message) is True


async def test_the_same_answer_sent_again_is_no_second_answer(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("w1", human=True))
    for wait_id in ("w1", None):
        message = answer("mail-7", wait_id=wait_id, human=True)
        assert await store.send(run.run, message) is (wait_id == "w1")
    await take(run, WaitAnswered("w1"))
    assert await store.send(run.run, answer("mail-7", wait_id="w1", human=True)) is False


async def test_messages_without_an_id_all_count(store: JournalStore) -> None:
    run = await owned(store)
    assert await store.send(run.run, NewMessage("event", None, event()))
    assert await store.send(run.run, NewMessage("event", None, event()))
    assert len(await store.messages([run.run])) == 2


@each_end
async def test_nothing_can_be_sent_to_a_run_that_has_ended(store: JournalStore, status: str, end: Fact) -> None:
    run = await owned(store, "run-1", asks("w1"))
    await store.send(run.run, NewMessage("event", "before", event("Other")))
    await run.append(end, update=RunUpdate(status))
    for message in (answer("late"), answer(wait_id="w1"), NewMessage("cancel")):
        with pytest.raises(RunFinishedError, match=rf"run-1.*{status}"):
            await store.send(run.run, message)
    assert await store.send(run.run, answer("before")) is False  # a repetition stays one
    assert await store.messages([run.run]) == []
    row = await store.find("run-1")
    assert row is not None
    assert not row.message


async def test_a_message_to_no_run_is_refused(store: JournalStore) -> None:
    with pytest.raises(RunNotFoundError):
        await store.send(4711, answer())


@pytest.mark.parametrize("text", ["NUL \0 inside", "half a pair \udc00"], ids=["nul", "surrogate"])
async def test_a_message_of_bad_text_is_refused(store: JournalStore, text: str) -> None:
    run = await owned(store)
    for message in (
        NewMessage("event", text, event()),
        NewMessage("event", None, event(text)),
        NewMessage("cancel", None, reason=text),
    ):
        with pytest.raises(SerializationError):
            await store.send(run.run, message)
    assert await store.messages([run.run]) == []


# Answers


async def test_an_answer_without_a_wait_id_goes_to_the_oldest_open_wait_that_wants_it(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("other", "Other"), asks("w0"), asks("w1", "No", "Answer"), asks("w2"))
    await run.append(WaitTimedOut("w0"))
    await store.send(run.run, answer())
    await store.send(run.run, answer())
    await store.send(run.run, answer(name="Unrelated"))
    assert await bound(store, run) == [("answer", "w1"), ("answer", "w2"), ("event", None)]


async def test_an_answer_with_a_wait_id_goes_to_that_wait(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("w1"), asks("w2"), asks("w3"))
    await store.send(run.run, answer(wait_id="w2"))
    await store.send(run.run, answer())
    await store.send(run.run, answer())
    assert await bound(store, run) == [("answer", "w2"), ("answer", "w1"), ("answer", "w3")]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """The waits that a message is compared with."""
    found: list[Asked] = []

    def asked(*fields: Any) -> Asked:
        found.append(Asked(*fields))
        return found[-1]

    for module in (calls, memory_run):
        monkeypatch.setattr(module, "Asked", asked)
    return found


async def test_answering_one_of_many_questions_reads_that_one(store: JournalStore, read: list[Asked]) -> None:
    run = await owned(store, "run-1", *(asks(f"w{n}") for n in range(20)))
    await store.send(run.run, answer(wait_id="w10"))
    assert [wait.wait_id for wait in read] == ["w10"]


async def test_a_message_is_compared_with_what_is_open_however_much_was_asked_before(
    store: JournalStore, read: list[Asked]
) -> None:
    run = await owned(store, "run-1", *(asks(f"w{n}") for n in range(20)), asks("open"))
    await run.append(*(WaitAnswered(f"w{n}") for n in range(20)))
    await store.send(run.run, answer())
    assert [wait.wait_id for wait in read] == ["open"]
    # A late one is compared with the newest question of its type.
    await run.append(WaitAnswered("open"))
    read.clear()
    with pytest.raises(AlreadyAnsweredError):
        await store.send(run.run, answer()._replace(human=True))
    assert [wait.wait_id for wait in read] == ["open"]


async def test_a_question_that_is_not_open_cannot_be_answered(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("answered"), asks("timed out"), asks("closed"), asks("open"))
    await run.append(WaitAnswered("answered"), WaitTimedOut("timed out"), WaitClosed("closed"))
    for wait_id in ("answered", "timed out", "closed", "never asked"):
        with pytest.raises(AlreadyAnsweredError, match="run-1"):
            await store.send(run.run, answer(wait_id=wait_id))
    assert await store.messages([run.run]) == []


async def test_a_second_answer_is_refused_when_it_is_sent(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("w1"))
    outcomes = await asyncio.gather(
        *(store.send(run.run, answer(f"mail-{n}", wait_id="w1" if n % 2 else None)) for n in range(6)),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyAnsweredError"] * 5 + ["bool"]
    assert await bound(store, run) == [("answer", "w1")]


async def test_two_stores_that_race_accept_one_answer(store: JournalStore, other: JournalStore) -> None:
    run = await owned(store, "run-1", asks("w1"))
    outcomes = await asyncio.gather(
        *(s.send(run.run, answer(wait_id="w1")) for s in (store, other, store, other)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyAnsweredError"] * 3 + ["bool"]
    assert await other.messages([run.run]) == await store.messages([run.run])


async def test_an_answer_that_the_run_did_not_take_leaves_the_question_open(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("w1", requirements=value()))
    await store.send(run.run, answer("no match", wait_id="w1"))
    await take(run)
    assert await store.send(run.run, answer("match", wait_id="w1"))
    assert await bound(store, run) == [("answer", "w1")]


async def test_whether_requirements_are_met_is_left_to_the_engine(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("strict", requirements=value()))
    await store.send(run.run, answer())
    await store.send(run.run, answer(human=True))
    assert await bound(store, run) == [("event", None), ("event", None)]
    await run.append(asks("any"))
    await store.send(run.run, answer())
    # "any" has its answer now, and "strict" may take the next one.
    await store.send(run.run, answer())
    assert (await bound(store, run))[2:] == [("answer", "any"), ("event", None)]


async def test_a_human_answer_is_not_late_while_a_question_is_open(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("strict", requirements=value()), asks("any"))
    await store.send(run.run, answer(human=True))
    await take(run, WaitAnswered("any"))
    assert await store.send(run.run, answer(human=True))
    assert await bound(store, run) == [("event", None)]


async def test_a_late_second_human_answer_is_refused(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("w1", human=True))
    await store.send(run.run, answer(human=True))
    await take(run, WaitAnswered("w1"))
    with pytest.raises(AlreadyAnsweredError, match="run-1"):
        await store.send(run.run, answer(human=True))
    # The step that asked may end: that does not make the question unanswered.
    await run.append(WaitClosed("w1"))
    with pytest.raises(AlreadyAnsweredError, match="run-1"):
        await store.send(run.run, answer(human=True))
    # An event of a program is none of the questions' business.
    assert await store.send(run.run, answer())
    await run.append(asks("w2", human=True))
    assert await store.send(run.run, answer(human=True))
    assert await bound(store, run) == [("event", None), ("answer", "w2")]


@pytest.mark.parametrize("last", [WaitTimedOut("w2"), WaitClosed("w2")])
async def test_a_human_event_that_answers_nothing_is_kept_for_the_run(store: JournalStore, last: Fact) -> None:
    run = await owned(store)
    await store.send(run.run, answer(human=True))
    await take(run, asks("w1", human=True), WaitAnswered("w1"), asks("w2", human=True), last)
    await store.send(run.run, answer(human=True))
    assert await bound(store, run) == [("event", None)]


async def test_a_cancel_answers_no_question(store: JournalStore) -> None:
    run = await owned(store, "run-1", asks("w1"))
    assert await store.send(run.run, NewMessage("cancel", "c-1", reason="stop"))
    assert await bound(store, run) == [("cancel", None)]
    assert await store.send(run.run, answer(wait_id="w1"))


@pytest.mark.parametrize("ended", [None, "failed"])
async def test_what_an_imported_state_awaits_is_asked_in_the_run_that_imported_it(
    store: JournalStore, ended: str | None
) -> None:
    prompt = event(UNICODE, ALL_BYTES)
    asked = Wait("w2", TaskId(1, UNICODE), 1, ("Answer",), value(), 99, prompt, True, 5, '{"type": "object"}')
    returned = Wait("w4", None, 0, ("Other",), None, None, None, True, 6)
    settled = Wait("w3", TaskId(1, "a"), 1, ("Answer",), None, None, None, False, 5, settled_at=4)
    state = RunState(uid="uid", seq=4, waits={w.wait_id: w for w in (asked, settled, returned)}, ended=ended)
    run = await owned(store, "run-2", StateImported("uid", 4, encode_state(state)))
    rows = [
        WaitRow(
            run.run, "run-2", "Flow", w.wait_id, w.task and w.task.step, w.wanted, w.prompt, w.schema, w.requirements,
            w.deadline, True, w.opened_at, None,
        )
        for w in (asked, returned)
    ]  # fmt: skip
    assert await store.waits(run.run) == ([] if ended else rows)
    await run.append(RunResumed("me"))
    assert await store.waits(run.run) == rows


async def test_text_in_an_imported_state_is_looked_at_before_it_is_written(store: JournalStore) -> None:
    wait = Wait("w2", TaskId(1, "a\0b"), 1, ("Answer",), None, None, None, True, 5)
    with pytest.raises(SerializationError, match="holds a NUL"):
        await create(store, "run-2", StateImported("uid", 4, encode_state(RunState(waits={"w2": wait}))))
    assert await store.find("run-2") is None


# -- Questions that were handed on -------------------------------------------------------------------------------------


async def test_the_questions_of_a_run_are_found_by_their_ids_in_order(store: JournalStore):
    run, other = await owned(store), await owned(store, "run-2")
    assert await store.asked(run.run) == []
    shown = [StreamPublished(n, ("",), None, 0, 0, (event("Ask"),), wait_id) for n, wait_id in
             enumerate(("w3", None, "run-7/w4"), 1)]  # fmt: skip
    await run.append(*shown)
    await other.append(shown[0]._replace(wait_id="w9"))
    assert await store.asked(run.run) == ["w3", "run-7/w4"]
    assert await store.asked(other.run) == ["w9"]
    assert await store.asked(4711) == []


async def test_an_answer_for_an_open_question_only_is_refused_where_none_takes_it(store: JournalStore):
    run = await owned(store)
    mail = answer("mail-1", human=True)._replace(asked_only=True)
    with pytest.raises(NotAsked, match="run-1"):
        await store.send(run.run, mail)
    assert await bound(store, run) == []
    await run.append(asks("w2", "Answer", human=True))
    assert await store.send(run.run, mail)
    assert await bound(store, run) == [("answer", "w2")]
    with pytest.raises(NotAsked):
        await store.send(run.run, mail._replace(message_id="mail-2"))


async def test_an_answer_for_an_open_question_only_may_be_for_one_with_requirements(store: JournalStore):
    run = await owned(store)
    await run.append(asks("w2", "Answer", human=True, requirements=value()))
    assert await store.send(run.run, answer("mail-1", human=True)._replace(asked_only=True))
    assert await bound(store, run) == [("event", None)]
