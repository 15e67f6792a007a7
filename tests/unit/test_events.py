"""Events: pydantic models that also take data nobody declared, and what is like a dict in them."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from durable_flow import Event, HumanResponseEvent, StartEvent, StopEvent, WorkflowFailedEvent


class Typed(Event):
    query: str
    limit: int = 3


class Answered(StopEvent):
    score: int = 1


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


def test_a_result_may_stand_first():
    assert StopEvent({"a": 1}) == StopEvent(result={"a": 1})
    assert Answered("yes", score=2) == Answered(result="yes", score=2)
    with pytest.raises(TypeError, match="one result"):
        StopEvent(1, 2)
    with pytest.raises(TypeError, match="one result"):
        StopEvent(1, result=2)


def test_a_stop_event_without_a_result_is_written_without_one():
    assert StopEvent().model_dump() == {}
    assert StopEvent(result=0).model_dump() == {"result": 0}
    assert Answered(score=2, by="ann").model_dump() == {"score": 2, "by": "ann"}
    assert Answered(score=2).model_dump_json() == '{"score":2}'
    assert TypeAdapter(dict[str, Answered]).dump_python({"a": Answered()}) == {"a": {"score": 1}}
    assert repr(Answered(score=2)) == "Answered(score=2)"
    assert Answered.model_validate(Answered(score=2).model_dump()) == Answered(score=2)


def test_a_result_that_a_subclass_declares_is_always_written():
    class Named(StopEvent):
        result: str | None

    assert Named(result=None).model_dump() == {"result": None}


def test_a_plain_stop_event_is_printed_as_its_result():
    assert str(StopEvent(result=[1])) == "[1]"
    assert str(Answered(score=2)) == "score=2"


def test_the_schema_of_a_stop_event_has_its_fields():
    for mode in ("validation", "serialization"):
        assert Answered.model_json_schema(mode=mode)["properties"]["score"] == {
            "default": 1, "title": "Score", "type": "integer"
        }  # fmt: skip


def test_a_failed_event_may_be_made_of_an_exception():
    error = ValueError("no")
    event = WorkflowFailedEvent(step_name="rank", exception=error, attempts=1)
    assert event.exception is error
    assert (event.exception_type, event.exception_message) == ("builtins.ValueError", "no")
