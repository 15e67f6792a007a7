"""A plain script with a workflow: run as `python app.py`, and imported as `app` by other processes.

The environment says where the journal is, and where it stops in the middle: JOURNEY_HOLD is a leg that never ends,
JOURNEY_GATE one that waits for an event. What it does goes to `legs.txt` in the current folder, one line with the leg
and the process.
"""

from __future__ import annotations

import asyncio
import enum
import os
import sys
from dataclasses import dataclass

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

LEGS = 5


class Mode(enum.Enum):
    ROAD = "road"
    RAIL = "rail"


@dataclass
class Ticket:
    leg: int
    mode: Mode


class Leg(Event):
    number: int
    ticket: Ticket


class Travelled(Event):
    number: int


class Go(Event):
    pass


def note(leg: int) -> None:
    with open("legs.txt", "a") as legs:
        legs.write(f"{leg} {os.getpid()}\n")


class Journey(Workflow):
    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.hold = int(os.environ.get("JOURNEY_HOLD", "0"))
        self.gate = int(os.environ.get("JOURNEY_GATE", "0"))
        self.held = asyncio.Event()

    @step
    async def begin(self, ev: StartEvent) -> Leg:
        return Leg(number=1, ticket=Ticket(1, Mode.ROAD))

    @step
    async def travel(self, ctx: Context, ev: Leg) -> Leg | StopEvent:
        note(ev.number)
        ctx.write_event_to_stream(Travelled(number=ev.number))
        if ev.number == self.gate:
            await ctx.wait_for_event(Go, timeout=None)
        if ev.number == self.hold:
            self.held.set()
            await asyncio.Event().wait()
        tickets = [*await ctx.store.get("tickets", default=[]), ev.ticket]
        await ctx.store.set("tickets", tickets)
        if ev.number < LEGS:
            return Leg(number=ev.number + 1, ticket=Ticket(ev.number + 1, Mode.RAIL))
        return StopEvent(result=tickets)


flow = Journey()


async def main() -> list[Ticket]:
    """Start the journey or go on with it, print what it streams, and return its tickets."""
    handler = flow.run(run_id="journey")
    async for event in handler.stream_events():
        if isinstance(event, Travelled):
            print(f"leg {event.number}", flush=True)
    tickets: list[Ticket] = await handler
    print(f"arrived with {len(tickets)} tickets, the first by {tickets[0].mode.name}", flush=True)
    return tickets


if __name__ == "__main__":
    if "--together" in sys.argv:
        print("ready", flush=True)
        sys.stdin.readline()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        if "--quiet" not in sys.argv:
            raise
        sys.exit(130)
