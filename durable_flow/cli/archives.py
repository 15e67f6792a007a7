"""`durable-flow export` and `durable-flow import`: runs as files, from one database to another."""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace

from ..errors import RunNotFoundError
from ..journal.journal import DEFAULT_URL, URL_VARIABLE
from ..journal.migrate import version_at
from ..journal.url import canonical_url, masked
from .opening import opened, told


def export(options: Namespace) -> int:
    """Run `durable-flow export` with these options and return the exit code."""
    return told("export", _export(options))


def import_(options: Namespace) -> int:
    """Run `durable-flow import` with these options and return the exit code."""
    return told("import", _import(options))


async def _export(options: Namespace) -> str:
    run_id, file = options.run_id, options.file
    where = canonical_url(options.url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    # Not even an empty database is made where there is none to read from.
    if await asyncio.to_thread(version_at, where) is None:
        raise RunNotFoundError(f"there is no run {run_id}: {masked(where)} has no journal")
    async with opened(options.url, allow_plaintext=options.allow_plaintext) as journal:
        made = await journal.export(run_id, file)
    return (
        f"{file} has run {made.run_id} of {made.workflow} ({made.status}): {made.records} records, {made.items} stream "
        f"items, {made.messages} messages. Its last hash is {made.hash}."
    )


async def _import(options: Namespace) -> str:
    async with opened(options.url, allow_plaintext=options.allow_plaintext) as journal:
        run = await journal.import_(options.file, options.run_id, allow_codecs=options.allow_codec)
        return (
            f"{masked(journal.settings.url)} has run {run.run_id} of {run.workflow} ({run.status}): {run.seq} records."
        )
