"""Exceptions as data: they come back with their class, arguments and attributes, or as what stands for them."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from durable_flow.errors import SerializationError, UnreconstructedException
from durable_flow.events import Event, StepFailedEvent
from durable_flow.serializers import JsonSerializer
from durable_flow.serializers.exceptions import put_together, take_apart


class Down(Exception):
    """A constructor of its own: calling it with the arguments of the exception would fail."""

    ran = 0

    def __init__(self, code: int, host: str):
        super().__init__(f"{host} is down")
        self.code = code
        self.host = host
        Down.ran += 1


class OwnText(Exception):
    def __init__(self, n: int):
        self.n = n

    def __str__(self) -> str:
        return f"number {self.n}"


class NoFile(FileNotFoundError):
    def __init__(self, name: str):
        super().__init__(2, "no file", name)


class Slotted(Exception):
    __slots__ = ("code",)


class Counting(Exception):
    """Its text is another one every time."""

    texts = 0

    def __str__(self) -> str:
        Counting.texts += 1
        return str(Counting.texts)


class Failed(Event):
    pass


def stored(error: BaseException) -> Exception:
    serializer = JsonSerializer()
    return put_together(serializer.deserialize(serializer.serialize(take_apart(error))))


def noted() -> Exception:
    error = ValueError("noted")
    error.add_note("look here")
    return error


EXACT = [
    ValueError("x"),
    ValueError(),
    ValueError("two", ("parts", 2)),
    KeyError("key"),
    Down(3, "db"),
    OwnText(5),
    OSError(2, "no such file", "a.txt"),
    NoFile("b.txt"),
    socket.gaierror(-2, "unknown"),
    TimeoutError("late"),
    ImportError("no module", name="numbers", path="x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    StopIteration(7),
    SyntaxError("bad", ("f.py", 1, 2, "x =")),
    json.JSONDecodeError("bad", "{", 1),
    noted(),
    UnreconstructedException("gone", original_type="jobs.Gone"),
    SerializationError("no", path="a.b"),
]


@pytest.mark.parametrize("error", EXACT, ids=lambda error: type(error).__name__)
def test_an_exception_comes_back_as_it_was(error):
    again = stored(error)
    assert type(again) is type(error)
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert vars(again) == vars(error)
    for name in ("errno", "filename", "name", "path", "start", "value", "lineno"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_no_constructor_of_the_programs_is_called():
    error = Down(1, "db")
    before = Down.ran
    stored(error)
    assert Down.ran == before


@given(st.lists(st.text() | st.integers() | st.none() | st.tuples(st.booleans())))
def test_any_storable_arguments_come_back(arguments):
    assert stored(RuntimeError(*arguments)).args == tuple(arguments)


def test_cause_and_traceback_are_not_kept():
    try:
        raise ValueError("outer") from KeyError("inner")
    except ValueError as error:
        again = stored(error)
    assert (again.__cause__, again.__traceback__) == (None, None)


def invalid() -> Exception:
    class Model(BaseModel):
        n: int

    with pytest.raises(ValidationError) as raised:
        Model(n="x")
    return raised.value


@pytest.mark.parametrize("make", [lambda: Slotted("x"), Counting, invalid], ids=["slots", "text", "pydantic"])
def test_what_could_not_come_back_as_it_was_is_not_taken_apart(make):
    with pytest.raises((ValueError, TypeError)):
        take_apart(make())


@pytest.mark.parametrize("error", [ValueError(object()), ExceptionGroup("g", [ValueError("x")])])
def test_arguments_that_cannot_be_stored_are_refused(error):
    with pytest.raises(SerializationError):
        stored(error)


@pytest.mark.parametrize(
    "name", ["jobs:Gone", "builtins:int", "builtins:SystemExit", f"{__name__}:stored", "os:system", "builtins:exec"]
)
def test_a_class_that_is_no_known_exception_is_told_by_name(name):
    again = put_together({"type": name, "message": "text", "arguments": ["text"], "attributes": {}})
    assert type(again) is UnreconstructedException
    assert (str(again), again.original_type) == ("text", name.replace(":", "."))


def test_a_class_that_has_changed_is_told_by_name():
    parts = take_apart(OwnText(5))
    again = put_together({**parts, "attributes": {"n": 6}})
    assert type(again) is UnreconstructedException
    assert str(again) == "number 5"


def failure(error: Exception) -> StepFailedEvent:
    return StepFailedEvent(
        step_name="work", input_event=Failed(why="x"), exception=error, attempts=2, elapsed_seconds=1.5,
        failed_at=datetime(2026, 1, 2, tzinfo=UTC), extra=[1],
    )  # fmt: skip


def test_the_event_of_a_failure_comes_back_with_its_exception_and_its_input():
    serializer = JsonSerializer()
    again = serializer.deserialize(serializer.serialize(failure(Down(3, "db"))))
    assert type(again) is StepFailedEvent
    assert type(again.exception) is Down
    assert vars(again.exception) == {"code": 3, "host": "db"}
    assert again.input_event == Failed(why="x")
    assert (again.step_name, again.attempts, again.elapsed_seconds) == ("work", 2, 1.5)
    assert again.failed_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert again.to_dict() == {"extra": [1]}


def test_the_event_of_a_failure_lies_in_other_values_too():
    serializer = JsonSerializer()
    [again] = serializer.deserialize(serializer.serialize({"seen": [failure(Down(3, "db"))]}))["seen"]
    assert str(again.exception) == "db is down"


def test_the_event_of_an_exception_that_cannot_be_stored_is_refused_with_its_path():
    with pytest.raises(SerializationError, match="StepFailedEvent"):
        JsonSerializer().serialize(failure(ValueError(object())))
