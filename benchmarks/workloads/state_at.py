"""A fresh process looks at the state of a finished run of `size` steps, at seqs all over it; a unit is a look.

Each step made one small state write.
"""

from __future__ import annotations

import os

from workloads.common import Bench, run
from workloads.resume import LongRun

LOOKS = 40


async def leave_behind(bench: Bench) -> None:
    assert await bench.flow(LongRun).run(run_id="measured", last=bench.size) == bench.size
    os._exit(0)


async def look(bench: Bench) -> None:
    journal = bench.journal
    assert journal is not None
    head = (await journal.run("measured")).seq
    await journal.state("measured", at=head)
    with bench.measure(LOOKS):
        for n in range(LOOKS):
            at = head * (n + 1) // LOOKS
            state = await journal.state("measured", at=at)
            assert at - 3 <= state.seq <= at


if __name__ == "__main__":
    run(look, prepare=leave_behind)
