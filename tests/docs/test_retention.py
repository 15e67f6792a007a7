"""The examples of docs/retention.md run, one after another, and print what their comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "retention.md").read_text("utf-8")


def test_the_examples_print_what_they_say(tmp_path: Path):
    program = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    (tmp_path / "page.py").write_text(program)
    shown = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    said = re.findall(r"print\(.*\)  # (.*)", program)
    assert len(said) >= 8
    assert shown.stdout.splitlines() == said
