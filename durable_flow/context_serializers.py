"""The serializers by the module name of older programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context.serializers import BaseSerializer, JsonSerializer

if TYPE_CHECKING:
    from .context.serializers import PickleSerializer

__all__ = ["BaseSerializer", "JsonSerializer", "PickleSerializer"]


def __getattr__(name: str) -> Any:
    if name == "PickleSerializer":
        from .context.serializers import PickleSerializer

        return PickleSerializer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
