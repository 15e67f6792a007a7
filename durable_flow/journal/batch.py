"""One batch of the SQLite writer: how its units are put into one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DurableFlowError
from . import sql
from .changes import apply_changes
from .encode import Encoded
from .protocol import Claim
from .seals import Seals, seal_rows
from .units import AppendUnit, CallUnit, CreateUnit, Unit, fenced, refused


@dataclass(slots=True)
class Batch:
    """Applies units to a connection within one transaction, which the caller begins and commits.

    `outcomes` holds each unit's result, or the error that is its own: such a unit has written nothing.
    """

    connection: sqlite3.Connection
    seals: Seals
    heads: dict[int, tuple[int, int]]
    """Epoch and seq of runs as this writer has left them: saves a look into the journal for each append."""
    outcomes: dict[Unit, Any] = field(default_factory=dict)
    new_heads: dict[int, tuple[int, int]] = field(default_factory=dict)
    uids: dict[int, str] = field(default_factory=dict)
    rows: int = 0

    def apply(self, units: Sequence[Unit]) -> None:
        """Write the units together. Raises sqlite3.IntegrityError and the like if one of them is refused."""
        for unit in units:
            if isinstance(unit, CallUnit):
                try:
                    self.outcomes[unit] = unit.function(self._execute, unit.again)
                except DurableFlowError as refused:
                    self.outcomes[unit] = refused
        creates = [unit for unit in units if isinstance(unit, CreateUnit)]
        appends = [unit for unit in units if isinstance(unit, AppendUnit)]
        encoded = self._created(creates) if creates else []
        if appends:
            encoded += self._accepted(appends)
        rows = [row for one in encoded for row in one.rows]
        for text, params in sql.insert_journal.split(rows):
            self.connection.execute(text, params)
        for text, params in sql.insert_stream.split([row for one in encoded for row in one.stream]):
            self.connection.execute(text, params)
        for one in encoded:
            if one.changes is not None:
                apply_changes(self._execute, one.rows[0][0], one.changes)
        for append in appends:
            if append.update is not None and append not in self.outcomes:
                statement, values = append.update
                self._execute(statement, self.seals.seal_update(values, self.uids[append.run]))
        for unit in appends:
            self.outcomes.setdefault(unit, None)
        self.rows += len(rows)

    def apply_one_by_one(self, units: Sequence[Unit]) -> None:
        """Write each unit that the database takes; the others get an error of their own."""
        for unit in units:
            self.connection.execute("SAVEPOINT one_unit")
            heads = dict(self.new_heads)
            rows = self.rows
            try:
                self.apply([unit])
            except Exception as exc:
                if is_trouble(exc):
                    raise
                self.connection.execute("ROLLBACK TO one_unit")
                self.new_heads, self.rows = heads, rows
                self.outcomes[unit] = _refusal(unit, exc)
            self.connection.execute("RELEASE one_unit")

    def _execute(self, statement: sql.Statement, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement.text, {**statement.fixed, **values}).fetchall()

    def _created(self, creates: list[CreateUnit]) -> list[Encoded]:
        keys: dict[str, int] = {}
        wanted = []
        for unit in creates:
            if unit.again and (claim := self._created_before(unit)) is not None:
                self.outcomes[unit] = claim
            else:
                wanted.append(unit)
        for text, params in sql.insert_runs.split([unit.values for unit in wanted]):
            for run, run_id in self.connection.execute(text, params).fetchall():
                keys[run_id] = run
        encoded = []
        for unit in wanted:
            run_id, uid = unit.values[:2]
            # The first unit of this run id made the run; for a second one in the same batch the id exists.
            run = keys.pop(run_id, None)
            if run is None:
                self.outcomes[unit] = None
                continue
            one = unit.encoded.of_run(run)
            encoded.append(seal_rows(one, self.seals, uid))
            self.new_heads[run] = (1, len(one.rows))
            self.outcomes[unit] = Claim(run, run_id, uid, 1, len(one.rows))
        return encoded

    def _created_before(self, unit: CreateUnit) -> Claim | None:
        run_id, uid = unit.values[:2]
        found = self._execute(sql.run_by_id, {"run_id_": run_id})
        # The uid is random: a run that has it is the one that this unit made.
        return Claim(found[0][0], run_id, uid, 1, len(unit.encoded.rows)) if found and found[0][1] == uid else None

    def _accepted(self, appends: list[AppendUnit]) -> list[Encoded]:
        """Return what may be written; the rest is fenced."""
        encoded = []
        found: dict[int, tuple[int, str]] = {}
        for at in range(0, len(appends), 128):
            runs = [unit.run for unit in appends[at : at + 128]]
            # Filled up to a few fixed sizes, so that the statement stays prepared.
            runs += runs[-1:] * ((1 << (len(runs) - 1).bit_length()) - len(runs))
            for run, epoch, uid in self.connection.execute(sql.select_epochs(len(runs)), runs).fetchall():
                found[run] = epoch, uid
                self.uids[run] = uid
        for unit in appends:
            if unit.again and self._appended_before(unit):
                self.outcomes[unit] = None
                continue
            if unit.run not in found:
                self.outcomes[unit] = fenced(unit, "there is no such run")
                continue
            epoch, uid = found[unit.run]
            if epoch != unit.epoch:
                self.outcomes[unit] = fenced(unit, f"its epoch is {epoch} now")
                continue
            head = self.new_heads.get(unit.run) or self.heads.get(unit.run)
            # What is remembered may only speak for an append, against it only the journal.
            if head != (epoch, unit.after) and (seq := self._last_seq(unit.run)) != unit.after:
                self.outcomes[unit] = fenced(unit, f"its last record is {seq}")
                continue
            self.new_heads[unit.run] = (epoch, unit.after + len(unit.encoded.rows))
            encoded.append(seal_rows(unit.encoded, self.seals, uid))
        return encoded

    def _appended_before(self, unit: AppendUnit) -> bool:
        # One epoch has one writer, so a row of this epoch at this seq is the one that this unit wrote.
        return self._execute(sql.epoch_from_seq, {"run_": unit.run, "seq_": unit.after + 1}) == [(unit.epoch,)]

    def _last_seq(self, run: int) -> int:
        found = self._execute(sql.last_record, {"run_": run})
        return int(found[0][0]) if found else 0


# The errors that one unit's data can cause.
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.NotSupportedError)


def is_trouble(exc: BaseException) -> bool:
    """Tell whether an error says something about the database, not about the data of one unit."""
    return isinstance(exc, sqlite3.Error) and not isinstance(exc, _REFUSALS)


def is_seq_conflict(exc: BaseException) -> bool:
    """Tell whether somebody else has written at this place of the journal."""
    return isinstance(exc, sqlite3.IntegrityError) and "journal.run, journal.seq" in str(exc)


def _refusal(unit: Unit, exc: Exception) -> DurableFlowError:
    if isinstance(unit, AppendUnit) and is_seq_conflict(exc):
        return fenced(unit, "other records are at that place")
    return refused(unit, exc)
