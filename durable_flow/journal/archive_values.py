"""What values of an archive may be: of the types that their fields say, numbers in range, texts that databases take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import ArchiveError
from ..records import ErrorInfo, RunCancelled, RunParked, RunTimedOut
from .text import is_fit

NUMBER_LIMIT = 1 << 62
"""Numbers are smaller. Databases take twice as much, so that one more, or the sum of two times, is no error there."""

# What went wrong is told whatever characters are in it; it is stored escaped.
_ANY_TEXT = (ErrorInfo, RunParked, RunCancelled, RunTimedOut)


def require_sound(value: Any, what: str) -> None:
    """Look at all that is in a value. Raises ArchiveError, in which `what` has a text or a number that is not taken."""
    if isinstance(value, str):
        if not is_fit(value):
            raise ArchiveError(
                f"{what} has the text {value[:80]!r} with a NUL character or half a surrogate pair, which no database "
                "takes"
            )
    elif isinstance(value, int):
        if not -NUMBER_LIMIT < value < NUMBER_LIMIT:
            raise ArchiveError(f"{what} has a number out of range")
    elif not isinstance(value, _ANY_TEXT):
        for part in _parts(value):
            require_sound(part, what)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value, *value.values())
    if isinstance(value, (tuple, list, set, frozenset)):
        return value
    return [getattr(value, field.name) for field in fields(value)] if is_dataclass(value) else ()


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type, with all that is in it: what was read from data may be of any."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is tuple:
        return type(value) is tuple and all(fits(part, arguments[0]) for part in value)
    cls: Any = type(value)
    if cls is not (NoneType if hint is None else hint):
        return False
    if hasattr(hint, "_fields"):
        return all(fits(part, part_hint) for part, part_hint in zip(value, _hints(hint), strict=True))
    return True


@cache
def _hints(cls: Any) -> tuple[Any, ...]:
    hints = get_type_hints(cls)
    return tuple(hints[name] for name in cls._fields)
