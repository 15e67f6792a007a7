"""Seals at work: every payload of a journal on its way into a row and out of it, and the texts that hold user data."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import records
from ..errors import DeserializationError, SerializationError
from ..serializers.base import MAX_PAYLOAD_BYTES
from ..serializers.compression import COMPRESSED_ABOVE, SNAPSHOT_KIND, Compression

if TYPE_CHECKING:
    from ..serializers.base import Seal
    from .encode import Encoded

__all__ = ["COMPRESSED_ABOVE", "SNAPSHOT_KIND", "Seals", "require_seal", "seal_rows"]

# Places in a row of `journal`, and in one of `stream`, that a seal needs.
_SEQ, _KIND, _DATA, _PAYLOAD, _SEAL = 1, 2, 7, 9, 10
_POSITION, _ITEM, _ITEM_SEAL = 1, 6, 7

# What a seal is told as the kind of what is not in the journal; the last three with the id of the message or wait.
STREAM_KIND, ERROR_KIND = "stream", "error"
MESSAGE_KIND, REASON_KIND, WAIT_KIND = "message {}", "reason {}", "wait {}"

# A text that was sealed: the ids of its seals, and base64. No JSON begins like this.
_TEXT = re.compile(r"sealed:([\w.+-]+):([\w+/=]+)")

# The kinds whose `data` are names, numbers and times only. What others have (messages of errors, reasons, digests of
# arguments and stream items, from which a guess could be confirmed) is encrypted with the payload.
_PLAIN_DATA = frozenset(
    kind.__name__
    for kind in (
        records.RunStarted, records.RunClaimed, records.MessageReceived, records.EventEmitted, records.StepCompleted,
        records.ContextSet, records.ContextDeleted, records.EventCollected, records.BufferReleased, records.WaitOpened,
        records.WaitAnswered, records.WaitTimedOut, records.WaitClosed, records.EffectReused, records.TimerSet,
        records.TimerFired, records.ChildStarted, records.ChildAsked, records.ChildEnded, records.StreamReset,
        records.StepDiverged, records.CheckpointNamed, records.FanOutOpened, records.JoinFired, records.FanOutClosed,
        records.RunAtRest, records.RunResumed, records.RunCompleted, records.StateImported, records.ContextSpliced,
        records.StateEdited, records.PendingDropped, records.JournalCompacted,
    )
)  # fmt: skip


def require_seal(seal: Seal | None) -> Seal | None:
    """Return a seal that a journal may use. Raises TypeError for what is none."""
    if seal is None:
        return None
    id_ = getattr(seal, "id", None)
    usable = isinstance(id_, str) and re.fullmatch(r"[\w.-]+", id_) and id_ != Compression.id
    if isinstance(seal, type) or not usable or not all(callable(getattr(seal, name, None)) for name in _METHODS):
        raise TypeError(
            f"seal={seal!r}: it must be an object with a text `id` of its own (letters, digits, '-', '_' and '.') and "
            "the methods seal and open, as EncryptedSeal(keys=[...])"
        )
    return seal


_METHODS = ("seal", "open")


def closed_by(seal: Seal, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
    """Return data sealed by a seal, which may be of the user's making. Raises SerializationError if it gives no bytes.

    What else it raises, as one that cannot reach its keys, is the writer's to deal with.
    """
    sealed: Any = seal.seal(data, uid=uid, seq=seq, kind=kind)
    if type(sealed) is not bytes:
        raise SerializationError(
            f"seq {seq} ({kind}): the seal {seal.id!r} returned {type(sealed).__name__}; seal returns bytes"
        )
    return sealed


def opened_by(seal: Seal, data: bytes, *, uid: str, seq: int, kind: str) -> bytes:
    """Return data that a seal has opened. It raises DeserializationError and nothing else."""
    try:
        opened: Any = seal.open(data, uid=uid, seq=seq, kind=kind)
    except DeserializationError:
        raise
    except Exception as error:
        raise DeserializationError(f"the seal {seal.id!r} failed: {type(error).__name__}: {error}") from error
    if type(opened) is not bytes:
        raise DeserializationError(f"the seal {seal.id!r} returned {type(opened).__name__}; open returns bytes")
    return opened


class Seals:
    """The compression and the seal of a journal as one; large payloads are compressed before they are sealed.

    `always`: every payload goes through the seal, not only the large ones.
    """

    def __init__(self, seal: Seal | None = None, *, compress: bool = False, limit: int = MAX_PAYLOAD_BYTES):
        compression = Compression(limit)
        chain: list[Seal] = [compression] if compress else []
        self._seal = seal
        self._chain = (*chain, seal) if seal is not None else tuple(chain)
        # What is compressed can be read whether this journal compresses or not.
        self._openers: dict[str, Seal] = {one.id: one for one in (compression, seal) if one is not None}
        self.always = seal is not None
        self.encrypts: bool = getattr(seal, "encrypts", False)
        self.is_required: bool = getattr(seal, "is_required", False)

    def seal(self, data: bytes, *, uid: str, seq: int, kind: str) -> tuple[bytes, str | None]:
        """Return the payload as it is stored, and the ids of the seals that closed it, the innermost first."""
        ids: list[str] = []
        for seal in self._chain:
            # An outer seal is told of the inner ones, so that the column with the ids cannot be changed either.
            sealed = closed_by(seal, data, uid=uid, seq=seq, kind="+".join((kind, *ids)))
            if sealed is not data:
                data = sealed
                ids.append(seal.id)
        return data, "+".join(ids) or None

    def open(self, data: bytes | None, ids: str | None, *, run_id: str, uid: str, seq: int, kind: str) -> bytes | None:
        """Return a payload as it was before it was sealed.

        Raises DeserializationError, which names run and seq, for what was changed or moved, if one of its seals is not
        configured, and if one that is required has not closed it.
        """
        place = f"run {run_id}, seq {seq} ({kind})"
        if data is None:
            if ids is not None:
                raise DeserializationError(f"{place}: the payload is gone, only the id of its seal {ids!r} is there")
            return None
        names = ids.split("+") if ids else []
        if self.is_required and self._seal is not None and self._seal.id not in names:
            raise DeserializationError(
                f"{place}: the payload is not sealed by {self._seal.id!r}, which this journal requires. It was written "
                "before that, or by somebody without the key; EncryptedSeal(allow_plaintext=True) reads it"
            )
        for at in reversed(range(len(names))):
            seal = self._openers.get(names[at])
            if seal is None:
                configured = "none is configured" if self._seal is None else f"the one configured is {self._seal.id!r}"
                raise DeserializationError(
                    f"{place}: the payload was written with the seal {names[at]!r}, and {configured}. "
                    "Open the journal with the seal that wrote it: Journal(url, seal=...)"
                )
            try:
                data = opened_by(seal, data, uid=uid, seq=seq, kind="+".join((kind, *names[:at])))
            except DeserializationError as error:
                raise DeserializationError(f"{place}: the payload cannot be opened: {error}") from error
        return data

    def seal_text(self, text: str | None, *, uid: str, seq: int, kind: str) -> str | None:
        """Return a text as it is stored: encrypted, where a seal encrypts."""
        if text is None or not self.encrypts or self._seal is None:
            return text
        sealed = closed_by(self._seal, text.encode(), uid=uid, seq=seq, kind=kind)
        return f"sealed:{self._seal.id}:{base64.b64encode(sealed).decode()}"

    def open_text(self, text: str | None, *, run_id: str, uid: str, seq: int, kind: str) -> str | None:
        """Return a text as it was before it was sealed. Raises DeserializationError as `open` does."""
        if text is None:
            return None
        sealed = _TEXT.fullmatch(text)
        if sealed is None:
            self.open(b"", None, run_id=run_id, uid=uid, seq=seq, kind=kind)
            return text
        try:
            data = base64.b64decode(sealed[2], validate=True)
        except binascii.Error as error:
            raise DeserializationError(
                f"run {run_id}, seq {seq} ({kind}): the sealed text was changed ({error})"
            ) from error
        opened = self.open(data, sealed[1], run_id=run_id, uid=uid, seq=seq, kind=kind)
        assert opened is not None
        try:
            return opened.decode()
        except UnicodeDecodeError as error:  # of a seal that does not notice a change
            raise DeserializationError(
                f"run {run_id}, seq {seq} ({kind}): the sealed text was changed ({error})"
            ) from error

    def open_data(self, data: str | None, *, run_id: str, uid: str, seq: int, kind: str) -> str | None:
        """Return the `data` of a journal's row of this kind. Raises DeserializationError as `open` does."""
        if data is None or (kind in _PLAIN_DATA and not data.startswith("sealed:")):
            return data
        return self.open_text(data, run_id=run_id, uid=uid, seq=seq, kind=_data_of(kind))

    def open_error(self, text: str | None, *, run_id: str, uid: str) -> str | None:
        """Return the summary of a run's error, for whoever lists runs: a note in its place if it cannot be opened."""
        if text is None or not (self.is_required or text.startswith("sealed:")):
            return text
        try:
            return self.open_text(text, run_id=run_id, uid=uid, seq=0, kind=ERROR_KIND)
        except DeserializationError as error:
            # One row must not hide the others.
            return f"(not shown: {error})"

    def seal_update(self, values: dict[str, Any], uid: str) -> dict[str, Any]:
        """Return the values of a change of a run's row, its error sealed."""
        if not self.encrypts or values["error"] is None:
            return values
        return {**values, "error": self.seal_text(values["error"], uid=uid, seq=0, kind=ERROR_KIND)}


def seal_rows(encoded: Encoded, seals: Seals, uid: str) -> Encoded:
    """Return the same with every payload sealed."""
    if not (seals.always or encoded.large):
        return encoded
    rows = []
    for row in encoded.rows:
        payload, data, seq, kind = row[_PAYLOAD], row[_DATA], row[_SEQ], row[_KIND]
        if payload is not None:
            sealed, ids = seals.seal(payload, uid=uid, seq=seq, kind=kind)
            row = (*row[:_PAYLOAD], sealed, ids, *row[_SEAL + 1 :])
        if data is not None and kind not in _PLAIN_DATA:
            row = (*row[:_DATA], seals.seal_text(data, uid=uid, seq=seq, kind=_data_of(kind)), *row[_DATA + 1 :])
        rows.append(row)
    stream = []
    for row in encoded.stream:
        item = row[_ITEM]
        if item is not None:
            sealed, ids = seals.seal(item, uid=uid, seq=row[_POSITION], kind=STREAM_KIND)
            row = (*row[:_ITEM], sealed, ids, *row[_ITEM_SEAL + 1 :])
        stream.append(row)
    changes = encoded.changes
    if changes is not None and changes.opened:
        opened = {id_: _sealed_wait(columns, seals, uid) for id_, columns in changes.opened.items()}
        changes = replace(changes, opened=opened)
    return type(encoded)(rows, stream, changes, large=encoded.large)


def _sealed_wait(columns: Mapping[str, Any], seals: Seals, uid: str) -> dict[str, Any]:
    if columns["payload"] is None:
        return dict(columns)
    kind = WAIT_KIND.format(columns["wait_id"])
    payload, ids = seals.seal(columns["payload"], uid=uid, seq=columns["seq"], kind=kind)
    return {**columns, "payload": payload, "seal": ids}


def _data_of(kind: str) -> str:
    return f"{kind}.data"
