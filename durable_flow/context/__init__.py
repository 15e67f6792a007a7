"""Context: what a step uses to reach its run; see `context.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..serializers import JsonSerializer
from ..serializers.base import Serializer as BaseSerializer
from ..serializers.unsafe import unsafe_names
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

__getattr__ = unsafe_names(__name__)
