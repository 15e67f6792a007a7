"""The sensor: compacted while it works, its result kept when it is pruned."""

from __future__ import annotations

from pathlib import Path

from .processes import EXAMPLES, run_to_end


def test_a_long_run_is_compacted_and_old_ones_are_pruned(tmp_path: Path):
    code, output = run_to_end([str(EXAMPLES / "retention.py")], tmp_path)
    assert code == 0, output
    total = sum(n % 7 for n in range(301))
    assert output.splitlines() == [
        "compacted while it works: True",
        f"and it goes on: {total}",
        "its first checkpoint is gone",
        "would be pruned: 6 runs",
        f"the result is kept: {total}",
        "records left: 6",
    ]
