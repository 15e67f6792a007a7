"""Refusal: why a value cannot be stored, gathering the path to it on the way up."""

from __future__ import annotations

import reprlib
from typing import Any

from ..errors import SerializationError

# A value that contains itself is found at the deepest level, where a whole path would fill pages.
_LONGEST_PATH = 12


class Refusal(Exception):
    """Raised where the encoder meets a value that it cannot store exactly; never leaves this package."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason
        self._parts: list[str] = []

    def inside(self, part: str) -> None:
        """Say in which part of the enclosing value it happened: `.field`, `[3]` or `['key']`."""
        self._parts.append(part)

    def error(self, root: str) -> SerializationError:
        """Return the error for the user; `root` is the path of the whole value."""
        parts = self._parts[::-1]
        if len(parts) > _LONGEST_PATH:
            parts = [*parts[:_LONGEST_PATH], "..."]
        path = _printable(root + "".join(parts))
        return SerializationError(f"{path}: {_printable(self.reason)}", path=path)


def _printable(text: str) -> str:
    """Return text that can be printed and logged: half of a surrogate pair, as in a name, is written as an escape."""
    return text.encode(errors="backslashreplace").decode()


def item_of(key: Any) -> str:
    """Return the path part of a dict's key."""
    try:
        return f"[{reprlib.repr(key)}]"
    except ValueError:  # a number of more digits than Python shows
        return f"[{type(key).__name__}]"
