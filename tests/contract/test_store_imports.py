"""What every store does with a run from another journal: it is there whole, as if it had been written here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import pytest

from durable_flow.errors import (
    AlreadyAnsweredError,
    ArchiveError,
    DurableFlowError,
    PayloadTooLargeError,
    RunConflictError,
    RunFenced,
    SerializationError,
)
from durable_flow.journal.protocol import (
    ImportedMessage,
    ImportedPage,
    ImportedRun,
    JournalStore,
    MessageRow,
    NewRun,
    RunUpdate,
)
from durable_flow.records import (
    ErrorInfo,
    Fact,
    MessageReceived,
    Record,
    RunClaimed,
    RunFailed,
    RunResumed,
    RunStarted,
    StreamReset,
    TaskId,
    WaitAnswered,
    WaitTimedOut,
)

from .samples import FACTS, Owner, answer, asks, create, event, item_at, numbered, worker, wrote

AT = 1_700_000_000_000_000
Pages = Callable[[], Iterable[ImportedPage]]


def a_run(run_id: str = "run-1", *, uid: str = "uid", status: str = "waiting", epoch: int = 1) -> ImportedRun:
    finished = AT + 2 if status == "failed" else None
    return ImportedRun(NewRun(run_id, uid, "Flow", "shape"), status, epoch, AT + 9, AT, AT + 2, finished, "one line")


def pages(*groups: Sequence[Fact], epoch: int = 1) -> Pages:
    """Pages with these groups of facts, the first of which begins with the run's start."""
    made: list[ImportedPage] = []
    after = 0
    for group in groups:
        facts = [*([] if after else [RunStarted("Flow", "uid", "shape", None)]), *group]
        made.append(ImportedPage(epoch, numbered(facts, after=after, at=AT + after)))
        after += len(facts)
    return lambda: iter(made)


def letter(message_id: str, *, kind: str = "event", wait_id: str | None = None, left: bool = False) -> ImportedMessage:
    sent = None if kind == "cancel" else event("Answer")
    return ImportedMessage(MessageRow(0, 0, message_id, kind, sent, wait_id, None, None), left)


async def imported(
    store: JournalStore, run: ImportedRun, pages: Pages, messages: Sequence[ImportedMessage] = ()
) -> int:
    key = await store.import_run(run, pages, messages)
    assert key is not None
    return key


async def test_its_row_and_records_are_as_they_were(store: JournalStore) -> None:
    # Kinds that change nothing besides; each in a page of its own and with a time of its own.
    quiet = [fact for fact in FACTS if type(fact).__name__ in ("ContextSet", "CallRecorded", "StepFailed", "TimerSet")]
    source = pages(*([fact] for fact in quiet))
    run = a_run()
    key = await imported(store, run, source)

    row = await store.find("run-1")
    assert row is not None
    assert row[:9] == (key, *run.new[:4], "waiting", 1, None, AT + 9)
    assert (row.created_at, row.updated_at, row.finished_at, row.error) == (AT, AT + 2, None, "one line")
    assert await store.read(key) == [record for page in source() for record in page.records]
    assert [found.run_id for found in await store.list_runs(unfinished=True)] == ["run-1"]


async def test_what_its_records_say_of_waits_and_items_is_kept(store: JournalStore) -> None:
    source = pages([asks("a"), item_at(1)], [asks("b"), asks("c"), WaitAnswered("a"), WaitTimedOut("b")],
                   [StreamReset(TaskId(1, "a"), 1, 0, 2, 1), item_at(3)])  # fmt: skip
    key = await imported(store, a_run(), source)
    assert [wait.wait_id for wait in await store.waits(key)] == ["c"]
    items = await store.stream(key)
    assert [(item.position, item.event is None, item.reset_since) for item in items] == [
        (1, False, None), (2, True, 1), (3, False, None),
    ]  # fmt: skip
    assert await store.send(key, answer(wait_id="c"))
    with pytest.raises(AlreadyAnsweredError):
        await store.send(key, answer(wait_id="a"))


async def test_it_is_owned_by_nobody_and_claimed_with_a_higher_epoch(store: JournalStore) -> None:
    source = pages([wrote()], [RunClaimed(4, "worker-9")], epoch=4)
    key = await imported(store, a_run(status="running", epoch=4), source)
    claim = await store.claim(key, worker(), epoch=4, status="running")
    assert claim is not None
    assert (claim.epoch, claim.seq, claim.uid) == (5, 4, "uid")
    await Owner(store, claim).append(wrote())
    with pytest.raises(RunFenced):
        await Owner(store, claim._replace(epoch=4, seq=5)).append(wrote())


async def test_its_messages_wait_or_are_known_by_their_ids(store: JournalStore) -> None:
    source = pages([asks("a")], [MessageReceived(77, "taken", "event"), MessageReceived(78, None, "event")])
    key = await imported(store, a_run(), source, [letter("one"), letter("two", kind="answer", wait_id="a")])
    assert [(m.message_id, m.kind, m.wait_id) for m in await store.messages([key])] == [
        ("one", "event", None), ("two", "answer", "a"),
    ]  # fmt: skip
    assert [m.message for m in await store.unconsumed(key)] == await store.messages([key])
    for known in ("taken", "one", "two"):
        assert not await store.send(key, answer(known))
    with pytest.raises(AlreadyAnsweredError):
        await store.send(key, answer(wait_id="a"))


async def test_what_its_end_left_over_is_delivered_when_it_is_resumed(store: JournalStore) -> None:
    source = pages([asks("a")], [RunFailed(ErrorInfo("E", "m"), None)])
    left = [letter("late", left=True), letter("stop", kind="cancel", left=True)]
    key = await imported(store, a_run(status="failed"), source, left)
    assert await store.messages([key]) == []
    assert [(m.message.message_id, m.undelivered) for m in await store.unconsumed(key)] == [
        ("late", True), ("stop", True),
    ]  # fmt: skip
    assert await store.waits(key) == []

    claim = await store.claim(key, worker(), epoch=1, status="failed")
    assert claim is not None
    await Owner(store, claim).append(RunResumed("retry"), update=RunUpdate("running"))
    assert [m.message_id for m in await store.messages([key])] == ["late"]
    assert [wait.wait_id for wait in await store.waits(key)] == ["a"]


async def test_a_run_id_that_is_taken_gives_none_and_a_uid_that_is_there_an_error(store: JournalStore) -> None:
    await create(store, "run-1")
    assert await store.import_run(a_run(), pages([wrote()]), [letter("one")]) is None
    with pytest.raises(RunConflictError, match="has this run already, as run-1"):
        await store.import_run(a_run("run-2", uid="uid of run-1"), pages([wrote()]), [])
    assert [row.run_id for row in await store.list_runs()] == ["run-1"]
    assert await imported(store, a_run("run-3"), pages([wrote()]))


@pytest.mark.parametrize("error", [ArchiveError("torn"), RuntimeError("torn")], ids=["ours", "another"])
async def test_an_error_between_two_pages_leaves_nothing(store: JournalStore, error: Exception) -> None:
    whole = pages([asks("a"), item_at(1)], [wrote()])
    tries = 0

    def torn() -> Iterable[ImportedPage]:
        nonlocal tries
        tries += 1
        yield from whole()
        raise error

    with pytest.raises((DurableFlowError, RuntimeError), match="torn"):
        await store.import_run(a_run(), torn, [])
    # Perhaps once more alone, and not for as long as a database may be away.
    assert tries <= 2
    assert await store.list_runs() == []
    assert await store.waits() == []
    # Rows of the first one would be in the way.
    key = await imported(store, a_run(), whole)
    assert len(await store.read(key)) == 4


async def test_others_write_at_the_same_time(store: JournalStore) -> None:
    owner = Owner(store, await create(store, "other"))
    many = pages(*([wrote()] * 5 for _ in range(40)))
    key, _, sent = await asyncio.gather(
        imported(store, a_run(), many), owner.append(wrote()), store.send(owner.run, answer("mail"))
    )
    assert sent
    assert [record.seq for record in await store.read(key)] == list(range(1, 202))
    assert len(await store.read(owner.run)) == 2


async def test_text_that_no_database_takes_is_refused(store: JournalStore) -> None:
    for refused in (
        lambda: store.import_run(a_run(), pages([wrote("NUL \0")]), []),
        lambda: store.import_run(a_run(uid="\ud800"), pages([wrote()]), []),
        lambda: store.import_run(a_run(), pages([wrote()]), [letter("NUL \0")]),
    ):
        with pytest.raises(SerializationError):
            await refused()
    assert await store.list_runs() == []


async def test_a_record_larger_than_the_store_takes_is_refused(store: JournalStore) -> None:
    if not hasattr(store, "_limit"):
        pytest.skip("a memory store has no limit of its own")
    store._limit = 100
    with pytest.raises(PayloadTooLargeError):
        await store.import_run(a_run(), pages([wrote()], [wrote(data=bytes(101))]), [])
    assert await store.list_runs() == []
    records = [Record(1, AT, True, RunStarted("Flow", "uid", "shape", None))]
    assert await imported(store, a_run(), lambda: [ImportedPage(1, records)])
