"""Units: what a writer is asked to write, each with an outcome of its own, and what is said when one is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DurableFlowError, JournalError, RunFenced, WriteOutcomeUnknown
from . import sql
from .encode import Encoded

Execute = Callable[[sql.Statement, Mapping[str, Any]], Sequence[Any]]
"""Runs a statement inside of the transaction that is under way and returns its rows."""


@dataclass(slots=True, eq=False)
class AppendUnit:
    """Records for a run that this engine owns.

    `update` is a statement on the run's row with its parameters; `last`: no append of this claim will follow. `again`:
    it may have been committed before.
    """

    run: int
    run_id: str
    after: int
    epoch: int
    encoded: Encoded
    update: tuple[sql.Statement, dict[str, Any]] | None
    last: bool
    again: bool = False


@dataclass(slots=True, eq=False)
class CreateUnit:
    """A run to be created; `values` are those of its row, beginning with run_id and uid."""

    values: sql.Params
    encoded: Encoded
    again: bool = False


@dataclass(slots=True, eq=False)
class CallUnit:
    """Any other write: a function that is run inside of the transaction.

    `again` tells it that it may have been committed before. It writes after its last check, so that an error that it
    raises leaves nothing behind.
    """

    function: Callable[[Execute, bool], Any]
    again: bool = False


Unit = AppendUnit | CreateUnit | CallUnit


def fenced(unit: AppendUnit, found: str) -> RunFenced:
    """Return the error for an append that comes too late, or not at the run's end."""
    return RunFenced(
        f"run {unit.run_id}: append after seq {unit.after} at epoch {unit.epoch} refused, {found}. "
        "Another worker owns this run; this one has dropped it. Nothing was written."
    )


def refused(unit: Unit, exc: Exception) -> DurableFlowError:
    """Return the error for a unit whose data the database does not take."""
    if isinstance(exc, DurableFlowError):
        return exc
    if isinstance(unit, AppendUnit):
        what = f"run {unit.run_id}: the append after seq {unit.after}"
    else:
        what = f"run {unit.values[0]}: its creation" if isinstance(unit, CreateUnit) else "a write"
    error = JournalError(f"{what} was refused ({type(exc).__name__}: {exc}). Nothing was written.")
    error.__cause__ = exc
    return error


def unknown(where: str, reason: object, deadline_seconds: float, exc: Exception) -> WriteOutcomeUnknown:
    """Return the error for a unit that may have been written to the database `where`."""
    error = WriteOutcomeUnknown(
        f"{where}: a commit failed ({reason}), and whether it was made could not be found out within "
        f"{deadline_seconds:g} seconds. Resume the run when the database works again: its journal tells."
    )
    error.__cause__ = exc
    return error
