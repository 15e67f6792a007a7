"""A recorded history folds to the state that it folded to when its version of the fold was made.

Snapshots outlive the process that wrote them: one of another fold must not be taken for what today's would give.
`python tests/unit/test_fold_version.py` prints the hash for a new version, and with --record makes the histories anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path

from strategies import Simulation, random_history

from durable_flow.fold import FOLD_VERSION, fold
from durable_flow.journal.rows import to_columns, to_fact
from durable_flow.records import Record
from durable_flow.snapshot import encode_state

HISTORIES = Path(__file__).with_name("golden") / "folded_histories.jsonl"

# By version of the fold. If this test fails and the histories still fold as they should, what a state is has changed:
# raise FOLD_VERSION and add its hash.
STATES = {1: "fc914dc2e51149d55739f25481c356f7bf764b78034ee87205735c0f411f4260"}


def folded_hash() -> str:
    """Return a hash over the states of every recorded history, at its end and on the way."""
    digest = hashlib.sha256()
    for line in HISTORIES.read_text("ascii").splitlines():
        records = [_read(row) for row in json.loads(line)]
        for cut in range(0, len(records) + 1, 25):
            digest.update(encode_state(fold(records[:cut])).data)
        digest.update(encode_state(fold(records)).data)
    return digest.hexdigest()


def test_the_fold_of_this_version_gives_the_states_that_it_gave():
    assert folded_hash() == STATES[FOLD_VERSION], "the fold has changed: raise fold.FOLD_VERSION (see above)"


def test_each_version_of_the_fold_gives_other_states():
    assert max(STATES) == FOLD_VERSION
    assert len(set(STATES.values())) == len(STATES)


def _written(record: Record) -> list[object]:
    *columns, payload, v = to_columns(record.fact)
    encoded = None if payload is None else base64.b64encode(payload).decode("ascii")
    return [record.seq, record.at, record.boundary, *columns, encoded, v]


def _read(row: list[object]) -> Record:
    seq, at, boundary, *columns, encoded, v = row
    payload = None if encoded is None else base64.b64decode(str(encoded))
    return Record(seq, at, boundary, to_fact(*columns, payload, v))  # type: ignore[arg-type]


def _record() -> None:
    """Write the histories of few seeds that hold every kind of fact between them."""
    chosen, kinds = [Simulation().continued().records], set()
    for seed in range(2000):
        records = random_history(seed)
        new = {type(record.fact) for record in records} - kinds
        if new:
            chosen.append(records)
            kinds |= new
    lines = [json.dumps([_written(record) for record in records], separators=(",", ":")) for records in chosen]
    HISTORIES.write_text("\n".join(lines) + "\n", "ascii")


if __name__ == "__main__":
    if "--record" in sys.argv:
        _record()
    print(FOLD_VERSION, folded_hash())
