"""Serializers: events and values to bytes and back, exactly or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import exceptions as exceptions  # registers how the event of a failed step is stored
from .adapters import register_adapter
from .base import Seal, Serializer
from .codec import Codec
from .json import JsonSerializer
from .names import register_alias
from .unsafe import unsafe_names

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
    "register_alias",
]

__getattr__ = unsafe_names(__name__)
