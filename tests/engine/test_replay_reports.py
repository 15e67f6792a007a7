"""Steps that misbehave in a replay, and what the text of a report says about them and about others."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from durable_flow import Context, Divergence, Journal, StopEvent, Workflow, step
from durable_flow.engine.replaying.report import NOTHING

from .test_replay import RpItem, RpLeaf, RpStart, only
from .test_replay_options import RoCode, RoStep


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class RoOne(Workflow):
    """One step with one call; `body` is what changes."""

    def __init__(self, body: Callable[[Context], Any] | None = None, **kwargs: Any):
        super().__init__(**{"workflow_name": "RoOne", **kwargs})
        self.body = body

    @step
    async def one(self, ctx: Context, ev: RpStart) -> StopEvent:
        got = await ctx.call("fetch", lambda: "a" * 1000)
        return StopEvent(result=got if self.body is None else await self.body(ctx))


async def replayed(memory: Journal, body: Callable[[Context], Any]) -> Divergence:
    """Return the only thing that a changed body does otherwise."""
    await RoOne(journal=memory).run(run_id="r")
    return only(await RoOne(body, journal=memory).replay("r"))


async def test_a_step_that_ends_the_process_or_its_task_has_not_done_what_is_recorded(memory: Journal) -> None:
    async def leaves(ctx: Context) -> None:
        sys.exit(3)

    async def cancels(ctx: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    found = await replayed(memory, leaves)
    assert (found.kind, found.what) == ("error", "builtins.SystemExit: 3")
    found = only(await RoOne(cancels, journal=memory).replay("r"))
    assert (found.kind, found.what) == ("error", "it cancelled its own task")


@pytest.mark.parametrize("how", ["wait", "gather"])
async def test_strands_of_a_step_that_is_stopped_end_quietly(memory: Journal, how: str) -> None:
    async def branches(ctx: Context) -> None:
        effects = [ctx.wait_for_event(RoStep), ctx.call("a", int), ctx.call("b", int), ctx.call("c", int)]
        tasks = [asyncio.create_task(each) for each in effects]
        if how == "wait":
            await asyncio.wait(tasks)
        else:
            await asyncio.gather(*tasks)

    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    before = asyncio.all_tasks()
    found = await replayed(memory, branches)
    assert found.kind == "wait"
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=5)
    del left
    gc.collect()
    assert not errors, errors


async def test_arguments_without_a_repr_do_not_become_the_steps_error(memory: Journal) -> None:
    async def calls(ctx: Context) -> None:
        await ctx.call("other", lambda _: 1, NoRepr())

    found = await replayed(memory, calls)
    assert (found.kind, found.what) == ("call", "other")
    assert "NoRepr; its repr() raised RuntimeError" in found.new


async def test_the_text_of_a_report_is_short_and_shows_where_long_values_differ(memory: Journal) -> None:
    async def another(ctx: Context) -> str:
        return "a" * 700 + "b" + "a" * 299

    async def raises(ctx: Context) -> None:
        raise ValueError("x" * 5000)

    text = str(await replayed(memory, another))
    recorded, new = (next(line for line in text.splitlines() if name in line) for name in ("recorded:", "new:"))
    assert "b" in new.removeprefix("  new:")
    assert "b" not in recorded
    assert max(map(len, text.splitlines())) < 400
    assert "(1,002 characters)" in new
    report = await RoOne(raises, journal=memory).replay("r")
    assert max(map(len, str(report).splitlines())) < 500
    assert len(only(report).what) > 5000  # the report itself keeps it whole


async def test_differences_in_a_stream_come_in_its_order(memory: Journal) -> None:
    class Says(Workflow):
        text = "abc"

        @step
        async def one(self, ctx: Context, ev: RpStart) -> StopEvent:
            for text in self.text:
                ctx.write_event_to_stream(RpItem(text=text))
            return StopEvent()

    flow = Says(journal=memory)
    await flow.run(run_id="r")
    flow.text = "abXd"
    first, second = (await flow.replay("r")).divergences
    assert (first.what, first.recorded, first.new) == ("RpItem.text", "c", "X")
    assert (second.what, second.recorded, second.new) == ("RpItem", NOTHING, RpItem(text="d"))


async def test_what_has_no_answer_says_why(memory: Journal) -> None:
    async def calls(ctx: Context) -> None:
        await ctx.call("other", int)

    async def starts(ctx: Context) -> None:
        await RpLeaf().run(n=1)

    assert "either it did not make it, or its function raised then" in (await replayed(memory, calls)).note
    found = only(await RoOne(starts, journal=memory).replay("r"))
    assert "the run did not start this one" in found.note
    assert "function" not in found.note


@pytest.mark.parametrize("name", ["skip", "live", "ignore"])
@pytest.mark.parametrize("given", [None, 1, [1], (name for name in ("one",))])
async def test_what_are_no_names_is_refused_before_a_step_runs(memory: Journal, name: str, given: Any) -> None:
    await RoCode(journal=memory).run(run_id="r")
    flow = RoCode(journal=memory)
    with pytest.raises(TypeError, match=rf"replay\({name}=\.\.\.\) takes a tuple, list or set of names"):
        await flow.replay("r", **{name: given})
    assert flow.ran == []
