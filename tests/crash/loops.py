"""A process with several event loops, one after another: each leaves the journey in the middle, the last one ends it.

python -m crash.loops returns|closes|closes-and-exits
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys

import app  # by the name under which the script's own types are stored


async def leave_in_the_middle() -> None:
    """Start the journey and return while a leg is under way."""
    app.flow.hold, app.flow.held = 3, asyncio.Event()
    handler = app.flow.run(run_id="journey")
    await app.flow.held.wait()
    assert not handler.is_done()


async def go_on() -> None:
    app.flow.hold = 0
    await app.main()


def look() -> None:
    """Print who owns the run, and how many workers there are."""
    with sqlite3.connect("journeys.db") as connection:
        owner, status = connection.execute("SELECT owner, status FROM runs").fetchone()
        (workers,) = connection.execute("SELECT count(*) FROM workers").fetchone()
    connection.close()
    print(json.dumps({"owner": owner, "status": status, "workers": workers}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "returns":
        asyncio.run(leave_in_the_middle())
        look()
        asyncio.run(go_on())
        look()
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_in_the_middle())
        loop.close()
        if sys.argv[1] == "closes":
            asyncio.run(go_on())
            look()
