"""Context: what a step uses to reach its run; see `context.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import serializers as _serializers
from ..serializers import JsonSerializer
from ..serializers.base import Serializer as BaseSerializer
from .context import Context, get_step_context
from .state_store import DictState, InMemoryStateStore, StateStore

if TYPE_CHECKING:
    from ..serializers import JsonPickleSerializer, PickleSerializer

__all__ = [
    "BaseSerializer",
    "Context",
    "DictState",
    "InMemoryStateStore",
    "JsonPickleSerializer",
    "JsonSerializer",
    "PickleSerializer",
    "StateStore",
    "get_step_context",
]


def __getattr__(name: str) -> Any:
    if name in ("JsonPickleSerializer", "PickleSerializer"):
        return getattr(_serializers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
