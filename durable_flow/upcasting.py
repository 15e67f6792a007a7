"""Upcasters: how stored data of an older version of a class are read as today's. The journal is never rewritten."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from .errors import DeserializationError, WorkflowValidationError

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
F = TypeVar("F", bound=Upcaster)

_VERSIONS = ("event_version", "stored_version")

_by_class: weakref.WeakKeyDictionary[type, dict[int, Upcaster]] = weakref.WeakKeyDictionary()
_by_name: dict[str, dict[int, Upcaster]] = {}


def upcast(cls: type | str, *, from_version: int) -> Callable[[F], F]:
    """Decorate the function that makes data of `from_version` of a class into data of the next version.

    `cls` is the class, or the name under which it is stored. Which version a class has its `event_version` says (an
    event), or its `stored_version` (any other model, dataclass or namedtuple): a `ClassVar[int]`, 1 if it has none. The
    function gets a dict of the stored fields with their values, its own to change, and returns the dict of the next
    version. Data that are older still pass through one function after another. A class derived from a versioned one
    that sets no version of its own is read through the functions of its base.

    Raises WorkflowValidationError for a step that has a function already, and for one that the class does not need.
    """
    if type(from_version) is not int or from_version < 1:
        raise WorkflowValidationError(f"@upcast: from_version is a number from 1, not {from_version!r}.")
    if isinstance(cls, type):
        version = version_of(cls)
        if from_version >= version:
            raise WorkflowValidationError(
                f"@upcast({cls.__qualname__}, from_version={from_version}): the class is of version {version}, so "
                f"nothing is made of its data. Give it `{_attribute(cls)}: ClassVar[int] = {from_version + 1}`."
            )
    elif not isinstance(cls, str) or not cls:
        raise WorkflowValidationError(f"@upcast takes a class, or the name under which it is stored, not {cls!r}.")

    def register(function: F) -> F:
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise WorkflowValidationError(
                f"@upcast(from_version={from_version}) decorates a plain function from dict to dict, not {function!r}."
            )
        chain = _by_class.setdefault(cls, {}) if isinstance(cls, type) else _by_name.setdefault(cls, {})
        names = _names(cls) if isinstance(cls, type) else (cls,)
        others = [chain] + [steps for other, steps in _other_chains(cls, names) if other is not cls]
        before = next((steps[from_version] for steps in others if from_version in steps), None)
        if before is not None and not _is_again(before, function):
            raise WorkflowValidationError(
                f"@upcast({names[0]}, from_version={from_version}): {_called(before)} does that already, and "
                f"{_called(function)} would, too. One function leads from a version to the next: remove one of them."
            )
        chain[from_version] = function
        return function

    return register


def version_of(cls: type) -> int:
    """Return the version of a class's stored data."""
    attribute = _attribute(cls)
    if is_dataclass(cls) and any(field.name == attribute for field in fields(cls)):
        return 1
    if attribute in getattr(cls, "_fields", ()):
        return 1
    version = getattr(cls, attribute, 1)
    return version if type(version) is int and version > 0 else 1


def upcasted(cls: type, content: dict[str, Any], stored: Any, name: str) -> dict[str, Any]:
    """Return stored data of version `stored` as those of today's class; `name` is the one that the data give it.

    Raises DeserializationError if a function is missing or fails, and for data of a newer version.
    """
    newest = version_of(cls)
    if type(stored) is not int or not 1 <= stored <= newest:
        raise DeserializationError(
            f"the stored data of {name} are of version {stored}, and this program knows it up to version {newest}: "
            "newer code has written them. Let that code read them"
        )
    for version in range(stored, newest):
        step = _find(cls, version, name)
        if step is None:
            raise DeserializationError(
                f"the stored data of {name} are of version {stored}, today's is {newest}, and no function leads from "
                f"version {version} to {version + 1}; write it: @upcast({cls.__name__}, from_version={version})"
            )
        try:
            content = step(content)
        except Exception as error:
            raise DeserializationError(
                f"{_called(step)} could not make version {version + 1} of {name} of its version {version}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise DeserializationError(
                f"{_called(step)} returned no dict of fields for version {version + 1} of {name}, but "
                f"{type(content).__name__}; return the changed dict"
            )
    return content


def _find(cls: type, version: int, name: str) -> Upcaster | None:
    for base in cls.__mro__:
        found = _by_class.get(base, {}).get(version)
        if found is None:
            names = (*_names(base), name) if base is cls else _names(base)
            found = next((_by_name[each][version] for each in names if version in _by_name.get(each, ())), None)
        if found is not None or any(attribute in vars(base) for attribute in _VERSIONS):
            return found  # further bases count versions of their own
    return None


def _names(cls: type) -> tuple[str, ...]:
    name = getattr(cls, "_stored_name", None) or f"{cls.__module__}:{cls.__qualname__}"
    return (str(name), *vars(cls).get("event_aliases", ()))


def _other_chains(cls: type | str, names: tuple[str, ...]) -> Iterator[tuple[type | str, dict[int, Upcaster]]]:
    """Yield the functions that were registered for the same class in the other way."""
    if isinstance(cls, type):
        yield from ((name, _by_name[name]) for name in names if name in _by_name)
    else:
        yield from ((other, chain) for other, chain in list(_by_class.items()) if cls in _names(other))


def _attribute(cls: type) -> str:
    return next((name for name in _VERSIONS if hasattr(cls, name)), _VERSIONS[1])


def _is_again(before: Upcaster, function: Upcaster) -> bool:
    """Tell whether a module was loaded again, or a cell of a notebook ran again."""
    if _called(before) != _called(function):
        return False
    # Functions that nobody calls by name are often all named alike.
    return getattr(function, "__name__", "_") not in ("_", "<lambda>") or _line(before) == _line(function)


def _line(function: Upcaster) -> int | None:
    code = getattr(function, "__code__", None)
    return None if code is None else code.co_firstlineno


def _called(function: Upcaster) -> str:
    name = getattr(function, "__qualname__", None) or repr(function)
    return f"{getattr(function, '__module__', '?')}.{name}"
