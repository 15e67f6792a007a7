"""Random histories: every store gives the outcomes and shows the rows that the memory store does."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import Server, new_database

from durable_flow.errors import DurableFlowError
from durable_flow.journal.memory import MemoryStore
from durable_flow.journal.protocol import Append, JournalStore, NewMessage, RunRow, RunUpdate
from durable_flow.records import (
    ErrorInfo,
    Fact,
    MessageReceived,
    Record,
    RunCancelled,
    RunClaimed,
    RunCompleted,
    RunFailed,
    RunResumed,
    StreamPublished,
    StreamReset,
    TaskId,
    WaitAnswered,
    WaitClosed,
    WaitTimedOut,
)

from .conftest import postgres_store, sqlite_store
from .samples import asks, event, numbered, try_create, value, worker, wrote

TASK = TaskId(1, "a")
WORKERS = (worker("w0"), worker("w1"))
CREATES = [("create", run_id, WORKERS[0], "running") for run_id in ("run-0", "run-1")]

run_ids = st.sampled_from(("run-0", "run-0", "run-0", "run-1", "run-2"))
workers = st.sampled_from(WORKERS)
# Mostly right, sometimes one off: what is always refused tells little.
off_by = st.sampled_from([0, 0, 0, 0, 0, -1, 1])
names = st.sampled_from(["Answer", "Other"])
waits = st.integers(0, 2)  # the n-th wait of the run, if there is one


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """A choice of these strategies, each as often as its weight says."""
    return st.sampled_from([s for weight, s in choices for _ in range(weight)]).flatmap(lambda chosen: chosen)


kinds = weighted(
    (1, st.tuples(st.just("wrote"), st.binary(max_size=8))),
    (1, st.tuples(st.just("asks"), names, st.booleans(), st.booleans())),
    (2, st.tuples(st.just("asks"), names, st.just(False), st.booleans())),
    (4, st.tuples(st.just("settles"), st.sampled_from([WaitAnswered, WaitTimedOut, WaitClosed]), waits)),
    (1, st.tuples(st.just("publishes"), st.integers(1, 3))),
    (1, st.tuples(st.just("resets"))),
    (1, st.tuples(st.just("resumes"))),
    (2, st.tuples(st.just("receives"), st.integers(0, 2))),
)
ends = st.sampled_from([RunCompleted(event(), None), RunFailed(ErrorInfo("E", "m"), None), RunCancelled("")])
times = st.none() | st.integers(0, 9)
errors = st.none() | st.just("error")
updates = weighted(
    (2, st.none()),
    (3, st.builds(RunUpdate, st.sampled_from(["running", "waiting"]), times, errors, st.booleans())),
    (1, st.builds(RunUpdate, st.just("completed"), st.none(), errors, st.just(True))),
)
mail = st.none() | st.integers(0, 3)
operations = weighted(
    (2, st.tuples(st.just("create"), run_ids, workers, st.sampled_from(["running", "pending"]))),
    (10, st.tuples(st.just("append"), run_ids, off_by, off_by, st.lists(kinds, min_size=1, max_size=4), updates)),
    (10, st.tuples(st.just("send"), run_ids, names, mail, st.none() | waits, st.booleans())),
    (4, st.tuples(st.just("claim"), run_ids, workers, off_by)),
    (2, st.tuples(st.just("release"), run_ids, off_by, times)),
    (1, st.tuples(st.just("end"), run_ids, ends)),
    (1, st.tuples(st.just("cancel"), run_ids)),
    (1, st.tuples(st.just("retire"), workers)),
    (2, st.tuples(st.just("read"), run_ids, st.integers(0, 9), st.none() | st.integers(0, 12), st.integers(0, 6))),
)
histories = st.lists(operations, min_size=10, max_size=50)


class Driver:
    """Does one random operation after the other to a store.

    It counts seqs and epochs by itself, from outcomes alone, so that two stores with the same outcomes are asked
    the same.
    """

    def __init__(self, store: JournalStore):
        self.store = store
        self.runs: dict[str, int] = {}
        self.head: Counter[str] = Counter()
        self.epoch: Counter[str] = Counter()
        self.position: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.time = 1_700_000_000_000_000

    async def do(self, operation: tuple[Any, ...]) -> object:
        """Return the outcome, comparable between stores: a result, or the class of the error."""
        name, *arguments = operation
        self.time += 1
        method: Callable[..., Awaitable[object]] = getattr(self, name)
        if name not in ("create", "retire") and arguments[0] not in self.runs:
            return "no such run"
        try:
            return await method(*arguments)
        except DurableFlowError as error:
            return type(error).__name__

    async def create(self, run_id: str, owner: Any, status: str) -> object:
        claim = await try_create(self.store, run_id, status=status, owner=owner)
        if claim is None:
            return "taken"
        self.runs[run_id], self.head[run_id], self.epoch[run_id] = claim.run, claim.seq, claim.epoch
        return claim.run_id, claim.uid, claim.epoch, claim.seq

    async def append(self, run_id: str, seq_off: int, epoch_off: int, what: list[Any], update: Any) -> None:
        position, opened = self.position[run_id], self.waits[run_id]
        facts: list[Fact] = []
        for kind, *arguments in what:
            match kind:
                case "wrote":
                    facts.append(wrote("n", arguments[0]))
                case "asks":
                    wanted, strict, human = arguments
                    # Names that do not sort in the order of their opening.
                    wait = asks(f"wait-{9 - opened}", wanted, human=human, requirements=value() if strict else None)
                    facts.append(wait)
                    opened += 1
                case "settles":
                    facts.append(arguments[0](f"wait-{9 - arguments[1]}"))
                case "publishes":
                    items = tuple(event("Item", b"%d" % n) for n in range(arguments[0]))
                    digests = tuple(str(n) for n in range(len(items)))
                    facts.append(StreamPublished(position + 1, digests, TASK, 1, position, items))
                    position += len(items)
                case "resets":
                    facts.append(StreamReset(TASK, 1, 0, position + 1, 1))
                    position += 1
                case "resumes":
                    facts.append(RunResumed("someone"))
                case "receives":
                    rows = await self.store.messages([self.runs[run_id]])
                    facts += [MessageReceived(row.id, row.message_id, row.kind) for row in rows[: arguments[0]]]
        if update is not None and update.status == "completed":
            facts.append(RunCompleted(event(), None))
        if opened <= 10 and facts:
            await self._append(run_id, facts, update, seq_off, epoch_off)
            self.position[run_id], self.waits[run_id] = position, opened

    async def end(self, run_id: str, fact: Fact) -> None:
        status = {RunCompleted: "completed", RunFailed: "failed", RunCancelled: "cancelled"}[type(fact)]
        await self._append(run_id, [fact], RunUpdate(status, release=True))

    async def _append(
        self, run_id: str, facts: list[Fact], update: RunUpdate | None, seq_off: int = 0, epoch_off: int = 0
    ) -> None:
        after, epoch = self.head[run_id] + seq_off, self.epoch[run_id] + epoch_off
        records = numbered(facts, after=after, at=self.time)
        await self.store.append(Append(self.runs[run_id], run_id, after, epoch, records, update))
        self.head[run_id] += len(facts)

    async def claim(self, run_id: str, owner: Any, epoch_off: int) -> object:
        row = await self.store.find(run_id)
        assert row is not None
        epoch = self.epoch[run_id] + epoch_off
        claim = await self.store.claim(self.runs[run_id], owner, epoch=epoch, status=row.status)
        if claim is None:
            return "somebody else's"
        self.head[run_id], self.epoch[run_id] = claim.seq, claim.epoch
        return claim.run_id, claim.uid, claim.epoch, claim.seq

    async def release(self, run_id: str, epoch_off: int, wake_at: int | None) -> None:
        await self.store.release(self.runs[run_id], self.epoch[run_id] + epoch_off, "waiting", wake_at)

    async def send(self, run_id: str, name: str, message_id: int | None, wait: int | None, human: bool) -> bool:
        wait_id = None if wait is None else f"wait-{9 - wait}"
        mail = None if message_id is None else f"mail-{message_id}"
        message = NewMessage("event", mail, event(name), wait_id, human=human)
        return await self.store.send(self.runs[run_id], message)

    async def cancel(self, run_id: str) -> bool:
        return await self.store.send(self.runs[run_id], NewMessage("cancel", reason="stop"))

    async def retire(self, owner: Any) -> None:
        await self.store.heartbeat(owner)
        await self.store.retire(owner)

    async def read(self, run_id: str, after: int, to: int | None, limit: int) -> object:
        return [_comparable(r) for r in await self.store.read(self.runs[run_id], after, to, limit)]

    async def everything(self) -> dict[str, object]:
        """Return all that the store shows, without the keys and times that it chose."""
        by_key = {key: run_id for run_id, key in self.runs.items()}
        shown: dict[str, object] = {
            "runs": [_comparable_run(row) for row in await self.store.list_runs()],
            "unfinished": [row.run_id for row in await self.store.list_runs(unfinished=True)],
            "waits": [row[1:] for row in await self.store.waits()],
            "human": [row[1:] for row in await self.store.waits(human=True)],
            "messages": [
                (by_key[row.run], _name(row.message_id), *row[3:]) for row in await self.store.messages(list(by_key))
            ],
        }
        for owner in WORKERS:
            shown[f"mail of {owner.id}"] = sorted(by_key[run] for run in await self.store.waiting_messages(owner))
        for key, run_id in by_key.items():
            shown[run_id] = [_comparable(record) for record in await self.store.read(key)]
            shown[f"stream of {run_id}"] = await self.store.stream(key)
            shown[f"waits of {run_id}"] = [row[1:] for row in await self.store.waits(key)]
        return shown


def _name(message_id: str | None) -> str | None:
    """Names that a store gave at random are as good as none."""
    return message_id if message_id is not None and message_id.startswith("mail-") else None


def _comparable(record: Record) -> Record:
    if isinstance(record.fact, MessageReceived):
        return record._replace(fact=record.fact._replace(row=0, message_id=_name(record.fact.message_id)))
    # Created and claimed are runs at the store's time; the driver says all others.
    return record._replace(at=0) if record.seq == 1 or isinstance(record.fact, RunClaimed) else record


def _comparable_run(row: RunRow) -> RunRow:
    return row._replace(run=0, created_at=0, updated_at=0, finished_at=row.finished_at and 1)


async def _compare(store: JournalStore, history: list[tuple[Any, ...]]) -> None:
    model, tested = Driver(MemoryStore()), Driver(store)
    await model.store.open()
    await tested.store.open()
    try:
        for operation in [*CREATES, *history]:
            assert await tested.do(operation) == await model.do(operation), operation
        assert await tested.everything() == await model.everything()
    finally:
        await tested.store.close()


@settings(max_examples=60)
@given(histories)
def test_random_operations_have_the_same_effect_on_sqlite_as_in_memory(
    sqlite_template: Path, history: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(sqlite_template, folder, dirs_exist_ok=True)
        asyncio.run(_compare(sqlite_store(Path(folder) / "jobs.db"), history))


@settings(max_examples=40)
@given(histories)
def test_random_operations_have_the_same_effect_on_postgres_as_in_memory(
    postgres_server: Server, postgres_template: str, history: list[tuple[Any, ...]]
) -> None:
    with new_database(postgres_server, postgres_template) as name:
        asyncio.run(_compare(postgres_store(postgres_server.url(name)), history))
