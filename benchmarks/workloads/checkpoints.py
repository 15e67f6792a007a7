"""The checkpoints of a run of `size` steps are listed as a stream; a unit is a checkpoint."""

from __future__ import annotations

from workloads.common import Bench, run
from workloads.fork import LongRun


async def checkpoints(bench: Bench) -> None:
    await bench.flow(LongRun).run(run_id="long", last=bench.size)
    journal = bench.journal
    assert journal is not None
    count = 0
    with bench.measure(bench.size):
        async for _ in journal.checkpoints("long"):
            count += 1
    assert count == bench.size + 2  # the start and the end


if __name__ == "__main__":
    run(checkpoints)
