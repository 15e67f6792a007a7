"""Encryption of payloads (extra `encryption`). Nothing imports this module unless EncryptedSeal is asked for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from functools import lru_cache

from ..errors import DeserializationError, SerializationError

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:
    raise ImportError(
        "EncryptedSeal needs the package cryptography. Install it: pip install 'durable-flow[encryption]'"
    ) from error

_KEY_BYTES, _NONCE_BYTES, _ID_BYTES = 32, 12, 4
_VERSION = b"\x01"
_HEAD = len(_VERSION) + _ID_BYTES + _NONCE_BYTES


class EncryptedSeal:
    """Encrypts every payload by AES-256-GCM, bound to its run, its place and its kind.

    `keys` are 32 random bytes each, as they are or as the text that `new_key` returns. The first one writes, all of
    them read: to change the key, put the new one in front and keep the old ones for as long as their rows live.

    What was written without this seal is refused when it is read, unless `allow_plaintext` says that a journal which
    was begun without encryption is to be gone on with. Raises SerializationError for a key of another form.
    """

    id = "aes-gcm"
    encrypts = True

    def __init__(self, keys: Sequence[bytes | str], *, allow_plaintext: bool = False):
        if isinstance(keys, (str, bytes)) or not keys:
            raise SerializationError("keys= takes a list of one key or more: EncryptedSeal(keys=[key])")
        self._keys = tuple(map(_key, keys))
        self._by_id = {_id_of(key): key for key in reversed(self._keys)}
        self.is_required = not allow_plaintext

    @staticmethod
    def new_key() -> str:
        """Return a new random key as text, for an environment variable or a store of secrets."""
        return base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EncryptedSeal) and self._settings == other._settings

    def __hash__(self) -> int:
        return hash(self._settings)

    def __repr__(self) -> str:
        names = ", ".join(key.hex() for key in map(_id_of, self._keys))
        return f"EncryptedSeal(keys=<{names}>, allow_plaintext={not self.is_required})"

    @property
    def _settings(self) -> tuple[object, ...]:
        return type(self), self._keys, self.is_required

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return the data encrypted: version, id of the key, nonce, text and tag."""
        key = self._keys[0]
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _cipher(key, uid).encrypt(nonce, data, _place(uid, seq, kind))
        return b"".join((_VERSION, _id_of(key), nonce, sealed))

    def open(self, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
        """Return the data. Raises DeserializationError if they were changed or moved, or if their key is not here."""
        if len(data) <= _HEAD or not data.startswith(_VERSION):
            raise DeserializationError(f"its {len(data):,} bytes were not written by this version of EncryptedSeal")
        name, nonce = data[1 : 1 + _ID_BYTES], data[1 + _ID_BYTES : _HEAD]
        key = self._by_id.get(name)
        if key is None:
            raise DeserializationError(
                f"it was encrypted with the key {name.hex()}, which is not among the keys of this EncryptedSeal "
                f"({', '.join(known.hex() for known in self._by_id)}), or was changed. Add that key behind the first"
            )
        try:
            return _cipher(key, uid).decrypt(nonce, data[_HEAD:], _place(uid, seq, kind))
        except InvalidTag:
            raise DeserializationError(
                f"its {len(data):,} encrypted bytes were changed, or were written for another row or run"
            ) from None


def _key(given: bytes | str) -> bytes:
    key = given
    if isinstance(key, str):
        try:
            key = base64.b64decode(key, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            key = b""
    if not isinstance(key, bytes) or len(key) != _KEY_BYTES:
        raise SerializationError(
            "a key of EncryptedSeal is 32 random bytes, or their base64 text as EncryptedSeal.new_key() returns it"
        )
    return key


@lru_cache(maxsize=64)
def _id_of(key: bytes) -> bytes:
    return hmac.digest(key, b"durable_flow seal id", hashlib.sha256)[:_ID_BYTES]


@lru_cache(maxsize=4096)
def _cipher(key: bytes, uid: str) -> AESGCM:
    # A key of its own for each run: random nonces of 96 bits are good for 2**32 rows of one key, and a busy database
    # has written that many in weeks.
    return AESGCM(hmac.digest(key, b"durable_flow seal of run " + uid.encode(), hashlib.sha256))


def _place(uid: str, seq: int, kind: str) -> bytes:
    return f"{uid}\n{seq}\n{kind}".encode()
