"""Encrypted journals: nothing of the user's can be read or changed without the key, and every run goes on with it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    ArchiveError,
    Context,
    DeserializationError,
    DurableFlowError,
    EncryptedSeal,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    NeedsAttentionError,
    SerializationError,
    StartEvent,
    StopEvent,
    UnknownEvent,
    Workflow,
    WorkflowCancelledByUser,
    step,
)
from durable_flow.journal.folding import folded, new_snapshot, state_at
from durable_flow.journal.protocol import NewMessage
from durable_flow.journal.seals import Seals
from durable_flow.records import StateImported, WaitOpened
from durable_flow.serializers.compression import Compression

from .flows import recorded, released, until
from .tampering import Tables, flipped

SECRET = "Rosebud"
KEY, OTHER = EncryptedSeal.new_key(), EncryptedSeal.new_key()
NewJournal = Callable[..., Journal]


class SealedQuestion(InputRequiredEvent):
    text: str


class SealedAnswer(HumanResponseEvent):
    text: str


class SealedNote(Event):
    text: str


class Secretive(Workflow):
    """Puts the secret wherever a workflow can put something."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> SealedQuestion:
        await ctx.store.set("word", ev.word)
        await ctx.call("ask", lambda word: word, ev.word)
        ctx.write_event_to_stream(SealedNote(text=ev.word))
        return SealedQuestion(text=f"Is it {ev.word}?")

    @step
    async def end(self, ctx: Context, ev: SealedAnswer) -> StopEvent:
        if ev.text == "no":
            raise ValueError(f"it is not {await ctx.store.get('word')}")
        return StopEvent(result=[ev.text, await ctx.store.get("word")])


async def asked(journal: Journal, run_id: str) -> None:
    """Run up to the question, and let nobody own the run."""
    handler = Secretive(journal=journal).run(word=SECRET, run_id=run_id)

    async def open_() -> bool:
        return any(wait.run_id == run_id for wait in await journal.pending())

    await until(open_)
    await released(handler)


def sealed(**options: Any) -> dict[str, Any]:
    return {"seal": EncryptedSeal(keys=[KEY], **options)}


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest) -> str:
    name = {"sqlite": "url", "postgres": "postgres_url"}[request.param]
    found: str = request.getfixturevalue(name)
    return found


async def test_a_run_goes_on_with_the_key_and_shows_all_it_has(new_journal: NewJournal) -> None:
    async with new_journal(**sealed()) as journal:
        handler = Secretive(journal=journal).run(word=SECRET, run_id="film")
        await recorded(journal, "film", WaitOpened)
        (wait,) = await journal.pending()
        assert wait.prompt is not None
        assert wait.prompt.get("text") == f"Is it {SECRET}?"
        await journal.send("film", SealedAnswer(text="yes"))
        assert await handler == ["yes", SECRET]
        assert (await journal.state("film")).context == {"word": SECRET}
        shown = [item.event.get("text") async for item in journal.stream("film") if item.event is not None]
        assert shown[:2] == [SECRET, f"Is it {SECRET}?"]


async def test_nothing_of_the_users_stands_in_plain_text(where: str) -> None:
    async with Journal(where, **sealed()) as journal:
        failing, cancelled = Secretive(journal=journal), Secretive(journal=journal)
        handlers = [failing.run(word=SECRET, run_id="film"), cancelled.run(word=SECRET, run_id="book")]
        for run_id in ("film", "book"):
            await recorded(journal, run_id, WaitOpened)
        tables = Tables(journal)
        assert SECRET not in await tables.text()
        await journal.send("film", SealedAnswer(text="no", why=SECRET))
        await journal.cancel("book", f"{SECRET} was a sledge")
        with pytest.raises(ValueError, match=SECRET):
            await handlers[0]
        with pytest.raises(WorkflowCancelledByUser):
            await handlers[1]
        assert SECRET not in await tables.text()
        # With the key everything is there.
        assert (await journal.run("film")).error == f"builtins.ValueError: it is not {SECRET}"
        (failed,) = [r.fact for r in await journal.history("film") if type(r.fact).__name__ == "RunFailed"]
        assert failed.error.message == f"it is not {SECRET}"
        (ended,) = [r.fact for r in await journal.history("book") if type(r.fact).__name__ == "RunCancelled"]
        assert ended.reason == f"{SECRET} was a sledge"
        # Who and when, and what happened, can be read by plain SQL.
        kinds = {row["kind"] for row in await tables.rows("journal")}
        assert {"RunStarted", "ContextSet", "StepFailed", "RunFailed"} <= kinds
        assert all(row["seal"] == "aes-gcm" for row in await tables.rows("journal") if row["payload"] is not None)


def another(text: str, at: int = -8) -> str:
    """Return base64 of other bytes."""
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


async def refused(journal: Journal, run_id: str, seq: int | str, reason: str = "") -> str:
    with pytest.raises(DeserializationError, match=rf"run {run_id}, seq {seq}[ :].*{reason}") as caught:
        await journal.history(run_id)
    return str(caught.value)


async def test_a_flipped_byte_is_refused_wherever_it_is(where: str) -> None:
    async with Journal(where, **sealed()) as journal:
        await asked(journal, "film")
        handler = await Secretive(journal=journal).resume("film")
        await journal.send("film", SealedAnswer(text="no"))
        with pytest.raises(ValueError, match=SECRET):
            await handler
        tables = Tables(journal)
        changed = 0
        for row in await tables.rows("journal"):
            for column in ("payload", "data"):
                value = row[column]
                if value is None or (column == "data" and not value.startswith("sealed:")):
                    continue
                wrong = flipped(value) if column == "payload" else another(value)
                await tables.replace("journal", row, **{column: wrong})
                await refused(journal, "film", row["seq"])
                await tables.replace("journal", row)
                changed += 1
        assert changed >= 10
        for item in await tables.rows("stream"):
            await tables.replace("stream", item, payload=flipped(item["payload"], 20))
            with pytest.raises(DeserializationError, match=rf"run film, seq {item['position']} \(stream\)"):
                _ = [x async for x in journal.stream("film")]
            await tables.replace("stream", item, payload=item["payload"])
        assert len(await journal.history("film")) == (await journal.run("film")).seq
        # The summary of its error is not worth hiding a list of runs for.
        (run,) = await tables.rows("runs")
        await tables.replace("runs", run, error=another(run["error"]))
        (info,) = await journal.runs()
        assert "not shown: run film" in (info.error or "")


async def test_what_lies_in_messages_and_waits_is_bound_to_its_place_too(where: str) -> None:
    async with Journal(where, **sealed()) as journal:
        await asked(journal, "film")
        tables = Tables(journal)
        (wait,) = await tables.rows("waits")
        await tables.replace("waits", wait, payload=flipped(wait["payload"]))
        # The question of one run is refused; among the questions of all it is shown without its content.
        with pytest.raises(DeserializationError, match="run film, seq "):
            await journal.run("film")
        assert [info.prompt for info in await journal.pending()] == [UnknownEvent(name="SealedQuestion", raw=b"")]
        await tables.replace("waits", wait, payload=wait["payload"])
        store = journal._shared.store
        key = (await journal._row("film")).run
        event = journal._message_codec.encode_event(SealedNote(text=SECRET))
        for name in ("one", "two"):
            await store.send(key, NewMessage("event", name, event, step="nobody"))
        one, two = await tables.rows("messages")
        for wrong in (flipped(one["payload"]), two["payload"]):
            await tables.replace("messages", one, payload=wrong, consumed_seq=None)
            with pytest.raises(DeserializationError, match=r"run film, seq 0 \(message one\)"):
                await store.messages([key])


async def test_a_payload_moved_to_another_row_or_run_is_refused(where: str) -> None:
    async with Journal(where, **sealed()) as journal:
        for run_id in ("film", "book"):
            await asked(journal, run_id)
        tables = Tables(journal)
        rows = [row for row in await tables.rows("journal") if row["payload"] is not None]
        runs = sorted({row["run"] for row in rows})
        first, second = ([row for row in rows if row["run"] == run] for run in runs)
        same_kind = [row for row in first if row["kind"] == "EventEmitted"]
        there = next(row for row in second if (row["seq"], row["kind"]) == (same_kind[0]["seq"], "EventEmitted"))
        for row, other in ((first[0], first[1]), (same_kind[0], there)):
            await tables.replace("journal", row, payload=other["payload"])
            await refused(journal, (await journal.runs())[-1].run_id, row["seq"], "another row or run")
            await tables.replace("journal", row)
        # The column that names the seals belongs to it as well.
        await tables.replace("journal", first[0], seal="zlib+aes-gcm")
        await refused(journal, (await journal.runs())[-1].run_id, first[0]["seq"])
        await tables.replace("journal", first[0], seal=None)
        await refused(journal, (await journal.runs())[-1].run_id, first[0]["seq"], "not sealed by 'aes-gcm'")
        await tables.replace("journal", first[0], payload=None, seal=None)
        await refused(journal, (await journal.runs())[-1].run_id, first[0]["seq"])


async def test_plain_text_is_refused_where_encryption_is_required(where: str) -> None:
    async with Journal(where) as plain:
        await asked(plain, "film")
    async with Journal(where, **sealed()) as strict:
        await refused(strict, "film", 1, "requires")
        assert [info.prompt for info in await strict.pending()] == [UnknownEvent(name="SealedQuestion", raw=b"")]
        with pytest.raises(DeserializationError, match="run film, seq 1"):
            await Secretive(journal=strict).resume("film")
        with pytest.raises(DeserializationError, match=r"run film, seq 1 \(stream\)"):
            _ = [item async for item in strict.stream("film")]
    async with Journal(where, **sealed(allow_plaintext=True)) as lenient:
        handler = await Secretive(journal=lenient).resume("film")
        await lenient.send("film", SealedAnswer(text="yes"))
        assert await handler == ["yes", SECRET]
        rows = await Tables(lenient).rows("journal")
        assert {row["seal"] for row in rows if row["payload"] is not None} == {None, "aes-gcm"}


async def test_a_message_that_cannot_be_opened_parks_its_run_and_no_other(where: str) -> None:
    async with Journal(where, **sealed()) as journal:
        flow = Secretive(journal=journal)
        handlers = {run_id: flow.run(word=SECRET, run_id=run_id) for run_id in ("film", "book")}
        for run_id in handlers:
            await recorded(journal, run_id, WaitOpened)
        # A program that was not given the seal sends an answer.
        async with Journal(where) as plain:
            await plain.send("film", SealedAnswer(text="yes"))
        with pytest.raises(
            NeedsAttentionError, match=r"run film, seq 0 \(message .*not sealed by 'aes-gcm'.*flow\.resume"
        ):
            await handlers["film"]
        await journal.send("book", SealedAnswer(text="yes"))
        assert await handlers["book"] == ["yes", SECRET]
        assert (await journal.run("film")).status == "needs_attention"
    async with Journal(where, **sealed(allow_plaintext=True)) as lenient:
        assert await (await Secretive(journal=lenient).resume("film")) == ["yes", SECRET]


async def test_a_run_that_cannot_be_read_keeps_no_other_from_recovery(where: str) -> None:
    async with Journal(where) as plain:
        await asked(plain, "plain")
        await plain.send("plain", SealedAnswer(text="yes"))
    async with Journal(where, **sealed()) as journal:
        await asked(journal, "film")
        await journal.send("film", SealedAnswer(text="yes"))
        (handler,) = await Secretive(journal=journal).recover()
        assert handler.run_id == "film"
        assert await handler == ["yes", SECRET]


async def test_keys_are_rotated(where: str) -> None:
    async with Journal(where, seal=EncryptedSeal(keys=[KEY])) as journal:
        await asked(journal, "film")
    async with Journal(where, seal=EncryptedSeal(keys=[OTHER, KEY])) as journal:
        handler = await Secretive(journal=journal).resume("film")
        await journal.send("film", SealedAnswer(text="yes"))
        assert await handler == ["yes", SECRET]
        await asked(journal, "book")
    async with Journal(where, seal=EncryptedSeal(keys=[OTHER])) as journal:
        await refused(journal, "film", 1, "not among the keys")
        assert (await journal.state("book")).context == {"word": SECRET}


async def test_a_journal_without_the_seal_says_which_one_it_lacks(where: str) -> None:
    async with Journal(where, **sealed()) as journal:
        await asked(journal, "film")
        handler = await Secretive(journal=journal).resume("film")
        await journal.send("film", SealedAnswer(text="no"))
        with pytest.raises(ValueError, match=SECRET):
            await handler
    async with Journal(where) as plain:
        await refused(plain, "film", 1, "'aes-gcm', and none is configured")
        last = (await plain.run("film")).seq
        with pytest.raises(DeserializationError, match=r"run film, seq .*'aes-gcm'"):
            await Secretive(journal=plain).retry("film")
        # A row with nothing but sealed data, read alone.
        with pytest.raises(DeserializationError, match=rf"run film, seq {last} .*'aes-gcm'"):
            await plain.history("film", after=last - 1, limit=1)
        (info,) = await plain.runs()
        assert "'aes-gcm', and none is configured" in (info.error or "")


class Large(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.store.set("text", ev.text)
        ctx.write_event_to_stream(SealedNote(text=ev.text))
        return StopEvent(result=len(ev.text))


@pytest.mark.parametrize("options", [{}, sealed()], ids=["alone", "encrypted"])
async def test_large_payloads_are_compressed_and_small_ones_left(where: str, options: dict[str, Any]) -> None:
    ids = "zlib+aes-gcm" if options else "zlib"
    noise = os.urandom(100_000).hex()[:70_000].translate({n: 0x3B1 + n * 7 for n in range(48, 58)})
    async with Journal(where, **options) as journal:
        flow, tables = Large(journal=journal), Tables(journal)
        assert await flow.run(text="ab" * 50_000, run_id="film") == 100_000
        rows = await tables.rows("journal")
        (text,) = [row for row in rows if row["kind"] == "ContextSet"]
        assert text["seal"] == ids
        assert len(text["payload"]) < 2_000
        assert (await tables.rows("stream"))[0]["seal"] == ids
        (ended,) = [row for row in rows if row["kind"] == "RunCompleted"]
        assert ended["seal"] == (ids.partition("+")[2] or None)
        assert (await journal.state("film")).context == {"text": "ab" * 50_000}
        # The outer seal is told of the inner one, so its name cannot be taken away.
        if options:
            await tables.replace("journal", text, seal="aes-gcm")
            await refused(journal, "film", text["seq"])
        assert await flow.run(text=noise, run_id="noise") == len(noise)
        assert (await journal.state("noise")).context == {"text": noise}
    async with Journal(where, compress=False, **options) as journal:
        assert await Large(journal=journal).run(text="ab" * 50_000, run_id="book") == 100_000
        stored = await Tables(journal).rows("journal", "length(payload) > 100000")
        assert all(row["seal"] == (ids.partition("+")[2] or None) for row in stored)
        assert len(stored) >= 1


async def test_what_would_grow_too_large_is_not_unpacked(where: str) -> None:
    async with Journal(where, max_payload_bytes=200_000) as journal:
        await Large(journal=journal).run(text="ab" * 50_000, run_id="film")
        tables = Tables(journal)
        (row,) = [row for row in await tables.rows("journal") if row["kind"] == "ContextSet"]
        bomb = Compression(1 << 30).seal(b"0" * (64 << 20), uid="", seq=0, kind="")
        assert len(bomb) < 1 << 20
        await tables.replace("journal", row, payload=bomb)
        await refused(journal, "film", row["seq"], "more than 200,000")
        for wrong in (row["payload"][:-3], row["payload"] + b"x", b"no zlib"):
            await tables.replace("journal", row, payload=wrong)
            await refused(journal, "film", row["seq"], "changed|cut short")


def test_every_byte_of_a_sealed_payload_counts() -> None:
    seals = Seals(EncryptedSeal(keys=[KEY]))
    place = {"uid": "u", "seq": 7, "kind": "ContextSet"}
    data, ids = seals.seal(b'{"a":1}', **place)
    assert seals.open(data, ids, run_id="film", **place) == b'{"a":1}'
    assert b'"a"' not in data
    assert data != seals.seal(b'{"a":1}', **place)[0]
    for at in range(len(data)):
        with pytest.raises(DeserializationError, match=r"run film, seq 7 \(ContextSet\)"):
            seals.open(flipped(data, at), ids, run_id="film", **place)
    for moved in ({"uid": "v"}, {"seq": 8}, {"kind": "ContextSet.data"}):
        with pytest.raises(DeserializationError, match="another row or run"):
            seals.open(data, ids, run_id="film", **{**place, **moved})
    for cut in (b"", data[:16], data[:-1], data + b"\0"):
        with pytest.raises(DeserializationError):
            seals.open(cut, ids, run_id="film", **place)


def test_keys_of_another_form_are_refused() -> None:
    for wrong in ([], ["short"], [b"short"], [KEY + "x"], [bytes(31)], [None]):
        with pytest.raises(SerializationError, match=r"keys= takes a list|32 random bytes"):
            EncryptedSeal(keys=wrong)  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="takes a list"):
        EncryptedSeal(keys=KEY)
    shown = repr(EncryptedSeal(keys=[KEY]))
    assert KEY not in shown
    assert EncryptedSeal(keys=[KEY]) == EncryptedSeal(keys=[KEY]) != EncryptedSeal(keys=[OTHER])
    assert len({EncryptedSeal(keys=[KEY]), EncryptedSeal(keys=[KEY])}) == 1
    for no_seal in (object(), EncryptedSeal, KEY):
        with pytest.raises(TypeError, match="seal="):
            Journal("memory://", seal=no_seal)  # type: ignore[arg-type]


def test_what_is_compressed_can_always_be_read_again() -> None:
    seals = Seals(compress=True, limit=100_000)
    place = {"uid": "u", "seq": 7}
    for kind, size, ids in (
        ("ContextSet", 65_536, None),
        ("ContextSet", 65_537, "zlib"),
        ("ContextSet", 100_000, "zlib"),
        # Above the limit nothing comes, but what it does not open it does not close either.
        ("ContextSet", 100_001, None),
        # A snapshot holds many values.
        ("snapshot", 1_600_000, "zlib"),
        ("snapshot", 1_600_001, None),
    ):
        data = b"a" * size
        stored, found = seals.seal(data, **place, kind=kind)
        assert found == ids
        assert (stored is data) == (ids is None)
        assert seals.open(stored, found, run_id="film", **place, kind=kind) == data
    noise = os.urandom(90_000)
    assert seals.seal(noise, **place, kind="ContextSet") == (noise, None)


async def test_an_archive_is_sealed_and_its_run_goes_on_in_another_sealed_journal(where: str, tmp_path: Path) -> None:
    archive = tmp_path / "film.jsonl"
    async with Journal(where, **sealed()) as journal:
        await asked(journal, "film")
        await journal.send("film", SealedAnswer(text="yes"))
        await journal.export("film", archive)
    assert SECRET not in archive.read_text()
    there = f"sqlite:///{tmp_path}/there.db"
    async with Journal(there, seal=EncryptedSeal(keys=[OTHER])) as stranger:
        with pytest.raises(ArchiveError, match="not among the keys"):
            await stranger.import_(archive)
    async with Journal(there, seal=EncryptedSeal(keys=[OTHER, KEY])) as journal:
        await journal.import_(archive)
        assert SECRET not in await Tables(journal).text()
        assert await (await Secretive(journal=journal).resume("film")) == ["yes", SECRET]
        rows = await Tables(journal).rows("journal")
        assert {row["seal"] for row in rows if row["payload"] is not None} == {"aes-gcm"}


class Careless:
    """A seal that keeps to nothing that the protocol asks for."""

    id = "careless"

    def __init__(self, sealed: Any = None, opened: Any = None):
        self.sealed, self.opened = sealed, opened

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        return data[::-1] if self.sealed is None else self.sealed(data)  # type: ignore[no-any-return]

    def open(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        return data[::-1] if self.opened is None else self.opened(data)  # type: ignore[no-any-return]


async def test_a_seal_of_others_is_held_to_the_protocol(where: str) -> None:
    async with Journal(where, seal=Careless(sealed=bytes.decode)) as journal:
        with pytest.raises(DurableFlowError, match=r"the seal 'careless' returned str; seal returns bytes"):
            await Secretive(journal=journal).run(word=SECRET, run_id="film")
    async with Journal(where, seal=Careless()) as journal:
        await asked(journal, "book")
        archive = io.BytesIO()
        await journal.export("book", archive)
    async with Journal("memory://", seal=Careless(opened=lambda data: {}[data])) as other:
        with pytest.raises(ArchiveError, match=r"cannot be opened with the journal's seal: .* failed: KeyError"):
            await other.import_(io.BytesIO(archive.getvalue()))
    for opened, reason in ((lambda data: {}[data], "failed: KeyError"), (bytes.decode, "returned str; open returns")):
        async with Journal(where, seal=Careless(opened=opened)) as journal:
            await refused(journal, "book", 1, reason)
            assert [run.run_id for run in await journal.runs()] == ["book"]


async def test_a_plain_archive_is_refused_where_encryption_is_required(where: str, tmp_path: Path) -> None:
    archive = tmp_path / "film.jsonl"
    async with Journal("memory://") as plain:
        await asked(plain, "film")
        await plain.export("film", archive)
    async with Journal(where, **sealed()) as journal:
        with pytest.raises(ArchiveError, match=r"not sealed by .aes-gcm., .*allow_plaintext"):
            await journal.import_(archive)
        assert await journal.runs() == []
    async with Journal(where, **sealed(allow_plaintext=True)) as journal:
        await journal.import_(archive)
        assert SECRET not in await Tables(journal).text()
    # It was sealed on its way in.
    async with Journal(where, **sealed()) as journal:
        await journal.send("film", SealedAnswer(text="yes"))
        assert await (await Secretive(journal=journal).resume("film")) == ["yes", SECRET]


async def test_a_fork_and_snapshots_are_sealed_too(where: str) -> None:
    async with Journal(where, **sealed()) as journal:
        await asked(journal, "film")
        store = journal._shared.store
        key = (await journal._row("film")).run
        state = await state_at(store, key)
        await store.save_snapshot(key, new_snapshot(state, "film", state.last_at), 0)
        handler = await Secretive(journal=journal).fork("film", at=state.seq, new_run_id="book")
        await recorded(journal, "book", StateImported)
        tables = Tables(journal)
        assert SECRET not in await tables.text()
        (snapshot,) = await tables.rows("snapshots")
        assert snapshot["seal"] == "aes-gcm"
        assert (await folded(store, key)).snapshot == state.seq
        await journal.send("book", SealedAnswer(text="yes"))
        assert await handler == ["yes", SECRET]
        # A snapshot is only a cache: changed, it is not used.
        await tables.replace("snapshots", snapshot, payload=flipped(snapshot["payload"]))
        assert await folded(store, key) == (state, 0, 0)
