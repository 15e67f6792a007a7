"""Exceptions as data: what a step raised, taken apart and put together again without importing or running anything.

No `__init__` of the program's is called: an exception comes back with the arguments and attributes that it had, or as
an UnreconstructedException. Traceback, cause and context are not kept.
"""

from __future__ import annotations

from typing import Any

from ..errors import UnreconstructedException
from ..events import StepFailedEvent
from .adapters import register_adapter
from .names import find_loaded, stored_name

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for every class made by a `class` statement


def take_apart(error: BaseException) -> dict[str, Any]:
    """Return an exception as plain values; those that its arguments and attributes hold are the exception's own.

    Raises ValueError for one that could not be put together again as it was.
    """
    cls = type(error)
    base: Any = _builtin(cls)
    reduced: Any = base.__reduce__(error)
    again, arguments, *more = reduced if isinstance(reduced, tuple) else (None, ())
    if again is not cls:
        raise ValueError(f"{stored_name(cls)} is not made of its arguments")
    if any(vars(parent).get("__slots__") for parent in cls.__mro__):
        raise ValueError(f"{stored_name(cls)} keeps attributes in slots")
    parts = {
        "type": stored_name(cls), "message": str(error), "arguments": list(arguments),
        "attributes": dict(more[0] or {}) if more else {},
    }  # fmt: skip
    if not _is_same(_made(cls, parts), error):
        raise ValueError(f"{stored_name(cls)} is not what its arguments and attributes make")
    return parts


def put_together(parts: dict[str, Any]) -> Exception:
    """Return the exception that these values were, an UnreconstructedException if this program has no such class."""
    cls = find_loaded(parts["type"])
    if cls is not None and issubclass(cls, Exception):
        try:
            error: Exception = _made(cls, parts)
        except Exception:
            pass  # the class has changed
        else:
            if str(error) == parts["message"]:
                return error
    return UnreconstructedException(parts["message"], original_type=parts["type"].replace(":", "."))


def unreconstructed(type_name: str, message: str) -> UnreconstructedException:
    """Return what stands for an exception of which class and text alone are known."""
    return UnreconstructedException(message, original_type=type_name)


def _made(cls: type, parts: dict[str, Any]) -> Any:
    base: Any = _builtin(cls)
    error = base.__new__(cls, *parts["arguments"])
    base.__init__(error, *parts["arguments"])
    if parts["attributes"]:
        base.__setstate__(error, parts["attributes"])
    return error


def _builtin(cls: type) -> type:
    """Return the builtin exception that a class is or derives from."""
    return next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)


def _is_same(made: BaseException, error: BaseException) -> bool:
    return type(made) is type(error) and str(made) == str(error) and repr(made) == repr(error)


def _failure_to_data(event: StepFailedEvent) -> dict[str, Any]:
    if type(event) is not StepFailedEvent:
        raise TypeError(f"{type(event).__name__} is another event")
    content = {**event.__dict__, **event.to_dict()}
    return {**content, "exception": take_apart(event.exception)}


def _failure_from_data(content: dict[str, Any]) -> StepFailedEvent:
    return StepFailedEvent(**{**content, "exception": put_together(content["exception"])})


register_adapter(StepFailedEvent, _failure_to_data, _failure_from_data, "StepFailedEvent")
