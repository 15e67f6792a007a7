"""What the methods of a Context take: wrong arguments are told at the call, with the step and the cure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import WorkflowRuntimeError
from ..events import Event

# Some 30,000 years: journaled times are microseconds, and larger ones fit into no database.
_LONGEST_SECONDS = 1e12


def require_wait(
    place: object, event_type: Any, waiter_event: Any, waiter_id: Any, requirements: Any, timeout: Any
) -> None:
    """Check the arguments of `ctx.wait_for_event`."""
    if isinstance(event_type, Event):
        name = type(event_type).__name__
        raise _wrong(place, f"wait_for_event takes an event class, not an event: write wait_for_event({name})")
    if not _is_event_class(event_type):
        raise _wrong(place, f"wait_for_event takes an event class, not {_name(event_type)}")
    if waiter_event is not None and not isinstance(waiter_event, Event):
        raise _wrong(place, f"waiter_event is an event, InputRequiredEvent(prefix=...), not {_name(waiter_event)}")
    if waiter_id is not None and not isinstance(waiter_id, str):
        raise _wrong(place, f"waiter_id is a string, not {waiter_id!r}")
    if requirements is not None and not isinstance(requirements, Mapping):
        raise _wrong(
            place,
            "requirements are attributes that the event must have, requirements={'user': 'ann'}, "
            f"not a {_name(requirements)}",
        )
    if timeout is not None and not _is_number(timeout):
        raise _wrong(place, f"wait_for_event got timeout={timeout!r}; it takes seconds, or None to wait for ever")


def require_collectable(place: object, event: Any, expected: Any, buffer_id: Any) -> None:
    """Check the arguments of `ctx.collect_events`."""
    if not isinstance(event, Event):
        raise _wrong(place, f"collect_events collects events, not a {_name(event)}: collect_events(ev, [MyEvent] * 3)")
    if not isinstance(expected, Sequence) or not all(map(_is_event_class, expected)):
        raise _wrong(place, "collect_events takes a list of event classes, collect_events(ev, [MyEvent] * 3)")
    if buffer_id is not None and not isinstance(buffer_id, str):
        raise _wrong(place, f"buffer_id is a string, not {buffer_id!r}")


def require_seconds(place: object, seconds: Any) -> None:
    """Check the argument of `ctx.sleep`."""
    if not _is_number(seconds):
        raise _wrong(place, f"ctx.sleep takes seconds, not {seconds!r}")


def require_name(place: object, name: Any) -> None:
    """Check the argument of `ctx.checkpoint`."""
    if not isinstance(name, str) or not name:
        raise _wrong(place, f"a checkpoint has a name, ctx.checkpoint('after search'), not {name!r}")


def _is_event_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Event)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= _LONGEST_SECONDS


def _name(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__


def _wrong(place: Any, problem: str) -> WorkflowRuntimeError:
    step = getattr(place, "step", None)  # None: a step that is called by itself
    where = "" if step is None else f" (step {step!r} of run {place.run.run_id})"
    return WorkflowRuntimeError(problem + where)
