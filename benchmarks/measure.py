"""Measuring: workloads in fresh processes on fresh databases, the disk's fsync, and how many fsyncs a commit costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rows import Series, System
from server import Server, fresh_database
from workloads.sample import BEGIN_MARK, END_MARK, Sample

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
PROCESS_TIMEOUT_SECONDS = 600
FSYNC_WRITES = 200
# `?`: not every machine has each of these system calls.
TRACED_CALLS = "trace=?fsync,?fdatasync,?access,?faccessat,?faccessat2"


class WorkloadFailed(Exception):
    """A workload's process failed; the message is the last line that it wrote."""


def default_directory() -> Path:
    """Return /var/tmp where it exists: it outlives a reboot, so it is on a disk, where /tmp may be memory."""
    return Path("/var/tmp") if Path("/var/tmp").is_dir() else Path(tempfile.gettempdir())


def fsync_p50_seconds(directory: Path) -> float:
    """Return the median time of a 4 KiB overwrite and fdatasync in this directory."""
    flush = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        page = os.urandom(4096)
        file.write(page)
        os.fsync(file.fileno())
        times = []
        for _ in range(FSYNC_WRITES):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), page, 0)
            flush(file.fileno())
            times.append(time.perf_counter() - begin)
    return median(times)


class Place(NamedTuple):
    """Where databases are made, and whose durable_flow is measured: `source` is the folder that holds the package."""

    directory: Path
    server: Server | None = None
    source: Path = ROOT


def sample(series: Series, size: int, place: Place) -> Sample:
    """Run the workload once in a fresh process on a fresh database. Raises WorkloadFailed."""
    with empty_database(series.system, place) as url:
        return _run([], series, size, url, place.source)


@contextmanager
def empty_database(system: System, place: Place) -> Iterator[str]:
    """Give the URL of a new database, migrated if the system wants that. Raises WorkloadFailed."""
    if not system.on_postgres:
        with tempfile.TemporaryDirectory(dir=place.directory) as scratch:
            yield f"sqlite:///{Path(scratch).absolute() / 'benchmark.db'}"
        return
    assert place.server is not None, f"{system.name} needs a Postgres server"
    with fresh_database(place.server) as url:
        if system.migrated:
            _call([sys.executable, "-m", "durable_flow.cli", "db", "upgrade", "--url", url], place.source)
        yield url


def fsyncs_per_commit(series: Series, size: int, place: Place) -> float | None:
    """Count the real fsyncs of the measured part with strace, per commit; None where strace is not at hand.

    Only this ratio is taken from a traced process, because tracing changes how commits are shared.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.TemporaryDirectory(dir=place.directory) as scratch, empty_database(series.system, place) as url:
        log = Path(scratch) / "trace"
        # --seccomp-bpf stops the process at the traced calls alone.
        command = [strace, "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", TRACED_CALLS]
        try:
            traced = _run(command, series, size, url, place.source)
        except WorkloadFailed:
            return None
        lines = log.read_text().splitlines()
    begin = next(at for at, line in enumerate(lines) if BEGIN_MARK in line)
    end = next(at for at, line in enumerate(lines) if END_MARK in line)
    # A call that another thread interrupts takes two lines, of which only the first has the bracket.
    fsyncs = sum("fsync(" in line or "fdatasync(" in line for line in lines[begin:end])
    return fsyncs / traced.commits if traced.commits else None


def _run(wrapper: Sequence[str], series: Series, size: int, database: str, source: Path) -> Sample:
    workload = [sys.executable, "-m", *series.system.arguments(series.workload)]
    output = _call([*wrapper, *workload, "--database", database, "--size", str(size)], source)
    return Sample(**json.loads(output.splitlines()[-1]))


def _call(command: Sequence[str], source: Path) -> str:
    """Run the command with the durable_flow of `source`, return what it prints. Raises WorkloadFailed."""
    path = [str(BENCHMARKS), str(source), os.environ.get("PYTHONPATH", "")]
    # Safe path: else `-m` puts the current folder, and so perhaps another durable_flow, before all others.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROCESS_TIMEOUT_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise WorkloadFailed(f"not finished after {PROCESS_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        raise WorkloadFailed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout
