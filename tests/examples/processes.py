"""Runs the examples and the command line as a user does: as processes, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DEMO = [sys.executable, "-m", "durable_flow.cli", "demo"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run_to_end(command: list[str], folder: Path, *, stdin: int | None = subprocess.DEVNULL) -> tuple[int, str]:
    """Return exit code and output, errors included."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@contextmanager
def running(command: list[str], folder: Path, *, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """Give a process whose output can be read line by line; it is killed at the end of the block."""
    with subprocess.Popen(
        command,
        cwd=folder,
        # Unbuffered, so that a line can be awaited as soon as it is printed.
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Return the output up to and with the line that has this word."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return "".join(lines)
    raise AssertionError(f"the process ended without saying {word!r}:\n{''.join(lines)}")
