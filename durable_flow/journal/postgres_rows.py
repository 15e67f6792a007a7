"""What units bring to the one statement that writes a batch to Postgres: rows for each of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .seals import Seals, seal_rows
from .units import AppendUnit, CreateUnit


def rows_of(
    units: Iterable[AppendUnit | CreateUnit], seals: Seals, uids: Mapping[int, str]
) -> dict[str, list[Sequence[Any]]]:
    """Return the rows of every part that has some; `uids` has those of the runs that are appended to, if sealed."""
    parts: dict[str, list[Sequence[Any]]] = {}
    ids: set[str] = set()

    def add(part: str, rows: Iterable[Sequence[Any]]) -> None:
        if rows:
            parts.setdefault(part, []).extend(rows)

    for unit in units:
        encoded = unit.encoded
        if isinstance(unit, CreateUnit):
            run_id, uid = unit.values[:2]
            if run_id in ids:
                continue
            ids.add(run_id)
            encoded = seal_rows(encoded, seals, uid)
            add("creates", [unit.values])
            add("created_rows", [(run_id, *row[1:]) for row in encoded.rows])
            add("created_items", [(run_id, *row[1:]) for row in encoded.stream])
            if encoded.changes is not None:
                add("created_waits", [(run_id, *wait.values()) for wait in encoded.changes.opened.values()])
            continue
        run = unit.run
        uid = uids.get(run, "")
        encoded = seal_rows(encoded, seals, uid)
        add("appends", [(run, unit.after, unit.epoch)])
        add("rows", encoded.rows)
        add("items", encoded.stream)
        if unit.update is not None:
            new = seals.seal_update(unit.update[1], uid)
            add("updates", [(run, new["status"], new["wake_at"], new["updated_at"], new["end_"], new["error"],
                             unit.last)])  # fmt: skip
        changes = encoded.changes
        if changes is not None:
            add("opened", [(run, *wait.values()) for wait in changes.opened.values()])
            first, again = changes.settled, changes.settled_again
            add("settled", [(run, wait_id, first.get(wait_id), again.get(wait_id)) for wait_id in {**first, **again}])
            add("consumed", [(run, *message) for message in changes.consumed])
            if changes.ended_at is not None:
                add("ended", [(run, changes.ended_at)])
            elif changes.resumed_at is not None:
                add("resumed", [(run, changes.resumed_at)])
    return parts
