"""docs/migrating.md claims only what a test shows, and its recipes run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from durable_flow import Context, Event, Journal, JsonSerializer, StartEvent, StopEvent, Workflow, step

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| there |")]


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_every_row_names_a_test_that_exists():
    claims = [row for row in ROWS if "as printed" not in row]
    assert len(claims) > 25
    for row in claims:
        shown_by = re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1])
        assert shown_by, row
        for path, _, name in (test.partition("::") for test in shown_by):
            functions = {
                node.name
                for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert name in functions, row


def test_the_alias_recipe_names_every_module_that_upstream_has_too():
    tree = ast.parse(block("python"))
    [modules] = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    listed = set(ast.literal_eval(modules))
    source = (ROOT / "tests" / "unit" / "test_public_names.py").read_text("utf-8")
    [offered] = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OFFERED"
    ]
    assert set(ast.literal_eval(offered)) - {""} == listed


PROGRAM = """
from {old} import Context, Event, StartEvent, StopEvent, Workflow, step
from {old}.errors import WorkflowTimeoutError
from {old}.events import HumanResponseEvent
import {old}.retry_policy
import asyncio


class Hello(Workflow):
    @step
    async def hello(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.set("name", ev.name)
        return StopEvent(result="hello " + await ctx.get("name"))


async def main():
    print(await Hello(timeout=30).run(name="Ann"))


asyncio.run(main())
"""


def run(script: Path) -> str:
    environment = {"PYTHONPATH": str(ROOT), "DURABLE_FLOW_DATABASE_URL": "memory://", "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(
        [sys.executable, script.name], cwd=script.parent, env=environment, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


@pytest.mark.parametrize("old", ["workflows", "llama_index.core.workflow"])
def test_the_alias_recipe_runs_a_program_as_it_is(old, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.format(old=old))
    script = tmp_path / "run.py"
    script.write_text(
        block("python")
        + "\nimport program\nfrom durable_flow.events import HumanResponseEvent\n"
        + "assert program.HumanResponseEvent is HumanResponseEvent\n"
    )
    assert run(script) == "hello Ann\n"


@pytest.mark.parametrize("old", ["workflows", "llama_index.core.workflow"])
def test_the_sed_line_changes_the_imports_and_nothing_else(old, tmp_path):
    script = tmp_path / "my_program.py"
    script.write_text(PROGRAM.format(old=old))
    subprocess.run(block("bash"), shell=True, cwd=tmp_path, check=True, timeout=60)
    assert script.read_text() == PROGRAM.format(old="durable_flow")
    assert run(script) == "hello Ann\n"


class Job(Event):
    n: int


async def test_a_step_that_collects_runs_once_for_each_event():
    bodies = []

    class Collects(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(20)]

        @step(num_workers=8)
        async def join(self, ctx: Context, ev: Job) -> StopEvent | None:
            bodies.append(ev.n)
            found = ctx.collect_events(ev, [Job] * 20)
            return None if found is None else StopEvent(result=len(found))

    async with Journal("memory://") as journal:
        assert await Collects(journal=journal).run() == 20
    assert sorted(bodies) == list(range(20))


def test_a_serializer_gives_bytes_and_names_itself():
    serializer = JsonSerializer()
    assert serializer.serialize({"a": 1}) == b'{"a":1}'
    assert serializer.codec == "json"
