"""`durable-flow compact` and `durable-flow prune`: journals that do not grow for ever."""

from __future__ import annotations

from argparse import Namespace

from .checkpoints import named_point
from .opening import opened, told


def run(options: Namespace) -> int:
    """Run the command that the options name and return the exit code."""
    return told(options.command, _compact(options) if options.command == "compact" else _prune(options))


async def _compact(options: Namespace) -> str:
    before = None if options.before is None else named_point(options.before)
    async with opened(options.url, allow_plaintext=options.allow_plaintext) as journal:
        made = await journal.compact(options.run_id, before)
    return f"{made.run_id} begins with checkpoint {made.first} now: {made.records} records were compacted."


async def _prune(options: Namespace) -> str:
    async with opened(options.url, allow_plaintext=options.allow_plaintext) as journal:
        made = await journal.prune(
            options.older_than, options.status, keep_results=not options.drop_results, dry_run=options.dry_run
        )
    lines = [f"{made.runs} runs with {made.records} records {'would be' if made.dry_run else 'were'} pruned."]
    if made.left:
        lines.append(f"{made.left} runs are left: they are being retried, cannot be read, or may still be asked for.")
    if made.dry_run:
        lines += made.run_ids
        if made.runs > len(made.run_ids):
            lines.append(f"... and {made.runs - len(made.run_ids)} more")
    return "\n".join(lines)
