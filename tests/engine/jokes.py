"""LlamaIndex's joke workflow, and a process that is killed in the middle of it.

python jokes.py URL RUN_ID step|callback
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, WorkflowCheckpointer, step

BOTH = ["generate_joke", "critique_joke"]


class JokeTold(Event):
    joke: str


class Jokes(Workflow):
    """Tells a joke, then criticises it. `calls` are the steps that ran, `dies` kills the process in the second one."""

    def __init__(self, *, dies: bool = False, **kwargs: Any):
        super().__init__(**{"workflow_name": "Jokes", **kwargs})
        self.dies = dies
        self.calls: list[str] = []

    @step
    async def generate_joke(self, ctx: Context, ev: StartEvent) -> JokeTold:
        self.calls.append("generate_joke")
        ctx.data["topic"] = ev.topic
        ctx.data["mood"] = "dry"
        return JokeTold(joke=f"a joke about {ev.topic}")

    @step
    async def critique_joke(self, ctx: Context, ev: JokeTold) -> StopEvent:
        self.calls.append("critique_joke")
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        await ctx.checkpoint("read")
        return StopEvent(result=[ev.joke, ctx.data["topic"], ctx.data.get("mood")])


async def die(url: str, run_id: str, where: str) -> None:
    """Run until the first step has completed, print its checkpoint, and be killed: in the next step, or before it."""
    async with Journal(url, durability="normal") as journal:
        ckptr = WorkflowCheckpointer(Jokes(journal=journal, dies=True))
        keep = ckptr.new_checkpoint_callback_for_run()

        async def tell(**completion: Any) -> None:
            await keep(**completion)
            [checkpoint] = ckptr.checkpoints[run_id]
            print(json.dumps(checkpoint.to_dict()), flush=True)
            if where == "callback":
                os.kill(os.getpid(), signal.SIGKILL)

        await ckptr.workflow.run(topic="death", run_id=run_id, checkpoint_callback=tell)


if __name__ == "__main__":
    asyncio.run(die(*sys.argv[1:]))
