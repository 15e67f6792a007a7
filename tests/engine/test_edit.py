"""Edits in place: the context of a run that nobody has is changed by a record, or nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import pytest
from pydantic import BaseModel, model_validator

from durable_flow import (
    Context,
    Journal,
    RunConflictError,
    RunFinishedError,
    RunNotFoundError,
    SerializationError,
    StartEvent,
    StateEditError,
    StepDivergedError,
    StopEvent,
    Workflow,
    WorkflowTimeoutError,
    step,
)
from durable_flow.errors import NeedsAttentionError
from durable_flow.journal.editing import edit
from durable_flow.records import ContextSet, RunClaimed, StateEdited

from .flows import Answer, Asking, question, released, until
from .test_checkpoints import Sums


class Needs(Workflow):
    """Fails as long as the context has no key."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "Needs", **kwargs})
        self.ran: list[str] = []

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Answer:
        self.ran.append("first")
        return Answer(text="go")

    @step
    async def use(self, ctx: Context, ev: Answer) -> StopEvent:
        self.ran.append("use")
        return StopEvent(result=ctx.data["key"])


async def failed(journal: Journal, run_id: str = "r") -> Needs:
    flow = Needs(journal=journal)
    with pytest.raises(KeyError):
        await flow.run(run_id=run_id)
    flow.ran.clear()
    return flow


EDITS: dict[str, Callable[[Workflow, Journal], Any]] = {
    "flow": lambda flow, journal: flow.edit,
    "journal": lambda flow, journal: journal.edit,
}


@pytest.fixture(params=list(EDITS))
def edit_of(request: pytest.FixtureRequest) -> Callable[[Workflow, Journal], Any]:
    return EDITS[request.param]


async def test_a_failed_run_is_edited_and_retried(journal: Journal, edit_of: Callable[..., Any]) -> None:
    flow = await failed(journal)
    before = await journal.run("r")
    made = await edit_of(flow, journal)("r", set={"key": {"a": (1, 2)}}, by="kim")
    after = await journal.run("r")
    assert (after.status, after.error, after.owner) == ("failed", before.error, None)
    assert after.finished_at == before.finished_at
    last = (await journal.checkpoints("r"))[-1]
    assert (made, last.id, last.kind, last.keys_changed) == (last.id, last.id, "edit", ("key",))
    records = (await journal.history("r"))[-3:]
    assert [type(record.fact) for record in records] == [RunClaimed, StateEdited, ContextSet]
    assert [record.boundary for record in records] == [True, False, True]
    assert records[1].fact.by == "kim"
    assert await (await flow.retry("r")) == {"a": (1, 2)}
    assert flow.ran == ["use"]
    assert [(c.kind, c.by) for c in await journal.blame("r", "key")] == [("edit", "kim")]


async def test_a_run_that_needs_attention_is_edited_and_stays_so_until_it_is_resumed(
    journal: Journal, edit_of: Callable[..., Any]
) -> None:
    class Park(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Park", **kwargs)

        @step
        async def diverge(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if "key" not in ctx.data:
                raise StepDivergedError("look at it")
            return StopEvent(result=ctx.data["key"])

    flow = Park(journal=journal)
    with pytest.raises(NeedsAttentionError):
        await flow.run(run_id="r")
    error = (await journal.run("r")).error
    await edit_of(flow, journal)("r", patch=[{"op": "add", "path": "/key", "value": 7}])
    info = await journal.run("r")
    assert (info.status, info.error, info.owner) == ("needs_attention", error, None)
    assert await (await flow.resume("r")) == 7


async def test_a_run_that_waits_and_was_released_is_edited_and_still_answered(
    new_journal: Callable[..., Journal], edit_of: Callable[..., Any]
) -> None:
    async with new_journal(idle_release_seconds=0.0) as journal:
        flow = Asking(journal=journal)
        handler = flow.run(run_id="r")
        await question(handler)

        async def unowned() -> bool:
            return (await journal.run("r")).owner is None

        await until(unowned)
        await edit_of(flow, journal)("r", set={"n": 1})
        info = await journal.run("r")
        assert (info.status, info.owner, len(info.waits)) == ("waiting", None, 1)
        await journal.send("r", Answer(text="yes"))
        assert await handler == "yes"
        assert (await journal.state("r")).context == {"n": 1}


async def test_a_timed_out_run_is_edited(memory: Journal) -> None:
    class Slow(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Slow", **kwargs)

        @step
        async def slow(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if "fast" not in ctx.data:
                await asyncio.Event().wait()
            return StopEvent(result="fast")

    flow = Slow(journal=memory, timeout=0.01)
    with pytest.raises(WorkflowTimeoutError):
        await flow.run(run_id="r")
    await flow.edit("r", set={"fast": True})
    assert (await memory.run("r")).status == "timed_out"
    assert await (await flow.retry("r")) == "fast"


async def test_a_live_run_is_refused_and_told_of_fork(journal: Journal, edit_of: Callable[..., Any]) -> None:
    flow = Sums(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r")
    await until(lambda: _started(flow))
    before = await journal.history("r")
    with pytest.raises(RunConflictError, match=r"live: worker .* flow\.fork\('r', set=\.\.\.\)"):
        await edit_of(flow, journal)("r", set={"n": 0})
    assert await journal.history("r") == before
    flow.hold.set()
    await handler


async def _started(flow: Sums) -> bool:
    return "finish" in flow.ran


async def test_a_run_that_ended_for_good_is_refused(journal: Journal, edit_of: Callable[..., Any]) -> None:
    flow = Sums(journal=journal)
    await flow.run(run_id="r")
    asking = Asking(journal=journal)
    handler = asking.run(run_id="a")
    await question(handler)
    await handler.cancel_run()
    for run_id, of, status in (("r", flow, "completed"), ("a", asking, "cancelled")):
        before = await journal.history(run_id)
        with pytest.raises(RunFinishedError, match=rf"was {status}.*flow\.fork"):
            await edit_of(of, journal)(run_id, set={"n": 0})
        assert await journal.history(run_id) == before


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, StateEditError, "nothing is changed"),
    "a patch that does not apply": (
        {"patch": [{"op": "remove", "path": "/gone"}]}, StateEditError, "the patch does not apply",
    ),
    "what cannot be encoded": ({"set": {"n": object()}}, SerializationError, "^n: "),
    "a key that is no text": ({"set": {None: 1}}, SerializationError, "no context key"),
    "by nobody": ({"set": {"n": 1}, "by": None}, StateEditError, "by= says who edits as a text, not None"),
    "by with a NUL": ({"set": {"n": 1}, "by": "a\0"}, SerializationError, "NUL"),
}  # fmt: skip


@pytest.mark.parametrize("why", WRONG)
async def test_what_cannot_be_edited_leaves_no_trace(journal: Journal, edit_of: Callable[..., Any], why: str) -> None:
    options, error, said = WRONG[why]
    flow = await failed(journal)
    before, row = await journal.history("r"), await journal.run("r")
    with pytest.raises(error, match=said):
        await edit_of(flow, journal)("r", **options)
    assert (await journal.history("r"), await journal.run("r")) == (before, row)


async def test_a_typed_state_is_checked_by_the_workflow(journal: Journal) -> None:
    class State(BaseModel):
        count: int = 0

    class Typed(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(workflow_name="Typed", **kwargs)

        @step
        async def only(self, ctx: Context[State], ev: StartEvent) -> StopEvent:
            return StopEvent(result=1 // await ctx.store.get("count"))

    flow = Typed(journal=journal)
    with pytest.raises(ZeroDivisionError):
        await flow.run(run_id="r")
    before = await journal.history("r")
    for wrong in ({"other": 1}, {"count": "x"}):
        with pytest.raises(StateEditError):
            await flow.edit("r", set=wrong)
    assert await journal.history("r") == before
    await flow.edit("r", set={"count": 1})
    assert await (await flow.retry("r")) == 1


class Range(BaseModel):
    low: int = 0
    high: int = 10

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("upside down")
        return self


class Ranges(Workflow):
    def __init__(self, **kwargs: Any):
        super().__init__(workflow_name="Ranges", **kwargs)

    @step
    async def only(self, ctx: Context[Range], ev: StartEvent) -> StopEvent:
        low, high = await ctx.store.get("low"), await ctx.store.get("high")
        if high == 10:
            raise ValueError("as ever")
        return StopEvent(result=(low, high))


@pytest.mark.parametrize("values", [{"low": 20, "high": "30"}, {"high": 30, "low": 20}])
async def test_values_that_fit_together_are_taken_in_any_order(memory: Journal, values: dict[str, Any]) -> None:
    flow = Ranges(journal=memory)
    with pytest.raises(ValueError, match="as ever"):
        await flow.run(run_id="r")
    with pytest.raises(StateEditError, match=r"does not take low = 40: low: .*upside down"):
        await flow.edit("r", set={"low": 40, "high": 30})
    await flow.edit("r", set=values)
    assert await (await flow.retry("r")) == (20, 30)


async def test_unknown_runs_and_those_of_other_workflows_are_refused(journal: Journal) -> None:
    flow = await failed(journal)
    with pytest.raises(RunNotFoundError):
        await flow.edit("nobody", set={"n": 1})
    with pytest.raises(RunNotFoundError):
        await journal.edit("nobody", set={"n": 1})
    with pytest.raises(RunConflictError, match="of workflow Needs"):
        await Sums(journal=journal).edit("r", set={"n": 1})


async def test_of_two_edits_at_once_one_is_refused_or_both_are_made(journal: Journal) -> None:
    flow = await failed(journal)
    done = await asyncio.gather(*(flow.edit("r", set={f"k{n}": n}) for n in range(4)), return_exceptions=True)
    made = [n for n, result in enumerate(done) if isinstance(result, str)]
    assert made
    assert all(isinstance(result, str | RunConflictError) for result in done)
    assert (await journal.state("r")).context == {f"k{n}": n for n in made}
    assert (await journal.run("r")).owner is None


async def test_who_takes_the_run_up_meanwhile_fences_the_edit(journal: Journal) -> None:
    flow = await failed(journal)
    store = journal._shared.store
    stale = await store.find("r")
    await flow.edit("r", set={"key": "first"})
    with pytest.raises(RunConflictError, match="taken up by another worker"):
        await edit(store, stale, lambda state: [])
    assert (await journal.state("r")).context == {"key": "first"}
    assert await (await flow.retry("r")) == "first"


async def test_an_edit_leaves_the_row_of_a_released_run_as_it_was(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="a")
    await question(handler)
    await released(handler)

    async def unowned() -> bool:
        return (await journal.run("a")).owner is None

    await until(unowned)
    before = await journal.run("a")
    await journal.edit("a", set={"n": 1})
    after = await journal.run("a")
    assert (after.status, after.wake_at, after.created_at) == (before.status, before.wake_at, before.created_at)
