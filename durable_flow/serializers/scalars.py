"""Scalars: values without parts that JSON does not know, each with a tag, and how it is taken apart and built."""

from __future__ import annotations

import base64
import pathlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from .refusal import Refusal

PRIMITIVES: frozenset[type] = frozenset({str, int, float, bool, type(None)})
"""The types that are stored as JSON's own, without a look at the value."""

_MICROSECOND = timedelta(microseconds=1)
_PATHS = {
    cls.__name__: cls
    for cls in (
        pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath,
    )
}  # fmt: skip

MomentT = TypeVar("MomentT", datetime, time)
BytesT = TypeVar("BytesT", bytes, bytearray)


class Scalar(NamedTuple):
    """`take` gives JSON values (text, numbers, lists of them) from which `build` makes an equal value."""

    tag: str
    take: Callable[[Any], Any]
    build: Callable[[Any], Any]


def _take_bytes(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _build_bytes(cls: type[BytesT]) -> Callable[[str], BytesT]:
    return lambda text: cls(base64.b64decode(text, validate=True))


def _take_moment(value: datetime | time) -> str | list[Any]:
    """Return ISO text alone, or [text, fold], or [text, fold, zone] if the text cannot express the zone."""
    zone = None if value.tzinfo is None else _take_zone(value.tzinfo)
    if zone is not None:
        return [value.replace(tzinfo=None).isoformat(), value.fold, zone]
    return [value.isoformat(), value.fold] if value.fold else value.isoformat()


def _build_moment(cls: type[MomentT]) -> Callable[[str | list[Any]], MomentT]:
    def build(content: str | list[Any]) -> MomentT:
        if isinstance(content, str):
            return cls.fromisoformat(content)
        text, fold, *zone = content
        value = cls.fromisoformat(text).replace(fold=fold)
        return value.replace(tzinfo=_build_zone(zone[0])) if zone else value

    return build


def _take_zone(zone: tzinfo) -> str | list[Any] | None:
    """Return a ZoneInfo's key, [microseconds, name] of a named offset, or None for an offset that ISO text has."""
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        # Python 3.11 reads an offset of less than a second as UTC, so microseconds do not go into the text.
        in_text = not offset.microseconds and name == timezone(offset).tzname(None)
        return None if in_text else [offset // _MICROSECOND, name]
    if type(zone) is ZoneInfo:
        # Two ZoneInfo objects of one key make times that are not equal where the clock is turned back.
        if zone.key is not None and ZoneInfo(zone.key) is zone:
            return zone.key
        raise Refusal("its ZoneInfo is not the one that ZoneInfo(key) gives, so it cannot be stored exactly")
    raise Refusal(
        f"its tzinfo is a {type(zone).__qualname__}, which cannot be stored exactly; use zoneinfo.ZoneInfo(key) or "
        "datetime.timezone"
    )


def _build_zone(content: str | list[Any]) -> tzinfo:
    if isinstance(content, str):
        return ZoneInfo(content)
    return timezone(content[0] * _MICROSECOND, content[1])


def _take_path(value: pathlib.PurePath) -> list[str]:
    cls, text = type(value), str(value)
    if cls(text) != value:
        raise Refusal(f"{value!r} is not equal to the path made from its text {text!r}")
    return [cls.__name__, text]


def _take_delta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _build_range(parts: list[Any]) -> range:
    # The encoder writes numbers of thousands of digits in hexadecimal.
    return range(*(int(part["$int"], 16) if type(part) is dict else part for part in parts))


SCALARS: dict[type, Scalar] = {
    bytes: Scalar("$bytes", _take_bytes, _build_bytes(bytes)),
    bytearray: Scalar("$bytearray", _take_bytes, _build_bytes(bytearray)),
    datetime: Scalar("$datetime", _take_moment, _build_moment(datetime)),
    time: Scalar("$time", _take_moment, _build_moment(time)),
    date: Scalar("$date", date.isoformat, date.fromisoformat),
    timedelta: Scalar("$timedelta", _take_delta, lambda parts: timedelta(*parts)),
    UUID: Scalar("$uuid", str, UUID),
    Decimal: Scalar("$decimal", str, Decimal),
    complex: Scalar("$complex", lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    range: Scalar("$range", lambda value: [value.start, value.stop, value.step], _build_range),
    **{cls: Scalar("$path", _take_path, lambda parts: _PATHS[parts[0]](parts[1])) for cls in _PATHS.values()},
}
SCALAR_TAGS: dict[str, Callable[[Any], Any]] = {scalar.tag: scalar.build for scalar in SCALARS.values()}

NATIVE: frozenset[type] = frozenset({*PRIMITIVES, *SCALARS, list, dict, tuple, set, frozenset, OrderedDict})
"""Every type that the JSON serializer stores by itself, exactly this type and not its subclasses."""
