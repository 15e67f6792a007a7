"""`flow.replay`: today's code against recorded history. It finds what is different, and leaves no trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, Field

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Divergence,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    ReplayReport,
    Resource,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    catch_error,
    step,
)
from durable_flow.engine.replaying.report import NOTHING
from durable_flow.records import ContextSpliced, EventEmitted, StepCompleted, WaitClosed, WaitOpened

from .flows import Answer, Question, recorded
from .owned import Owned


class RpStart(StartEvent):
    n: int = 3


class RpPart(Event):
    n: int


class RpSent(Event):
    n: int


class RpLeft(Event):
    n: int


class RpRight(Event):
    n: int


class RpScored(Event):
    score: float
    names: list[str] = Field(default_factory=list)
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    key: UUID = Field(default_factory=uuid4)


class RpItem(Event):
    text: str


class RpAsk(InputRequiredEvent):
    text: str


class RpReply(HumanResponseEvent):
    text: str


class RpState(BaseModel):
    total: int = 0
    seen: list[int] = []
    notes: dict[str, Any] = {}


async def one(flow: Workflow, **arguments: Any) -> str:
    """Run to the end, answering every question, and return the run id."""
    handler = flow.run(**arguments)
    async for event in handler.stream_events():
        if isinstance(event, RpAsk):
            await handler.send_event(RpReply(text=f"re {event.text}", wait_id=event.wait_id))
    await handler
    return handler.run_id


def only(report: ReplayReport) -> Divergence:
    """Return the only divergence."""
    assert report.differences == len(report.divergences) == 1, report
    assert (report.ok, report.diverged) == (False, 1)
    return report.divergences[0]


# -- Everything that steps do ------------------------------------------------------------------------------------------


class RpLeaf(Workflow):
    """A child."""

    @step
    async def leaf(self, ctx: Context, ev: RpStart) -> StopEvent:
        return StopEvent(result=await ctx.call("square", lambda n: n * n, ev.n))


class RpAll(Workflow):
    """Every kind of effect and of input. `made` counts what reaches the outside."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.made: list[Any] = []
        self.child = RpLeaf()

    async def outside(self, what: Any) -> Any:
        self.made.append(what)
        return f"made {what}"

    @step
    async def begin(self, ctx: Context[RpState], ev: RpStart) -> list[RpPart]:
        await ctx.store.set("notes", {"from": "begin"})
        return [RpPart(n=n) for n in range(ev.n)]

    @step(num_workers=2, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
    async def work(self, ctx: Context[RpState], ev: RpPart) -> RpLeft | RpRight:
        async with ctx.store.edit_state() as state:
            state.total += ev.n
            state.seen.append(ev.n)
        await ctx.call("pay", self.outside, ev.n)
        info = ctx.retry_info()
        if ev.n == 1 and info.retry_number == 0:
            raise ValueError("once")
        ctx.write_event_to_stream(RpItem(text=f"{ev.n} after {info.retry_number}"))
        return RpLeft(n=ev.n) if ev.n % 2 else RpRight(n=ev.n)

    @step
    async def pair(self, left: RpLeft, right: RpRight) -> RpSent:
        return RpSent(n=10 * left.n + right.n)

    @step
    async def joined(self, ctx: Context[RpState], found: list[RpLeft | RpRight | RpSent]) -> RpScored:
        names = [type(event).__name__ for event in found]
        await ctx.sleep(0.001)
        await ctx.checkpoint("joined")
        results = await asyncio.gather(*(ctx.call(f"c{i}", self.outside, i) for i in range(3)))
        return RpScored(score=len(results), names=names)

    @step
    async def asks(self, ctx: Context[RpState], ev: RpScored) -> RpAsk:
        reply = await ctx.wait_for_event(RpReply, waiter_event=RpAsk(text="first"))
        (await ctx.store.get("notes"))["reply"] = reply.text
        child = self.child.run(n=4)
        ctx.data["total"] = await child
        return RpAsk(text="second")

    @step
    async def answered(self, ctx: Context[RpState], ev: RpReply) -> StopEvent:
        state = await ctx.store.get_state()
        return StopEvent(result=[ev.text, state.notes, state.total, ctx.idempotency_key("k")])


async def test_unchanged_code_does_what_is_recorded_and_nothing_happens_again(journal: Journal) -> None:
    flow = RpAll(journal=journal)
    run_id = await one(flow)
    made, records = list(flow.made), await journal.history(run_id)
    completed = sum(isinstance(record.fact, StepCompleted) for record in records)
    report = await flow.replay(run_id)
    assert report.ok, report
    assert (report.replayed, report.equal, report.failed_attempts) == (completed, completed, 1)
    assert (report.first, report.last, report.workflow) == (1, len(records), "RpAll")
    assert flow.made == made
    assert await journal.history(run_id) == records
    assert {default.what for default in report.defaults} == {"RpScored.at", "RpScored.key"}


async def test_a_sync_step_a_resource_a_handler_of_failures_and_collect_events_replay(journal: Journal) -> None:
    class RpFails(Event):
        n: int

    def resource() -> list[int]:
        return [7]

    class Others(Workflow):
        @step
        async def begin(self, ctx: Context, ev: RpStart) -> RpPart | None:
            for n in range(3):
                ctx.send_event(RpPart(n=n))
            return None

        @step
        def plain(self, ctx: Context, ev: RpPart, given: Annotated[list[int], Resource(resource)]) -> RpSent:
            ctx.data[f"k{ev.n}"] = given[0] + ev.n
            ctx.write_event_to_stream(RpItem(text=str(ev.n)))
            return RpSent(n=ev.n)

        @step(num_workers=1)
        async def gather(self, ctx: Context, ev: RpSent) -> RpFails | None:
            found = ctx.collect_events(ev, [RpSent] * 3)
            return None if found is None else RpFails(n=sum(event.n for event in found))

        @step
        async def fails(self, ev: RpFails) -> StopEvent:
            raise ValueError(f"with {ev.n}")

        @catch_error
        async def rescue(self, ctx: Context, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=[str(ev.exception), ev.attempts, ctx.data["k2"]])

    flow = Others(journal=journal)
    handler = flow.run()
    assert await handler == ["with 3", 1, 9]
    report = await flow.replay(handler.run_id)
    assert report.ok, report
    assert (report.replayed, report.failed_attempts) == (8, 1)


async def test_a_history_with_edits_a_fork_snapshots_and_splices_replays(journal: Journal) -> None:
    class Grows(Workflow):
        fail = True

        @step
        async def grow(self, ctx: Context, ev: RpStart | RpPart) -> RpPart | StopEvent:
            items = ctx.data.setdefault("items", [])
            items.append("x" * 20)
            if len(items) < 80:
                return RpPart(n=len(items))
            if self.fail:
                raise ValueError("at the end")
            return StopEvent(result=[len(items), ctx.data["extra"]])

    flow = Grows(journal=journal)
    with pytest.raises(ValueError, match="at the end"):
        await flow.run(run_id="r")
    await flow.edit("r", set={"extra": 5}, by="kim")
    flow.fail = False
    assert (await (await flow.retry("r")))[1] == 5
    assert any(isinstance(record.fact, ContextSpliced) for record in await journal.history("r"))
    report = await flow.replay("r")
    assert report.ok, report
    assert (report.replayed, report.failed_attempts) == (80, 1)
    middle = (await journal.checkpoints("r"))[40]
    fork = await flow.fork("r", middle, set={"extra": 6}, new_run_id="f")
    assert (await fork)[1] == 6
    report = await flow.replay("f")
    assert report.ok, report
    assert report.replayed == 40


async def test_parts_of_a_run_that_is_live_waits_or_failed_replay(journal: Journal) -> None:
    flow = Owned(journal=journal)
    handler = flow.run(run_id="r")
    await recorded(journal, "r", WaitOpened)
    report = await flow.replay("r")
    assert (report.replayed, report.ok) == (0, True)
    async for event in handler.stream_events():
        if isinstance(event, Question):
            await handler.send_event(Answer(text="a", wait_id=event.wait_id))
    report = await flow.replay("r")
    assert (report.replayed, report.ok) == (1, True)
    assert flow.began == 2  # once in the run, once in the replay: the waits that it had recorded were answered


async def test_a_wait_and_a_timer_that_a_step_leaves_open_stay_open(journal: Journal) -> None:
    class Leaves(Workflow):
        @step
        async def only(self, ctx: Context, ev: RpStart) -> StopEvent:
            strands = [
                asyncio.ensure_future(ctx.wait_for_event(RpReply, waiter_event=RpAsk(text="?"))),
                asyncio.ensure_future(ctx.sleep(3600)),
            ]
            await asyncio.sleep(0)
            await ctx.checkpoint("left")
            await ctx.call("after", lambda: 1)
            assert not any(strand.done() for strand in strands)
            for strand in strands:
                strand.cancel()
            return StopEvent(result=1)

    flow = Leaves(journal=journal)
    assert await flow.run(run_id="r") == 1
    assert any(isinstance(record.fact, WaitClosed) for record in await journal.history("r"))
    report = await flow.replay("r")
    assert report.ok, report


async def test_the_order_of_strands_is_chance(memory: Journal) -> None:
    class Strands(Workflow):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.gates = {name: asyncio.Event() for name in "ab"}

        @step
        async def only(self, ctx: Context, ev: RpStart) -> StopEvent:
            async def strand(name: str, event: Event, then: str | None = None) -> None:
                await self.gates[name].wait()
                ctx.send_event(event)
                if then is not None:
                    self.gates[then].set()

            self.gates["b"].set()
            await asyncio.gather(strand("a", RpLeft(n=1)), strand("b", RpRight(n=2), "a"))
            return StopEvent()

        @step
        async def takes(self, ev: RpLeft | RpRight) -> None:
            return None

    flow = Strands(journal=memory, disable_validation=True)
    await flow.run(run_id="r")
    sent = [r.fact.event.name for r in await memory.history("r") if isinstance(r.fact, EventEmitted) and r.fact.task]
    assert sent == ["RpRight", "RpLeft"]
    report = await flow.replay("r")  # now both gates are open, and the strands go the other way round
    assert report.ok, report


async def test_an_output_that_a_fork_replaced_is_nobodys_code(journal: Journal) -> None:
    flow = RpCode(journal=journal)
    await flow.run(run_id="r")
    middle = next(c for c in await journal.checkpoints("r") if c.last_completed_step == "middle")
    fork = await flow.fork("r", middle, event=RpScored(score=1), new_run_id="f")
    assert await fork == [1, 103]
    report = await flow.replay("f")
    assert report.ok, report
    assert report.replayed == sum(isinstance(r.fact, StepCompleted) for r in await journal.history("f")) - 1


# -- What is different is found ----------------------------------------------------------------------------------------


class RpCode(Workflow):
    """Its middle step is changed by subclasses."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "RpCode", **kwargs})
        self.called: list[Any] = []

    def fetch(self, n: int) -> int:
        self.called.append(n)
        return 100 + n

    @step
    async def first(self, ctx: Context, ev: RpStart) -> RpPart:
        ctx.data["totals"] = {"sum": ev.n, "parts": [1, 2]}
        return RpPart(n=ev.n)

    @step
    async def middle(self, ctx: Context, ev: RpPart) -> RpScored | RpSent | RpLeft | RpRight:
        ctx.data["totals"]["sum"] += 1
        ctx.send_event(RpSent(n=ev.n))
        got = await ctx.call("fetch", self.fetch, ev.n)
        ctx.write_event_to_stream(RpItem(text="a"))
        ctx.write_event_to_stream(RpItem(text="b"))
        ctx.data["got"] = got
        await ctx.checkpoint("half")
        ctx.send_event(RpLeft(n=1))
        ctx.send_event(RpRight(n=2))
        return RpScored(score=7, names=["x", "y"])

    @step
    async def ignores(self, ev: RpSent | RpLeft | RpRight) -> None:
        return None

    @step
    async def last(self, ctx: Context, ev: RpScored) -> StopEvent:
        return StopEvent(result=[ev.score, ctx.data["got"]])


Body = Callable[[Any, Context, RpPart], Any]


def changed(body: Body) -> type[RpCode]:
    """Return the workflow with another middle step."""

    class Changed(RpCode):
        @step
        async def middle(self, ctx: Context, ev: RpPart) -> RpScored | RpSent | RpLeft | RpRight:
            result: RpScored = await body(self, ctx, ev)
            return result

    return Changed


def but(**differences: Any) -> Body:
    """Return the middle step with something else in a place, or left out."""

    async def middle(self: RpCode, ctx: Context, ev: RpPart) -> Any:
        ctx.data["totals"]["sum"] += differences.get("add", 1)
        if "sent_late" not in differences:
            ctx.send_event(RpSent(n=differences.get("sent", ev.n)))
        got = await ctx.call("fetch", self.fetch, differences.get("argument", ev.n))
        if "sent_late" in differences:
            ctx.send_event(RpSent(n=ev.n))
        for text in differences.get("items", "ab"):
            ctx.write_event_to_stream(RpItem(text=text))
        if "got" not in differences:
            ctx.data["got"] = got
        if "more" in differences:
            await differences["more"](self, ctx)
        if "half" not in differences:
            await ctx.checkpoint("half")
        for event in differences.get("sends", (RpLeft(n=1), RpRight(n=2))):
            ctx.send_event(event)
        return differences.get("returns", RpScored(score=7, names=["x", "y"]))

    return middle


async def new_key(self: Any, ctx: Context) -> None:
    ctx.data["new"] = [1]


async def new_call(self: Any, ctx: Context) -> None:
    await ctx.call("other", self.fetch, 5)


async def new_wait(self: Any, ctx: Context) -> None:
    await ctx.wait_for_event(RpReply, waiter_event=RpAsk(text="really?"))


async def new_sleep(self: Any, ctx: Context) -> None:
    await ctx.sleep(3600)


async def new_child(self: Any, ctx: Context) -> None:
    await RpLeaf().run(n=1)


async def deletes(self: Any, ctx: Context) -> None:
    del ctx.data["totals"]


async def raises(self: Any, ctx: Context) -> None:
    raise LookupError("no such thing")


async def collects(self: Any, ctx: Context) -> None:
    ctx.collect_events(RpLeft(n=1), [RpLeft] * 2)


CHANGES: dict[str, tuple[dict[str, Any], str, str, Any, Any]] = {
    "a value in a value of the context": ({"add": 5}, "context", "totals.sum", 4, 8),
    "a field of a sent event": ({"sent": 9}, "event", "RpSent.n", 3, 9),
    "the arguments of a call": ({"argument": 4}, "call", "fetch", NOTHING, "4"),
    "a stream item": ({"items": "aX"}, "stream", "RpItem.text", "b", "X"),
    "one stream item less": ({"items": "a"}, "stream", "RpItem", RpItem(text="b"), NOTHING),
    "one stream item more": ({"items": "abc"}, "stream", "RpItem", NOTHING, RpItem(text="c")),
    "a write that is missing": ({"got": 0}, "context", "got", 103, NOTHING),
    "a write that is new": ({"more": new_key}, "context", "new", NOTHING, [1]),
    "a key that is deleted": ({"more": deletes}, "context", "totals", NOTHING, "deleted"),
    "a checkpoint that is missing": ({"half": 0}, "checkpoint", "half", "half", NOTHING),
    "a call that is new": ({"more": new_call}, "call", "other", NOTHING, "5"),
    "a wait that is new": ({"more": new_wait}, "wait", "RpReply", NOTHING, RpAsk(text="really?")),
    "a sleep that is new": ({"more": new_sleep}, "sleep", "ctx.sleep", NOTHING, "3600 s"),
    "a child that is new": ({"more": new_child}, "child", "RpLeaf", NOTHING, "a run"),
    "an event collected": ({"more": collects}, "collect_events", "middle", NOTHING, RpLeft(n=1)),
    "a sent event that is missing": ({"sends": [RpLeft(n=1)]}, "event", "RpRight", RpRight(n=2), NOTHING),
    "a sent event that is new": (
        {"sends": [RpLeft(n=1), RpRight(n=2), RpRight(n=3)]}, "event", "RpRight", NOTHING, RpRight(n=3),
    ),
    "another order of sent events": (
        {"sends": [RpRight(n=2), RpLeft(n=1)]}, "order", "send_event RpLeft",
        "before send_event RpRight", "after send_event RpRight",
    ),
    "an event sent after a call": (
        {"sent_late": 0}, "order", "send_event RpSent", "before call fetch", "after call fetch"
    ),
    "a returned field": ({"returns": RpScored(score=7, names=["x", "z"])}, "event", "RpScored.names.1", "y", "z"),
    "a list that is longer": (
        {"returns": RpScored(score=7, names=["x", "y", "z"])}, "event", "RpScored.names.2", NOTHING, "z",
    ),
    "another class returned": ({"returns": RpLeft(n=1)}, "event", "RpScored", ..., RpLeft(n=1)),
    "nothing returned": ({"returns": None}, "event", "RpScored", ..., NOTHING),
    "an exception": ({"more": raises}, "error", "builtins.LookupError: no such thing", "the step completed", ...),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_of_the_code_is_found_in_its_place(memory: Journal, name: str) -> None:
    differences, kind, what, before, now = CHANGES[name]
    await RpCode(journal=memory).run(run_id="r")
    completed = next(c for c in await memory.checkpoints("r") if c.last_completed_step == "middle")
    flow = changed(but(**differences))(journal=memory)
    report = await flow.replay("r")
    found = only(report)
    assert (found.kind, found.what) == (kind, what)
    assert before is ... or found.recorded == before
    assert now is ... or found.new == now
    assert (found.step, found.attempt, found.seq, found.raced) == ("middle", 1, completed.seq, ())
    assert found.checkpoint == completed.id
    # The steps behind it are judged by their own recorded events.
    assert report.replayed == report.equal + 1 == 6
    assert flow.called == []


@pytest.mark.parametrize("name", ["unchanged", "a stream item", "a returned field", "one stream item less"])
async def test_the_same_is_found_on_each_store(journal: Journal, name: str) -> None:
    await RpCode(journal=journal).run(run_id="r")
    if name == "unchanged":
        assert (await changed(but())(journal=journal).replay("r")).ok
    else:
        found = only(await changed(but(**CHANGES[name][0]))(journal=journal).replay("r"))
        assert (found.kind, found.what, found.recorded, found.new) == CHANGES[name][1:]
