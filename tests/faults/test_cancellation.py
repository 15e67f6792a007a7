"""Every await of the public API, cancelled at each suspension: nothing is torn, lost, doubled or left behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    Context,
    Event,
    InputRequiredEvent,
    Journal,
    JournalUnavailableError,
    RunFinishedError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowHandler,
    step,
)
from durable_flow.engine import engine as engines
from durable_flow.journal.protocol import FINAL_STATUSES, MessageRow
from durable_flow.journal.sqlite import SqliteStore

from .cancellation import (
    Cancelled,
    Ended,
    Leftovers,
    Outcome,
    Point,
    cancelled_at,
    cancelled_at_every_point,
    eventually,
)


class Note(Event):
    text: str


class Begin(Event):
    pass


class Close(Event):
    pass


class Notes(Workflow):
    """Collects notes until it is closed; its result is what was noted, in order. `broken`: closing it fails."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "Notes", **kwargs})
        self.broken = False
        self.open = asyncio.Event()
        self.open.set()

    @step
    async def begin(self, ev: StartEvent) -> InputRequiredEvent | Note | Begin | Close:
        return InputRequiredEvent(prefix="what shall be noted?")

    @step
    async def noted(self, ctx: Context, ev: Note) -> Close | None:
        ctx.data["notes"] = [*ctx.data.get("notes", []), ev.text]
        ctx.write_event_to_stream(ev)
        return None

    @step
    async def worked(self, ev: Begin) -> Note:
        await self.open.wait()
        return Note(text="worked")

    @step
    async def closed(self, ctx: Context, ev: Close) -> StopEvent:
        if self.broken:
            raise ValueError("broken")
        return StopEvent(result=ctx.data.get("notes", []))


class World:
    """A journal, a workflow on it, and runs in every state."""

    def __init__(self, journal: Journal, url: str):
        self.journal = journal
        self.url = url
        self.flow = Notes(journal=journal)
        self._ids = count(1)

    async def live(self, *notes: str) -> WorkflowHandler:
        """Return a run that waits in this process."""
        handler = self.flow.run(run_id=f"run-{next(self._ids)}")
        for text in notes:
            await handler.send_event(Note(text=text))
        await eventually(lambda: self.is_idle(handler.run_id), f"{handler.run_id} is parked")
        return handler

    async def is_idle(self, run_id: str) -> bool:
        return any(run.run_id == run_id and run.status != "running" for run in await self.journal.runs(limit=1000))

    async def released(self, *notes: str) -> str:
        """Return a run that waits and that nobody owns."""
        handler = await self.live(*notes)
        await self.release(handler)
        return handler.run_id

    async def interrupted(self) -> str:
        """Return a run that was in the middle of a step and that nobody owns."""
        self.flow.open.clear()
        handler = await self.live()
        await handler.send_event(Begin())
        await self.release(handler)
        self.flow.open.set()
        return handler.run_id

    async def failed(self) -> str:
        """Return a run that has failed and could be retried."""
        self.flow.broken = True
        handler = await self.live("a")
        await handler.send_event(Close())
        with pytest.raises(ValueError, match="broken"):
            await handler
        self.flow.broken = False
        return handler.run_id

    async def release(self, handler: WorkflowHandler) -> None:
        waiting = asyncio.ensure_future(handler)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await self.nobodys(handler.run_id)

    async def nobodys(self, run_id: str) -> None:
        async def is_so() -> bool:
            return (await self.journal.run(run_id)).owner is None

        await eventually(is_so, f"{run_id} is given back")

    async def closes(self, run_id: str) -> list[str]:
        """Close a run in this process, whoever has it, and return its notes: nothing stands in its way."""
        await self.nothing_is_stuck()
        async with asyncio.timeout(30):
            handler = await self.flow.resume(run_id)
            await eventually(lambda: self.is_idle(run_id), f"{run_id} is parked")
            # Messages are taken in their order: after those that came this way before.
            with contextlib.suppress(RunFinishedError):
                await self.journal.send(run_id, Close())
            notes: list[str] = await handler
        await self.is_whole(run_id)
        return notes

    async def nothing_is_stuck(self) -> None:
        """What was begun for those who were cancelled comes to its end; then what an engine owns is live in it."""
        mine = {e.worker.id: e for e in engines._engines.get(asyncio.get_running_loop(), {}).values()}

        async def is_so() -> bool:
            rows = [row for row in await self.journal.runs(limit=1000) if row.status not in FINAL_STATUSES]
            stuck = [row for row in rows if row.owner in mine and row.run_id not in mine[row.owner].runs]
            return not stuck and not any(engine._background for engine in mine.values())

        await eventually(is_so, "nothing is under way, and what this process owns is live in it")

    async def is_whole(self, run_id: str) -> None:
        """The run's records are numbered without a gap, its groups are complete, and they fold."""
        records = await self.journal.history(run_id)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert records[-1].boundary
        assert (await self.journal.state(run_id)).seq == len(records)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'runs.db'}"


Case = Callable[[World, Point], Awaitable[Outcome]]


@pytest.fixture
def backends(url: str, request: pytest.FixtureRequest) -> Callable[[], int]:
    """Count the connections to the test's database, where others can be asked for that."""
    if not url.startswith("postgresql"):
        return lambda: 0
    server = request.getfixturevalue("postgres_server")
    name = url.partition("?")[0].rpartition("/")[2]
    asked = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    return lambda: int(server.execute(asked)[0][0])


@pytest.fixture
def everywhere(url: str, backends: Callable[[], int]) -> Callable[[Case], None]:
    """Go through a case on each kind of database in a loop of its own, at every point, and look what is left."""

    async def main(case: Case) -> None:
        async with asyncio.timeout(120), Journal(url, durability="normal") as journal:
            world = World(journal, url)
            points = await cancelled_at_every_point(functools.partial(case, world))
            # What is only kept in memory can be looked at without a pause.
            assert points > 0 or url == "memory://"
            await world.nothing_is_stuck()

    def go(case: Case) -> None:
        Leftovers().run(main(case))
        assert backends() == 0

    return go


# -- Journal -----------------------------------------------------------------------------------------------------------

READS: dict[str, Callable[[Journal, str], Coroutine[Any, Any, Any]]] = {
    "runs": lambda journal, run_id: journal.runs(),
    "run": lambda journal, run_id: journal.run(run_id),
    "history": lambda journal, run_id: journal.history(run_id),
    "state": lambda journal, run_id: journal.state(run_id),
    "pending": lambda journal, run_id: journal.pending(),
}


@pytest.mark.parametrize("read", READS)
def test_a_look_into_the_journal_leaves_nothing_behind(read: str, everywhere: Callable[[Case], None]) -> None:
    runs: list[str] = []

    async def case(world: World, point: Point) -> Outcome:
        if not runs:
            runs.append(await world.released("a"))
        run_id = runs[0]
        seen = await READS[read](world.journal, run_id)
        outcome = await cancelled_at(point, READS[read](world.journal, run_id))
        assert seen
        assert await READS[read](world.journal, run_id) == seen
        return outcome

    everywhere(case)


def test_opening_and_closing_a_journal_leaves_nothing_behind(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        async def used() -> None:
            # Other settings: a store of its own.
            async with Journal(world.url, max_payload_bytes=1 << 19) as journal:
                await journal.runs()

        outcome = await cancelled_at(point, used())
        await used()
        return outcome

    everywhere(case)


def test_a_stream_that_was_broken_off_is_read_again_without_a_gap(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        handler = await world.live("a")

        async def read() -> list[int]:
            async with contextlib.aclosing(world.journal.stream(handler.run_id)) as items:
                return [(await anext(items)).position for _ in range(3)]

        sending = asyncio.create_task(handler.send_event(Note(text="b")))
        outcome = await cancelled_at(point, read())
        await sending
        assert await read() == [1, 2, 3]
        assert await world.closes(handler.run_id) == ["a", "b"]
        return outcome

    everywhere(case)


@pytest.mark.parametrize("message_id", [None, "m"])
@pytest.mark.parametrize("where", ["live", "released"])
def test_what_is_sent_through_the_journal_arrives_once_or_not_at_all(
    where: str, message_id: str | None, everywhere: Callable[[Case], None]
) -> None:
    async def case(world: World, point: Point) -> Outcome:
        run_id = await world.released() if where == "released" else (await world.live()).run_id
        note = Note(text="n")
        outcome = await cancelled_at(point, world.journal.send(run_id, note, message_id=message_id))
        if message_id is not None:
            again = await world.journal.send(run_id, note, message_id=message_id)
            assert outcome == Cancelled() or (outcome.result, again) == (True, False)
        notes = await world.closes(run_id)
        told = message_id is not None or isinstance(outcome, Ended)
        assert notes == ["n"] if told else notes in ([], ["n"])
        return outcome

    everywhere(case)


def test_a_cancellation_through_the_journal_is_whole_or_was_not_sent(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        run_id = await world.released("a")
        outcome = await cancelled_at(point, world.journal.cancel(run_id))
        if isinstance(outcome, Cancelled):
            await world.journal.cancel(run_id)
        with pytest.raises(WorkflowCancelledByUser):
            await (await world.flow.resume(run_id))
        await world.is_whole(run_id)
        return outcome

    everywhere(case)


# -- Workflow ----------------------------------------------------------------------------------------------------------


def test_a_run_whose_starter_was_cancelled_goes_on_or_begins_anew(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        run_id = f"started-{point.at}-{point.late}"

        async def start() -> None:
            await world.flow.run(run_id=run_id).send_event(Note(text="n"))

        outcome = await cancelled_at(point, start())
        await world.flow.run(run_id=run_id).send_event(Note(text="last"))
        notes = await world.closes(run_id)
        assert notes == ["n", "last"] if isinstance(outcome, Ended) else notes in (["n", "last"], ["last"])
        return outcome

    everywhere(case)


def test_a_first_run_that_opens_the_database_can_be_cancelled(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        # Another heartbeat: an engine of its own, which has to be made ready.
        flow = Notes(journal=Journal(world.url, heartbeat_seconds=3 + point.at / 64 + point.late))
        run_id = f"first-{point.at}-{point.late}"

        async def use() -> list[str]:
            handler = flow.run(run_id=run_id)
            await handler.send_event(Close())
            notes: list[str] = await handler
            return notes

        outcome = await cancelled_at(point, use())
        with contextlib.suppress(RunFinishedError):
            await use()
        assert await flow.run(run_id=run_id) == []
        return outcome

    everywhere(case)


@pytest.mark.parametrize("state", ["released", "interrupted"])
def test_a_run_whose_resumer_was_cancelled_is_given_back_and_can_be_resumed(
    state: str, everywhere: Callable[[Case], None]
) -> None:
    async def case(world: World, point: Point) -> Outcome:
        run_id: str = await getattr(world, state)()
        outcome = await cancelled_at(point, world.flow.resume(run_id))
        await world.nothing_is_stuck()
        if isinstance(outcome, Cancelled):
            await world.nobodys(run_id)
        assert await world.closes(run_id) == (["worked"] if state == "interrupted" else [])
        return outcome

    everywhere(case)


def test_a_failed_run_whose_retrier_was_cancelled_can_be_retried(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        run_id = await world.failed()
        outcome = await cancelled_at(point, world.flow.retry(run_id))
        await world.nothing_is_stuck()
        if isinstance(outcome, Cancelled):
            await world.nobodys(run_id)
            if (await world.journal.run(run_id)).status == "failed":
                await world.flow.retry(run_id)
        assert await world.closes(run_id) == ["a"]
        return outcome

    everywhere(case)


def test_runs_whose_recoverer_was_cancelled_go_on_or_can_be_recovered(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        runs = [await world.interrupted() for _ in range(3)]
        outcome = await cancelled_at(point, world.flow.recover())
        await world.nothing_is_stuck()
        await world.flow.recover()
        assert [await world.closes(run_id) for run_id in runs] == [["worked"]] * 3
        return outcome

    everywhere(case)


async def test_a_run_that_cannot_be_read_after_its_claim_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreadable(SqliteStore):
        async def messages(self, runs: Sequence[int]) -> list[MessageRow]:
            monkeypatch.undo()
            raise JournalUnavailableError("not now")

    async with Journal(f"sqlite:///{tmp_path / 'runs.db'}") as journal:
        world = World(journal, "")
        run_id = await world.released("a")
        monkeypatch.setattr(SqliteStore, "messages", Unreadable.messages)
        with pytest.raises(JournalUnavailableError, match="not now"):
            await world.flow.resume(run_id)
        await world.nobodys(run_id)
        assert await world.closes(run_id) == ["a"]


# -- Handler -----------------------------------------------------------------------------------------------------------


async def awaited(handler: WorkflowHandler) -> Any:
    return await handler


async def streamed(handler: WorkflowHandler) -> list[Event]:
    return [event async for event in handler.stream_events(after=0)]


ENDS: dict[str, Callable[[WorkflowHandler], Coroutine[Any, Any, Any]]] = {
    "await": awaited,
    "stop_event_result": lambda handler: handler.stop_event_result(),
    "stream_events": streamed,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["live", "released"])
def test_a_run_ends_although_who_waits_for_it_is_cancelled(
    end: str, where: str, everywhere: Callable[[Case], None]
) -> None:
    async def case(world: World, point: Point) -> Outcome:
        handler = await world.live("a")
        if where == "released":
            await world.release(handler)
        sending = asyncio.create_task(handler.send_event(Close()))
        outcome = await cancelled_at(point, ENDS[end](handler))
        await sending
        assert await world.closes(handler.run_id) == ["a"]
        await ENDS[end](handler)
        return outcome

    everywhere(case)


@pytest.mark.parametrize("where", ["live", "released"])
def test_what_is_sent_by_a_handler_arrives_once_or_not_at_all(where: str, everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        handler = await world.live()
        if where == "released":
            await world.release(handler)
        outcome = await cancelled_at(point, handler.send_event(Note(text="n")))
        notes = await world.closes(handler.run_id)
        assert notes == ["n"] if isinstance(outcome, Ended) else notes in ([], ["n"])
        return outcome

    everywhere(case)


def test_what_is_sent_by_a_handlers_context_arrives_once_or_not_at_all(everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        handler = await world.live()

        async def send_and_wait() -> Any:
            handler.ctx.send_event(Note(text="n"))
            handler.ctx.send_event(Close())
            return await handler

        outcome = await cancelled_at(point, send_and_wait())
        assert await world.closes(handler.run_id) in ([], ["n"])
        assert outcome == Cancelled() or outcome.result == ["n"]
        return outcome

    everywhere(case)


def test_what_a_handlers_context_sends_to_a_run_that_is_being_released_arrives(url: str) -> None:
    async def main() -> None:
        async with Journal(url, durability="normal") as journal:
            world = World(journal, url)
            handler = await world.live()
            waiting = asyncio.ensure_future(handler)
            await asyncio.sleep(0)
            waiting.cancel()
            # The run takes it, and is released before it has recorded it.
            handler.ctx.send_event(Note(text="n"))
            await asyncio.wait([waiting])
            assert await world.closes(handler.run_id) == ["n"]

    Leftovers().run(main())


@pytest.mark.parametrize("where", ["live", "released"])
def test_a_run_is_cancelled_by_the_next_one_who_asks(where: str, everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        handler = await world.live("a")
        if where == "released":
            await world.release(handler)
        outcome = await cancelled_at(point, handler.cancel_run())
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        await world.is_whole(handler.run_id)
        return outcome

    everywhere(case)


# -- Context -----------------------------------------------------------------------------------------------------------


async def edited(ctx: Context) -> None:
    async with ctx.store.edit_state() as state:
        await asyncio.sleep(0)
        state["notes"] = ["n"]


async def locked(ctx: Context) -> None:
    async with ctx.lock:
        await asyncio.sleep(0)
        ctx.data["notes"] = ["n"]


WRITES: dict[str, Callable[[Context], Coroutine[Any, Any, Any]]] = {
    "set": lambda ctx: ctx.set("notes", ["n"]),
    "store.set": lambda ctx: ctx.store.set("notes", ["n"]),
    "edit_state": edited,
    "lock": locked,
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_from_outside_that_is_cancelled_bars_no_other(write: str, everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        handler = await world.live()

        async def two() -> None:
            # One of them waits for the other.
            await asyncio.gather(edited(handler.ctx), WRITES[write](handler.ctx))

        outcome = await cancelled_at(point, two())
        await WRITES[write](handler.ctx)
        assert await world.closes(handler.run_id) == ["n"]
        return outcome

    everywhere(case)


class Inside(Workflow):
    """A step that is cancelled in the middle of one of its context's methods, and then does the same in peace."""

    def __init__(self, use: str, **kwargs: Any):
        super().__init__(workflow_name="Inside", **kwargs)
        self.use = use
        self.point = Point(1, False)
        self.outcome: Outcome | None = None

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.outcome = await cancelled_at(self.point, USES[self.use](ctx, "first"))
        return StopEvent(result=await USES[self.use](ctx, "second"))


async def answer() -> int:
    return 42


async def waited(ctx: Context, name: str) -> str:
    question = InputRequiredEvent(prefix=name)
    return (await ctx.wait_for_event(Note, question, waiter_id=name, requirements={"text": name})).text


USES: dict[str, Callable[[Context, str], Coroutine[Any, Any, Any]]] = {
    "call": lambda ctx, name: ctx.call(name, answer),
    "sleep": lambda ctx, name: ctx.sleep(0.001),
    "checkpoint": lambda ctx, name: ctx.checkpoint(name),
    "edit_state": lambda ctx, name: edited(ctx),
    "lock": lambda ctx, name: locked(ctx),
    "wait_for_event": waited,
}
RESULTS = {"call": 42, "wait_for_event": "second"}


@pytest.mark.parametrize("use", USES)
def test_a_step_goes_on_after_a_part_of_it_was_cancelled(use: str, everywhere: Callable[[Case], None]) -> None:
    async def case(world: World, point: Point) -> Outcome:
        flow = Inside(use, journal=world.journal)
        flow.point = point
        handler = flow.run()
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                await handler.send_event(Note(text=event.prefix))
        assert await handler == RESULTS.get(use)
        await world.is_whole(handler.run_id)
        assert flow.outcome is not None
        return flow.outcome

    everywhere(case)
