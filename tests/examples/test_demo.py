"""The demo as a user sees it: real processes, a real SIGKILL, real questions."""

from __future__ import annotations

import os
import pty
import re
import resource
import select
import shlex
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from durable_flow import Journal
from durable_flow.cli.evidence import bodies
from durable_flow.records import RunClaimed, StepCompleted, WaitAnswered

from .processes import DEMO, ENVIRONMENT, read_until, run_to_end, running

SCORED = re.compile(r"killed with SIGKILL: (\d+) of (\d+) scored, (\d+) in flight")
URL = "sqlite:///durable-flow-demo/journal.db"


@pytest.fixture(autouse=True)
def _in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def run_id_in(output: str) -> str:
    found = re.search(r"^run +(review-\w+-\d+)", output, re.MULTILINE)
    assert found, output
    return found.group(1)


def lines_to_answer(output: str) -> list[str]:
    return [line.strip() for line in output.split("\n") if "--answer=" in line]


def report_of(run_id: str) -> str:
    return Path("durable-flow-demo", f"{run_id}.md").read_text()


async def test_the_review_is_killed_in_the_middle_goes_on_and_repeats_nothing_that_was_completed(tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    code, output = run_to_end([*DEMO, "--yes"], tmp_path)
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert code == 0, output

    killed = SCORED.search(output)
    assert killed, output
    done, of, in_flight = map(int, killed.groups())
    assert 0 < done < of
    assert in_flight >= 1

    # The side file alone, without the demo's judgement: each score's body began once, or twice if it was in flight.
    run_id = run_id_in(output)
    begun = bodies(Path("durable-flow-demo", f"{run_id}.steps.txt"))
    times = Counter(n for (step, _), n in begun.items() if step == "score")
    assert set(times) <= {1, 2}
    assert 1 <= times[2] <= of - done
    assert sum(times.values()) == of

    async with Journal(URL) as journal:
        records = await journal.history(run_id)
        assert (await journal.run(run_id)).status == "completed"
        assert await journal.pending() == []
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert sum(isinstance(record.fact, WaitAnswered) for record in records) == 3
    assert any(isinstance(record.fact, RunClaimed) and record.fact.epoch > 1 for record in records)
    assert sum(isinstance(record.fact, StepCompleted) and record.fact.task.step == "score" for record in records) == of

    assert "approved by a human" in report_of(run_id)
    assert f"durable-flow-demo/{run_id}.md" in output
    assert re.search(r"^ +\d+(-\d+)? +\d+\.\d{3} +score +.*completed", output, re.MULTILINE)
    # It shall take under 20 s. Beside other tests it gets only a part of the machine: what it works is measured by
    # itself, and what it waits may become three times as long.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
    assert took < 60


async def test_without_a_terminal_the_printed_line_answers_and_the_next_demo_is_a_new_run(tmp_path: Path):
    code, output = run_to_end(DEMO, tmp_path)
    assert code == 0, output
    run_id = run_id_in(output)
    assert "Question 1 of 3" in output
    async with Journal(URL) as journal:
        (wait,) = await journal.pending()
        assert wait.run_id == run_id

    # The same line without an answer asks again and starts nothing.
    code, again = run_to_end(DEMO, tmp_path)
    assert (code, run_id_in(again)) == (0, run_id), again
    assert "Question 1 of 3" in again
    assert "killed" not in again

    for number in (2, 3):
        _, no = lines_to_answer(output)
        code, output = run_to_end(shlex.split(no), tmp_path)
        assert code == 0, output
        assert f"Question {number} of 3" in output
    yes, _ = lines_to_answer(output)
    code, output = run_to_end(shlex.split(yes), tmp_path)
    assert code == 0, output
    assert run_id_in(output) == run_id
    assert "The report:" in output
    assert report_of(run_id).count("approved by a human") == 1
    assert "## Left out" in report_of(run_id)

    code, output = run_to_end(shlex.split(yes), tmp_path)
    assert code == 1
    assert "nothing to answer" in output
    assert run_id_in(output) != run_id


def test_ctrl_c_leaves_a_line_that_goes_on_with_the_same_run_of_my_own_corpus(tmp_path: Path):
    corpus = tmp_path / "my texts"
    corpus.mkdir()
    for number in range(8):
        (corpus / f"bird {number}.md").write_text(f"Bird {number} sings. " + "bird " * number + "tree " * 5)

    with running([*DEMO, "--corpus", "my texts", "--question", "Which bird's song?"], tmp_path) as process:
        output = read_until(process, "] started")
        pid = int(re.findall(r"\[(\d+)\] started", output)[0])
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

    line = rest.strip().split("\n")[-1].strip()
    code, finished = run_to_end([*shlex.split(line), "--yes"], tmp_path)
    assert code == 0, finished
    assert run_id_in(finished) == run_id_in(output)
    assert "killed with SIGKILL" in finished
    assert report_of(run_id_in(output)).startswith("# Which bird's song?\n")


def read_terminal(terminal: int) -> str:
    """Return what was written next; "" when the other side is closed, which Linux tells by an error."""
    ready, _, _ = select.select([terminal], [], [], 30)
    assert ready, "nothing was written for 30 s"
    try:
        return os.read(terminal, 4096).decode()
    except OSError:
        return ""


def test_a_person_at_the_terminal_presses_enter_for_yes(tmp_path: Path):
    ours, theirs = pty.openpty()
    with subprocess.Popen(DEMO, cwd=tmp_path, env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen, keys = "", ["\n", "perhaps\n", "n\n", "y\n"]
        try:
            while new := read_terminal(ours):
                screen += new
                if keys and screen.count("[Y/n]") == 5 - len(keys):
                    os.write(ours, keys.pop(0).encode())
        finally:
            os.close(ours)  # hangs up, which ends a demo that still asks
    assert process.returncode == 0, screen
    assert "Enter or y keeps it" in screen
    assert report_of(run_id_in(screen.replace("\r", ""))).count("approved by a human") == 2
