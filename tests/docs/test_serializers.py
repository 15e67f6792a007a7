"""docs/serializers.md claims only what is so: its table is evaluated, its code runs."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections import OrderedDict
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel

from durable_flow import (
    Context,
    DeserializationError,
    Event,
    Journal,
    JsonSerializer,
    SerializationError,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.serializers import adapters

PAGE = (Path(__file__).parents[2] / "docs" / "serializers.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ROWS = [
    line.split(" | ", 1)[1].removesuffix(" |").strip("`").replace("\\|", "|")
    for line in PAGE.partition("| type | for example |")[2].partition("\n\n")[0].splitlines()
    if line.startswith("| ")
]


class Colour(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    left: int
    right: str


class Person(BaseModel):
    name: str


class Work(Event):
    n: int


NAMES = {
    kind.__name__: kind
    for kind in (
        OrderedDict, datetime, date, time, timedelta, ZoneInfo, UUID, Decimal, PurePosixPath, PureWindowsPath, Colour,
        Access, Point, Pair, Person, Work,
    )
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_the_values_of_the_table_come_back(row: str):
    values, json = eval(row, NAMES), JsonSerializer()
    for value in values if isinstance(values, list) else [values]:
        again = json.deserialize(json.serialize(value))
        assert type(again) is type(value)
        assert again == value


def test_the_table_was_found():
    assert len(ROWS) == 10


def code(word: str) -> dict[str, Any]:
    (block,) = [block for block in BLOCKS if word in block]
    names: dict[str, Any] = {"__name__": __name__}
    exec(block, names)
    return names


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_runs(block: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapters, "_by_class", {})
    monkeypatch.setattr(adapters, "_by_name", {})
    exec(block, {"__name__": __name__})


def test_the_adapter_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapters, "_by_class", dict(adapters._by_class))
    monkeypatch.setattr(adapters, "_by_name", dict(adapters._by_name))
    with pytest.raises(SerializationError):
        JsonSerializer().serialize(IPv4Address("127.0.0.1"))
    code("register_adapter(IPv4Address")
    json = JsonSerializer()
    assert json.deserialize(json.serialize([IPv4Address("127.0.0.1")])) == [IPv4Address("127.0.0.1")]


class Adds(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Work:
        await ctx.store.set("n", (ev.n, 0.5, None))
        return Work(n=ev.n + 1)

    @step
    async def end(self, ctx: Context, ev: Work) -> StopEvent:
        return StopEvent(result=(ev.n, await ctx.store.get("n")))


async def test_the_serializer_of_the_page_runs_a_workflow(tmp_path: Path):
    packed = code("class PackedSerializer")["PackedSerializer"]
    values = [*(value for row in ROWS for value in eval(row, NAMES)), {}, {"$": [{}, [], ""]}, "ü"]
    for value in values:
        assert packed().deserialize(packed().serialize(value)) == value
    with pytest.raises(DeserializationError):
        packed().deserialize(b"l\0\0\0\1")
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with Journal(url, serializer=packed()) as journal:
        assert await Adds(journal=journal).run(n=1, run_id="sum") == (2, (1, 0.5, None))
    async with Journal(url, serializer=packed()) as journal:
        assert await Adds(journal=journal).run(n=1, run_id="sum") == (2, (1, 0.5, None))
        assert (await journal.state("sum")).context == {"n": (1, 0.5, None)}
