"""What a journal holds after a fault, and what is waited for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from contract.samples import Owner, wrote

from durable_flow.errors import JournalError
from durable_flow.journal.protocol import JournalStore
from durable_flow.records import ContextSet, Fact, StepCompleted


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait for what only the database, another thread or another process tells."""
    while True:
        if await condition():
            return
        await asyncio.sleep(0.002)


async def whole_run(store: JournalStore, run: int) -> list[Fact]:
    """Return a run's facts; its records are numbered without gaps, and each task was completed once at most."""
    records = await store.read(run)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    completed = Counter(record.fact.task for record in records if isinstance(record.fact, StepCompleted))
    assert set(completed.values()) <= {1}
    return [record.fact for record in records]


async def values_of(store: JournalStore, run: int) -> list[str]:
    """Return the keys that were written to a run's context, in order."""
    return [fact.key for fact in await whole_run(store, run) if isinstance(fact, ContextSet)]


def wrote_number(number: int) -> ContextSet:
    """A fact that is told from others."""
    return wrote(f"key {number}")


class Writer:
    """Appends to a run as fast as it can, until it has had `enough`, and notes what it was told."""

    def __init__(self, owner: Owner):
        self.owner = owner
        self.acknowledged: list[str] = []
        self.error: JournalError | None = None
        self.enough = False

    async def write(self) -> None:
        while not self.enough:
            fact = wrote_number(len(self.acknowledged))
            try:
                await self.owner.append(fact)
            except JournalError as error:
                self.error = error
                return
            self.acknowledged.append(fact.key)


async def written(writers: list[Writer], more: int) -> None:
    """Wait until they have written that many records more."""

    def count() -> int:
        return sum(len(writer.acknowledged) for writer in writers)

    before = count()

    async def enough() -> bool:
        return count() >= before + more

    await until(enough)
