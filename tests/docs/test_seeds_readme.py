"""The list of programs in tests/seeds names tests that exist, and leaves no test file out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = ROOT / "tests" / "seeds"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (SEEDS / "README.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d{3} ", line)
]


def functions_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_row_names_tests_that_exist(row):
    seed, _, shown_by, outcome = row
    assert outcome
    file = None
    for name in re.findall(r"`([^`]+)`", shown_by):
        # A test without a file is in the file named before it.
        path, _, prefix = name.rpartition("::") if not name.endswith((".py", "/")) else (name, "", "")
        if path:
            file = SEEDS / path if (SEEDS / path).is_file() else ROOT / path
        assert file is not None, name
        assert file.exists(), name
        if file.parent == SEEDS:
            assert file.name.startswith(f"test_{seed}_")
        if prefix:
            assert any(function.startswith(prefix.rstrip(".")) for function in functions_of(file)), name


def test_no_test_file_is_left_out():
    named = " ".join(row[2] for row in ROWS)
    assert [path.name for path in SEEDS.glob("test_*.py") if path.name not in named] == []


def test_every_document_is_there():
    assert sorted({row[0] for row in ROWS}) == ["000", "001", "002", "003", "004"]
    assert len(ROWS) > 45
