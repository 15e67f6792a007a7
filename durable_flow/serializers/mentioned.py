"""Classes that stand in the annotations of fields, for those that cannot be found by a name: local to a function."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from .names import stored_name


def local_classes(classes: Iterable[type]) -> tuple[type, ...]:
    """Return the models, dataclasses and enums defined in functions that fields of these classes name.

    Fields of those are looked at too. Of two classes with one stored name the first is returned.
    """
    found: dict[str, type] = {}
    seen: set[type] = set()
    left = list(classes)
    while left:
        cls = left.pop(0)
        if cls in seen:
            continue
        seen.add(cls)
        for annotation in _annotations(cls):
            for named in _classes_in(annotation):
                left.append(named)
                if "<locals>" in named.__qualname__:
                    found.setdefault(stored_name(named), named)
    return tuple(found.values())


def _annotations(cls: type) -> Iterable[Any]:
    if issubclass(cls, BaseModel):
        return [field.annotation for field in cls.model_fields.values()]
    if not dataclasses.is_dataclass(cls):
        return ()
    try:
        return list(get_type_hints(cls).values())
    except Exception:  # a name that cannot be resolved; then nobody else could find the class either
        return ()


def _classes_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel | Enum) or dataclasses.is_dataclass(annotation)
    ):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes_in(argument)
