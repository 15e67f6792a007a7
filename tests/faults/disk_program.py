"""A process whose disk is full for a while: `python -m faults.disk_program FOLDER KIND SECONDS`, prints JSON.

KIND `limit`: its files may not grow any more; `filler`: another file takes all the room of FOLDER, a small file system.
SECONDS is how long it tries to write before it gives a run up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
from pathlib import Path
from typing import Any

from durable_flow import Journal, JournalUnavailableError
from durable_flow.journal.sqlite import SqliteStore

from .cancellation import eventually
from .sqlite_runs import Counting, completions

RUNS = [f"run-{n}" for n in range(4)]
STEPS = 150
FILLER = 40_000


class Limit:
    """No file of this process may grow."""

    def fill(self, folder: Path) -> None:
        longest = max(file.stat().st_size for file in folder.glob("jobs.db*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest, resource.RLIM_INFINITY))

    def make_room(self, folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Filler:
    """A file that takes all the room there is."""

    def fill(self, folder: Path) -> None:
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def make_room(self, folder: Path) -> None:
        (folder / "filler").unlink()


KINDS = {"limit": Limit, "filler": Filler}


async def main(folder: Path, kind: str, seconds: float) -> dict[str, Any]:
    SqliteStore.__init__.__kwdefaults__["deadline_seconds"] = seconds
    disk = KINDS[kind]()
    errors: list[str] = []
    async with Journal(f"sqlite:///{folder / 'jobs.db'}") as journal:
        flow = Counting(STEPS, FILLER, journal=journal)
        flow.hold.clear()
        handlers = {run_id: flow.run(run_id=run_id) for run_id in RUNS}
        await eventually(lambda: flow.are_held(len(RUNS)), "the runs are in the middle")
        disk.fill(folder)
        flow.hold.set()
        if seconds < 2:
            for handler in handlers.values():
                try:
                    await handler
                except JournalUnavailableError as error:
                    errors.append(str(error))
        else:
            await stands_still(flow)
        told = {run_id: sorted(flow.told[run_id]) for run_id in RUNS}
        recorded = {run_id: await completions(journal, run_id) for run_id in RUNS}
        disk.make_room(folder)
        if errors:
            handlers = {run_id: await flow.resume(run_id) for run_id in RUNS}
        results = {run_id: await handler for run_id, handler in handlers.items()}
        completed = {run_id: await completions(journal, run_id) for run_id in RUNS}
    return {"errors": errors, "told": told, "recorded": recorded, "results": results, "completed": completed}


async def stands_still(flow: Counting) -> None:
    """Wait until nothing has become durable for a while."""
    before = -1
    while flow.progress != before:
        before = flow.progress
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))))
