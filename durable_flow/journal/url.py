"""Journal URLs: which store one names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import JournalUrlError

if TYPE_CHECKING:
    from ..serializers.base import Seal
    from .protocol import JournalStore

MAX_PAYLOAD_BYTES = 32 * 1024 * 1024

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
    """Return the absolute path of the file that an SQLite URL names. Raises JournalUrlError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise JournalUrlError(f"{masked(url)!r} is not a URL of a journal. {_FORMS}") from exc
    dialect = parsed.get_backend_name()
    if dialect != "sqlite":
        raise JournalUrlError(
            f"{masked(url)!r}: this version of durable_flow keeps journals in sqlite:/// and memory:// only, not in "
            f"{dialect}. {_FORMS}"
        )
    if parsed.drivername not in ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite"):
        raise JournalUrlError(f"{masked(url)!r}: the driver is aiosqlite, and need not be named. {_FORMS}")
    _refuse_extras(parsed, url)
    name = parsed.database
    if not name or name == ":memory:":
        raise JournalUrlError(
            f"{masked(url)!r} names no file; for a journal that is not kept write memory://. {_FORMS}"
        )
    if name.startswith("file:") or "\0" in name:
        raise JournalUrlError(f"{masked(url)!r}: name the file by its path. {_FORMS}")
    return Path(os.path.abspath(name))


def _refuse_extras(parsed: URL, url: str) -> None:
    if parsed.query:
        options = ", ".join(sorted(parsed.query))
        raise JournalUrlError(f"{masked(url)!r}: a journal's URL takes no options ({options}). {_FORMS}")
    if parsed.host or parsed.username:
        raise JournalUrlError(f"{masked(url)!r} has a host where a third slash belongs. {_FORMS}")


def masked(url: str) -> str:
    """Return a URL as it may be shown: without its password."""
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:***@", url)
