"""The shape of a workflow as text, and what has changed between two: steps, accepted and emitted events, the state."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple


class StepShape(NamedTuple):
    """Names of the events that a step accepts and returns; `fan_in` is how it collects, empty if it does not."""

    accepted: Iterable[str]
    emitted: Iterable[str]
    fan_in: list[Any]


def shape_text(steps: Mapping[str, StepShape], state: tuple[str, Iterable[str]] | None) -> str:
    """Return the shape as canonical JSON; `state` is the name and the fields of the state class."""
    content = {
        "steps": {name: [sorted(step.accepted), sorted(step.emitted), *step.fan_in] for name, step in steps.items()},
        "state": None if state is None else [state[0], sorted(state[1])],
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def fingerprint_of(shape: str) -> str:
    """Return 16 hexadecimal digits that tell shapes apart."""
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


@lru_cache(maxsize=64)  # a deployment meets many runs of few shapes
def changes(before: str, now: str) -> tuple[str, ...]:
    """Say what has changed from one shape to another, a few words each; empty if nothing has."""
    try:
        old, new = json.loads(before), json.loads(now)
        return (*_of_steps(old["steps"], new["steps"]), *_of_state(old["state"], new["state"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        return () if before == now else ("what its steps were is not recorded in a form that can be compared",)


def _of_steps(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    for name in sorted(old.keys() - new.keys()):
        yield f"step {name!r} is gone"
    for name in sorted(new.keys() - old.keys()):
        yield f"step {name!r} is new"
    for name in sorted(old.keys() & new.keys()):
        (accepted, emitted, *fan_in), (accepts, emits, *collects) = old[name], new[name]
        parts = [*_of_names("accepts", accepted, accepts), *_of_names("returns", emitted, emits)]
        if fan_in != collects:
            parts.append("collects in another way")
        if parts:
            yield f"step {name!r} {' and '.join(parts)}"


def _of_state(old: list[Any] | None, new: list[Any] | None) -> Iterable[str]:
    (before, had), (after, has) = old or (None, []), new or (None, [])
    if before != after:
        yield f"the state class is {after or 'none'}, before {before or 'none'}"
    elif parts := list(_of_names("has", had, has)):
        yield f"the state class {after} {' and '.join(parts)}"


def _of_names(verb: str, old: list[str], new: list[str]) -> Iterable[str]:
    if more := [name for name in new if name not in old]:
        yield f"{verb} {', '.join(more)} too"
    if less := [name for name in old if name not in new]:
        yield f"{verb} {', '.join(less)} no longer"


def step_names(shape: str) -> frozenset[str]:
    """Return the names of the steps of a shape."""
    try:
        return frozenset(json.loads(shape)["steps"])
    except (ValueError, LookupError, TypeError):
        return frozenset()
