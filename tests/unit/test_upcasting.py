"""Old data of changed classes: upcasters, aliases, fields that came and went."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from datetime import date
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import pytest
from pydantic import BaseModel, Field

from durable_flow import Event, JsonSerializer, register_alias, upcast
from durable_flow.errors import DeserializationError, WorkflowValidationError
from durable_flow.events import UnknownEvent, all_names, current_name
from durable_flow.records import EncodedEvent
from durable_flow.serializers.codec import Codec

HERE = "test_upcasting"
CODEC = Codec(JsonSerializer())


def stored(name: str, v: int = 1, **content: Any) -> EncodedEvent:
    """An event as an older program has stored it."""
    mark = {"$v": v} if v != 1 else {}
    return EncodedEvent(name, "json", v, json.dumps({"$event": name, **mark, **content}).encode())


class Invoice(Event):
    event_version: ClassVar[int] = 3
    cents: int
    customer: str
    due: date | None = None


@upcast(Invoice, from_version=1)
def invoice_in_cents(data: dict[str, Any]) -> dict[str, Any]:
    data["cents"] = round(data.pop("euros") * 100)
    return data


@upcast("Invoice", from_version=2)
def invoice_with_one_name(data: dict[str, Any]) -> dict[str, Any]:
    return {
        **{k: v for k, v in data.items() if k not in ("first", "last")},
        "customer": f"{data['first']} {data['last']}",
    }


class Reminder(Invoice):
    """Derived: its data are those of its base, with the same versions."""

    times: int = 1


def test_an_old_event_goes_through_every_version_up_to_todays():
    first = stored("Invoice", euros=12.5, first="Ada", last="Byron", due={"$date": "2024-02-29"})
    second = stored("Invoice", 2, cents=1250, first="Ada", last="Byron", due={"$date": "2024-02-29"})
    today = Invoice(cents=1250, customer="Ada Byron", due=date(2024, 2, 29))
    assert CODEC.decode_event(first) == CODEC.decode_event(second) == today


def test_a_derived_class_is_read_through_the_upcasters_of_its_base():
    assert CODEC.decode_event(stored("Reminder", euros=1, first="A", last="B", times=2)) == Reminder(
        cents=100, customer="A B", times=2
    )


@pytest.mark.parametrize("extra", [{}, {"note": "x"}, {"v": 1, "$v": 7}], ids=["plain", "extra", "marks"])
def test_a_versioned_event_comes_back_as_it_was(extra: dict[str, Any]):
    event = Invoice(cents=1, customer="A", **extra)
    for _ in range(2):  # the second time on the short way
        encoded = CODEC.encode_event(event)
        assert (encoded.v, json.loads(encoded.data)["$v"]) == (3, 3)
        back = CODEC.decode_event(encoded)
        assert (back, back.model_fields_set, back.to_dict()) == (event, event.model_fields_set, extra)


def test_an_event_inside_a_value_has_its_version_too():
    value = {"sent": [Invoice(cents=1, customer="A")]}
    encoded = CODEC.encode_value(value)
    assert CODEC.decode_value(encoded) == value
    old = b'{"sent":[{"$event":"Invoice","$v":2,"cents":1,"first":"A","last":"B"}]}'
    assert JsonSerializer().deserialize(old) == {"sent": [Invoice(cents=1, customer="A B")]}


class Point(BaseModel):
    stored_version: ClassVar[int] = 2
    x: int
    y: int


@dataclasses.dataclass
class Line:
    stored_version: ClassVar[int] = 2
    ends: list[Point]


class Pair(NamedTuple):
    left: int
    right: int


Pair.stored_version = 2  # type: ignore[attr-defined]


@upcast(Point, from_version=1)
def point_from_list(data: dict[str, Any]) -> dict[str, Any]:
    x, y = data["at"]
    return {"x": x, "y": y}


@upcast(Line, from_version=1)
def line_from_two(data: dict[str, Any]) -> dict[str, Any]:
    return {"ends": [data["start"], data["end"]]}


@upcast(Pair, from_version=1)
def pair_from_one(data: dict[str, Any]) -> dict[str, Any]:
    return {"left": data["both"], "right": data["both"]}


def test_models_dataclasses_and_namedtuples_have_versions():
    old = {
        "$type": f"{HERE}:Line",
        "start": {"$type": f"{HERE}:Point", "at": [1, 2]},
        "end": {"$type": f"{HERE}:Point", "$v": 2, "x": 3, "y": 4},
    }
    line = Line([Point(x=1, y=2), Point(x=3, y=4)])
    serializer = JsonSerializer()
    assert serializer.deserialize(json.dumps(old).encode()) == line
    assert serializer.deserialize(serializer.serialize(line)) == line
    assert serializer.deserialize(f'{{"$type":"{HERE}:Pair","both":5}}'.encode()) == Pair(5, 5)


def test_a_field_called_stored_version_is_a_field():
    @dataclasses.dataclass
    class Row:
        stored_version: int = 3

    serializer = JsonSerializer(types=[Row])
    assert b"$v" not in serializer.serialize(Row(5))
    assert serializer.deserialize(serializer.serialize(Row(5))) == Row(5)


class Gap(Event):
    event_version: ClassVar[int] = 3


@upcast(Gap, from_version=1)
def only_to_two(data: dict[str, Any]) -> dict[str, Any]:
    return data


class Broken(Event):
    event_version: ClassVar[int] = 3


@upcast(Broken, from_version=1)
def broken_by_a_key(data: dict[str, Any]) -> dict[str, Any]:
    data["new"] = data.pop("old")
    return data


@upcast(Broken, from_version=2)
def returns_nothing(data: dict[str, Any]) -> dict[str, Any]:
    data["changed"] = True  # and forgets to return it


@pytest.mark.parametrize(
    ("old", "why"),
    [
        (
            stored("Gap"),
            r"of Gap are of version 1, today's is 3.*no function leads from version 2 to 3.*@upcast\(Gap, from",
        ),
        (stored("Gap", 9), r"of Gap are of version 9, and this program knows it up to version 3: newer code"),
        (stored("Broken"), r"broken_by_a_key could not make version 2 of Broken of its version 1: KeyError: 'old'"),
        (stored("Broken", 2), r"returns_nothing returned no dict.*version 3 of Broken, but NoneType"),
    ],
    ids=["gap", "newer", "raises", "returns nothing"],
)
def test_what_cannot_be_made_todays_is_refused_by_name_and_version(old: EncodedEvent, why: str):
    with pytest.raises(DeserializationError, match=why):
        CODEC.decode_event(old)


def other(data: dict[str, Any]) -> dict[str, Any]:
    return data


async def asynchronous(data: dict[str, Any]) -> dict[str, Any]:
    return data


@pytest.mark.parametrize(
    ("register", "why"),
    [
        (lambda: upcast(Invoice, from_version=1)(other), r"invoice_in_cents does that already.*other would, too"),
        (lambda: upcast("Invoice", from_version=1)(other), r"invoice_in_cents does that already"),
        (lambda: upcast(Invoice, from_version=2)(other), r"invoice_with_one_name does that already"),
        (
            lambda: upcast(Invoice, from_version=3)(other),
            r"the class is of version 3.*event_version: ClassVar\[int\] = 4",
        ),
        (lambda: upcast(Point, from_version=2)(other), r"stored_version: ClassVar\[int\] = 3"),
        (lambda: upcast(Invoice, from_version=0)(other), r"from_version is a number from 1, not 0"),
        (lambda: upcast(7, from_version=1)(other), r"takes a class, or the name"),  # type: ignore[arg-type]
        (lambda: upcast(Gap, from_version=2)(asynchronous), r"decorates a plain function"),  # type: ignore[type-var]
    ],
)
def test_a_wrong_registration_is_refused_at_once(register: Callable[[], object], why: str):
    with pytest.raises(WorkflowValidationError, match=why):
        register()


def test_a_version_that_is_no_number_is_refused_with_the_class():
    for version in ("2", 0, True, 32_768, 20240601):
        with pytest.raises(WorkflowValidationError, match=rf"Odd\.event_version is a number .* not {version!r}"):
            type("Odd", (Event,), {"event_version": version, "__annotations__": {"event_version": "ClassVar[Any]"}})


def test_a_module_that_is_loaded_again_registers_its_function_again():
    again = {"__name__": invoice_in_cents.__module__}
    exec("def invoice_in_cents(data):\n    data['cents'] = data.pop('euros') * 1000\n    return data", again)
    try:
        upcast(Invoice, from_version=1)(again["invoice_in_cents"])
        assert CODEC.decode_event(stored("Invoice", euros=1, first="A", last="B")).cents == 1000  # type: ignore[attr-defined]
    finally:
        upcast(Invoice, from_version=1)(invoice_in_cents)


class Sheet(Event):
    event_aliases: ClassVar[tuple[str, ...]] = ("upcasting.Page", "upcasting.Leaf")
    number: int


class SmallSheet(Sheet):
    """Has not been called as its base was."""


def test_an_event_is_found_by_every_name_that_its_class_had():
    for name in ("upcasting.Page", "upcasting.Leaf", "Sheet"):
        assert CODEC.decode_event(stored(name, number=3)) == Sheet(number=3)
        assert type(CODEC.decode_event(stored(name, number=3))) is Sheet
        assert current_name(name) == "Sheet"
        assert set(all_names(name)) == {"Sheet", "upcasting.Page", "upcasting.Leaf"}
    assert CODEC.encode_event(Sheet(number=3)).name == "Sheet"


def test_a_class_that_takes_a_former_name_for_itself_has_it():
    class Letter(Event):
        event_aliases: ClassVar[tuple[str, ...]] = ("upcasting.Note",)

    assert type(CODEC.decode_event(stored("upcasting.Note"))) is Letter

    class Note(Event):
        event_name: ClassVar[str] = "upcasting.Note"

    assert type(CODEC.decode_event(stored("upcasting.Note"))) is Note
    assert current_name("upcasting.Note") == "upcasting.Note"


@pytest.mark.parametrize("aliases", ["Old", ("Old", ""), ("Wrong",)], ids=["text", "empty", "own"])
def test_wrong_aliases_are_refused_with_the_class(aliases: Any):
    with pytest.raises(WorkflowValidationError, match="Wrong"):
        type("Wrong", (Event,), {"event_aliases": aliases, "event_name": "Wrong", "__annotations__": {
            "event_aliases": ClassVar[Any], "event_name": ClassVar[str]}})  # fmt: skip


class Colour(Enum):
    RED = "red"
    SCARLET = "red"


@dataclasses.dataclass
class Part:
    name: str
    colour: Colour = Colour.RED


def test_values_of_renamed_and_moved_classes_are_found_by_alias():
    register_alias(Part, "shop.old:Piece", "shop:Item")
    register_alias(Colour, "shop.old:Color")
    piece = b'{"$type":"shop.old:Piece","name":"a","colour":{"$enum":["shop.old:Color","SCARLET"]}}'
    old = b"[%s,%s]" % (piece, b'{"$type":"shop:Item","name":"b"}')
    serializer = JsonSerializer()
    assert serializer.deserialize(old) == [Part("a"), Part("b")]
    assert serializer.deserialize(serializer.serialize(Part("a"))) == Part("a")
    with pytest.raises(DeserializationError, match=r"shop\.old:Wheel, which this program has not loaded"):
        serializer.deserialize(b'{"$type":"shop.old:Wheel"}')


@pytest.mark.parametrize("names", [(), ("Piece",), ("shop:",), (f"{HERE}:Part",)])
def test_an_alias_of_the_wrong_form_is_refused(names: tuple[str, ...]):
    with pytest.raises(ValueError, match="register_alias"):
        register_alias(Part, *names)


class Grown(Event):
    number: int
    tags: list[str] = Field(default_factory=list)


class Strict(BaseModel):
    kept: int
    added: str = "new"


@dataclasses.dataclass
class Slim:
    kept: int
    added: list[int] = dataclasses.field(default_factory=list)


def test_added_fields_have_their_defaults():
    assert CODEC.decode_event(stored("Grown", number=1)) == Grown(number=1)
    serializer = JsonSerializer()
    assert serializer.deserialize(f'{{"$type":"{HERE}:Strict","kept":1}}'.encode()) == Strict(kept=1)
    assert serializer.deserialize(f'{{"$type":"{HERE}:Slim","kept":1}}'.encode()) == Slim(1)


def test_removed_fields_of_an_event_are_extra_data_and_stay_with_it():
    event = CODEC.decode_event(stored("Grown", number=1, tags=[], colour="red"))
    assert event["colour"] == "red"
    assert json.loads(CODEC.encode_event(event).data)["colour"] == "red"


@pytest.mark.parametrize("name", ["Strict", "Slim"])
def test_removed_fields_of_other_objects_are_left_out_and_logged_once(name: str, caplog: pytest.LogCaptureFixture):
    old = f'{{"$type":"{HERE}:{name}","kept":1,"gone":"secret"}}'.encode()
    serializer = JsonSerializer()
    with caplog.at_level(logging.WARNING, "durable_flow"):
        objects = [serializer.deserialize(old) for _ in range(2)]
    assert [(each.kept, hasattr(each, "gone")) for each in objects] == [(1, False)] * 2
    assert [(r.action, r.levelname) for r in caplog.records] == [("fields_left_out", "WARNING")]  # type: ignore[attr-defined]
    assert f"{name} have what the class has no longer, and it is left out: gone" in caplog.text
    assert "secret" not in caplog.text


def test_an_unknown_event_keeps_its_version_and_content():
    old = stored("upcasting.Lost", 4, number=1, part={"$type": "x:Y", "$v": 2, "z": 1})
    event = CODEC.decode_event(old)
    assert type(event) is UnknownEvent
    again = CODEC.encode_event(event)
    assert (again.name, again.v, json.loads(again.data)) == (old.name, old.v, json.loads(old.data))
