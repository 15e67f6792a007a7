"""A workflow that another process owns: `python -m engine.owned URL RUN_ID` runs it, and says when it waits."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from durable_flow import Context, StartEvent, StopEvent, Workflow, step

from .flows import Answer, Question


class Owned(Workflow):
    """Asks two questions, one after another."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.began = 0

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.began += 1
        answers = []
        for n in range(2):
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text=f"{n}?"))
            answers.append(answer.text)
        return StopEvent(result=answers)


async def main(url: str, run_id: str) -> None:
    handler = Owned(journal=url).run(run_id=run_id)
    async for event in handler.stream_events():
        if isinstance(event, Question):
            print("waiting", flush=True)
    await handler


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
