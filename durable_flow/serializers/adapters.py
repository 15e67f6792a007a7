"""Adapters: how values of classes that the JSON serializer does not know are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from .names import stored_name
from .scalars import NATIVE

T = TypeVar("T")


class Adapter(NamedTuple):
    """Stores values of exactly `cls` under `name`, as what `encode` returns."""

    cls: type
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_by_class: dict[type, Adapter] = {}
_by_name: dict[str, Adapter] = {}


def register_adapter(
    cls: type[T], encode: Callable[[T], Any], decode: Callable[[Any], T], name: str | None = None
) -> None:
    """Tell the JSON serializer, in the whole process, how to store values of `cls` (not of its subclasses).

    `encode` returns any value that can itself be stored; `decode` gets an equal one and must return a value equal to
    the original. `name` is what stored data are marked with; default is the class's module and qualname. A program
    that reads the data needs an adapter of the same name. Registering a class again replaces its adapter.

    Raises ValueError if another class has this name, or if the serializer stores the class by itself.
    """
    if cls in NATIVE:
        raise ValueError(f"no adapter for {cls.__qualname__}: the JSON serializer stores it by itself, exactly")
    name = stored_name(cls) if name is None else name
    other = _by_name.get(name)
    if other is not None and other.cls is not cls:
        if stored_name(other.cls) != stored_name(cls):
            raise ValueError(
                f"adapter name {name!r} is taken by {stored_name(other.cls)}: give the one of {stored_name(cls)} "
                "another name="
            )
        _by_class.pop(other.cls, None)  # its module was loaded again; old instances would come back as the new class
    before = _by_class.get(cls)
    if before is not None:
        _by_name.pop(before.name, None)
    _by_class[cls] = _by_name[name] = Adapter(cls, name, encode, decode)


def adapter_of(cls: type) -> Adapter | None:
    """Return the adapter for values of exactly this class."""
    return _by_class.get(cls)


def adapter_named(name: str) -> Adapter | None:
    """Return the adapter whose data are marked with this name."""
    return _by_name.get(name)
