"""The serializers by the module name of older programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import serializers as _serializers
from .context.serializers import BaseSerializer, JsonSerializer

if TYPE_CHECKING:
    from .context.serializers import JsonPickleSerializer, PickleSerializer

__all__ = ["BaseSerializer", "JsonPickleSerializer", "JsonSerializer", "PickleSerializer"]


def __getattr__(name: str) -> Any:
    # Unpickling is the unsafe tier: it is not even imported unless somebody asks for it.
    if name in ("JsonPickleSerializer", "PickleSerializer"):
        return getattr(_serializers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
