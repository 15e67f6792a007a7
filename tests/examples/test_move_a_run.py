"""The offer: it waits on one machine and ends on another, and the shop is asked for its price once."""

from __future__ import annotations

from pathlib import Path

from .processes import EXAMPLES, run_to_end

SCRIPT = [str(EXAMPLES / "move_a_run.py")]


def test_a_run_ends_on_another_machine_than_it_began(tmp_path: Path):
    code, output = run_to_end([*SCRIPT, "here"], tmp_path)
    assert code == 0, output
    assert "asking for the price of a lamp" in output
    (tmp_path / "here.db").unlink()

    code, output = run_to_end([*SCRIPT, "there"], tmp_path)
    assert code == 0, output
    assert "asking" not in output
    assert "offered for 12, approved by Ada" in output
