"""A run of which `size` trivial steps are recorded is replayed against the code that wrote it; a unit is the replay."""

from __future__ import annotations

from workloads.common import Bench, run
from workloads.fork import LongRun


async def replay(bench: Bench) -> None:
    flow = bench.flow(LongRun)
    await flow.run(run_id="long", last=bench.size - 1)
    with bench.measure(1):
        report = await flow.replay("long")
    assert (report.ok, report.replayed) == (True, bench.size)


if __name__ == "__main__":
    run(replay)
