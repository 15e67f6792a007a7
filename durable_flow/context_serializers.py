"""The serializers by the module name of older programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .context.serializers import BaseSerializer, JsonSerializer
from .serializers.unsafe import unsafe_names

if TYPE_CHECKING:
    from .context.serializers import JsonPickleSerializer, PickleSerializer

__all__ = ["BaseSerializer", "JsonPickleSerializer", "JsonSerializer", "PickleSerializer"]

__getattr__ = unsafe_names(__name__)
