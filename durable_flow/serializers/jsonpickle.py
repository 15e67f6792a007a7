"""JSON where that is exact, then the text of jsonpickle, pickle for the rest (opt-in, as unsafe as pickle)."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

from ..errors import DeserializationError, SerializationError
from .json import JsonSerializer
from .pickle import Key, Signature, pickled, unpickled

_JSON, _TEXT, _PICKLE = b"j", b"t", b"p"


class JsonPickleSerializer:
    """Stores a value as exact JSON, else as the text of jsonpickle, else as a pickle, with a mark for which it is.

    The package jsonpickle (extra `jsonpickle`) is used where it is installed and its text gives the very same value
    back. `key` and its lack are those of PickleSerializer; the signature covers the texts, too. `types` are those of
    JsonSerializer.
    """

    def __init__(self, key: Key = None, types: Iterable[type] = ()):
        self._signature = Signature(key)
        self._json = JsonSerializer(types)
        self.lacks_key = not self._signature
        self.codec = "jsonpickle.unsigned" if self.lacks_key else "jsonpickle"

    def serialize(self, value: Any) -> bytes:
        """Return the value as bytes. Raises SerializationError for what none of the three can store."""
        try:
            data = _JSON + self._json.serialize(value)
        except SerializationError as refused:
            try:
                text = _text(value)
                data = _PICKLE + pickled(value) if text is None else _TEXT + text
            except SerializationError as error:
                raise error from refused
        return self._signature.sign(data)

    def deserialize(self, data: bytes) -> Any:
        """Return the value. Raises DeserializationError for data that were not written with this key."""
        data = self._signature.open(data)
        if data[:1] == _JSON:
            return self._json.deserialize(data[1:])
        if data[:1] == _TEXT:
            return _value(data[1:])
        if data[:1] == _PICKLE:
            return unpickled(data[1:])
        raise DeserializationError(f"{len(data)} bytes of stored data were not written by JsonPickleSerializer")


def _text(value: Any) -> bytes | None:
    """Return the text of jsonpickle, None if it would not give the same value back."""
    try:
        import jsonpickle

        text = jsonpickle.encode(value, keys=True)
        return text.encode() if _image(_decoded(text)) == _image(value) else None
    except Exception:  # it is not installed, or some class does not play along
        return None


def _value(text: bytes) -> Any:
    try:
        import jsonpickle  # noqa: F401  # asked for here, because what it builds may lack something as well
    except ImportError as error:
        raise DeserializationError(
            f"{len(text)} bytes of stored data were written by the package jsonpickle. Install it: "
            "pip install 'durable-flow[jsonpickle]'"
        ) from error
    try:
        return _decoded(text.decode())
    except Exception as error:
        raise DeserializationError(
            f"{len(text)} bytes of stored jsonpickle cannot be read: {type(error).__name__}: {error}"
        ) from error


def _decoded(text: str) -> Any:
    """Return what a text of jsonpickle stands for. Raises many kinds, all of them derived from Exception."""
    import jsonpickle

    try:
        return jsonpickle.decode(text, **_OPTIONS)
    except jsonpickle.errors.ClassNotFoundError as error:  # a BaseException
        raise LookupError(str(error)) from error


_OPTIONS: dict[str, Any] = {"keys": True, "on_missing": "error"}


def _image(value: Any) -> bytes:
    """Return a pickle that is the same for values which are exactly the same, whether parts of them are shared or not.

    Raises for values that cannot be pickled, and for those that contain themselves.
    """
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5)
    pickler.fast = True
    pickler.dump(value)
    return file.getvalue()
