"""The pickle serializer (opt-in): stores whatever pickle can, and reads nothing that its key has not signed.

Nothing imports this module, and so `pickle`, unless PickleSerializer or JsonPickleSerializer is asked for.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
from collections.abc import Sequence
from typing import Any

from ..errors import DeserializationError, SerializationError
from ..events import Event

KEY_VARIABLE = "DURABLE_FLOW_SERIALIZER_KEY"

_MAC_BYTES = 32
_PROTOCOL = 5  # all supported versions of Python read it


Key = bytes | str | Sequence[bytes | str] | None
"""A secret key, several of them (the first one signs, all verify), or None for the one of the environment."""


class Signature:
    """Signs data with a key (HMAC-SHA256), and tells data that it has not signed; without a key it does neither."""

    def __init__(self, key: Key):
        keys: Sequence[bytes | str] = (key,) if not isinstance(key, (list, tuple)) else key
        if key is None:
            keys = ()
        elif not all(isinstance(one, (bytes, str)) for one in keys):
            raise SerializationError(
                "the secret key is bytes or text, or a list of such keys, not "
                f"{', '.join(sorted({type(one).__name__ for one in keys}))}"
            )
        elif not (keys and all(keys)):
            raise SerializationError("the secret key is empty; pass one, or None for what a key is not needed for")
        if not keys and (found := os.environ.get(KEY_VARIABLE)):
            keys = (found,)
        self._keys = tuple(one.encode() if isinstance(one, str) else bytes(one) for one in keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def sign(self, data: bytes) -> bytes:
        """Return the data behind their signature."""
        return self._mac(self._keys[0], data) + data if self._keys else data

    def open(self, data: bytes) -> bytes:
        """Return the data behind a signature. Raises DeserializationError if it is of none of the keys."""
        if not self._keys:
            return data
        mac, signed = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, self._mac(key, signed)) for key in self._keys):
            raise DeserializationError(
                f"{len(data)} bytes of stored pickle were written with another key, or changed since; nothing was "
                "unpickled. Use the key that the journal was written with"
            )
        return signed

    @staticmethod
    def _mac(key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, hashlib.sha256)


class PickleSerializer:
    """Stores values as pickles behind an HMAC-SHA256, which is verified before a byte is parsed.

    Unpickling runs code, so whoever has the key owns the processes that read the journal. `key` defaults to the
    environment variable DURABLE_FLOW_SERIALIZER_KEY; text is taken as UTF-8. Of several keys the first one signs and
    all verify: to change the key put the new one in front. Without a key nothing is signed: then `Context.to_dict` and
    `Context.from_dict` take it, for data that nobody else can write, and journals do not.
    """

    def __init__(self, key: Key = None):
        self._signature = Signature(key)
        self.lacks_key = not self._signature
        self.codec = "pickle.unsigned" if self.lacks_key else "pickle"

    def serialize(self, value: Any) -> bytes:
        """Return the HMAC and the pickle. Raises SerializationError for what cannot be pickled."""
        return self._signature.sign(pickled(value))

    def deserialize(self, data: bytes) -> Any:
        """Return the value. Raises DeserializationError for data that were not written with this key."""
        return unpickled(self._signature.open(data))


def pickled(value: Any) -> bytes:
    """Return a value as a pickle. Raises SerializationError."""
    try:
        return pickle.dumps(value, _PROTOCOL)
    except Exception as error:  # pickle raises many kinds, and so do `__reduce__` and `__getstate__`
        root = type(value).__name__ if isinstance(value, Event) else "value"
        raise SerializationError(f"{root}: cannot be pickled: {type(error).__name__}: {error}", path=root) from error


def unpickled(data: bytes) -> Any:
    """Return the value of a pickle that may be trusted. Raises DeserializationError."""
    try:
        return pickle.loads(data)
    except Exception as error:
        raise DeserializationError(
            f"{len(data)} bytes of stored pickle cannot be read: {type(error).__name__}: {error}"
        ) from error
