"""The one statement by which a batch is written to Postgres, made of the parts that the batch needs.

Every part is a common table expression that takes its rows as arrays, so that the text does not depend on how many
there are and stays prepared. All parts see the database as it was before the statement: therefore none of them touches
a row that another one writes. An append's parts go on from `ok`, which has the runs whose epoch and end are as expected
and holds them with FOR SHARE until the commit, so that nobody claims them meanwhile. A run that somebody else has
locked at this moment is left out: it must not keep the others of the batch waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from . import sql
from .tables import messages, runs, waits

_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

Field = tuple[str, TypeEngine[Any]]


def _fields(columns: Iterable[Column[Any]]) -> list[Field]:
    return [(column.name, column.type) for column in columns]


_RUN: Field = ("run", BigInteger())
_AT: Field = ("at", BigInteger())

# The arrays of each part, by its name. `run` is the key of a run that exists, `run_id` names one that is created.
_ROWS = _fields(sql.JOURNAL_COLUMNS)
_ITEMS = _fields(sql.STREAM_COLUMNS)
_WAITS = [_RUN, *_fields(sql.WAIT_COLUMNS)]
FIELDS: dict[str, list[Field]] = {
    "appends": [_RUN, ("after", BigInteger()), ("epoch", BigInteger())],
    "rows": _ROWS,
    "items": _ITEMS,
    "creates": _fields(sql.NEW_RUN_COLUMNS),
    "created_rows": [("run_id", Text()), *_ROWS[1:]],
    "created_items": [("run_id", Text()), *_ITEMS[1:]],
    "created_waits": [("run_id", Text()), *_WAITS[1:]],
    "updates": [
        _RUN, *_fields((runs.c.status, runs.c.wake_at, runs.c.updated_at, runs.c.finished_at, runs.c.error)),
        ("released", Boolean()),
    ],
    "opened": _WAITS,
    "settled": [_RUN, *_fields((waits.c.wait_id, waits.c.outcome)), ("again", Text())],
    "consumed": [_RUN, *_fields((messages.c.id, messages.c.consumed_seq))],
    "ended": [_RUN, _AT],
    "resumed": [_RUN, _AT],
}  # fmt: skip


# Up to so many rows of a part are given one by one: scanning arrays takes the server longer to set up than a lone
# append takes it to write. Where there may be more texts than this makes, none of them would stay prepared.
_ONE_BY_ONE = {"appends": 1, "rows": 8, "items": 2, "updates": 1}


class _Text:
    """Numbers the parameters of a statement while its text is put together.

    `parameters` says what each is: part and field, and which row of the part, None for an array of the field.
    """

    def __init__(self, single: Mapping[str, int]) -> None:
        self.single = single
        self.parameters: dict[tuple[str, str, int | None], str] = {}

    def _parameter(self, part: str, field: Field, row: int | None) -> str:
        name, type = field
        number = self.parameters.setdefault((part, name, row), f"${len(self.parameters) + 1}")
        return f"{number}::{type.compile(dialect=_dialect)}{'[]' if row is None else ''}"

    def array(self, part: str, field: Field) -> str:
        """Return a field of all rows of a part."""
        return self._parameter(part, field, None)

    def rows(self, part: str) -> str:
        """Return a source of rows named x with the fields of a part."""
        fields, count = FIELDS[part], self.single.get(part, 0)
        names = ", ".join(name for name, _ in fields)
        if not count:
            return f"unnest({', '.join(self.array(part, field) for field in fields)}) AS x({names})"
        rows = (", ".join(self._parameter(part, field, row) for field in fields) for row in range(count))
        return f"(VALUES {', '.join(f'({row})' for row in rows)}) AS x({names})"


def _names(fields: Iterable[Field], before: str = "") -> str:
    return ", ".join(before + name for name, _ in fields)


# Said so that the planner asks a hash table for each row, and not every run in turn.
_OF_OK = "(x.run IN (SELECT run FROM ok)) IS TRUE"


def _appends(text: _Text, parts: Collection[str]) -> str:
    return (
        f"SELECT r.run FROM {text.rows('appends')} JOIN runs r ON r.run = x.run AND r.epoch = x.epoch "
        "WHERE EXISTS (SELECT FROM journal j WHERE j.run = x.run AND j.seq = x.after) FOR SHARE OF r SKIP LOCKED"
    )


def _inserted(table: str, part: str) -> Callable[[_Text, Collection[str]], str]:
    fields = FIELDS[part]

    def make(text: _Text, parts: Collection[str]) -> str:
        values = f"SELECT {_names(fields, 'x.')} FROM {text.rows(part)} WHERE {_OF_OK}"
        return f"INSERT INTO {table} ({_names(fields)}) {values}"

    return make


def _creates(text: _Text, parts: Collection[str]) -> str:
    # In one order everywhere: two who create the same runs at once wait for each other, but never both.
    names = _names(FIELDS["creates"])
    return (
        f"INSERT INTO runs ({names}) SELECT {names} FROM {text.rows('creates')} ORDER BY run_id "
        "ON CONFLICT (run_id) DO NOTHING RETURNING run, run_id"
    )


def _created(table: str, part: str) -> Callable[[_Text, Collection[str]], str]:
    others = FIELDS[part][1:]

    def make(text: _Text, parts: Collection[str]) -> str:
        return (
            f"INSERT INTO {table} (run, {_names(others)}) SELECT c.run, {_names(others, 'x.')} FROM {text.rows(part)} "
            "JOIN creates c ON c.run_id = x.run_id"
        )

    return make


def _updates(text: _Text, parts: Collection[str]) -> str:
    # `finished_at` is the time of the first end; a run that goes on has none.
    return (
        "UPDATE runs r SET status = x.status, wake_at = x.wake_at, updated_at = x.updated_at, error = x.error, "
        "finished_at = CASE WHEN x.finished_at IS NULL THEN NULL ELSE coalesce(r.finished_at, x.finished_at) END, "
        "owner = CASE WHEN x.released THEN NULL ELSE r.owner END "
        f"FROM {text.rows('updates')} WHERE r.run = x.run AND {_OF_OK}"
    )


def _opened(text: _Text, parts: Collection[str]) -> str:
    names = [name for name, _ in _WAITS]
    changed = ", ".join(f"{name} = excluded.{name}" for name in names[2:])
    return _inserted("waits", "opened")(text, parts) + f" ON CONFLICT (run, wait_id) DO UPDATE SET {changed}"


def _settled(text: _Text, parts: Collection[str]) -> str:
    return (
        "UPDATE waits w SET outcome = CASE WHEN w.outcome IS NULL THEN coalesce(x.outcome, x.again) ELSE x.again END "
        f"FROM {text.rows('settled')} WHERE w.run = x.run AND w.wait_id = x.wait_id "
        f"AND (w.outcome IS NULL OR (w.outcome = 'ended' AND x.again IS NOT NULL)) AND {_OF_OK}"
    )


def _all_waits(part: str, before: str, after: str, settled_but: str = "") -> Callable[[_Text, Collection[str]], str]:
    def make(text: _Text, parts: Collection[str]) -> str:
        # What `opened` or `settled` writes is left to them: a statement changes a row only once.
        others = "".join(
            f" AND NOT EXISTS (SELECT FROM {text.rows(other)} WHERE x.run = w.run AND x.wait_id = w.wait_id{but})"
            for other, but in (("opened", ""), ("settled", settled_but))
            if other in parts
        )
        return (
            f"UPDATE waits w SET outcome = {after} FROM {text.rows(part)} WHERE w.run = x.run "
            f"AND w.outcome {before} AND {_OF_OK}{others}"
        )

    return make


def _consumed(text: _Text, parts: Collection[str]) -> str:
    return (
        f"UPDATE messages m SET consumed_seq = x.consumed_seq, payload = NULL FROM {text.rows('consumed')} "
        f"WHERE m.run = x.run AND m.id = x.id AND {_OF_OK}"
    )


def _not_consumed(text: _Text, parts: Collection[str]) -> str:
    if "consumed" not in parts:
        return ""
    return f" AND NOT m.id = ANY({text.array('consumed', FIELDS['consumed'][1])})"


def _undelivered(text: _Text, parts: Collection[str]) -> str:
    return (
        f"UPDATE messages m SET undelivered_at = x.at FROM {text.rows('ended')} WHERE m.run = x.run "
        f"AND m.consumed_seq IS NULL AND m.undelivered_at IS NULL AND {_OF_OK}{_not_consumed(text, parts)}"
    )


def _redelivered(text: _Text, parts: Collection[str]) -> str:
    # A cancellation is not for a life after the run's end, also if it came at the moment of that end.
    return (
        "UPDATE messages m SET undelivered_at = CASE WHEN m.kind <> 'cancel' THEN NULL "
        "WHEN r.finished_at IS NOT NULL THEN coalesce(m.undelivered_at, x.at) ELSE m.undelivered_at END "
        f"FROM {text.rows('resumed')}, runs r WHERE m.run = x.run AND r.run = x.run "
        f"AND m.consumed_seq IS NULL AND {_OF_OK}{_not_consumed(text, parts)}"
    )


# By name; each with the arrays without which it is left out. A new run has no waits or messages from before.
_PARTS: dict[str, tuple[str, Callable[[_Text, Collection[str]], str]]] = {
    "ok": ("appends", _appends),
    "rows": ("rows", _inserted("journal", "rows")),
    "items": ("items", _inserted("stream", "items")),
    "creates": ("creates", _creates),
    "created_rows": ("created_rows", _created("journal", "created_rows")),
    "created_items": ("created_items", _created("stream", "created_items")),
    "created_waits": ("created_waits", _created("waits", "created_waits")),
    "updates": ("updates", _updates),
    "opened": ("opened", _opened),
    "settled": ("settled", _settled),
    "ended": ("ended", _all_waits("ended", "IS NULL", "'ended'")),
    "resumed": ("resumed", _all_waits("resumed", "= 'ended'", "NULL", " AND x.again IS NOT NULL")),
    "consumed": ("consumed", _consumed),
    "undelivered": ("ended", _undelivered),
    "redelivered": ("resumed", _redelivered),
}


Parameter = tuple[str, int, int | None]


@lru_cache(maxsize=512)
def _statement(parts: tuple[str, ...], single: tuple[tuple[str, int], ...]) -> tuple[str, list[Parameter] | None]:
    """Return the text and its parameters: part, field and row; None if they are all cells of all rows, in order."""
    text = _Text(dict(single))
    made = (f"{name} AS ({make(text, parts)})" for name, (needed, make) in _PARTS.items() if needed in parts)
    expressions = ", ".join(made)
    results = []
    if "appends" in parts:
        results.append("SELECT run, NULL AS run_id FROM ok")
    if "creates" in parts:
        results.append("SELECT run, run_id FROM creates")
    places = {(part, name): at for part, fields in FIELDS.items() for at, (name, _) in enumerate(fields)}
    parameters: list[Parameter] = [(part, places[part, name], row) for part, name, row in text.parameters]
    cells = [(part, at, row) for part, count in single for row in range(count) for at in range(len(FIELDS[part]))]
    statement = f"WITH {expressions} {' UNION ALL '.join(results)}"
    return statement, None if parameters == cells else parameters


def batch_statement(rows: dict[str, list[Sequence[Any]]]) -> tuple[str, list[Any]]:
    """Return the text and the parameters that write these rows, by part; parts without rows must not be there.

    It returns the key of every run that was appended to, and key and run_id of every one that was created.
    """
    alone = len(rows.get("appends", ())) == 1 and "creates" not in rows
    single = tuple(
        [(part, len(values)) for part, values in rows.items() if alone and len(values) <= _ONE_BY_ONE.get(part, 0)]
    )
    text, parameters = _statement(tuple(rows), single)
    if parameters is None:
        return text, [cell for values in rows.values() for row in values for cell in row]
    columns = {
        part: list(zip(*values, strict=True)) for part, values in rows.items() if (part, len(values)) not in single
    }
    return text, [columns[part][at] if row is None else rows[part][row][at] for part, at, row in parameters]
