"""The JSON serializer: how classes and adapters are found, and what reading does with data it cannot place."""

from __future__ import annotations

import sys
from datetime import datetime
from types import ModuleType
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, PrivateAttr
from serializer_samples import (
    Batch,
    Open,
    Pair,
    Person,
    Point,
    SampleWork,
    refused,
    same,
)

from durable_flow.errors import DeserializationError, SerializationError
from durable_flow.events import Event, UnknownEvent
from durable_flow.serializers import JsonSerializer, register_adapter

json = JsonSerializer()
SAMPLES = SampleWork.__module__


def test_classes_local_to_a_function_are_refused_except_events():
    class LocalModel(BaseModel):
        a: int = 1

    class LocalEvent(Event):
        a: int = 1

    refused(LocalModel(), "value", "define the class at module level")
    assert same(json.deserialize(json.serialize(LocalEvent())), LocalEvent())
    assert same(
        JsonSerializer([LocalModel]).deserialize(JsonSerializer([LocalModel]).serialize(LocalModel())), LocalModel()
    )


def test_an_event_class_that_lost_its_name_is_stored_by_module_or_refused():
    def define() -> type[Event]:
        class Twice(Event):
            a: int = 1

        return Twice

    first = define()
    old = json.serialize(first())
    json.serialize(first())
    second = define()
    refused(first(), "Twice", "would not be found")
    assert type(json.deserialize(old)) is second
    module_level = SampleWork(n=1)
    assert json.serialize(module_level) == b'{"$event":"SampleWork","n":1}'

    class Shadow(Event):
        event_name: ClassVar[str] = "SampleWork"

    try:
        data = json.serialize(module_level)
        assert data == f'{{"$event":"{SAMPLES}:SampleWork","n":1}}'.encode()
        assert same(json.deserialize(data), module_level)
    finally:
        SampleWork.__pydantic_init_subclass__()  # takes its name back


def test_explicit_types_come_before_all_others():
    def define() -> type[Event]:
        class Chosen(Event):
            event_name: ClassVar[str] = "chosen"

        return Chosen

    first, second = define(), define()
    serializer = JsonSerializer([first])
    assert type(serializer.deserialize(serializer.serialize(first()))) is first
    assert type(json.deserialize(json.serialize(second()))) is second
    with pytest.raises(SerializationError, match="two classes have the stored name 'chosen'"):
        JsonSerializer([first, second])


def test_an_event_of_an_unknown_class_stays_raw_and_is_stored_again_as_it_was():
    data = b'{"$event":"Gone","a":{"$tuple":[1]},"$unset":["a"],"$$x":{"$event":"AlsoGone"}}'
    event = json.deserialize(data)
    assert type(event) is UnknownEvent
    assert event.name == "Gone"
    assert event.raw["a"] == {"$tuple": [1]}
    assert json.serialize(event) == data
    inner = json.deserialize(b'{"$event":"Outer","original_event":%b}' % data)
    assert type(inner.original_event) is UnknownEvent
    assert json.serialize(inner) == b'{"$event":"Outer","original_event":%b}' % data


def test_an_event_class_defined_later_reads_what_was_unknown():
    unknown = json.deserialize(b'{"$event":"defined.later","a":1}')

    class Later(Event):
        event_name: ClassVar[str] = "defined.later"
        a: int

    assert json.deserialize(b'{"$event":"defined.later","a":1}') == Later(a=1)
    assert type(json.deserialize(json.serialize(unknown))) is UnknownEvent


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"$type":"no_such_module:Thing"}', "no_such_module:Thing, which this program has not loaded; import"),
        (b'{"$type":"this:Thing"}', "import the module that defines it before reading"),
        (b'{"$enum":["antigravity:X","A"]}', "import the module that defines it before reading"),
        (b'{"$type":"os:path"}', "has not loaded"),
        (b'{"$type":"decimal:Decimal"}', "no longer a model"),
        (b'{"$event":"SampleWork"}', r"SampleWork have no value for its field 'n', which has no default"),
        (b'{"$type":"%(m)b:Point"}', "Point have no value for its field 'x'"),
        (b'{"$type":"%(m)b:Pair"}', "Pair have no value for its field 'left'"),
        (b'{"$enum":["%(m)b:Colour","GREEN"]}', "Colour has no member 'GREEN'"),
        (b'{"$enum":["%(m)b:Permission",64]}', "Permission has no member 64"),
        (b'{"$enum":["%(m)b:Point","x"]}', "which is no enum now"),
        (b'{"$adapted":["nobody",1]}', "call register_adapter"),
        (b'{"$future":1}', "'\\$future', which this version"),
        (b'{"$dict":[1]}', "cannot be read: ValueError"),
        (b'{"$set":[[]]}', "cannot be read: TypeError"),
        (b'{"$event":5}', "cannot be read"),
        (b'{"$bytes":"*"}', "cannot be read"),
        (b"{", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
    ],
)
def test_data_that_cannot_be_read_are_an_error(data: bytes, message: str):
    loaded = set(sys.modules)
    with pytest.raises(DeserializationError, match=message):
        json.deserialize(data.replace(b"%(m)b", SAMPLES.encode()))
    assert set(sys.modules) == loaded


def test_reading_does_not_call_a_modules_getattr():
    module = ModuleType("lazy_module")
    asked = []
    module.__getattr__ = asked.append  # type: ignore[method-assign]
    sys.modules["lazy_module"] = module
    try:
        with pytest.raises(DeserializationError, match="has not loaded"):
            json.deserialize(b'{"$type":"lazy_module:Thing"}')
    finally:
        del sys.modules["lazy_module"]
    assert asked == []


def test_classes_may_have_changed_since():
    point = f'{{"$type":"{SAMPLES}:Point","x":1,"dropped":[1]}}'.encode()
    assert json.deserialize(point) == Point(1)
    pair = f'{{"$type":"{SAMPLES}:Pair","left":1,"dropped":[1]}}'.encode()
    assert json.deserialize(pair) == Pair(1)
    person = f'{{"$type":"{SAMPLES}:Person","name":"x","dropped":[1]}}'.encode()
    assert same(json.deserialize(person), Person(name="x"))
    opened = f'{{"$type":"{SAMPLES}:Open","kept":[1]}}'.encode()
    assert same(json.deserialize(opened), Open(kept=[1]))
    guarded = f'{{"$type":"{SAMPLES}:Guarded","shown":1,"hidden":5}}'.encode()
    assert json.deserialize(guarded).hidden == 5
    assert json.deserialize(b'{"$event":"Batch","gone":1}') == Batch(gone=1)


class Money:
    def __init__(self, cents: int):
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return type(other) is Money and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


class Unrelated:
    pass


class MoneyEvent(Event):
    cost: Money


def test_an_adapter_stores_what_the_serializer_does_not_know():
    refused(MoneyEvent(cost=Money(5)), "MoneyEvent.cost", "register_adapter(Money, encode, decode)")
    register_adapter(
        Money, lambda money: {"cents": (money.cents,)}, lambda content: Money(content["cents"][0]), "money"
    )
    event = MoneyEvent(cost=Money(5))
    assert json.deserialize(json.serialize(event)) == event
    assert b'{"$adapted":["money",' in json.serialize(event)
    with pytest.raises(ValueError, match="adapter name 'money' is taken by"):
        register_adapter(Unrelated, str, lambda text: Unrelated(), "money")
    with pytest.raises(ValueError, match="stores it by itself"):
        register_adapter(datetime, str, datetime.fromisoformat)
    register_adapter(Money, lambda money: money, Money, "money")
    refused(Money(5), "value", "nested too deep")
    register_adapter(Money, lambda money: 1 // 0, Money, "money")
    refused(Money(5), "value", "the adapter 'money' failed: ZeroDivisionError")


class Secretive(Event):
    n: int = 0
    _token: str = PrivateAttr(default="")


def test_an_adapter_may_keep_private_attributes_also_of_an_event():
    def decode(content: list[Any]) -> Secretive:
        event = Secretive(n=content[0])
        event._token = content[1]
        return event

    event = Secretive(n=1)
    json.serialize(event)
    event._token = "t"
    refused(event, "Secretive", "private attribute _token")
    register_adapter(Secretive, lambda event: [event.n, event._token], decode)
    assert same(json.deserialize(json.serialize(event)), event)


def test_an_adapter_registered_after_events_were_stored_is_used():
    class Late(Event):
        n: int

    json.serialize(Late(n=1))
    assert b"$adapted" not in json.serialize(Late(n=1))
    register_adapter(Late, lambda event: event.n, lambda n: Late(n=n), "late")
    assert b"$adapted" in json.serialize(Late(n=1))
    assert same(json.deserialize(json.serialize(Late(n=1))), Late(n=1))
