"""The demo's judgement and its tables: what counts as run twice, and how a journal is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from durable_flow.cli import main
from durable_flow.cli.evidence import Kill, Tasks, bodies, compare
from durable_flow.cli.history import Row, rows
from durable_flow.cli.text import INDENT, table
from durable_flow.records import (
    ContextSet,
    EncodedEvent,
    EncodedValue,
    ErrorInfo,
    EventEmitted,
    Fact,
    Record,
    RunClaimed,
    StepCompleted,
    StepFailed,
    TaskId,
)


def candidate(title: str) -> EventEmitted:
    return EventEmitted(EncodedEvent("Candidate", "json", 1, title.encode()), None, 0, None, ("score",))


def journal(*facts: Fact) -> list[Record]:
    return [Record(seq, seq * 1000, True, fact) for seq, fact in enumerate(facts, 1)]


def tasks_of(*facts: Fact) -> Tasks:
    tasks = Tasks(lambda event: event.data.decode())
    tasks.add(journal(*facts))
    return tasks


def side_file(folder: Path, *lines: str) -> Path:
    path = folder / "steps.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


BEFORE = (candidate("a"), candidate("b"), StepCompleted(TaskId(1, "score"), 1))


def test_a_task_is_in_flight_when_its_body_began_and_the_journal_has_no_completion(tmp_path: Path):
    tasks = tasks_of(*BEFORE)
    assert tasks.in_flight(bodies(side_file(tmp_path, "score\ta"))) == []
    assert tasks.in_flight(bodies(side_file(tmp_path, "score\ta", "score\tb"))) == [TaskId(2, "score")]


def test_what_was_in_flight_may_run_again(tmp_path: Path):
    at_kill = Kill(tasks_of(*BEFORE).done(), bodies(side_file(tmp_path, "score\ta", "score\tb")))
    later = tasks_of(*BEFORE, StepCompleted(TaskId(2, "score"), 1))
    (score,) = compare(at_kill, later, bodies(side_file(tmp_path, "score\ta", "score\tb", "score\tb")))
    assert (score.tasks, score.completed, score.before, score.after, score.repeated) == (2, 1, 2, 1, 0)


def test_what_was_completed_must_not_run_again(tmp_path: Path):
    at_kill = Kill(tasks_of(*BEFORE).done(), bodies(side_file(tmp_path, "score\ta", "score\tb")))
    later = tasks_of(*BEFORE, StepCompleted(TaskId(2, "score"), 1))
    (score,) = compare(at_kill, later, bodies(side_file(tmp_path, "score\ta", "score\tb", "score\ta", "score\tb")))
    assert score.repeated == 1


def test_what_was_in_flight_must_not_run_twice_more(tmp_path: Path):
    at_kill = Kill(tasks_of(*BEFORE).done(), bodies(side_file(tmp_path, "score\ta", "score\tb")))
    later = tasks_of(*BEFORE, StepCompleted(TaskId(2, "score"), 1))
    (score,) = compare(at_kill, later, bodies(side_file(tmp_path, "score\ta", *["score\tb"] * 3)))
    assert score.repeated == 1


def test_a_side_file_that_is_not_there_or_ends_in_half_a_line_is_read(tmp_path: Path):
    assert bodies(tmp_path / "missing.txt") == {}
    path = side_file(tmp_path, "score\ta")
    with path.open("a") as lines:
        lines.write("score\tb")
    assert bodies(path) == {("score", "a"): 1}


def test_a_journal_is_shown_one_row_for_each_group():
    task = TaskId(1, "select")
    emitted = candidate("a")._replace(task=task, attempt=1)
    records = [
        Record(1, 5_000_000, True, candidate("x")),
        Record(2, 5_250_000, False, ContextSet("kind", EncodedValue("json", b"1"), task, 1, 0)),
        Record(3, 5_250_000, False, emitted),
        Record(4, 5_250_000, False, emitted),
        Record(5, 5_250_000, True, StepCompleted(task, 1)),
        Record(6, 7_000_000, True, RunClaimed(2, "worker")),
    ]
    assert rows(records) == [
        Row("1", "0.000", "", "Candidate -> score"),
        Row("2-5", "0.250", "select", "context kind set; Candidate -> score (x2); completed"),
        Row("6", "2.000", "", "taken over (epoch 2)"),
    ]


def test_a_table_sets_numbers_to_the_right_and_fits_the_width():
    text = table(("step", "n", "what"), [("score", 7, "x" * 90), ("rank", 12, "short")], columns=60)
    head, rule, score, rank = text.split("\n")
    assert (head, rank) == (f"{INDENT}step    n  what", f"{INDENT}rank   12  short")
    assert set(rule) == {" ", "-"}
    assert score.startswith(f"{INDENT}score   7  xxx")
    assert score.endswith("x...")
    assert {len(line) <= 60 for line in text.split("\n")} == {True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--corpus", "/nowhere/at/all"], "is not a folder"),
        (["demo", "--question", "  "], "an empty question"),
        (["demo", "--yes", "--answer", "no"], "not allowed with"),
        (["demo", "--answer", "perhaps"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_failure_is_told_with_the_handler_that_takes_it():
    task, error = TaskId(1, "score"), ErrorInfo("builtins.ValueError", "wrong")
    failures = (
        StepFailed(task, 1, error, 9),
        StepFailed(task, 2, error, None, "rescue", EncodedEvent("F", "j", 1, b"")),
    )
    assert [(row.step, row.what) for row in rows(journal(*failures))] == [
        ("score", "attempt 1 failed: builtins.ValueError: wrong"),
        ("score", "attempt 2 failed: builtins.ValueError: wrong; rescue takes it"),
    ]
