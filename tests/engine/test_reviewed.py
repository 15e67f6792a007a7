"""Programs that once went wrong."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

import durable_flow.events
from durable_flow import (
    Context,
    ContextStateError,
    Event,
    Journal,
    NeedsAttentionError,
    StartEvent,
    StopEvent,
    UnknownEvent,
    Workflow,
    step,
)
from durable_flow.events import find_event_class

from .flows import released


async def test_a_called_function_may_have_parameters_named_name_and_fn(journal: Journal) -> None:
    class Calls(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ctx.call("make", dict, name="n", fn="f"))

    assert await Calls(journal=journal).run() == {"name": "n", "fn": "f"}


async def test_a_strand_may_sleep_while_another_one_of_its_step_holds_the_lock(journal: Journal) -> None:
    class Strands(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            held, slept = asyncio.Event(), asyncio.Event()

            async def holds() -> None:
                async with ctx.lock:
                    held.set()
                    await slept.wait()

            async def sleeps() -> None:
                await held.wait()
                await ctx.sleep(0.001)
                slept.set()

            await asyncio.gather(holds(), sleeps())
            return StopEvent(result="done")

    assert await Strands(journal=journal).run() == "done"


async def test_a_strand_that_was_begun_inside_the_lock_may_not_sleep(journal: Journal) -> None:
    class Strands(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async with ctx.lock:
                with pytest.raises(ContextStateError, match=r"ctx\.lock"):
                    await asyncio.gather(ctx.sleep(0.001))
            return StopEvent(result="done")

    assert await Strands(journal=journal).run() == "done"


async def _stop_before_work(journal: Journal, mid: Any) -> None:
    """Leave run r of workflow Changing unfinished, with its step `work` pending."""
    reached = asyncio.Event()

    class Before(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> mid:
            return mid(x=1)

        @step
        async def work(self, ev: mid) -> StopEvent:
            reached.set()
            await asyncio.Event().wait()
            return StopEvent()

    handler = Before(journal=journal, workflow_name="Changing").run(run_id="r")
    await reached.wait()
    await released(handler)


async def test_pending_work_with_an_event_whose_class_is_gone_needs_attention(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Event):
        event_name: ClassVar[str] = "ReviewedGone"
        x: int

    class Renamed(Event):
        x: int

    class After(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Renamed:
            return Renamed(x=1)

        @step
        async def work(self, ev: Renamed) -> StopEvent:
            return StopEvent(result=type(ev).__name__)

    await _stop_before_work(journal, Gone)
    monkeypatch.delitem(durable_flow.events._classes, "ReviewedGone")
    handler = await After(journal=journal, workflow_name="Changing").resume("r")
    with pytest.raises(NeedsAttentionError, match=r"'work'.*'ReviewedGone'.*flow\.resume\('r'\)"):
        await handler
    assert (await journal.state("r")).tasks[0].attempt == 1


async def test_an_event_that_its_class_cannot_take_any_more_is_shown_raw(journal: Journal) -> None:
    class Loose(Event):
        event_name: ClassVar[str] = "ReviewedStrict"
        x: int

    await _stop_before_work(journal, Loose)

    class Strict(Event):
        event_name: ClassVar[str] = "ReviewedStrict"
        x: int
        needed: str

    shown = (await journal.state("r")).tasks[0].event
    assert type(shown) is UnknownEvent
    assert (shown.name, b'"x":1' in shown.raw) == ("ReviewedStrict", True)
    assert find_event_class("ReviewedStrict") is Strict
