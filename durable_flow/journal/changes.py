"""What records change in tables besides the journal's, as statements within the transaction that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import sql
from .encode import Changes
from .units import Execute


def apply_changes(execute: Execute, run: int, changes: Changes) -> None:
    """Change the waits and messages of a run."""
    this = {"run": run, "run_": run}
    _settle(execute, this, changes.settled)
    if changes.resumed_at is not None:
        execute(sql.reopen_waits, this)
        execute(sql.redeliver_messages, this)
        _settle(execute, this, changes.settled_again)
    for message, seq in changes.consumed:
        execute(sql.consume_message, {**this, "id_": message, "consumed_seq": seq})
    if changes.ended_at is not None:
        execute(sql.end_waits, this)
        execute(sql.undeliver_messages, {**this, "undelivered_at": changes.ended_at})
    for columns in changes.opened.values():
        execute(sql.open_wait, {**this, **columns})


def _settle(execute: Execute, this: dict[str, Any], outcomes: Mapping[str, str]) -> None:
    for wait_id, outcome in outcomes.items():
        execute(sql.settle_wait, {**this, "wait_id_": wait_id, "outcome": outcome})
