"""Who owns a run: other loops, other processes, lost claims, forks, several loops one after another."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    Context,
    Event,
    Journal,
    JournalUnavailableError,
    NeedsAttentionError,
    RunConflictError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    step,
)
from durable_flow.engine.claims import Owners, growing_pauses
from durable_flow.engine.heart import Heart, Moment
from durable_flow.engine.identity import is_gone, is_here, new_worker
from durable_flow.incoming import AttentionNeeded
from durable_flow.journal.protocol import WorkerId
from durable_flow.journal.shared import StoreSettings
from durable_flow.records import RunClaimed, StepCompleted

from .conftest import Log
from .flows import Answer, Asking, Packed, Shop, question, records_of, released, streamed, until
from .owned import Owned

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def owner_process(url: str, run_id: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that owns a run which waits for an answer; it is killed at the end."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", Owned.__module__, url, run_id,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, cwd=ROOT,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        assert await child.stdout.readline() == b"waiting\n"
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGKILL)
        await child.wait()


# -- Other processes ---------------------------------------------------------------------------------------------------


async def test_a_run_that_is_live_in_another_process_is_attached_to(file: Journal, url: str) -> None:
    async with owner_process(url, "r") as child:
        flow = Owned(journal=url)
        handler = flow.run(run_id="r")
        asked = await question(handler)
        assert asked.text == "0?"
        for n in range(2):
            await handler.send_event(Answer(text=str(n), wait_id=asked.wait_id))
            asked = await question(handler) if n == 0 else asked
        assert await handler == ["0", "1"]
        assert flow.began == 0
        assert await records_of(file, "r", RunClaimed) == []
        assert await child.wait() == 0
        assert (await streamed(flow.run(run_id="r")))[-1] == StopEvent(result=["0", "1"])


async def test_a_run_whose_process_was_killed_goes_on_at_once(file: Journal, url: str) -> None:
    async with owner_process(url, "r") as child:
        flow = Owned(journal=url)
        handler = flow.run(run_id="r")
        asked = await question(handler)  # attached to the live run
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await handler.send_event(Answer(text="a", wait_id=asked.wait_id))
        second = await question(handler)
        await handler.send_event(Answer(text="b", wait_id=second.wait_id))
        assert await handler == ["a", "b"]
        assert flow.began == 1
        assert len(await records_of(file, "r", RunClaimed)) == 1


async def test_a_run_in_another_process_can_be_cancelled(file: Journal, url: str) -> None:
    async with owner_process(url, "r"):
        handler = await Owned(journal=url).resume("r")
        await handler.cancel_run(timeout=30)
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        assert (await file.run("r")).status == "cancelled"


async def test_recover_leaves_alone_what_another_process_owns(file: Journal, url: str) -> None:
    async with owner_process(url, "r") as child:
        flow = Owned(journal=url)
        assert await flow.recover() == []
        child.send_signal(signal.SIGKILL)
        await child.wait()
        (handler,) = await flow.recover()
        for _ in range(2):
            asked = await question(handler)
            await handler.send_event(Answer(text="x", wait_id=asked.wait_id))
        assert await handler == ["x", "x"]


async def test_recover_leaves_alone_the_run_of_a_worker_that_comes_up_while_it_looks(
    file: Journal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = file._shared.store
    list_runs = store.list_runs
    flow = Owned(journal=file)
    async with AsyncExitStack() as stack:

        async def late(**filters: Any) -> Any:
            monkeypatch.setattr(store, "list_runs", list_runs)
            await stack.enter_async_context(owner_process(url, "r"))
            return await list_runs(**filters)

        monkeypatch.setattr(store, "list_runs", late)
        assert await flow.recover() == []
        assert flow.began == 0


# -- Other loops of this process ---------------------------------------------------------------------------------------


async def test_a_run_that_is_live_in_another_loop_is_attached_to(file: Journal, url: str) -> None:
    waits, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    results: list[object] = []

    async def own() -> None:
        handler = Owned(journal=url).run(run_id="r")
        await question(handler)
        loop.call_soon_threadsafe(waits.set)
        results.append(await handler)
        loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=lambda: asyncio.run(own()))
    thread.start()
    await waits.wait()
    flow = Owned(journal=url)
    handler = flow.run(run_id="r")
    for n in range(2):
        asked = await question(handler)
        await handler.send_event(Answer(text=str(n), wait_id=asked.wait_id))
    assert await handler == ["0", "1"]
    await ended.wait()
    assert results == [["0", "1"]]
    assert flow.began == 0
    await asyncio.to_thread(thread.join)


class Counter(Workflow):
    """At module level, so that every loop and thread uses the same object."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Packed:
        ctx.data["n"] = ev.n
        await asyncio.sleep(0)
        return Packed(item="x")

    @step
    async def end(self, ctx: Context, ev: Packed) -> StopEvent:
        return StopEvent(result=ctx.data["n"])


def test_one_workflow_object_in_several_loops_one_after_another(url: str) -> None:
    flow = Counter(journal=url)

    async def use(n: int) -> list[int]:
        return await asyncio.gather(*(flow.run(run_id=f"{n}-{i}", n=i) for i in range(5)))

    for n in range(3):
        assert asyncio.run(use(n)) == [0, 1, 2, 3, 4]


def test_one_workflow_object_in_memory_in_several_loops_one_after_another() -> None:
    flow = Counter(journal=Journal("memory://"))

    async def use() -> int:
        return await flow.run(run_id="r", n=3)

    for _ in range(3):
        assert asyncio.run(use()) == 3


def test_one_workflow_object_in_two_threads_with_a_loop_each(url: str) -> None:
    flow = Counter(journal=url)
    barrier = threading.Barrier(2)
    results: dict[int, list[int]] = {}
    errors: list[BaseException] = []

    def use(thread: int) -> None:
        async def main() -> list[int]:
            barrier.wait()
            found = []
            for n in range(10):
                found += await asyncio.gather(*(flow.run(run_id=f"{thread}-{n}-{i}", n=i) for i in range(3)))
            return found

        try:
            results[thread] = asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert results == {0: [0, 1, 2] * 10, 1: [0, 1, 2] * 10}


def test_two_threads_that_run_one_id_make_one_run(url: str) -> None:
    flow = Counter(journal=url)
    barrier = threading.Barrier(2)
    results: list[list[int]] = []

    def use() -> None:
        async def main() -> list[int]:
            barrier.wait()
            return [await flow.run(run_id=f"r{n}", n=n) for n in range(10)]

        results.append(asyncio.run(main()))

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [list(range(10))] * 2

    async def completed() -> list[int]:
        async with Journal(url) as journal:
            return [len(await records_of(journal, f"r{n}", StepCompleted)) for n in range(10)]

    assert asyncio.run(completed()) == [2] * 10


# -- Lost claims -------------------------------------------------------------------------------------------------------


async def test_a_worker_that_lost_its_claim_drops_the_run_and_writes_nothing(file: Journal, log: Log) -> None:
    flow = Shop(journal=file, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    info = await file.run("r")
    row = await file._shared.store.find("r")
    thief = WorkerId("thief", "elsewhere", "another boot", "another namespace", 1, 1)
    await file._shared.store.heartbeat(thief)
    claim = await file._shared.store.claim(row.run, thief, epoch=row.epoch, status="running")
    flow.hold.set()
    (line,) = await log.seen("claim_lost")
    assert line.run_id == "r"
    info = await file.run("r")
    assert (info.owner, info.epoch, info.seq) == ("thief", claim.epoch, claim.seq)
    assert not handler.is_done()
    # Nobody else wrote to it, and as soon as the thief has gone the handler takes it up again.
    await file._shared.store.retire(thief)
    assert await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship", "ship"]


async def test_a_run_whose_last_records_the_database_lost_is_taken_up_again_by_its_own_engine(file: Journal) -> None:
    flow = Shop(journal=file, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    # A server that crashed without having synced its last commits is back with an older journal.
    live = handler._attachment.live()
    live.state.seq += 1
    flow.hold.set()
    assert await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship", "ship"]
    assert (await file.run("r")).epoch == 2


# -- Standing still ----------------------------------------------------------------------------------------------------


class Heartbeats:
    """A store's workers, and clocks for those who judge them; all that `Owners` sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.seconds = 0.0
        self.heartbeats: dict[WorkerId, int] = {}
        monkeypatch.setattr("durable_flow.engine.claims.time.monotonic", lambda: self.seconds)

    def now(self) -> int:
        return round(self.seconds * 1_000_000)

    async def workers(self) -> list[tuple[WorkerId, int]]:
        return list(self.heartbeats.items())

    def beat(self, worker: WorkerId) -> None:
        self.heartbeats[worker] = self.now()


ME = WorkerId("me", "here", "boot", "namespace", 1, 1)
FAR = WorkerId("far", "elsewhere", "another boot", "namespace", 1, 1)


@pytest.fixture
def heartbeats(monkeypatch: pytest.MonkeyPatch) -> Heartbeats:
    return Heartbeats(monkeypatch)


@pytest.fixture
def owners(heartbeats: Heartbeats) -> Owners:
    heartbeats.beat(FAR)
    return Owners(heartbeats, ME, heartbeat_seconds=5, expiry_seconds=30)  # type: ignore[arg-type]


async def test_an_owner_expires_when_its_heartbeat_stood_still_for_a_whole_expiry_of_looking(
    heartbeats: Heartbeats, owners: Owners
) -> None:
    for _ in range(31):
        gone = await owners.gone()
        assert not gone("far")
        heartbeats.seconds += 1
    assert (await owners.gone())("far")
    heartbeats.beat(FAR)
    assert not (await owners.gone())("far")


async def test_time_in_which_nobody_looked_expires_no_owner(heartbeats: Heartbeats, owners: Owners) -> None:
    await owners.gone()
    for _ in range(6):
        heartbeats.seconds += 1000
        assert not (await owners.gone())("far")
    # What was watched counts, of each gap one heartbeat interval.
    heartbeats.seconds += 1
    assert (await owners.gone())("far")


async def test_an_owner_whose_heartbeats_are_missing_is_in_doubt_until_it_beats_or_expires(
    heartbeats: Heartbeats, owners: Owners
) -> None:
    await owners.gone()
    assert not owners.in_doubt("far")
    heartbeats.seconds += 11
    await owners.gone()
    assert owners.in_doubt("far")
    heartbeats.beat(FAR)
    await owners.gone()
    assert not owners.in_doubt("far")
    for _ in range(7):
        heartbeats.seconds += 5
        gone = await owners.gone()
    assert gone("far")
    assert not owners.in_doubt("far")


def test_an_engine_of_a_process_with_the_same_pid_in_another_namespace_is_not_of_this_process() -> None:
    assert is_here(replace(ME, id="other loop", host="renamed"), ME)
    for there in (replace(ME, namespace="container"), replace(ME, boot="earlier"), replace(ME, started=2)):
        assert not is_here(there, ME)


def test_a_process_that_proc_does_not_show_but_that_exists_is_not_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = replace(new_worker("parent"), pid=os.getppid(), started=1)
    assert is_gone(parent)  # that pid is another process now

    def hidden(path: Path) -> str:
        raise FileNotFoundError(path)

    # As with /proc mounted with `hidepid`, for the processes of other users.
    monkeypatch.setattr(Path, "read_text", hidden)
    assert is_gone(parent) is None


def stand_still(flow: Workflow) -> None:
    """What a process finds when it goes on after it was stopped for long: its last heartbeat is long ago."""
    heart = flow._durable_engine()._heart
    assert heart is not None
    heart._beat_at = Moment(heart._beat_at.monotonic - 1000, heart._beat_at.wall - 1000)


async def test_an_engine_that_stood_still_stops_its_steps_and_goes_on_with_the_run_if_it_is_free(
    journal: Journal, log: Log
) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    flow.shipping.clear()
    stand_still(flow)
    await log.seen("lapsed")
    await flow.shipping.wait()
    flow.hold.set()
    assert await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship", "ship"]
    # It was given back, not taken from anybody.
    assert [fact.previous for fact in await records_of(journal, "r", RunClaimed)] == [None]


async def test_an_engine_that_stood_still_leaves_a_run_to_the_worker_that_has_taken_it(file: Journal, log: Log) -> None:
    flow = Shop(journal=file, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    store = file._shared.store
    row = await store.find("r")
    thief = WorkerId("thief", "elsewhere", "another boot", "another namespace", 1, 1)
    await store.heartbeat(thief)
    claim = await store.claim(row.run, thief, epoch=row.epoch, status="running")
    stand_still(flow)
    await log.seen("lapsed")
    flow.hold.set()
    await until(lambda: _beat_again(flow))
    info = await file.run("r")
    assert (info.owner, info.epoch, info.seq) == ("thief", claim.epoch, claim.seq)
    assert not handler.is_done()
    await store.retire(thief)
    assert await handler == "shipped 1 lamp"


async def _beat_again(flow: Workflow) -> bool:
    engine = flow._durable_engine()
    return not engine._heart.lapsed() and not engine.taking


async def test_a_lapse_lasts_until_the_loop_has_dropped_its_runs(memory: Journal) -> None:
    flow = Shop(journal=memory, hold=asyncio.Event())
    flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    told = asyncio.Event()
    heart = Heart(
        asyncio.get_running_loop(), memory._shared.store, ME, set, lapsed=told.set,
        heartbeat_seconds=0.01, expiry_seconds=50,
    )  # fmt: skip
    heart._beat_at = Moment(heart._beat_at.monotonic - 1000, heart._beat_at.wall)
    heart.start()
    try:
        await told.wait()

        async def beats_again() -> bool:
            return Moment.now().since(heart._beat_at) < 50

        await until(beats_again)
        assert heart.lapsed()
        heart.renew(Moment.now())
        assert not heart.lapsed()
    finally:
        heart.stop()


async def test_callers_are_told_when_the_database_takes_no_heartbeat_for_an_expiry(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Journal(url, heartbeat_seconds=0.1, expiry_seconds=0.6) as journal:
        flow = Shop(journal=journal, hold=asyncio.Event())
        handler = flow.run(run_id="r", item="lamp")
        await flow.shipping.wait()
        monkeypatch.setattr(journal._shared.store, "beat", lambda worker: False)
        with pytest.raises(JournalUnavailableError, match="no heartbeat reached"):
            await handler
        monkeypatch.undo()
        flow.hold.set()
        assert await flow.run(run_id="r", item="lamp") == "shipped 1 lamp"


async def test_callers_are_told_when_the_database_does_not_answer_after_standing_still(
    file: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Shop(journal=file, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()

    async def fails(worker: WorkerId) -> None:
        raise JournalUnavailableError("the disk is gone")

    monkeypatch.setattr(file._shared.store, "heartbeat", fails)
    stand_still(flow)
    with pytest.raises(JournalUnavailableError, match="the disk is gone"):
        await handler
    monkeypatch.undo()
    flow.hold.set()
    assert await flow.run(run_id="r", item="lamp") == "shipped 1 lamp"


async def test_what_is_sent_to_a_run_while_it_is_given_up_reaches_it_all_the_same(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    asked = await question(handler)
    sending = asyncio.create_task(handler.send_event(Answer(text="yes", wait_id=asked.wait_id)))
    await asyncio.sleep(0)  # handed to the run, which has not looked at it yet
    handler._attachment.live().release()
    await sending
    assert await handler == "yes"
    assert flow.ran == ["ask", "answered yes"]


# -- Claims that have to wait ------------------------------------------------------------------------------------------


class LockedFor:
    """Refuses claims so many times, as a store whose row of the run is locked by somebody for a moment."""

    def __init__(self, store: Any, times: int, monkeypatch: pytest.MonkeyPatch):
        self.times = times
        self.claims = 0
        self._claim = store.claim
        monkeypatch.setattr(store, "claim", self.claim)

    async def claim(self, *args: Any, **kwargs: Any) -> Any:
        self.claims += 1
        return None if self.claims <= self.times else await self._claim(*args, **kwargs)


@pytest.mark.parametrize("how", ["run", "resume", "recover"])
async def test_a_run_whose_row_is_locked_for_a_moment_is_taken_up_after_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    await released(handler)
    locked = LockedFor(journal._shared.store, 4, monkeypatch)
    flow.hold.set()
    if how == "run":
        again = flow.run(run_id="r", item="lamp")
    elif how == "resume":
        again = await flow.resume("r")
    else:
        (again,) = await flow.recover()
    assert await again == "shipped 1 lamp"
    assert locked.claims == 5


async def test_a_failed_run_whose_row_is_locked_for_a_moment_is_retried_after_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Shop(journal=journal, fail=ValueError("no truck"))
    with pytest.raises(ValueError, match="no truck"):
        await flow.run(run_id="r", item="lamp")
    locked = LockedFor(journal._shared.store, 3, monkeypatch)
    flow.fail = None
    assert await (await flow.retry("r")) == "shipped 1 lamp"
    assert locked.claims == 4


def test_pauses_grow_to_half_a_second() -> None:
    pauses = list(islice(growing_pauses(), 8))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.01, 0.5)


# -- Secrets -----------------------------------------------------------------------------------------------------------


def test_the_settings_of_a_store_show_no_password() -> None:
    settings = StoreSettings("postgresql://kim:secret@localhost/jobs", "normal", 5)
    assert "secret" not in repr(settings)
    assert "kim:***@localhost/jobs" in repr(settings)


# -- fork --------------------------------------------------------------------------------------------------------------

FORKS = """
import asyncio, os, sys
from durable_flow import Context, Journal, StartEvent, StopEvent, Workflow, step

class Work(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.data["n"] = ev.n
        return StopEvent(result=ev.n)

flow = Work(journal=sys.argv[1])

async def use(n):
    return await flow.run(run_id=f"{os.getpid()}-{n}", n=n)

def in_child():
    pid = os.fork()
    if pid == 0:
        try:
            ok = [asyncio.run(use(n)) for n in range(2)] == [0, 1]
        except BaseException as error:
            print("child:", repr(error), flush=True)
            ok = False
        os._exit(0 if ok else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

if sys.argv[2] == "before use":
    assert in_child() == 0
    assert asyncio.run(use(5)) == 5
else:
    assert asyncio.run(use(5)) == 5
    assert in_child() == 0
    assert asyncio.run(use(6)) == 6
print("fine")
"""


@pytest.mark.parametrize("when", ["before use", "after use"])
async def test_a_forked_child_opens_its_own_connections(url: str, when: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, url, when,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    output, _ = await process.communicate()
    assert output.decode() == "fine\n"
    async with Journal(url) as journal:
        runs = await journal.runs()
        assert {info.status for info in runs} == {"completed"}
        assert len(runs) == (3 if when == "before use" else 4)


async def test_an_event_class_of_the_main_program_is_found_by_its_name(file: Journal) -> None:
    class Local(Event):
        n: int

    class Uses(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Local:
            return Local(n=1)

        @step
        async def end(self, ev: Local) -> StopEvent:
            return StopEvent(result=ev)

    assert await Uses(journal=file).run(run_id="r") == Local(n=1)
    assert (await file.state("r")).result.result == Local(n=1)


async def test_a_heartbeat_that_is_under_way_does_not_bring_a_worker_back(
    new_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, go = threading.Event(), threading.Event()
    async with new_journal(heartbeat_seconds=0.02) as journal:
        flow = Shop(journal=journal)
        await flow.run(item="lamp")
        engine, store = flow._durable_engine(), journal._shared.store
        beat = store.beat

        def slow(worker: WorkerId) -> bool:
            under_way.set()
            go.wait()
            return beat(worker)

        monkeypatch.setattr(store, "beat", slow)
        await asyncio.to_thread(under_way.wait)
        closing = asyncio.ensure_future(engine._lifeline.aclose())
        await asyncio.wait({closing}, timeout=0.2)
        go.set()
        await closing
        assert engine._heart is not None
        await asyncio.to_thread(engine._heart.join)
        assert await store.workers() == []


# -- Rows that say less than the journal -------------------------------------------------------------------------------


class SecondTry(Workflow):
    """Fails at first; when it is retried it goes on until `hold` is set."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.hold, self.retried = asyncio.Event(), asyncio.Event()
        self.tries = 0

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        self.tries += 1
        if self.tries == 1:
            raise ValueError("not yet")
        self.retried.set()
        await self.hold.wait()
        return StopEvent(result="done")


async def test_whoever_read_that_a_run_has_failed_follows_it_if_it_was_retried_elsewhere_meanwhile(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Journal(url) as mine, Journal(url, heartbeat_seconds=4) as others:
        flow = SecondTry(journal=others)
        with pytest.raises(ValueError, match="not yet"):
            await flow.run(run_id="r")
        store = mine._shared.store
        failed = await store.find("r")
        assert failed is not None
        retried = await flow.retry("r")
        await flow.retried.wait()
        rows = [failed]
        find = store.find

        async def as_it_was_at_first(run_id: str) -> Any:
            return rows.pop() if rows else await find(run_id)

        monkeypatch.setattr(store, "find", as_it_was_at_first)
        handler = SecondTry(journal=mine).run(run_id="r")
        await handler._attachment.ready()
        flow.hold.set()
        assert await retried == "done"
        assert await handler == "done"
        assert flow.tries == 2


async def test_a_run_that_is_given_back_just_after_its_row_was_read_is_taken_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    await released(handler)
    store, taking = journal._shared.store, flow._durable_engine().taking
    find = store.find

    async def before_the_release(run_id: str) -> Any:
        monkeypatch.undo()
        row = await find(run_id)
        assert row is not None
        giving_up = taking.giving_up(run_id)
        if giving_up is not None:
            await asyncio.wait([giving_up])
        return row._replace(owner=flow._durable_engine().worker.id)

    monkeypatch.setattr(store, "find", before_the_release)
    flow.shipping.clear()
    second = await flow.resume("r")
    await flow.shipping.wait()
    flow.hold.set()
    assert await second == "shipped 1 lamp"


async def test_a_run_that_is_being_retried_is_not_taken_from_its_owner(url: str) -> None:
    async with Journal(url) as mine, Journal(url, heartbeat_seconds=4) as others:
        flow = SecondTry(journal=others)
        with pytest.raises(ValueError, match="not yet"):
            await flow.run(run_id="r")
        # As a retry leaves it for a moment: claimed, and not resumed yet.
        failed = await others._shared.store.find("r")
        assert failed is not None
        engine = flow._durable_engine()
        claim = await engine.store.claim(failed.run, engine.worker, epoch=failed.epoch, status=failed.status)
        assert claim is not None
        with pytest.raises(RunConflictError, match="by another worker"):
            await SecondTry(journal=mine).retry("r")
        assert (await mine.run("r")).epoch == claim.epoch
        handler = SecondTry(journal=mine).run(run_id="r")  # follows it
        await handler._attachment.ready()
        assert not handler.is_done()


@pytest.mark.parametrize("end", ["completed", "needs attention"])
async def test_a_run_that_came_to_rest_after_it_was_looked_at_is_not_claimed(
    url: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    async with Journal(url) as mine, Journal(url, heartbeat_seconds=4) as others:
        flow = Shop(journal=others, hold=asyncio.Event())
        handler = flow.run(run_id="r", item="lamp")
        await flow.shipping.wait()
        store = mine._shared.store
        running = await store.find("r")
        assert running is not None
        if end == "completed":
            flow.hold.set()
            assert await handler == "shipped 1 lamp"
        else:
            handler._attachment.live().accept(AttentionNeeded("look at it"))
            with pytest.raises(NeedsAttentionError):
                await handler
        rows = [running]
        find = store.find

        async def as_it_was_at_first(run_id: str) -> Any:
            return rows.pop() if rows else await find(run_id)

        async def everybody_is_gone(owners: Owners) -> Any:
            return lambda owner: True

        monkeypatch.setattr(store, "find", as_it_was_at_first)
        monkeypatch.setattr(Owners, "gone", everybody_is_gone)
        late = Shop(journal=mine).run(run_id="r", item="lamp")
        if end == "completed":
            assert await late == "shipped 1 lamp"
        else:
            with pytest.raises(NeedsAttentionError, match="look at it"):
                await late
        row = await find("r")
        assert row is not None
        assert (row.owner, row.epoch) == (None, running.epoch)
