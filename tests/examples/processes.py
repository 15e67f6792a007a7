"""Runs the examples and the command line as a user does: as processes, in an empty folder.

A command that begins with an interpreter is run by it. What follows one, without it, is run in a process that is
forked, which takes a tenth of the time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forking import ForkServer, Started

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DEMO = [sys.executable, "-m", "durable_flow.cli", "demo"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
MAX_SECONDS = 60

Process = subprocess.Popen[str] | Started

# Given by a fixture of this folder.
forks: ForkServer | None = None


def run_to_end(command: list[str], folder: Path) -> tuple[int, str]:
    """Return exit code and output, errors included."""
    if command[0] != sys.executable:
        assert forks is not None
        code, output, _ = forks.run(command, cwd=folder, env=ENVIRONMENT, timeout_seconds=MAX_SECONDS, merged=True)
        return code, output
    done = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MAX_SECONDS,
    )
    return done.returncode, done.stdout


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[Process]:
    """Give a process whose output can be read line by line; it is killed at the end of the block."""
    # Unbuffered, so that a line can be awaited as soon as it is printed.
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    with _started(command, folder, environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _started(command: list[str], folder: Path, environment: dict[str, str]) -> Process:
    if command[0] != sys.executable:
        assert forks is not None
        return forks.start(command, cwd=folder, env=environment, merged=True)
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def read_until(process: Process, word: str) -> str:
    """Return the output up to and with the line that has this word."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return "".join(lines)
    raise AssertionError(f"the process ended without saying {word!r}:\n{''.join(lines)}")
