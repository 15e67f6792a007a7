"""Seed 000: "Best Practices", "Testing: Write unit tests for each step independently"."""

from __future__ import annotations

from durable_flow import Context, StartEvent, StopEvent

from .guide import CustomEvent, ProcessingEvent
from .test_000_guide import Intelligence


async def test_each_step_can_be_tested_independently_without_a_run():
    workflow = Intelligence(more=True)
    ctx = Context(workflow)

    event = await workflow.entry_point(ctx, StartEvent(input_data="nodes"))
    assert type(event) is CustomEvent
    assert event.metadata == {"session_id": ctx.data["session_id"]}

    event = await workflow.process_data(ctx, event)
    assert type(event) is ProcessingEvent
    assert ctx.data["processing_count"] == 1

    event = await workflow.finalize(ctx, event)
    assert type(event) is StopEvent
    assert event.result["processing_steps"] == 1
