"""What log records carry: the fields always, and no text that may quote data."""

from __future__ import annotations

from durable_flow.errors import DeserializationError, RunFinishedError, SerializationError
from durable_flow.logs import fields, said


def test_the_fields_are_always_there():
    assert fields("polled") == {"action": "polled", "run_id": None, "step": None, "attempt": None}
    assert fields("failed", "r", "work", 2, seq=7) == {
        "action": "failed", "run_id": "r", "step": "work", "attempt": 2, "seq": 7,
    }  # fmt: skip


def test_our_own_texts_are_said():
    assert said(RunFinishedError("run r has ended")) == "run r has ended"


def test_texts_that_may_quote_data_are_not_said():
    assert (
        said(SerializationError("Card.number: '4711' is odd", path="Card.number"))
        == "SerializationError at Card.number"
    )
    assert said(DeserializationError("no such field '4711'")) == "durable_flow.errors.DeserializationError"
    assert said(KeyError("4711")) == "KeyError"


def test_an_error_that_was_raised_is_said_with_its_place():
    try:
        int("4711x")
    except ValueError as error:
        text = said(error)
    assert text.startswith(f"ValueError at {__file__}:")
    assert "4711" not in text
