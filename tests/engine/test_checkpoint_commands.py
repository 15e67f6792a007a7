"""`durable-flow checkpoints`, `diff`, `blame` and `fork`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.cli import main

from .test_checkpoints import Sums


class CommandPart(Event):
    pass


@pytest.fixture
def run(url: str) -> str:
    """The URL of a journal with a run "r" that has completed."""

    async def work() -> None:
        async with Journal(url) as journal:
            await Sums(journal=journal).run(run_id="r")

    asyncio.run(work())
    return url


def test_the_checkpoints_of_a_run_are_listed(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["checkpoints", "r", "--url", run]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["seq", "time", "kind"]
    assert [(row.split()[0], row.split()[3]) for row in rows] == [
        ("2", "start"), ("6", "step"), ("8", "named"), ("12", "step"), ("14", "end"),
    ]  # fmt: skip
    assert "Added" in rows[1]
    assert "before doubling" in rows[2]


def test_a_diff_is_printed_one_operation_a_line(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "r", "r/6", "before doubling", "--url", run]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"op": "add", "path": "/seen/1", "value": "double"}
    ]
    assert main(["diff", "r", "12", "--url", run]) == 0
    assert capsys.readouterr().out == ""


def test_blame_tells_who_changed_a_key(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blame", "r", "n", "--url", run]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], *row[3:]) for row in rows] == [("3", "add", "-", "2"), ("9", "double", "2", "4")]


class Long(Workflow):
    @step
    async def first(self, ctx: Context, ev: StartEvent) -> list[CommandPart]:
        ctx.data["text"] = "old " * 100
        return [CommandPart() for _ in range(30)]

    @step
    async def second(self, ctx: Context, parts: list[CommandPart]) -> StopEvent:
        ctx.data["text"] = "new " * 100
        return StopEvent()


def test_long_values_and_many_events_leave_room_for_what_stands_beside_them(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with Journal(url) as journal:
            await Long(journal=journal).run(run_id="long")

    asyncio.run(work())
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["blame", "long", "text", "--url", url]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "'old " in last
    assert "'new " in last
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["checkpoints", "long", "--url", url]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[3].split()[-3:] == ["30", "CommandPart", "text"]


def test_a_reader_that_has_enough_is_no_error(run: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "durable_flow.cli", "checkpoints", "r", "--url", run]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_is_made_and_goes_on_when_it_is_taken_up(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fork", "r", "r/6", "--new-run-id", "f", "--set", 'seen=["new"]', "--url", run]) == 0
    assert capsys.readouterr().out.startswith("f is a fork of r/6, and running.")

    async def work() -> object:
        async with Journal(run) as journal:
            return await (await Sums(journal=journal).resume("f"))

    assert asyncio.run(work()) == [4, 4, ["new", "double"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["checkpoints", "nobody"], "there is no run nobody"),
        (["diff", "r", "7"], ""),
        (["diff", "r", "99"], "its records are 1 to 14"),
        (["diff", "r", "9" * 5000], "has no checkpoint named '999"),
        (["fork", "r", "4"], "lies within the group"),
        (["fork", "r", "6", "--set", "n"], "it is KEY=JSON"),
        (["fork", "r", "6", "--set", "n=x"], "it is KEY=JSON"),
        (["fork", "r", "6", "--set", "n=" + "[" * 100_000], "it is KEY=JSON"),
        (["compact", "r", "--before", "9" * 5000], "has no checkpoint named '999"),
        (["fork", "r", "6", "--new-run-id", "r"], "there is a run r already"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    run: str, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main([*arguments, "--url", run]) == (1 if said else 0)
    assert said in capsys.readouterr().err


class Strange(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.data["huge"] = [10**5000]
        ctx.data["smile"] = "\U0001f600"
        await ctx.checkpoint("red \x1b[31m\nand more")
        return StopEvent()


@pytest.fixture
def strange(url: str) -> str:
    """The URL of a journal with a run "s" whose values and names are no usual ones."""

    async def work() -> None:
        async with Journal(url) as journal:
            await Strange(journal=journal).run(run_id="s")

    asyncio.run(work())
    return url


def test_a_value_that_has_no_text_is_shown_by_its_class(strange: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blame", "s", "huge", "--url", strange]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == ["-", "<list>"]


def test_names_neither_break_a_table_nor_command_the_terminal(
    strange: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["checkpoints", "s", "--url", strange]) == 0
    out = capsys.readouterr().out
    assert "red \\x1b[31m\\nand more" in out
    assert "\x1b" not in out
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["2", "5", "7"]


@pytest.mark.parametrize("command", [["diff", "s", "2"], ["blame", "s", "smile"]])
def test_a_terminal_that_knows_few_characters_gets_escapes(strange: str, command: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "durable_flow.cli", *command, "--url", strange],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, b"")
    if command[0] == "diff":
        values = {each["path"]: each["value"] for each in map(json.loads, ran.stdout.splitlines())}
        assert values["/smile"] == "\U0001f600"
    else:
        assert rb"\U0001f600" in ran.stdout


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "r", "--url", f"sqlite:///{tmp_path}/none/jobs.db"]) == 1
    assert "durable-flow checkpoints: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ("checkpoints", "r"),
        ("diff", "r", "1"),
        ("blame", "r", "n"),
        ("fork", "r", "1"),
        ("compact", "r"),
        ("prune", "--older-than", "30d"),
    ],
)
def test_a_database_whose_name_is_wrong_is_not_made(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--url", f"sqlite:///{tmp_path}/jurnal.db"]) == 1
    assert "jurnal.db has no journal" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
