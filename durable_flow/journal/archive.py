"""The form of an archive: one run as JSON lines, each with a hash over itself and all before it.

The first line is the manifest, the last one the footer. In between stand the records in order, each followed by the
stream items that it published, then the messages that the run has not taken yet. The first record of a run that was
compacted is followed by what only rows tell of the time before (`earlier`). A line ends in `,"hash":"..."}`: the
SHA-256 of the hash before it ("" before the first one), a line feed, and the line without its own hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ArchiveError, DeserializationError
from ..events import MAX_VERSION
from ..records import EncodedEvent, Fact, Record
from .archive_values import NUMBER_LIMIT
from .protocol import Earlier, EarlierMessage, EarlierWait, ImportedMessage, MessageRow, StreamRow
from .rows import to_columns, to_fact
from .seals import closed_by, opened_by

if TYPE_CHECKING:
    from ..serializers.base import Seal

FORMAT = "durable_flow.archive"
VERSION = 1
# Of a run that was compacted: older packages, which would take it for a damaged one, ask for an upgrade.
COMPACTED_VERSION = 2

_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"}\n')
_HASH_BYTES = 76
# Larger payloads are base64, whatever they hold: text with many escapes would grow six-fold.
_TEXT_BYTES = 1 << 16
# What a seal is told as the kind of a line.
_SEALED_KIND = "archive"

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


class Manifest(NamedTuple):
    """What the first line says. Times are microseconds; `records`, `items` and `messages` are counts.

    `durable_flow` is the version of the package that wrote it, `seal` the id of the seal that closed the other lines.
    `first` is the seq of the first record; above 1, those before were compacted into it at `compacted_at`.
    """

    run_id: str
    uid: str
    workflow: str
    shape: str
    status: str
    records: int
    items: int
    messages: int
    created_at: int
    exported_at: int
    durable_flow: str
    seal: str | None = None
    first: int = 1
    compacted_at: int | None = None


class RecordLine(NamedTuple):
    """A record (items come in lines of their own) and the epoch of the claim in which it was written."""

    record: Record
    epoch: int
    codec: str | None


class ItemLine(NamedTuple):
    """A published stream item."""

    position: int
    event: EncodedEvent


class Footer(NamedTuple):
    """How many lines there were of each kind."""

    records: int
    items: int
    messages: int


Line = RecordLine | ItemLine | Earlier | ImportedMessage | Footer


class Chain:
    """Closes lines with their hashes, or opens them again; `hash` is that of the last line, `lines` their number."""

    def __init__(self) -> None:
        self.hash = ""
        self.lines = 0

    def close(self, content: Mapping[str, Any]) -> bytes:
        """Return the line with this content."""
        text = _to_json(content).encode("ascii")
        return b'%b,"hash":"%b"}\n' % (text[:-1], self._add(text).encode())

    def open(self, line: bytes) -> bytes:
        """Return a line without its hash. Raises ArchiveError if that is not the right one."""
        found = _HASH.fullmatch(line, max(0, len(line) - _HASH_BYTES))
        if found is None:
            raise ArchiveError("it does not end in a hash: this is no archive, or it was cut off or changed")
        text = line[:-_HASH_BYTES] + b"}"
        if self._add(text) != found[1].decode():
            raise ArchiveError("its hash does not fit: this line was changed, or lines were removed, added or moved")
        return text

    def _add(self, text: bytes) -> str:
        self.lines += 1
        self.hash = hashlib.sha256(b"%b\n%b" % (self.hash.encode(), text)).hexdigest()
        return self.hash


# -- Writing -----------------------------------------------------------------------------------------------------------


def manifest_content(manifest: Manifest) -> dict[str, Any]:
    """Return the content of the first line."""
    content = _present(manifest._asdict())
    if manifest.first > 1:
        return {"archive": FORMAT, "version": COMPACTED_VERSION, **content}
    del content["first"]
    return {"archive": FORMAT, "version": VERSION, **content}


def record_content(record: Record, epoch: int) -> dict[str, Any]:
    """Return the content of a record's line: its columns in a journal row."""
    kind, task, step, name, data, codec, payload, v = to_columns(record.fact)
    return _present({
        "record": record.seq, "at": record.at, "boundary": record.boundary, "epoch": epoch, "kind": kind, "task": task,
        "step": step, "name": name, "data": data, "codec": codec, "v": v, "payload": _packed(payload),
    })  # fmt: skip


def item_content(item: ItemLine) -> dict[str, Any]:
    """Return the content of a stream item's line."""
    return {"item": item.position, **_event(item.event)}


def earlier_content(row: Earlier) -> dict[str, Any]:
    """Return the content of a line about the time before the first record."""
    match row:
        case StreamRow():
            return _present({
                "earlier": "item", "position": row.position, "at": row.at, "step": row.step, "task": row.task,
                "wait_id": row.wait_id, "reset_since": row.reset_since,
                **(_event(row.event) if row.event is not None else {}),
            })  # fmt: skip
        case EarlierWait():
            return {"earlier": "wait", **row._asdict()}
        case EarlierMessage():
            return {"earlier": "message", **row._asdict()}


def message_content(line: ImportedMessage) -> dict[str, Any]:
    """Return the content of a message's line."""
    message = line.message
    return _present({
        "message": message.message_id, "kind": message.kind, "wait_id": message.wait_id, "step": message.step,
        "reason": message.reason, "undelivered": line.undelivered or None,
        **(_event(message.event) if message.event is not None else {}),
    })  # fmt: skip


def footer_content(footer: Footer) -> dict[str, Any]:
    """Return the content of the last line."""
    return {"end": True, **footer._asdict()}


def sealed_content(content: Mapping[str, Any], seal: Seal, uid: str, line: int) -> dict[str, Any]:
    """Return the content of a line that holds another one, sealed; `line` is its number, the manifest being 0."""
    data = closed_by(seal, _to_json(content).encode("ascii"), uid=uid, seq=line, kind=_SEALED_KIND)
    return {"sealed": base64.b64encode(data).decode("ascii")}


def _present(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}


def _event(event: EncodedEvent) -> dict[str, Any]:
    return {"name": event.name, "codec": event.codec, "v": event.v, "payload": _packed(event.data)}


def _packed(payload: bytes | None) -> str | dict[str, str] | None:
    """Payloads are mostly JSON: those stay text that people can read."""
    if payload is None:
        return None
    if len(payload) <= _TEXT_BYTES:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(payload).decode("ascii")}


# -- Reading -----------------------------------------------------------------------------------------------------------


def read_manifest(text: bytes) -> Manifest:
    """Return what the first line says. Raises ArchiveError."""
    data = _parsed(text)
    if data.get("archive") != FORMAT:
        raise ArchiveError("it is no manifest: this is no archive of durable_flow")
    version = data.get("version")
    if version not in (VERSION, COMPACTED_VERSION) or type(version) is not int:
        raise ArchiveError(
            f"the archive's format is version {version!r:.50}, this package reads versions {VERSION} and "
            f"{COMPACTED_VERSION}: upgrade durable_flow"
        )
    fields = _Fields(data, "the manifest")
    fields.text("archive")
    fields.number("version")
    texts, numbers = fields.text, fields.number
    manifest = Manifest(
        texts("run_id"), texts("uid"), texts("workflow"), texts("shape"), texts("status"), numbers("records"),
        numbers("items"), numbers("messages"), numbers("created_at"), numbers("exported_at"), texts("durable_flow"),
        fields.maybe_text("seal"),
        *((numbers("first"), numbers("compacted_at")) if version == COMPACTED_VERSION else ()),
    )  # fmt: skip
    fields.end()
    if version == COMPACTED_VERSION and manifest.first < 2:
        raise ArchiveError("the manifest of a run that was compacted says that nothing was before its first record")
    return manifest


def read_line(text: bytes, seal: Seal | None, uid: str, line: int) -> Line:
    """Return what a line after the first one says, opened with the archive's seal if it has one. Raises ArchiveError.

    Nothing is decoded of payloads, and no data name a class, a module or a file.
    """
    data = _parsed(text)
    if seal is not None:
        fields = _Fields(data, "a sealed line")
        sealed = _unpacked({"base64": fields.text("sealed")})
        fields.end()
        try:
            data = _parsed(opened_by(seal, sealed, uid=uid, seq=line, kind=_SEALED_KIND))
        except DeserializationError as error:
            raise ArchiveError(f"it cannot be opened with the journal's seal: {error}") from error
    if "record" in data:
        return _read_record(data)
    if "item" in data:
        fields = _Fields(data, "a stream item")
        position = fields.number("item")
        event = _read_event(fields)
        fields.end()
        return ItemLine(position, event)
    if "earlier" in data:
        return _read_earlier(data)
    if "message" in data:
        return _read_message(data)
    fields = _Fields(data, "the footer")
    if "end" not in data or not fields.flag("end"):
        raise ArchiveError("it is no record, stream item, message or footer")
    footer = Footer(fields.number("records"), fields.number("items"), fields.number("messages"))
    fields.end()
    return footer


def _read_record(data: dict[str, Any]) -> RecordLine:
    fields = _Fields(data, "a record")
    seq, at, boundary = fields.number("record"), fields.number("at"), fields.flag("boundary")
    epoch, kind = fields.number("epoch"), fields.text("kind")
    task, step, name = fields.maybe_number("task"), fields.maybe_text("step"), fields.maybe_text("name")
    stored, codec, v = fields.maybe_text("data"), fields.maybe_text("codec"), fields.maybe_number("v")
    payload = fields.maybe_payload("payload")
    fields.end()
    try:
        fact: Fact = to_fact(kind, task, step, name, stored, codec, payload, v)
    except (DeserializationError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ArchiveError(f"the record of kind {kind!r:.50} cannot be read: {error}") from error
    return RecordLine(Record(seq, at, boundary, fact), epoch, codec)


def _read_earlier(data: dict[str, Any]) -> Earlier:
    fields = _Fields(data, "a line about the time before the first record")
    kind = fields.text("earlier")
    row: Earlier
    if kind == "item":
        position, at = fields.number("position"), fields.number("at")
        step, task = fields.maybe_text("step"), fields.maybe_number("task")
        wait_id, reset_since = fields.maybe_text("wait_id"), fields.maybe_number("reset_since")
        event = _read_event(fields) if reset_since is None else None
        row = StreamRow(position, at, step, event, wait_id, reset_since, task)
    elif kind == "wait":
        row = EarlierWait(
            fields.text("wait_id"), fields.text("outcome"), fields.texts("wanted"), fields.flag("strict"),
            fields.flag("human"), fields.number("opened_at"),
        )  # fmt: skip
        if row.outcome not in _OUTCOMES:
            raise ArchiveError(f"a wait has the outcome {row.outcome!r:.50}, which is none")
    elif kind == "message":
        row = EarlierMessage(fields.text("message_id"))
    else:
        raise ArchiveError(f"{kind!r:.50} is not known of the time before the first record")
    fields.end()
    return row


_OUTCOMES = frozenset({"answered", "timed_out", "closed", "ended"})


def _read_message(data: dict[str, Any]) -> ImportedMessage:
    fields = _Fields(data, "a message")
    message_id, kind = fields.text("message"), fields.text("kind")
    if kind not in ("event", "answer", "cancel"):
        raise ArchiveError(f"a message of kind {kind!r:.50} is not known to this version of durable_flow")
    wait_id, step, reason = fields.maybe_text("wait_id"), fields.maybe_text("step"), fields.maybe_text("reason")
    undelivered = "undelivered" in data and fields.flag("undelivered")
    event = None if kind == "cancel" else _read_event(fields)
    fields.end()
    return ImportedMessage(MessageRow(0, 0, message_id, kind, event, wait_id, step, reason), undelivered)


def _read_event(fields: _Fields) -> EncodedEvent:
    payload = fields.maybe_payload("payload")
    if payload is None:
        raise ArchiveError("an event has no payload")
    return EncodedEvent(fields.text("name"), fields.text("codec"), fields.number("v"), payload)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"it is no JSON ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise ArchiveError("it is no JSON object")
    return data


def _unpacked(payload: Any) -> bytes:
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError as error:
            raise ArchiveError("a payload is no text that can be encoded") from error
    if isinstance(payload, dict) and payload.keys() == {"base64"} and isinstance(payload["base64"], str):
        try:
            return base64.b64decode(payload["base64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ArchiveError(f"a payload is no base64 ({error})") from error
    raise ArchiveError("a payload is neither text nor base64")


class _Fields:
    """Takes the fields of a line, each of the right type; what is left over is not known, and refused."""

    def __init__(self, data: Mapping[str, Any], what: str):
        self._data, self._what, self._taken = data, what, set[str]()

    def text(self, name: str) -> str:
        return str(self._take(name, str))

    def maybe_text(self, name: str) -> str | None:
        return self.text(name) if name in self._data else None

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._take(name, list)
        if not all(type(part) is str for part in found):
            raise ArchiveError(f"{self._what} has a {name!r} that is no list of texts")
        return tuple(found)

    def number(self, name: str) -> int:
        value: int = self._take(name, int)
        if not 0 <= value < NUMBER_LIMIT or (name == "v" and value > MAX_VERSION):
            raise ArchiveError(f"{self._what} has a {name!r} out of range")
        return value

    def maybe_number(self, name: str) -> int | None:
        return self.number(name) if name in self._data else None

    def flag(self, name: str) -> bool:
        return bool(self._take(name, bool))

    def maybe_payload(self, name: str) -> bytes | None:
        if name not in self._data:
            return None
        self._taken.add(name)
        return _unpacked(self._data[name])

    def end(self) -> None:
        unknown = sorted(self._data.keys() - self._taken)
        if unknown:
            raise ArchiveError(f"{self._what} has fields that are not known: {', '.join(unknown):.200}")

    def _take(self, name: str, cls: type) -> Any:
        self._taken.add(name)
        value = self._data.get(name)
        if type(value) is not cls:
            raise ArchiveError(f"{self._what} has no {name!r} of type {cls.__name__}")
        return value
