"""`journal.follow`: a run's records live, in any process, in order and without a gap."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest

import durable_flow.journal.journal
from durable_flow import Journal, RunNotFoundError, StartEvent, StopEvent, Workflow, step
from durable_flow.records import Record, RunCompleted, RunFailed, RunStarted, StepCompleted, WaitOpened

from .flows import Answer, Asking, Shop, in_another_loop, question, released


@pytest.fixture
def only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hints nothing would be seen before a test's deadline is over."""
    monkeypatch.setattr(durable_flow.journal.journal, "STREAM_POLL_SECONDS", 1000.0)


async def followed(journal: Journal, run_id: str, after: int = 0) -> list[Record]:
    return [record async for record in journal.follow(run_id, after)]


async def follow_until(journal: Journal, run_id: str, kind: type, after: int = 0) -> list[Record]:
    found = []
    async with contextlib.aclosing(journal.follow(run_id, after)) as records:
        async for record in records:
            found.append(record)
            if isinstance(record.fact, kind):
                return found
    raise AssertionError(f"the run ended without a {kind.__name__}")


async def begun(journal: Journal, flow: Shop) -> None:
    flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()


async def test_an_ended_run_is_followed_from_its_first_record_to_its_last(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="r", item="lamp")
    history = await journal.history("r")
    assert await followed(journal, "r") == history
    assert await followed(journal, "r", after=3) == history[3:]
    assert await followed(journal, "r", after=len(history)) == []


@pytest.mark.usefixtures("only_hints")
async def test_a_live_run_is_followed_as_its_records_become_durable(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    await begun(journal, flow)
    seen = await follow_until(journal, "r", StepCompleted)
    assert isinstance(seen[0].fact, RunStarted)
    rest = asyncio.create_task(followed(journal, "r", after=seen[-1].seq))
    flow.hold.set()  # type: ignore[union-attr]
    seen += await rest
    assert seen == await journal.history("r")
    assert isinstance(seen[-1].fact, RunCompleted)


@pytest.mark.usefixtures("only_hints")
async def test_records_that_publish_nothing_wake_a_follower_too(journal: Journal) -> None:
    class Silent(Workflow):
        begun = asyncio.Event()
        go_on = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            self.begun.set()
            await self.go_on.wait()
            return StopEvent()

    handler = Silent(journal=journal).run(run_id="r")
    await Silent.begun.wait()
    following = asyncio.create_task(followed(journal, "r"))
    await handler.ctx.set("key", "value")
    async with contextlib.aclosing(journal.follow("r", after=2)) as records:
        key = (await anext(records)).fact.key  # type: ignore[union-attr]
    assert key == "key"
    Silent.go_on.set()
    await handler
    assert await following == await journal.history("r")


async def test_several_follow_one_run_each_at_its_own_pace(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    await begun(journal, flow)
    following = [asyncio.create_task(followed(journal, "r", after)) for after in (0, 2, 4)]
    async with contextlib.aclosing(journal.follow("r")) as slow:
        first = await anext(slow)
        flow.hold.set()  # type: ignore[union-attr]
        results = await asyncio.gather(*following)
        rest = [record async for record in slow]
    history = await journal.history("r")
    assert [first, *rest] == history
    assert results == [history, history[2:], history[4:]]


async def test_a_page_after_the_other_leaves_no_gap(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_flow.journal.journal, "FOLLOW_PAGE", 2)
    await Shop(journal=journal).run(run_id="r", item="lamp")
    assert await followed(journal, "r") == await journal.history("r")


async def test_a_run_that_waits_goes_on_being_followed_over_its_release(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    following = asyncio.create_task(followed(journal, "r"))
    await follow_until(journal, "r", WaitOpened)
    await released(handler)
    await journal.send("r", Answer(text="yes"))
    assert await (await Asking(journal=journal).resume("r")) == "yes"
    assert await following == await journal.history("r")


async def test_a_failed_run_ends_the_iteration(journal: Journal) -> None:
    with pytest.raises(LookupError):
        await Shop(journal=journal, fail=LookupError("none")).run(run_id="r", item="lamp")
    assert isinstance((await followed(journal, "r"))[-1].fact, RunFailed)


async def test_a_run_that_there_is_not(journal: Journal) -> None:
    with pytest.raises(RunNotFoundError, match="no run r"):
        await followed(journal, "r")


@pytest.mark.parametrize("database", ["url", "postgres_url"])
async def test_a_run_of_another_engine_is_followed_live(database: str, request: pytest.FixtureRequest) -> None:
    new_journal = functools.partial(Journal, request.getfixturevalue(database), durability="normal")
    taken: asyncio.Queue[Record] = asyncio.Queue()

    async with new_journal() as journal:
        flow = Shop(journal=journal, hold=asyncio.Event())
        await begun(journal, flow)
        here, half = asyncio.get_running_loop(), asyncio.Event()

        async def elsewhere() -> None:
            async with new_journal() as other:
                async for record in other.follow("r"):
                    here.call_soon_threadsafe(taken.put_nowait, record)
                    if isinstance(record.fact, StepCompleted):
                        here.call_soon_threadsafe(half.set)

        following = asyncio.create_task(in_another_loop(elsewhere))
        await half.wait()
        flow.hold.set()  # type: ignore[union-attr]
        await following
        assert [taken.get_nowait() for _ in range(taken.qsize())] == await journal.history("r")
