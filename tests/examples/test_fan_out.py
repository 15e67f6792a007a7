"""The purchase: killed while shops are asked, the same line asks only those that have not answered."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from .processes import EXAMPLES, read_until, run_to_end, running

SCRIPT = [str(EXAMPLES / "fan_out.py")]


def asked(output: str) -> list[str]:
    return re.findall(r"^asking (\w+)", output, re.MULTILINE)


def test_killed_in_the_middle_it_asks_nobody_who_has_answered(tmp_path: Path):
    with running(SCRIPT, tmp_path) as process:
        before = asked(read_until(process, "asking west"))
        process.kill()
    code, output = run_to_end(SCRIPT, tmp_path)

    assert code == 0, output
    assert "bought from south for 9; " in output
    assert "was the first to answer" in output
    # Two are asked at a time: when the last one is asked, two have answered.
    assert before == ["north", "south", "east", "west"]
    assert Counter(asked(output)) == Counter(["east", "west"])


def test_a_completed_purchase_asks_nobody(tmp_path: Path):
    code, first = run_to_end(SCRIPT, tmp_path)
    assert code == 0, first
    code, again = run_to_end(SCRIPT, tmp_path)
    assert code == 0, again
    assert asked(again) == []
    assert "bought from south for 9" in again
