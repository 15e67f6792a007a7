"""Wherever an event loop ends, nothing is left behind: no thread, no connection."""

import asyncio
import gc
import threading
import warnings
from pathlib import Path

import pytest

from durable_flow import Context, HumanResponseEvent, InputRequiredEvent, Journal, StartEvent, StopEvent, Workflow, step


class LoopEndFlow(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
        ctx.data["asked"] = True
        return InputRequiredEvent(prefix="go on?")

    @step
    async def done(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result="done")


def writers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "durable-flow-writer"}


@pytest.mark.parametrize("turns", range(0, 120, 6))
def test_a_loop_that_ends_after_any_number_of_turns_leaves_nothing_behind(turns: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    async def read_on(journal: Journal) -> None:
        while True:
            await journal.runs()
            await journal.pending()

    async def main() -> None:
        async with Journal(url) as journal:
            readers = [asyncio.create_task(read_on(journal)) for _ in range(3)]
            handlers = [LoopEndFlow(journal=url).run() for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            assert (len(readers), len(handlers)) == (3, 3)

    before = writers()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    for thread in writers() - before:
        thread.join(timeout=20)
    assert writers() - before == set()
    assert [str(warning.message) for warning in told] == []

    async def look() -> set[str]:
        async with Journal(url) as journal:
            return {str(info.owner) for info in await journal.runs()}

    assert asyncio.run(look()) <= {"None"}
