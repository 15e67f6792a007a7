"""The JSON serializer: whatever it is given comes back exactly, or is refused with the path to what cannot."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Discriminator, RootModel
from pydantic.dataclasses import dataclass as checked_dataclass
from serializer_samples import (
    Batch,
    Bits,
    Colour,
    Employee,
    Level,
    Pair,
    Permission,
    Point,
    SampleWork,
    Slotted,
    Word,
    same,
)

from durable_flow.errors import SerializationError
from durable_flow.events import Event
from durable_flow.serializers import JsonSerializer

json = JsonSerializer()
T = TypeVar("T")


class AnyCat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: Any = 9


class AnyDog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: Any = ()


class AnyOwner(BaseModel):
    pet: Annotated[AnyCat | AnyDog, Discriminator("kind")]


class AnyBase(BaseModel):
    model_config = ConfigDict(frozen=True)
    a: Any = None


class AnyDerived(AnyBase):
    b: Any = None


class AnyHolder(BaseModel):
    held: AnyBase | None = None


class AnyPage(BaseModel, Generic[T]):
    items: list[T]


class AnyRoot(RootModel[Any]):
    pass


IntPage = AnyPage[int]


@dataclasses.dataclass(kw_only=True)
class AnyKeywords:
    first: Any
    scale: dataclasses.InitVar[int] = 2
    scaled: Any = dataclasses.field(init=False, default=None)

    def __post_init__(self, scale: int) -> None:
        self.scaled = [self.first] * scale


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True, weakref_slot=True)
class AnySlots:
    a: Any
    b: Any = ()


@dataclasses.dataclass
class AnyChild(Point):
    z: Any = None


@checked_dataclass
class AnyChecked:
    a: Any


class AnyTyped(NamedTuple, Generic[T]):
    item: T
    more: Any = None


class AnyStr(str):
    __slots__ = ()


class AnyInt(int):
    pass


class AnyFloat(float):
    pass


class AnyBytes(bytes):
    pass


class AnyList(list[Any]):
    pass


class AnyDict(dict[Any, Any]):
    pass


class AnyTuple(tuple[Any, ...]):
    __slots__ = ()


class AnySet(set[Any]):
    pass


class AnyMoment(datetime):
    pass


class AnyPath(pathlib.PurePosixPath):
    __slots__ = ()


class AnyWeek(enum.Enum):
    MON = "m"
    MONDAY = "m"
    TUE = float("nan")


class AnyMask(enum.IntFlag, boundary=enum.KEEP):
    A = 1
    B = 4


ALL_TEXT = st.text(max_size=6) | st.sampled_from(["\ud800", "a\udfff", "\0", "$", "$$tuple", "\u2028", "é" * 3])
ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=-3), "X"), ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")])
FLOATS = st.floats() | st.sampled_from([-0.0, 0.0, float("inf"), -float("inf"), 5e-324, 1.7976931348623157e308])
DECIMALS = st.decimals() | st.sampled_from(
    [Decimal(text) for text in ("NaN123", "-NaN", "sNaN7", "-0", "0E-30", "1E+900000", "-Infinity", "1.10")]
)
EXACT = (
    st.none() | st.booleans() | st.integers() | FLOATS | st.builds(complex, FLOATS, FLOATS) | ALL_TEXT
    | st.integers(4_080, 4_290).map(lambda digits: -(10**digits) + 7)
    | st.binary(max_size=6) | st.binary(max_size=6).map(bytearray) | DECIMALS | st.uuids()
    | st.datetimes(timezones=ZONES) | st.builds(datetime.replace, st.datetimes(timezones=ZONES), fold=st.integers(0, 1))
    | st.builds(time.replace, st.times(timezones=ZONES), fold=st.integers(0, 1)) | st.dates() | st.timedeltas()
    | ALL_TEXT.map(pathlib.PurePosixPath) | ALL_TEXT.map(pathlib.PureWindowsPath) | ALL_TEXT.map(pathlib.Path)
    | st.sampled_from([*Colour, *Level, *Word, *AnyWeek, Colour.CRIMSON, AnyWeek.MONDAY, Permission(3),
                       ~Permission.READ, Bits(9), AnyMask(2), AnyMask(5), range(5, 1, -2)])
)  # fmt: skip
NOT_EXACT = st.sampled_from(
    [
        AnyStr("x"), AnyInt(1), AnyFloat(1.5), AnyBytes(b""), AnyList([1]), AnyDict(a=1), AnyTuple((1,)), AnySet({1}),
        AnyMoment(2024, 1, 1), AnyPath("a"), Counter("aa"), defaultdict(list), deque([1]), object(), len, int, ...,
        memoryview(b"x"), ZoneInfo("UTC"), slice(1), iter([]), lambda: 0,
    ]
)  # fmt: skip


def hashable(value: Any) -> bool:
    try:
        return isinstance(hash(value), int)
    except TypeError:
        return False


KEYS = EXACT.filter(hashable)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inner, max_size=3)
    return (
        few | few.map(tuple) | few.map(AnyRoot) | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict) | st.dictionaries(ALL_TEXT, inner, max_size=3)
        | st.sets(KEYS, max_size=3) | st.frozensets(KEYS, max_size=3)
        | st.builds(lambda pet: AnyOwner.model_construct(pet=pet), inner.map(lambda x: AnyCat(lives=x)))
        | st.builds(AnyHolder, held=st.builds(AnyDerived, a=inner, b=inner)) | inner.map(lambda x: AnyDog(tricks=x))
        | st.builds(lambda items: IntPage.model_construct(items=items), few)
        | st.builds(lambda first: AnyKeywords(first=first), inner) | st.builds(lambda a: AnySlots(a=a), inner)
        | st.builds(AnyChild, inner, inner, inner) | st.builds(AnyChecked, inner) | st.builds(AnyTyped, inner, inner)
        | st.builds(Pair, inner, inner) | st.builds(Slotted, inner, inner) | st.builds(Batch, when=inner, parts=few)
        | st.builds(lambda pay: Employee.model_construct(name="x", salary=pay), inner)
        | st.builds(lambda extra: SampleWork(n=1, extra=extra), inner)
    )  # fmt: skip


def stored(value: Any) -> tuple[bytes | None, str]:
    """Return the data, or why there are none."""
    try:
        return json.serialize(value), ""
    except SerializationError as error:
        refusal = str(error)
        if not refusal.startswith(f"{error.path}: "):
            raise
        return None, refusal


def bits(value: Any) -> bytes:
    return struct.pack("d", value)


@given(st.recursive(EXACT, nested, max_leaves=10))
@example([Decimal("sNaN7"), -0.0, AnyMask(2), datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))])
def test_what_the_serializer_knows_comes_back_unless_its_text_is_no_unicode(value: Any) -> None:
    data, refusal = stored(value)
    if data is None:
        assert "not valid Unicode" in refusal
        return
    again = json.deserialize(data)
    assert same(again, value)
    assert json.serialize(again) == data


@given(st.recursive(EXACT | NOT_EXACT, nested, max_leaves=10))
def test_anything_comes_back_or_is_refused(value: Any) -> None:
    data, _ = stored(value)
    assert data is None or same(json.deserialize(data), value)


Step = tuple[str, Callable[[Any], Any]]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.integers(0, 2).map(lambda n: (f"[{n}]", lambda x: [*range(n), x])),
    st.integers(0, 2).map(lambda n: (f"[{n}]", lambda x: (*range(n), x, 5))),
    st.sampled_from(["a", "$", "k\n"]).map(lambda name: (f"[{name!r}]", lambda x: {"": 0, name: x})),
    st.sampled_from([1, (2, 3), None]).map(lambda key: (f"[{key!r}]", lambda x: {key: x})),
    st.just((".a", lambda x: AnySlots(a=x))),
    st.just((".first", lambda x: AnyKeywords(first=x, scale=0))),
    st.just((".b", lambda x: AnyDerived(a=1, b=x))),
    st.just((".held.b", lambda x: AnyHolder(held=AnyDerived(b=x)))),
    st.just((".right", lambda x: Pair(1, x))),
    st.just((".when", lambda x: Batch(when=x))),
    st.just((".extra", lambda x: SampleWork(n=1, extra=x))),
    st.just((".root", AnyRoot)),
)


@given(st.lists(STEPS, max_size=6), NOT_EXACT)  # a step is two parts at most, and paths show twelve
def test_the_path_leads_to_what_is_refused(steps: list[Step], value: Any) -> None:
    path = ""
    for part, wrap in steps:
        value, path = wrap(value), part + path
    with pytest.raises(SerializationError) as caught:
        json.serialize(value)
    root = type(value).__name__ if isinstance(value, Event) else "value"
    assert caught.value.path == root + path


def test_a_key_too_long_to_be_shown_does_not_hide_the_refusal() -> None:
    with pytest.raises(SerializationError) as caught:
        json.serialize({"a": {10**5000: object()}})
    assert caught.value.path == "value['a'][int]"


@given(st.floats(allow_nan=False) | st.sampled_from([-0.0, 5e-324]))
def test_floats_keep_every_bit(value: float) -> None:
    assert bits(json.deserialize(json.serialize(value))) == bits(value)
    assert bits(json.deserialize(json.serialize({"a": [complex(value, -value)]}))["a"][0].imag) == bits(-value)


@pytest.mark.parametrize("value", [AnyPage[int](items=[1]), AnyPage[Any](items=[1]), AnyPage[AnyCat](items=[AnyCat()])])
def test_a_generic_model_comes_back_where_its_class_is_found_again(value: BaseModel) -> None:
    """Pydantic keeps `Page[int]` in the module where that was written at module level, and nowhere else."""
    data, refusal = stored(value)
    if data is None:
        assert refusal.startswith("value: ")
        assert "define the class at module level" in refusal
    else:
        assert same(json.deserialize(data), value)


def test_a_generic_model_named_at_module_level_comes_back() -> None:
    assert same(json.deserialize(json.serialize(IntPage(items=[1]))), IntPage(items=[1]))
