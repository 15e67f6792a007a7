"""What an error of Postgres, or of the way to it, means for what was under way."""

from __future__ import annotations

import enum

import asyncpg

from ..errors import SerializationError
from .text import line


class Trouble(enum.Enum):
    """DATA: the database refuses what it was given. REFUSED: nothing was done, and it may work later.

    RECONNECT: nothing was done, and it may work on another connection. DOUBT: it may have been done; the connection is
    not used again. LASTING: nothing was done, and a person has to change something.
    """

    DATA = enum.auto()
    REFUSED = enum.auto()
    RECONNECT = enum.auto()
    DOUBT = enum.auto()
    LASTING = enum.auto()


class NotDone(Exception):
    """What was asked failed before it could have come about, whatever its cause would mean otherwise."""


# By SQLSTATE or its class, the longer one first. What is not here leaves the outcome open.
# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE = {
    "21": Trouble.DATA,
    "22": Trouble.DATA,
    "23": Trouble.DATA,
    "44": Trouble.DATA,
    "54": Trouble.DATA,
    "P0": Trouble.DATA,  # what a trigger raises
    # A session stays read-only that began while the database was, or on a server that is not the primary any more.
    "25006": Trouble.RECONNECT,
    "26": Trouble.RECONNECT,  # whatever lies in between has forgotten our prepared statements
    "40003": Trouble.DOUBT,  # statement_completion_unknown
    "40": Trouble.REFUSED,  # serialization failure, deadlock
    "53": Trouble.REFUSED,  # disk full, out of memory, too many connections
    "55P03": Trouble.REFUSED,  # lock not available
    "57014": Trouble.REFUSED,  # statement timeout
    "57P03": Trouble.REFUSED,  # the server is starting up
    "28": Trouble.LASTING,
    "3D": Trouble.LASTING,
    "3F": Trouble.LASTING,
    "42": Trouble.LASTING,
    "55P02": Trouble.LASTING,
}


def trouble(exc: BaseException) -> Trouble:
    """Tell what an error means."""
    found = _meaning(origin(exc))
    return Trouble.RECONNECT if isinstance(exc, NotDone) and found is Trouble.DOUBT else found


def _meaning(error: BaseException) -> Trouble:
    if isinstance(error, SerializationError):
        return Trouble.DATA  # no row could be made of it, so nothing was sent
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # The driver could not make a message of it, and has sent nothing.
        return Trouble.LASTING if isinstance(error, asyncpg.exceptions.ClientConfigurationError) else Trouble.DATA
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _BY_STATE.get(state) or _BY_STATE.get(state[:2]) or Trouble.DOUBT
    return Trouble.DOUBT


def may_be_of_one(exc: BaseException) -> bool:
    """Tell whether an error may be due to one of those that share a statement, and the others be none the worse."""
    return _meaning(origin(exc)) is Trouble.DATA or getattr(origin(exc), "severity_en", None) == "ERROR"


def origin(exc: BaseException) -> BaseException:
    """Return the driver's own error, or what lies behind it all."""
    found = exc
    inner: BaseException | None = exc
    while inner is not None:
        exc = inner
        if getattr(exc, "sqlstate", None) is not None:
            found = exc
        inner = getattr(exc, "orig", None) or exc.__cause__
    return found if getattr(found, "sqlstate", None) is not None else exc


def hide_values(exc: BaseException) -> None:
    """Take out of an error what shows a row: that may be nobody else's business."""
    error = origin(exc)
    if isinstance(error, asyncpg.PostgresError):
        error.detail = None


def said(exc: BaseException) -> str:
    """Return the driver's words on one line, without the statement."""
    error = origin(exc)
    return f"{type(error).__name__}: {line(' '.join(str(error).split()))}"
