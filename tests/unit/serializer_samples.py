"""Classes that the tests of the serializers store, and how they compare what comes back."""

from __future__ import annotations

import dataclasses
import enum
import functools
from datetime import datetime, time, timezone, tzinfo
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel

from durable_flow.errors import SerializationError
from durable_flow.events import Event
from durable_flow.serializers import JsonSerializer


class SampleWork(Event):
    n: int


class Batch(Event):
    when: Any = None
    parts: list[Any] = Field(default_factory=list)


class Renamed(Event):
    event_name: ClassVar[str] = "work.renamed"
    n: int = 0


class Outer(Event):
    original_event: Event


class Person(BaseModel):
    name: str
    tags: list[str] = []


class Employee(Person):
    salary: Decimal


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


class Guarded(BaseModel):
    shown: int
    hidden: int = Field(default=7, exclude=True)


class WithPrivate(BaseModel):
    a: int = 1
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)
    _unset: int = PrivateAttr()


class Numbers(RootModel[list[int]]):
    pass


class Cached(BaseModel):
    a: int

    @functools.cached_property
    def double(self) -> int:
        return self.a * 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    ys: tuple[int, ...] = ()


@dataclasses.dataclass
class Computed:
    x: int
    twice: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.twice = self.x * 2


class Plain(dict[str, Any]):
    __durable_plain__ = True


class Colour(enum.Enum):
    RED = (1, 0, 0)
    CRIMSON = RED
    BLUE = (0, 0, 1)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Outside:
    class Inside(BaseModel):
        a: int


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types all the way down, with NaN equal to itself and -0.0 unlike 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, BaseModel):
        return (
            same(a.__dict__, b.__dict__)
            and same(a.__pydantic_extra__, b.__pydantic_extra__)
            and a.model_fields_set == b.model_fields_set
            and same(a.__pydantic_private__, b.__pydantic_private__)
        )
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, (datetime, time)):
        return a == b and a.fold == b.fold and same_zone(a.tzinfo, b.tzinfo) and a.isoformat() == b.isoformat()
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    return bool(a == b)


def same_zone(a: tzinfo | None, b: tzinfo | None) -> bool:
    if isinstance(a, timezone) and isinstance(b, timezone):
        return a == b and a.tzname(None) == b.tzname(None)
    return a is b


def refused(value: Any, path: str, reason: str = "") -> str:
    with pytest.raises(SerializationError) as caught:
        JsonSerializer().serialize(value)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    return str(caught.value)
