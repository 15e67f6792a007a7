"""What stays in memory: nothing of a finished run once its handler is gone, nothing live of a released one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from durable_flow import (
    Context,
    Event,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowTimeoutError,
    step,
)
from durable_flow.engine.attachment import Attachment
from durable_flow.engine.execution import Execution
from durable_flow.engine.run import Run

from .conftest import Log
from .flows import Answer, Asking, Question, question, released, streamed, time_stands_still

RUN_OBJECTS = (Run, Execution, Attachment)


class Item(Event):
    n: int


class Value(Event):
    """A value for the context that weak references can point to."""

    text: str = "x"


class Busy(Workflow):
    """Uses most of what a run can use, then ends in a way of its choice."""

    def __init__(self, how: str = "completed", **kwargs: Any):
        super().__init__(**kwargs)
        self.how = how
        self.watched: list[weakref.ref[Any]] = []
        self.hanging = asyncio.Event()

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> list[Item]:
        value = Value()
        ctx.data["value"] = value
        ctx.data["list"] = [1]
        self.watched += [weakref.ref(value), weakref.ref(ev), weakref.ref(ctx)]
        ctx.write_event_to_stream(Item(n=0))
        await ctx.call("nothing", lambda: None)
        await ctx.sleep(0)
        await ctx.checkpoint("here")
        return [Item(n=n) for n in range(3)]

    @step
    async def work(self, ctx: Context, ev: Item) -> StopEvent | None:
        self.watched.append(weakref.ref(ev))
        ctx.data["list"].append(ev.n)
        if not ctx.collect_events(ev, [Item] * 3):
            return None
        if self.how == "failed":
            raise ValueError("as told")
        if self.how in ("timed out", "cancelled"):
            self.hanging.set()
            await asyncio.Event().wait()
        return StopEvent(result="done")


@pytest.fixture(autouse=True)
def _before() -> Iterator[None]:
    """Other tests may have left something: what was there before does not count."""
    gc.collect()
    _there.update(id(found) for found in gc.get_objects() if isinstance(found, RUN_OBJECTS))
    yield
    _there.clear()


_there: set[int] = set()


async def left_of(*types: type) -> list[object]:
    """Return the objects of these types that this test has left behind, after a while in which they may unwind."""
    left: list[object] = []
    for _ in range(100):
        left.clear()
        gc.collect()
        left += [found for found in gc.get_objects() if isinstance(found, types) and id(found) not in _there]
        if not left:
            break
        await asyncio.sleep(0.01)
    return left


@pytest.mark.parametrize("how", ["completed", "failed", "timed out", "cancelled"])
async def test_a_finished_run_leaves_nothing_once_its_handler_is_gone(journal: Journal, how: str) -> None:
    flow = Busy(how, journal=journal, timeout=0.2 if how == "timed out" else 60)
    handler = flow.run(run_id="r")
    with time_stands_still():
        if how in ("timed out", "cancelled"):
            await flow.hanging.wait()
    if how == "cancelled":
        await handler.cancel_run()
    with contextlib.suppress(ValueError, WorkflowTimeoutError, WorkflowCancelledByUser):
        await handler
    await streamed(handler)
    watched = [weakref.ref(handler), weakref.ref(handler.ctx), weakref.ref(handler._attachment), *flow.watched]
    assert len(flow.watched) == 6
    del handler
    assert await left_of(*RUN_OBJECTS) == []
    assert [ref() for ref in watched if ref() is not None] == []


async def test_a_finished_run_leaves_nothing_although_nobody_awaited_it(journal: Journal) -> None:
    flow = Busy(journal=journal)
    flow.run(run_id="r")
    assert await (await flow.resume("r") if await begun(journal, "r") else flow.run(run_id="r")) == "done"
    assert await left_of(*RUN_OBJECTS) == []


async def begun(journal: Journal, run_id: str) -> bool:
    return any(info.run_id == run_id for info in await journal.runs())


async def test_an_answered_run_leaves_nothing(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    handler.ctx.send_event(Answer(text="yes"))
    await handler
    del handler
    assert await left_of(*RUN_OBJECTS) == []


async def test_a_run_id_that_was_refused_leaves_nothing(journal: Journal) -> None:
    flow = Asking(journal=journal)
    first = flow.run(run_id="r")
    await question(first)
    with pytest.raises(Exception, match="other arguments"):
        await flow.run(run_id="r", other=1)
    await first.send_event(Answer(text="yes"))
    await first
    del first
    assert await left_of(*RUN_OBJECTS) == []
    assert engine_tables(flow) == []


async def test_many_runs_leave_the_engine_as_it_was(memory: Journal) -> None:
    flow = Busy(journal=memory)
    for n in range(3):
        await asyncio.gather(*(flow.run(run_id=f"r{n}-{i}") for i in range(20)))
    assert await left_of(*RUN_OBJECTS) == []
    assert engine_tables(flow) == []


def engine_tables(flow: Workflow) -> list[str]:
    """Return the names of what the engine still keeps by run."""
    engine = flow._durable_engine()
    names = ("runs", "taking", "sending", "_attachments", "_watcher", "starting", "_suspended")
    return [name for name in names if getattr(engine, name)]


async def test_messages_to_a_run_that_is_not_live_leave_nothing(new_journal: Callable[..., Journal], log: Log) -> None:
    async with new_journal(idle_release_seconds=0.01) as journal:
        flow = Asking(journal=journal)
        handler = flow.run(run_id="r")
        await question(handler)
        await log.seen("run_released")
        handler.ctx.send_event(Answer(text="yes"))
        assert await handler == "yes"
        del handler
        await asyncio.sleep(0)
        assert engine_tables(flow) == []


async def test_a_run_that_was_released_while_idle_is_not_in_memory(
    new_journal: Callable[..., Journal], log: Log
) -> None:
    class Keeps(Asking):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.watched: list[weakref.ref[Any]] = []

        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> Question:
            value = Value()
            self.watched.append(weakref.ref(value))
            ctx.data["value"] = value
            return Question(text="?")

    async with new_journal(idle_release_seconds=0.01) as journal:
        flow = Keeps(journal=journal)
        handler = flow.run(run_id="r")
        waiting = asyncio.ensure_future(handler)
        await question(handler)
        await log.seen("run_released")
        assert await left_of(Run, Execution) == []
        assert [ref() for ref in flow.watched] == [None]
        await handler.send_event(Answer(text="yes"))
        assert await waiting == "yes"


async def test_a_run_released_by_its_caller_is_not_in_memory(journal: Journal) -> None:
    class Hangs(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.begun = asyncio.Event()

        @step
        async def hang(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.begun.set()
            await asyncio.Event().wait()
            return StopEvent()

    flow = Hangs()
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await released(handler)
    for _ in range(5):  # the step's task unwinds
        assert await left_of(Run, Execution) == []
    assert not handler.is_done()
