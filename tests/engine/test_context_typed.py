"""`Context[MyState]`: a state with fields, defaults and a type."""

import asyncio
import copy
import json
from functools import cached_property
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ConfigDict, Field

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.context import DictState

from .context_helpers import (
    RUN,
    Crew,
    divergences,
    forever,
    nothing,
    run_to_end,
    run_until,
    stored,
    stored_at,
    typed,
)


class Base(BaseModel):
    count: int = 0
    name: str = "none"


class State(Base):
    uid: UUID = Field(default_factory=uuid4)
    xs: list[int] = Field(default_factory=list)

    @cached_property
    def size(self) -> int:
        return len(self.xs)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    count: int = 0


TypedCrew = typed(State)
OpenCrew = typed(Open)


async def run_alone(journal: Journal, body: Any, crew: type[Crew] = TypedCrew) -> Any:
    return (await crew(journal, only=body).run(run_id=RUN))["only"]


async def test_fields_begin_with_their_defaults(journal: Journal):
    async def body(ctx: Context[State]) -> None:
        assert await ctx.store.get("count") == 0
        assert await ctx.get("name") == "none"
        assert ctx.data["xs"] == []
        state = await ctx.store.get_state()
        assert type(state) is State
        assert state.xs == []

    await run_alone(journal, body)


async def test_each_view_alone_shows_the_defaults(memory: Journal):
    async def through_get(ctx: Context[State]) -> Any:
        return await ctx.get("count")

    async def through_store(ctx: Context[State]) -> Any:
        return (await ctx.store.get_state()).count

    async def through_data(ctx: Context[State]) -> Any:
        return ctx.data["count"]

    bodies = {"get": through_get, "store": through_store, "data": through_data}
    assert await TypedCrew(memory, **bodies).run() == {"get": 0, "store": 0, "data": 0}


async def test_a_default_factory_is_evaluated_once_for_all_steps(journal: Journal):
    async def body(ctx: Context[State]) -> UUID:
        before = await ctx.store.get("uid")
        await asyncio.sleep(0)
        assert ctx.data["uid"] is before
        assert (await ctx.store.get_state()).uid == before
        return before

    handler = TypedCrew(journal, **{f"s{i}": body for i in range(10)}).run(run_id=RUN)
    seen = set((await handler).values())
    assert len(seen) == 1
    assert seen == {handler.ctx.data["uid"]}
    assert (await stored(journal))["uid"] in seen


class SyncTyped(Workflow):
    @step
    async def start(self, ev: StartEvent) -> list["Work"]:
        return [Work() for _ in range(8)]

    @step(num_workers=8)
    def work(self, ctx: Context[State], ev: "Work") -> "Result":
        return Result(uid=ctx.data["uid"])

    @step
    async def join(self, ctx: Context, ev: "Result") -> StopEvent | None:
        every = ctx.collect_events(ev, [Result] * 8)
        return None if every is None else StopEvent(result={result.uid for result in every})


class Work(Event):
    pass


class Result(Event):
    uid: UUID


async def test_a_default_factory_is_evaluated_once_for_threads_too(memory: Journal):
    assert len(await SyncTyped(journal=memory).run()) == 1


async def test_a_change_in_place_of_a_default_sticks(journal: Journal):
    async def first(ctx: Context[State]) -> None:
        (await ctx.store.get("xs")).append(1)

    async def second(ctx: Context[State]) -> None:
        await crew.done["first"].wait()
        assert ctx.data["xs"] == [1]
        ctx.data["xs"].append(2)

    crew = TypedCrew(journal, first=first, second=second)
    await crew.run(run_id=RUN)
    assert (await stored(journal))["xs"] == [1, 2]


async def test_data_is_a_mapping_over_the_fields(memory: Journal):
    async def body(ctx: Context[State]) -> None:
        assert list(ctx.data) == ["count", "name", "uid", "xs"]
        ctx.data["count"] += 2
        ctx.data.update(name="Ada")
        state = await ctx.store.get_state()
        assert (state.count, state.name) == (2, "Ada")
        uid = ctx.data.pop("uid")
        assert json.loads(json.dumps(ctx.data)) == {"count": 2, "name": "Ada", "xs": []}
        await ctx.set("uid", uid)

    await run_alone(memory, body)


async def test_edit_state_gives_the_model_and_stores_fields_alone(journal: Journal):
    async def body(ctx: Context[State]) -> None:
        async with ctx.store.edit_state() as state:
            assert type(state) is State
            state.count += 1
            state.xs.append(7)
            assert state.size == 1
        assert list(ctx.data) == ["count", "name", "uid", "xs"]
        async with ctx.store.edit_state() as state:
            state.xs.append(8)
            assert state.size == 2

    await run_alone(journal, body)
    context = await stored(journal)
    assert (context["count"], context["xs"]) == (1, [7, 8])
    assert set(context) == {"count", "name", "uid", "xs"}


async def test_a_literal_key_beside_the_fields_outlives_edits_of_the_state(memory: Journal):
    async def body(ctx: Context[State]) -> None:
        await ctx.set("beside.it", 1)
        async with ctx.store.edit_state() as state:
            state.count = 1
        await ctx.store.set_state(State(count=2))
        await ctx.store.clear()
        assert await ctx.get("beside.it") == 1

    await run_alone(memory, body)
    assert (await stored(memory))["beside.it"] == 1


async def test_set_state_replaces_the_whole_state(journal: Journal):
    new = State(count=5, xs=[1, 2])

    async def body(ctx: Context[State]) -> None:
        ctx.data["name"] = "changed"
        await ctx.store.set_state(new)
        assert await ctx.store.get_state() == new

    await run_alone(journal, body)
    assert await stored(journal) == {"count": 5, "name": "none", "uid": new.uid, "xs": [1, 2]}


async def test_set_state_of_a_parent_type_replaces_its_fields_only(journal: Journal):
    async def body(ctx: Context[State]) -> None:
        await ctx.store.set("xs", [1])
        uid = await ctx.store.get("uid")
        await ctx.store.set_state(Base(count=3, name="parent"))
        assert await ctx.store.get_state() == State(count=3, name="parent", uid=uid, xs=[1])

    await run_alone(journal, body)


class Other(BaseModel):
    count: int = 0


@pytest.mark.parametrize("state", [Other(), DictState(count=1), {"count": 1}], ids=lambda s: type(s).__name__)
async def test_set_state_of_another_type_is_a_value_error(memory: Journal, state: Any):
    async def body(ctx: Context[State]) -> None:
        with pytest.raises(ValueError, match="must be of type State"):
            await ctx.store.set_state(state)

    await run_alone(memory, body)


@pytest.mark.parametrize("path", ["absent", "absent.below"])
async def test_the_store_refuses_what_is_no_field(memory: Journal, path: str):
    async def body(ctx: Context[State]) -> None:
        with pytest.raises(ValueError, match="State has no field 'absent'"):
            await ctx.store.set(path, 1)
        with pytest.raises(ValueError, match="not found"):
            await ctx.store.get(path)

    await run_alone(memory, body)
    assert "absent" not in await stored(memory)


async def test_a_model_that_allows_extra_data_takes_other_keys(journal: Journal):
    async def body(ctx: Context[Open]) -> None:
        await ctx.store.set("other.deep", 1)
        state = await ctx.store.get_state()
        assert state.other == {"deep": 1}
        async with ctx.store.edit_state() as state:
            state.more = 2

    await run_alone(journal, body, OpenCrew)
    assert await stored(journal) == {"count": 0, "other": {"deep": 1}, "more": 2}


async def test_clear_puts_every_field_back_to_its_default(journal: Journal):
    async def body(ctx: Context[State]) -> None:
        ctx.data.update(count=5, xs=[1], name="Ada")
        await ctx.store.clear()
        assert (ctx.data["count"], ctx.data["xs"], ctx.data["name"]) == (0, [], "none")
        ctx.data["count"] = 6
        ctx.clear()
        assert (ctx.data["count"], ctx.data["xs"]) == (0, [])

    await run_alone(journal, body)
    assert (await stored(journal))["count"] == 0


class NoDefault(BaseModel):
    needed: int


async def test_a_field_without_default_is_a_value_error_at_the_first_access(memory: Journal):
    async def body(ctx: Context[NoDefault]) -> None:
        with pytest.raises(ValueError, match="NoDefault need defaults"):
            await ctx.store.get("needed")
        with pytest.raises(ValueError, match="NoDefault need defaults"):
            ctx.data.get("needed")

    await run_alone(memory, body, typed(NoDefault))


class Mixed(Workflow):
    """Steps that ask for the parent, the child and no type share one state: that of the most derived class."""

    @step
    async def first(self, ctx: Context[Base], ev: StartEvent) -> Work:
        await ctx.store.set("xs", [1])
        await ctx.store.set("count", 1)
        return Work()

    @step
    async def second(self, ctx: Context[State], ev: Work) -> Result:
        assert await ctx.store.get("xs") == [1]
        async with ctx.store.edit_state() as state:
            state.count += 1
        return Result(uid=state.uid)

    @step
    async def third(self, ctx: Context, ev: Result) -> StopEvent:
        assert ctx.data["uid"] == ev.uid
        return StopEvent(result=await ctx.store.get_state())


async def test_the_state_is_of_the_most_derived_class_for_every_step(journal: Journal):
    state = await Mixed(journal=journal).run()
    assert type(state) is State
    assert (state.count, state.xs) == (2, [1])


async def test_a_handler_sees_the_defaults_of_a_run_that_never_used_its_context(journal: Journal):
    handler = TypedCrew(journal, only=nothing).run(run_id=RUN)
    await handler
    assert (await handler.ctx.store.get_state()).count == 0
    assert type(await handler.ctx.store.get_state()) is State
    assert await handler.ctx.store.get("count") == 0
    assert handler.ctx.data["name"] == "none"
    assert await stored(journal) == {}


async def test_a_handler_reads_and_writes_the_typed_state_of_a_live_run(journal: Journal):
    began, go_on = asyncio.Event(), asyncio.Event()

    async def body(ctx: Context[State]) -> UUID:
        began.set()
        await go_on.wait()
        assert await ctx.store.get("count") == 1
        return ctx.data["uid"]

    handler = TypedCrew(journal, only=body).run(run_id=RUN)
    await began.wait()
    uid = handler.ctx.data["uid"]
    async with handler.ctx.store.edit_state() as state:
        state.count += 1
    go_on.set()
    assert await handler == {"only": uid}


# -- The second event loop ---------------------------------------------------------------------------------------------


def test_a_default_that_others_have_read_is_the_same_after_a_restart(url: str):
    seen: list[Any] = []
    used = asyncio.Event()

    async def first(ctx: Context[State]) -> None:
        seen.append(await ctx.store.get("uid"))
        ctx.data["count"] = 1
        used.set()
        await forever()

    async def second(ctx: Context[State]) -> None:
        await used.wait()
        seen.append(ctx.data["uid"])
        ctx.data["count"] += 1

    crew = TypedCrew(url, first=first, second=second)
    run_until(crew, crew.done["second"])
    assert stored_at(url)["uid"] == seen[0]

    async def again(ctx: Context[State]) -> None:
        seen.append(await ctx.store.get("uid"))
        assert ctx.data["count"] == 0
        ctx.data["count"] = 1

    run_to_end(TypedCrew(url, first=again, second=nothing))
    assert len(set(seen)) == 1
    assert stored_at(url)["count"] == 2
    assert divergences(url) == []  # a default is no effect of the step that happened to come first


def test_the_state_comes_back_as_its_model_in_a_second_loop(url: str):
    async def first(ctx: Context[State]) -> None:
        async with ctx.store.edit_state() as state:
            state.xs = [1, 2]
            state.name = "Ada"

    async def stuck(ctx: Context[State]) -> None:
        await crew.done["first"].wait()
        ctx.data["name"] = "lost"
        waiting.set()
        await forever()

    async def goes_on(ctx: Context[State]) -> State:
        state = copy.deepcopy(await ctx.store.get_state())
        await ctx.store.set("count", 1)
        return state

    waiting = asyncio.Event()
    crew = TypedCrew(url, first=first, stuck=stuck)
    run_until(crew, waiting)
    state = run_to_end(TypedCrew(url, first=nothing, stuck=goes_on))["stuck"]
    assert (type(state), state.xs, state.name, state.count) == (State, [1, 2], "Ada", 0)
    assert stored_at(url)["count"] == 1
