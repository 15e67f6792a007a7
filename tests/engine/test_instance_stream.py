"""`stream_events` and `send_event` of a workflow instance: they mean its only active run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, WorkflowRuntimeError, step
from durable_flow.engine import instance

from .conftest import Log
from .flows import Answer, Asking, Question, Shop


class Tells(Workflow):
    @step
    async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for text in "ab":
            ctx.write_event_to_stream(Question(text=text))
        return StopEvent(result="told")


async def texts(flow: Workflow) -> list[str]:
    return [event.text async for event in flow.stream_events() if isinstance(event, Question)]


async def test_the_stream_of_the_active_run_ends_before_its_stop_event(journal: Journal) -> None:
    flow = Tells(journal=journal)
    task = asyncio.create_task(flow.run())
    events = [event async for event in flow.stream_events()]
    assert [type(event) for event in events] == [Question, Question]
    assert await task == "told"


async def test_a_run_whose_handler_nobody_kept_is_found(memory: Journal) -> None:
    flow = Shop(journal=memory, hold=asyncio.Event())
    flow.run(item="lamp")
    await flow.shipping.wait()
    events = flow.stream_events()
    assert (await anext(events)).item == "shipping 1 lamp"  # type: ignore[attr-defined]
    flow.hold.set()
    assert [event async for event in events] == []


async def test_it_waits_for_the_next_run(journal: Journal) -> None:
    flow = Tells(journal=journal)
    reading = asyncio.create_task(texts(flow))
    await asyncio.sleep(0.02)  # by now it waits
    assert await flow.run() == "told"
    assert await reading == ["a", "b"]


async def test_without_a_run_it_ends_with_a_warning(memory: Journal, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "PATIENCE_SECONDS", 0.02)
    assert await texts(Tells(journal=memory)) == []
    (warning,) = log.of("no_active_run")
    assert "stream_events" in warning.getMessage()


async def test_it_is_five_seconds_that_are_waited() -> None:
    assert instance.PATIENCE_SECONDS == 5.0


async def test_a_run_that_has_ended_is_not_active(memory: Journal) -> None:
    flow = Tells(journal=memory)
    first = flow.run()
    await first
    second = flow.run()
    assert await texts(flow) == ["a", "b"]
    assert await second == "told"


async def test_several_active_runs_are_an_error(memory: Journal) -> None:
    flow = Shop(journal=memory, hold=asyncio.Event())
    handlers = [flow.run(run_id=f"order-{n}", item="lamp") for n in range(2)]
    with pytest.raises(WorkflowRuntimeError, match="order-0, order-1"):
        await anext(flow.stream_events())
    with pytest.raises(WorkflowRuntimeError, match="exactly one active run"):
        flow.send_event(Event())
    flow.hold.set()
    await asyncio.gather(*handlers)


async def test_the_handlers_own_stream_is_another(journal: Journal) -> None:
    flow = Tells(journal=journal)
    handler = flow.run()
    assert await texts(flow) == ["a", "b"]
    assert [type(event) async for event in handler.stream_events()] == [Question, Question, StopEvent]


async def test_an_event_reaches_the_active_run(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run()
    async for event in flow.stream_events():
        assert isinstance(event, Question)
        flow.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def test_an_event_waits_for_the_next_run(memory: Journal) -> None:
    flow = Asking(journal=memory)
    flow.send_event(Answer(text="early"))
    await asyncio.sleep(0.02)  # by now it waits
    assert await flow.run() == "early"


async def test_an_event_for_no_run_is_told_and_dropped(
    memory: Journal, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "PATIENCE_SECONDS", 0.02)
    Asking(journal=memory).send_event(Answer(text="to nobody"))
    (warning,) = await log.seen("no_active_run")
    assert "send_event" in warning.getMessage()


async def test_steps_may_have_these_names(journal: Journal) -> None:
    class Named(Workflow):
        @step
        async def stream_events(self, ev: StartEvent) -> Answer:  # type: ignore[override]
            return Answer(text="from a step")

        @step
        async def send_event(self, ev: Answer) -> StopEvent:  # type: ignore[override]
            return StopEvent(result=ev.text)

    handler = Named(journal=journal).run()
    found: list[Any] = [event async for event in handler.stream_events()]
    assert [type(event) for event in found] == [StopEvent]
    assert await handler == "from a step"
