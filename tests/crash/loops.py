"""A process with several event loops, one after another: each leaves the journey in the middle, the last one ends it.

python -m crash.loops returns|closes|closes-and-exits
"""

from __future__ import annotations

import asyncio
import json
import sys

import app  # by the name under which the script's own types are stored

from durable_flow import Journal


async def leave_in_the_middle() -> None:
    """Start the journey and return while a leg is under way."""
    app.flow.hold, app.flow.held = 3, asyncio.Event()
    handler = app.flow.run(run_id="journey")
    await app.flow.held.wait()
    assert not handler.is_done()


async def go_on() -> None:
    app.flow.hold = 0
    await app.main()


async def look() -> None:
    """Print who owns the run, and how many workers there are."""
    async with Journal() as journal:
        run = await journal.run("journey")
        workers = await journal._shared.store.workers()
    print(json.dumps({"owner": run.owner, "status": run.status, "workers": len(workers)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "returns":
        asyncio.run(leave_in_the_middle())
        asyncio.run(look())
        asyncio.run(go_on())
        asyncio.run(look())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_in_the_middle())
        loop.close()
        if sys.argv[1] == "closes":
            asyncio.run(go_on())
            asyncio.run(look())
