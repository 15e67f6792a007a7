"""What to say when a Postgres database cannot be used."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from ..errors import JournalUnavailableError
from .text import line

# By SQLSTATE, or its class of two characters.
_REMEDIES = {
    "08": "the connection was lost. Look whether the server runs and what lies between it and here",
    "22": "the server refused a value",
    "25006": "the server takes no writes. Name the primary, for instance with target_session_attrs=primary",
    "28": "the server does not let this user in. Check user, password and database, and the server's pg_hba.conf",
    "28P01": "the server does not take this user and password. Check them; in a URL, @ : / ? # % of a password are "
    "written by their numbers, as %40 for @",
    "3D000": "there is no such database. Create it (`createdb`), then run `durable-flow db upgrade`",
    "3F000": "there is no schema to create tables in. Check the user's search_path",
    "40": "a conflict with other transactions did not pass. Try again",
    "42501": "this user lacks a right. Grant it, or run `durable-flow db upgrade` as the owner of the database",
    "42704": "the server does not know a setting that the URL names. Leave it out",
    "42P01": "a table is missing. Run `durable-flow db upgrade`",
    "53100": "the server's disk is full. Make room, then resume the runs",
    "53200": "the server has no memory left",
    "53300": "the server has no connection left. Close some, or raise its max_connections",
    "55P02": "the URL names a setting that cannot be set by it. Leave it out",
    "55P03": "another transaction keeps a lock. Find it in pg_stat_activity, or wait for it",
    "57014": "the server broke off a statement, because it took too long or somebody asked for that. Look at its "
    "statement_timeout",
    "57P": "the server is being stopped or started. Wait until it runs",
    "58": "the server's disk reports an error. Look into the server's log",
    "XX": "the database is damaged, or the server has a fault. Look into the server's log",
}

# The first that fits; a kind of error stands before those that it is one of.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLError, "TLS does not work. Check sslmode and sslrootcert in the URL, and the server's certificate"),
    (socket.gaierror, "the host's name is not known. Check the host in the URL"),
    (ConnectionRefusedError, "nobody listens there. Start the server, or check host and port in the URL"),
    (FileNotFoundError, "a file is missing: the server's socket (does it run?), or one that the URL names"),
    (PermissionError, "this user may not open the socket, or a file that the URL names"),
    (TimeoutError, "no answer came in time. Check host and port, and whether a firewall lies between"),
    (OSError, "the connection failed. Look whether the server runs, and check host and port in the URL"),
    (ValueError, "the URL cannot be used as it is. Check its parameters"),
)


def unavailable(url: str, exc: BaseException) -> JournalUnavailableError:
    """Return the error that says what is wrong with a database and what to do; `url` is masked already."""
    errors = list(_origins(exc))
    remedy = next((said for error in errors if (said := _remedy(error)) is not None), "the database failed")
    # The last one is the driver's own, without the statement and its values.
    reason = " ".join(str(errors[-1]).split()) or type(errors[-1]).__name__
    error = JournalUnavailableError(f"{url}: {remedy} ({line(reason)}).")
    error.__cause__ = exc
    return error


def _origins(exc: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it wraps: SQLAlchemy's, its adapter's, asyncpg's."""
    error: BaseException | None = exc
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _remedy(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return next((_REMEDIES[state[:length]] for length in (5, 3, 2) if state[:length] in _REMEDIES), None)
    return next((remedy for kind, remedy in _KINDS if isinstance(error, kind)), None)
