"""`durable_flow.testing.assert_replays`: a regression test against a run, or against its archive from elsewhere."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    ArchiveError,
    Context,
    EncryptedSeal,
    Event,
    Journal,
    RunConflictError,
    RunIdError,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    step,
    upcast,
)
from durable_flow.serializers.pickle import PickleSerializer
from durable_flow.testing import assert_replays

from .test_replay import RpAll, RpStart, one
from .test_replay_options import RoParent


class ArMiddle(Event):
    n: int


class ArFlow(Workflow):
    def __init__(self, add: int = 1, **kwargs: Any):
        super().__init__(**{"workflow_name": "ArFlow", **kwargs})
        self.add = add
        self.called = 0

    def fetch(self) -> int:
        self.called += 1
        return 5

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> ArMiddle:
        ctx.data["log"] = [ev.topic]
        return ArMiddle(n=await ctx.call("fetch", self.fetch) + self.add)

    @step
    async def end(self, ctx: Context, ev: ArMiddle) -> StopEvent:
        ctx.data["log"].append(ev.n)
        ctx.write_event_to_stream(ArMiddle(n=ev.n))
        return StopEvent(result=ctx.data["log"])


async def exported(journal: Journal, path: Path, run_id: str = "r") -> Path:
    await ArFlow(journal=journal).run(run_id=run_id, topic="ships")
    await journal.export(run_id, path)
    return path


async def test_a_run_is_given_by_its_id_its_info_or_its_handler(memory: Journal) -> None:
    flow = ArFlow(journal=memory)
    handler = flow.run(run_id="r", topic="ships")
    await handler
    for run in ("r", handler, await memory.run("r")):
        report = await assert_replays(flow, run)
        assert (report.run_id, report.replayed, report.ok) == ("r", 2, True)
    assert flow.called == 1


async def test_a_difference_fails_the_test_and_says_what_it_is(memory: Journal) -> None:
    await ArFlow(journal=memory).run(run_id="r", topic="ships")
    with pytest.raises(AssertionError) as raised:
        await assert_replays(ArFlow(add=2, journal=memory), "r")
    text = str(raised.value)
    assert "replay of run r (ArFlow), records 1 to" in text
    assert "step 'begin'" in text
    assert "event ArMiddle.n\n  recorded: 6\n  new:      7" in text
    await assert_replays(ArFlow(add=2, journal=memory), "r", ignore=("ArMiddle.n",))
    await assert_replays(ArFlow(add=2, journal=memory), "r", skip=("begin",))
    start = (await memory.checkpoints("r"))[0]
    assert (await assert_replays(ArFlow(add=2, journal=memory), "r", to=start)).replayed == 0


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.gz"])
async def test_an_archive_of_any_store_replays_without_a_journal(
    journal: Journal, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await exported(journal, tmp_path / name)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DURABLE_FLOW_DATABASE_URL", raising=False)
    flow = ArFlow()
    report = await assert_replays(flow, path)
    assert (report.run_id, report.replayed) == ("r", 2)
    await assert_replays(flow, str(path))
    with path.open("rb") as file:
        await assert_replays(flow, file)
    with pytest.raises(AssertionError, match=r"event ArMiddle\.n"):
        await assert_replays(ArFlow(add=2), path)
    assert flow.called == 0
    assert list(folder.iterdir()) == []


async def test_a_run_of_postgres_with_everything_replays_by_a_flow_on_sqlite(
    postgres_url: str, url: str, tmp_path: Path
) -> None:
    async with Journal(postgres_url) as there:
        run_id = await one(RpAll(journal=there))
        await there.export(run_id, tmp_path / "run.jsonl")
    async with Journal(url) as here:
        flow = RpAll(journal=here)
        # The result of the run that a step has started is in an archive of its own.
        report = await assert_replays(flow, tmp_path / "run.jsonl", skip=("asks",))
        assert report.skipped == 1
        assert report.replayed > 5
        assert await here.runs() == []
        assert flow.made == []
        # Imported, it replays by its id.
        await here.import_(tmp_path / "run.jsonl")
        assert (await assert_replays(flow, run_id, skip=("asks",))).replayed == report.replayed


async def test_a_child_is_not_in_the_archive_and_the_report_says_so(memory: Journal, tmp_path: Path) -> None:
    await RoParent(journal=memory).run(run_id="r")
    await memory.export("r", tmp_path / "r.jsonl")
    with pytest.raises(AssertionError, match="an archive, which does not hold the runs that it started"):
        await assert_replays(RoParent(), tmp_path / "r.jsonl")


async def test_an_archive_is_checked_as_when_it_is_imported(memory: Journal, tmp_path: Path) -> None:
    path = await exported(memory, tmp_path / "r.jsonl")
    lines = path.read_bytes()
    for damaged in (lines[:-200], lines.replace(b"ships", b"boats"), b""):
        with pytest.raises(ArchiveError):
            await assert_replays(ArFlow(), io.BytesIO(damaged))
    with pytest.raises(OSError, match="nothing"):
        await assert_replays(ArFlow(), tmp_path / "nothing.jsonl")
    with pytest.raises(RunConflictError, match="of workflow ArFlow"):
        await assert_replays(RpAll(), path)


async def test_data_of_an_unsafe_codec_are_read_only_if_they_are_allowed(tmp_path: Path) -> None:
    async with Journal("memory://", serializer=PickleSerializer(key=b"k" * 32)) as journal:
        path = await exported(journal, tmp_path / "r.jsonl")
        flow = ArFlow(journal=journal)
        with pytest.raises(ArchiveError, match="pickle"):
            await assert_replays(flow, path)
        await assert_replays(flow, path, allow_codecs=["pickle"])


async def test_a_sealed_archive_is_opened_by_the_seal_of_the_journal_or_the_given_one(tmp_path: Path) -> None:
    seal = EncryptedSeal(keys=[b"k" * 32])
    async with Journal(f"sqlite:///{tmp_path}/sealed.db", seal=seal) as journal:
        path = await exported(journal, tmp_path / "r.jsonl")
        await assert_replays(ArFlow(journal=journal), path)
        await assert_replays(ArFlow(journal=journal), "r")
    await assert_replays(ArFlow(), path, seal=seal)
    with pytest.raises(ArchiveError, match="seal"):
        await assert_replays(ArFlow(), path)


async def test_what_is_no_run_is_refused(memory: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = await exported(memory, Path("r.jsonl"))
    flow = ArFlow(journal=memory)
    with pytest.raises(TypeError, match="takes a run id"):
        await assert_replays(flow, 7)  # type: ignore[arg-type]
    with pytest.raises(RunIdError):
        await assert_replays(flow, "no id")
    with pytest.raises(TypeError, match="takes a workflow object"):
        await assert_replays(ArFlow, "r")  # type: ignore[arg-type]
    path.rename("r.archive")
    with pytest.raises(RunNotFoundError) as raised:
        await assert_replays(flow, "r.archive")
    assert raised.value.__notes__ == [
        "There is a file r.archive. If that is the archive you mean, pass Path('r.archive')"
    ]
    with pytest.raises(FileNotFoundError):
        await assert_replays(flow, "r.jsonl")
    await assert_replays(flow, Path("r.archive"))


async def test_a_name_that_ends_as_archives_do_is_that_of_a_file(
    memory: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flow = ArFlow(journal=memory)
    await exported(memory, Path("r.jsonl"))
    assert (await assert_replays(ArFlow(), "r.jsonl")).run_id == "r"
    assert os.listdir() == ["r.jsonl"]  # no journal was opened, so none was made
    await flow.run(run_id="s.jsonl", topic="ships")
    await assert_replays(flow, await memory.run("s.jsonl"))


async def test_old_events_are_upcast_and_renamed_ones_are_known(memory: Journal, tmp_path: Path) -> None:
    """The history is not rewritten; it is read as today's code reads it."""

    def flow_with(cls: Any, make: Any) -> Workflow:
        class Upcasts(Workflow):
            @step
            async def begin(self, ctx: Context, ev: RpStart) -> cls:
                ctx.send_event(make(1))
                ctx.write_event_to_stream(make(2))
                ctx.data["event"] = make(3)
                return make(4)

            @step(num_workers=1)
            async def end(self, ctx: Context, ev: cls) -> StopEvent | None:
                return None if ctx.collect_events(ev, [cls] * 2) is None else StopEvent(result=1)

        return Upcasts(workflow_name="Upcasts", journal=memory)

    class ArOld(Event):
        event_name = "ArOld"
        cents: int

    await flow_with(ArOld, lambda n: ArOld(cents=100 * n)).run(run_id="r")
    await memory.export("r", tmp_path / "r.jsonl")

    class ArNew(Event):
        event_name = "ArNew"
        event_version = 2
        event_aliases = ("ArOld",)
        euros: int

    @upcast("ArOld", from_version=1)
    def to_euros(data: dict[str, Any]) -> dict[str, Any]:
        return {"euros": data["cents"] // 100}

    flow = flow_with(ArNew, lambda n: ArNew(euros=n))
    await assert_replays(flow, "r")
    await assert_replays(flow, tmp_path / "r.jsonl")
    with pytest.raises(AssertionError) as raised:
        await assert_replays(flow_with(ArNew, lambda n: ArNew(euros=n + 1)), "r")
    assert "event ArNew.euros\n  recorded: 1\n  new:      2" in str(raised.value)
    assert "context event.euros" in str(raised.value)
    assert "stream ArNew.euros" in str(raised.value)
