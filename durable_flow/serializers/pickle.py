"""The pickle serializer (opt-in): stores whatever pickle can, and reads nothing that its key has not signed.

Nothing imports this module, and so `pickle`, unless PickleSerializer is asked for.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
from typing import Any

from ..errors import DeserializationError, SerializationError
from ..events import Event

KEY_VARIABLE = "DURABLE_FLOW_SERIALIZER_KEY"

_MAC_BYTES = 32
_PROTOCOL = 5  # all supported versions of Python read it


class PickleSerializer:
    """Stores values as pickles behind an HMAC-SHA256, which is verified before a byte is parsed.

    Unpickling runs code, so whoever has the key owns the processes that read the journal. `key` defaults to the
    environment variable DURABLE_FLOW_SERIALIZER_KEY; text is taken as UTF-8. Raises SerializationError without a key.
    """

    codec = "pickle"

    def __init__(self, key: bytes | str | None = None):
        key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        if not key:
            raise SerializationError(
                "PickleSerializer needs a secret key, because unpickling data that somebody else wrote runs their "
                f"code: pass key=, or set the environment variable {KEY_VARIABLE}, the same for all workers"
            )
        self._key = key.encode() if isinstance(key, str) else bytes(key)

    def serialize(self, value: Any) -> bytes:
        """Return the HMAC and the pickle. Raises SerializationError for what cannot be pickled."""
        try:
            data = pickle.dumps(value, _PROTOCOL)
        except Exception as error:  # pickle raises many kinds, and so do `__reduce__` and `__getstate__`
            root = type(value).__name__ if isinstance(value, Event) else "value"
            raise SerializationError(
                f"{root}: cannot be pickled: {type(error).__name__}: {error}", path=root
            ) from error
        return self._mac(data) + data

    def deserialize(self, data: bytes) -> Any:
        """Return the value. Raises DeserializationError for data that were not written with this key."""
        mac, pickled = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(pickled)):
            raise DeserializationError(
                f"{len(data)} bytes of stored pickle were written with another key, or changed since; nothing was "
                "unpickled. Use the key that the journal was written with"
            )
        try:
            return pickle.loads(pickled)
        except Exception as error:
            raise DeserializationError(
                f"{len(pickled)} bytes of stored pickle cannot be read: {type(error).__name__}: {error}"
            ) from error

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, hashlib.sha256)
