"""Cancelling: for good, wherever the run is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from durable_flow import (
    Context,
    ContextStateError,
    Journal,
    RunFinishedError,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowCancelledEvent,
    step,
)

from .conftest import Log
from .flows import Answer, Asking, Shop, in_another_loop, question, released


class Hangs(Workflow):
    def __init__(self, journal: Journal | str, *, stubborn: bool = False):
        super().__init__(journal=journal, workflow_name="Hangs")
        self.stubborn = stubborn
        self.begun, self.cancelled, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ran = 0

    @step
    async def hang(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.ran += 1
        ctx.data["got this far"] = True
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            if not self.stubborn:
                raise
            await self.go.wait()
        return StopEvent(result="went on")


async def test_a_live_run_is_cancelled_and_stays_it(journal: Journal) -> None:
    flow = Hangs(journal)
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await handler.cancel_run()
    assert handler.is_done()
    assert handler.get_stop_event() == WorkflowCancelledEvent()
    await flow.cancelled.wait()
    for _ in range(2):
        with pytest.raises(WorkflowCancelledByUser, match="run r was cancelled"):
            await handler
    info = await journal.run("r")
    assert (info.status, info.owner) == ("cancelled", None)
    assert (await journal.state("r")).context == {"got this far": True}
    assert (await journal.state("r")).tasks == ()
    assert await flow.recover() == []
    with pytest.raises(WorkflowCancelledByUser):
        await (await flow.resume("r"))
    assert flow.ran == 1


async def test_a_step_that_goes_on_after_its_cancellation_changes_nothing(journal: Journal) -> None:
    flow = Hangs(journal, stubborn=True)
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await handler.cancel_run()
    await flow.cancelled.wait()
    before = await journal.history("r")
    flow.go.set()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert await journal.history("r") == before


async def test_cancelling_twice_or_after_the_end_is_no_error(journal: Journal) -> None:
    flow = Hangs(journal)
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await asyncio.gather(handler.cancel_run(), handler.cancel_run())
    await handler.cancel_run()
    done = Shop(journal=journal).run(run_id="done", item="lamp")
    await done
    await done.cancel_run()
    assert await done == "shipped 1 lamp"
    assert (await journal.run("done")).status == "completed"


async def test_a_run_that_has_not_begun_yet_can_be_cancelled(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert (await journal.run("r")).status == "cancelled"


async def test_a_run_that_waits_for_a_human_can_be_cancelled(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    await handler.cancel_run()
    assert await journal.pending() == []
    with pytest.raises(RunFinishedError):
        await journal.send("r", Answer(text="late"))


async def test_a_run_that_has_left_memory_can_be_cancelled(new_journal: Callable[..., Journal], log: Log) -> None:
    async with new_journal(idle_release_seconds=0.01) as journal:
        flow = Asking(journal=journal)
        handler = flow.run(run_id="r")
        await question(handler)
        await log.seen("run_released")
        await handler.cancel_run(timeout=30)
        assert handler.is_done()
        assert (await journal.run("r")).status == "cancelled"
        assert flow.ran == ["ask"]


async def test_a_released_run_can_be_cancelled_and_runs_no_step_for_it(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    await released(handler)
    await handler.cancel_run(timeout=30)
    assert (await journal.run("r")).status == "cancelled"
    assert flow.ran == ["pack", "ship"]


async def test_the_journal_cancels_a_live_run(journal: Journal) -> None:
    flow = Hangs(journal)
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await journal.cancel("r", "no longer wanted")
    with pytest.raises(WorkflowCancelledByUser):
        await handler


async def test_the_journal_cancels_a_run_that_nobody_owns_when_it_is_taken_up(url: str) -> None:
    async def begin() -> None:
        flow = Hangs(url)
        flow.run(run_id="r")
        await flow.begun.wait()

    await in_another_loop(begin)
    async with Journal(url) as journal:
        await journal.cancel("r")
        flow = Hangs(url)
        with pytest.raises(WorkflowCancelledByUser):
            await (await flow.resume("r"))
        assert flow.ran == 0
        assert (await journal.run("r")).status == "cancelled"


async def test_the_journal_refuses_to_cancel_what_is_finished_or_unknown(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="r", item="lamp")
    with pytest.raises(RunFinishedError):
        await journal.cancel("r")
    with pytest.raises(RunNotFoundError):
        await journal.cancel("nowhere")


async def test_a_sync_step_cannot_be_stopped_but_its_run_ends_and_takes_nothing_more_from_it(
    journal: Journal,
) -> None:
    class Blocks(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.begun, self.go, self.ended = asyncio.Event(), threading.Event(), asyncio.Event()
            self.loop = asyncio.get_running_loop()
            self.error: BaseException | None = None

        @step
        def block(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.loop.call_soon_threadsafe(self.begun.set)
            assert self.go.wait(30)
            try:
                ctx.data["late"] = True
            except BaseException as error:
                self.error = error
            self.loop.call_soon_threadsafe(self.ended.set)
            return StopEvent()

    flow = Blocks()
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    flow.go.set()
    await flow.ended.wait()
    assert isinstance(flow.error, ContextStateError)
    assert (await journal.state("r")).context == {}
