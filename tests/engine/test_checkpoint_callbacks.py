"""Callbacks that hang, look where nothing is to be seen, or want more of their context; small changes of checkpoints."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_flow import (
    Checkpoint,
    Context,
    ContextStateError,
    Event,
    Journal,
    PickleSerializer,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowCheckpointer,
    WorkflowTimeoutError,
    step,
)
from durable_flow.records import StateEdited

from .conftest import Log
from .flows import records_of
from .jokes import Jokes


class Counted(Event):
    n: Any


class Counting(Workflow):
    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "Counting", **kwargs})

    @step
    async def count(self, ctx: Context, ev: StartEvent) -> Counted:
        ctx.data["n"] = 1
        ctx.data["deep"] = {"n": [1]}
        return Counted(n=1)

    @step
    async def show(self, ctx: Context, ev: Counted) -> StopEvent:
        return StopEvent(result=[repr(ev.n), repr(ctx.data["n"]), repr(ctx.data["deep"])])


# -- What hangs --------------------------------------------------------------------------------------------------------


class Hanging:
    """A callback that never ends by itself."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.ended: list[str | None] = []

    async def __call__(self, last_completed_step: str | None, **_: Any) -> None:
        self.called.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(last_completed_step)


async def test_a_callback_that_hangs_is_cut_short_by_the_timeout(journal: Journal) -> None:
    hanging = Hanging()
    handler = Counting(journal=journal, timeout=0.05).run(checkpoint_callback=hanging)
    with pytest.raises(WorkflowTimeoutError, match=r"No steps active\. The checkpoint_callback of step 'count' was"):
        await handler
    assert hanging.ended == ["count"]
    assert (await journal.run(handler.run_id)).status == "timed_out"


async def test_a_callback_that_hangs_is_cut_short_by_the_cancelling_of_its_run(journal: Journal) -> None:
    hanging = Hanging()
    handler = Counting(journal=journal).run(checkpoint_callback=hanging)
    await hanging.called.wait()
    await handler.cancel_run(timeout=None)
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert hanging.ended == ["count"]


async def test_a_callback_that_waits_for_the_end_of_its_own_run_waits_until_the_timeout(journal: Journal) -> None:
    async def waits(**_: Any) -> None:
        await handler

    handler = Counting(journal=journal, timeout=0.05).run(checkpoint_callback=waits)
    with pytest.raises(WorkflowTimeoutError):
        await handler


async def test_what_a_callback_raises_when_it_is_cut_short_is_logged(memory: Journal, log: Log) -> None:
    called = asyncio.Event()

    async def complains(**_: Any) -> None:
        called.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("half a file")

    handler = Counting(journal=memory).run(checkpoint_callback=complains)
    await called.wait()
    await handler.cancel_run(timeout=None)
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    [logged] = log.of("checkpoint_callback_failed")
    assert logged.run_id == handler.run_id  # type: ignore[attr-defined]


async def test_what_had_completed_when_a_run_was_cancelled_is_kept(journal: Journal) -> None:
    """A callback that need not wait for anything is called for all that is recorded."""
    ckptr = WorkflowCheckpointer(Counting(journal=journal))
    keep = ckptr.new_checkpoint_callback_for_run()

    async def cancels(**completion: Any) -> None:
        await handler.cancel_run(timeout=0)

    handler = ckptr.workflow.run(run_id="r", checkpoint_callback=keep)
    ckptr.workflow.run(run_id="r", checkpoint_callback=cancels)
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert [c.last_completed_step for c in ckptr.checkpoints["r"]] == ["count"]
