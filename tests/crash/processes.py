"""Child processes of the crash tests: where they find this package and the one under test, and how they are watched."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forking import ForkServer, Started

import durable_flow

from .databases import Database

TESTS = Path(__file__).resolve().parents[1]
PRODUCT = Path(durable_flow.__file__).resolve().parents[1]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "DURABLE_FLOW_DATABASE_URL"},
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(PRODUCT)]),
    "PYTHONUNBUFFERED": "1",
}
SCRIPT = [sys.executable, str(Path(__file__).with_name("app.py"))]
# As another program that imports the module by its name.
IMPORTED = [sys.executable, "-c", "import asyncio, app; asyncio.run(app.main())"]
ORDERS = ["-m", "crash.script"]
LOOPS = [sys.executable, "-m", "crash.loops"]
MAX_SECONDS = 60.0

Process = subprocess.Popen[str] | Started


@dataclass
class Home:
    """Where a test's processes live: the folder of their notes, and the database that their environment names.

    A command that begins with an interpreter is run by it. What follows one, without it, is run in a process that is
    forked, which takes a tenth of the time.
    """

    folder: Path
    database: Database
    forks: ForkServer

    def run_to_end(self, command: Sequence[str], **env: str) -> tuple[int, str, str]:
        """Return exit code, output and errors."""
        if command[0] != sys.executable:
            environment = self._environment(env)
            return self.forks.run(command, cwd=self.folder, env=environment, timeout_seconds=MAX_SECONDS)
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment(env), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=MAX_SECONDS,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    @contextmanager
    def running(self, command: Sequence[str], **env: str) -> Iterator[Process]:
        """Give a process whose output can be read line by line; it does not outlive the block, nor a deadline."""
        with self._started(command, env) as process:
            deadline = threading.Timer(MAX_SECONDS, process.kill)
            deadline.start()
            try:
                yield process
            finally:
                deadline.cancel()
                process.kill()

    def _started(self, command: Sequence[str], env: dict[str, str]) -> Process:
        if command[0] != sys.executable:
            return self.forks.start(command, cwd=self.folder, env=self._environment(env))
        return subprocess.Popen(
            command, cwd=self.folder, env=self._environment(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        path = os.pathsep.join([str(Path(__file__).parent), ENVIRONMENT["PYTHONPATH"]])
        return {**ENVIRONMENT, "PYTHONPATH": path, "DURABLE_FLOW_DATABASE_URL": self.database.url, **more}

    def legs(self) -> Counter[int]:
        """Return how often each leg of the journey began."""
        return Counter(leg for leg, _ in self._notes())

    def runners(self) -> set[int]:
        """Return the processes in which legs of the journey began."""
        return {pid for _, pid in self._notes()}

    def _notes(self) -> list[tuple[int, int]]:
        lines = (self.folder / "legs.txt").read_text().splitlines()
        return [(int(leg), int(pid)) for leg, pid in map(str.split, lines)]


def read_until(process: Process, word: str) -> list[str]:
    """Return the lines that a process prints, up to and with the one that is this word."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1] == word:
            return lines
    assert process.stderr is not None
    raise AssertionError(f"the process ended without saying {word!r}: {lines}\n{process.stderr.read()}")
