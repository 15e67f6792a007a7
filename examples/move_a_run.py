"""Take a run to another machine while it waits for a person, and finish it there.

    python examples/move_a_run.py here       # starts a run, leaves it waiting and writes offer.jsonl
    python examples/move_a_run.py there      # reads that file into another database, answers, prints the result

`here` has the database here.db, `there` has there.db: think of two machines, of which the second one may use Postgres.
The price is asked for once, because the answer to that is in the archive.
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import (
    Context,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

ARCHIVE = "offer.jsonl"


class Approve(InputRequiredEvent):
    price: int


class Approved(HumanResponseEvent):
    by: str


class Offer(Workflow):
    @step
    async def price(self, ctx: Context, ev: StartEvent) -> Approve:
        price = await ctx.call("price", self.ask_for_price, ev.item)
        await ctx.store.set("price", price)
        return Approve(price=price)

    @step
    async def send(self, ctx: Context, ev: Approved) -> StopEvent:
        return StopEvent(result=f"offered for {await ctx.store.get('price')}, approved by {ev.by}")

    async def ask_for_price(self, item: str) -> int:
        print(f"asking for the price of a {item}")
        return 12


async def here() -> None:
    async with Journal("sqlite:///here.db") as journal:
        handler = Offer(journal=journal).run(item="lamp", run_id="offer-1")
        async for event in handler.stream_events():
            if isinstance(event, Approve):
                break
        archive = await journal.export("offer-1", ARCHIVE)
        print(f"wrote {ARCHIVE}: {archive.records} records, {archive.status}")
        # Only one of the two may go on.
        await handler.cancel_run()


async def there() -> None:
    async with Journal("sqlite:///there.db") as journal:
        run = await journal.import_(ARCHIVE)
        print(f"read run {run.run_id}: {run.status}")
        await journal.send("offer-1", Approved(by="Ada"))
        print(await (await Offer(journal=journal).resume("offer-1")))


if __name__ == "__main__":
    asyncio.run({"here": here, "there": there}[sys.argv[1]]())
