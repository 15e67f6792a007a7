"""Self-discovery: a model selects ways to reason about a task, adapts them, makes a plan of them, and follows it.

    python examples/self_discover.py

You see four steps, one after the other, and the answer. Each step costs a call of a model, so `ctx.call` records it: a
step that was killed after its call does not pay for it again. Run the same line again: nothing is called, the answer
comes from the journal (`durable_flow.db` in this folder). Another run needs another run id:
`python examples/self_discover.py tuesday`.
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

TASK = "Five birds sit on a fence, two fly off. How many are left?"
MODULES = ["Think step by step.", "Use an analogy.", "Count what is there.", "Question the wording."]


class Selected(Event):
    modules: list[str]


class Adapted(Event):
    modules: list[str]


class Plan(Event):
    steps: list[str]


async def model(prompt: str) -> list[str]:
    """Stand for a language model: it answers the four prompts of this file."""
    print(prompt.partition(":")[0].lower(), flush=True)
    lines = prompt.partition("\n")[2].splitlines()
    if prompt.startswith("SELECT"):
        return [line for line in lines if "step" in line or "Count" in line]
    if prompt.startswith("ADAPT"):
        return [line.replace(".", " for the birds.") for line in lines]
    if prompt.startswith("IMPLEMENT"):
        return [f"{number}. {line}" for number, line in enumerate(lines, 1)]
    return [f"5 - 2 = 3, by {len(lines)} steps"]


class SelfDiscoverWorkflow(Workflow):
    @step
    async def select(self, ctx: Context, ev: StartEvent) -> Selected:
        ctx.data["task"] = ev.task
        prompt = "\n".join([f"SELECT the modules that help with: {ev.task}", *MODULES])
        return Selected(modules=await ctx.call("model", model, prompt))

    @step
    async def adapt(self, ctx: Context, ev: Selected) -> Adapted:
        prompt = "\n".join([f"ADAPT the modules to: {ctx.data['task']}", *ev.modules])
        return Adapted(modules=await ctx.call("model", model, prompt))

    @step
    async def implement(self, ctx: Context, ev: Adapted) -> Plan:
        prompt = "\n".join([f"IMPLEMENT a plan for: {ctx.data['task']}", *ev.modules])
        return Plan(steps=await ctx.call("model", model, prompt))

    @step
    async def solve(self, ctx: Context, ev: Plan) -> StopEvent:
        [answer] = await ctx.call("model", model, "\n".join([f"SOLVE: {ctx.data['task']}", *ev.steps]))
        return StopEvent(result={"plan": ev.steps, "answer": answer})


async def main(run_id: str) -> None:
    workflow = SelfDiscoverWorkflow(timeout=60, journal="sqlite:///durable_flow.db")
    result = await workflow.run(task=TASK, run_id=run_id)
    print("\n".join([*result["plan"], f"Answer: {result['answer']}"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "self-discover-1"))
