"""What a journal row holds: every kind of fact, exactly, compactly, and sealed where a seal is configured."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_flow.errors import DeserializationError, PayloadTooLargeError
from durable_flow.journal import rows
from durable_flow.journal.sqlite import SqliteStore
from durable_flow.records import (
    ContextSet,
    EncodedEvent,
    EncodedValue,
    ErrorInfo,
    EventEmitted,
    Fact,
    StepCompleted,
    StepFailed,
    StreamPublished,
    TaskId,
)

from .samples import FACTS, answer, asks, create, item_at, owned, typed, value, wrote

_HOT = (ContextSet, EventEmitted, StepCompleted)
st.register_type_strategy(str, st.text(st.characters(codec="utf-8"), max_size=5))
_counts = st.integers(0, 3)


def _facts(kind: type) -> st.SearchStrategy[Fact]:
    """Any fact of this kind, as its annotations allow."""
    hints = get_type_hints(kind)
    fields = {name: _counts if hint is int else st.from_type(hint) for name, hint in hints.items()}
    if kind is StreamPublished:
        fields["items"] = st.just(())  # the stream table has them
    return st.builds(kind, **fields)


@pytest.mark.parametrize("kind", get_args(Fact), ids=lambda kind: kind.__name__)
def test_any_fact_comes_back_from_its_columns_with_its_types(kind: type) -> None:
    @given(_facts(kind))
    def comes_back(fact: Fact) -> None:
        assert typed(rows.to_fact(*rows.to_columns(fact))) == typed(fact)

    comes_back()


@given(st.one_of(*map(_facts, _HOT)))
def test_the_short_cuts_of_frequent_kinds_write_what_the_long_way_writes(fact: Fact) -> None:
    assert tuple(rows.to_columns(fact)) == tuple(rows._any_to_columns(fact))


def test_a_failure_that_was_written_before_handlers_were_known_is_read() -> None:
    data = '{"attempt":2,"error":["E","m",""],"retry_at":7}'
    found = rows.to_fact("StepFailed", 5, "rank", None, data, None, None, None)
    assert typed(found) == typed(StepFailed(TaskId(5, "rank"), 2, ErrorInfo("E", "m"), 7))


def test_a_failure_leaves_only_what_there_is_to_say() -> None:
    columns = rows.to_columns(StepFailed(TaskId(5, "rank"), 1, ErrorInfo("E", "m"), None))
    assert tuple(columns) == ("StepFailed", 5, "rank", None, '{"error":["E","m",""]}', None, None, None)


def test_a_plain_step_leaves_no_data_but_the_targets() -> None:
    task = TaskId(7, "rank")
    event = EncodedEvent("Ranked", "json", 1, b"{}")
    assert tuple(rows.to_columns(StepCompleted(task, 1))) == ("StepCompleted", 7, "rank", *[None] * 5)
    assert rows.to_columns(ContextSet("n", EncodedValue("json", b"1"), task, 1, 0))[4] is None
    assert rows.to_columns(EventEmitted(event, task, 1, None, ("report",)))[4] == '{"targets":["report"]}'


async def test_a_record_of_a_newer_version_is_told_apart_from_damage(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/jobs.db")
    await store.open()
    claim = await create(store, "order-42")
    with closing(sqlite3.connect(store.path)) as file, file:
        file.execute(
            "INSERT INTO journal (run, seq, kind, boundary, epoch, at) VALUES (?, 2, 'FromTheFuture', 1, 1, 0)",
            (claim.run,),
        )
    with pytest.raises(DeserializationError, match=r"run order-42, seq 2.*FromTheFuture.*Upgrade"):
        await store.read(claim.run)
    await store.close()


@pytest.mark.parametrize("data", ["{", "{}", "7"])
async def test_damaged_data_name_run_and_seq(tmp_path: Path, data: str) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/jobs.db")
    await store.open()
    claim = await create(store, "order-42")
    with closing(sqlite3.connect(store.path)) as file, file:
        file.execute(
            "INSERT INTO journal (run, seq, kind, boundary, data, epoch, at) VALUES (?, 2, 'TimerFired', 1, ?, 1, 0)",
            (claim.run, data),
        )
    with pytest.raises(DeserializationError, match="run order-42, seq 2"):
        await store.read(claim.run)
    await store.close()


class Swap:
    """A seal that can be seen through, bound to its place."""

    id = "swap"

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        return f"{uid}/{seq}/{kind}/".encode() + data[::-1]

    def open(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        head = f"{uid}/{seq}/{kind}/".encode()
        if not data.startswith(head):
            raise DeserializationError("moved")
        return data[len(head) :][::-1]


async def test_payloads_are_sealed_in_every_table_and_come_back(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/jobs.db", seal=Swap())
    await store.open()
    run = await owned(store, "run-1")
    facts = [fact for fact in FACTS if not isinstance(fact, StreamPublished)]
    question = asks("q", "Secret", requirements=value(b"top-secret"), human=True)
    secret = EncodedEvent("Secret", "json", 1, b"top-secret")
    question = question._replace(prompt=secret)
    published = item_at(1)._replace(items=(secret,))
    await run.append(*facts, question, published)
    await store.send(run.run, answer("m", name="Secret")._replace(event=secret))

    assert [typed(r.fact) for r in await store.read(run.run, after=1)][: len(facts)] == [typed(f) for f in facts]
    assert [row.event for row in await store.stream(run.run) if row.position == 1] == [secret]
    (wait,) = [wait for wait in await store.waits(run.run) if wait.wait_id == "q"]
    assert (wait.prompt, wait.requirements) == (secret, value(b"top-secret"))
    assert [message.event for message in await store.messages([run.run])] == [secret]
    await store.close()
    content = store.path.read_bytes()
    assert b"top-secret" not in content
    assert content.count(b"top-secret"[::-1]) >= 4

    plain = SqliteStore(store.url)
    await plain.open()
    with pytest.raises(DeserializationError, match=r"run run-1, seq 2 .*'swap'.*none is configured"):
        await plain.read(run.run)
    with pytest.raises(DeserializationError, match="run run-1"):
        await plain.messages([run.run])
    await plain.close()


async def test_an_encoded_value_above_the_limit_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/jobs.db", max_payload_bytes=1000)
    await store.open()
    run = await owned(store, "order-42")
    with pytest.raises(PayloadTooLargeError, match=r"order-42.*'big' takes 1,001 bytes.*max_payload_bytes = 1,000"):
        await run.append(wrote("big", b"x" * 1001))
    with pytest.raises(PayloadTooLargeError, match="order-42"):
        await run.append(item_at(1)._replace(items=(EncodedEvent("Item", "json", 1, b"x" * 1001),)))
    with pytest.raises(PayloadTooLargeError):
        await store.send(run.run, answer()._replace(event=EncodedEvent("Work", "json", 1, b"x" * 1001)))
    await run.append(wrote("fits", b"x" * 1000))
    assert [record.seq for record in await store.read(run.run)] == [1, 2]
    await store.close()
