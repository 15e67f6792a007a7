"""`durable_flow.testing.WorkflowTestRunner`."""

from __future__ import annotations

import pytest

from durable_flow import Context, Event, Journal, StartEvent, StepStateChanged, StopEvent, Workflow, step
from durable_flow.testing import WorkflowTestRunner

from .flows import Order, Packed, Shop


class Progress(Event):
    n: int


class Counts(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(3):
            ctx.write_event_to_stream(Progress(n=n))
        await ctx.set("done", True)
        return StopEvent(result="counted")


async def test_it_gives_stream_counts_result_and_context(journal: Journal) -> None:
    result = await WorkflowTestRunner(Counts(journal=journal)).run()
    assert [type(event) for event in result.collected] == [
        StepStateChanged, Progress, Progress, Progress, StepStateChanged, StopEvent,
    ]  # fmt: skip
    assert result.event_types == {StepStateChanged: 2, Progress: 3, StopEvent: 1}
    assert result.result == "counted"
    assert await result.ctx.get("done") is True


async def test_internal_events_and_chosen_classes_are_left_out(memory: Journal) -> None:
    runner = WorkflowTestRunner(Counts(journal=memory))
    plain = await runner.run(expose_internal=False)
    assert plain.event_types == {Progress: 3, StopEvent: 1}
    some = await runner.run(exclude_events=[StepStateChanged, StopEvent])
    assert some.collected == [Progress(n=0), Progress(n=1), Progress(n=2)]


async def test_the_start_event_is_given_whole(memory: Journal) -> None:
    result = await WorkflowTestRunner(Shop(journal=memory)).run(Order(item="lamp", count=2), expose_internal=False)
    assert result.collected == [Packed(item="shipping 2 lamp"), StopEvent(result="shipped 2 lamp")]


async def test_the_runs_error_is_raised(memory: Journal) -> None:
    with pytest.raises(LookupError, match="none left"):
        await WorkflowTestRunner(Shop(journal=memory, fail=LookupError("none left"))).run(Order(item="lamp"))
