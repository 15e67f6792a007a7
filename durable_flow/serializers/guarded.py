"""Serializers of others, held to the protocol: bytes or SerializationError, a value or DeserializationError."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import DeserializationError, SerializationError
from ..events import Event
from .base import Serializer
from .json import JsonSerializer


def writer_of(serializer: Serializer) -> Callable[[Any], bytes]:
    """Return what serializes by this serializer. It raises SerializationError and nothing else."""
    return serializer.serialize if type(serializer) is JsonSerializer else partial(_written, serializer)


def reader_of(serializer: Serializer) -> Callable[[bytes], Any]:
    """Return what deserializes by this serializer. It raises DeserializationError and nothing else."""
    return serializer.deserialize if type(serializer) is JsonSerializer else partial(_read, serializer)


def _written(serializer: Serializer, value: Any) -> bytes:
    root = type(value).__name__ if isinstance(value, Event) else "value"
    try:
        data: Any = serializer.serialize(value)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            f"{root}: the serializer {serializer.codec!r} failed: {type(error).__name__}: {error}", path=root
        ) from error
    # Databases differ in what else they take for bytes, and in what they give back.
    if type(data) is not bytes:
        raise SerializationError(
            f"{root}: the serializer {serializer.codec!r} returned {type(data).__name__}; serialize returns bytes",
            path=root,
        )
    return data


def _read(serializer: Serializer, data: bytes) -> Any:
    try:
        return serializer.deserialize(data)
    except DeserializationError:
        raise
    except Exception as error:
        raise DeserializationError(
            f"the serializer {serializer.codec!r} failed to read {len(data):,} bytes: {type(error).__name__}: {error}"
        ) from error
