"""When runs get snapshots, what a resume reads then, and that nothing rests on them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from durable_flow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.engine import snapshots
from durable_flow.fold import fold
from durable_flow.journal.folding import new_snapshot
from durable_flow.journal.protocol import JournalStore, SnapshotRow
from durable_flow.records import ContextSpliced
from durable_flow.snapshot import copied, encode_state
from durable_flow.state import RunState

from .conftest import Log

RUN = "long"


class Tick(Event):
    n: int


class Ask(InputRequiredEvent):
    pass


class Told(HumanResponseEvent):
    text: str


class Long(Workflow):
    """Writes to its context `steps` times, then asks, and returns what it has written and been told."""

    def __init__(self, steps: int = 30, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.steps = steps
        self.hold: asyncio.Event | None = None
        self.held = asyncio.Event()

    @step
    async def tick(self, ctx: Context, ev: StartEvent | Tick) -> Tick | Ask:
        n = ev.n + 1 if isinstance(ev, Tick) else 1
        ctx.data.setdefault("notes", []).append(f"note number {n}")
        if n == self.steps and self.hold is not None:
            self.held.set()
            await self.hold.wait()
        return Tick(n=n) if n < self.steps else Ask()

    @step
    async def told(self, ctx: Context, ev: Told) -> StopEvent:
        return StopEvent(result=[len(ctx.data["notes"]), ev.text])


def store_of(journal: Journal) -> JournalStore:
    return journal._shared.store


async def kept(journal: Journal, run_id: str = RUN) -> list[SnapshotRow]:
    """Return the snapshots of a run, oldest first."""
    row = await store_of(journal).find(run_id)
    assert row is not None
    found = []
    at: int | None = None
    while (snapshot := await store_of(journal).snapshot(row.run, at)) is not None:
        found.append(snapshot)
        at = snapshot.seq - 1
    return found[::-1]


@pytest.fixture
def every_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LIVE_ROWS", 10)
    monkeypatch.setattr(snapshots, "BYTES_PER_ROW", 1 << 30)  # whatever the size of the state


@pytest.fixture
async def sped(new_journal: Callable[..., Journal]) -> AsyncIterator[Journal]:
    """A journal whose runs leave memory as soon as they wait."""
    async with new_journal(idle_release_seconds=0.01) as journal:
        yield journal


async def asked(handler: Any) -> Ask:
    async for event in handler.stream_events():
        if isinstance(event, Ask):
            return event
    raise AssertionError("no question")


async def test_a_live_run_gets_one_after_so_many_records(journal: Journal, log: Log, every_ten: None) -> None:
    flow = Long(100, journal=journal)
    handler = flow.run(run_id=RUN)
    await asked(handler)
    await log.seen("snapshot_saved")
    found = await kept(journal)
    records = await journal.history(RUN)
    for row in found:
        assert records[row.seq - 1].boundary
        assert row.payload == new_snapshot(fold(records[: row.seq]), RUN, 0).payload
    seqs = [row.seq for row in found]
    assert seqs
    # Of each ten records only the last one is kept.
    assert len({seq // 10 for seq in seqs}) == len(seqs)
    handler.ctx.send_event(Told(text="enough"))
    assert await handler == [100, "enough"]


async def test_none_is_taken_of_much_that_a_step_in_flight_has_just_recorded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, every_ten: None
) -> None:
    held: list[int] = []

    def noted(state: RunState) -> RunState:
        held.append(sum(len(recorded) for task in state.tasks.values() for recorded in (task.effects or {}).values()))
        return copied(state)

    monkeypatch.setattr(snapshots, "copied", noted)

    class Talks(Workflow):
        @step
        async def talk(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(800):
                ctx.write_event_to_stream(Tick(n=n))
                if n % 10 == 0:
                    await ctx.checkpoint(f"{n}")
            return StopEvent(result="said")

    assert await Talks(journal=journal).run(run_id=RUN) == "said"
    assert 0 < max(held) <= 500


@pytest.mark.parametrize("live", [True, False], ids=["live", "parked"])
async def test_none_is_taken_of_large_values_that_a_step_in_flight_has_written(
    new_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    """What it has written is in the state until it is done, should it run again: 8 MB here."""
    if live:
        monkeypatch.setattr(snapshots, "LIVE_ROWS", 60)
    held: list[int] = []
    encoded = snapshots._encoded

    def noted(state: RunState, run_id: str, at: int) -> tuple[SnapshotRow, int]:
        row, size = encoded(state, run_id, at)
        held.append(size)
        return row, size

    monkeypatch.setattr(snapshots, "_encoded", noted)
    parked = asyncio.Event()
    take_of_parked = snapshots.Snapshots.take_of_parked

    async def told(self: snapshots.Snapshots, run: Any) -> None:
        await take_of_parked(self, run)
        parked.set()

    monkeypatch.setattr(snapshots.Snapshots, "take_of_parked", told)

    class Rewrites(Workflow):
        @step
        async def rewrite(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(40):
                ctx.data["text"] = f"{n}" + "x" * 100_000
                await ctx.checkpoint("written")
            told = await ctx.wait_for_event(Told, waiter_event=Ask(), timeout=None)
            return StopEvent(result=[told.text, len(ctx.data["text"])])

    async with new_journal(max_suspended_steps=0) as journal:
        handler = Rewrites(journal=journal, timeout=None).run(run_id=RUN)
        await asked(handler)
        await parked.wait()
        await handler.send_event(Told(text="over"))
        assert await handler == ["over", 100_002]
    assert max(held, default=0) < 1_000_000


async def test_the_default_takes_none_of_short_runs(journal: Journal) -> None:
    handler = Long(60, journal=journal).run(run_id=RUN)
    await asked(handler)
    assert await kept(journal) == []
    await handler.cancel_run()


async def test_a_run_that_leaves_memory_to_wait_gets_one(sped: Journal, log: Log) -> None:
    await asked(Long(journal=sped).run(run_id=RUN))
    await log.seen("run_released")
    await log.seen("snapshot_saved")
    [row] = await kept(sped)
    info = await sped.run(RUN)
    assert row.seq == info.seq
    # It is taken up from there.
    handler = await Long(journal=sped).resume(RUN)
    handler.ctx.send_event(Told(text="go on"))
    assert await handler == [30, "go on"]


async def test_a_short_run_that_leaves_memory_gets_none(sped: Journal, log: Log) -> None:
    await asked(Long(3, journal=sped).run(run_id=RUN))
    await log.seen("run_released")
    handler = await Long(3, journal=sped).resume(RUN)
    handler.ctx.send_event(Told(text="go on"))
    await handler
    assert await kept(sped) == []


async def test_a_resume_reads_the_snapshot_and_the_tail_only(
    sped: Journal, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asked(Long(journal=sped).run(run_id=RUN))
    await log.seen("run_released")
    await log.seen("snapshot_saved")
    [row] = await kept(sped)
    read: list[int] = []
    original = store_of(sped).read

    async def counted(run: int, after: int = 0, to: int | None = None, limit: int | None = None) -> list[Any]:
        records = await original(run, after, to, limit)
        read.extend(record.seq for record in records)
        return records

    monkeypatch.delenv("DURABLE_FLOW_VERIFY_SNAPSHOTS")
    monkeypatch.setattr(store_of(sped), "read", counted)
    handler = await Long(journal=sped).resume(RUN)
    handler.ctx.send_event(Told(text="go on"))
    assert await handler == [30, "go on"]
    assert row.seq > 80
    assert min(read) >= row.seq


async def test_a_damaged_one_is_ignored_with_a_warning(
    sped: Journal, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await asked(Long(journal=sped).run(run_id=RUN))
    await log.seen("run_released")
    await log.seen("snapshot_saved")
    [row] = await kept(sped)
    key = (await store_of(sped).find(RUN)).run  # type: ignore[union-attr]
    await store_of(sped).save_snapshot(key, row._replace(payload=row.payload[:-1] + b"?"), row.seq)
    with caplog.at_level(logging.WARNING, "durable_flow"):
        assert (await sped.state(RUN)).context["notes"][-1] == "note number 30"
        handler = await Long(journal=sped).resume(RUN)
    handler.ctx.send_event(Told(text="all the same"))
    assert await handler == [30, "all the same"]
    assert {record.__dict__.get("action") for record in caplog.records} >= {"snapshot_ignored"}


async def test_the_state_at_every_seq_is_the_same_with_and_without_them(
    journal: Journal, log: Log, every_ten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Long(12, journal=journal).run(run_id=RUN)
    await asked(handler)
    await log.seen("snapshot_saved")
    seq = (await journal.run(RUN)).seq
    with_them = [await journal.state(RUN, at=at) for at in range(2, seq + 1)]

    async def none(run: int, at: int | None = None) -> None:
        return None

    monkeypatch.setattr(store_of(journal), "snapshot", none)
    assert [await journal.state(RUN, at=at) for at in range(2, seq + 1)] == with_them
    await handler.cancel_run()


async def test_none_is_saved_when_the_process_is_about_to_end(
    journal: Journal, every_ten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine closes while one is being encoded."""
    going_on, began = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    encoded = snapshots._encoded

    def slowly(state: RunState, run_id: str, at: int) -> tuple[SnapshotRow, int]:
        loop.call_soon_threadsafe(began.set)
        going_on.wait()
        return encoded(state, run_id, at)

    monkeypatch.setattr(snapshots, "_encoded", slowly)
    handler = Long(journal=journal).run(run_id=RUN)
    await began.wait()
    engine = handler._attachment.engine
    engine.closed = True
    going_on.set()
    await asyncio.gather(*engine._background)
    assert await kept(journal) == []
    engine.closed = False
    await handler.cancel_run()


async def test_a_large_state_is_written_more_rarely(
    journal: Journal, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "LIVE_ROWS", 10)
    monkeypatch.setattr(snapshots, "BYTES_PER_ROW", 20)
    handler = Long(100, journal=journal).run(run_id=RUN)
    await asked(handler)
    taken = [record.__dict__["seq"] for record in await log.seen("snapshot_saved")]
    records = await journal.history(RUN)
    sizes = [len(encode_state(fold(records[:seq])).data) for seq in taken]
    for (before, after), size in zip(pairwise(taken), sizes, strict=False):
        assert after - before >= max(10, size // 20)
    await handler.cancel_run()


async def test_a_list_that_grows_is_written_by_what_is_new(journal: Journal) -> None:
    handler = Long(200, journal=journal).run(run_id=RUN)
    await asked(handler)
    spliced = [r.fact for r in await journal.history(RUN) if isinstance(r.fact, ContextSpliced)]
    assert len(spliced) > 150
    assert {fact.tail.data for fact in spliced[-3:]} == {b',"note number %d"]' % n for n in (198, 199, 200)}
    assert (await journal.state(RUN)).context["notes"] == [f"note number {n}" for n in range(1, 201)]
    await handler.cancel_run()
