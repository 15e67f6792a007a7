"""A process that saves a context and gives its run up, or one that goes on from what was saved and may be killed.

SAVED_RUN is the run that goes on, SAVED_KILL "number point": a commit and a point in it. What is done goes to
`notes.txt`, a line each with the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

from durable_flow import (
    AlreadyAnsweredError,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    RunFinishedError,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

from .kills import Commits

SAVED = Path("saved.json")


class SavedPart(Event):
    n: int


class SavedCount(Event):
    n: int


class SavedQuestion(InputRequiredEvent):
    text: str


class SavedAnswer(HumanResponseEvent):
    text: str


def note(what: str) -> None:
    with open("notes.txt", "a") as notes:
        notes.write(f"{os.environ.get('SAVED_RUN', 'first')} {what}\n")


async def charge(amount: int) -> str:
    note("charge")
    return f"charged {amount}"


class Saved(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> SavedPart | SavedCount:
        note("begin")
        await ctx.set("bought", [])
        ctx.send_event(SavedCount(n=3))
        ctx.collect_events(SavedPart(n=0), [SavedPart, SavedPart], "parts")
        return SavedPart(n=1)

    @step
    async def count(self, ctx: Context, ev: SavedCount) -> None:
        if "SAVED_RUN" not in os.environ:
            await asyncio.Event().wait()  # it is still at it when the context is saved
        await ctx.set("counted", ev.n)

    @step
    async def buy(self, ctx: Context, ev: SavedPart) -> StopEvent:
        parts = ctx.collect_events(ev, [SavedPart, SavedPart], "parts")
        assert parts is not None
        bought = await ctx.get("bought")
        bought.append(await ctx.call("first", charge, 1))
        answer = await ctx.wait_for_event(SavedAnswer, waiter_event=SavedQuestion(text="more?"))
        bought.append(await ctx.call("second", charge, 2))
        await ctx.sleep(0.01)
        return StopEvent(result=[[part.n for part in parts], bought, answer.text])


async def save() -> str:
    handler = Saved(timeout=None).run(run_id="first")
    async for event in handler.stream_events():
        if isinstance(event, SavedQuestion):
            break
    data = json.dumps(handler.ctx.to_dict())
    await handler.cancel_run()
    return data


async def go_on(data: str) -> None:
    if "SAVED_KILL" in os.environ:
        number, point = os.environ["SAVED_KILL"].split(" ", 1)
        Commits().kill_at(int(number), point)
    flow = Saved(timeout=None)
    ctx = Context.from_dict(flow, json.loads(data))
    handler = flow.run(ctx=ctx, run_id=os.environ["SAVED_RUN"])
    with contextlib.suppress(AlreadyAnsweredError, RunFinishedError):
        await handler.send_event(SavedAnswer(text="yes"))
    print(json.dumps([await handler, dict(ctx.data)]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "save":
        SAVED.write_text(asyncio.run(save()))
    else:
        asyncio.run(go_on(SAVED.read_text()))
