"""Seed 001: "State Management and Context", the context that is serialized, restored and run again; `submit_run`."""

from __future__ import annotations

import json

from durable_flow import (
    Context,
    HumanResponseEvent,
    InputRequiredEvent,
    JsonSerializer,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)


class Counting(Workflow):
    @step
    async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
        n = await ctx.get("n", default=0) + 1
        await ctx.set("n", n)
        return StopEvent(result=n)


class Asking(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
        await ctx.set("topic", ev.topic)
        return InputRequiredEvent(prefix="go on?")

    @step
    async def take(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"{await ctx.get('topic')}: {ev.response}")


async def test_submit_run_of_the_diagram_is_run():
    assert await Counting(timeout=30).submit_run() == 1


async def test_a_context_goes_through_json_and_the_next_run_goes_on_with_its_state():
    workflow = Counting(timeout=30)
    handler = workflow.run()
    assert await handler == 1
    data = json.loads(json.dumps(handler.ctx.serialize()))
    for restored in (Context(workflow).deserialize(data), Context.from_dict(workflow, data)):
        assert await workflow.run(ctx=restored) == 2


async def test_a_finished_context_serves_the_next_run_as_it_is():
    workflow = Counting(timeout=30)
    handler = workflow.run()
    await handler
    again = workflow.run(ctx=handler.ctx)
    assert await again == 2


async def test_a_paused_context_is_saved_restored_and_resumed_with_the_answer():
    handler = Asking(timeout=30).run(topic="birds")
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    saved = json.dumps(handler.ctx.to_dict(serializer=JsonSerializer()))
    await handler.cancel_run()

    workflow = Asking(timeout=30)
    restored = Context.from_dict(workflow, json.loads(saved), serializer=JsonSerializer())
    resumed = workflow.run(ctx=restored)
    await resumed.send_event(HumanResponseEvent(response="yes"))
    assert await resumed == "birds: yes"
