"""Journal URLs: which store one names, how it is written, and how it may be shown."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote_plus, unquote_to_bytes, urlsplit

from ..errors import JournalUrlError
from ..serializers.base import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from ..serializers.base import Seal
    from .protocol import JournalStore

_FORMS = (
    "Use sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user:password@host/database, or memory:// "
    "(which keeps nothing)."
)
_MEMORY = "memory://"

# Other schemes are none of ours: what stands behind theirs, as in `me://secret@host`, is anybody's guess.
_URL = re.compile(r"(?:postgres|postgresql|sqlite|memory)(?:\+(\w+))?://([^/?#]*)(.*)", re.DOTALL)
_HOST = r"(?:\[[^][@,]+\]|[^][:@,]+)(?::[0-9]*)?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")

# Parameters of libpq, and of SQLAlchemy's asyncpg, that asyncpg does not know. It would ask the server for a setting of
# that name, which fails late and with words that help nobody.
_NOT_ASYNCPG = {
    *("channel_binding", "client_encoding", "connect_timeout", "fallback_application_name", "gssdelegation"),
    *("gssencmode", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
    *("load_balance_hosts", "max_protocol_version", "min_protocol_version", "replication", "require_auth"),
    *("requirepeer", "requiressl", "sslcertmode", "sslcompression", "sslcrldir", "sslkeylogfile", "sslsni"),
    *("tcp_user_timeout", "async_fallback", "prepared_statement_cache_size", "pgbouncer"),
}
_CHOICES = {
    "sslmode": {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
    "sslnegotiation": {"postgres", "direct"},
    "target_session_attrs": {"any", "primary", "standby", "read-write", "read-only", "prefer-standby"},
}
# What a parameter is called that nobody else may see. `passfile` and `sslkey` name files.
_SECRET = re.compile(r"pass(?!file)|pwd|secret|token", re.IGNORECASE)


def open_store(
    url: str,
    *,
    durability: str = "full",
    seal: Seal | None = None,
    compress: bool = True,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> JournalStore:
    """Return the store that a URL names, not opened yet. Raises JournalUrlError."""
    canonical = canonical_url(url)
    if canonical == _MEMORY:
        from .memory import MemoryStore

        return MemoryStore()
    if is_postgres(canonical):
        require_asyncpg(canonical)
        from .postgres import PostgresStore

        return PostgresStore(
            canonical, durability=durability, seal=seal, compress=compress, max_payload_bytes=max_payload_bytes
        )
    from .sqlite import SqliteStore

    return SqliteStore(
        canonical, durability=durability, seal=seal, compress=compress, max_payload_bytes=max_payload_bytes
    )


def canonical_url(url: str) -> str:
    """Return the one way to write a journal's URL: no driver, an absolute path. Raises JournalUrlError.

    What can be wrong with a URL is found here, as far as it can be without connecting.
    """
    if not isinstance(url, str):
        raise JournalUrlError(f"a journal's URL is text, not {type(url).__name__}. {_FORMS}")
    if url == _MEMORY:
        return url
    if is_postgres(url):
        return postgres_dsn(url)
    return f"sqlite:///{sqlite_path(url)}"


def is_postgres(url: str) -> bool:
    """Tell whether a URL names a Postgres database, be it well written or not."""
    return re.match(r"postgres(ql)?(\+\w+)?://", url) is not None


def sqlite_path(url: str) -> Path:
    """Return the absolute path of the file that an SQLite URL names; it is taken literally. Raises JournalUrlError."""
    shown = repr(masked(url))
    parts = re.fullmatch(r"(\w+)(?:\+(\w+))?://([^/]*)(?:/([^?]*)(\?.*)?)?", url)
    if parts is None:
        raise JournalUrlError(f"{shown} is not a URL of a journal. {_FORMS}")
    dialect, driver, host, name, options = parts.groups()
    if dialect != "sqlite":
        raise JournalUrlError(f"{shown}: durable_flow keeps no journals in {dialect}. {_FORMS}")
    if driver not in (None, "aiosqlite", "pysqlite"):
        raise JournalUrlError(f"{shown}: the driver is aiosqlite, and need not be named. {_FORMS}")
    if host:
        raise JournalUrlError(f"{shown} has a host where a third slash belongs. {_FORMS}")
    if options:
        raise JournalUrlError(f"{shown}: the URL of a file takes no options. {_FORMS}")
    if not name or name == ":memory:":
        raise JournalUrlError(f"{shown} names no file; for a journal that is not kept write memory://. {_FORMS}")
    if name.startswith("file:") or "\0" in name:
        raise JournalUrlError(f"{shown}: name the file by its path. {_FORMS}")
    return Path(os.path.abspath(name))


def postgres_dsn(url: str) -> str:
    """Return a Postgres URL as `asyncpg.connect` takes it, otherwise as it was written. Raises JournalUrlError."""
    parts = _URL.fullmatch(url)
    assert parts is not None  # is_postgres says so
    driver, authority, rest = parts.groups()
    if driver not in (None, "asyncpg"):
        raise JournalUrlError(
            f"{masked(url)!r}: the driver is asyncpg, not {driver}, and need not be named: write postgresql://..."
        )
    path, _, query = rest.partition("?")
    wrong = _wrong_text(url, authority, rest) or _wrong_hosts(authority, query) or _wrong_parameters(query)
    if wrong := wrong or _wrong_for_python(authority):
        raise JournalUrlError(f"{masked(url)!r}: {wrong}.")
    # A slash and no name would be a database of no name; without it libpq's rule is followed: PGDATABASE, or the user.
    path = "" if path == "/" else path
    return f"postgresql://{authority}{path}{'?' if query else ''}{query}"


def _wrong_text(url: str, authority: str, rest: str) -> str | None:
    if re.search(r"[\x00-\x20\x7f]", url):
        return "it holds a blank or a control character; write a blank as %20"
    if "#" in rest or "@" in rest.partition("?")[0] or authority.count("@") > 1:
        return "in a name or a password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25"
    if re.search(r"%(?![0-9A-Fa-f]{2})", url) or "%00" in url:
        return "% begins a character's number, as in %40; write the character itself as %25"
    try:
        unquote_to_bytes(url).decode()
    except UnicodeError:
        return "it holds bytes that are not UTF-8"
    return None


def _wrong_hosts(authority: str, query: str) -> str | None:
    hosts, parameters = authority.rpartition("@")[2], dict(_fields(query))
    if hosts and ("host" in parameters or "port" in parameters):
        # asyncpg would not look at the second one.
        return "host and port stand twice, before the database's name and in a parameter; name them in one place"
    hosts = hosts or parameters.get("host", "")
    if hosts and not _HOSTS.fullmatch(hosts):
        return (
            "hosts are written host:port, an IPv6 address in brackets, several with commas between them; a port is a "
            "number. Special characters of a password are written by their numbers, as %40 for @ and %2F for /"
        )
    ports = parameters["port"].split(",") if "port" in parameters else re.findall(r"(?<=:)[0-9]+(?=,|$)", hosts)
    if not all(port.isascii() and port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        return "a port is a number from 1 to 65535"
    if "port" in parameters and len(ports) not in (1, hosts.count(",") + 1):
        return "name one port, or as many as hosts"
    return None


def _wrong_parameters(query: str) -> str | None:
    if not all("=" in field for field in query.split("&") if query):
        return "parameters are written name=value, with & between them; write & in a value as %26"
    for name, value in _fields(query):
        if name in _NOT_ASYNCPG:
            return f"{name} is not a parameter that asyncpg knows; leave it out"
        if name == "ssl":
            return "TLS is asked for by sslmode: write sslmode=require, or verify-full with sslrootcert=FILE"
        if name in _CHOICES and value not in _CHOICES[name]:
            return f"{name} is one of {', '.join(sorted(_CHOICES[name]))}"
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            return "a parameter has a name of letters and underscores, as in sslmode=require"
    return None


def _wrong_for_python(authority: str) -> str | None:
    try:
        urlsplit(f"postgresql://{authority}")
    except ValueError:
        # Its own words would show the password.
        return "it holds a character that stands for / ? # @ or :, or an address that is none; write it by its number"
    return None


def _fields(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def require_asyncpg(url: str) -> None:
    """Raise JournalUrlError unless the driver for Postgres is installed."""
    if find_spec("asyncpg") is None:
        raise JournalUrlError(
            f"{masked(url)}: Postgres needs the driver asyncpg. Install it: pip install 'durable-flow[postgres]'"
        )


def masked(url: str) -> str:
    """Return a URL as it may be shown: without its passwords, be it well written or not.

    Where it is not clear what is the password, everything is left out that may be a part of it.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        # Not one of our URLs: `user:secret@host`, `password=secret`, or a file's path with the scheme not quite right.
        begin = len("sqlite:") if url.startswith("sqlite:") else 0
        secret = re.search(r"[:=@?]", url[begin:])
        return url if secret is None else f"{url[: begin + secret.end()]}***"
    scheme, authority, rest = url[: parts.start(2)], parts[2], parts[3]
    user, at, hosts = authority.rpartition("@")
    name, colon, _ = user.partition(":")
    if ":" in authority:
        if "@" in user or "@" in rest or "#" in rest or not (at or _HOSTS.fullmatch(hosts)):
            return f"{scheme}{authority.partition(':')[0]}:***"
        if colon:
            authority = f"{name}:***@{hosts}"
    path, mark, query = rest.partition("?")
    return f"{scheme}{authority}{path}{mark}{_masked_query(query)}"


def _masked_query(query: str) -> str:
    fields = query.split("&")
    if not any(_SECRET.search(unquote_plus(field)) for field in fields):
        return query
    if not all("=" in field for field in fields):
        # A password with a raw & in it.
        return "***"
    names = [field.partition("=")[0] for field in fields]
    return "&".join(
        f"{name}=***" if _SECRET.search(unquote_plus(name)) else field
        for name, field in zip(names, fields, strict=True)
    )
