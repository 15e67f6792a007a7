"""A Context that belongs to no run: its values, the run that begins with them, and the next one after that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    Context,
    ContextStateError,
    Event,
    Journal,
    RunConflictError,
    SerializationError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from durable_flow.context import DictState, StateStore
from durable_flow.records import ContextDeleted, ContextSet, EventEmitted, RunStarted

from .flows import Answer, Asking, in_another_loop, question, released


class Turn(Workflow):
    """One turn of a talk: what was said before is in the context."""

    def __init__(self, journal: Journal | str, **kwargs: Any):
        super().__init__(journal=journal, workflow_name="Turn", **kwargs)
        self.fail = False
        self.hold: asyncio.Event | None = None
        self.entered = asyncio.Event()

    @step
    async def answer(self, ctx: Context, ev: StartEvent) -> StopEvent:
        said = ctx.data.setdefault("said", [])
        said.append(ev.get("say", "nothing"))
        self.entered.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fail:
            raise ValueError("no answer")
        return StopEvent(result=list(said))


class Settings(BaseModel):
    city: str = "Rome"
    days: int = 3


class Typed(Workflow):
    @step
    async def go(self, ctx: Context[Settings], ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            state.days += 1
        return StopEvent(result=(await ctx.store.get_state()).model_dump())


# -- No run, no journal, no loop ---------------------------------------------------------------------------------------


def test_it_needs_no_loop_and_opens_nothing(tmp_path: Any):
    ctx = Context(Turn(f"sqlite:///{tmp_path}/never.db"))
    ctx.data["city"] = "Rome"
    ctx.data |= {"days": [1]}
    ctx.update({"n": 1})
    ctx.data["days"].append(2)
    assert dict(ctx.data) == {"city": "Rome", "days": [1, 2], "n": 1}
    assert json.loads(json.dumps(ctx.data)) == {"city": "Rome", "days": [1, 2], "n": 1}
    del ctx.data["n"]
    ctx.clear()
    assert dict(ctx.data) == {}
    assert not ctx.is_running
    assert list(tmp_path.iterdir()) == []


async def test_every_way_to_the_state_works(memory: Journal):
    ctx = Context(Turn(memory))
    await ctx.set("a.b", 1)
    await ctx.store.set("user.name", "Ann")
    assert await ctx.get("a.b") == 1
    assert await ctx.get("none", default=None) is None
    assert await ctx.store.get("user.name") == "Ann"
    async with ctx.store.edit_state() as state:
        state["x"] = 1
        with pytest.raises(WorkflowRuntimeError, match="inside edit_state"):
            await ctx.store.set("y", 1)
    assert isinstance(await ctx.store.get_state(), DictState)
    async with ctx.lock:
        await ctx.set("locked", ctx.lock.locked())
    assert dict(ctx.data) == {"a.b": 1, "user": {"name": "Ann"}, "x": 1, "locked": True}
    assert isinstance(ctx.store, StateStore)
    with pytest.raises(ValueError, match="Key 'gone' not found"):
        await ctx.get("gone")
    with pytest.raises(KeyError):
        ctx.data["gone"]


async def test_an_edit_that_fails_leaves_nothing(memory: Journal):
    ctx = Context(Turn(memory))
    ctx.data["xs"] = [1]

    async def edit() -> None:
        async with ctx.store.edit_state() as state:
            state["xs"].append(2)
            raise LookupError

    with pytest.raises(LookupError):
        await edit()
    assert ctx.data["xs"] == [1]


async def test_what_cannot_be_stored_is_refused_where_it_is_written(memory: Journal):
    ctx = Context(Turn(memory))
    with pytest.raises(SerializationError, match="bad"):
        ctx.data["bad"] = object()
    with pytest.raises(SerializationError, match="NUL"):
        ctx.data["a\0b"] = 1
    assert dict(ctx.data) == {}


async def test_a_typed_state_has_its_defaults(memory: Journal):
    flow = Typed(journal=memory)
    ctx = Context[Settings](flow)
    assert await ctx.store.get_state() == Settings()
    await ctx.store.set("days", 7)
    with pytest.raises(ValueError, match="no field 'none'"):
        await ctx.store.set("none", 1)
    assert await flow.run(ctx=ctx) == {"city": "Rome", "days": 8}
    assert (await ctx.store.get_state()).days == 8


@pytest.mark.parametrize("workflow", [None, "flow", Turn, object()], ids=["None", "text", "class", "object"])
def test_it_is_the_context_of_a_workflow(workflow: Any):
    with pytest.raises(WorkflowRuntimeError, match="takes an instance of a Workflow"):
        Context(workflow)


def test_a_graph_that_does_not_fit_together_does_not_matter_yet():
    class Odd(Workflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def never(self, ctx: Context, ev: Unused) -> StopEvent:
            return StopEvent()

    assert dict(Context(Odd()).data) == {}


class Unused(Event):
    pass


# -- A run that begins with it -----------------------------------------------------------------------------------------


async def test_a_run_begins_with_its_values(journal: Journal):
    flow = Turn(journal)
    ctx = Context(flow)
    ctx.data["said"] = ["hello"]
    ctx.data["n"] = 1
    handler = flow.run(ctx=ctx, say="good bye", run_id="r")
    assert handler.ctx is ctx
    assert ctx.is_running
    assert await handler == ["hello", "good bye"]
    assert not ctx.is_running
    first = (await journal.history("r"))[:4]
    kinds = [type(record.fact) for record in first]
    assert kinds == [RunStarted, ContextSet, ContextSet, EventEmitted]
    assert [record.boundary for record in first] == [False, False, False, True]
    written = [record.fact for record in first if isinstance(record.fact, ContextSet)]
    assert [(fact.key, fact.task) for fact in written] == [("said", None), ("n", None)]
    assert (await journal.state("r")).context == {"said": ["hello", "good bye"], "n": 1}


async def test_the_objects_stay_the_same_ones(journal: Journal):
    class Counts(Turn):
        @step
        async def answer(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["said"].append(ev.get("say"))
            ctx.data["turns"] = ctx.data.get("turns", 0) + 1
            return StopEvent()

    flow = Counts(journal)
    ctx = Context(flow)
    said = ctx.data["said"] = ["hello"]
    view = ctx.data
    await flow.run(ctx=ctx, say="again")
    assert said == ["hello", "again"]
    assert ctx.data["said"] is said
    assert view["said"] is said
    assert json.dumps(view) == '{"said": ["hello", "again"], "turns": 1}'
    await flow.run(ctx=ctx, say="and again")
    assert json.dumps(view) == '{"said": ["hello", "again", "and again"], "turns": 2}'
    view["said"] = ["new"]
    del view["turns"]
    assert json.dumps(view) == json.dumps(ctx.data) == '{"said": ["new"]}'


async def test_changes_in_place_before_the_run_are_in_its_journal(journal: Journal):
    flow = Turn(journal)
    ctx = Context(flow)
    ctx.data["said"] = []
    ctx.data["said"].append("hello")
    await flow.run(ctx=ctx, run_id="r")
    assert (await journal.state("r", at=3)).context == {"said": ["hello"]}


async def test_what_is_written_before_the_run_is_there_is_journaled_too(journal: Journal):
    flow = Turn(journal)
    flow.hold = asyncio.Event()
    ctx = Context(flow)
    ctx.data["a"] = [1]
    ctx.data["gone"] = 1
    handler = flow.run(ctx=ctx, run_id="r")
    ctx.data["b"] = 2  # the run is not created before this coroutine awaits something
    ctx.data["a"] = [3]
    del ctx.data["gone"]
    assert dict(ctx.data) == {"a": [3], "b": 2}
    flow.hold.set()
    await handler
    assert (await journal.state("r")).context == {"a": [3], "b": 2, "said": ["nothing"]}
    facts = [r.fact for r in await journal.history("r") if isinstance(r.fact, ContextSet | ContextDeleted)]
    assert {fact.task for fact in facts if fact.key != "said"} == {None}


async def test_while_it_runs_it_is_the_context_of_the_handler(journal: Journal):
    flow = Asking(journal=journal)
    ctx = Context(flow)
    handler = flow.run(ctx=ctx, run_id="r")
    await question(handler)
    assert await ctx.running_steps() == []
    ctx.data["note"] = "from outside"
    assert ctx.run_id == "r"
    ctx.send_event(Answer(text="yes"))
    assert await handler == "yes"
    assert (await journal.state("r")).context == {"note": "from outside"}


async def test_what_cannot_be_encoded_any_more_starts_nothing(journal: Journal):
    flow = Turn(journal)
    ctx = Context(flow)
    ctx.data["xs"] = []
    ctx.data["xs"].append(object())
    with pytest.raises(SerializationError, match="xs"):
        flow.run(ctx=ctx, run_id="r")
    assert not ctx.is_running
    ctx.data["xs"] = [1]
    assert await flow.run(ctx=ctx, run_id="r") == ["nothing"]


async def test_another_instance_and_another_serializer_take_it_over(journal: Journal, tmp_path: Any):
    from durable_flow import PickleSerializer

    ctx = Context(Turn(journal))
    said = ctx.data["said"] = ["hello"]
    other = Turn("memory://", serializer=PickleSerializer(key="k"))
    assert await other.run(ctx=ctx, say="you") == ["hello", "you"]
    assert ctx.data["said"] is said
    assert (await other.run(ctx=ctx, say="again")) == ["hello", "you", "again"]


async def test_only_a_context_is_one(journal: Journal):
    for wrong in ("ctx", {"said": []}, 1, StartEvent()):
        with pytest.raises(WorkflowRuntimeError, match="takes a Context"):
            Turn(journal).run(ctx=wrong)  # type: ignore[arg-type]


# -- The next run ------------------------------------------------------------------------------------------------------


async def test_the_next_run_goes_on_with_the_same_objects(journal: Journal):
    flow = Turn(journal)
    ctx = Context(flow)
    first = await flow.run(ctx=ctx, say="one", run_id="r1")
    said = ctx.data["said"]
    handler = flow.run(ctx=ctx, say="two", run_id="r2")
    assert handler.ctx is ctx
    assert await handler == ["one", "two"]
    assert ctx.data["said"] is said
    assert first == ["one"]
    assert (await journal.state("r1")).context == {"said": ["one"]}
    assert (await journal.state("r2", at=3)).context == {"said": ["one"]}
    assert (await journal.state("r2")).context == {"said": ["one", "two"]}


async def test_the_context_of_a_handler_serves_the_next_run_too(journal: Journal):
    flow = Turn(journal)
    first = flow.run(say="one")
    await first
    second = flow.run(ctx=first.ctx, say="two")
    assert await second == ["one", "two"]
    assert second.ctx is first.ctx
    assert second.run_id != first.run_id


async def test_between_two_runs_it_can_be_changed(journal: Journal):
    flow = Turn(journal)
    ctx = Context(flow)
    await flow.run(ctx=ctx, say="one", run_id="r1")
    view = ctx.data
    ctx.data["said"].append("in place")
    await ctx.set("note", "between")
    assert json.loads(json.dumps(view)) == {"said": ["one", "in place"], "note": "between"}
    assert not ctx.is_running
    assert await flow.run(ctx=ctx, say="two", run_id="r2") == ["one", "in place", "two"]
    assert (await journal.state("r1")).context == {"said": ["one"]}
    assert (await journal.state("r2", at=4)).context == {"said": ["one", "in place"], "note": "between"}


async def test_the_context_that_a_handler_made_can_be_changed_for_the_next_run_too(journal: Journal):
    flow = Turn(journal)
    handler = flow.run(say="one", run_id="r1")
    await handler
    await handler.ctx.store.set("note", "between")
    async with handler.ctx.store.edit_state() as state:
        state["said"].append("edited")
    assert handler.ctx.data == {"said": ["one", "edited"], "note": "between"}
    assert await handler == ["one"]
    assert await flow.run(ctx=handler.ctx, say="two", run_id="r2") == ["one", "edited", "two"]
    assert (await journal.state("r1")).context == {"said": ["one"]}
    assert (await journal.state("r2", at=4)).context == {"said": ["one", "edited"], "note": "between"}


async def test_a_run_that_failed_leaves_its_values(journal: Journal):
    flow = Turn(journal)
    flow.fail = True
    ctx = Context(flow)
    with pytest.raises(ValueError, match="no answer"):
        await flow.run(ctx=ctx, say="one")
    flow.fail = False
    assert await flow.run(ctx=ctx, say="two") == ["one", "two"]


async def test_a_run_that_was_cancelled_leaves_its_values(journal: Journal):
    flow = Asking(journal=journal)
    ctx = Context(flow)
    ctx.data["n"] = 1
    handler = flow.run(ctx=ctx)
    await question(handler)
    await handler.cancel_run()
    assert not ctx.is_running
    again = flow.run(ctx=ctx)
    await question(again)
    assert flow.ran == ["ask", "ask"]
    assert dict(ctx.data) == {"n": 1}
    await again.cancel_run()


async def test_one_context_has_one_run_at_a_time(journal: Journal):
    flow = Asking(journal=journal)
    ctx = Context(flow)
    handler = flow.run(ctx=ctx)
    with pytest.raises(ContextStateError, match="Cannot start a new run while the context is already running"):
        flow.run(ctx=ctx)
    await question(handler)
    with pytest.raises(ContextStateError, match=handler.run_id):
        flow.run(ctx=ctx)
    plain = flow.run()
    await question(plain)
    with pytest.raises(ContextStateError, match=plain.run_id):
        flow.run(ctx=plain.ctx)
    for each in (handler, plain):
        await each.cancel_run()


async def test_a_released_run_is_not_done_twice(journal: Journal):
    flow = Asking(journal=journal)
    ctx = Context(flow)
    handler = flow.run(ctx=ctx, run_id="r")
    await question(handler)
    await released(handler)
    with pytest.raises(ContextStateError, match=r"flow\.resume\('r'\)"):
        flow.run(ctx=ctx)
    again = flow.run(ctx=ctx, run_id="r")
    assert again.ctx is ctx
    await again.send_event(Answer(text="yes"))
    assert await again == "yes"
    assert flow.ran == ["ask", "answered yes"]


async def test_a_run_that_could_not_start_leaves_the_context_as_it_was(tmp_path: Any):
    broken = Turn(f"sqlite:///{tmp_path}")  # a folder is no database
    ctx = Context(broken)
    ctx.data["said"] = ["hello"]
    with pytest.raises(Exception, match=str(tmp_path)):
        await broken.run(ctx=ctx, say="you")
    assert not ctx.is_running
    ctx.data["said"].append("still")
    assert await Turn("memory://").run(ctx=ctx, say="you") == ["hello", "still", "you"]


# -- A known run id ----------------------------------------------------------------------------------------------------


async def test_a_known_run_is_attached_to_if_it_began_with_the_same_values(journal: Journal):
    flow = Asking(journal=journal)
    values = {"a": [1], "b": 2}

    def context() -> Context:
        ctx = Context(flow)
        ctx.update(values)
        return ctx

    first = flow.run(ctx=context(), run_id="r")
    await question(first)
    values = {"b": 2, "a": [1]}
    second = flow.run(ctx=context(), run_id="r")
    await second.send_event(Answer(text="yes"))
    assert (await first, await second) == ("yes", "yes")
    third = flow.run(ctx=context(), run_id="r")
    assert await third == "yes"
    assert flow.ran == ["ask", "answered yes"]


@pytest.mark.parametrize("live", [True, False])
async def test_other_values_are_a_conflict(journal: Journal, live: bool):
    flow = Asking(journal=journal)
    ctx = Context(flow)
    ctx.update({"a": 1, "b": 2})
    handler = flow.run(ctx=ctx, run_id="r")
    await question(handler)
    if not live:
        await handler.send_event(Answer(text="yes"))
        await handler
    for values in ({"a": 1}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 3}):
        other = Context(flow)
        other.update(values)
        with pytest.raises(RunConflictError, match="began with another context"):
            await flow.run(ctx=other, run_id="r")
        assert dict(other.data) == values  # it is as it was
    empty = Context(flow)
    again = flow.run(ctx=empty, run_id="r")  # claims nothing
    if live:
        await again.send_event(Answer(text="yes"))
    assert await again == "yes"
    assert dict(empty.data) == {"a": 1, "b": 2}


async def test_a_script_that_runs_again_goes_through_its_turns(journal: Journal):
    """As after a crash: what had ended gives its state to the next."""

    async def script(flow: Turn) -> Context:
        ctx = Context(flow)
        await flow.run(ctx=ctx, say="one", run_id="turn-1")
        ctx.data["said"].append("remark")
        await flow.run(ctx=ctx, say="two", run_id="turn-2")
        return ctx

    first, second = await script(Turn(journal)), await script(Turn(journal))
    assert dict(second.data) == dict(first.data) == {"said": ["one", "remark", "two"]}
    assert await Turn(journal).run(ctx=second, say="three") == ["one", "remark", "two", "three"]


async def test_the_context_of_a_handler_is_there_when_a_script_runs_again(journal: Journal):
    """As after a crash between two runs: the handler of the one that had ended has a context as before."""

    async def script(flow: Turn) -> list[Any]:
        handler = flow.run(say="one", run_id="turn-1")
        await handler
        seen = [list(handler.ctx.data["said"]), list(await handler.ctx.store.get("said")), handler.ctx.to_dict()]
        return [*seen, await flow.run(ctx=handler.ctx, say="two", run_id="turn-2")]

    first, second = await script(Turn(journal)), await script(Turn(journal))
    assert second == first
    assert first[0] == first[1] == ["one"]
    assert first[-1] == ["one", "two"]
    resumed = await Turn(journal).resume("turn-1")
    assert dict(resumed.ctx.data) == {"said": ["one"]}


def test_a_run_goes_on_in_another_loop_with_what_it_began_with(url: str):
    first = Turn(url)
    first.hold = asyncio.Event()

    async def begins() -> None:
        ctx = Context(first)
        ctx.data["said"] = ["hello"]
        first.run(ctx=ctx, say="you", run_id="r")
        await first.entered.wait()

    async def goes_on() -> Any:
        flow = Turn(url)
        ctx = Context(flow)
        ctx.data["said"] = ["hello"]
        handler = flow.run(ctx=ctx, say="you", run_id="r")
        result = await handler
        assert dict(ctx.data) == {"said": ["hello", "you"]}
        return result

    asyncio.run(begins())
    assert asyncio.run(goes_on()) == ["hello", "you"]


def test_one_context_serves_the_runs_of_several_loops(url: str):
    flow = Turn(url)
    ctx = Context(flow)

    async def turn(say: str) -> Any:
        async with ctx.lock:
            return await flow.run(ctx=ctx, say=say)

    results = [asyncio.run(turn("one"))]
    ctx.data["said"].append("between")
    results.append(asyncio.run(turn("two")))
    assert results == [["one"], ["one", "between", "two"]]


async def test_a_run_of_another_process_shows_its_values_once_it_has_ended(url: str):
    first = Turn(url)
    first.hold = asyncio.Event()

    async def other() -> None:
        ctx = Context(first)
        ctx.data["said"] = ["hello"]
        handler = first.run(ctx=ctx, say="you", run_id="r")
        await first.entered.wait()
        loops.append(asyncio.get_running_loop())
        here.call_soon_threadsafe(begun.set)
        await first.hold.wait()
        await handler

    here, begun, loops = asyncio.get_running_loop(), asyncio.Event(), list[asyncio.AbstractEventLoop]()
    elsewhere = asyncio.ensure_future(in_another_loop(other))
    await begun.wait()
    flow = Turn(url)
    ctx = Context(flow)
    ctx.data["said"] = ["hello"]
    handler = flow.run(ctx=ctx, say="you", run_id="r")
    result = asyncio.ensure_future(handler)
    async with Journal(url) as journal:
        assert (await journal.run("r")).status == "running"
    assert ctx.is_running
    loops[0].call_soon_threadsafe(first.hold.set)
    assert await result == ["hello", "you"]
    await elsewhere
    assert dict(ctx.data) == {"said": ["hello", "you"]}
    ctx.data["said"].append("more")
    assert await flow.run(ctx=ctx) == ["hello", "you", "more", "nothing"]


# -- In a step ---------------------------------------------------------------------------------------------------------


async def test_the_context_of_a_step_starts_no_run(journal: Journal):
    class Outer(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(ContextStateError, match="context of a step"):
                Turn(journal).run(ctx=ctx)
            return StopEvent(result=ctx.is_running)

    assert await Outer(journal=journal).run() is True


async def test_submit_run_is_run(journal: Journal):
    flow = Turn(journal)
    ctx = Context(flow)
    handler = flow.submit_run(ctx=ctx, say="hello", run_id="r")
    assert (handler.run_id, await handler) == ("r", ["hello"])


async def test_the_result_may_be_asked_of_the_context(journal: Journal):
    flow = Asking(journal=journal)
    ctx = Context(flow)
    with pytest.raises(ContextStateError, match="belongs to no run yet"):
        ctx.get_result()
    handler = flow.run(ctx=ctx, run_id="r")
    await question(handler)
    with pytest.raises(ContextStateError, match="that of run r, under way"):
        ctx.get_result()
    await handler.send_event(Answer(text="yes"))
    await handler
    assert ctx.get_result() == handler.ctx.get_result() == "yes"


async def test_the_result_of_a_run_that_failed_is_its_error_and_a_step_has_none(journal: Journal):
    flow = Turn(journal)
    flow.fail = True
    handler = flow.run()
    with pytest.raises(ValueError, match="no answer"):
        await handler
    with pytest.raises(ValueError, match="no answer"):
        handler.ctx.get_result()

    class Looks(Workflow):
        @step
        async def look(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=ctx.get_result())

    with pytest.raises(ContextStateError, match=r"ctx\.get_result is for those who start and watch a run"):
        await Looks(journal=journal).run()
