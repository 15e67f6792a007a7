"""Change a workflow, and see what the change would have meant for the runs of last month.

    python examples/replay_history.py record   # runs the workflow for three customers and writes their archives
    python examples/replay_history.py replay   # holds today's code, and then a changed one, against those archives

The archives are what a team would keep in its repository: histories from production, from whatever database. Replaying
them asks nobody for anything: the ratings of the customers come from the recorded calls.
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.testing import assert_replays

RATINGS = {"ada": 9, "bob": 4, "cleo": 6}


class Rated(Event):
    rating: int


class Loan(Workflow):
    least = 5

    @step
    async def rate(self, ctx: Context, ev: StartEvent) -> Rated:
        rating = await ctx.call("rating", self.ask_agency, ev.customer)
        ctx.data["rating"] = rating
        return Rated(rating=rating)

    @step
    async def decide(self, ctx: Context, ev: Rated) -> StopEvent:
        granted = ev.rating >= self.least
        ctx.data["decision"] = {"granted": granted, "by": "rules"}
        return StopEvent(result="granted" if granted else "refused")

    async def ask_agency(self, customer: str) -> int:
        print(f"asking the agency about {customer}, for a fee")
        return RATINGS[customer]


class StricterLoan(Loan):
    """The change that is to be judged."""

    least = 7


async def record() -> None:
    async with Journal("sqlite:///loans.db") as journal:
        for customer in RATINGS:
            print(customer, await Loan(journal=journal).run(run_id=f"loan-{customer}", customer=customer))
            await journal.export(f"loan-{customer}", f"loan-{customer}.jsonl")


async def replay() -> None:
    for customer in RATINGS:
        archive = f"./loan-{customer}.jsonl"
        report = await assert_replays(Loan(), archive)
        print(f"{customer}: {report.equal} of {report.replayed} steps as recorded")
        try:
            await assert_replays(StricterLoan(workflow_name="Loan"), archive)
            print(f"{customer}: the stricter rule decides the same")
        except AssertionError as difference:
            print(difference)


if __name__ == "__main__":
    work = {"record": record, "replay": replay}.get(" ".join(sys.argv[1:]))
    if work is None:
        sys.exit(__doc__)
    asyncio.run(work())
