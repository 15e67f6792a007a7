"""`durable-flow export` and `durable-flow import`: runs as files, from one database to another."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection, Coroutine
from typing import Any

from ..errors import DurableFlowError, RunNotFoundError
from ..journal.journal import DEFAULT_URL, URL_VARIABLE, Journal
from ..journal.migrate import version_at
from ..journal.url import canonical_url, masked


def export(run_id: str, file: str, url: str | None) -> int:
    """Run `durable-flow export` on the database at `url` (None: the default) and return the exit code."""
    return _told("export", _export(run_id, file, url))


def import_(file: str, url: str | None, new_run_id: str | None, allow_codecs: Collection[str]) -> int:
    """Run `durable-flow import` on the database at `url` (None: the default) and return the exit code."""
    return _told("import", _import(file, url, new_run_id, allow_codecs))


async def _export(run_id: str, file: str, url: str | None) -> str:
    where = canonical_url(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    # Not even an empty database is made where there is none to read from.
    if await asyncio.to_thread(version_at, where) is None:
        raise RunNotFoundError(f"there is no run {run_id}: {masked(where)} has no journal")
    async with Journal(url) as journal:
        made = await journal.export(run_id, file)
    return (
        f"{file} has run {made.run_id} of {made.workflow} ({made.status}): {made.records} records, {made.items} stream "
        f"items, {made.messages} messages. Its last hash is {made.hash}."
    )


async def _import(file: str, url: str | None, new_run_id: str | None, allow_codecs: Collection[str]) -> str:
    async with Journal(url) as journal:
        run = await journal.import_(file, new_run_id, allow_codecs=allow_codecs)
        return (
            f"{masked(journal.settings.url)} has run {run.run_id} of {run.workflow} ({run.status}): {run.seq} records."
        )


def _told(command: str, work: Coroutine[Any, Any, str]) -> int:
    try:
        print(asyncio.run(work))
    except (DurableFlowError, OSError) as error:
        print(f"durable-flow {command}: {error}", file=sys.stderr)
        return 1
    return 0
