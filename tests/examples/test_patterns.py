"""The patterns and exercises as scripts: what they print, and that the same line again runs nothing twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .processes import EXAMPLES, read_until, run_to_end, running


def script(name: str, *arguments: str) -> list[str]:
    return [str(EXAMPLES / name), *arguments]


def lines(command: list[str], folder: Path) -> list[str]:
    code, output = run_to_end(command, folder)
    assert code == 0, output
    return output.splitlines()


@pytest.mark.parametrize(
    ("name", "while_it_runs", "at_the_end"),
    [
        (
            "summarizer.py",
            ["extracting the key points", "summarizing 5 points"],
            [
                "Summary: 5 points, from 'Artificial intelligence has transformed many industries' to "
                "'AI applications include chatbots, recommendation systems, and autonomous vehicles'."
            ],
        ),
        (
            "planning_loop.py",
            [
                "plan: speed of the sailing boat, speed of the rowing boat",
                "working on speed of the sailing boat",
                "working on speed of the rowing boat",
                "plan: crew",
                "working on crew",
            ],
            [
                "Answer: crew: two people; speed of the rowing boat: 3 knots, see crew; "
                "speed of the sailing boat: 6 knots, with wind"
            ],
        ),
        (
            "self_discover.py",
            [
                "select the modules that help with",
                "adapt the modules to",
                "implement a plan for",
                "solve",
            ],
            [
                "1. Think step by step for the birds.",
                "2. Count what is there for the birds.",
                "Answer: 5 - 2 = 3, by 2 steps",
            ],
        ),
        (
            "multi_strategy.py",
            ["improving 'swallows'", "strategy naive", "strategy high top k", "strategy rerank"],
            ["Best strategy: naive. Answer: Swallows winter in Africa."],
        ),
    ],
)
def test_the_same_line_again_prints_the_result_and_runs_no_step(name, while_it_runs, at_the_end, tmp_path: Path):
    assert lines(script(name), tmp_path) == [*while_it_runs, *at_the_end]
    assert lines(script(name), tmp_path) == at_the_end
    # Another run id is another run.
    assert lines(script(name, "tuesday"), tmp_path) == [*while_it_runs, *at_the_end]


def test_a_planning_loop_that_was_killed_keeps_its_plan_and_what_was_done(tmp_path: Path):
    with running(script("planning_loop.py"), tmp_path) as process:
        read_until(process, "plan: crew")
        process.kill()
    again = lines(script("planning_loop.py"), tmp_path)
    assert not any("boat" in line for line in again[:-1])
    assert Counter(again)["working on crew"] == 1
    assert again[-1].startswith("Answer: crew: two people; ")


REPORT = [
    "# How do birds navigate?",
    "- Birds sense the earth's magnetic field. (encyclopedia)",
    "- Young birds inherit a direction and learn the rest. (journal)",
]
QUESTION = "waits for a human: may the forum be used? It says: My pigeon follows the motorway."


@pytest.mark.parametrize(
    ("answer", "report"),
    [("no", REPORT), ("yes", [*REPORT[:2], "- My pigeon follows the motorway. (forum)", REPORT[2]])],
)
def test_the_research_waits_for_a_human_between_processes(answer, report, tmp_path: Path):
    first = lines(script("research.py"), tmp_path)
    assert sorted(first[:-1]) == ["rating the encyclopedia", "rating the forum", "rating the journal"]
    assert first[-1] == QUESTION
    # Nobody has answered, so the question is asked again; nothing is rated again.
    assert lines(script("research.py"), tmp_path) == [QUESTION]
    assert lines(script("research.py", "research-1", answer), tmp_path) == ["writing the report", *report]
    assert lines(script("research.py"), tmp_path) == report


def test_the_cookbook_runs_each_recipe_once(tmp_path: Path):
    shown = [
        "branch: 7 is odd",
        "loop: [3, 2, 1, 0]",
        "fan-out: A B C",
        "stream: [50, 100] streamed",
        "question: hello Ann",
    ]
    first = lines(script("cookbook.py"), tmp_path)
    assert [line for line in first if line in shown] == shown
    ran = Counter(line for line in first if line.startswith("step of "))
    assert ran == {
        "step of Branch ran": 1,
        "step of Loop ran": 4,
        "step of FanOut ran": 3,
        "step of Stream ran": 2,  # the first attempt fails
        "step of Ask ran": 1,
    }
    assert lines(script("cookbook.py"), tmp_path) == shown
