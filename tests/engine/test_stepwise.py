"""`run(stepwise=True)`: each `run_step` runs what is pending and returns the events that are held then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from durable_flow.records import EventEmitted, StepCompleted

from .flows import Answer, Asking, Shop, in_another_loop, question, records_of, released, time_stands_still


class Part(Event):
    number: int


class Done(Event):
    number: int


class Fan(Workflow):
    """Three parts, in one step each, and a join."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "Fan", **kwargs})
        self.ran: list[str] = []

    @step
    async def split(self, ev: StartEvent) -> list[Part]:
        self.ran.append("split")
        return [Part(number=number) for number in range(3)]

    @step(num_workers=1)
    async def work(self, ev: Part) -> Done:
        self.ran.append(f"work {ev.number}")
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        self.ran.append("join")
        found = ctx.collect_events(ev, [Done] * 3)
        return None if found is None else StopEvent(result=sorted(one.number for one in found))


async def test_each_step_runs_what_is_pending_and_returns_what_is_held(journal: Journal) -> None:
    flow = Fan(journal=journal)
    handler = flow.run(stepwise=True)
    assert flow.ran == []
    assert await handler.run_step() == [Part(number=number) for number in range(3)]
    assert flow.ran == ["split"]
    held = await handler.run_step()
    assert held is not None
    assert sorted(event.number for event in held) == [0, 1, 2]  # type: ignore[attr-defined]
    assert flow.ran == ["split", "work 0", "work 1", "work 2"]
    assert await handler.run_step() is None
    assert await handler.run_step() is None
    assert await handler == [0, 1, 2]


async def test_the_loop_of_old_programs_works(journal: Journal) -> None:
    """They send every held event again; it is in the journal already, and is not there twice."""
    flow = Fan(journal=journal)
    handler = flow.run(run_id="r", stepwise=True)
    while produced := await handler.run_step():
        for event in produced:
            handler.ctx.send_event(event)
            await handler.send_event(event)
    assert await handler == [0, 1, 2]
    assert len(await records_of(journal, "r", EventEmitted)) == 1 + 3 + 3
    assert len(flow.ran) == 1 + 3 + 3


async def test_an_event_of_ones_own_is_sent_beside_the_held_ones(journal: Journal) -> None:
    flow = Fan(journal=journal)
    handler = flow.run(stepwise=True)
    await handler.run_step()
    await handler.send_event(Part(number=7))
    held = await handler.run_step()
    assert held is not None
    assert sorted(event.number for event in held) == [0, 1, 2, 7]  # type: ignore[attr-defined]


async def test_a_held_event_that_was_changed_is_refused(memory: Journal) -> None:
    handler = Fan(journal=memory).run(stepwise=True)
    (first, *_) = await handler.run_step() or []
    first.number = 9  # type: ignore[attr-defined]
    with pytest.raises(WorkflowRuntimeError, match="held Part was changed"):
        await handler.send_event(first)


async def test_awaiting_the_handler_lets_the_run_go_on(journal: Journal) -> None:
    flow = Fan(journal=journal)
    handler = flow.run(stepwise=True)
    await handler.run_step()
    assert await handler == [0, 1, 2]


async def test_a_stepwise_run_that_dies_is_resumed_where_it_stood(file: Journal, url: str) -> None:
    async def first() -> list[str]:
        flow = Fan(journal=url)
        handler = flow.run(run_id="r", stepwise=True)
        await handler.run_step()
        return flow.ran

    assert await in_another_loop(first) == ["split"]
    flow = Fan(journal=file)
    handler = flow.run(run_id="r", stepwise=True)
    held = await handler.run_step()
    assert held is not None
    assert sorted(event.number for event in held) == [0, 1, 2]  # type: ignore[attr-defined]
    assert flow.ran == ["work 0", "work 1", "work 2"]
    assert await handler.run_step() is None
    assert await handler == [0, 1, 2]
    assert len(await records_of(file, "r", StepCompleted)) == 7


async def test_a_released_run_is_stepped_on(journal: Journal) -> None:
    flow = Fan(journal=journal)
    handler = flow.run(run_id="r", stepwise=True)
    await handler.run_step()
    # As when a person goes away: nobody waits, so the engine gives the run up.
    attachment = handler._attachment
    assert attachment.run is not None
    attachment.run.release()
    held = await handler.run_step()
    assert held is not None
    assert len(held) == 3
    assert flow.ran == ["split", "work 0", "work 1", "work 2"]


async def test_time_between_steps_does_not_count(memory: Journal) -> None:
    handler = Fan(journal=memory, timeout=0.1).run(stepwise=True)
    with time_stands_still():
        await handler.run_step()
    await asyncio.sleep(0.15)  # the time is what this is about
    with time_stands_still():
        await handler.run_step()
        assert await handler.run_step() is None
        assert await handler == [0, 1, 2]


async def test_a_step_that_is_retried_ends_with_its_last_attempt(journal: Journal) -> None:
    class Flaky(Workflow):
        tries = 0

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.01))
        async def go(self, ev: StartEvent) -> Part:
            self.tries += 1
            if self.tries < 3:
                raise ConnectionError("again")
            return Part(number=self.tries)

        @step
        async def end(self, ev: Part) -> StopEvent:
            return StopEvent(result=ev.number)

    handler = Flaky(journal=journal).run(stepwise=True)
    assert await handler.run_step() == [Part(number=3)]
    assert await handler.run_step() is None
    assert await handler == 3


async def test_a_run_that_only_waits_holds_nothing(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(stepwise=True)
    assert await handler.run_step() == []
    asked = await question(handler)
    await handler.send_event(Answer(text="yes"), wait_id=asked.wait_id)
    assert flow.ran == ["ask"]
    assert await handler.run_step() is None
    assert await handler == "yes"


async def test_a_step_that_waits_inside_counts_as_done_for_now(journal: Journal) -> None:
    class Waits(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Answer, timeout=None)).text)

    handler = Waits(journal=journal).run(stepwise=True)
    assert await handler.run_step() == []
    await handler.send_event(Answer(text="yes"))
    assert await handler.run_step() is None
    assert await handler == "yes"


async def test_the_error_of_a_step_is_told_by_awaiting(journal: Journal) -> None:
    handler = Shop(journal=journal, fail=ValueError("no truck")).run(stepwise=True, item="lamp")
    await handler.run_step()
    assert await handler.run_step() is None
    with pytest.raises(ValueError, match="no truck"):
        await handler


async def test_a_run_that_is_not_stepwise_cannot_be_stepped(memory: Journal) -> None:
    flow = Shop(journal=memory, hold=asyncio.Event())
    handler = flow.run(item="lamp")
    with pytest.raises(WorkflowRuntimeError, match="stepwise=True"):
        await handler.run_step()
    await released(handler)


async def test_a_step_that_nobody_waits_for_any_more_goes_on(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(stepwise=True, item="lamp")
    await handler.run_step()
    stepping = asyncio.create_task(handler.run_step())
    await flow.shipping.wait()
    stepping.cancel()
    flow.hold.set()
    assert await handler.run_step() is None
    assert await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]
