"""One life of a process that runs orders, and the server that forks such processes quickly.

The server imports everything and compiles the usual SQL once, on the database that it is called with; then it has no
event loop and no thread, so that its children may have theirs. It reads one life per line from its input and writes how
that process ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypedDict

# Imported late by the store; here once for all children.
import aiosqlite  # noqa: F401
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401
import statements

import durable_flow.journal.postgres
import durable_flow.journal.sqlite  # noqa: F401
from durable_flow import Journal, RunNotFoundError
from durable_flow.engine import snapshots

from .families import disturbed, settled
from .journeys import Journey, travel
from .kills import Commits
from .orders import Notes, Orders, attend
from .timed import Timed

# A life that takes longer hangs: it says where, and ends.
MAX_SECONDS = 60


class Life(TypedDict, total=False):
    """What a process does: attend to these runs, of which `recover` finds some; and when it is killed.

    `laps`: how long the loop of a run is. `kill`: the commit, and the point in it. `moment`: a line of the notes, after
    which `kill` counts. `die_at_question`: at the first question that is seen. `die_after`: kinds of records, once all
    of them are in the journal of the first run. `timed`: runs the workflow with timers instead, `journey` the one with
    children. `dies_with`: the pid of a server that is killed whenever the process kills itself. `family`: families of
    runs, disturbed by this seed, or to their end with 0. `snapshot_rows`: a snapshot is taken after so many records.
    """

    folder: str
    url: str
    runs: list[str]
    recover: bool
    laps: int
    kill: tuple[int, str]
    moment: str
    die_at_question: bool
    die_after: list[str]
    timed: bool
    dies_with: int
    journey: bool
    family: int
    snapshot_rows: int


def life_of(request: Any) -> Life:
    """Return the Life that came as JSON."""
    if "kill" in request:
        request["kill"] = tuple(request["kill"])
    life: Life = request
    return life


class NotesWithMoment(Notes):
    """Notes that arm the kill when a certain line is written."""

    def __init__(self, path: Path, moment: str, commits: Commits, kill: tuple[int, str]):
        super().__init__(path)
        self._moment, self._commits, self._kill = moment, commits, kill

    def add(self, run_id: str, what: str, key: str, attempt: int = 1) -> None:
        super().add(run_id, what, key, attempt)
        if self._moment == f"{what} {key}" and self._commits.target is None:
            number, point = self._kill
            self._commits.kill_at(self._commits.count + number, point)


async def live(life: Life) -> None:
    commits = Commits(life.get("dies_with"))
    folder = Path(life["folder"])
    notes = Notes(folder / "notes.txt")
    if "snapshot_rows" in life:
        snapshots.LIVE_ROWS = snapshots.PARKED_ROWS = life["snapshot_rows"]
    kill = life.get("kill")
    if kill is not None and "moment" in life:
        notes = NotesWithMoment(notes.path, life["moment"], commits, kill)
    elif kill is not None:
        commits.kill_at(*kill)
    if (seed := life.get("family")) is not None:
        if seed:
            await disturbed(life["url"], seed, commits)
        else:
            (folder / "outcome.json").write_text(json.dumps({"results": await settled(life["url"])}))
        return
    journal = Journal(life["url"])
    async with journal:
        if "die_after" in life:
            death = asyncio.create_task(has_records(journal, life["runs"][0], set(life["die_after"])))
            death.add_done_callback(lambda _: commits.kill())
        if life.get("timed"):
            await Timed(notes, journal=journal).run(run_id=life["runs"][0])
            return
        if life.get("journey"):
            (run_id,) = life["runs"]
            results = {run_id: await travel(Journey(notes, journal=journal), run_id)}
            (folder / "outcome.json").write_text(json.dumps({"results": results, "commits": commits.count}))
            return
        flow = Orders(notes, timeout=None, journal=journal)
        at_question = commits.kill if life.get("die_at_question") else None
        handlers = {handler.run_id: handler for handler in await flow.recover()} if life.get("recover") else {}
        results = await asyncio.gather(
            *(
                attend(
                    flow,
                    journal,
                    run_id,
                    laps=life.get("laps", 1),
                    handler=handlers.get(run_id),
                    at_question=at_question,
                )
                for run_id in life["runs"]
            )
        )
        outcome = {
            "results": dict(zip(life["runs"], results, strict=True)),
            "contexts": {run_id: (await journal.state(run_id)).context for run_id in life["runs"]},
            "streams": {run_id: [item async for item in read_stream(journal, run_id)] for run_id in life["runs"]},
            "recovered": sorted(handlers),
            "commits": commits.count,
            "pid": os.getpid(),
        }
    (folder / "outcome.json").write_text(json.dumps(outcome))


async def has_records(journal: Journal, run_id: str, kinds: set[str]) -> None:
    """Return as soon as the journal of a run has records of all these kinds."""
    while True:
        with contextlib.suppress(RunNotFoundError):
            if kinds <= {type(record.fact).__name__ for record in await journal.history(run_id)}:
                return
        await asyncio.sleep(0.005)


async def read_stream(journal: Journal, run_id: str) -> AsyncIterator[dict[str, Any]]:
    """Read a run's stream as another process would: with a cursor, going on anew behind every fourth item."""
    position = read = 0
    while True:
        async for item in journal.stream(run_id, after=position):
            position = item.position
            read += 1
            yield {
                "position": position,
                "step": item.step,
                "event": None if item.event is None else type(item.event).__name__,
                "fields": None if item.event is None else item.event.model_dump(),
                "reset_since": item.reset_since,
            }
            if read % 4 == 0:
                break
        else:
            return


def fork(life: Life) -> int:
    """Run one life in a child process; return its exit code, negative for the signal that killed it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        output = os.open(Path(life["folder"]) / "output.txt", os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
        asyncio.run(live(life))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve(url: str) -> None:
    statements.compile_for_forks(url)
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        print(fork(life_of(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
