"""Callbacks that hang or want more of their context than there is, and small changes of checkpoints."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import Field, ValidationError

from durable_flow import (
    Checkpoint,
    Context,
    ContextStateError,
    Event,
    Journal,
    JsonSerializer,
    PickleSerializer,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowCheckpointer,
    WorkflowTimeoutError,
    step,
)
from durable_flow.records import StateEdited, WaitAnswered

from .conftest import Log
from .flows import Answer, Asking, question, records_of, until


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
    await Counting(journal=journal).run()  # connected
    handler = Counting(journal=journal, timeout=0.3).run(checkpoint_callback=hanging)
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


# -- The context of a callback -----------------------------------------------------------------------------------------


async def test_what_is_no_use_in_a_callback_says_what_to_use(memory: Journal) -> None:
    said: dict[str, str] = {}
    seen: list[tuple[str | None, str, bool]] = []

    async def tries(last_completed_step: str | None, ctx: Context[Any], **_: Any) -> None:
        seen.append((last_completed_step, ctx.run_id, ctx.is_running))

        async def stream() -> None:
            async for _ in ctx.stream_events():
                pass

        async def publish() -> None:
            ctx.write_event_to_stream(Counted(n=2))

        async def run() -> None:
            await flow.run(ctx=ctx)

        async def result() -> None:
            ctx.get_result()

        for name, method in {
            "call": lambda: ctx.call("x", lambda: 1),
            "wait_for_event": lambda: ctx.wait_for_event(Counted),
            "write_event_to_stream": publish,
            "stream_events": stream,
            "running_steps": ctx.running_steps,
            "get_result": result,
            "run": run,
        }.items():
            with pytest.raises(ContextStateError, match="shows run r as it was at r/") as raised:
                await method()
            said[name] = str(raised.value)

    flow = Counting(journal=memory)
    await flow.run(run_id="r", checkpoint_callback=tries)
    assert seen == [("count", "r", True), ("show", "r", False)]
    for name, text in said.items():
        assert ("Context.from_dict" if name == "run" else "handler") in text
    assert [run.run_id for run in await memory.runs()] == ["r"]


async def test_a_run_may_begin_with_a_copy_of_the_context_of_a_callback(memory: Journal) -> None:
    results: list[Any] = []

    async def branches(last_completed_step: str | None, ctx: Context[Any], **_: Any) -> None:
        copy: Context[Any] = Context.from_dict(flow, ctx.to_dict())
        copy.data["n"] = last_completed_step
        handler = flow.run(ctx=copy)
        results.append(await handler)
        handler.ctx.data["n"] = "written"
        results.append(handler.ctx.data["n"])

    flow = Counting(journal=memory)
    await flow.run(checkpoint_callback=branches)
    # From the first one it goes on; after the end it starts anew.
    assert results == [["1", "'count'", "{'n': [1]}"], "written", ["1", "1", "{'n': [1]}"], "written"]


# -- Small changes -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["journal's", "elsewhere"])
def where(request: pytest.FixtureRequest) -> str:
    """Whether the journal has the checkpoint's run."""
    return str(request.param)


@pytest.mark.parametrize("serializer", [JsonSerializer(), PickleSerializer(key="k")], ids=["json", "pickle"])
async def test_a_change_to_something_equal_of_another_type_is_a_change(where: str, serializer: Any) -> None:
    """1, 1.0 and True are equal in Python, and not the same to the program that asked for the change."""
    async with Journal("memory://", serializer=serializer) as journal:
        flow = Counting(journal=journal)
        ckptr = WorkflowCheckpointer(flow)
        handler = ckptr.run()
        await handler
        recorded = ckptr.checkpoints[handler.run_id][0]
        async with Journal("memory://", serializer=serializer) as other:
            if where == "elsewhere":
                ckptr.workflow = Counting(journal=other)

            async def result(output_event: Event | None = None, **values: Any) -> Any:
                checkpoint: Checkpoint = recorded.model_copy()
                if output_event is not None:
                    checkpoint.output_event = output_event
                ctx: Context[Any] = Context.from_dict(ckptr.workflow, checkpoint.ctx_state or {})
                ctx.data.update(values)
                checkpoint.ctx_state = ctx.to_dict()
                handler = ckptr.run_from(checkpoint)
                result = await handler
                edits = await records_of(other if where == "elsewhere" else journal, handler.run_id, StateEdited)
                assert len(edits) == bool(values)
                return result

            assert await result() == ["1", "1", "{'n': [1]}"]
            assert await result(n=True) == ["1", "True", "{'n': [1]}"]
            assert await result(n=1.0) == ["1", "1.0", "{'n': [1]}"]
            assert await result(deep={"n": [True]}) == ["1", "1", "{'n': [True]}"]
            assert await result(Counted(n=True)) == ["True", "1", "{'n': [1]}"]
            assert await result(Counted(n=1.0), n=True) == ["1.0", "True", "{'n': [1]}"]


# -- Order -------------------------------------------------------------------------------------------------------------


async def test_a_run_that_waits_is_not_released_before_its_callback_is_over(
    new_journal: Callable[..., Journal],
) -> None:
    """Else who takes it up would start what follows, and call back for that, while the callback is still under way."""
    hold, called = asyncio.Event(), asyncio.Event()
    calls: list[tuple[str | None, str]] = []

    async def slow(last_completed_step: str | None, **_: Any) -> None:
        calls.append((last_completed_step, "begins"))
        called.set()
        await hold.wait()
        calls.append((last_completed_step, "ends"))

    async with new_journal(idle_release_seconds=0.0) as journal:
        handler = Asking(journal=journal).run(checkpoint_callback=slow)
        asked = await question(handler)
        await called.wait()
        waiting = asyncio.ensure_future(handler._result())
        await handler.send_event(Answer(text="yes"), wait_id=asked.wait_id)
        await until(lambda: _is_recorded(journal, handler.run_id))
        assert calls == [("ask", "begins")]
        hold.set()
        await waiting
    assert calls == [(name, what) for name in ("ask", "answered") for what in ("begins", "ends")]


async def _is_recorded(journal: Journal, run_id: str) -> bool:
    return bool(await records_of(journal, run_id, WaitAnswered))


async def test_what_comes_in_order_is_kept_without_looking_at_all_of_it(memory: Journal) -> None:
    class Kept(list[Checkpoint]):
        def __iter__(self) -> Iterator[Checkpoint]:
            raise AssertionError("all of them were looked at")

    ckptr = WorkflowCheckpointer(Counting(journal=memory))
    ckptr.checkpoints["r"] = Kept()
    await ckptr.run(run_id="r")
    assert [ckptr.checkpoints["r"][n].last_completed_step for n in range(2)] == ["count", "show"]


# -- As a pydantic model -----------------------------------------------------------------------------------------------


async def test_pydantics_own_ways_to_write_a_checkpoint_keep_its_events(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(Counting(journal=memory))
    handler = ckptr.run()
    await handler
    first = ckptr.checkpoints[handler.run_id][0]
    first.output_event = Counted(n=(1, 2), also=7)  # type: ignore[call-arg]
    for kept in (
        Checkpoint.model_validate_json(first.model_dump_json()),
        Checkpoint.model_validate(json.loads(json.dumps(first.model_dump(mode="json")))),
        Checkpoint.model_validate(first.model_dump()),
    ):
        assert kept == first
        assert await ckptr.run_from(kept) == ["(1, 2)", "1", "{'n': [1]}"]


def test_an_event_without_its_class_is_refused() -> None:
    """As an Event of no class it would go to nobody, and the run would wait for ever."""
    with pytest.raises(ValidationError, match="an Event, or what model_dump"):
        Checkpoint(output_event={"n": 1})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="cannot be read"):
        Checkpoint.model_validate({"output_event": {"EncodedEvent": [1]}})
    assert Checkpoint(input_event=None).model_dump_json().startswith('{"id_":')


# -- Evolution ---------------------------------------------------------------------------------------------------------


def parts_flow(*, grown: bool, journal: Journal) -> Workflow:
    """Return a workflow of lists; a grown one has events with a field more, whose default is another one each time."""

    class GrownPart(Event):
        n: int
        if grown:
            id: str = Field(default_factory=lambda: uuid4().hex)

    class GrownDone(Event):
        n: int

    class Parts(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[GrownPart]:
            return [GrownPart(n=1), GrownPart(n=2)]

        @step
        async def work(self, ev: GrownPart) -> GrownDone:
            return GrownDone(n=ev.n * 10)

        @step
        async def join(self, evs: list[GrownDone]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    return Parts(journal=journal, workflow_name="Parts", timeout=5)


async def test_a_field_that_events_have_gained_since_is_no_change_of_a_checkpoint(memory: Journal) -> None:
    ckptr = WorkflowCheckpointer(parts_flow(grown=False, journal=memory))
    handler = ckptr.run()
    assert await handler == [10, 20]
    data = json.loads(json.dumps(ckptr.checkpoints[handler.run_id][0].to_dict()))
    flow = parts_flow(grown=True, journal=memory)
    later = WorkflowCheckpointer(flow)
    loaded = (await later.load(handler.run_id))[0]
    listed = next(c for c in await memory.checkpoints(handler.run_id) if c.last_completed_step)
    again = Checkpoint.from_dict(json.loads(json.dumps(Checkpoint.from_dict(data).to_dict())))
    for checkpoint in (loaded, listed, Checkpoint.from_dict(data), again, copy.deepcopy(loaded)):
        assert await flow.run_from(checkpoint) == [10, 20]
    async with Journal("memory://") as other:
        assert await type(flow)(journal=other, workflow_name="Parts").run_from(again) == [10, 20]
    # A change is one all the same, in place too.
    again.output_event.n = 5  # type: ignore[union-attr]
    assert await flow.run_from(again) == [50]
