"""Killed at any commit of compacting or pruning, a run is as it was or as it was to be, and the next one goes on.

Also beside a live writer, and when the writer is what dies. `DURABLE_FLOW_TEST_SEED` chooses the moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from deadlines import limit

from durable_flow import CheckpointError, Journal, RunNotFoundError, WorkflowHandler
from durable_flow.journal.folding import state_at
from durable_flow.records import Record
from durable_flow.snapshot import encode_state

from .kills import POINTS
from .processes import Home
from .retaining import LAPS, Retained, RetainedAnswer, RetainedAsk

RETAINING = ["-m", "crash.retaining"]
HERE = Path(__file__)
SEED = int(os.environ.get("DURABLE_FLOW_TEST_SEED", "1"))
SEEN = list(range(LAPS + 1))
ENDED = ["ended-1", "ended-2", "ended-3"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit((item for item in items if item.path == HERE), seconds=60)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another process does."""
    while True:
        if await condition():
            return
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _in_its_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.folder)


def killed(home: Home, what: str, number: int, point: str, *, beside: bool = False) -> bool:
    """Let a process do this; tell whether it was killed, and not ready before."""
    code, _, errors = home.run_to_end([*RETAINING, what, str(number), point])
    assert code in (0, -signal.SIGKILL), errors
    if not beside:
        home.database.come_to_rest()
    return code != 0


async def prepare(home: Home) -> None:
    """A run that asks, and some that have ended. The end of the loop gives back the one that is live."""
    async with Journal(home.database.url) as journal:
        async for event in Retained(journal=journal).run(run_id="long").stream_events():
            if isinstance(event, RetainedAsk):
                break
        for run_id in ENDED:
            await Retained(journal=journal, laps=30, ask=False).run(run_id=run_id)


def some_kills() -> list[tuple[int, str]]:
    """The first commit or the second one, at each point: those before it bring each process further."""
    return [(1 + (n + SEED) % 2, POINTS[(n + SEED) % len(POINTS)]) for n in range(6)]


async def states(journal: Journal, run_id: str, first: int) -> list[bytes]:
    row = await journal._shared.store.find(run_id)
    assert row is not None
    boundaries = [r.seq for r in await journal.history(run_id) if r.boundary and r.seq >= first]
    return [encode_state(await state_at(journal._shared.store, row.run, seq)).data for seq in boundaries]


def test_killed_while_it_compacts(home: Home) -> None:
    asyncio.run(prepare(home))

    async def before() -> tuple[int, list[bytes]]:
        async with Journal(home.database.url) as journal:
            half = next(c.seq for c in await journal.checkpoints("long") if c.name == "half")
            return half, await states(journal, "long", half)

    half, expected = asyncio.run(before())

    async def after() -> None:
        async with Journal(home.database.url) as journal:
            first = (await journal.run("long")).first_seq
            assert first in (1, half)
            assert await states(journal, "long", half) == expected
            records = await journal.history("long")
            assert [r.seq for r in records] == list(range(first, first + len(records)))
            if first == half:
                with pytest.raises(CheckpointError, match="gone"):
                    await journal.state("long", half - 1)

    struck = 0
    for number, point in some_kills():
        struck += killed(home, "compact", number, point)
        asyncio.run(after())
    assert struck >= 3
    assert home.run_to_end([*RETAINING, "compact"])[0] == 0
    rows = "SELECT count(*) FROM journal j JOIN runs r ON r.run = j.run WHERE r.run_id = 'long' AND j.seq < r.first_seq"
    assert home.database.rows(rows) == home.database.rows("SELECT count(*) FROM purges") == [(0,)]

    async def answer() -> None:
        async with Journal(home.database.url) as journal:
            await journal.send("long", RetainedAnswer(text="done"))
            assert await (await Retained(journal=journal).resume("long")) == ["done", *SEEN]

    asyncio.run(answer())
    assert laps_of(home).count(LAPS) == 1


@pytest.mark.parametrize("what", ["prune", "drop"])
def test_killed_while_it_prunes_each_run_is_whole_or_pruned(home: Home, what: str) -> None:
    asyncio.run(prepare(home))

    async def before() -> dict[str, list[Record]]:
        async with Journal(home.database.url) as journal:
            return {run_id: await journal.history(run_id) for run_id in [*ENDED, "long"]}

    whole = asyncio.run(before())

    async def after() -> None:
        async with Journal(home.database.url) as journal:
            for run_id in ENDED:
                try:
                    run = await journal.run(run_id)
                except RunNotFoundError:
                    assert what == "drop"
                    continue
                if run.pruned_at is None:
                    assert await journal.history(run_id) == whole[run_id]
                    assert len([item async for item in journal.stream(run_id)]) == 31
                else:
                    assert what == "prune"
                    assert await (await Retained(journal=journal).resume(run_id)) == SEEN[:31]
            assert [r.seq for r in await journal.history("long")] == [r.seq for r in whole["long"]]

    struck = 0
    for number, point in some_kills():
        struck += killed(home, what, number, point)
        asyncio.run(after())
    assert struck >= 2
    left = {"prune": ENDED, "drop": []}[what]

    async def finish() -> None:
        async with Journal(home.database.url) as journal:
            await journal.prune(timedelta(0), keep_results=what == "prune")
            assert sorted(run.run_id for run in await journal.runs(status="completed")) == left
            for run_id in left:
                assert await (await Retained(journal=journal).resume(run_id)) == SEEN[:31]

    asyncio.run(finish())
    for table in ("journal", "stream", "messages", "waits", "snapshots"):
        of = f"SELECT count(*) FROM {table} WHERE run NOT IN (SELECT run FROM runs WHERE run_id = 'long')"
        assert home.database.rows(of) == [(len(left) if table == "journal" else 0,)]
    assert home.database.rows("SELECT count(*) FROM purges") == [(0,)]


async def test_a_live_run_goes_on_while_those_who_compact_it_are_killed(home: Home) -> None:
    """The writer lives in this process, and goes on until they have done."""
    dice = random.Random(SEED)
    async with Journal(home.database.url) as journal:
        flow = Retained(journal=journal, laps=10**9, ask=False)
        handler = flow.run(run_id="long")
        reading = asyncio.ensure_future(_all_laps(handler))
        await lapped(home, LAPS)
        struck = 0
        for number in (1, 2, 3, 1):
            kill = asyncio.to_thread(killed, home, "compact-now", number, dice.choice(POINTS), beside=True)
            struck += await kill
        assert struck >= 2
        flow.laps = 0  # the next lap is the last
        result = await handler
        assert await reading == len(result)
        assert result == laps_of(home) == list(range(len(result)))
        assert (await journal.run("long")).first_seq > 1
        await journal.compact("long")
        assert (await journal.state("long")).context["seen"] == result


async def _all_laps(handler: WorkflowHandler) -> int:
    """Read the stream to its end, without a gap or a repetition; return the number of laps."""
    expected = 0
    async for event in handler.stream_events():
        if "lap" in event:
            assert event.lap == expected
            expected += 1
    return expected


def laps_of(home: Home) -> list[int]:
    path = home.folder / "laps.txt"
    return [int(lap) for lap in path.read_text().split()] if path.exists() else []


async def lapped(home: Home, count: int) -> None:
    """Return when so many laps were gone."""

    async def enough() -> bool:
        return len(laps_of(home)) >= count

    await until(enough)


async def test_a_writer_that_is_killed_after_its_run_was_compacted_is_recovered(home: Home) -> None:
    with home.running([*RETAINING, "work"]) as process:
        await lapped(home, 30)
        async with Journal(home.database.url) as journal:
            for _ in range(5):
                await journal.compact("live")
                await lapped(home, len(laps_of(home)) + 10)
        process.kill()
        process.wait()
    home.database.come_to_rest()
    async with Journal(home.database.url) as journal:
        assert (await journal.compact("live")).records
        result = await (await Retained(journal=journal, laps=0, ask=False).resume("live"))
    assert result == list(range(len(result)))
    # A call whose result was not durable is made again; no other one is.
    assert set(laps_of(home)) == set(result)
    assert len(laps_of(home)) - len(result) <= 1
