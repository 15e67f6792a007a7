"""The workloads chain and runs64 on DBOS and Postgres, as its documentation writes them.

With `benchmarks/` on the path, `python -m workloads.with_dbos chain --database URL --size N` prints one line of JSON,
the fields of `Sample`.

Chosen for DBOS: coroutines throughout, called directly (`start_workflow_async` costs a task more and a read of the
result); its own defaults of pool and threads (20 connections, the loop's executor), of which larger and smaller ones
were tried and were not faster; LISTEN/NOTIFY, which is the default; no tracing, and no logs below errors. A workflow's
state is what its steps return, so a step that returns a value is a step with one state write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from dbos import DBOS
from workloads.rival import AT_ONCE, STEPS, Rival, run


@DBOS.step()
async def tick(n: int) -> int:
    return n + 1


@DBOS.workflow()
async def ticks() -> int:
    n = 0
    while n < STEPS:
        n = await tick(n)
    return n


@DBOS.step()
async def parse(n: int) -> int:
    return n


@DBOS.step()
async def rank(n: int) -> int:
    return n


@DBOS.step()
async def report(n: int) -> int:
    return n


@DBOS.workflow()
async def three_steps(n: int) -> int:
    return await report(await rank(await parse(n)))


async def lane(numbers: Iterator[int]) -> None:
    for n in numbers:
        assert await three_steps(n) == n


async def all_lanes(runs: int) -> None:
    numbers = iter(range(runs))
    await asyncio.gather(*(lane(numbers) for _ in range(AT_ONCE)))


def launch(database: str) -> None:
    DBOS(config={"name": "benchmark", "system_database_url": database, "log_level": "ERROR", "enable_otlp": False})
    DBOS.launch()


async def chain(rival: Rival) -> None:
    launch(rival.database)
    for _ in range(3):
        assert await ticks() == STEPS
    with rival.measure(rival.size * STEPS):
        for _ in range(rival.size):
            await ticks()
    DBOS.destroy()


async def runs64(rival: Rival) -> None:
    launch(rival.database)
    await all_lanes(2 * AT_ONCE)
    with rival.measure(rival.size):
        await all_lanes(rival.size)
    DBOS.destroy()


if __name__ == "__main__":
    run({"chain": chain, "runs64": runs64})
