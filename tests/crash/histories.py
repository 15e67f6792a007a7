"""What the parent does: lets processes live and die on one journal, and reads what they left."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from .databases import Database, Place
from .life import Life
from .processes import ENVIRONMENT

KILLED = -signal.SIGKILL
# A life spends some of its time on the disk, and other processes of pytest run beside this one.
SERVERS = 2


class Line(NamedTuple):
    """A line of the notes: one start of a step's body, or of a called function."""

    run_id: str
    what: str
    key: str
    attempt: int


class Row(NamedTuple):
    """A row of the table `journal`."""

    run_id: str
    seq: int
    kind: str
    task: int | None
    step: str | None
    name: str | None
    data: dict[str, Any]
    payload: bytes | None
    at: int


class Books:
    """A journal as plain SQL reads it."""

    def __init__(self, database: Database):
        rows, runs, snapshots, workers, messages = database.all_rows(
            [
                "SELECT run_id, seq, kind, task, step, name, data, payload, at FROM journal JOIN runs USING (run) "
                "ORDER BY run, seq",
                "SELECT run_id, status, owner FROM runs",
                "SELECT count(*) FROM snapshots",
                "SELECT pid FROM workers",
                "SELECT count(*) FROM messages WHERE consumed_seq IS NULL AND undelivered_at IS NULL",
            ]
        )
        self.rows = [Row(*row[:6], json.loads(row[6] or "{}"), row[7], row[8]) for row in rows]
        self.runs = {run_id: (status, owner) for run_id, status, owner in runs}
        [(self.snapshots,)] = snapshots
        self.worker_pids = [pid for (pid,) in workers]
        [(self.open_messages,)] = messages
        # What steps are called with: an event, or, for a join, what it has collected, under the name of its step.
        self._events = {(row.run_id, row.seq): row for row in self.rows if row.kind in ("EventEmitted", "JoinFired")}

    def of(self, run_id: str, kind: str) -> list[Row]:
        return [row for row in self.rows if row.run_id == run_id and row.kind == kind]

    def event_key(self, run_id: str, seq: int | None) -> str:
        """Return an event as the notes name it: its class and number."""
        assert seq is not None
        event = self._events[run_id, seq]
        return f"{event.name}:{_number(event.payload)}"

    def has_event(self, line: Line) -> bool:
        """Tell whether the event that a step was called with is there."""
        return any(
            row.run_id == line.run_id and f"{row.name}:{_number(row.payload)}" == line.key
            for row in self._events.values()
        )

    def over(self) -> set[Line]:
        """Return what must never run again: attempts that completed or failed, and calls with a recorded result."""
        done = set()
        for row in self.rows:
            if row.kind in ("StepCompleted", "StepFailed"):
                assert row.step is not None
                key = self.event_key(row.run_id, row.task)
                done.add(Line(row.run_id, row.step, key, row.data.get("attempt", 1)))
            elif row.kind == "CallRecorded":
                number = self.event_key(row.run_id, row.task).partition(":")[2] if row.name == "quote" else "0"
                done.add(Line(row.run_id, "call", f"{row.name}:{number}", 1))
        return done


def _number(payload: bytes | None) -> int:
    return int(json.loads(payload or b"{}").get("number", 0))


class Snapshot(NamedTuple):
    """What was there when a process had been killed."""

    books: Books
    lines: Counter[Line]


@dataclass
class History:
    """One journal with its notes, and what was found after each kill."""

    folder: Path
    database: Database
    snapshots: list[Snapshot] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)

    def ended(self, code: int) -> None:
        """Note how a process ended; if it was killed, look at what it left."""
        self.exits.append(code)
        if code == KILLED:
            self.database.come_to_rest()
            self.snapshots.append(Snapshot(self.books(), self.lines()))

    def books(self) -> Books:
        return Books(self.database)

    @cached_property
    def last_books(self) -> Books:
        """Its books once nothing more will happen to it."""
        return self.books()

    def lines(self) -> Counter[Line]:
        notes = self.folder / "notes.txt"
        text = notes.read_text() if notes.exists() else ""
        return Counter(Line(*parts[:3], int(parts[3])) for parts in map(str.split, text.splitlines()))

    def seen(self, run_id: str) -> list[tuple[int, dict[str, Any]]]:
        """Return what readers of a run's stream got, with the positions."""
        file = self.folder / "seen.txt"
        lines = [line.split(" ", 2) for line in file.read_text().splitlines()] if file.exists() else []
        return [(int(position), json.loads(fields)) for run, position, fields in lines if run == run_id]

    def output(self) -> str:
        output = self.folder / "output.txt"
        return output.read_text() if output.exists() else ""

    def outcome(self) -> dict[str, Any]:
        outcome: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        return outcome


class Server:
    """A process that forks lives; at first it uses a database of its own."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.life", url],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def live(self, life: Life) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(life) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def is_ready(self) -> None:
        """Return when it does not use its database any more."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._process.communicate()


class Laboratory:
    """Runs histories in a place, several at a time."""

    def __init__(self, folder: Path, place: Place):
        self.place = place
        self._folder = folder
        self._numbers = itertools.count(1)
        self._servers: SimpleQueue[Server] = SimpleQueue()
        self._all: list[Server] = []
        with ExitStack() as databases:
            for number in range(SERVERS):
                database = databases.enter_context(place.new(self._new_folder(f"server-{number}")))
                self._all.append(Server(database.url))
            for server in self._all:
                server.is_ready()
                self._servers.put(server)
        self._threads = ThreadPoolExecutor(SERVERS)

    def close(self) -> None:
        self._threads.shutdown()
        for server in self._all:
            server.close()

    @contextmanager
    def new_history(self) -> Iterator[History]:
        """Give a history with an empty journal, which is there for the block only; its books may be read before."""
        folder = self._new_folder(f"history-{next(self._numbers)}")
        with self.place.new(folder) as database:
            yield History(folder, database)

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def live(self, history: History, runs: Sequence[str], **more: Any) -> int:
        """Let one process live, and return how it ended."""
        server = self._servers.get()
        try:
            life = Life(folder=str(history.folder), url=history.database.url, runs=list(runs), **more)
            code = server.live(life)
        finally:
            self._servers.put(server)
        history.ended(code)
        return code

    def each(self, work: Any, cases: Sequence[Any]) -> list[Any]:
        """Do the work for every case, several at a time; return what came of them, in order."""
        return list(self._threads.map(work, cases))


@contextmanager
def laboratory(folder: Path, place: Place) -> Iterator[Laboratory]:
    lab = Laboratory(folder, place)
    try:
        yield lab
    finally:
        lab.close()
