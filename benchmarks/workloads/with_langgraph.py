"""The workloads chain and runs64 on LangGraph and its AsyncPostgresSaver; used like `with_dbos.py`.

Chosen for LangGraph: coroutines throughout; `durability="sync"`, a checkpoint before the next step, which is what the
others promise; the saver in pipeline mode, a quarter faster than without. A saver lets one caller at a time use the
database, also with a pool of connections, so it gets one connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, TypedDict
from uuid import uuid4

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from workloads.rival import AT_ONCE, STEPS, Rival, run


class State(TypedDict):
    n: int


async def tick(state: State) -> State:
    return {"n": state["n"] + 1}


def after_tick(state: State) -> str:
    return "tick" if state["n"] < STEPS else END


async def pass_on(state: State) -> State:
    return {"n": state["n"]}


def ticks(saver: AsyncPostgresSaver) -> Any:
    builder = StateGraph(State)
    builder.add_node("tick", tick)
    builder.add_edge(START, "tick")
    builder.add_conditional_edges("tick", after_tick)
    return builder.compile(checkpointer=saver)


def three_steps(saver: AsyncPostgresSaver) -> Any:
    builder = StateGraph(State)
    names = ["parse", "rank", "report"]
    for name in names:
        builder.add_node(name, pass_on)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile(checkpointer=saver)


async def invoke(graph: Any, n: int) -> int:
    config = {"configurable": {"thread_id": str(uuid4())}, "recursion_limit": 2 * STEPS}
    state = await graph.ainvoke({"n": n}, config, durability="sync")
    return int(state["n"])


async def lane(graph: Any, numbers: Iterator[int]) -> None:
    for n in numbers:
        assert await invoke(graph, n) == n


async def all_lanes(graph: Any, runs: int) -> None:
    numbers = iter(range(runs))
    await asyncio.gather(*(lane(graph, numbers) for _ in range(AT_ONCE)))


async def make_tables(database: str) -> None:
    # Without a pipeline: CREATE INDEX CONCURRENTLY wants no transaction around it.
    async with AsyncPostgresSaver.from_conn_string(database) as saver:
        await saver.setup()


async def chain(rival: Rival) -> None:
    await make_tables(rival.database)
    async with AsyncPostgresSaver.from_conn_string(rival.database, pipeline=True) as saver:
        graph = ticks(saver)
        for _ in range(3):
            assert await invoke(graph, 0) == STEPS
        with rival.measure(rival.size * STEPS):
            for _ in range(rival.size):
                await invoke(graph, 0)


async def runs64(rival: Rival) -> None:
    await make_tables(rival.database)
    async with AsyncPostgresSaver.from_conn_string(rival.database, pipeline=True) as saver:
        graph = three_steps(saver)
        await all_lanes(graph, 2 * AT_ONCE)
        with rival.measure(rival.size):
            await all_lanes(graph, rival.size)


if __name__ == "__main__":
    run({"chain": chain, "runs64": runs64})
