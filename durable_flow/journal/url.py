"""Journal URLs: which store one names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import JournalUrlError
from ..serializers.base import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from ..serializers.base import Seal
    from .protocol import JournalStore

_FORMS = "Use sqlite:///relative.db, sqlite:////absolute/path.db, or memory:// (which keeps nothing)."
_MEMORY = "memory://"


def open_store(
    url: str,
    *,
    durability: str = "full",
    seal: Seal | None = None,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> JournalStore:
    """Return the store that a URL names, not opened yet. Raises JournalUrlError."""
    canonical = canonical_url(url)
    if canonical == _MEMORY:
        from .memory import MemoryStore

        return MemoryStore()
    from .sqlite import SqliteStore

    return SqliteStore(canonical, durability=durability, seal=seal, max_payload_bytes=max_payload_bytes)


def canonical_url(url: str) -> str:
    """Return the one way to write a journal's URL: no driver, an absolute path. Raises JournalUrlError."""
    if not isinstance(url, str):
        raise JournalUrlError(f"a journal's URL is text, not {type(url).__name__}. {_FORMS}")
    if url == _MEMORY:
        return url
    return f"sqlite:///{sqlite_path(url)}"


def sqlite_path(url: str) -> Path:
    """Return the absolute path of the file that an SQLite URL names; it is taken literally. Raises JournalUrlError."""
    shown = repr(masked(url))
    parts = re.fullmatch(r"(\w+)(?:\+(\w+))?://([^/]*)(?:/([^?]*)(\?.*)?)?", url)
    if parts is None:
        raise JournalUrlError(f"{shown} is not a URL of a journal. {_FORMS}")
    dialect, driver, host, name, options = parts.groups()
    if dialect != "sqlite":
        raise JournalUrlError(
            f"{shown}: this version of durable_flow keeps journals in sqlite:/// and memory:// only, not in {dialect}. "
            f"{_FORMS}"
        )
    if driver not in (None, "aiosqlite", "pysqlite"):
        raise JournalUrlError(f"{shown}: the driver is aiosqlite, and need not be named. {_FORMS}")
    if host:
        raise JournalUrlError(f"{shown} has a host where a third slash belongs. {_FORMS}")
    if options:
        raise JournalUrlError(f"{shown}: a journal's URL takes no options ({options[1:]}). {_FORMS}")
    if not name or name == ":memory:":
        raise JournalUrlError(f"{shown} names no file; for a journal that is not kept write memory://. {_FORMS}")
    if name.startswith("file:") or "\0" in name:
        raise JournalUrlError(f"{shown}: name the file by its path. {_FORMS}")
    return Path(os.path.abspath(name))


def masked(url: str) -> str:
    """Return a URL as it may be shown: without its password."""
    return re.sub(r"(?<=//)([^/@:]*):.*@", r"\1:***@", url)
