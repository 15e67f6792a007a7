"""A planning loop: plan the parts of a question, work on them at once, and plan again until nothing is open.

    python examples/planning_loop.py

You see two rounds: the first plan has two items, and what they bring up makes a second plan. Kill it (it takes some
seconds) and run the same line again: what was done stays done. Run it once more: the answer comes from the journal
(`durable_flow.db` in this folder). Another run needs another run id: `python examples/planning_loop.py tuesday`.
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

QUESTION = "Compare the boats"
# What an offline planner knows: the items of a plan, and what an item's result brings up.
PLAN = {QUESTION: ["speed of the sailing boat", "speed of the rowing boat"]}
RESULTS = {
    "speed of the sailing boat": "6 knots, with wind",
    "speed of the rowing boat": "3 knots, see crew",
    "crew": "two people",
}
SECONDS_PER_ITEM = 0.5


class PlanItem(Event):
    query: str


class ItemResult(Event):
    query: str
    result: str


class ExecutedPlan(Event):
    results: dict[str, str]


class PlanningWorkflow(Workflow):
    @step
    async def plan(self, ctx: Context, ev: StartEvent | ExecutedPlan) -> list[PlanItem] | StopEvent:
        """Make the next plan of what is known; without an open item it is done."""
        if isinstance(ev, StartEvent):
            known: dict[str, str] = {}
            items = PLAN[ev.question]
        else:
            known = {**ctx.data["known"], **ev.results}
            items = [name for name in RESULTS if name not in known and any(f"see {name}" in r for r in known.values())]
        ctx.data["known"] = known
        ctx.data["open"] = len(items)
        if not items:
            return StopEvent(result=known)
        print(f"plan: {', '.join(items)}", flush=True)
        return [PlanItem(query=item) for item in items]

    @step(num_workers=4)
    async def execute(self, ev: PlanItem) -> ItemResult:
        """Work on one item; up to four at once."""
        print(f"working on {ev.query}", flush=True)
        await asyncio.sleep(SECONDS_PER_ITEM)  # stands for a query engine
        return ItemResult(query=ev.query, result=RESULTS[ev.query])

    @step
    async def aggregate(self, ctx: Context, ev: ItemResult) -> ExecutedPlan | None:
        """Wait for all items of the plan."""
        done = ctx.collect_events(ev, [ItemResult] * ctx.data["open"])
        return None if done is None else ExecutedPlan(results={one.query: one.result for one in done})


async def main(run_id: str) -> None:
    workflow = PlanningWorkflow(timeout=60, journal="sqlite:///durable_flow.db")
    known = await workflow.run(question=QUESTION, run_id=run_id)
    print("Answer: " + "; ".join(f"{query}: {known[query]}" for query in sorted(known)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "planning-1"))
