"""A run with children that have children: started one after another and at once, asked, failing and used again."""

from __future__ import annotations

import asyncio
from typing import Any

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

from .orders import Notes

# The journey, its two stages at once, the night of one of them, and the way home.
RUNS = 5
RESULT = {"stages": ["stage 1", "stage 2, room of kim"], "home": "stage 3"}


class RoomWanted(InputRequiredEvent):
    stage: int


class Room(HumanResponseEvent):
    of: str


class Halfway(Event):
    stages: list[str]


class Night(Workflow):
    @step
    async def stay(self, ctx: Context, ev: StartEvent) -> StopEvent:
        room = await ctx.wait_for_event(Room, waiter_event=RoomWanted(stage=ev.stage), timeout=None)
        return StopEvent(result=f"room of {room.of}")


class Stage(Workflow):
    def __init__(self, notes: Notes, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.notes = notes
        self.night = Night(timeout=None)

    @step
    async def drive(self, ctx: Context, ev: StartEvent) -> StopEvent:
        result = await ctx.call("toll", self.toll, ctx.run_id, ev.stage)
        if ev.stage == 2:
            result += f", {await self.night.run(stage=ev.stage)}"
        return StopEvent(result=result)

    async def toll(self, run_id: str, stage: int) -> str:
        self.notes.add(run_id, "call", "toll")
        return f"stage {stage}"


class Journey(Workflow):
    def __init__(self, notes: Notes, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.notes = notes
        self.stage = Stage(notes)

    @step
    async def outwards(self, ctx: Context, ev: StartEvent) -> Halfway:
        ctx.data["begun"] = True
        return Halfway(stages=await asyncio.gather(self.stage.run(stage=1), self.stage.run(stage=2)))

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.01))
    async def home(self, ctx: Context, ev: Halfway) -> StopEvent:
        tries = ctx.data["tries"] = ctx.data.get("tries", 0) + 1
        home = await self.stage.run(stage=3)
        if tries == 1:
            raise ConnectionError("the train is late")
        return StopEvent(result={"stages": ev.stages, "home": home})


async def travel(journey: Journey, run_id: str) -> Any:
    """Start the journey or go on with it, answer what is asked through it, and return its result."""
    handler = journey.run(run_id=run_id)
    async for event in handler.stream_events():
        if isinstance(event, RoomWanted):
            await handler.send_event(Room(of="kim"), wait_id=event.wait_id)
    return await handler
