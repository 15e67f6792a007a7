"""Runs with children and grandchildren, some of which are cancelled: at random, by a process that may be killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from durable_flow import (
    Context,
    DurableFlowError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowHandler,
    step,
)

from .kills import Commits

PARENTS = [f"parent-{number}" for number in range(4)]
RESULT = ["toys of yes", "pet", "toys of yes"]
# A life that nobody kills is over soon after.
LIFE_SECONDS = 0.8


class ToysWanted(InputRequiredEvent):
    pass


class PetWanted(InputRequiredEvent):
    pass


class Toys(HumanResponseEvent):
    of: str


class Pet(HumanResponseEvent):
    pass


class Asked(Event):
    pass


class Grandchild(Workflow):
    """Asks by what it returns, so that a process need not keep it while it waits."""

    @step
    async def ask(self, ev: StartEvent) -> ToysWanted:
        return ToysWanted()

    @step
    async def play(self, ev: Toys) -> StopEvent:
        return StopEvent(result=f"toys of {ev.of}")


class Child(Workflow):
    """Has a child of its own, or waits in its step."""

    def __init__(self, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.own = Grandchild(timeout=None)

    @step
    async def grow(self, ctx: Context, ev: StartEvent) -> StopEvent:
        if ev.alone:
            await ctx.wait_for_event(Pet, waiter_event=PetWanted(), timeout=None)
            return StopEvent(result="pet")
        return StopEvent(result=await self.own.run())


class Parent(Workflow):
    def __init__(self, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.child = Child()
        self.grandchild = Grandchild(timeout=None)

    @step
    async def live(self, ev: StartEvent) -> StopEvent:
        runs = self.child.run(alone=False), self.child.run(alone=True), self.grandchild.run()
        return StopEvent(result=await asyncio.gather(*runs))


def _journal(url: str, chance: random.Random) -> Journal:
    return Journal(url, idle_release_seconds=chance.choice([0.005, 60.0]))


async def _answer(handler: WorkflowHandler, wanted: float, chance: random.Random) -> None:
    """Answer what a family asks, with this probability each."""
    async for event in handler.stream_events():
        if isinstance(event, ToysWanted | PetWanted) and chance.random() < wanted:
            answer = Toys(of="yes") if isinstance(event, ToysWanted) else Pet()
            with contextlib.suppress(DurableFlowError):
                await handler.send_event(answer, wait_id=event.wait_id)


async def _outcome(handler: WorkflowHandler) -> Any:
    try:
        return await handler
    except WorkflowCancelledByUser:
        return "cancelled"


async def commits_are(commits: Commits, number: int) -> None:
    """Return when this process has made so many commits."""
    while True:
        if commits.count >= number:
            return
        await asyncio.sleep(0.001)


async def disturbed(url: str, seed: int, commits: Commits) -> None:
    """Start or take up some families, answer some questions, and cancel some families after some commits."""
    chance = random.Random(seed)
    async with _journal(url, chance) as journal:
        flow = Parent(journal=journal)

        async def attend(run_id: str) -> None:
            handler = flow.run(run_id=run_id)
            with contextlib.suppress(DurableFlowError):
                await _answer(handler, 0.5, chance)

        async def cancel(run_id: str, after: int, by_message: bool) -> None:
            await commits_are(commits, after)
            with contextlib.suppress(DurableFlowError):
                if by_message:
                    await journal.cancel(run_id)
                else:
                    await flow.run(run_id=run_id).cancel_run()

        doings = [attend(run_id) for run_id in PARENTS if chance.random() < 0.7]
        # The first is never cancelled.
        doings += [
            cancel(run_id, chance.randrange(1, 24), chance.random() < 0.5)
            for run_id in PARENTS[1:]
            if chance.random() < 0.3
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*doings), LIFE_SECONDS)


async def settled(url: str) -> dict[str, Any]:
    """Take up all that was left, answer everything, and return how the families ended."""
    chance = random.Random(0)
    async with Journal(url) as journal:
        parent, child, grandchild = Parent(journal=journal), Child(journal=journal), Grandchild(journal=journal)
        for flow in (grandchild, child, parent):
            await flow.recover()
        handlers = {run_id: parent.run(run_id=run_id) for run_id in PARENTS}
        answering = [asyncio.create_task(_answer(handler, 1.0, chance)) for handler in handlers.values()]
        results = {run_id: await _outcome(handler) for run_id, handler in handlers.items()}
        await asyncio.gather(*answering, return_exceptions=True)
        # What their ends have to do with their children is done when the loop ends.
    return results
