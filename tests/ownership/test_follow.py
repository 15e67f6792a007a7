"""`journal.follow` over processes: every record once, though writers are killed and others take the run up."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from durable_flow import Journal, RunNotFoundError
from durable_flow.records import Record, RunClaimed, RunCompleted, WaitOpened

from .processes import until
from .program import Go

Start = Callable[..., Any]


async def waits(journal: Journal) -> None:
    """Wait until the run is in its middle and waits."""

    async def does() -> bool:
        try:
            return bool((await journal.run("r")).waits)
        except RunNotFoundError:
            return False

    await until(does)


async def followed(journal: Journal, after: int, *, up_to: type | None = None) -> list[Record]:
    found: list[Record] = []
    async with asyncio.timeout(60):
        async for record in journal.follow("r", after):
            found.append(record)
            if up_to is not None and isinstance(record.fact, up_to):
                break
    return found


async def test_a_run_is_followed_while_its_writer_is_killed_and_another_goes_on(journal: Journal, alive: Start) -> None:
    async with alive("writer", do="publish") as writer:
        await waits(journal)
        first = await followed(journal, 0, up_to=WaitOpened)
        rest = asyncio.create_task(followed(journal, first[-1].seq))
        async with alive("other", do="publish") as other:
            await writer.kill()
            await journal.send("r", Go(response="go"))
            assert await other.says() == "published"
            records = first + await rest
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert records == await journal.history("r")
    assert isinstance(records[-1].fact, RunCompleted)
    assert sum(isinstance(record.fact, RunClaimed) for record in records) == 1


async def test_a_follower_that_breaks_off_or_is_cancelled_leaves_nothing_behind(journal: Journal, alive: Start) -> None:
    async with alive("writer", do="publish"):
        await waits(journal)
        kept = journal.follow("r")
        assert (await anext(kept)).seq == 1
        seen = await followed(journal, 0, up_to=WaitOpened)
        cancelled = asyncio.create_task(followed(journal, seen[-1].seq))
        await until(lambda: journal._shared.followers)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        gc.collect()
        assert journal._shared.followers == {}
        assert journal._shared._readers == {}
        assert (await anext(kept)).seq == 2
