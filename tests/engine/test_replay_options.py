"""What a replay is asked for: up to where, what is live, skipped or ignored; and what it says when it cannot do it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field

from durable_flow import (
    CheckpointError,
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Journal,
    PickleSerializer,
    RunConflictError,
    RunIdError,
    RunNotFoundError,
    Serializer,
    StopEvent,
    Workflow,
    WorkflowStepDoesNotExistError,
    step,
)
from durable_flow.engine.replaying.differences import Differences, varies
from durable_flow.engine.replaying.report import MAX_DIVERGENCES, NOTHING
from durable_flow.serializers.codec import Codec
from durable_flow.serializers.json import JsonSerializer

from .flows import in_another_loop
from .owned import Owned
from .tampering import Tables
from .test_ownership import owner_process
from .test_replay import RpItem, RpLeaf, RpStart, only


class RoStep(Event):
    n: int


class RoMade(Event):
    n: int
    timestamp: float = Field(default_factory=time.time)
    tags: list[str] = Field(default_factory=list)


class RoCode(Workflow):
    """Two steps with calls; `factor` is what changes."""

    def __init__(self, factor: int = 1, **kwargs: Any):
        super().__init__(**{"workflow_name": "RoCode", **kwargs})
        self.factor = factor
        self.ran: list[str] = []

    def fetch(self, n: int) -> int:
        self.ran.append(f"fetch {n}")
        return n * self.factor

    @step
    async def begin(self, ctx: Context, ev: RpStart) -> RoStep:
        self.ran.append("begin")
        n = await ctx.call("fetch", self.fetch, ev.n)
        ctx.data["n"] = {"value": n, "at": time.time_ns()}
        return RoStep(n=n)

    @step
    async def make(self, ctx: Context, ev: RoStep) -> RoMade:
        self.ran.append("make")
        await ctx.checkpoint("making")
        return RoMade(n=ev.n * self.factor)

    @step
    async def finish(self, ev: RoMade) -> StopEvent:
        self.ran.append("finish")
        return StopEvent(result=ev.n * self.factor)


# -- Ignored and defaults ----------------------------------------------------------------------------------------------


async def test_defaults_of_the_clock_are_told_apart_and_what_the_step_sets_by_it_is_found(memory: Journal) -> None:
    await RoCode(journal=memory).run(run_id="r")
    report = await RoCode(journal=memory).replay("r")
    found = only(report)
    assert (found.step, found.kind, found.what) == ("begin", "context", "n.at")
    assert found.new > found.recorded
    [default] = report.defaults
    assert (default.step, default.what) == ("make", "RoMade.timestamp")
    assert default.new > default.recorded
    assert "RoMade.timestamp" in str(report)


@pytest.mark.parametrize("ignore", [("n.at",), ("*.at",), ("n",), ["n.*"]])
async def test_what_is_ignored_is_no_divergence(memory: Journal, ignore: Any) -> None:
    await RoCode(journal=memory).run(run_id="r")
    assert (await RoCode(journal=memory).replay("r", ignore=ignore)).ok
    # Other things in the same value are still seen.
    found = only(await RoCode(factor=2, journal=memory).replay("r", ignore=ignore, skip=("finish",)))
    assert (found.step, found.what, found.recorded, found.new) == ("make", "RoMade.n", 3, 6)


async def test_an_ignored_class_or_key_is_left_out_also_where_it_is_new_or_missing(memory: Journal) -> None:
    class Says(Workflow):
        more = False

        @step
        async def one(self, ctx: Context, ev: RpStart) -> StopEvent:
            if self.more:
                ctx.send_event(RoStep(n=1))
                ctx.write_event_to_stream(RpItem(text="x"))
                ctx.data["log"] = 1
            return StopEvent()

    flow = Says(journal=memory)
    await flow.run(run_id="r")
    await flow.run(run_id="s")
    flow.more = True
    assert (await flow.replay("r")).differences == 3
    assert (await flow.replay("r", ignore=("RoStep", "RpItem", "log"))).ok
    await flow.run(run_id="t")
    flow.more = False
    assert (await flow.replay("t")).differences == 3
    report = await flow.replay("t", ignore=("RoStep", "RpItem", "log"))
    assert report.ok, report


class RoNested(BaseModel):
    id: str = Field(default_factory=lambda: uuid4().hex)
    n: int = 0


def test_a_field_varies_if_its_default_is_another_one_each_time() -> None:
    class Model(BaseModel):
        fixed: list[int] = Field(default_factory=list)
        day: datetime = Field(default_factory=lambda: datetime(2020, 1, 1, tzinfo=UTC))
        plain: int = 3
        wrong: int = Field(default_factory=lambda: int("x"))

    assert varies(RoNested, "id")
    assert varies(RoMade, "timestamp")
    assert varies(Model, "day")  # a time, though it be the same one twice
    assert [name for name in ("fixed", "plain", "wrong", "missing") if varies(Model, name)] == []


def test_differences_are_named_by_their_paths() -> None:
    find = Differences(Codec(JsonSerializer()), ("*.secret",))
    old = {"a": [1, {"b": 2}], "gone": 1, "same": float("nan"), "secret": 1, "kind": (1, 2), "set": {1}}
    new = {"a": [1, {"b": 3}, 4], "more": None, "same": float("nan"), "secret": 2, "kind": [1, 2], "set": {2}}
    found = {(d.path, repr(d.recorded), repr(d.new)) for d in find.of("key", old, new)}
    assert found == {
        ("key.a.1.b", "2", "3"), ("key.a.2", "nothing", "4"), ("key.gone", "1", "nothing"),
        ("key.more", "nothing", "None"), ("key.kind", "(1, 2)", "[1, 2]"), ("key.set", "{1}", "{2}"),
    }  # fmt: skip


def test_a_default_in_a_nested_model_is_one_only_if_it_was_not_set() -> None:
    find = Differences(Codec(JsonSerializer()))
    old, new = RoNested(id="a", n=1), RoNested(n=1)
    [difference] = find.of("k", [old], [new.model_copy()], [new])
    assert (difference.path, difference.is_default) == ("k.0.id", True)
    [difference] = find.of("k", old, RoNested(id="b", n=1), RoNested(id="b", n=1))
    assert (difference.path, difference.is_default) == ("k.id", False)


class RoKept(BaseModel):
    n: int = 0
    cache: str = Field(default_factory=lambda: uuid4().hex, exclude=True)


class RoHolds(BaseModel):
    meta: RoNested = Field(default_factory=RoNested)


@pytest.mark.parametrize("serializer", [JsonSerializer(), PickleSerializer(key=b"k" * 32)], ids=["json", "pickle"])
def test_a_field_that_is_not_stored_differs_only_where_it_was_stored(serializer: Serializer) -> None:
    codec = Codec(serializer)
    find = Differences(codec)
    objects = RoKept(n=1, cache="a"), RoKept(n=2, cache="b")
    old, new = (codec.decode_value(codec.encode_value(each)) for each in objects)
    paths = [(d.path, d.is_default) for d in find.of("k", old, new, objects[1])]
    assert paths == [("k.n", False), *([("k.cache", False)] if type(serializer) is PickleSerializer else [])]


def test_what_a_step_changes_in_a_default_is_found() -> None:
    find = Differences(Codec(JsonSerializer()))
    old, new = RoHolds(), RoHolds()
    old.meta.n, new.meta.n = 1, 2
    found = {d.path: d.is_default for d in find.of("k", old, new.model_copy(deep=True), new)}
    assert found == {"k.meta.n": False, "k.meta.id": True}


async def test_calls_and_checkpoints_are_ignored_by_their_names_and_errors_never(memory: Journal) -> None:
    class Does(Workflow):
        n = 1
        fails = False

        @step
        async def one(self, ctx: Context, ev: RpStart) -> StopEvent:
            await ctx.call("fetch", lambda n: 1, self.n)
            await ctx.checkpoint(f"at {self.n}")
            if self.fails:
                raise ValueError("*")
            return StopEvent()

    flow = Does(journal=memory)
    await flow.run(run_id="r")
    flow.n = 2
    assert {d.what for d in (await flow.replay("r")).divergences} == {"fetch", "at 1", "at 2"}
    assert (await flow.replay("r", ignore=("fetch", "at *"))).ok
    flow.fails = True
    assert only(await flow.replay("r", ignore=("*",))).kind == "error"


# -- Live and skipped --------------------------------------------------------------------------------------------------

IGNORE = ("n.at",)


async def test_skipped_steps_are_not_run_and_the_others_go_on_from_the_record(memory: Journal) -> None:
    await RoCode(journal=memory).run(run_id="r")
    flow = RoCode(journal=memory)
    report = await flow.replay("r", skip={"make"}, ignore=IGNORE)
    assert (report.ok, report.replayed, report.skipped) == (True, 2, 1)
    assert flow.ran == ["begin", "finish"]


async def test_the_calls_of_live_steps_are_really_made(memory: Journal) -> None:
    await RoCode(journal=memory).run(run_id="r")
    flow = RoCode(factor=2, journal=memory)
    report = await flow.replay("r", live=("begin",), skip=("make", "finish"), ignore=IGNORE)
    assert flow.ran == ["begin", "fetch 3"]
    assert (report.replayed, report.live) == (1, 1)
    assert {d.what: (d.recorded, d.new) for d in report.divergences} == {"n.value": (3, 6), "RoStep.n": (3, 6)}
    flow = RoCode(factor=2, journal=memory)
    assert (await flow.replay("r", skip=("make", "finish"), ignore=IGNORE)).ok
    assert flow.ran == ["begin"]


async def test_unknown_names_are_refused_before_a_step_runs(memory: Journal) -> None:
    await RoCode(journal=memory).run(run_id="r")
    flow = RoCode(journal=memory)
    for names in ({"live": ("nope",)}, {"skip": ("nope", "make")}):
        with pytest.raises(WorkflowStepDoesNotExistError, match=r"no step 'nope'; its steps are begin, finish, make"):
            await flow.replay("r", **names)
    for name in ("live", "skip", "ignore"):
        with pytest.raises(TypeError, match=rf"{name}=\('make',\)"):
            await flow.replay("r", **{name: "make"})
    assert flow.ran == []


# -- Up to where -------------------------------------------------------------------------------------------------------


async def test_a_replay_goes_up_to_a_seq_an_id_a_name_a_time_or_a_checkpoint(journal: Journal) -> None:
    await RoCode(journal=journal).run(run_id="r")
    made = next(c for c in await journal.checkpoints("r") if c.last_completed_step == "make")
    flow = RoCode(journal=journal)
    for to in (made, made.seq, made.id, made.at, made.seq + 1):
        report = await flow.replay("r", to, ignore=IGNORE)
        assert (report.replayed, report.last, report.ok) == (2, made.seq, True)
    report = await flow.replay("r", "making", ignore=IGNORE)
    assert (report.replayed, report.last) == (1, (await journal.state("r", "making")).seq)


async def test_what_is_no_run_or_no_checkpoint_is_refused(memory: Journal) -> None:
    await RoCode(journal=memory).run(run_id="r")
    await RoCode(journal=memory).run(run_id="s")
    flow = RoCode(journal=memory)
    with pytest.raises(RunNotFoundError, match="no run nope"):
        await flow.replay("nope")
    with pytest.raises(RunIdError):
        await flow.replay("a/b")
    for to in (1, "s/3", 10_000, "no such name", datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1)):
        with pytest.raises(CheckpointError):
            await flow.replay("r", to)
    with pytest.raises(
        RunConflictError, match=r"run r is of workflow RoCode; this one is RpLeaf.*workflow_name='RoCode'"
    ):
        await RpLeaf(journal=memory).replay("r")
    assert flow.ran == []


# -- Code that is gone, fails or hangs ---------------------------------------------------------------------------------


async def test_a_step_that_is_gone_is_told_and_can_be_skipped(memory: Journal) -> None:
    await RoCode(journal=memory).run(run_id="r")

    class Without(Workflow):
        @step
        async def begin(self, ev: RpStart) -> RoMade:
            return RoMade(n=1)

        @step
        async def finish(self, ev: RoMade) -> StopEvent:
            return StopEvent(result=ev.n)

    flow = Without(workflow_name="RoCode", journal=memory)
    found = only(await flow.replay("r", skip=("begin",)))
    assert (found.kind, found.what, found.step) == ("step", "make", "make")
    assert "step 'make' is gone" in found.note
    assert "skip=('make',)" in found.note
    assert (await flow.replay("r", skip=("begin", "make"))).ok


async def test_an_event_that_cannot_be_read_any_more_is_told(memory: Journal) -> None:
    await RoCode(journal=memory).run(run_id="r")

    class RoOther(Event):
        event_name = "RoOther"
        n: int

    class Takes(RoCode):
        @step
        async def begin(self, ev: RpStart) -> RoOther:
            return RoOther(n=1)

        @step
        async def make(self, ev: RoOther) -> RoMade:
            return RoMade(n=1)

    found = only(await Takes(journal=memory).replay("r", skip=("begin",)))
    assert (found.kind, found.step) == ("input", "make")
    assert "takes RoStep no longer" in found.note


async def test_what_a_step_raises_today_is_in_the_report_with_its_traceback(memory: Journal) -> None:
    class Raises(RoCode):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=5, delay=3600))
        async def make(self, ctx: Context, ev: RoStep) -> RoMade:
            raise LookupError("not there")

    await RoCode(journal=memory).run(run_id="r")
    report = await Raises(journal=memory).replay("r", ignore=IGNORE)
    found = only(report)
    assert (found.kind, found.what) == ("error", "builtins.LookupError: not there")
    assert 'raise LookupError("not there")' in found.traceback
    assert 'raise LookupError("not there")' in str(report)
    assert report.replayed == 3  # not tried again, and the others are judged


@pytest.mark.parametrize("how", ["waits", "swallows"])
async def test_a_step_that_makes_no_end_is_told_after_the_timeout(memory: Journal, how: str) -> None:
    class Hangs(RoCode):
        @step
        async def make(self, ctx: Context, ev: RoStep) -> RoMade:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if how == "waits":
                    raise
            return RoMade(n=0)

    await RoCode(journal=memory).run(run_id="r")
    report = await Hangs(journal=memory, timeout=0.05).replay("r", ignore=IGNORE)
    found = only(report)
    assert (found.kind, found.what, found.step) == ("timeout", "after 0.05 s", "make")
    assert report.replayed == 3


async def test_cancelling_a_replay_cancels_the_step(memory: Journal) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    class Hangs(RoCode):
        @step
        async def make(self, ctx: Context, ev: RoStep) -> RoMade:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
            return RoMade(n=0)

    await RoCode(journal=memory).run(run_id="r")
    replaying = asyncio.ensure_future(Hangs(journal=memory).replay("r"))
    await entered.wait()
    replaying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await replaying
    assert left.is_set()


async def test_a_report_keeps_the_first_divergences_and_counts_all(memory: Journal) -> None:
    class Many(Workflow):
        by = 0

        @step
        async def go(self, ctx: Context, ev: RpStart | RoStep) -> RoStep | StopEvent:
            n = ev.n + 1 if isinstance(ev, RoStep) else 0
            ctx.data["n"] = n + self.by
            return StopEvent() if n == MAX_DIVERGENCES + 50 else RoStep(n=n)

    flow = Many(journal=memory)
    await flow.run(run_id="r")
    flow.by = 1
    report = await flow.replay("r")
    assert report.differences == report.diverged == MAX_DIVERGENCES + 51
    assert len(report.divergences) == MAX_DIVERGENCES
    assert report.first_divergence is report.divergences[0]
    assert [d.seq for d in report.divergences] == sorted(d.seq for d in report.divergences)
    text = str(report)
    assert f"{MAX_DIVERGENCES + 51} diverged" in text.splitlines()[0]
    assert text.splitlines()[1:4] == [
        "1. step 'go' (completed at r/6): context n".replace("r/6", report.divergences[0].checkpoint),
        "  recorded: 0",
        "  new:      1",
    ]
    assert len(text) < 2000


# -- What it must not do -----------------------------------------------------------------------------------------------


async def everything(journal: Journal) -> str:
    """Return all rows of all tables."""
    return await Tables(journal).text()


@asynccontextmanager
async def nothing_written(journal: Journal) -> AsyncIterator[None]:
    before = await everything(journal)
    yield
    assert await everything(journal) == before


@pytest.mark.parametrize("kind", ["url", "postgres_url"])
async def test_not_a_row_changes(request: pytest.FixtureRequest, kind: str) -> None:
    url = request.getfixturevalue(kind)

    async def run() -> None:
        await RoCode(journal=url).run(run_id="r")

    async def replay() -> bool:
        return (await RoCode(journal=url).replay("r", ignore=IGNORE)).ok

    await in_another_loop(run)
    assert "r" in await everything(Journal(url))
    async with nothing_written(Journal(url)):
        assert await in_another_loop(replay)


async def test_the_file_of_an_open_journal_is_not_touched(file: Journal, url: str) -> None:
    await RoCode(journal=file).run(run_id="r")
    paths = [Path(url.removeprefix("sqlite:///") + suffix) for suffix in ("", "-wal")]

    def stamps() -> list[tuple[int, int]]:
        return [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths]

    before = stamps()
    assert (await RoCode(journal=file).replay("r", ignore=IGNORE)).ok
    assert stamps() == before


@pytest.mark.parametrize("kind", ["url", "postgres_url"])
async def test_a_run_that_another_process_owns_is_replayed_and_not_disturbed(
    request: pytest.FixtureRequest, kind: str
) -> None:
    url = request.getfixturevalue(kind)
    async with owner_process(url, "r"), Journal(url) as journal:
        before = await journal.run("r"), await journal.history("r")
        report = await Owned(journal=journal).replay("r")
        assert (report.ok, report.replayed, report.last) == (True, 0, before[0].seq)
        assert (await journal.run("r"), await journal.history("r")) == before


async def test_nobody_is_told(memory: Journal, capsys: pytest.CaptureFixture[str], log: Any) -> None:
    class Observer:
        def __init__(self) -> None:
            self.told = 0

        def appended(self, *args: Any) -> None:
            self.told += 1

        def __getattr__(self, name: str) -> Any:
            return self.appended

    observer = Observer()
    flow = RoCode(journal=memory, verbose=True, observers=[observer])
    await flow.run(run_id="r")
    capsys.readouterr()
    told, logged = observer.told, len(log.records)
    assert told
    await flow.replay("r")
    assert capsys.readouterr().out == ""
    assert observer.told == told
    assert [r.getMessage() for r in log.records[logged:] if r.levelno >= logging.INFO] == []


# -- Runs that steps start ---------------------------------------------------------------------------------------------


class RoParent(Workflow):
    n = 4

    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "RoParent", **kwargs})
        self.child = RoChild()

    @step
    async def only(self, ctx: Context, ev: RpStart) -> StopEvent:
        handler = self.child.run(n=self.n)
        ctx.data["child"] = handler.run_id
        items = [event.text async for event in handler.stream_events() if isinstance(event, RpItem)]
        return StopEvent(result=[await handler, items])


class RoChild(Workflow):
    ran: list[int]
    factor = 1

    @step
    async def square(self, ctx: Context, ev: RpStart) -> StopEvent:
        vars(self).setdefault("ran", []).append(ev.n)
        ctx.write_event_to_stream(RpItem(text=f"item {ev.n}"))
        return StopEvent(result=ev.n * ev.n * self.factor)


async def test_a_child_answers_from_its_journal_and_does_not_run(journal: Journal) -> None:
    flow = RoParent(journal=journal)
    assert await flow.run(run_id="r") == [16, ["item 4"]]
    flow = RoParent(journal=journal)
    flow.child.factor = 10
    report = await flow.replay("r")
    assert report.ok, report
    assert not hasattr(flow.child, "ran")
    assert len(await journal.runs()) == 2
    flow.n = 5
    found = only(await flow.replay("r"))
    assert (found.kind, found.what, found.recorded, found.new) == ("child", "RoChild (arguments).n", 4, 5)


async def test_a_plain_step_gets_the_recorded_child_and_a_subclass_of_its_event(memory: Journal) -> None:
    class RoBase(Event):
        n: int

    class RoDerived(RoBase):
        more: str = "x"

    class Plain(Workflow):
        child = RoChild()

        @step
        async def begin(self, ev: RpStart) -> RoDerived:
            return RoDerived(n=ev.n)

        @step(accept_event_subclasses=True)
        def takes(self, ctx: Context, ev: RoBase) -> StopEvent:
            ctx.data["class"] = type(ev).__name__
            return StopEvent(result=self.child.run_sync(n=ev.n))

    flow = Plain(journal=memory, disable_validation=True)
    assert await flow.run(run_id="r", n=3) == 9
    assert flow.child.ran == [3]
    report = await flow.replay("r")
    assert report.ok, report
    assert report.replayed == 2
    assert flow.child.ran == [3]


async def test_a_child_that_failed_fails_again_in_the_replay(memory: Journal) -> None:
    class Breaks(RoChild):
        @step
        async def square(self, ctx: Context, ev: RpStart) -> StopEvent:
            raise ValueError("no squares")

    class Asks(RoParent):
        @step
        async def only(self, ctx: Context, ev: RpStart) -> StopEvent:
            try:
                await self.child.run(n=1)
            except ValueError as error:
                return StopEvent(result=str(error))
            return StopEvent(result="none")

    flow = Asks(journal=memory)
    flow.child = Breaks(workflow_name="Breaks")
    assert await flow.run(run_id="r") == "no squares"
    report = await flow.replay("r")
    assert report.ok, report


async def test_the_child_of_a_live_step_runs_in_memory(memory: Journal) -> None:
    flow = RoParent(journal=memory)
    await flow.run(run_id="r")
    flow = RoParent(journal=memory)
    flow.child.factor = 10
    report = await flow.replay("r", live=("only",))
    assert flow.child.ran == [4]
    assert {d.what: (d.recorded, d.new) for d in report.divergences if d.kind == "event"} == {
        "StopEvent.result.0": (16, 160)
    }
    assert len(await memory.runs()) == 2


@pytest.mark.parametrize("does", ["resume", "retry", "fork", "recover", "edit"])
async def test_a_replayed_step_takes_up_and_changes_no_run(memory: Journal, does: str) -> None:
    class Others(RoCode):
        @step
        async def make(self, ctx: Context, ev: RoStep) -> RoMade:
            await ctx.checkpoint("making")
            arguments = {"recover": (), "resume": ("r",), "retry": ("r",), "fork": ("r",), "edit": ("r",)}[does]
            await getattr(self, does)(*arguments, **({"set": {"n": 1}} if does == "edit" else {}))
            return RoMade(n=ev.n)

    await RoCode(journal=memory).run(run_id="r")
    before = await memory.history("r")
    found = only(await Others(journal=memory).replay("r", ignore=IGNORE))
    assert (found.kind, found.step) == ("error", "make")
    assert "in a replay a step gets the recorded runs" in found.new
    assert await memory.history("r") == before
    assert len(await memory.runs()) == 1


async def test_a_child_with_a_journal_of_its_own_is_found_there(memory: Journal) -> None:
    async with Journal("memory://") as other:
        flow = RoParent(journal=memory)
        flow.child = RoChild(journal=other)
        assert await flow.run(run_id="r") == [16, ["item 4"]]
        ran = list(flow.child.ran)
        report = await flow.replay("r")
        assert report.ok, report
        assert flow.child.ran == ran
        assert len(await other.runs()) == 1


# -- What the context was ----------------------------------------------------------------------------------------------


async def test_a_key_that_others_change_meanwhile_is_named_where_a_step_differs(memory: Journal) -> None:
    gates = {name: asyncio.Event() for name in ("a read", "b wrote")}

    class RoA(Event):
        pass

    class RoB(Event):
        pass

    class Races(Workflow):
        @step
        async def begin(self, ctx: Context, ev: RpStart) -> list[RoA | RoB]:
            ctx.data["x"] = 0
            return [RoA(), RoB()]

        @step
        async def reads(self, ctx: Context, ev: RoA) -> RoMade:
            first = ctx.data["x"]
            gates["a read"].set()
            await gates["b wrote"].wait()
            await asyncio.sleep(0)
            return RoMade(n=first if self.early else ctx.data["x"])

        early = True

        @step
        async def writes(self, ctx: Context, ev: RoB) -> None:
            await gates["a read"].wait()
            ctx.data["x"] = 1
            await ctx.checkpoint("written")
            gates["b wrote"].set()

        @step
        async def finish(self, ev: RoMade) -> StopEvent:
            return StopEvent(result=ev.n)

    for early in (True, False):
        for gate in gates.values():
            gate.clear()
        flow = Races(journal=memory)
        flow.early = early
        assert await flow.run(run_id=f"early {early}".replace(" ", "-")) == (0 if early else 1)
        # At its first line it sees what was there when it began, later what came before its next effect.
        report = await flow.replay(f"early-{early}")
        assert report.ok, report
    flow.early = True
    found = only(await flow.replay("early-False"))
    assert (found.step, found.recorded, found.new, found.raced) == ("reads", 1, 0, ("x",))
    assert "'x'" in str(found)


async def test_after_each_call_a_step_sees_what_others_had_written_by_then(journal: Journal) -> None:
    class RoCalls(Event):
        pass

    class RoCounts(Event):
        pass

    class Turns(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.asked, self.counted = ([asyncio.Event() for _ in range(3)] for _ in range(2))

        @step
        async def begin(self, ctx: Context, ev: RpStart) -> list[RoCalls | RoCounts]:
            ctx.data["x"] = 0
            return [RoCalls(), RoCounts()]

        async def ask(self, n: int) -> None:
            self.asked[n].set()
            await self.counted[n].wait()

        @step
        async def calls(self, ctx: Context, ev: RoCalls) -> StopEvent:
            seen = [ctx.data["x"]]
            for n in range(3):
                await ctx.call("ask", self.ask, n)
                seen.append(ctx.data["x"])
            return StopEvent(result=seen)

        @step
        async def counts(self, ctx: Context, ev: RoCounts) -> None:
            for n in range(3):
                await self.asked[n].wait()
                ctx.data["x"] += 1
                await ctx.checkpoint(f"counted {n}")
                self.counted[n].set()

    flow = Turns(journal=journal)
    assert await flow.run(run_id="r") == [0, 1, 2, 3]
    report = await flow.replay("r")
    assert report.ok, report


async def test_what_a_step_read_before_it_was_durable_is_seen_again(journal: Journal) -> None:
    class RoReads(Event):
        pass

    class RoWrites(Event):
        pass

    class Carries(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.wrote, self.completed = asyncio.Event(), asyncio.Event()

        @step
        async def begin(self, ev: RpStart) -> list[RoReads | RoWrites]:
            return [RoReads(), RoWrites()]

        @step
        async def writes(self, ctx: Context, ev: RoWrites) -> RoMade:
            ctx.data["x"] = 1
            self.wrote.set()
            await self.completed.wait()
            ctx.data["x"] = 2
            return RoMade(n=0)

        @step
        async def reads(self, ctx: Context, ev: RoReads) -> RoMade:
            await self.wrote.wait()
            return RoMade(n=ctx.data["x"])

        @step
        async def collect(self, ctx: Context, ev: RoMade) -> StopEvent | None:
            self.completed.set()
            made = ctx.collect_events(ev, [RoMade] * 2)
            return None if made is None else StopEvent(result=[event.n for event in made])

    flow = Carries(journal=journal)
    assert await flow.run(run_id="r") == [1, 0]
    # The value was a draft of a running step; it became durable with the step that had read it.
    report = await flow.replay("r")
    assert report.ok, report


async def test_a_task_that_waited_for_a_worker_sees_what_came_before_it(journal: Journal) -> None:
    class Queue(Workflow):
        @step
        async def begin(self, ctx: Context, ev: RpStart) -> list[RoStep]:
            ctx.data["x"] = 0
            return [RoStep(n=n) for n in range(5)]

        @step(num_workers=1)
        async def counts(self, ctx: Context, ev: RoStep) -> RoMade:
            seen = ctx.data["x"]
            await asyncio.sleep(0)
            ctx.send_event(RpStartAgain(n=seen))
            await ctx.checkpoint(f"{ev.n}")
            ctx.data["x"] = seen + 1
            return RoMade(n=seen)

        @step
        async def ignores(self, ev: RpStartAgain) -> None:
            return None

        @step
        async def finish(self, ctx: Context, found: list[RoMade]) -> StopEvent:
            return StopEvent(result=[event.n for event in found])

    flow = Queue(journal=journal, disable_validation=True)
    assert await flow.run(run_id="r") == [0, 1, 2, 3, 4]
    report = await flow.replay("r")
    assert report.ok, report


class RpStartAgain(Event):
    n: int


async def test_the_typed_state_of_a_recorded_run_keeps_its_defaults(memory: Journal) -> None:
    class Old(BaseModel):
        limit: int = 3

    class New(BaseModel):
        limit: int = 5
        more: str = "new"
        id: str = Field(default_factory=lambda: uuid4().hex)

    def flow_with(cls: Any) -> Workflow:
        class Typed(Workflow):
            @step
            async def reads(self, ctx: Context[cls], ev: RpStart) -> StopEvent:
                return StopEvent(result=(await ctx.store.get_state()).limit)

        return Typed(workflow_name="Typed", journal=memory)

    assert await flow_with(Old).run(run_id="r") == 3
    assert (await flow_with(Old).replay("r")).ok
    report = await flow_with(New).replay("r")
    found = only(report)
    assert (found.kind, found.what, found.recorded, found.new) == ("context", "limit", 3, 5)
    assert {default.what: default.recorded for default in report.defaults} == {"more": NOTHING, "id": NOTHING}


async def test_what_ran_again_after_a_crash_in_another_way_is_not_held_against_the_code(
    new_journal: Callable[..., Journal],
) -> None:
    """The run itself came to something else at that place: its record is not what the last execution did."""

    class Varies(Workflow):
        value = 1

        def __init__(self, **kwargs: Any):
            super().__init__(**{"workflow_name": "Varies", **kwargs})
            self.reached, self.go = asyncio.Event(), asyncio.Event()

        @step
        async def only(self, ctx: Context, ev: RpStart) -> StopEvent:
            ctx.send_event(RoStep(n=self.value))
            await ctx.checkpoint("sent")
            self.reached.set()
            await self.go.wait()
            return StopEvent(result=1)

        @step
        async def takes(self, ev: RoStep) -> None:
            return None

    async with new_journal() as journal:
        flow = Varies(journal=journal, disable_validation=True)
        handler = flow.run(run_id="r")
        await flow.reached.wait()
        handler.cancel()
        flow = Varies(journal=journal, disable_validation=True)
        flow.value = 2
        flow.go.set()
        assert await (await flow.resume("r")) == 1
        for value in (1, 2, 3):
            flow.value = value
            report = await flow.replay("r")
            assert report.ok, report
