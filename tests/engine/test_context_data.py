"""`ctx.data`, `ctx.get` and `ctx.set`: a dict that is journaled, with literal keys."""

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import Context, ContextStateError, Event, Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.errors import SerializationError
from durable_flow.records import ContextDeleted, ContextSet

from .context_helpers import (
    RUN,
    Crew,
    forever,
    nothing,
    run,
    run_alone,
    run_to_end,
    run_until,
    stored,
    stored_at,
)


async def writes(journal: Journal) -> list[tuple[str, ...]]:
    """The journaled writes of the context, in order."""
    facts = [record.fact for record in await journal.history(RUN)]
    return [(type(f).__name__, f.key) for f in facts if isinstance(f, ContextSet | ContextDeleted)]


def set_item(data: Any) -> None:
    data["new"] = 1


def del_item(data: Any) -> None:
    del data["a"]


def or_in_place(data: Any) -> None:
    data |= {"new": 1, "a": 9}


MUTATIONS: dict[str, Callable[[Any], Any]] = {
    "[]=": set_item,
    "[]= of a known key": lambda data: data.__setitem__("a", 7),
    "del": del_item,
    "pop": lambda data: data.pop("b"),
    "pop with a default": lambda data: data.pop("absent", "default"),
    "popitem": lambda data: data.popitem(),
    "clear": lambda data: data.clear(),
    "update with a dict": lambda data: data.update({"b": 5, "new": 6}),
    "update with pairs and names": lambda data: data.update([("b", 5)], new=6),
    "setdefault of a known key": lambda data: data.setdefault("a", 8),
    "setdefault of a new key": lambda data: data.setdefault("new", [8]),
    "|=": or_in_place,
}


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
async def test_every_mutator_does_what_a_dict_does_and_is_journaled(journal: Journal, mutate: Callable[[Any], Any]):
    plain = {"a": 1, "b": 2, "c": 3}

    async def body(ctx: Context) -> Any:
        ctx.data.update(plain)
        result = mutate(ctx.data)
        return [result, dict(ctx.data)]

    result, seen = await run_alone(journal, body)

    assert result == mutate(plain)
    assert seen == plain
    assert list(seen) == list(plain)
    assert await stored(journal) == plain


async def test_each_write_is_a_record_of_its_own(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data["n"] = 1
        ctx.data["n"] = 1
        ctx.data.update(n=2, m=3)
        del ctx.data["n"]

    await run_alone(journal, body)

    assert await writes(journal) == [
        ("ContextSet", "n"), ("ContextSet", "n"), ("ContextSet", "n"), ("ContextSet", "m"), ("ContextDeleted", "n"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "look",
    [
        lambda data: data["absent"],
        lambda data: data.pop("absent"),
        lambda data: data.__delitem__("absent"),
        lambda data: data.popitem() and data.popitem(),
        lambda data: data[1],
    ],
    ids=["[]", "pop", "del", "popitem", "[] of no string"],
)
async def test_a_missing_key_is_a_key_error(memory: Journal, look: Callable[[Any], Any]):
    async def body(ctx: Context) -> None:
        ctx.data["a"] = 1
        with pytest.raises(KeyError):
            look(ctx.data)

    await run_alone(memory, body)


async def test_get_gives_the_default_of_a_missing_key(memory: Journal):
    async def body(ctx: Context) -> None:
        assert ctx.data.get("absent") is None
        assert ctx.data.get("absent", 3) == 3
        assert "absent" not in ctx.data
        assert 1 not in ctx.data
        assert not ctx.data

    await run_alone(memory, body)


class AnyField(Event):
    content: Any


class DictField(BaseModel):
    content: dict[str, Any]


READINGS: dict[str, Callable[[Any], Any]] = {
    "{**}": lambda data: {**data},
    "dict()": dict,
    "json.dumps": json.dumps,
    "f-string": lambda data: f"{data}",
    "repr": repr,
    "==": lambda data: data == {"a": 1, "xs": [1, 2]},
    "== from the left": lambda data: {"a": 1, "xs": [1, 2]} == data,  # noqa: SIM300
    "!=": lambda data: data != {"a": 1},
    "in": lambda data: ["a" in data, "z" in data],
    "len": len,
    "iteration": list,
    "reversed": lambda data: list(reversed(data)),
    "keys": lambda data: sorted(data.keys()),
    "values": lambda data: list(data.values()),
    "items": lambda data: list(data.items()),
    "copy": lambda data: data.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "|": lambda data: data | {"b": 2},
    "| from the left": lambda data: {"b": 2, "a": 0} | data,
    "isinstance": lambda data: isinstance(data, dict),
    "a pydantic Any field": lambda data: AnyField(content=data).model_dump()["content"],
    "a pydantic dict field": lambda data: DictField(content=data).content,
    "pydantic to JSON": lambda data: DictField(content=data).model_dump_json(),
}


@pytest.mark.parametrize("look", READINGS.values(), ids=READINGS)
async def test_data_reads_as_the_same_plain_dict(memory: Journal, look: Callable[[Any], Any]):
    plain = {"a": 1, "xs": [1, 2]}
    seen = []

    async def body(ctx: Context) -> None:
        ctx.data.update(a=0, gone=1)
        ctx.data.update(xs=[1, 2], a=1)
        del ctx.data["gone"]
        seen.append(look(ctx.data))

    await run_alone(memory, body)

    assert seen == [look(plain)]
    assert type(seen[0]) is type(look(plain))


async def test_copies_are_plain_dicts_that_no_longer_change(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.data["xs"] = [1]
        shallow, deep = ctx.data.copy(), copy.deepcopy(ctx.data)
        ctx.data["xs"].append(2)
        ctx.data["new"] = 1
        assert type(shallow) is type(deep) is dict
        assert shallow == {"xs": [1, 2]}
        assert deep == {"xs": [1]}

    await run_alone(memory, body)


async def test_keys_may_be_removed_while_iterating(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.data.update(a=1, b=2, c=3)
        for key in ctx.data:
            if key != "b":
                del ctx.data[key]

    await run_alone(memory, body)
    assert await stored(memory) == {"b": 2}


async def test_or_in_place_works_on_the_attribute_but_nothing_else_can_be_assigned(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.data |= {"a": 1}
        with pytest.raises(AttributeError, match=r"ctx\.data\.update"):
            ctx.data = {"b": 2}

    await run_alone(memory, body)
    assert await stored(memory) == {"a": 1}


# -- Views of one state ------------------------------------------------------------------------------------------------


async def test_data_get_set_and_store_are_views_of_one_state(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data["a"] = 1
        await ctx.set("b", 2)
        await ctx.store.set("c", 3)
        assert [await ctx.get(k) for k in "abc"] == [1, 2, 3]
        assert [await ctx.store.get(k) for k in "abc"] == [1, 2, 3]
        assert ctx.data == {"a": 1, "b": 2, "c": 3}
        assert ctx.session is ctx

    await run_alone(journal, body)
    assert await stored(journal) == {"a": 1, "b": 2, "c": 3}


async def test_keys_of_get_set_and_data_are_literal(journal: Journal):
    async def body(ctx: Context) -> None:
        await ctx.set("a.b", 1)
        assert ctx.data["a.b"] == 1
        assert await ctx.get("a.b") == 1
        assert "a" not in ctx.data
        with pytest.raises(ValueError, match=r"a\.b"):
            await ctx.store.get("a.b")

    await run_alone(journal, body)
    assert await stored(journal) == {"a.b": 1}


async def test_get_of_a_missing_key_without_default_is_a_value_error(memory: Journal):
    async def body(ctx: Context) -> None:
        with pytest.raises(ValueError, match="Key 'k' not found in Context"):
            await ctx.get("k")
        assert await ctx.get("k", default=None) is None
        assert await ctx.get("k", 4) == 4

    await run_alone(memory, body)


async def test_make_private_is_ignored_with_a_warning(memory: Journal):
    async def body(ctx: Context) -> None:
        with pytest.warns(UserWarning, match="make_private is ignored") as warned:
            await ctx.set("k", 1, make_private=True)
        assert warned[0].filename == __file__

    await run_alone(memory, body)
    assert await stored(memory) == {"k": 1}


async def test_clear_empties_the_state(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.update({"a": 1, "b": 2})
        ctx.clear()
        assert ctx.data == {}

    await run_alone(memory, body)
    assert await stored(memory) == {}


# -- Bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [1, None, ("a",), b"a", "a\0b", "\ud800"], ids=ascii)
async def test_what_can_be_no_key_is_refused_and_named(journal: Journal, key: Any):
    async def body(ctx: Context) -> None:
        with pytest.raises(SerializationError, match="context"):
            ctx.data[key] = 1
        with pytest.raises(SerializationError, match="context"):
            await ctx.set(key, 1)
        ctx.data["fine"] = 1

    await run_alone(journal, body)
    assert await stored(journal) == {"fine": 1}


class Opaque:
    pass


async def test_a_value_that_cannot_be_encoded_is_refused_by_path_where_it_is_set(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data["k"] = "before"
        with pytest.raises(SerializationError) as refused:
            ctx.data["k"] = {"list": [1, Opaque()]}
        assert refused.value.path == "k['list'][1]"
        assert ctx.data == {"k": "before"}

    await run_alone(journal, body)
    assert await stored(journal) == {"k": "before"}


# -- Other steps -------------------------------------------------------------------------------------------------------


async def test_a_write_is_visible_to_other_steps_at_once(journal: Journal):
    written, seen = asyncio.Event(), asyncio.Event()

    async def writer(ctx: Context) -> None:
        ctx.data["n"] = 1
        written.set()
        await seen.wait()
        assert ctx.data["m"] == 2

    async def reader(ctx: Context) -> str:
        data = ctx.data
        assert "n" not in data
        await written.wait()
        assert data["n"] == 1
        assert DictField(content=data).content == {"n": 1}
        data["m"] = 2
        seen.set()
        return json.dumps(data)

    result = await run(journal, reader=reader, writer=writer)
    assert result["reader"] == '{"n": 1, "m": 2}'


async def test_data_in_a_result_is_a_copy_of_that_moment(journal: Journal):
    class Metadata(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["xs"] = [1]
            return StopEvent(result={"metadata": ctx.data})

    result = await Metadata(journal=journal).run(run_id=RUN)
    assert result == {"metadata": {"xs": [1]}}
    assert type(result["metadata"]) is dict
    assert await Metadata(journal=journal).run(run_id=RUN) == result


class Carrier(Event):
    loose: Any
    field: dict[str, Any]


class Carrying(Workflow):
    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Carrier:
        ctx.data["xs"] = [1]
        return Carrier(loose={"data": ctx.data}, field=ctx.data, extra=[ctx.data])

    @step
    async def second(self, ctx: Context, ev: Carrier) -> StopEvent:
        ctx.data["xs"].append(2)
        copies = [ev.loose["data"], ev.field, ev.extra[0]]
        assert [type(c) for c in copies] == [dict, dict, dict]
        return StopEvent(result=copies)


async def test_data_in_an_event_is_a_plain_copy_of_that_moment(journal: Journal):
    assert await Carrying(journal=journal).run() == [{"xs": [1]}] * 3


async def test_data_in_a_value_of_the_context_is_a_plain_copy_of_that_moment(journal: Journal):
    class Copying(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> Carrier:
            ctx.data["n"] = 1
            ctx.data["copy"] = ctx.data
            await ctx.set("nested", [ctx.data])
            ctx.data["n"] = 2
            return Carrier(loose=None, field={})

        @step
        async def second(self, ctx: Context, ev: Carrier) -> StopEvent:
            return StopEvent(result=[dict(ctx.data["copy"]), ctx.data["nested"], type(ctx.data["copy"]) is dict])

    result = await Copying(journal=journal).run()
    assert result == [{"n": 1}, [{"n": 1, "copy": {"n": 1}}], True]


# -- A finished step, a finished run -----------------------------------------------------------------------------------


async def test_the_context_of_a_finished_step_is_detached(memory: Journal):
    kept: list[Any] = []

    async def leaves(ctx: Context) -> None:
        ctx.data["n"] = 1
        kept.extend([ctx, ctx.data])

    crew = Crew(memory, leaves=leaves, waits=lambda ctx: crew.done["leaves"].wait())
    handler = crew.run(run_id=RUN)
    await crew.done["leaves"].wait()
    ctx, data = kept
    for use in (
        lambda: data["n"],
        lambda: data.update(n=2),
        lambda: json.dumps(data),
        lambda: ctx.data["n"],
        lambda: ctx.send_event(Event()),
    ):
        with pytest.raises(ContextStateError, match="detached"):
            use()
    for awaited in (ctx.get("n"), ctx.set("n", 2), ctx.store.get("n"), ctx.store.get_state(), ctx.store.set("n", 2)):
        with pytest.raises(ContextStateError, match="detached"):
            await awaited
    await handler
    assert await stored(memory) == {"n": 1}


async def test_a_handlers_context_reads_and_writes_in_order_with_the_steps_drafts(journal: Journal):
    drafted, go_on = asyncio.Event(), asyncio.Event()

    async def body(ctx: Context) -> dict[str, Any]:
        ctx.data["n"] = 1
        drafted.set()
        await go_on.wait()
        return ctx.data.copy()

    handler = Crew(journal, only=body).run(run_id=RUN)
    await drafted.wait()
    assert handler.ctx.data["n"] == 1
    handler.ctx.data["n"] += 1
    await handler.ctx.set("m", [5])
    await handler.ctx.store.set("deep.er", 6)
    del handler.ctx.data["m"]
    go_on.set()

    expected = {"n": 2, "deep": {"er": 6}}
    assert await handler == {"only": expected}
    assert await stored(journal) == expected
    assert await writes(journal) == [
        ("ContextSet", "n"), ("ContextSet", "n"), ("ContextSet", "m"), ("ContextSet", "deep"), ("ContextDeleted", "m"),
    ]  # fmt: skip


async def test_what_is_written_to_a_handlers_context_after_the_end_is_no_part_of_the_run(journal: Journal):
    async def body(ctx: Context) -> None:
        ctx.data["xs"] = [1]

    handler = Crew(journal, only=body).run(run_id=RUN)
    await handler
    assert handler.ctx.data == {"xs": [1]}
    assert await handler.ctx.get("xs") == [1]
    assert await handler.ctx.store.get("xs.0") == 1
    assert (await handler.ctx.store.get_state()).xs == [1]
    handler.ctx.data["n"] = 1
    await handler.ctx.store.set("m", 2)
    assert handler.ctx.data == {"xs": [1], "n": 1, "m": 2}
    assert await stored(journal) == {"xs": [1]}


async def test_a_handlers_bad_value_is_refused_and_harms_nothing(memory: Journal):
    began, go_on = asyncio.Event(), asyncio.Event()

    async def body(ctx: Context) -> None:
        began.set()
        await go_on.wait()

    handler = Crew(memory, only=body).run(run_id=RUN)
    await began.wait()
    with pytest.raises(SerializationError, match="k"):
        handler.ctx.data["k"] = Opaque()
    with pytest.raises(SerializationError, match="keys are strings"):
        handler.ctx.data[1] = 1  # type: ignore[index]
    with pytest.raises(KeyError):
        del handler.ctx.data["k"]
    go_on.set()
    await handler
    assert await stored(memory) == {}


# -- Sync steps --------------------------------------------------------------------------------------------------------


class SyncSteps(Workflow):
    @step
    def first(self, ctx: Context, ev: StartEvent) -> Carrier:
        ctx.data["xs"] = [1]
        ctx.data["xs"].append(2)
        ctx.data |= {"n": 1}
        assert json.loads(json.dumps(ctx.data)) == {"xs": [1, 2], "n": 1}
        with pytest.raises(SerializationError):
            ctx.data["bad"] = Opaque()
        return Carrier(loose=[ctx.data], field=ctx.data)

    @step
    def second(self, ctx: Context, ev: Carrier) -> StopEvent:
        assert DictField(content=ctx.data).content == ev.field == {"xs": [1, 2], "n": 1}
        ctx.data["xs"].append(3)
        return StopEvent(result=[ev.loose, ctx.data])


async def test_sync_steps_use_data_from_their_threads(journal: Journal):
    expected = {"xs": [1, 2, 3], "n": 1}
    assert await SyncSteps(journal=journal).run(run_id=RUN) == [[{"xs": [1, 2], "n": 1}], expected]
    assert await stored(journal) == expected


# -- What is durable, and the second event loop ------------------------------------------------------------------------


READS: dict[str, Callable[[Context], Any]] = {
    "data[]": lambda ctx: ctx.data["n"],
    "data.get": lambda ctx: ctx.data.get("n"),
    "data in": lambda ctx: "n" in ctx.data,
    "data.pop": lambda ctx: ctx.data.pop("n"),
    "data.setdefault": lambda ctx: ctx.data.setdefault("n", 0),
    "data[]=": lambda ctx: ctx.data.__setitem__("n", 1),
    "iteration": lambda ctx: list(ctx.data),
    "len": lambda ctx: len(ctx.data),
    "json.dumps": lambda ctx: json.dumps(ctx.data),
    "repr": lambda ctx: repr(ctx.data),
    "{**}": lambda ctx: {**ctx.data},
    "==": lambda ctx: ctx.data == {},
    "a pydantic dict field": lambda ctx: DictField(content=ctx.data),
}


def crew_of_drafter_and(reads: Callable[[Context], Any], url: str) -> Crew:
    """One step drafts n and other and never ends; the other one does something with the context and completes."""
    drafted = asyncio.Event()

    async def drafter(ctx: Context) -> None:
        ctx.data["earlier"] = 1
        ctx.data["n"] = 1
        ctx.data["later"] = 1
        drafted.set()
        await forever()

    async def reader(ctx: Context) -> None:
        await drafted.wait()
        reads(ctx)

    return Crew(url, drafter=drafter, reader=reader)


@pytest.mark.parametrize("reads", READS.values(), ids=READS)
def test_what_a_completed_step_has_read_is_durable_with_it(url: str, reads: Callable[[Context], Any]):
    crew = crew_of_drafter_and(reads, url)
    run_until(crew, crew.done["reader"])
    context = stored_at(url)
    assert context["earlier"] == 1
    assert "n" in context or reads is READS["data.pop"]


@pytest.mark.parametrize(
    "reads",
    [
        lambda ctx: ctx.data,
        lambda ctx: ctx.data.get("other"),
        lambda ctx: ctx.data.update(other=1),
        lambda ctx: isinstance(ctx.data, dict),
    ],
    ids=["the view alone", "another key", "a write of another key", "isinstance"],
)
def test_what_nobody_has_read_goes_with_its_step(url: str, reads: Callable[[Context], Any]):
    crew = crew_of_drafter_and(reads, url)
    run_until(crew, crew.done["reader"])
    assert {"earlier", "n", "later"}.isdisjoint(stored_at(url))


def test_a_reader_of_one_key_does_not_carry_what_came_after_it(url: str):
    crew = crew_of_drafter_and(lambda ctx: ctx.data["n"], url)
    run_until(crew, crew.done["reader"])
    assert stored_at(url) == {"earlier": 1, "n": 1}


def test_after_recovery_completed_writes_are_there_and_drafts_are_gone(url: str):
    drafted = asyncio.Event()
    found: list[dict[str, Any]] = []

    async def completes(ctx: Context) -> None:
        ctx.data["kept"] = {"xs": [1], "when": (1, 2)}

    async def drafts(ctx: Context) -> None:
        await first.done["completes"].wait()
        ctx.data["lost"] = 1
        drafted.set()
        await forever()

    async def again(ctx: Context) -> None:
        found.append(copy.deepcopy(ctx.data))
        ctx.data["kept"]["xs"].append(2)
        ctx.data["new"] = 1

    first = Crew(url, completes=completes, drafts=drafts)
    run_until(first, drafted)
    run_to_end(Crew(url, completes=nothing, drafts=again))

    assert found == [{"kept": {"xs": [1], "when": (1, 2)}}]
    assert stored_at(url) == {"kept": {"xs": [1, 2], "when": (1, 2)}, "new": 1}


def test_a_counter_that_another_step_built_upon_is_not_counted_twice(url: str):
    crew_event = asyncio.Event()

    async def a(ctx: Context) -> None:
        ctx.data["n"] = ctx.data.get("n", 0) + 1
        crew_event.set()
        await forever()

    async def b(ctx: Context) -> None:
        await crew_event.wait()
        ctx.data["n"] += 1

    first = Crew(url, a=a, b=b)
    run_until(first, first.done["b"])
    assert stored_at(url) == {"n": 2}

    seen = []

    async def a_again(ctx: Context) -> None:
        seen.append((ctx.data.get("n", 0), DictField(content=ctx.data).content, "n" in ctx.data, len(ctx.data)))
        ctx.data["n"] = ctx.data.get("n", 0) + 1
        seen.append((ctx.data["n"], DictField(content=ctx.data).content, "n" in ctx.data, len(ctx.data)))

    run_to_end(Crew(url, a=a_again, b=nothing))
    # It sees what it saw, also where pydantic looks past Python; once it has caught up, what is.
    assert seen == [(0, {}, False, 0), (2, {"n": 2}, True, 1)]
    assert stored_at(url) == {"n": 2}
