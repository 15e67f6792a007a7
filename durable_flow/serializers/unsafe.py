"""The unsafe tier, Pickle and jsonpickle: not even imported unless somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def unsafe_names(module: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module that shows PickleSerializer and JsonPickleSerializer, too."""

    def found(name: str) -> Any:
        if name == "PickleSerializer":
            from .pickle import PickleSerializer

            return PickleSerializer
        if name == "JsonPickleSerializer":
            from .jsonpickle import JsonPickleSerializer

            return JsonPickleSerializer
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return found
