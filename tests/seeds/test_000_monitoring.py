"""Seed 000: "Use Workflow Streaming for Real-time Monitoring"."""

from __future__ import annotations

import asyncio
import warnings

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step


class Progress(Event):
    message: str


class Streaming(Workflow):
    @step
    async def search(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(Progress(message="searching"))
        ctx.data["query"] = ev.input_data["query"]
        return StopEvent(result=ev.input_data["query"])


async def monitor_workflow():
    workflow = Streaming()

    # Stream events in real-time
    async for event in workflow.stream_events():
        print(f"Event: {type(event).__name__}, Data: {event}")

    # Get final result
    result = await workflow.run(input_data={"query": "test"})
    return result


async def test_streaming_before_the_run_ends_by_itself_and_the_run_then_works(capsys):
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert await monitor_workflow() == "test"
    # Nothing can arrive before run() is called, so the loop prints nothing.
    assert "Event:" not in capsys.readouterr().out


async def test_streaming_beside_the_run_is_what_the_guide_means():
    workflow = Streaming()

    async def watch() -> list[str]:
        return [event.message async for event in workflow.stream_events() if isinstance(event, Progress)]

    watching = asyncio.create_task(watch())
    result = await workflow.run(input_data={"query": "test"})
    assert (await watching, result) == (["searching"], "test")
