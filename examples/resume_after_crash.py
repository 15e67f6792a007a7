"""A slow job that survives a kill: `kill -9` this script and run the same line again, it goes on.

    python examples/resume_after_crash.py

The journal is `durable_flow.db` in this folder. Another run of the same job needs another run id:

    python examples/resume_after_crash.py tuesday
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

PAGES = 8
SECONDS_PER_PAGE = 0.5


class Page(Event):
    number: int


class Translation(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Page:
        return Page(number=1)

    @step
    async def translate(self, ctx: Context, ev: Page) -> Page | StopEvent:
        print(f"page {ev.number} of {PAGES} ...", flush=True)
        await asyncio.sleep(SECONDS_PER_PAGE)  # stands for slow or costly work
        pages = [*await ctx.store.get("pages", default=[]), f"translation of page {ev.number}"]
        await ctx.store.set("pages", pages)
        return Page(number=ev.number + 1) if ev.number < PAGES else StopEvent(result=pages)


async def main(run_id: str) -> None:
    flow = Translation(timeout=60, journal="sqlite:///durable_flow.db")
    pages = await flow.run(run_id=run_id)  # starts the run, goes on with it, or returns what it came to
    print(f"run {run_id} is completed: {len(pages)} pages, the last one is the {pages[-1]!r}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "translation-1"))
