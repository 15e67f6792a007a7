"""`num_concurrent_runs`: so many runs of an instance are live at once; the rest wait in the order of their start."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_flow import (
    Context,
    Journal,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    step,
)
from durable_flow.engine.places import Places

from .flows import Answer, Question, in_another_loop, question, released, until


class Job(Workflow):
    """Notes the most that ran at once; each run ends when its event in `gates` is set."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "Job", **kwargs})
        self.live = self.most = 0
        self.began: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.more: asyncio.Event = asyncio.Event()

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.began.append(ev.name)
        self.more.set()
        self.live += 1
        self.most = max(self.most, self.live)
        try:
            await self.gate(ev.name).wait()
        finally:
            self.live -= 1
        return StopEvent(result=ev.name)

    async def has_begun(self, *names: str) -> None:
        while not set(names) <= set(self.began):
            self.more.clear()
            await self.more.wait()


async def test_so_many_run_at_once_and_the_rest_in_the_order_of_their_start(journal: Journal) -> None:
    job = Job(journal=journal, num_concurrent_runs=2)
    handlers = [job.run(name=name) for name in "abcdef"]
    await job.has_begun("a", "b")
    for name in "bacdef":  # b ends before a
        job.gate(name).set()
        await job.has_begun(name)
    assert await asyncio.gather(*handlers) == list("abcdef")
    assert job.began == list("abcdef")
    assert job.most == 2


async def test_a_run_that_waits_for_its_place_does_not_exist_yet(journal: Journal) -> None:
    job = Job(journal=journal, num_concurrent_runs=1)
    first, second = job.run(run_id="first", name="a"), job.run(run_id="second", name="b")
    await job.has_begun("a")
    with pytest.raises(RunNotFoundError):
        await journal.run("second")
    assert not second.is_done()
    job.gate("a").set()
    job.gate("b").set()
    assert [await first, await second] == ["a", "b"]


async def test_every_loop_and_every_instance_has_places_of_its_own(file: Journal, url: str) -> None:
    job = Job(journal=url, num_concurrent_runs=1)
    other = Job(journal=url, num_concurrent_runs=1)
    handler, beside = job.run(name="a"), other.run(name="b")
    await job.has_begun("a")
    await other.has_begun("b")

    async def elsewhere() -> Any:
        third = Job(journal=url, num_concurrent_runs=1)
        third.gates, third.most = {"c": asyncio.Event()}, 0
        third.gate("c").set()
        return await third.run(name="c")

    assert await in_another_loop(elsewhere) == "c"
    job.gate("a").set()
    other.gate("b").set()
    assert [await handler, await beside] == ["a", "b"]


async def test_attaching_to_what_is_live_or_has_ended_takes_no_place(journal: Journal) -> None:
    job = Job(journal=journal, num_concurrent_runs=1)
    job.gate("done").set()
    assert await job.run(run_id="done", name="done") == "done"
    handler = job.run(run_id="live", name="live")
    await job.has_begun("live")
    assert await job.run(run_id="done", name="done") == "done"
    attached = job.run(run_id="live", name="live")
    elsewhere = Job(journal=journal, num_concurrent_runs=1)
    busy = elsewhere.run(name="busy")
    await elsewhere.has_begun("busy")
    third = await elsewhere.resume("live")
    job.gate("live").set()
    assert [await handler, await attached, await third] == ["live"] * 3
    elsewhere.gate("busy").set()
    assert await busy == "busy"


@pytest.mark.parametrize("end", ["fails", "is cancelled", "is released"])
async def test_the_place_of_a_run_is_free_when_it_leaves(journal: Journal, end: str) -> None:
    class Ends(Job):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.began.append(ev.name)
            self.more.set()
            if ev.name == "a" and end == "fails":
                raise ValueError(end)
            await self.gate(ev.name).wait()
            return StopEvent(result=ev.name)

    job = Ends(journal=journal, num_concurrent_runs=1)
    first, second = job.run(run_id="first", name="a"), job.run(name="b")
    await job.has_begun("a")
    if end == "is cancelled":
        await first.cancel_run()
    elif end == "is released":
        await released(first)
    await job.has_begun("b")
    if end == "is released":
        again = asyncio.ensure_future(first)
        job.gate("b").set()
        assert await second == "b"
        job.gate("a").set()
        assert await again == "a"
        assert job.began == ["a", "b", "a"]
    else:
        job.gate("b").set()
        assert await second == "b"


async def test_a_run_that_only_waits_for_a_human_and_was_released_gives_its_place_back(new_journal: Any) -> None:
    class Asks(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> Question:
            return Question(text=ev.name)

        @step
        async def answered(self, ev: Answer) -> StopEvent:
            return StopEvent(result=ev.text)

    async with new_journal(idle_release_seconds=0.01) as journal:
        flow = Asks(journal=journal, num_concurrent_runs=1)
        first, second = flow.run(run_id="first", name="a"), flow.run(run_id="second", name="b")
        assert (await question(first)).text == "a"
        assert (await question(second)).text == "b"
        await journal.send("first", Answer(text="for a"))
        assert await first == "for a"
        await journal.send("second", Answer(text="for b"))
        assert await second == "for b"


async def test_a_queued_run_that_is_cancelled_never_exists(journal: Journal) -> None:
    job = Job(journal=journal, num_concurrent_runs=1)
    first, second, third = (job.run(run_id=name, name=name) for name in "abc")
    await job.has_begun("a")
    await second.cancel_run()
    with pytest.raises(WorkflowCancelledByUser, match="before it was started"):
        await second
    assert second.cancelled()
    job.gate("a").set()
    job.gate("c").set()
    assert [await first, await third] == ["a", "c"]
    with pytest.raises(RunNotFoundError):
        await journal.run("b")


async def test_a_queued_handler_that_is_cancelled_leaves_the_queue(journal: Journal) -> None:
    job = Job(journal=journal, num_concurrent_runs=1)
    first, second, third = (job.run(run_id=name, name=name) for name in "abc")
    await job.has_begun("a")
    assert second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    job.gate("a").set()
    job.gate("c").set()
    assert [await first, await third] == ["a", "c"]
    assert job.began == ["a", "c"]


async def test_recover_takes_runs_up_as_there_are_places(file: Journal, url: str) -> None:
    async def leave() -> None:
        job = Job(journal=url)
        for name in "abc":
            job.run(run_id=name, name=name)
        await job.has_begun(*"abc")

    await in_another_loop(leave)
    job = Job(journal=file, num_concurrent_runs=1)
    handlers = await job.recover()
    assert {handler.run_id for handler in handlers} == set("abc")
    for name in "abc":
        job.gate(name).set()
    assert sorted(await asyncio.gather(*handlers)) == list("abc")
    assert job.most == 1


async def test_resume_waits_for_a_place(file: Journal, url: str) -> None:
    async def leave() -> None:
        job = Job(journal=url)
        job.run(run_id="left", name="left")
        await job.has_begun("left")

    await in_another_loop(leave)
    job = Job(journal=file, num_concurrent_runs=1)
    first = job.run(name="a")
    await job.has_begun("a")
    resuming = asyncio.create_task(job.resume("left"))
    job.gate("left").set()
    job.gate("a").set()
    assert await (await resuming) == "left"
    assert await first == "a"
    assert job.most == 1


# -- Within runs -------------------------------------------------------------------------------------------------------


class Deeper(Workflow):
    """Runs itself, so many levels deep."""

    @step
    async def go(self, ev: StartEvent) -> StopEvent:
        below = await self.run(depth=ev.depth - 1) if ev.depth else 0
        return StopEvent(result=below + 1)


async def test_a_run_within_one_of_the_same_instance_takes_no_place(journal: Journal) -> None:
    deeper = Deeper(journal=journal, num_concurrent_runs=1)
    assert await asyncio.gather(deeper.run(depth=3), deeper.run(depth=2)) == [4, 3]


async def test_children_of_many_parents_share_the_places_of_their_instance(journal: Journal) -> None:
    job = Job(num_concurrent_runs=2)

    class Parent(Workflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await job.run(name=ev.name))

    parent = Parent(journal=journal)
    handlers = [parent.run(name=name) for name in "abcd"]
    for name in "abcd":
        job.gate(name).set()
    assert await asyncio.gather(*handlers) == list("abcd")
    assert job.most <= 2


async def test_instances_that_start_each_other_do_not_wait_for_each_other_for_ever(journal: Journal) -> None:
    class Ping(Workflow):
        other: Workflow

        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=1 + await self.other.run(depth=ev.depth - 1) if ev.depth else 0)

    a = Ping(journal=journal, num_concurrent_runs=1, workflow_name="A")
    b = Ping(journal=journal, num_concurrent_runs=1, workflow_name="B")
    a.other, b.other = b, a
    assert await asyncio.gather(*(flow.run(depth=3) for flow in (a, b, a, b))) == [3] * 4


async def test_a_queued_child_is_never_started_when_its_parent_ends(journal: Journal) -> None:
    job = Job(journal=journal, num_concurrent_runs=1)

    class Parent(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await job.run(name="child"))

    busy = job.run(name="busy")
    await job.has_begun("busy")
    handler = Parent(journal=journal).run(run_id="parent")

    async def waits_for_child() -> bool:
        return any(info.run_id == "parent" and info.seq >= 3 for info in await journal.runs())

    await until(waits_for_child)
    await handler.cancel_run()
    job.gate("busy").set()
    job.gate("child").set()
    assert await busy == "busy"
    job.gate("next").set()
    assert await job.run(name="next") == "next"
    assert job.began == ["busy", "next"]


# -- The rule ----------------------------------------------------------------------------------------------------------


async def test_a_place_that_nobody_waits_for_is_there_at_once() -> None:
    places = Places(1)
    first, second = places.ask(()), places.ask(())
    assert first.result() is True
    assert not second.done()
    places.give_back()
    assert second.result() is True
    places.give_back()
    assert places.ask(()).result() is True


async def test_whoever_leaves_the_queue_gets_no_place() -> None:
    places = Places(1)
    places.ask(())
    second, third = places.ask(()), places.ask(())
    assert places.leave(second)
    assert second.result() is False
    places.give_back()
    assert third.result() is True
    assert not places.leave(third)


async def test_nobody_waits_the_other_way_round_over_any_number_of_instances() -> None:
    a, b, c = Places(1), Places(1), Places(1)
    for places in (a, b, c):
        places.ask(())
    assert not b.ask({a}).done()
    assert not c.ask({b}).done()
    assert a.ask({c}).result() is False
    assert a.ask({a}).result() is False
    assert not c.ask({a}).done()
