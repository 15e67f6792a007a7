"""Events: pydantic models that also take data nobody declared, and what is like a dict in them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from durable_flow import Event, HumanResponseEvent, StartEvent, StopEvent


class Typed(Event):
    query: str
    limit: int = 3


def test_undeclared_data_are_attributes_and_items():
    event = StartEvent(query="q", top_k=5)
    assert (event.query, event.top_k, event["query"]) == ("q", 5, "q")
    assert (list(event), list(event.keys()), len(event)) == (["query", "top_k"], ["query", "top_k"], 2)
    assert (list(event.values()), dict(event.items()), event.to_dict()) == (
        ["q", 5],
        {"query": "q", "top_k": 5},
        {"query": "q", "top_k": 5},
    )
    assert "query" in event
    assert "other" not in event


def test_what_is_missing_is_an_attribute_error_a_key_error_or_the_default():
    event = StartEvent()
    with pytest.raises(AttributeError, match="query"):
        _ = event.query
    with pytest.raises(KeyError):
        _ = event["query"]
    assert (event.get("query"), event.get("query", "d"), event.get("query", default=0.7)) == (None, "d", 0.7)


def test_get_looks_at_fields_first():
    event = Typed(query="q", more=1)
    assert (event.get("query"), event.get("limit"), event.get("more")) == ("q", 3, 1)


def test_only_undeclared_data_are_like_a_dict():
    event = Typed(query="q", more=1)
    assert (len(event), list(event), event.to_dict(), "query" in event) == (1, ["more"], {"more": 1}, False)
    with pytest.raises(KeyError):
        _ = event["query"]


def test_an_event_is_true_also_without_data():
    assert bool(Event())
    assert len(Event()) == 0


def test_unknown_attributes_may_be_set_and_become_data():
    event = Event()
    event.note = "n"
    event["other"] = 2
    assert event.to_dict() == {"note": "n", "other": 2}


def test_events_are_equal_by_class_fields_and_data():
    assert Typed(query="q") == Typed(query="q")
    assert Typed(query="q") != Typed(query="p")
    assert Typed(query="q", more=1) != Typed(query="q")
    assert StartEvent(a=1) != HumanResponseEvent(a=1)


def test_fields_are_validated():
    with pytest.raises(ValidationError, match="query"):
        Typed()


def test_fields_may_be_of_any_type():
    class Connection:
        pass

    class Opened(Event):
        connection: Connection

    connection = Connection()
    assert Opened(connection=connection).connection is connection


def test_a_stop_event_has_a_result():
    assert StopEvent(result=0).result == 0
    assert StopEvent().result is None


def test_undeclared_data_is_shown_and_dumped_beside_the_fields():
    class Paid(Event):
        amount: int = 1

    paid = Paid(amount=2, currency="EUR")
    assert repr(paid).endswith("Paid(amount=2, currency='EUR')")
    assert paid.model_dump() == {"amount": 2, "currency": "EUR"}
    assert Paid.model_validate(paid.model_dump()) == paid
    assert Paid.model_validate_json(paid.model_dump_json()) == paid
    assert StopEvent(result=3, cost=4).model_dump() == {"result": 3, "cost": 4}
    assert repr(StartEvent(topic="x")) == "StartEvent(topic='x')"
