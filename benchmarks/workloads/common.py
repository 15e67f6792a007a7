"""What every workload needs: the library under test, chosen by the first argument, and a meter.

With `benchmarks/` on the path, `python -m workloads.chain ours --database URL --size N` measures durable_flow on an
empty database, `theirs` llama-index-workflows in memory. Prints one line of JSON, the fields of `Sample`.
`--processes 2` shares the work out to two processes that begin together.
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
from typing import TYPE_CHECKING, Any, TypeVar

from workloads.sample import BEGIN_MARK, END_MARK, Sample

READY = "ready"
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

    def __init__(self, url: str, size: int, journal: Journal | None, *, starts_with_others: bool = False) -> None:
        self.url = url
        self.size = size
        self.journal = journal
        self.starts_with_others = starts_with_others
        self.sample: Sample | None = None

    def flow(self, cls: type[Flow]) -> Flow:
        """Make the workflow, without a timeout; ours on the benchmark's database."""
        return cls(timeout=None, journal=self.journal) if self.journal is not None else cls(timeout=None)

    @contextmanager
    def measure(self, units: int) -> Iterator[None]:
        """Measure the body, which does this many units of work."""
        commits, used = self._commits(), self._used_bytes()
        if self.starts_with_others:
            print(READY, flush=True)
            sys.stdin.readline()
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
        return used_bytes_of_file(self.url) if self.url.startswith("sqlite:") else used_bytes_of_postgres(self.url)


def used_bytes_of_file(url: str) -> int:
    # A reader of its own sees the pages in the write-ahead log too; free pages (the log's pre-growth) don't count.
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
    finally:
        connection.close()
    return (pages - free) * size


def used_bytes_of_postgres(url: str) -> int:
    """Return the size of all tables with their indexes and large values, as the files are."""
    import psycopg

    query = """
        SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
        WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
    """
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def run(work: Callable[[Bench], Awaitable[Any]], prepare: Callable[[Bench], Awaitable[Any]] | None = None) -> None:
    """Run the workload as the command line says and print its sample.

    `prepare` runs before it in a process of its own that ends by `os._exit`, as if it were killed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("system", choices=["ours", "theirs"])
    parser.add_argument("--database", metavar="URL", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--start-with-others", action="store_true", help="say when ready, then wait for a line of input"
    )
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    module = sys.modules["__main__"].__spec__
    assert module is not None, "start a workload with python -m"
    again = [sys.executable, "-m", module.name, *sys.argv[1:]]
    if prepare is not None and not arguments.prepare:
        prepared = subprocess.run([*again, "--prepare"], check=False)
        if prepared.returncode != 0:
            sys.exit(prepared.returncode)
    if arguments.processes > 1:
        share = ["--processes", "1", "--size", str(arguments.size // arguments.processes), "--start-with-others"]
        sample = together([*again, *share], arguments.processes)
    else:
        chosen = prepare if prepare is not None and arguments.prepare else work
        sample = asyncio.run(_sample(chosen, arguments.database, arguments.size, arguments.start_with_others))
    print(json.dumps(asdict(sample)))


def together(command: list[str], processes: int) -> Sample:
    """Run the command in several processes that begin their measured parts together; return what they did in all."""
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        if process.stdout.readline().strip() != READY:
            sys.exit("a process of the workload ended before its measured part")
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    parts = [Sample(**json.loads(process.communicate()[0].splitlines()[-1])) for process in started]
    return Sample(
        units=sum(part.units for part in parts),
        seconds=max(part.seconds for part in parts),
        cpu_seconds=sum(part.cpu_seconds for part in parts),
        commits=sum(part.commits or 0 for part in parts),
    )


async def _sample(work: Callable[[Bench], Awaitable[Any]], url: str, size: int, starts_with_others: bool) -> Sample:
    if SYSTEM == "theirs":
        bench = Bench(url, size, None)
        await work(bench)
    else:
        async with Journal(url) as journal:
            bench = Bench(url, size, journal, starts_with_others=starts_with_others)
            await work(bench)
    assert bench.sample is not None, "the workload measured nothing"
    return bench.sample
