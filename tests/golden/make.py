"""Make the golden journal of this release: python -m tests.golden.make, from the root, once before it goes out.

It runs the workflows of `programs.py`, each until it stands where it should, and writes tests/golden/VERSION.sql.
A journal that is there is never made again: it is what that release has written.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import sys
import tempfile
from pathlib import Path

from durable_flow import Context, Journal, RunNotFoundError
from durable_flow.records import StepCompleted, StreamPublished
from tests.golden.programs import STANDINGS, Asks, Standing

HERE = Path(__file__).parent


async def stop_at(journal: Journal, run_id: str, standing: Standing) -> None:
    """Start a run and leave it where it should stand."""
    flow = standing.flow(journal=journal, timeout=None)
    context = None
    if run_id == "imported":
        # The state of a run that asks, as data; the run that goes on from it begins with that.
        first = Asks(journal=journal, timeout=None).run(run_id="exported")
        await reached(journal, "exported", StreamPublished, 1)
        data = first.ctx.to_dict()
        await first.cancel_run()
        context = Context.from_dict(flow, data)
        flow.run(run_id=run_id, ctx=context)
        await reached(journal, run_id, object, 2)
        return
    flow.run(run_id=run_id)
    await reached(journal, run_id, standing.until, standing.count)
    if run_id == "buffer":
        await reached(journal, run_id, StepCompleted, 4)


async def reached(journal: Journal, run_id: str, kind: type, count: int) -> None:
    """Wait until the run has so many records of a kind."""
    while True:
        with contextlib.suppress(RunNotFoundError):
            if sum(isinstance(record.fact, kind) for record in await journal.history(run_id)) >= count:
                return
        await asyncio.sleep(0.005)


async def make(url: str) -> None:
    """Bring every run to its standing. Those that are not over are given up as the loop ends."""
    async with Journal(url) as journal:
        for run_id, standing in STANDINGS.items():
            await stop_at(journal, run_id, standing)
        await asyncio.sleep(1)  # every row says by now where its run stands


def long_ago(dump: str) -> str:
    """Move every time so that the first is the first of 2024: what waits for its time finds that it has come."""
    times = re.compile(r"(?<!\d)1[789]\d{14}(?!\d)")  # microseconds, from 2023 to 2033
    first = min(map(int, times.findall(dump)))

    def moved(text: str) -> str:
        return times.sub(lambda found: str(int(found[0]) - first + 1_704_067_200_000_000), text)

    def payload(found: re.Match[str]) -> str:
        data = bytes.fromhex(found[1]).decode("latin-1")
        return f"X'{moved(data).encode('latin-1').hex().upper()}'"

    return re.sub(r"X'([0-9A-F]*)'", payload, moved(dump))


def main(version: str) -> None:
    """Write the journal of a release."""
    target = HERE / f"{version}.sql"
    if target.exists():
        sys.exit(f"{target} is what release {version} has written; it stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(make(f"sqlite:///{folder}/golden.db"))
        with contextlib.closing(sqlite3.connect(f"{folder}/golden.db")) as connection:
            connection.execute("DELETE FROM workers")
            connection.commit()
            dump = "\n".join(connection.iterdump()) + "\n"
    target.write_text(long_ago(dump).replace(str(HERE.parents[1]), "/app"), encoding="utf-8")


if __name__ == "__main__":
    from durable_flow import __version__

    main(__version__)
