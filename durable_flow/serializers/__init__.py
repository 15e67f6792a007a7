"""Serializers: events and values to bytes and back, exactly or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import exceptions as exceptions  # registers how the event of a failed step is stored
from .adapters import register_adapter
from .base import Seal, Serializer
from .codec import Codec
from .json import JsonSerializer

if TYPE_CHECKING:
    from .jsonpickle import JsonPickleSerializer
    from .pickle import PickleSerializer

__all__ = [
    "Codec",
    "JsonPickleSerializer",
    "JsonSerializer",
    "PickleSerializer",
    "Seal",
    "Serializer",
    "register_adapter",
]


def __getattr__(name: str) -> Any:
    # Pickle is the unsafe tier: it is not even imported unless somebody asks for it.
    if name == "PickleSerializer":
        from .pickle import PickleSerializer

        return PickleSerializer
    if name == "JsonPickleSerializer":
        from .jsonpickle import JsonPickleSerializer

        return JsonPickleSerializer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
