"""`durable-flow export` and `durable-flow import`: runs as files, from one database to another."""

from __future__ import annotations

from argparse import Namespace

from ..journal.url import masked
from .opening import opened, told


def export(options: Namespace) -> int:
    """Run `durable-flow export` with these options and return the exit code."""
    return told("export", _export(options))


def import_(options: Namespace) -> int:
    """Run `durable-flow import` with these options and return the exit code."""
    return told("import", _import(options))


async def _export(options: Namespace) -> str:
    run_id, file = options.run_id, options.file
    async with opened(options.url, allow_plaintext=options.allow_plaintext) as journal:
        made = await journal.export(run_id, file)
    return (
        f"{file} has run {made.run_id} of {made.workflow} ({made.status}): {made.records} records, {made.items} stream "
        f"items, {made.messages} messages. Its last hash is {made.hash}."
    )


async def _import(options: Namespace) -> str:
    async with opened(options.url, allow_plaintext=options.allow_plaintext, create=True) as journal:
        run = await journal.import_(options.file, options.run_id, allow_codecs=options.allow_codec)
        return (
            f"{masked(journal.settings.url)} has run {run.run_id} of {run.workflow} ({run.status}): {run.seq} records."
        )
