"""Show where the microseconds of a durable step go: loop thread, writer thread, fsync, waiting; then by function.

python benchmarks/profile_step.py [--postgres [URL]] [--runs N] [--top N] [--directory DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import measure
from rows import OURS, OURS_ON_POSTGRES, System
from server import running_server
from workloads import chain, common, runs64

from durable_flow import Journal

Workload = Callable[[common.Bench], Awaitable[None]]


class ClockedBench(common.Bench):
    """Also reads the processor clock of every thread at both ends of the measured part."""

    thread_seconds: dict[str, float]

    @contextmanager
    def measure(self, units: int) -> Iterator[None]:
        before = thread_clocks()
        with super().measure(units):
            yield
        after = thread_clocks()
        self.thread_seconds = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}


class ProfiledBench(common.Bench):
    """Profiles the measured part."""

    profile: cProfile.Profile

    @contextmanager
    def measure(self, units: int) -> Iterator[None]:
        self.profile = cProfile.Profile()
        with super().measure(units):
            self.profile.enable()
            try:
                yield
            finally:
                self.profile.disable()


def thread_clocks() -> dict[str, float]:
    """Return processor seconds by thread; where the system can't ask for other threads, these are one entry."""
    if not hasattr(time, "pthread_getcpuclockid"):
        here = time.thread_time()
        return {threading.current_thread().name: here, "other threads": time.process_time() - here}
    clocks: dict[str, float] = defaultdict(float)
    for thread in threading.enumerate():
        if thread.ident is not None:
            clocks[thread.name] += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return clocks


async def run(bench_class: type[common.Bench], workload: Workload, size: int, url: str) -> common.Bench:
    """Run the workload on this database."""
    async with Journal(url) as journal:
        bench = bench_class(url, size, journal)
        await workload(bench)
        return bench


def breakdown(bench: ClockedBench, steps: int, fsync_seconds: float) -> list[str]:
    """Return the wall time of a step and its parts, in microseconds."""
    sample = bench.sample
    assert sample is not None
    assert sample.commits is not None
    loop = threading.current_thread().name
    parts = {f"processor, thread {name}": seconds for name, seconds in bench.thread_seconds.items() if name != loop}
    fsync = sample.commits * fsync_seconds
    lines = [
        ("wall", sample.seconds),
        ("processor, event loop", bench.thread_seconds[loop]),
        *((name, seconds) for name, seconds in parts.items() if seconds / steps > 0.5e-6),
        (f"fsync, {sample.commits / steps:.3f} commits a step at p50", fsync),
        # Concurrent runs overlap all of it: then the rest is negative.
        ("rest: waiting, thread hops, scheduling", sample.seconds - sum(bench.thread_seconds.values()) - fsync),
    ]
    return [f"  {seconds / steps * 1e6:9.1f} us  {name}" for name, seconds in lines]


def hot_spots(bench: ProfiledBench, steps: int, loop_seconds: float, top: int) -> list[str]:
    """Return modules and functions by own time, scaled so that they add up to the unprofiled loop thread."""
    entries = pstats.Stats(bench.profile).stats  # type: ignore[attr-defined]
    waiting = "method 'poll' of 'select.epoll'"  # the loop sleeps there; nobody computes
    own = {where: entry[2] for where, entry in entries.items() if waiting not in where[2]}
    scale = loop_seconds / sum(own.values()) / steps * 1e6
    modules: dict[str, float] = defaultdict(float)
    for (file, _, function), seconds in own.items():
        modules[module_of(file, function)] += seconds
    lines = ["  by module:"]
    lines += [f"  {seconds * scale:9.1f} us  {name}" for name, seconds in largest(modules, top)]
    lines += ["  by function:", "     own time   calls/step"]
    for where, seconds in largest(own, top):
        calls = entries[where][1] / steps
        lines.append(
            f"  {seconds * scale:9.1f} us  {calls:9.2f}  {module_of(where[0], where[2])}:{where[1]} {where[2]}"
        )
    return lines


def largest(values: dict[Any, float], top: int) -> list[tuple[Any, float]]:
    return sorted(values.items(), key=lambda item: -item[1])[:top]


def module_of(file: str, function: str) -> str:
    """Return a short name: the path below the package, or what kind of built-in it is."""
    if file == "~":
        return next(
            (f"built-in {name}" for name in ("pydantic", "sqlite3", "_asyncio") if name in function), "built-in"
        )
    parts = Path(file).parts
    for root in ("durable_flow", "pydantic", "asyncio", "sqlalchemy"):
        if root in parts:
            return "/".join(parts[len(parts) - 1 - parts[::-1].index(root) :])
    return parts[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", nargs="?", const="", metavar="URL", help="see run.py")
    parser.add_argument("--runs", type=int, default=20, help="runs of 100 steps; 48 times as many runs of 3 steps")
    parser.add_argument("--top", type=int, default=25, help="lines of modules and functions")
    parser.add_argument("--directory", type=Path, default=measure.default_directory())
    arguments = parser.parse_args()
    system, place = OURS, measure.Place(arguments.directory)
    with ExitStack() as stack:
        if arguments.postgres is not None:
            system = OURS_ON_POSTGRES
            place = place._replace(server=stack.enter_context(running_server(arguments.postgres, arguments.directory)))
        show(system, place, arguments)


def show(system: System, place: measure.Place, arguments: argparse.Namespace) -> None:
    """Print where the time of each workload goes."""
    fsync_seconds = measure.fsync_p50_seconds(arguments.directory)
    print(f"fsync p50 {fsync_seconds * 1e6:.0f} us, {os.cpu_count()} processors")
    cases: list[tuple[str, Workload, int, int]] = [
        ("one run, 100 steps", chain.chain, arguments.runs, arguments.runs * chain.STEPS),
        ("3-step runs, 64 at once", runs64.runs64, arguments.runs * 48, arguments.runs * 48 * 3),
    ]
    for title, workload, size, steps in cases:
        with measure.empty_database(system, place) as url:
            clocked = asyncio.run(run(ClockedBench, workload, size, url))
        with measure.empty_database(system, place) as url:
            profiled = asyncio.run(run(ProfiledBench, workload, size, url))
        assert isinstance(clocked, ClockedBench)
        assert isinstance(profiled, ProfiledBench)
        print(f"\n{title}: a step takes")
        print("\n".join(breakdown(clocked, steps, fsync_seconds)))
        loop_seconds = clocked.thread_seconds[threading.current_thread().name]
        print("\n".join(hot_spots(profiled, steps, loop_seconds, arguments.top)))


if __name__ == "__main__":
    main()
