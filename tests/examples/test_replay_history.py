"""The loans: a changed rule is held against recorded runs, and the agency is asked for nothing."""

from __future__ import annotations

from pathlib import Path

from .processes import EXAMPLES, run_to_end

SCRIPT = [str(EXAMPLES / "replay_history.py")]


def test_the_changed_rule_decides_otherwise_for_one_customer(tmp_path: Path):
    code, output = run_to_end([*SCRIPT, "record"], tmp_path)
    assert code == 0, output
    assert output.count("asking the agency") == 3
    assert output.splitlines()[1::2] == ["ada granted", "bob refused", "cleo granted"]
    for file in tmp_path.glob("loans.db*"):
        file.unlink()

    code, output = run_to_end([*SCRIPT, "replay"], tmp_path)
    assert code == 0, output
    assert "asking" not in output
    assert output.count("2 of 2 steps as recorded") == 3
    assert "ada: the stricter rule decides the same" in output
    assert "bob: the stricter rule decides the same" in output
    lines = output.splitlines()
    at = lines.index("cleo: 2 of 2 steps as recorded")
    assert lines[at + 1].startswith("replay of run loan-cleo (Loan), records 1 to ")
    assert lines[at + 1].endswith(": 2 completed steps, 1 equal, 1 diverged")
    assert lines[at + 2].startswith("1. step 'decide' (completed at loan-cleo/")
    assert lines[at + 2].endswith("context decision.granted")
    assert lines[at + 3 : at + 5] == ["  recorded: True", "  new:      False"]
    assert lines[at + 6 :] == ["  recorded: 'granted'", "  new:      'refused'"]
    assert list(tmp_path.glob("*.db")) == []
