"""What every workload needs: the library under test, chosen by the first argument, and a meter.

With `benchmarks/` on the path, `python -m workloads.chain ours --directory D --size N` measures durable_flow on a new
SQLite database in D, `theirs` llama-index-workflows in memory. Prints one line of JSON, the fields of `Sample`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from workloads.sample import BEGIN_MARK, END_MARK, Sample

SYSTEM = "theirs" if sys.argv[1:2] == ["theirs"] else "ours"

if TYPE_CHECKING or SYSTEM == "ours":
    from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step
else:
    from workflows import Context, Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

__all__ = ["Bench", "Context", "Event", "StartEvent", "StopEvent", "Workflow", "run", "step"]

Flow = TypeVar("Flow", bound=Workflow)


class Bench:
    """Builds workflows on the system under test and measures."""

    def __init__(self, directory: Path, size: int, journal: Journal | None) -> None:
        self.directory = directory
        self.size = size
        self.journal = journal
        self.sample: Sample | None = None

    def flow(self, cls: type[Flow]) -> Flow:
        """Make the workflow, without a timeout; ours on the benchmark's database."""
        return cls(timeout=None, journal=self.journal) if self.journal is not None else cls(timeout=None)

    @contextmanager
    def measure(self, units: int) -> Iterator[None]:
        """Measure the body, which does this many units of work."""
        commits, used = self._commits(), self._used_bytes()
        os.access(BEGIN_MARK, os.F_OK)
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        os.access(END_MARK, os.F_OK)
        if self.journal is None:
            self.sample = Sample(units, seconds, cpu_seconds)
        else:
            grown = self._used_bytes() - used
            self.sample = Sample(units, seconds, cpu_seconds, self._commits() - commits, grown)

    def _commits(self) -> int:
        return int(self.journal.stats()["commits"]) if self.journal is not None else 0

    def _used_bytes(self) -> int:
        if self.journal is None:
            return 0
        # A reader of its own sees the pages in the write-ahead log too; free pages (the log's pre-growth) don't count.
        connection = sqlite3.connect(database_path(self.directory))
        try:
            pages, free, size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        finally:
            connection.close()
        return (pages - free) * size


def database_path(directory: Path) -> Path:
    """Return where the workload's database lies."""
    return directory / "benchmark.db"


def run(work: Callable[[Bench], Awaitable[Any]], prepare: Callable[[Bench], Awaitable[Any]] | None = None) -> None:
    """Run the workload as the command line says and print its sample.

    `prepare` runs before it in a process of its own that ends by `os._exit`, as if it were killed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("system", choices=["ours", "theirs"])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    if prepare is not None and not arguments.prepare:
        module = sys.modules["__main__"].__spec__
        assert module is not None, "start a workload with python -m"
        prepared = subprocess.run([sys.executable, "-m", module.name, *sys.argv[1:], "--prepare"], check=False)
        if prepared.returncode != 0:
            sys.exit(prepared.returncode)
    chosen = prepare if prepare is not None and arguments.prepare else work
    sample = asyncio.run(_with_journal(chosen, arguments.directory, arguments.size))
    assert sample is not None, "the workload measured nothing"
    print(json.dumps(asdict(sample)))


async def _with_journal(work: Callable[[Bench], Awaitable[Any]], directory: Path, size: int) -> Sample | None:
    if SYSTEM == "theirs":
        bench = Bench(directory, size, None)
        await work(bench)
        return bench.sample
    async with Journal(f"sqlite:///{database_path(directory).absolute()}") as journal:
        bench = Bench(directory, size, journal)
        await work(bench)
        return bench.sample
