"""`journal.export` and `journal.import_`: a run goes on elsewhere, and what is not a whole archive has no effect."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    ArchiveError,
    Context,
    DeserializationError,
    Event,
    Journal,
    NeedsAttentionError,
    RunConflictError,
    RunFailedError,
    RunIdError,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.cli import main
from durable_flow.journal import archives
from durable_flow.journal.archive import Chain
from durable_flow.journal.archives import export_run, import_run
from durable_flow.records import ChildStarted, RunStarted, WaitOpened
from durable_flow.serializers.pickle import PickleSerializer

from .flows import Answer, Asking, Order, Shop, question, recorded, streamed, until

Pair = tuple[Journal, Journal]
HERE = Path(__file__).parent


@pytest.fixture(params=["from", "to"])
def pair(request: pytest.FixtureRequest, journal: Journal, memory: Journal) -> Pair:
    """Two journals of different kinds (or both in memory): where a run was, and where it goes."""
    return (journal, memory) if request.param == "from" else (memory, journal)


class Charge(Workflow):
    """Charges by a call, then waits at `hold`."""

    def __init__(self, hold: asyncio.Event | None = None, **kwargs: Any):
        super().__init__(**{"workflow_name": "Charge", **kwargs})
        self.hold, self.charged, self.keys = hold, 0, set[str]()
        self.waits = asyncio.Event()

    @step
    async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.keys.add(ctx.idempotency_key("charge"))
        paid = await ctx.call("charge", self.charge, ev.amount)
        ctx.write_event_to_stream(Event(paid=paid))
        await ctx.store.set("paid", paid)
        await ctx.checkpoint("paid")
        self.waits.set()
        if self.hold is not None:
            await self.hold.wait()
        return StopEvent(result=f"paid {paid}")

    async def charge(self, amount: int) -> int:
        self.charged += 1
        return amount


async def archive_of(journal: Journal, run_id: str) -> bytes:
    file = io.BytesIO()
    await journal.export(run_id, file)
    return file.getvalue()


async def passed(source: Journal, target: Journal, run_id: str, new_run_id: str | None = None) -> None:
    await target.import_(io.BytesIO(await archive_of(source, run_id)), new_run_id)


async def shown(journal: Journal, run_id: str) -> list[Any]:
    """What a journal tells of a run, but the times of its row."""
    info, state = await journal.run(run_id), await journal.state(run_id)
    told = (info.uid, info.workflow, info.shape, info.status, info.seq, info.epoch, info.waits, info.error)
    ended = [item async for item in journal.stream(run_id)] if info.finished_at else []
    return [told, state, await journal.history(run_id), ended]


# -- The same run ------------------------------------------------------------------------------------------------------


async def test_a_finished_run_tells_the_same_and_gives_its_result(pair: Pair) -> None:
    source, target = pair
    assert await Shop(journal=source).run(start_event=Order(item="lamp"), run_id="lamp") == "shipped 1 lamp"

    await passed(source, target, "lamp")

    assert await shown(target, "lamp") == await shown(source, "lamp")
    for at in range(2, (await source.run("lamp")).seq):
        assert await target.state("lamp", at=at) == await source.state("lamp", at=at)
    shop = Shop(journal=target)
    assert await (await shop.resume("lamp")) == "shipped 1 lamp"
    assert shop.ran == []


async def test_an_unfinished_run_goes_on_where_it_was_with_its_keys(pair: Pair) -> None:
    source, target = pair
    here = Charge(asyncio.Event(), journal=source)
    handler = here.run(amount=5, run_id="order")
    await here.waits.wait()

    archive = await archive_of(source, "order")
    await handler.cancel_run()
    info = await target.import_(io.BytesIO(archive))
    there = Charge(journal=target)

    assert (info.run_id, info.status, info.owner) == ("order", "running", None)
    assert (await target.state("order")).context == {"paid": 5}
    assert await (await there.resume("order")) == "paid 5"
    # What had been recorded is not done again, and the outside world hears the key that it knows.
    assert (here.charged, there.charged) == (1, 0)
    assert there.keys == here.keys
    assert [item.event.get("paid") async for item in target.stream("order") if item.event] == [5]


async def test_an_answer_that_no_process_has_taken_comes_along_and_counts_once(pair: Pair) -> None:
    source, target = pair
    flow = Asking(journal=source)
    asked = await question(flow.run(run_id="doc"))
    archive = await archive_of(source, "doc")
    waiting = await source.run("doc")

    imported = await target.import_(io.BytesIO(archive))
    assert [w.wait_id for w in await target.pending()] == [w.wait_id for w in waiting.waits] == [asked.wait_id]
    assert imported.status == "waiting"
    assert await target.send("doc", Answer(text="yes"), message_id="mail-1")
    assert await target.pending() == []

    async with Journal("memory://") as third:
        await passed(target, third, "doc")
        assert not await third.send("doc", Answer(text="yes"), message_id="mail-1")
        result = await (await Asking(journal=third).resume("doc"))
        assert result == await (await Asking(journal=target).resume("doc"))
        # Also where it came along as a record: a finished run, read once more.
        async with Journal("memory://") as fourth:
            await passed(third, fourth, "doc")
            assert await shown(fourth, "doc") == await shown(third, "doc")
            assert not await fourth.send("doc", Answer(text="yes"), message_id="mail-1")


async def test_a_failed_run_is_retried_elsewhere(pair: Pair) -> None:
    source, target = pair
    with pytest.raises(ValueError, match="no van"):
        await Shop(journal=source, fail=ValueError("no van")).run(start_event=Order(item="lamp"), run_id="lamp")

    await passed(source, target, "lamp")

    assert (await target.run("lamp")).error == (await source.run("lamp")).error
    assert (await target.run("lamp")).finished_at is not None
    with pytest.raises((RunFailedError, ValueError), match="no van"):
        await (await Shop(journal=target).resume("lamp"))
    shop = Shop(journal=target)
    assert await (await shop.retry("lamp")) == "shipped 1 lamp"
    assert shop.ran == ["ship"]


async def test_a_live_run_is_exported_up_to_a_boundary_and_goes_on_undisturbed(pair: Pair) -> None:
    source, target = pair
    hold = asyncio.Event()
    shop = Shop(journal=source, hold=hold)
    handler = shop.run(start_event=Order(item="lamp"), run_id="lamp")
    await shop.shipping.wait()

    await passed(source, target, "lamp")
    hold.set()

    assert await handler == "shipped 1 lamp"
    cut = await target.history("lamp")
    assert cut[-1].boundary
    assert cut == (await source.history("lamp"))[: len(cut)]
    assert (await target.run("lamp")).status == "running"


async def test_a_run_and_the_run_that_it_started_are_moved_one_by_one(pair: Pair) -> None:
    source, target = pair

    class Leg(Workflow):
        ran = 0

        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            Leg.ran += 1
            answer = await ctx.wait_for_event(Answer)
            return StopEvent(result=answer.text)

    class Trip(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.leg = Leg(journal=kwargs["journal"], workflow_name="Leg")

        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await self.leg.run(run_id="leg"))

    trip = Trip(journal=source, workflow_name="Trip")
    handler = trip.run(run_id="trip")
    await until(lambda: _waits_of(source, "leg"))
    await passed(source, target, "leg")
    await passed(source, target, "trip")
    await handler.cancel_run()

    moved = await Trip(journal=target, workflow_name="Trip").resume("trip")
    assert await target.send("leg", Answer(text="arrived"))
    assert await moved == "arrived"
    [child] = [run for run in await target.runs() if run.run_id == "leg"]
    assert child.status == "completed"


async def _waits_of(journal: Journal, run_id: str) -> tuple[Any, ...]:
    try:
        return (await journal.run(run_id)).waits
    except RunNotFoundError:
        return ()


async def test_a_run_that_was_started_and_left_behind_is_started_anew(pair: Pair) -> None:
    source, target = pair
    held, there = asyncio.Event(), asyncio.Event()
    there.set()

    class Leg(Workflow):
        gate = held
        begun = 0

        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            Leg.begun += 1
            await Leg.gate.wait()
            return StopEvent(result=Leg.begun)

    class Trip(Workflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Leg(journal=self.journal, workflow_name="Leg").run(run_id="leg"))

        def __init__(self, **kwargs: Any):
            super().__init__(**{"workflow_name": "Trip", **kwargs})
            self.journal = kwargs["journal"]

    handler = Trip(journal=source).run(run_id="trip")
    await recorded(source, "trip", ChildStarted)
    await recorded(source, "leg", RunStarted)
    await passed(source, target, "trip")
    await handler.cancel_run()
    Leg.gate = there
    before = Leg.begun
    assert await (await Trip(journal=target).resume("trip")) == before + 1
    assert {run.run_id for run in await target.runs()} == {"trip", "leg"}


async def test_a_run_whose_end_is_recorded_is_imported_before_its_parent_goes_on(pair: Pair) -> None:
    source, target = pair
    paid = asyncio.Event()

    class Fare(Workflow):
        @step
        async def pay(self, ev: StartEvent) -> StopEvent:
            paid.set()
            return StopEvent(result="paid")

    class Journey(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(**{"workflow_name": "Journey", **kwargs})
            self.journal = kwargs["journal"]

        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            fare = await Fare(journal=self.journal, workflow_name="Fare").run(run_id="fare")
            answer = await ctx.wait_for_event(Answer, timeout=None)
            return StopEvent(result=[fare, answer.text])

    handler = Journey(journal=source).run(run_id="journey")
    await recorded(source, "journey", WaitOpened)
    await passed(source, target, "journey")
    await passed(source, target, "fare", "other")
    await handler.cancel_run()
    paid.clear()
    await target.send("journey", Answer(text="go"))
    with pytest.raises(NeedsAttentionError, match=r"run fare of Fare.* not imported.*Import.*resume\('journey'\)"):
        await (await Journey(journal=target).resume("journey"))

    await target.prune(timedelta(0), keep_results=False)
    await passed(source, target, "fare")
    assert await (await Journey(journal=target).resume("journey")) == ["paid", "go"]
    assert not paid.is_set()


async def test_messages_are_as_the_records_of_the_archive_leave_them(
    memory: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes an answer, and ends, after its messages were looked at and before its records are."""
    handler = Asking(journal=memory).run(run_id="doc")
    await question(handler)
    store = memory._shared.store
    unconsumed = store.unconsumed

    async def then_taken(run: int) -> Any:
        assert await memory.send("doc", Answer(text="yes"), message_id="mail-1")
        waiting = await unconsumed(run)
        await handler
        return waiting

    monkeypatch.setattr(store, "unconsumed", then_taken)
    archive = await archive_of(memory, "doc")
    lines = [json.loads(line) for line in archive.splitlines()]
    assert lines[0]["status"] == "completed"
    assert [line["name"] for line in lines if line.get("kind") == "MessageReceived"] == ["mail-1"]
    assert not [line for line in lines if "message" in line]


async def test_an_archive_of_the_first_version_goes_on(journal: Journal) -> None:
    """A file that is never written again: a run that waits for an answer, and the answer, untaken."""
    info = await journal.import_(HERE / "archive_v1.jsonl")
    assert (info.run_id, info.status, info.seq) == ("doc", "waiting", 6)
    assert await journal.pending() == []
    flow = Asking(journal=journal)
    assert await (await flow.resume("doc")) == "yes"
    assert flow.ran == ["answered yes"]


# -- Which run it is ---------------------------------------------------------------------------------------------------


async def finished(journal: Journal, run_id: str = "lamp") -> bytes:
    await Shop(journal=journal).run(start_event=Order(item="lamp"), run_id=run_id)
    return await archive_of(journal, run_id)


async def test_a_run_id_that_exists_is_refused_and_another_one_taken(journal: Journal, memory: Journal) -> None:
    archive = await finished(memory)
    await finished(journal)
    before = await shown(journal, "lamp")

    with pytest.raises(RunConflictError, match=r"another run lamp in .* Nothing was imported"):
        await journal.import_(io.BytesIO(archive))
    assert await shown(journal, "lamp") == before
    assert len(await journal.runs()) == 1

    info = await journal.import_(io.BytesIO(archive), "lamp-2")
    assert (info.run_id, info.uid) == ("lamp-2", (await memory.run("lamp")).uid)
    assert await (await Shop(journal=journal).resume("lamp-2")) == "shipped 1 lamp"


async def test_the_same_run_is_not_had_twice_in_a_journal(journal: Journal) -> None:
    archive = await finished(journal)
    for new_run_id in (None, "lamp-2"):
        with pytest.raises(RunConflictError, match=r"has this run already.*Fork lamp"):
            await journal.import_(io.BytesIO(archive), new_run_id)
    assert len(await journal.runs()) == 1


async def test_of_two_imports_at_once_one_succeeds(journal: Journal, memory: Journal) -> None:
    archive = await finished(memory)
    both = [journal.import_(io.BytesIO(archive), name) for name in ("one", "other")]
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RunConflictError", "RunInfo"]
    assert len(await journal.runs()) == 1


async def test_names_that_are_none_are_refused(memory: Journal, journal: Journal) -> None:
    archive = await finished(memory)
    with pytest.raises(RunIdError):
        await journal.import_(io.BytesIO(archive), "../lamp")
    with pytest.raises(RunNotFoundError):
        await journal.export("nobody", io.BytesIO())


# -- Files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lamp.jsonl", "lamp.jsonl.gz"])
async def test_a_path_gets_the_whole_archive_for_its_owner_alone(journal: Journal, tmp_path: Path, name: str) -> None:
    await finished(journal)
    path = tmp_path / name
    path.write_text("what stood there before")

    told = await journal.export("lamp", path)

    assert [file for file in os.listdir(tmp_path) if name in file] == [name]
    assert path.stat().st_mode & 0o777 == 0o600
    text = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    assert (len(text), json.loads(text.splitlines()[-1])["hash"]) == (told.bytes, told.hash)
    assert text.count(b"\n") == told.records + told.items + told.messages + 2
    async with Journal("memory://") as other:
        await other.import_(str(path))
        assert await shown(other, "lamp") == await shown(journal, "lamp")


async def test_an_export_that_fails_leaves_what_was_there(
    memory: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finished(memory)
    path = tmp_path / "lamp.jsonl"
    path.write_text("what stood there before")
    store = memory._shared.store

    async def lost(*args: Any, **kwargs: Any) -> list[Any]:
        return []

    monkeypatch.setattr(store, "stream", lost)
    with pytest.raises(ArchiveError, match="stream item 1 is not there any more"):
        await memory.export("lamp", path)
    assert path.read_text() == "what stood there before"
    assert os.listdir(tmp_path) == [path.name]


async def test_files_for_text_folders_and_pipes_are_refused(memory: Journal, tmp_path: Path) -> None:
    archive = await finished(memory)
    os.mkfifo(tmp_path / "pipe")
    async with Journal("memory://") as other:
        with pytest.raises(TypeError, match="for bytes"):
            await other.import_(io.StringIO(archive.decode()))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="for bytes"):
            await memory.export("lamp", io.StringIO())  # type: ignore[arg-type]
        with pytest.raises(OSError, match=r"director|folder"):
            await memory.export("lamp", tmp_path)
        with pytest.raises(ArchiveError, match="no regular file") as refusal:
            await other.import_(tmp_path)
        assert str(refusal.value).count("Nothing was imported") == 1
        with pytest.raises(ArchiveError, match="no regular file"):
            await other.import_(tmp_path / "pipe")
        # Nor is what stands there replaced: as root an export to /dev/null would make a file of it.
        (tmp_path / "link").symlink_to("pipe")
        for name in ("pipe", "link"):
            with pytest.raises(ArchiveError, match="no regular file"):
                await memory.export("lamp", tmp_path / name)
            assert (tmp_path / name).is_fifo()
        assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]
        with pytest.raises(FileNotFoundError):
            await other.import_(tmp_path / "nothing")
        assert await other.runs() == []


# -- What is refused ---------------------------------------------------------------------------------------------------


async def refused(journal: Journal, archive: bytes, match: str, **limits: Any) -> None:
    with pytest.raises(ArchiveError, match=match) as error:
        await journal.import_(io.BytesIO(archive), **limits)
    assert "Nothing was imported" in str(error.value)
    assert await journal.runs() == []


def forged(archive: bytes, change: Callable[[list[dict[str, Any]]], object]) -> bytes:
    """Change the content of an archive and give it the hashes that belong to it: by somebody who knows the format."""
    contents = [json.loads(line) for line in archive.splitlines()]
    for content in contents:
        del content["hash"]
    change(contents)
    chain = Chain()
    return b"".join(map(chain.close, contents))


async def test_what_exceeds_a_limit_is_refused(journal: Journal, memory: Journal) -> None:
    archive = await finished(memory)
    lines = archive.splitlines(keepends=True)
    await refused(journal, archive, "max_line_bytes = 100 ", max_line_bytes=100)
    await refused(journal, archive, "max_total_bytes", max_total_bytes=len(archive) - 1)
    await refused(journal, archive, "max_records", max_records=len(lines) - 3)
    longest = max(map(len, lines))
    limits = {"max_line_bytes": longest, "max_total_bytes": len(archive), "max_records": len(lines) - 2}
    await journal.import_(io.BytesIO(archive), **limits)


async def test_a_payload_larger_than_the_journal_takes_is_refused(new_journal: Callable[..., Journal]) -> None:
    async with Journal("memory://") as source, new_journal(max_payload_bytes=100) as target:
        await Shop(journal=source).run(start_event=Order(item="lamp" * 100), run_id="lamp")
        await refused(target, await archive_of(source, "lamp"), "max_payload_bytes = 100")


async def test_a_fork_is_one_of_its_parent_where_both_are(pair: Pair) -> None:
    source, target = pair
    await finished(source)
    await source.fork("lamp", 2, new_run_id="copy")
    await passed(source, target, "lamp", "moved")
    await passed(source, target, "copy")
    assert (await target.run("copy")).forked_from == "moved/2"
    assert [fork.run_id for fork in await target.forks("moved")] == ["copy"]
    async with Journal("memory://") as other:
        await passed(source, other, "copy")
        assert (await other.run("copy")).forked_from is None


class Hoarder(Workflow):
    """Has more in its context than one payload may hold."""

    @step
    async def hoard(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for key in "abcde":
            await ctx.store.set(key, key * 800)
        await ctx.checkpoint("full")
        return StopEvent(result="done")


async def test_a_state_is_forked_and_moved_whose_values_are_each_small_enough(
    new_journal: Callable[..., Journal],
) -> None:
    async with new_journal(max_payload_bytes=1000) as journal, Journal("memory://", max_payload_bytes=1000) as other:
        await Hoarder(journal=journal).run(run_id="r")
        await journal.fork("r", "full", new_run_id="f")
        assert len((await journal.state("f")).context) == 5
        archive = await archive_of(journal, "f")
        async with Journal("memory://", max_payload_bytes=801) as small:
            await refused(small, archive, "802 bytes, more than max_payload_bytes = 801")
        await other.import_(io.BytesIO(archive))
        assert await (await Hoarder(journal=other).resume("f")) == "done"


async def test_compression_is_undone_up_to_a_hundredfold(memory: Journal) -> None:
    archive = await finished(memory)
    async with Journal("memory://") as other:
        bomb = gzip.compress(bytes(200_000_000))
        await refused(other, bomb, "100-fold|max_line_bytes")
        await refused(other, gzip.compress(b"{}\n" * 50_000_000), "no archive|100-fold")
        manifest, *rest = archive.splitlines(keepends=True)
        await refused(other, gzip.compress(b"".join((manifest, b" " * 30_000_000, *rest))), "100-fold")
        whole = gzip.compress(archive)
        await refused(other, whole[:-1], "cut off")
        await refused(other, whole + b"x", "follows the end")
        await refused(other, whole + whole, "follows the end")
        await refused(other, gzip.compress(whole), "no archive|hash")
        await other.import_(io.BytesIO(whole))


async def test_an_export_that_an_import_would_refuse_is_not_written(memory: Journal, tmp_path: Path) -> None:
    await Shop(journal=memory).run(start_event=Order(item="a" * 20_000_000), run_id="long")
    with pytest.raises(ArchiveError, match=r"does not end in \.gz"):
        await memory.export("long", tmp_path / "long.gz")
    assert os.listdir(tmp_path) == []
    await memory.export("long", tmp_path / "long.jsonl")
    async with Journal("memory://") as other:
        assert (await other.import_(tmp_path / "long.jsonl")).status == "completed"


async def test_other_kinds_of_archives_are_refused(journal: Journal, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    tar, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as file:
        file.add(link, "../../link")
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.writestr("../../etc/passwd", "root")
    for content in (tar.getvalue(), packed.getvalue(), b"", b"\n", b"{}\n", b"[]\n", os.urandom(1000), bytes(1000)):
        await refused(journal, content, "refused at line 1")


def set_in(n: int, **fields: Any) -> Callable[[list[dict[str, Any]]], object]:
    return lambda contents: contents[n].update(fields)


def record(of: str, **fields: Any) -> Callable[[list[dict[str, Any]]], object]:
    """Change the first record of a kind; a field that is None is taken away."""

    def change(contents: list[dict[str, Any]]) -> None:
        found = next(content for content in contents if content.get("kind") == of)
        found.update(fields)
        for name in [name for name, value in fields.items() if value is None]:
            del found[name]

    return change


def without(key: str) -> Callable[[list[dict[str, Any]]], object]:
    return lambda contents: contents.remove(next(content for content in contents if key in content))


def again(kind: str) -> Callable[[list[dict[str, Any]]], object]:
    """Repeat a record at the end, with the number that it has to have there."""

    def change(contents: list[dict[str, Any]]) -> None:
        found = next(content for content in contents if content.get("kind") == kind)
        last = max(content.get("record", 0) for content in contents)
        contents.insert(-1, {**found, "record": last + 1})
        contents[0]["records"] = contents[-1]["records"] = last + 1

    return change


DEEP = "[" * 50_000 + "]" * 50_000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_in(0, version=3), "version 3, this package reads versions 1 and 2: upgrade"),
        (set_in(0, version="1"), "version"),
        (set_in(0, archive="other"), "no archive of durable_flow"),
        (set_in(0, path="../../etc/passwd"), "not known: path"),
        (set_in(0, run_id="../../etc/passwd"), "is not a run id"),
        (set_in(0, uid="another"), "another run than the manifest's"),
        (set_in(0, workflow="Other"), "another run than the manifest's"),
        (set_in(0, status="running"), "another run than the manifest's"),
        (set_in(0, records=1), "count"),
        (set_in(0, created_at=-1), "out of range"),
        (set_in(0, created_at=1.5), "created_at"),
        (set_in(0, created_at=1 << 62), "out of range"),
        (set_in(0, shape="NUL \0"), "the manifest has the text 'NUL .* NUL"),
        (set_in(0, durable_flow="\ud800"), "half a surrogate pair"),
        (set_in(2, at=1), "time is before"),
        (set_in(0, seal="aes"), "seal 'aes', and none is configured"),
        (set_in(1, link="/etc/passwd"), "not known: link"),
        (set_in(1, record=2), "record 2 where record 1"),
        (set_in(1, at=1 << 63), "out of range"),
        (set_in(1, epoch=2), "epoch 2"),
        (set_in(1, boundary=1), "boundary"),
        (set_in(1, payload={"path": "/etc/passwd"}), "neither text nor base64"),
        (set_in(1, payload={"base64": "!"}), "no base64"),
        (set_in(1, payload="\ud800"), "no text"),
        (set_in(1, data="{"), "cannot be read"),
        (set_in(1, data=DEEP), "cannot be read"),
        (set_in(1, kind="Link"), "not known to this version"),
        (set_in(1, name="NUL \0"), "NUL"),
        (set_in(2, name=None), "name"),
        (set_in(-1, messages=1), "count"),
        (set_in(-1, end=False), "footer"),
        (set_in(3, name="NUL \0"), "NUL"),
        (set_in(3, v=32_768), "'v' out of range"),
        (record("StepCompleted", data='{"attempt":' + "9" * 30 + "}"), "number out of range"),
        (record("RunStarted", data='{"uid":"\\u0000","shape":""}'), "RunStarted has the text .* NUL"),
        (record("StepCompleted", step="nobody"), "do not fold"),
        (record("StepCompleted", data='{"attempt":"one"}'), "wrong type"),
        (record("StepCompleted", task=None, step=None), "wrong type"),
        (record("EventEmitted", data='{"targets":[1]}'), "wrong type"),
        (record("StreamPublished", data='{"first":2,"digests":[""]}'), "position 2 where position 1"),
        (record("StreamPublished", data='{"first":1,"digests":["","",""]}'), "stream item 2 is missing"),
        (record("RunStarted", kind="RunResumed", data='{"by":"me"}', payload=None, codec=None), "was started"),
        (again("RunStarted"), "was started"),
        (again("StepCompleted"), "do not fold"),
        (without("item"), "stream item 1 is missing"),
        (without("end"), "cut off"),
        (lambda contents: contents.insert(1, {"item": 1, "name": "E", "codec": "json", "v": 1, "payload": ""}),
         "does not belong here"),
        (lambda contents: contents.append(contents[-1]), "behind|follows"),
        (lambda contents: contents.insert(2, contents[0]), "no record, stream item"),
        (lambda contents: contents[-2].update(boundary=False), "no boundary"),
    ],
)  # fmt: skip
async def test_a_forged_archive_is_refused(memory: Journal, change: Any, match: str) -> None:
    archive = await finished(memory)
    assert forged(archive, lambda contents: None) == archive
    async with Journal("memory://") as other:
        await refused(other, forged(archive, change), match)


async def test_messages_from_an_archive_are_as_restricted_as_others(memory: Journal) -> None:
    await question(Asking(journal=memory).run(run_id="doc"))
    archive = await archive_of(memory, "doc")
    letter = {"message": "m", "kind": "event", "name": "E", "codec": "json", "v": 1, "payload": "{}"}

    def with_messages(*messages: dict[str, Any]) -> bytes:
        def change(contents: list[dict[str, Any]]) -> None:
            contents[-1:-1] = messages
            contents[0]["messages"] = contents[-1]["messages"] = len(messages)

        return forged(archive, change)

    async with Journal("memory://") as other:
        await refused(other, with_messages(letter, letter), "there twice")
        await refused(other, with_messages({**letter, "codec": "pickle"}), "never accepted", allow_codecs=["pickle"])
        await refused(other, with_messages({**letter, "kind": "run"}), "kind 'run'")
        one, two = ({**letter, "message": name, "kind": "answer", "wait_id": "w"} for name in "ab")
        await refused(other, with_messages(one, two), "two messages answer")
        for field in ("message", "wait_id", "step", "name"):
            await refused(other, with_messages({**letter, field: "half \ud800"}), "a message has the text 'half ")
        await refused(other, with_messages({"message": "m", "kind": "cancel", "reason": "\0"}), "NUL")
        await refused(other, with_messages({**letter, "v": 32_768}), "'v' out of range")
        await other.import_(io.BytesIO(with_messages(letter)))
    ended = forged(await finished(memory), lambda contents: contents.insert(-1, letter))
    async with Journal("memory://") as other:
        await refused(other, ended, "a run that has ended")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"context": [["NUL \0", ["json", "1"]]]}, "the state that the run goes on from has the text 'NUL "),
        ({"position": 1 << 62}, "the state that the run goes on from has a number out of range"),
    ],
)
async def test_the_state_that_a_fork_begins_with_is_looked_at_too(
    memory: Journal, change: dict[str, Any], match: str
) -> None:
    await finished(memory)
    await memory.fork("lamp", 2, new_run_id="copy")
    archive = await archive_of(memory, "copy")

    def changed(contents: list[dict[str, Any]]) -> None:
        (imported,) = (content for content in contents if content.get("kind") == "StateImported")
        imported["payload"] = json.dumps({**json.loads(imported["payload"]), **change})

    async with Journal("memory://") as other:
        await refused(other, forged(archive, changed), match)


# -- Code and keys -----------------------------------------------------------------------------------------------------


class Trap:
    """Runs code when it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return _spring, ()


def _spring() -> str:
    Trap.sprung = True
    return "sprung"


class Trapped(Workflow):
    @step
    async def set(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.store.set("trap", Trap())
        return StopEvent(result=1)


async def test_pickles_are_refused_unless_allowed_and_never_read_by_an_import(
    new_journal: Callable[..., Journal],
) -> None:
    serializer = PickleSerializer(key="secret")
    async with Journal("memory://", serializer=serializer) as source, new_journal(serializer=serializer) as target:
        await Trapped(journal=source).run(run_id="trap")
        archive = await archive_of(source, "trap")
        Trap.sprung = False

        await refused(target, archive, "codec 'pickle', and reading them may run code")
        await target.import_(io.BytesIO(archive), allow_codecs=["pickle"])

        assert not Trap.sprung
        assert (await target.state("trap")).context == {"trap": "sprung"}


class Xor:
    """A seal that tells whether it is opened at the place that it was closed for."""

    id = "xor"

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        return bytes(byte ^ 0x5A for byte in f"{uid}/{seq}/{kind}\n".encode() + data)

    def open(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        place, _, plain = bytes(byte ^ 0x5A for byte in data).partition(b"\n")
        if place != f"{uid}/{seq}/{kind}".encode():
            raise DeserializationError("it was closed for another place")
        return plain


async def test_a_seal_closes_every_line_but_the_first(memory: Journal) -> None:
    await finished(memory)
    store, file = memory._shared.store, io.BytesIO()
    row = await store.find("lamp")
    assert row is not None
    await export_run(store, row.run, file, version="test", seal=Xor())
    archive = file.getvalue()
    first, rest = archive.split(b"\n", 1)
    assert json.loads(first)["seal"] == "xor"
    assert b"lamp" not in rest
    assert b"StepCompleted" not in rest

    async with Journal("memory://") as other:
        there = other._shared.store
        await refused(other, archive, "seal 'xor', and none is configured")
        swapped = forged(archive, lambda contents: contents.insert(2, contents.pop(3)))
        with pytest.raises(ArchiveError, match="closed for another place"):
            await import_run(there, io.BytesIO(swapped), None, seal=Xor(), max_payload_bytes=1 << 20)
        assert await other.runs() == []
        await import_run(there, io.BytesIO(archive), None, seal=Xor(), max_payload_bytes=1 << 20)
        assert await shown(other, "lamp") == await shown(memory, "lamp")


# -- All or nothing ----------------------------------------------------------------------------------------------------


async def test_an_error_in_the_middle_of_an_import_leaves_nothing(
    journal: Journal, memory: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = await finished(memory)
    pages = archives._imported_pages

    def failing(*arguments: Any) -> Any:
        yield from pages(*arguments)
        raise ArchiveError("the disk is gone")

    monkeypatch.setattr(archives, "_imported_pages", failing)
    with pytest.raises(ArchiveError, match="the disk is gone"):
        await journal.import_(io.BytesIO(archive))
    assert await journal.runs() == []
    monkeypatch.undo()

    # Nothing of it is in the way.
    await journal.import_(io.BytesIO(archive))
    assert await shown(journal, "lamp") == await shown(memory, "lamp")


async def test_many_records_and_items_are_moved_in_pages(journal: Journal, memory: Journal) -> None:
    class Burst(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(700):
                ctx.write_event_to_stream(Event(n=n))
                if n % 2:
                    await ctx.store.set("n", n)
                    await ctx.checkpoint(f"at {n}")
            return StopEvent(result=1)

    handler = Burst(journal=memory, workflow_name="Burst").run(run_id="burst")
    assert len(await streamed(handler)) == 701
    await passed(memory, journal, "burst")
    assert len(await journal.history("burst")) > 3 * archives._PAGE
    assert await shown(journal, "burst") == await shown(memory, "burst")


# -- The command line --------------------------------------------------------------------------------------------------


async def test_the_command_line_moves_a_run(file: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await finished(file)
    here, there, archive = file.settings.url, f"sqlite:///{tmp_path}/there.db", str(tmp_path / "lamp.jsonl.gz")

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, arguments)
        return code, *capsys.readouterr()

    code, out, _ = await run("export", "lamp", archive, "--url", here)
    assert (code, out.startswith(f"{archive} has run lamp of Shop (completed): ")) == (0, True)
    code, out, _ = await run("import", archive, "--url", there)
    assert (code, "has run lamp of Shop (completed)" in out) == (0, True)
    async with Journal(there) as other:
        assert await shown(other, "lamp") == await shown(file, "lamp")

    code, _, told = await run("import", archive, "--url", there)
    assert (code, "durable-flow import: run lamp: the journal has this run already" in told) == (1, True)
    code, _, told = await run("import", f"{tmp_path}/nothing", "--url", there)
    assert (code, "No such file" in told) == (1, True)
    code, _, told = await run("export", "lamp", archive, "--url", f"sqlite:///{tmp_path}/nowhere.db")
    assert (code, "has no journal" in told) == (1, True)
    assert not (tmp_path / "nowhere.db").exists()
