"""The plain script: killed with SIGKILL, the same line goes on."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from .processes import EXAMPLES, read_until, run_to_end, running

SCRIPT = [str(EXAMPLES / "resume_after_crash.py")]


def pages(output: str) -> list[int]:
    return [int(number) for number in re.findall(r"^page (\d+) of", output, re.MULTILINE)]


def test_killed_twice_the_same_line_goes_on_and_repeats_only_the_page_in_flight(tmp_path: Path):
    with running(SCRIPT, tmp_path) as process:
        first = pages(read_until(process, "page 3 of"))
        process.kill()
    with running(SCRIPT, tmp_path) as process:
        second = pages(read_until(process, "page 5 of"))
        process.kill()
    code, output = run_to_end(SCRIPT, tmp_path)

    assert code == 0, output
    assert "8 pages, the last one is the 'translation of page 8'" in output
    # Page 2 had ended when page 3 began, page 4 when page 5 began: each later process begins with the page in flight.
    assert (first, second, pages(output)) == ([1, 2, 3], [3, 4, 5], [5, 6, 7, 8])


def test_a_completed_run_gives_its_result_without_running_a_step_and_another_id_runs_anew(tmp_path: Path):
    code, first = run_to_end(SCRIPT, tmp_path)
    assert code == 0, first

    code, again = run_to_end(SCRIPT, tmp_path)
    assert code == 0, again
    assert pages(again) == []
    assert "8 pages" in again

    code, other = run_to_end([*SCRIPT, "tuesday"], tmp_path)
    assert code == 0, other
    assert Counter(pages(other)) == Counter(range(1, 9))
