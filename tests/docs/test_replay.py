"""docs/replay.md: its program prints what its comments say, and the limit that it names is that of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from durable_flow.engine.replaying.report import MAX_DIVERGENCES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "replay.md").read_text("utf-8")


def test_the_program_prints_what_it_says(tmp_path: Path):
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "page.py").write_text(found[1])
    shown = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    said = [line.partition("# ")[2] for line in found[1].splitlines() if "# " in line]
    assert len(said) == 6
    assert shown.stdout.splitlines() == ["asking about Ada", *said]


def test_the_limit_is_that_of_the_code():
    assert f"the first {MAX_DIVERGENCES}, " in PAGE
