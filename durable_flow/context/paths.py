"""Paths such as `user.name` or `items.0`, and state models field by field."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..engine.live import MISSING


def new_state(cls: type[BaseModel]) -> BaseModel:
    """Return a state with every field at its default; ValueError if a field has none."""
    try:
        return cls()
    except Exception as error:
        raise ValueError(f"all fields of the state class {cls.__name__} need defaults: {error}") from error


def defaults_of(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the default of every field, made anew; ValueError if a field has none."""
    return iter_fields(new_state(cls))


def may_have(cls: type[BaseModel], key: str) -> bool:
    """Tell whether a state of this class has such a field, or may have one."""
    return key in cls.model_fields or cls.model_config.get("extra") == "allow"


def iter_fields(state: BaseModel) -> dict[str, Any]:
    """Return a model's fields and extra data by name; cached properties are neither."""
    fields = type(state).model_fields
    values = {name: value for name, value in state.__dict__.items() if name in fields}
    return {**values, **(state.__pydantic_extra__ or {})}


def put_field(state: BaseModel, key: str, value: Any) -> None:
    """Set a field or extra value without validation."""
    if key in type(state).model_fields:
        state.__dict__[key] = value
        state.__pydantic_fields_set__.add(key)
    elif state.__pydantic_extra__ is not None:
        state.__pydantic_extra__[key] = value


def parts_of(path: str) -> list[str]:
    """Return the parts of a path; ValueError for what is none."""
    if type(path) is not str or not path:
        raise ValueError(f"a path into the state is a string that is not empty, not {path!r}")
    return path.split(".")


def nested(parts: Sequence[str], value: Any) -> Any:
    """Return the value in new dicts, one for each part."""
    for part in reversed(parts):
        value = {part: value}
    return value


def child_of(value: Any, part: str) -> Any:
    """Return what lies under one part of a path, MISSING if nothing does."""
    if isinstance(value, Mapping):
        return value.get(part, MISSING)
    if isinstance(value, list | tuple):
        try:
            return value[int(part)]
        except (ValueError, IndexError):
            return MISSING
    return getattr(value, part, MISSING)


def put_below(place: Any, parts: Sequence[str], value: Any, path: str, where: str = "") -> None:
    """Put a value where the last parts of `path` lead to from a place, in new dicts from where nothing lies.

    Raises ValueError if it cannot be put there; its message ends with `where`.
    """
    at = 0
    while at < len(parts) - 1 and (below := child_of(place, parts[at])) is not MISSING:
        place = below
        at += 1
    part = parts[at]
    try:
        _assign(place, part, nested(parts[at + 1 :], value))
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        what = f"{part!r} of a {type(place).__name__}: {error}"
        raise ValueError(f"Path '{path}' cannot be set: {what}{where}") from error


def _assign(place: Any, part: str, value: Any) -> None:
    """Put a value under one part of a path."""
    if isinstance(place, MutableMapping):
        place[part] = value
    elif isinstance(place, list):
        place[int(part)] = value
    else:
        setattr(place, part, value)
