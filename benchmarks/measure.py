"""Measuring: workloads in fresh processes, the disk's fsync, and how many fsyncs a commit costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rows import Series
from workloads.sample import BEGIN_MARK, END_MARK, Sample

BENCHMARKS = Path(__file__).resolve().parent
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


def sample(series: Series, size: int, directory: Path) -> Sample:
    """Run the workload once in a fresh process on a fresh database. Raises WorkloadFailed."""
    return _run([], series, size, directory)


def fsyncs_per_commit(series: Series, size: int, directory: Path) -> float | None:
    """Count the real fsyncs of the measured part with strace, per commit; None where strace is not at hand.

    Only this ratio is taken from a traced process, because tracing changes how commits are shared.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        log = Path(scratch) / "trace"
        # --seccomp-bpf stops the process at the traced calls alone.
        command = [strace, "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", TRACED_CALLS]
        try:
            traced = _run(command, series, size, directory)
        except WorkloadFailed:
            return None
        lines = log.read_text().splitlines()
    begin = next(at for at, line in enumerate(lines) if BEGIN_MARK in line)
    end = next(at for at, line in enumerate(lines) if END_MARK in line)
    # A call that another thread interrupts takes two lines, of which only the first has the bracket.
    fsyncs = sum("fsync(" in line or "fdatasync(" in line for line in lines[begin:end])
    return fsyncs / traced.commits if traced.commits else None


def _run(wrapper: Sequence[str], series: Series, size: int, directory: Path) -> Sample:
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        workload = [sys.executable, "-m", f"workloads.{series.workload}", series.system]
        command = [*wrapper, *workload, "--directory", scratch, "--size", str(size)]
        path = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=PROCESS_TIMEOUT_SECONDS,
                check=False,
                env={**os.environ, "PYTHONPATH": path},
            )
        except subprocess.TimeoutExpired:
            raise WorkloadFailed(f"not finished after {PROCESS_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        raise WorkloadFailed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return Sample(**json.loads(done.stdout.splitlines()[-1]))
