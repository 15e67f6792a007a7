"""Facts as columns of a journal row, and back: every kind, as compact as plain SQL can still read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, get_origin, get_type_hints

from .. import records
from ..errors import DeserializationError
from ..records import ContextSet, EncodedEvent, EncodedValue, ErrorInfo, EventEmitted, Fact, StepCompleted, TaskId


class Columns(NamedTuple):
    """What of a journal row holds a fact.

    `data` is JSON in ASCII: the fields that no column holds, without those that have their usual value; None if none
    is left. `v` is the version of an event's class.
    """

    kind: str
    task: int | None = None
    step: str | None = None
    name: str | None = None
    data: str | None = None
    codec: str | None = None
    payload: bytes | None = None
    v: int | None = None


class _Layout(NamedTuple):
    """Which field of a fact goes to the `name` column, and which is the event or value in codec and payload.

    A field `task` goes to task and step, and every other field to `data`. An event's name takes the `name` column.
    """

    name: str | None = None
    event: str | None = None
    value: str | None = None


_LAYOUTS: dict[type, _Layout] = {
    records.RunStarted: _Layout(name="workflow", value="arguments"),
    records.RunClaimed: _Layout(name="worker"),
    records.MessageReceived: _Layout(name="message_id"),
    records.EventEmitted: _Layout(event="event"),
    records.StepCompleted: _Layout(),
    records.StepFailed: _Layout(event="event", value="exception"),
    records.ContextSet: _Layout(name="key", value="value"),
    records.ContextSpliced: _Layout(name="key", value="tail"),
    records.ContextDeleted: _Layout(name="key"),
    records.EventCollected: _Layout(event="event"),
    records.BufferReleased: _Layout(name="buffer"),
    records.WaitOpened: _Layout(name="name", event="prompt", value="requirements"),
    records.WaitAnswered: _Layout(name="wait_id"),
    records.WaitTimedOut: _Layout(name="wait_id"),
    records.WaitClosed: _Layout(name="wait_id"),
    records.CallRecorded: _Layout(name="name", value="result"),
    records.EffectReused: _Layout(name="name"),
    records.TimerSet: _Layout(),
    records.TimerFired: _Layout(),
    records.ChildStarted: _Layout(name="workflow", value="arguments"),
    records.ChildAsked: _Layout(),
    records.ChildEnded: _Layout(name="status"),
    records.StreamPublished: _Layout(),
    records.StreamReset: _Layout(),
    records.StepDiverged: _Layout(name="name"),
    records.CheckpointNamed: _Layout(name="name"),
    records.FanOutOpened: _Layout(),
    records.JoinFired: _Layout(name="step"),
    records.FanOutClosed: _Layout(),
    records.RunAtRest: _Layout(),
    records.RunParked: _Layout(),
    records.RunResumed: _Layout(),
    records.RunCompleted: _Layout(event="result"),
    records.RunFailed: _Layout(),
    records.RunCancelled: _Layout(),
    records.RunTimedOut: _Layout(),
    records.StateImported: _Layout(name="parent", value="state"),
    records.StateEdited: _Layout(name="by", value="patch"),
    records.PendingDropped: _Layout(),
    records.JournalCompacted: _Layout(value="state"),
}

# What a field mostly is, and is therefore not written. An attempt is mostly the first one of a task.
_USUAL: dict[str, Any] = {
    "k": 0, "targets": (), "step": None, "answers": None, "retry_at": None, "explicit": False, "human": False,
    "deadline": None, "schema": None, "arguments": None, "wait_id": None, "previous": None, "joins": (), "scope": 0,
    "handler": None, "began_at": None,
    "parent": None, "independent": False,
}  # fmt: skip
# Stored elsewhere: the stream table has the items.
_ELSEWHERE = {"items"}

_to_json: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_from_json: Callable[[str], Any] = json.JSONDecoder().decode
_ABSENT: Any = object()


class _Plan(NamedTuple):
    """The fields of a kind that go to `data`: name, usual value and what reads them back."""

    layout: _Layout
    fields: tuple[str, ...]
    data: tuple[tuple[str, Any, Callable[[Any], Any] | None], ...]


def _plan(kind: type, layout: _Layout) -> _Plan:
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    types = get_type_hints(kind)
    data = []
    for field in fields:
        if field in layout or field == "task" or field in _ELSEWHERE:
            continue
        back: Callable[[Any], Any] | None = None
        if get_origin(types[field]) is tuple:
            back = tuple
        elif types[field] is ErrorInfo:
            back = ErrorInfo._make
        usual = None if (kind, field) == (EventEmitted, "k") else _USUAL.get(field, _ABSENT)
        data.append((field, usual, back))
    return _Plan(layout, fields, tuple(data))


_PLANS = {kind: _plan(kind, layout) for kind, layout in _LAYOUTS.items()}
_KINDS: dict[str, type] = {kind.__name__: kind for kind in _LAYOUTS}

_Names = tuple[str, ...]
# The JSON of targets (and joins) by them, and back: few different ones in a program. Cleared when grown too large.
_targets_json: dict[_Names, str] = {}
_joins_json: dict[tuple[_Names, _Names], str] = {}
_json_targets: dict[str | None, tuple[_Names, _Names]] = {None: ((), ())}


def to_columns(fact: Fact) -> Columns | tuple[Any, ...]:
    """Return a fact as columns. The three most frequent kinds take a short cut to what `_any_to_columns` returns."""
    if isinstance(fact, ContextSet):
        key, (codec, payload), task, attempt, k = fact
        if task is None:
            return _any_to_columns(fact)
        data = None if attempt == 1 and not k else _attempt_json(attempt, k)
        return "ContextSet", task[0], task[1], key, data, codec, payload, None
    if isinstance(fact, EventEmitted):
        (name, codec, v, payload), task, attempt, ordinal, targets, step, answers, joins = fact
        if ordinal is not None or step is not None or answers is not None or attempt != (task is not None):
            return _any_to_columns(fact)
        data = _targets_json.get(targets) if not joins else _joins_json.get((targets, joins))
        if data is None:
            data = _remember_targets(targets, joins)
        if task is None:
            return "EventEmitted", None, None, name, data or None, codec, payload, v
        return "EventEmitted", task[0], task[1], name, data or None, codec, payload, v
    if isinstance(fact, StepCompleted):
        (seq, step), attempt = fact
        return "StepCompleted", seq, step, None, None if attempt == 1 else f'{{"attempt":{attempt}}}', None, None, None
    return _any_to_columns(fact)


def _attempt_json(attempt: int, k: int) -> str:
    parts = [f'"attempt":{attempt}'] if attempt != 1 else []
    if k:
        parts.append(f'"k":{k}')
    return "{" + ",".join(parts) + "}"


def _remember_targets(targets: _Names, joins: _Names) -> str:
    if len(_json_targets) > 10_000:
        _targets_json.clear()
        _joins_json.clear()
        _json_targets.clear()
    named = {field: names for field, names in (("targets", targets), ("joins", joins)) if names}
    data = _to_json(named) if named else ""
    if joins:
        _joins_json[targets, joins] = data
    else:
        _targets_json[targets] = data
    _json_targets[data or None] = targets, joins
    return data


def _any_to_columns(fact: Fact) -> Columns:
    layout, fields, data_fields = _PLANS[type(fact)]
    values: dict[str, Any] = dict(zip(fields, fact, strict=True))
    task: TaskId | None = values.get("task")
    data: dict[str, Any] = {}
    for field, usual, _ in data_fields:
        value = values[field]
        if field == "attempt":
            usual = int(task is not None)
        if value != usual:
            data[field] = value
    name = values[layout.name] if layout.name is not None else None
    event: EncodedEvent | None = values[layout.event] if layout.event is not None else None
    value_: EncodedValue | None = values[layout.value] if layout.value is not None else None
    codec = payload = v = None
    if event is not None:
        codec, payload, v = event.codec, event.data, event.v
        if layout.name is None:
            name = event.name
        else:
            data[layout.event or ""] = event.name
    if value_ is not None and layout.event is None:
        codec, payload = value_
    elif value_ is not None:
        # An event and a value lie in one payload, so that a seal covers both; the event comes first.
        data[layout.value or ""] = [value_.codec, len(payload or b"")]
        payload = (payload or b"") + value_.data
    return Columns(
        type(fact).__name__,
        task.seq if task is not None else None,
        task.step if task is not None else None,
        name,
        _to_json(data) if data else None,
        codec,
        payload,
        v,
    )


def to_fact(
    kind: str,
    task: int | None,
    step: str | None,
    name: str | None,
    data: str | None,
    codec: str | None,
    payload: bytes | None,
    v: int | None,
) -> Fact:
    """Return the fact that these columns hold. Raises DeserializationError for a kind this version does not know."""
    if data is None and task is not None:
        if kind == "ContextSet":
            return ContextSet(name, EncodedValue(codec, payload), TaskId(task, step), 1, 0)  # type: ignore[arg-type]
        if kind == "StepCompleted":
            return StepCompleted(TaskId(task, step), 1)  # type: ignore[arg-type]
    if kind == "EventEmitted" and (known_data := _json_targets.get(data)) is not None:
        targets, joins = known_data
        event = EncodedEvent(name, codec, v, payload)  # type: ignore[arg-type]
        if task is None:
            return EventEmitted(event, None, 0, None, targets, joins=joins)
        return EventEmitted(event, TaskId(task, step), 1, None, targets, joins=joins)  # type: ignore[arg-type]
    known = _KINDS.get(kind)
    if known is None:
        raise DeserializationError(
            f"a record of kind {kind!r} is not known to this version of durable_flow; a newer one wrote it. "
            "Upgrade the package to read this run."
        )
    layout, fields, data_fields = _PLANS[known]
    stored = _from_json(data) if data is not None else {}
    if known is EventEmitted and stored and stored.keys() <= {"targets", "joins"}:
        _remember_targets(tuple(stored.get("targets", ())), tuple(stored.get("joins", ())))
    values: dict[str, Any] = {}
    if "task" in fields:
        values["task"] = TaskId(task, step) if task is not None else None  # type: ignore[arg-type]
    for field, usual, back in data_fields:
        value = stored.get(field, _ABSENT)
        if value is _ABSENT:
            value = int(task is not None) if field == "attempt" else usual
            if value is _ABSENT:
                raise DeserializationError(f"its data do not hold {field!r}")
        elif back is not None:
            value = back(value)
        values[field] = value
    if layout.name is not None:
        values[layout.name] = name
    if layout.event is None:
        if layout.value is not None:
            values[layout.value] = EncodedValue(codec, payload) if codec is not None else None  # type: ignore[arg-type]
        return known(**values)  # type: ignore[no-any-return]
    if layout.value is not None:
        second = stored.get(layout.value)
        if second is not None and payload is not None:
            values[layout.value] = EncodedValue(second[0], payload[second[1] :])
            payload = payload[: second[1]]
        else:
            values[layout.value] = None
    event_name = name if layout.name is None else stored.get(layout.event)
    has_event = event_name is not None
    values[layout.event] = EncodedEvent(event_name, codec, v, payload) if has_event else None  # type: ignore[arg-type]
    return known(**values)  # type: ignore[no-any-return]
