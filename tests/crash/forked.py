"""A process that prepares failed runs, or one that forks, edits or retries one of them and may be killed.

FORKED_RUN is the number of the run, FORKED_KILL "number point": a commit and a point in it. What is done goes to
`notes.txt`, a line each with the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

from durable_flow import Context, Event, Journal, RunNotFoundError, StartEvent, StopEvent, Workflow, step
from durable_flow.records import StateEdited

from .kills import Commits

RUNS = 24
EDIT: dict[str, Any] = {"go": 1, "on": 2, "bought": []}


class ForkedPart(Event):
    n: int


def note(run_id: str, what: str) -> None:
    with open("notes.txt", "a") as notes:
        notes.write(f"{run_id} {what}\n")


class Forked(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> ForkedPart:
        note(ctx.run_id, "begin")
        ctx.data["bought"] = []
        return ForkedPart(n=1)

    @step
    async def buy(self, ctx: Context, ev: ForkedPart) -> StopEvent:
        async def charge(amount: int) -> str:
            note(ctx.run_id, f"charge {amount}")
            return f"charged {amount}"

        bought = ctx.data["bought"]
        bought.append(await ctx.call("first", charge, 1))
        if "go" not in ctx.data:
            raise RuntimeError("nobody said go")
        bought.append(await ctx.call("second", charge, 2))
        return StopEvent(result=[bought, ctx.data["go"], ctx.data["on"]])


async def prepare(flow: Forked) -> None:
    for n in range(RUNS):
        with contextlib.suppress(RuntimeError):
            await flow.run(run_id=f"run-{n}")


async def fork(flow: Forked, journal: Journal, run_id: str) -> None:
    fork_id = f"fork-of-{run_id}"
    try:
        await journal.run(fork_id)
        handler = await flow.resume(fork_id)
    except RunNotFoundError:
        handler = await flow.fork(run_id, new_run_id=fork_id, set=EDIT)
    print(json.dumps(await handler), flush=True)


async def fork_by_journal(flow: Forked, journal: Journal, run_id: str) -> None:
    fork_id = f"fork-of-{run_id}"
    try:
        await journal.run(fork_id)
    except RunNotFoundError:
        await journal.fork(run_id, new_run_id=fork_id, set=EDIT)
    print(json.dumps(await (await flow.resume(fork_id))), flush=True)


async def edit(flow: Forked, journal: Journal, run_id: str, by: Forked | Journal | None = None) -> None:
    if not any(isinstance(record.fact, StateEdited) for record in await journal.history(run_id)):
        await (by or flow).edit(run_id, set=EDIT, by="kim")
    failed = (await journal.run(run_id)).status == "failed"
    print(json.dumps(await (await (flow.retry if failed else flow.resume)(run_id))), flush=True)


async def edit_by_journal(flow: Forked, journal: Journal, run_id: str) -> None:
    await edit(flow, journal, run_id, journal)


DOES = {"fork": fork, "edit": edit, "journal.fork": fork_by_journal, "journal.edit": edit_by_journal}


async def main(what: str) -> None:
    async with Journal() as journal:
        flow = Forked(timeout=None, journal=journal)
        if what == "prepare":
            await prepare(flow)
            return
        if "FORKED_KILL" in os.environ:
            number, point = os.environ["FORKED_KILL"].split(" ", 1)
            Commits().kill_at(int(number), point)
        await DOES[what](flow, journal, os.environ["FORKED_RUN"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
