"""A workflow that waits: for a timer, and for its next attempt."""

from __future__ import annotations

import time
from typing import Any

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

from .orders import Notes

SECONDS = 0.8


class Nap(Event):
    pass


class Errand(Event):
    pass


class Done(Event):
    pass


class Timed(Workflow):
    """Its notes have the time (us) in place of an attempt."""

    def __init__(self, notes: Notes, **kwargs: Any):
        super().__init__(**kwargs)
        self.notes = notes

    def note(self, ctx: Context, what: str, key: str) -> None:
        self.notes.add(ctx.run_id, what, key, time.time_ns() // 1000)

    @step
    async def begin(self, ev: StartEvent) -> list[Nap | Errand]:
        return [Nap(), Errand()]

    @step
    async def nap(self, ctx: Context, ev: Nap) -> Done:
        await ctx.sleep(SECONDS)
        self.note(ctx, "nap", "woke")
        return Done()

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=SECONDS))
    async def errand(self, ctx: Context, ev: Errand) -> Done:
        tries = ctx.data["tries"] = ctx.data.get("tries", 0) + 1
        self.note(ctx, "errand", f"try-{tries}")
        if tries == 1:
            raise ConnectionError("nobody is there")
        return Done()

    @step
    async def finish(self, ctx: Context, ev: Done) -> StopEvent | None:
        return StopEvent(result="done") if ctx.collect_events(ev, [Done, Done]) else None
