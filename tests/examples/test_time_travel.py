"""The trip: looked at, and forked twice from where its hotel was chosen."""

from __future__ import annotations

from pathlib import Path

from .processes import EXAMPLES, run_to_end


def test_the_trip_goes_on_from_a_checkpoint_with_something_changed(tmp_path: Path):
    code, output = run_to_end([str(EXAMPLES / "time_travel.py")], tmp_path)
    assert code == 0, output
    lines = output.splitlines()
    assert lines.count("choosing a hotel ...") == 1  # not again in the forks
    assert "the run: 2 nights at Grand, 20 left" in lines
    assert [line.split()[1:3] for line in lines if "->" in line] == [
        ["start", "-"], ["step", "choose"], ["step", "book"], ["end", "finish"],
    ]  # fmt: skip
    assert "then: {'budget': 500, 'log': ['choose']}" in lines
    assert "since then: add /left 20" in lines
    assert "with another budget: 5 nights at Grand, 0 left" in lines
    assert "with another hotel: 14 nights at Hostel, 10 left" in lines
    assert "forks of the run: 2" in lines
    assert lines[-1] == "the budget was 500, then 1200, by fork"
