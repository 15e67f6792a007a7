"""The timeout: a budget of active time."""

from __future__ import annotations

import asyncio
import re

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    DurableFlowError,
    Event,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowTimedOutEvent,
    WorkflowTimeoutError,
    step,
)
from durable_flow.records import RunClaimed, StepCompleted, StepFailed

from .flows import Answer, Asking, Question, Shop, in_another_loop, question, recorded, released, time_stands_still

SOON = 0.5


class Item(Event):
    n: int = 0


async def test_zero_times_out_at_once(journal: Journal) -> None:
    flow = Shop(journal=journal, timeout=0)
    with pytest.raises(WorkflowTimeoutError, match=r"^Operation timed out after 0 seconds\. No steps active"):
        await flow.run(run_id="r", item="lamp")
    assert flow.ran == []
    assert (await journal.run("r")).status == "timed_out"


async def test_none_is_no_limit(journal: Journal) -> None:
    class Slow(Workflow):
        @step
        async def slow(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(0.1)
            return StopEvent(result="done")

    assert await Slow(journal=journal, timeout=None).run() == "done"
    with pytest.raises(WorkflowTimeoutError):
        await Slow(journal=journal, timeout=0.02).run()


async def test_the_message_names_the_active_steps(journal: Journal) -> None:
    class Hangs(Workflow):
        @step
        async def split(self, ev: StartEvent) -> Item:
            return Item()

        @step
        async def b(self, ev: Item) -> StopEvent:
            began["b"].set()
            await asyncio.Event().wait()
            return StopEvent()

        @step
        async def a(self, ev: Item) -> StopEvent:
            began["a"].set()
            await asyncio.Event().wait()
            return StopEvent()

    began = {name: asyncio.Event() for name in "ab"}
    handler = Hangs(journal=journal, timeout=SOON).run(run_id="r")
    with time_stands_still():
        for name in began:
            await began[name].wait()
    with pytest.raises(WorkflowTimeoutError) as raised:
        await handler
    assert str(raised.value).startswith("Operation timed out after 0.5 seconds. Currently active steps: a, b")
    assert handler.get_stop_event() == WorkflowTimedOutEvent(timeout=SOON, active_steps=["a", "b"])


async def test_the_message_names_the_events_that_nobody_handled(journal: Journal) -> None:
    class Lost(Event):
        pass

    class AlsoLost(Event):
        pass

    class Loses(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
            ctx.send_event(Lost())
            return AlsoLost()  # type: ignore[return-value]

    handler = Loses(journal=journal, timeout=SOON).run(run_id="r")
    with time_stands_still():
        await recorded(journal, "r", StepCompleted)
    with pytest.raises(WorkflowTimeoutError) as raised:
        await handler
    assert re.match(
        r"Operation timed out after 0\.5 seconds\. No steps active.*Lost.*AlsoLost.*flow\.retry\('r'\)",
        str(raised.value),
    )


async def test_it_is_a_timeout_error_of_the_package(memory: Journal) -> None:
    with pytest.raises(TimeoutError) as raised:
        await Shop(journal=memory, timeout=0).run(item="lamp")
    assert type(raised.value) is WorkflowTimeoutError
    assert isinstance(raised.value, DurableFlowError)


async def test_running_steps_are_cancelled(journal: Journal) -> None:
    class Hangs(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal, timeout=SOON)
            self.began, self.cancelled = asyncio.Event(), asyncio.Event()

        @step
        async def hang(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["got this far"] = True
            self.began.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
            return StopEvent()

    flow = Hangs()
    handler = flow.run(run_id="r")
    with time_stands_still():
        await flow.began.wait()
    with pytest.raises(WorkflowTimeoutError):
        await handler
    await flow.cancelled.wait()
    assert (await journal.state("r")).context == {"got this far": True}  # the end of a run carries all drafts


async def test_waiting_for_a_human_does_not_count(journal: Journal) -> None:
    handler = Asking(journal=journal, timeout=0.2).run()
    with time_stands_still():
        await question(handler)
    await asyncio.sleep(0.4)
    with time_stands_still():
        await handler.send_event(Answer(text="yes"))
        assert await handler == "yes"


async def test_waiting_inside_a_step_and_sleeping_do_not_count(journal: Journal) -> None:
    class Waits(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.sleep(1.2)
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="?"))
            return StopEvent(result=answer.text)

    # Each of the two lasts longer than the whole budget, which is enough for a busy machine to begin both.
    handler = Waits(journal=journal, timeout=1).run()
    await question(handler)
    await asyncio.sleep(1.2)
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def test_a_step_that_runs_while_another_waits_counts(journal: Journal) -> None:
    class Both(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=0), Item(n=1)]

        @step
        async def work(self, ctx: Context, ev: Item) -> StopEvent:
            if ev.n == 0:
                await ctx.wait_for_event(Answer, waiter_event=Question(text="?"))
            began.set()
            await asyncio.Event().wait()
            return StopEvent()

    began = asyncio.Event()
    handler = Both(journal=journal, timeout=0.1).run()
    with time_stands_still():
        await question(handler)
        await began.wait()
    with pytest.raises(WorkflowTimeoutError, match="Currently active steps: work"):
        await handler


async def test_retry_delays_count(journal: Journal) -> None:
    class Fails(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=60))
        async def fail(self, ev: StartEvent) -> StopEvent:
            raise ValueError("again and again")

    handler = Fails(journal=journal, timeout=SOON).run(run_id="r")
    with time_stands_still():
        await recorded(journal, "r", StepFailed)
    with pytest.raises(WorkflowTimeoutError, match="No steps active"):
        await handler


async def test_time_in_which_no_process_had_the_run_does_not_count(url: str) -> None:
    async def begin() -> None:
        flow = Shop(journal=url, hold=asyncio.Event(), timeout=0.5)
        flow.run(run_id="r", item="lamp")
        await flow.shipping.wait()

    with time_stands_still():
        await in_another_loop(begin)
    await asyncio.sleep(0.7)
    with time_stands_still():
        assert await Shop(journal=url, timeout=0.5).run(run_id="r", item="lamp") == "shipped 1 lamp"


async def test_what_was_used_before_a_restart_stays_used(journal: Journal) -> None:
    class Slow(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal, timeout=3.0)
            self.began, self.enough, self.worked = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> Item:
            self.began.set()
            await self.enough.wait()
            return Item()

        @step
        async def hang(self, ev: Item) -> StopEvent:
            self.worked.set()
            await asyncio.Event().wait()
            return StopEvent()

    flow = Slow()
    handler = flow.run(run_id="r")
    with time_stands_still():
        await flow.began.wait()
    # Half of it: the other half is how late a busy machine may be, on either side of the restart.
    await asyncio.sleep(1.5)
    with time_stands_still():
        flow.enough.set()
        await flow.worked.wait()
        await released(handler)
    with pytest.raises(WorkflowTimeoutError, match=r"after 3\.0 seconds"):
        await handler
    history = await journal.history("r")
    claimed = next(r.at for r in history if isinstance(r.fact, RunClaimed))
    assert history[-1].at - claimed < 3_000_000  # us; a new budget would have lasted longer
