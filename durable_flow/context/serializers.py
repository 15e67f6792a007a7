"""The serializers by their upstream module name; what each stores is said in `durable_flow.serializers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import serializers as _serializers
from ..serializers import JsonSerializer
from ..serializers.base import Serializer as BaseSerializer
from ..utils import get_qualified_name, import_module_from_qualified_name

if TYPE_CHECKING:
    from ..serializers import JsonPickleSerializer, PickleSerializer

__all__ = [
    "BaseSerializer",
    "JsonPickleSerializer",
    "JsonSerializer",
    "PickleSerializer",
    "get_qualified_name",
    "import_module_from_qualified_name",
]


def __getattr__(name: str) -> Any:
    # Unpickling is the unsafe tier: it is not even imported unless somebody asks for it.
    if name in ("JsonPickleSerializer", "PickleSerializer"):
        return getattr(_serializers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
