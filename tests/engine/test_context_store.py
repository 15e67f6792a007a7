"""`ctx.store`: dotted paths, the state as a whole, and `edit_state`."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import Context, Journal, WorkflowRuntimeError
from durable_flow.context import DictState
from durable_flow.errors import SerializationError

from .context_helpers import RUN, Crew, forever, nothing, run, run_alone, run_to_end, run_until, stored, stored_at


class User(BaseModel):
    name: str = "Ada"
    tags: list[str] = []
    more: dict[str, Any] = {}


async def test_paths_lead_through_dicts_attributes_and_list_indexes(journal: Journal):
    async def body(ctx: Context) -> None:
        await ctx.store.set("users", [{"who": User(tags=["x", "y"], more={"k": (7, 8)})}])
        assert await ctx.store.get("users.0.who.name") == "Ada"
        assert await ctx.store.get("users.0.who.tags.1") == "y"
        assert await ctx.store.get("users.0.who.more.k.0") == 7

    await run_alone(journal, body)


@pytest.mark.parametrize("path", ["absent", "a.absent", "xs.5", "xs.word", "a.b.c.d", "user.absent"])
async def test_a_missing_path_is_a_value_error_or_the_default(memory: Journal, path: str):
    async def body(ctx: Context) -> None:
        ctx.data.update(a={"b": 1}, xs=[1], user=User())
        with pytest.raises(ValueError, match=f"Path '{path}' not found"):
            await ctx.store.get(path)
        assert await ctx.store.get(path, default=None) is None
        assert await ctx.store.get(path, 5) == 5

    await run_alone(memory, body)


async def test_set_creates_dicts_on_the_way_and_changes_what_is_there(journal: Journal):
    async def body(ctx: Context) -> None:
        await ctx.store.set("a.b.c", 1)
        await ctx.store.set("a.b.d.e", 2)
        ctx.data.update(xs=[1, 2], user=User())
        await ctx.store.set("xs.0", 9)
        await ctx.store.set("user.name", "Bob")
        await ctx.store.set("user.more.deep.er", True)

    await run_alone(journal, body)
    context = await stored(journal)
    assert context == {
        "a": {"b": {"c": 1, "d": {"e": 2}}},
        "xs": [9, 2],
        "user": User(name="Bob", more={"deep": {"er": True}}),
    }


@pytest.mark.parametrize("path", ["n.below", "xs.word", "xs.7", "pair.0", "text.a.b", ""])
async def test_a_path_that_cannot_be_set_is_a_value_error_and_changes_nothing(memory: Journal, path: str):
    before = {"n": 1, "xs": [1], "pair": (1, 2), "text": "t"}

    async def body(ctx: Context) -> None:
        ctx.data.update(before)
        with pytest.raises(ValueError, match=r"[Pp]ath"):
            await ctx.store.set(path, 1)

    await run_alone(memory, body)
    assert await stored(memory) == before


async def test_a_refused_value_leaves_nothing_of_its_path_behind(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data["a"] = {"b": 1}
        for path in ("new", "new.x.y", "a.c.d", "a.b"):
            with pytest.raises(SerializationError) as refused:
                await ctx.store.set(path, object())
            assert refused.value.path == path
        assert ctx.data == {"a": {"b": 1}}

    await run_alone(journal, body)
    assert await stored(journal) == {"a": {"b": 1}}


async def test_get_returns_the_live_object_each_time_the_same(memory: Journal):
    async def body(ctx: Context) -> None:
        user = User()
        await ctx.store.set("user", user)
        assert await ctx.store.get("user") is user
        assert ctx.data["user"] is user
        assert await ctx.get("user") is user
        assert await ctx.store.get("user.tags") is user.tags
        assert handler.ctx.data["user"] is user

    handler = Crew(memory, only=body).run(run_id=RUN)
    await handler


# -- The state as a whole ----------------------------------------------------------------------------------------------


async def test_get_state_is_a_copy(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.data.update(xs=[1], n=1)
        state = await ctx.store.get_state()
        state.xs.append(2)
        state.n = 5
        assert ctx.data == {"xs": [1], "n": 1}
        assert isinstance(state, DictState)
        assert state["n"] == 5

    await run_alone(memory, body)
    assert await stored(memory) == {"xs": [1], "n": 1}


async def test_set_state_replaces_everything(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data.update(a=1, b=[2], c=3)
        await ctx.store.set_state(DictState(b=[2], c=4, d=5))
        assert ctx.data == {"b": [2], "c": 4, "d": 5}
        await ctx.store.set_state({"e": 6})

    await run_alone(journal, body)
    assert await stored(journal) == {"e": 6}


async def test_set_state_with_a_value_that_cannot_be_encoded_changes_nothing(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.data.update(a=1, b=2)
        with pytest.raises(SerializationError, match="bad"):
            await ctx.store.set_state(DictState(a=9, bad=object()))

    await run_alone(memory, body)
    assert await stored(memory) == {"a": 1, "b": 2}


async def test_clear_empties_an_untyped_state(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data.update(a=1, b=[2])
        await ctx.store.clear()
        assert ctx.data == {}
        ctx.data["c"] = 3

    await run_alone(journal, body)
    assert await stored(journal) == {"c": 3}


async def test_a_dict_state_serves_as_attributes_and_as_a_dict(memory: Journal):
    state = DictState(a=1)
    state.b = 2
    state["c"] = 3
    assert (state.a, state["b"], state.c) == (1, 2, 3)
    assert "c" in state
    assert "z" not in state
    assert state.get("z", 9) == 9
    assert state.setdefault("d", 4) == 4
    assert state.pop("b") == 2
    del state["c"]
    state.update({"e": 5})
    assert state.to_dict() == {"a": 1, "d": 4, "e": 5}
    assert (list(state.keys()), list(state.values()), len(state)) == (["a", "d", "e"], [1, 4, 5], 3)
    assert dict(state.items()) == state.to_dict()


# -- edit_state --------------------------------------------------------------------------------------------------------


async def test_edit_state_is_isolated_until_its_end(journal: Journal):
    edited, looked = asyncio.Event(), asyncio.Event()

    async def editor(ctx: Context) -> None:
        ctx.data.update(n=1, xs=[1], gone=1)
        async with ctx.store.edit_state() as state:
            state.n = 2
            state["xs"].append(2)
            del state["gone"]
            state.new = 1
            edited.set()
            await looked.wait()
        assert ctx.data == {"n": 2, "xs": [1, 2], "new": 1}

    async def reader(ctx: Context) -> None:
        await edited.wait()
        committed = {"n": 1, "xs": [1], "gone": 1}
        assert ctx.data == committed
        assert (await ctx.store.get_state()).to_dict() == committed
        assert [await ctx.store.get("xs"), await ctx.get("n")] == [[1], 1]
        looked.set()

    await run(journal, editor=editor, reader=reader)
    assert await stored(journal) == {"n": 2, "xs": [1, 2], "new": 1}


async def test_edit_state_is_rolled_back_on_an_exception(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data.update(n=1, xs=[1])

        async def fail() -> None:
            async with ctx.store.edit_state() as state:
                state.n = 2
                state.xs.append(2)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert ctx.data == {"n": 1, "xs": [1]}
        await ctx.store.set("m", 1)

    await run_alone(journal, body)
    assert await stored(journal) == {"n": 1, "xs": [1], "m": 1}


async def test_edit_state_is_rolled_back_whole_if_a_value_cannot_be_encoded(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.data.update(n=1, m=1)

        async def edit() -> None:
            async with ctx.store.edit_state() as state:
                state.n = 2
                del state["m"]
                state.bad = object()

        with pytest.raises(SerializationError, match="bad"):
            await edit()

    await run_alone(memory, body)
    assert await stored(memory) == {"n": 1, "m": 1}


WRITERS: dict[str, Callable[[Context], Any]] = {
    "store.set": lambda ctx: ctx.store.set("k", "writer"),
    "set": lambda ctx: ctx.set("k", "writer"),
    "set_state": lambda ctx: ctx.store.set_state({"k": "writer"}),
    "clear": lambda ctx: ctx.store.clear(),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
async def test_other_writers_wait_for_the_editor(memory: Journal, write: Callable[[Context], Any]):
    editing, waits = asyncio.Event(), asyncio.Event()

    async def editor(ctx: Context) -> None:
        ctx.data["k"] = "before"
        async with ctx.store.edit_state() as state:
            editing.set()
            await waits.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            assert ctx.data == {"k": "before"}
            state.k = "editor"

    async def writer(ctx: Context) -> None:
        await editing.wait()
        waits.set()
        await write(ctx)
        assert ctx.data.get("k") != "editor"

    await run(memory, editor=editor, writer=writer)
    assert await stored(memory) == ({} if write is WRITERS["clear"] else {"k": "writer"})


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
async def test_a_nested_writer_in_the_same_task_is_an_error(memory: Journal, write: Callable[[Context], Any]):
    async def body(ctx: Context) -> None:
        async with ctx.store.edit_state() as state:
            state.n = 1
            with pytest.raises(WorkflowRuntimeError, match="edit_state of the same task"):
                await write(ctx)
            with pytest.raises(WorkflowRuntimeError, match="edit_state of the same task"):
                async with ctx.store.edit_state():
                    pass

    await run_alone(memory, body)
    assert await stored(memory) == {"n": 1}


async def test_what_is_set_through_data_during_an_edit_of_another_key_is_kept(memory: Journal):
    editing, written = asyncio.Event(), asyncio.Event()

    async def editor(ctx: Context) -> None:
        ctx.data.update(edited=1, other=1)
        async with ctx.store.edit_state() as state:
            editing.set()
            await written.wait()
            state.edited = 2

    async def writer(ctx: Context) -> None:
        await editing.wait()
        ctx.data["other"] = 2
        ctx.data["new"] = 2
        written.set()

    await run(memory, editor=editor, writer=writer)
    assert await stored(memory) == {"edited": 2, "other": 2, "new": 2}


async def test_twenty_concurrent_edits_are_exact(journal: Journal):
    async def body(ctx: Context) -> None:
        async with ctx.store.edit_state() as state:
            n = state.get("n", 0)
            await asyncio.sleep(0)
            state.n = n + 1

    await run(journal, **{f"s{i}": body for i in range(20)})
    assert await stored(journal) == {"n": 20}


async def test_a_cancelled_edit_is_rolled_back_and_lets_others_write(memory: Journal):
    async def body(ctx: Context) -> None:
        editing = asyncio.Event()

        async def edit() -> None:
            async with ctx.store.edit_state() as state:
                state.n = 1
                editing.set()
                await forever()

        task = asyncio.create_task(edit())
        await editing.wait()
        task.cancel()
        await asyncio.wait([task])
        await ctx.store.set("m", 1)

    await run_alone(memory, body)
    assert await stored(memory) == {"m": 1}


async def test_a_handler_edits_the_state_from_outside(journal: Journal):
    began, go_on = asyncio.Event(), asyncio.Event()

    async def body(ctx: Context) -> None:
        ctx.data["n"] = 1
        began.set()
        await go_on.wait()
        assert ctx.data == {"n": 2}

    handler = Crew(journal, only=body).run(run_id=RUN)
    await began.wait()
    async with handler.ctx.store.edit_state() as state:
        state.n += 1
    go_on.set()
    await handler
    assert await stored(journal) == {"n": 2}


# -- What is durable, and the second event loop ------------------------------------------------------------------------


def crew_of_drafter_and(reads: Callable[[Context], Any], url: str) -> Crew:
    """One step drafts and never ends; the other one does something with the context and completes."""
    drafted = asyncio.Event()

    async def drafter(ctx: Context) -> None:
        await ctx.store.set("a.b", 1)
        await ctx.store.set("z", 1)
        drafted.set()
        await forever()

    async def reader(ctx: Context) -> None:
        await drafted.wait()
        await reads(ctx)

    return Crew(url, drafter=drafter, reader=reader)


async def edit_nothing(ctx: Context) -> None:
    async with ctx.store.edit_state():
        pass


@pytest.mark.parametrize(
    ("reads", "carried"),
    [
        (lambda ctx: ctx.store.get("a.b"), {"a": {"b": 1}}),
        (lambda ctx: ctx.store.get("a.absent", None), {"a": {"b": 1}}),
        (lambda ctx: ctx.store.set("a.c", 2), {"a": {"b": 1, "c": 2}}),
        (lambda ctx: ctx.store.get_state(), {"a": {"b": 1}, "z": 1}),
        (edit_nothing, {"a": {"b": 1}, "z": 1}),
        (lambda ctx: ctx.store.set_state({"z": 2}), {"z": 2}),
        (lambda ctx: ctx.store.get("absent", None), {}),
        (lambda ctx: ctx.store.set("new.x", 2), {"new": {"x": 2}}),
    ],
    ids=["get", "get below", "set", "get_state", "edit_state", "set_state", "get of another", "set of another"],
)
def test_a_completed_step_makes_durable_exactly_what_it_rests_on(
    url: str, reads: Callable[[Context], Any], carried: dict[str, Any]
):
    crew = crew_of_drafter_and(reads, url)
    run_until(crew, crew.done["reader"])
    assert stored_at(url) == carried


def test_an_edit_that_was_not_left_never_happened(url: str):
    editing = asyncio.Event()

    async def before(ctx: Context) -> None:
        ctx.data["n"] = 1

    async def editor(ctx: Context) -> None:
        await first.done["before"].wait()
        async with ctx.store.edit_state() as state:
            state.n = 99
            editing.set()
            await forever()

    first = Crew(url, before=before, editor=editor)
    run_until(first, editing)
    assert stored_at(url) == {"n": 1}

    async def editor_again(ctx: Context) -> None:
        async with ctx.store.edit_state() as state:
            state.n += 1

    run_to_end(Crew(url, before=nothing, editor=editor_again))
    assert stored_at(url) == {"n": 2}


def test_models_are_found_by_path_again_in_a_second_loop(url: str):
    stuck = asyncio.Event()

    async def before(ctx: Context) -> None:
        await ctx.store.set("user", User(tags=["a"]))

    async def waits(ctx: Context) -> None:
        await first.done["before"].wait()
        stuck.set()
        await forever()

    async def goes_on(ctx: Context) -> list[Any]:
        user = await ctx.store.get("user")
        assert type(user) is User
        assert await ctx.store.get("user") is user
        (await ctx.store.get("user.tags")).append("b")
        await ctx.store.set("user.name", "Bob")
        return [await ctx.store.get("user.tags.1"), await ctx.store.get("user.name")]

    first = Crew(url, before=before, waits=waits)
    run_until(first, stuck)
    result = run_to_end(Crew(url, before=nothing, waits=goes_on))
    assert result["waits"] == ["b", "Bob"]
    assert stored_at(url) == {"user": User(name="Bob", tags=["a", "b"])}
