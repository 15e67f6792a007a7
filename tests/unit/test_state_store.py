"""`InMemoryStateStore`: a state by itself, by paths and as a whole."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import ContextSerdeError, JsonSerializer, PickleSerializer, SerializationError, WorkflowRuntimeError
from durable_flow.context.state_store import DictState, InMemoryStateStore, StateStore


class Base(BaseModel):
    name: str = "Ann"


class State(Base):
    xs: list[int] = []
    inner: dict[str, Any] = {}


class Other(BaseModel):
    name: str = "Bob"


class Handle:
    """Cannot be copied or stored."""

    def __deepcopy__(self, memo: object) -> Handle:
        raise TypeError


async def test_paths_lead_into_dicts_lists_and_attributes():
    store = InMemoryStateStore(DictState())
    await store.set("user.address.city", "Rome")
    await store.set("xs", [1, {"y": 2}])
    await store.set("model", State())
    await store.set("xs.1.y", 3)
    await store.set("model.name", "Bob")
    assert await store.get("user") == {"address": {"city": "Rome"}}
    assert await store.get("xs.1.y") == 3
    assert await store.get("model.name") == "Bob"
    assert await store.get("xs.7", default=None) is None
    for path in ("gone", "user.gone", "xs.7", "xs.a"):
        with pytest.raises(ValueError, match=f"Path '{path}' not found"):
            await store.get(path)
    for path in ("xs.a", "xs.7", "user.address.city.block"):
        with pytest.raises(ValueError, match=f"Path '{path}' cannot be set"):
            await store.set(path, 1)
    for path in ("", 1):
        with pytest.raises(ValueError, match="not empty"):
            await store.get(path)  # type: ignore[arg-type]


def test_an_untyped_state_is_iterated_over_as_a_dict_and_always_true():
    state = DictState(a=1, b=2)
    assert list(state) == ["a", "b"]
    assert dict(state) == {**state} == {"a": 1, "b": 2}
    assert bool(DictState())


def test_the_class_of_the_state_is_told():
    assert InMemoryStateStore(State()).state_type is State


async def test_get_gives_the_live_object():
    handle = Handle()
    store = InMemoryStateStore(State())
    await store.set("inner", {"handle": handle})
    (await store.get("xs")).append(1)
    assert await store.get("xs") == [1]
    assert await store.get("inner.handle") is handle
    with pytest.raises(ValueError, match="State has no field 'gone'"):
        await store.set("gone", 1)


async def test_the_state_as_a_whole():
    store = InMemoryStateStore(State(xs=[1]))
    copy = await store.get_state()
    copy.name = "changed"
    assert await store.get("name") == "Ann"
    assert copy.xs is await store.get("xs")
    await store.set_state(Base(name="parent"))
    assert (await store.get_state()) == State(name="parent", xs=[1])
    await store.set_state(State(name="whole"))
    assert (await store.get_state()) == State(name="whole")
    for wrong in (Other(), DictState(), {}):
        with pytest.raises(ValueError, match="State must be of type State or a parent"):
            await store.set_state(wrong)  # type: ignore[arg-type]
    await store.clear()
    assert (await store.get_state()) == State()


async def test_an_edit_is_committed_whole_or_not_at_all():
    handle = Handle()
    store = InMemoryStateStore(State(xs=[1], inner={"a": [{"b": 1}], "handle": handle}))

    async def fails() -> None:
        async with store.edit_state() as state:
            state.xs.append(2)
            state.inner["a"][0]["b"] = 2
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert await store.get_state() == State(xs=[1], inner={"a": [{"b": 1}], "handle": handle})
    async with store.edit_state() as state:
        state.xs.append(2)
        state.inner["a"][0]["b"] = 2
        assert await store.get("xs") == [1]
        assert state.inner["handle"] is handle
        with pytest.raises(WorkflowRuntimeError, match="inside edit_state of the same task"):
            await store.set("name", "x")
    assert await store.get_state() == State(xs=[1, 2], inner={"a": [{"b": 2}], "handle": handle})
    await store.set("name", "after")


async def test_writers_wait_for_an_edit():
    store = InMemoryStateStore(State())
    editing, leave = asyncio.Event(), asyncio.Event()

    async def edits() -> None:
        async with store.edit_state() as state:
            state.name = "edited"
            editing.set()
            await leave.wait()

    edit = asyncio.create_task(edits())
    await editing.wait()
    write = asyncio.create_task(store.set("name", "written"))
    await asyncio.sleep(0)
    assert await store.get("name") == "Ann"
    leave.set()
    await asyncio.gather(edit, write)
    assert await store.get("name") == "written"


@pytest.mark.parametrize("serializer", [JsonSerializer(), PickleSerializer(key="k")], ids=["json", "pickle"])
@pytest.mark.parametrize("state", [State(name="x", inner={"a": (1, {2})}), DictState(a=1, b={"c": [None]})], ids=repr)
async def test_it_comes_back_from_data(serializer: Any, state: BaseModel):
    data = json.loads(json.dumps(InMemoryStateStore(state).to_dict(serializer)))
    back = await InMemoryStateStore.from_dict(data, serializer).get_state()
    assert (type(back), back) == (type(state), state)


async def test_data_that_are_none_are_refused():
    serializer = JsonSerializer()
    data = InMemoryStateStore(State()).to_dict(serializer)
    for wrong in ({}, {**data, "version": 2}, {**data, "serializer": "pickle"}, {**data, "format": "x"}):
        with pytest.raises(ContextSerdeError, match=r"no state that InMemoryStateStore\.to_dict wrote"):
            InMemoryStateStore.from_dict(wrong, serializer)
    for wrong in ({**data, "state": "%"}, {**data, "state": None}, {**data, "state": "eA=="}):
        with pytest.raises(ContextSerdeError, match="cannot be read"):
            InMemoryStateStore.from_dict(wrong, serializer)
    with pytest.raises(ContextSerdeError, match="is a int, and not a model"):
        InMemoryStateStore.from_dict({**data, "state": "MQ=="}, serializer)
    with pytest.raises(SerializationError):
        InMemoryStateStore(DictState(h=Handle())).to_dict(serializer)


def test_it_is_a_state_store():
    assert isinstance(InMemoryStateStore(State()), StateStore)
