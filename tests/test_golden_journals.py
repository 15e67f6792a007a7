"""The journals of earlier releases, in a process where no other test has event classes of the same names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_journals_of_earlier_releases_are_read_and_gone_on_with() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/golden/journals.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
