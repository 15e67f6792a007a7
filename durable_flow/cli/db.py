"""`durable-flow db`: looks after the tables of a journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..errors import DurableFlowError
from ..journal.journal import DEFAULT_URL, URL_VARIABLE
from ..journal.migrate import HEAD, check_version, sql_of, upgrade_url, version_at
from ..journal.url import canonical_url, masked


def run(command: str, url: str | None) -> int:
    """Run `durable-flow db COMMAND` on the database at `url` (None: the default) and return the exit code."""
    commands: dict[str, Callable[[str], None]] = {
        "upgrade": _upgrade,
        "current": _current,
        "check": _check,
        "sql": _sql,
    }
    try:
        commands[command](url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    except DurableFlowError as error:
        print(f"durable-flow db {command}: {error}", file=sys.stderr)
        return 1
    return 0


def _upgrade(url: str) -> None:
    upgrade_url(url)
    print(f"{_shown(url)} has schema {HEAD}.")


def _current(url: str) -> None:
    print(version_at(url) or "none")


def _check(url: str) -> None:
    check_version(version_at(url), _shown(url))
    print(f"{_shown(url)} is up to date: it has schema {HEAD}.")


def _sql(url: str) -> None:
    print(sql_of(url), end="")


def _shown(url: str) -> str:
    return masked(canonical_url(url))
