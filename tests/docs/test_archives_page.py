"""docs/archives.md: its program runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from durable_flow.journal import archives

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "archives.md").read_text("utf-8")


def test_the_program_runs_as_printed(tmp_path: Path):
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-c", found[1]], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["greeting-1 completed", "hello Ada"]


def test_the_limits_are_those_of_the_code():
    assert f"`max_line_bytes` ({archives.MAX_LINE_BYTES >> 20} MiB)" in PAGE
    assert f"`max_total_bytes` ({archives.MAX_TOTAL_BYTES >> 30} GiB)" in PAGE
    assert f"`max_records` ({archives.MAX_RECORDS:,}, " in PAGE
