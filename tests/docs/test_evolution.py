"""The example of docs/evolution.md: yesterday's program begins a run, today's goes on with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evolution.md").read_text("utf-8")


def test_todays_program_goes_on_with_the_run_of_yesterdays(tmp_path: Path) -> None:
    yesterday, today = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert run(tmp_path, yesterday) == ""
    printed = run(tmp_path, today)
    assert printed == "Ada (unknown) pays 1250 cents: True\n"
    assert f"It prints `{printed.strip()}`." in PAGE


def run(folder: Path, program: str) -> str:
    (folder / "orders.py").write_text(program, "utf-8")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "orders.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
