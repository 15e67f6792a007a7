"""Look at what a run was at each of its checkpoints, and go on from one of them with something changed.

    python examples/time_travel.py

A trip is planned; the result is too expensive. Nothing is planned anew: the run is forked where the hotel had been
chosen, once with another budget in its context, once with another hotel. The journal is `durable_flow.db` in this
folder, and keeps all three runs.
"""

from __future__ import annotations

import asyncio

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step

HOTELS = {"Grand": 240, "Station": 90, "Hostel": 35}


class Chosen(Event):
    hotel: str


class Booked(Event):
    hotel: str
    nights: int


class Trip(Workflow):
    @step
    async def choose(self, ctx: Context, ev: StartEvent) -> Chosen:
        ctx.data["budget"] = ev.budget
        ctx.data["log"] = ["choose"]
        print("choosing a hotel ...")
        return Chosen(hotel="Grand")

    @step
    async def book(self, ctx: Context, ev: Chosen) -> Booked:
        nights = ctx.data["budget"] // HOTELS[ev.hotel]
        ctx.data["log"].append(f"book {nights} nights at {ev.hotel}")
        return Booked(hotel=ev.hotel, nights=nights)

    @step
    async def finish(self, ctx: Context, ev: Booked) -> StopEvent:
        ctx.data["left"] = ctx.data["budget"] - ev.nights * HOTELS[ev.hotel]
        return StopEvent(result=f"{ev.nights} nights at {ev.hotel}, {ctx.data['left']} left")


async def main() -> None:
    async with Journal("sqlite:///durable_flow.db") as journal:
        flow = Trip(journal=journal)
        handler = flow.run(budget=500)
        print(f"the run: {await handler}")

        # Every boundary of the journal is a checkpoint: nothing extra was stored.
        checkpoints = await journal.checkpoints(handler.run_id)
        for checkpoint in checkpoints:
            output = type(checkpoint.output_event).__name__
            print(f"  {checkpoint.seq:>3} {checkpoint.kind:5} {checkpoint.last_completed_step or '-':7} -> {output}")
        chosen = next(c for c in checkpoints if c.last_completed_step == "choose")
        print(f"then: {(await journal.state(handler.run_id, chosen)).context}")
        for change in await journal.diff(handler.run_id, chosen):
            print(f"since then: {change['op']} {change['path']} {change['value']!r}")

        # Go on from there. The step that had completed does not run again.
        richer = await flow.fork(handler.run_id, chosen, set={"budget": 1200})
        print(f"with another budget: {await richer}")
        cheaper = await flow.fork(handler.run_id, chosen, event=Chosen(hotel="Hostel"))
        print(f"with another hotel: {await cheaper}")

        print(f"forks of the run: {len(await journal.forks(handler.run_id))}")
        (change, edit) = [c async for c in journal.blame(richer.run_id, "budget")]
        print(f"the budget was {change.new}, then {edit.new}, by {edit.by}")


if __name__ == "__main__":
    asyncio.run(main())
