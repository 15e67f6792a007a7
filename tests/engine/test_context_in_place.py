"""Changes in place: live objects keep their identity, and what is changed in them is journaled."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.errors import SerializationError
from durable_flow.records import ContextSet

from .context_helpers import (
    RUN,
    Crew,
    Done,
    Go,
    divergences,
    forever,
    nothing,
    run,
    run_alone,
    run_to_end,
    run_until,
    stored,
    stored_at,
)


class Inner(BaseModel):
    xs: list[int] = []


class Outer(BaseModel):
    inner: Inner = Inner()
    names: set[str] = set()


@dataclass
class Point:
    x: int = 0
    path: list[int] = field(default_factory=list)


class Next(Event):
    n: int = 0


def change_list(value: list[Any]) -> None:
    value.append({"deep": []})
    value[-1]["deep"].append(1)


def change_model(value: Outer) -> None:
    value.inner.xs.append(1)
    value.inner = Inner(xs=[*value.inner.xs, 2])
    value.names.add("a")


def change_point(value: Point) -> None:
    value.x += 1
    value.path.append(value.x)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (list, change_list),
    "dict": (lambda: {"a": {"b": 1}}, lambda value: value["a"].update(b=2, c=(3,))),
    "set": (lambda: {1}, lambda value: value.update({2, 3})),
    "nested models": (lambda: Outer(inner=Inner(xs=[]), names=set()), change_model),
    "dataclass": (Point, change_point),
    "list in a tuple": (lambda: ([],), lambda value: value[0].append(1)),
}
READERS: dict[str, Callable[[Context], Any]] = {
    "data": lambda ctx: asyncio.sleep(0, ctx.data["k"]),
    "get": lambda ctx: ctx.get("k"),
    "store.get": lambda ctx: ctx.store.get("k"),
    "items": lambda ctx: asyncio.sleep(0, dict(ctx.data.items())["k"]),
}


class Chain(Workflow):
    """`make` in one step, `change` in the next, and the value as the last one finds it."""

    def __init__(self, journal: Journal, make: Callable[[], Any], change: Callable[[Context], Any]):
        super().__init__(journal=journal)
        self.make = make
        self.change = change

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Next:
        await ctx.set("k", self.make())
        return Next(n=1)

    @step
    async def second(self, ctx: Context, ev: Next) -> StopEvent:
        await self.change(ctx)
        return StopEvent()


@pytest.mark.parametrize(("make", "change"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
async def test_what_a_step_changes_in_an_object_it_read_is_journaled_when_it_ends(
    memory: Journal, make: Callable[[], Any], change: Callable[[Any], Any], read: Callable[[Context], Any]
):
    async def body(ctx: Context) -> None:
        change(await read(ctx))

    await Chain(memory, make, body).run(run_id=RUN)

    expected = make()
    change(expected)
    assert expected != make()
    assert (await stored(memory))["k"] == expected


@pytest.mark.parametrize(("make", "change"), CHANGES.values(), ids=CHANGES)
async def test_what_a_step_changes_after_it_set_it_is_journaled(
    journal: Journal, make: Callable[[], Any], change: Callable[[Any], Any]
):
    async def body(ctx: Context) -> None:
        value = make()
        await ctx.store.set("k", value)
        await ctx.checkpoint("middle")
        change(value)

    await run_alone(journal, body)
    expected = make()
    change(expected)
    assert (await stored(journal))["k"] == expected


async def test_an_object_keeps_its_identity_from_step_to_step(journal: Journal):
    value: list[int] = [1]

    async def body(ctx: Context) -> None:
        assert await ctx.store.get("k") is value
        assert ctx.data["k"] is value
        assert await ctx.get("k") is value

    await Chain(journal, lambda: value, body).run()


async def test_an_object_that_was_only_looked_at_is_not_written(memory: Journal):
    async def body(ctx: Context) -> None:
        assert [*ctx.data["k"], *(await ctx.store.get("k"))] == [1, 1]
        await ctx.checkpoint("middle")

    await Chain(memory, lambda: [1], body).run(run_id=RUN)
    sets = [r.fact.key for r in await memory.history(RUN) if isinstance(r.fact, ContextSet)]
    assert sets == ["k"]


async def test_changes_are_journaled_with_each_commit_of_the_step(journal: Journal):
    async def body(ctx: Context) -> list[Any]:
        ctx.data["xs"] = []
        seen = []
        for n in range(3):
            ctx.data["xs"].append(n)
            await ctx.checkpoint(f"c{n}")
            seen.append((await stored(journal))["xs"])
        return seen

    assert await run_alone(journal, body) == [[0], [0, 1], [0, 1, 2]]


async def test_another_step_sees_a_change_in_place_at_once(memory: Journal):
    ready, changed = asyncio.Event(), asyncio.Event()

    async def changer(ctx: Context) -> None:
        ctx.data["xs"] = []
        ready.set()
        await changed.wait()
        assert ctx.data["xs"] == [1]

    async def other(ctx: Context) -> None:
        await ready.wait()
        (await ctx.store.get("xs")).append(1)
        changed.set()

    await run(memory, changer=changer, other=other)
    assert await stored(memory) == {"xs": [1]}


async def test_the_end_of_the_run_keeps_what_other_steps_have_changed(journal: Journal):
    class Ending(Workflow):
        changed = asyncio.Event()

        @step
        async def first(self, ctx: Context, ev: StartEvent) -> list[Next]:
            ctx.data["xs"] = [0]
            return [Next(n=1), Next(n=2)]

        @step
        async def second(self, ctx: Context, ev: Next) -> StopEvent:
            if ev.n == 1:
                ctx.data["xs"].append(1)
                ctx.data["draft"] = 1
                self.changed.set()
                await forever()
            await self.changed.wait()
            return StopEvent()

    await Ending(journal=journal).run(run_id=RUN)
    assert await stored(journal) == {"xs": [0, 1], "draft": 1}


@pytest.mark.parametrize("by", ["handler", "step"])
async def test_a_stop_event_that_was_sent_keeps_what_steps_have_changed(journal: Journal, by: str):
    changed = asyncio.Event()

    async def changer(ctx: Context) -> None:
        ctx.data["xs"] = [0]
        await ctx.checkpoint("c")
        ctx.data["xs"].append(1)
        ctx.data["draft"] = 1
        changed.set()
        await forever()

    async def stopper(ctx: Context) -> None:
        await changed.wait()
        if by == "step":
            ctx.send_event(StopEvent(result="stopped"))
        await forever()

    handler = Crew(journal, changer=changer, stopper=stopper).run(run_id=RUN)
    await changed.wait()
    if by == "handler":
        await handler.send_event(StopEvent(result="stopped"))
    assert await handler == "stopped"
    assert await stored(journal) == {"xs": [0, 1], "draft": 1}


# -- Values that cannot be encoded -------------------------------------------------------------------------------------


class Opaque:
    pass


async def test_a_value_that_cannot_be_encoded_fails_the_step_by_path_when_it_ends(journal: Journal):
    async def spoil(ctx: Context) -> None:
        ctx.data["xs"] = [1]
        ctx.data["other"] = [1]
        ctx.data["other"].append(2)
        ctx.data["xs"].append({"deep": Opaque()})

    handler = Crew(journal, only=spoil).run(run_id=RUN)
    with pytest.raises(SerializationError) as refused:
        await handler
    assert refused.value.path == "xs[1]['deep']"
    # The failure keeps what could be kept, in the journal and for those who look.
    assert await stored(journal) == {"xs": [1], "other": [1, 2]}
    assert handler.ctx.data == {"xs": [1], "other": [1, 2]}
    assert (await journal.run(RUN)).status == "failed"


class Spoiling(Workflow):
    """The first attempt spoils a value; then another step and the next attempt look at it."""

    looked = asyncio.Event()

    def __init__(self, journal: Journal):
        super().__init__(journal=journal)
        self.attempts = 0
        self.results = 0

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> list[Next]:
        ctx.data["xs"] = [1]
        return [Next(n=1), Next(n=2)]

    @step(retry_policy=ConstantDelayRetryPolicy(delay=0, maximum_attempts=2))
    async def second(self, ctx: Context, ev: Next) -> StopEvent | None:
        if ev.n == 2:
            self.other_began.set()
            await self.failed_once.wait()
            assert ctx.data["xs"] == [1]
            return None
        await self.other_began.wait()
        self.attempts += 1
        if self.attempts == 1:
            ctx.data["xs"].append(Opaque())
            return StopEvent(result="of the attempt that failed")
        seen = list(ctx.data["xs"])
        self.failed_once.set()
        ctx.data["xs"].append(2)
        return StopEvent(result=seen)


async def test_a_spoiled_value_fails_one_attempt_and_nothing_else(journal: Journal):
    flow = Spoiling(journal)
    flow.other_began, flow.failed_once = asyncio.Event(), asyncio.Event()
    assert await flow.run(run_id=RUN) == [1]
    assert await stored(journal) == {"xs": [1, 2]}
    assert await flow.run(run_id=RUN) == [1]


async def test_a_spoiled_value_does_not_hold_up_a_sent_event_or_a_call(memory: Journal):
    class Sending(Workflow):
        def __init__(self):
            super().__init__(journal=memory)
            self.received = asyncio.Event()
            self.calls = 0

        def charge(self) -> int:
            self.calls += 1
            return self.calls

        @step(retry_policy=ConstantDelayRetryPolicy(delay=0, maximum_attempts=2))
        async def first(self, ctx: Context, ev: StartEvent) -> StopEvent | Next:
            xs = ctx.data.setdefault("xs", [])
            ctx.send_event(Next())
            if not self.calls:
                xs.append(Opaque())
            charged = await ctx.call("charge", self.charge)
            await self.received.wait()
            return StopEvent(result=charged)

        @step
        async def second(self, ev: Next) -> None:
            self.received.set()

    flow = Sending()
    assert await flow.run() == 1
    assert flow.calls == 1


# -- Failed attempts and the second event loop -------------------------------------------------------------------------


async def test_changes_of_a_failed_attempt_stay(journal: Journal):
    class Retried(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(delay=0, maximum_attempts=3))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            xs = ctx.data.setdefault("xs", [])
            xs.append(len(xs))
            if len(xs) < 3:
                raise LookupError
            return StopEvent(result=xs)

    assert await Retried(journal=journal).run(run_id=RUN) == [0, 1, 2]
    assert await stored(journal) == {"xs": [0, 1, 2]}


def test_changes_without_a_commit_are_gone_after_a_restart(url: str):
    changed = asyncio.Event()

    async def before(ctx: Context) -> None:
        ctx.data["xs"] = [0]

    async def changer(ctx: Context) -> None:
        await first.done["before"].wait()
        ctx.data["xs"].append(1)
        changed.set()
        await forever()

    first = Crew(url, before=before, changer=changer)
    run_until(first, changed)
    assert stored_at(url) == {"xs": [0]}

    async def again(ctx: Context) -> None:
        ctx.data["xs"].append(1)

    run_to_end(Crew(url, before=nothing, changer=again))
    assert stored_at(url) == {"xs": [0, 1]}


async def by_checkpoint(ctx: Context, n: int, sent: asyncio.Event) -> None:
    await ctx.checkpoint(f"c{n}")


async def by_call(ctx: Context, n: int, sent: asyncio.Event) -> None:
    assert await ctx.call("call", int, n) == n


async def by_sleep(ctx: Context, n: int, sent: asyncio.Event) -> None:
    await ctx.sleep(0)


async def by_send(ctx: Context, n: int, sent: asyncio.Event) -> None:
    ctx.send_event(Next(n=n))
    await sent.wait()


COMMITS = {"checkpoint": by_checkpoint, "call": by_call, "sleep": by_sleep, "send": by_send}


class Appending(Crew):
    """A step that appends to a list and commits, four times, and appends at its end; it may get stuck on the way.

    `sent[n]` is set once the event that it sent in round n is durable. In a re-run, where it is that from the
    beginning, the step does not even suspend.
    """

    def __init__(self, url: str, commit: Callable[..., Any], *, begin: int = 0, stuck_at: int | None = None):
        super().__init__(url, only=self.append)
        self.commit = commit
        self.stuck_at = stuck_at
        self.stuck = asyncio.Event()
        self.sent = [asyncio.Event() for _ in range(4)]
        for sent in self.sent[:begin]:
            sent.set()

    async def append(self, ctx: Context) -> list[Any]:
        xs = ctx.data.setdefault("xs", [])
        for n in range(4):
            if n == self.stuck_at:
                self.stuck.set()
                await forever()
            xs.append(n)
            await self.commit(ctx, n, self.sent[n])
            assert ctx.data["xs"] == xs
        xs.append("end")
        return xs

    @step
    async def work(self, ctx: Context, ev: Go) -> Done | Next:
        return Done(name=ev.name, result=await self.append(ctx))

    @step
    async def take(self, ev: Next) -> None:
        self.sent[ev.n].set()


@pytest.mark.parametrize("commit", COMMITS.values(), ids=COMMITS)
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_an_object_changed_between_commits_is_changed_once_over_a_restart(
    url: str, commit: Callable[..., Any], rounds: int
):
    """The step goes on with the object that it holds, before and after it has caught up."""
    first = Appending(url, commit, stuck_at=rounds)
    run_until(first, first.stuck)
    assert stored_at(url) == {"xs": list(range(rounds))}

    result = run_to_end(Appending(url, commit, begin=rounds))
    assert result == {"only": [0, 1, 2, 3, "end"]}
    assert stored_at(url) == {"xs": [0, 1, 2, 3, "end"]}
    assert divergences(url) == []


def test_a_list_that_was_read_and_changed_is_changed_once_although_another_step_built_upon_it(url: str):
    appended = asyncio.Event()

    async def a(ctx: Context) -> None:
        async with ctx.lock:
            ctx.data.setdefault("xs", []).append("a")
        appended.set()
        await forever()

    async def b(ctx: Context) -> None:
        await appended.wait()
        async with ctx.lock:
            ctx.data["xs"].append("b")

    first = Crew(url, a=a, b=b)
    run_until(first, first.done["b"])
    assert stored_at(url) == {"xs": ["a", "b"]}

    async def a_again(ctx: Context) -> list[str]:
        async with ctx.lock:
            ctx.data.setdefault("xs", []).append("a")
        async with ctx.lock:
            ctx.data["xs"].append("c")
        return ctx.data["xs"]

    assert run_to_end(Crew(url, a=a_again, b=nothing))["a"] == ["a", "b", "c"]
    assert stored_at(url) == {"xs": ["a", "b", "c"]}
    assert divergences(url) == []


def test_one_object_under_two_keys_is_two_objects_after_a_restart(url: str):
    shared = asyncio.Event()

    async def before(ctx: Context) -> None:
        xs: list[int] = []
        ctx.data.update(one=xs, two=xs)
        xs.append(1)
        assert ctx.data["one"] is ctx.data["two"]

    async def stuck(ctx: Context) -> None:
        await first.done["before"].wait()
        shared.set()
        await forever()

    async def after(ctx: Context) -> None:
        ctx.data["one"].append(2)

    first = Crew(url, before=before, stuck=stuck)
    run_until(first, shared)
    run_to_end(Crew(url, before=nothing, stuck=after))
    assert stored_at(url) == {"one": [1, 2], "two": [1]}
