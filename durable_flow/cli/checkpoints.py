"""`durable-flow checkpoints`, `diff`, `blame` and `fork`: a run's checkpoints, without the workflow's code."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from ..errors import DurableFlowError
from ..events import Event, UnknownEvent, event_name
from ..journal.journal import Journal
from .opening import opened, told
from .text import table, width

# Rows of a table that are held at a time.
_PAGE = 500


def run(options: Namespace) -> int:
    """Run the command that the options name and return the exit code."""
    commands: dict[str, Callable[[Journal, Namespace], Awaitable[None]]] = {
        "checkpoints": _checkpoints,
        "diff": _diff,
        "blame": _blame,
        "fork": _fork,
    }
    command: str = options.command

    async def work() -> None:
        async with opened(options.url, allow_plaintext=options.allow_plaintext) as journal:
            await commands[command](journal, options)

    return told(command, work())


async def _checkpoints(journal: Journal, options: Namespace) -> None:
    rows: list[tuple[object, ...]] = []
    async for c in journal.checkpoints(options.run_id):
        assert c.at is not None
        what = c.name if c.name is not None else c.last_completed_step or ""
        changed = ", ".join(c.keys_changed)
        rows.append((c.seq, _time(c.at), c.kind, what, _names(c.input_events), _names(c.output_events), changed))
        if len(rows) == _PAGE:
            _print(_CHECKPOINT_HEAD, rows)
            rows.clear()
    if rows:
        _print(_CHECKPOINT_HEAD, rows)


_CHECKPOINT_HEAD = ("seq", "time", "kind", "step or name", "input", "output", "keys changed")


async def _diff(journal: Journal, options: Namespace) -> None:
    b = None if options.b is None else named_point(options.b)
    # What is written stays JSON where the terminal knows few characters.
    plain = sys.stdout.encoding.lower() not in ("utf-8", "utf8")
    for operation in await journal.diff(options.run_id, named_point(options.a), b):
        print(json.dumps(operation, ensure_ascii=plain))


async def _blame(journal: Journal, options: Namespace) -> None:
    rows = []
    async for change in journal.blame(options.run_id, options.key):
        who = change.step or change.by or change.kind
        old = _short(_text(change.old)) if change.existed else "-"
        new = _short(_text(change.new)) if change.exists else "-"
        rows.append((change.seq, _time(change.at), who, old, new))
    if rows:
        _print(("seq", "time", "by", "old", "new"), rows)


async def _fork(journal: Journal, options: Namespace) -> None:
    at = None if options.at is None else named_point(options.at)
    values = dict(map(_assignment, options.set)) or None
    made = await journal.fork(options.run_id, at, new_run_id=options.new_run_id, set=values)
    print(f"{made.run_id} is a fork of {made.forked_from}, and {made.status}. flow.resume({made.run_id!r}) goes on.")


def _print(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(table(head, rows))


def named_point(text: str) -> int | str:
    """Return what names a place in a run, as an argument has it: a seq, or an id or a name."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    try:
        if equals:
            return key, json.loads(value)
    except (ValueError, RecursionError):
        pass
    raise DurableFlowError(f"--set {_short(text)!r}: it is KEY=JSON, as in --set budget=1200 or --set 'name=\"Ann\"'")


def _names(events: Sequence[Event]) -> str:
    """Return the names of events, each once, with its number if there are several."""
    names = Counter(event.name if isinstance(event, UnknownEvent) else event_name(type(event)) for event in events)
    return _short(", ".join(name if number == 1 else f"{number} {name}" for name, number in names.items()))


def _text(value: Any) -> str:
    """Return a value as Python writes it, or its class: integers of thousands of digits are not written."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _short(text: str) -> str:
    """Return a text of which two have a place in a line beside a seq, a time and a name."""
    most = (width() - 44) // 2
    return text if len(text) <= most else text[: most - 3] + "..."


def _time(at: datetime) -> str:
    """Return a time, which is UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S")
