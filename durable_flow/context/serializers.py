"""The serializers by their upstream module name; what each stores is said in `durable_flow.serializers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..serializers import JsonSerializer
from ..serializers.base import Serializer as BaseSerializer
from ..serializers.unsafe import unsafe_names
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

__getattr__ = unsafe_names(__name__)
