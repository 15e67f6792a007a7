"""Ask several shops at once and take the best offer: a list that a step returns is collected again.

    python examples/fan_out.py

`kill -9` it and run the same line again: shops that have answered are not asked again. The journal is
`durable_flow.db` in this folder; another run needs another run id, as in `python examples/fan_out.py lamp-2`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from durable_flow import Collect, Event, StartEvent, StopEvent, Take, Workflow, step

SHOPS = {"north": 12, "south": 9, "east": 15, "west": 11}
SECONDS_PER_CALL = 0.5


class Ask(Event):
    shop: str


class Offer(Event):
    shop: str
    price: int


class First(Event):
    shop: str


class Best(Event):
    shop: str
    price: int


class Purchase(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> list[Ask]:
        return [Ask(shop=shop) for shop in SHOPS]  # an empty list would be collected as well

    @step(num_workers=2)
    async def ask(self, ev: Ask) -> Offer | None:
        print(f"asking {ev.shop} ...", flush=True)
        await asyncio.sleep(SECONDS_PER_CALL)  # stands for a call of the shop
        return Offer(shop=ev.shop, price=SHOPS[ev.shop])  # None: no offer; nobody waits for it

    @step
    async def first(self, offers: Annotated[list[Offer], Collect(Take(1))]) -> First:
        return First(shop=offers[0].shop)  # runs as soon as one is there

    @step
    async def compare(self, offers: list[Offer]) -> Best:
        best = min(offers, key=lambda offer: offer.price)  # runs once, when every shop has answered
        return Best(shop=best.shop, price=best.price)

    @step
    async def decide(self, first: First, best: Best) -> StopEvent:
        return StopEvent(result=f"{best.shop} for {best.price}; {first.shop} was the first to answer")


async def main(run_id: str) -> None:
    flow = Purchase(timeout=60, journal="sqlite:///durable_flow.db")
    print(f"run {run_id}: bought from {await flow.run(run_id=run_id)}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "lamp-1"))
