"""What the workloads of systems with another programming model need: the same sizes as ours, and a meter."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from workloads.sample import Sample

STEPS, AT_ONCE = 100, 64
"""As in `chain.py` and `runs64.py`, which import the system that they measure."""


class Rival:
    """The database to use, and the meter."""

    def __init__(self, database: str, size: int) -> None:
        self.database = database
        self.size = size
        self.sample: Sample | None = None

    @contextmanager
    def measure(self, units: int) -> Iterator[None]:
        """Measure the body, which does this many units of work."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.sample = Sample(units, time.perf_counter() - wall, time.process_time() - cpu)


def run(workloads: Mapping[str, Callable[[Rival], Coroutine[Any, Any, None]]]) -> None:
    """Run the workload that the command line names and print its sample."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=workloads)
    parser.add_argument("--database", required=True)
    parser.add_argument("--size", type=int, required=True)
    arguments = parser.parse_args()
    rival = Rival(arguments.database, arguments.size)
    asyncio.run(workloads[arguments.workload](rival))
    assert rival.sample is not None, "the workload measured nothing"
    print(json.dumps(asdict(rival.sample)))
