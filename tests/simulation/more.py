"""What the model leaves out: joins, changes in place, deletes, sleep, locks, several consumers, strands."""

from __future__ import annotations

import asyncio
from typing import Any

from durable_flow import Context, Event, step
from durable_flow.records import BufferReleased, StepDiverged, StepFailed, TimerFired, TimerSet, WaitOpened
from durable_flow.retry_policy import ConstantDelayRetryPolicy

from .programs import Consumers, Programs, SimAsk, SimDone, SimGo, SimItem, SimReply, SimWork, with_programs
from .scenarios import Scenario, both, done, equal, exactly, names_of_tasks, sends, several
from .simulation import Simulation, World


class SimPart(Event):
    i: int
    of: int
    total: int


class SimPiece(Event):
    i: int
    of: int
    total: int


class SimHeard(Event):
    by: str
    i: int


# -- Changes in place --------------------------------------------------------------------------------------------------


async def appends_between_calls(ctx: Context, ev: SimGo, world: World) -> list[int]:
    """Holds the live list over calls, as most programs do."""
    items = ctx.data.setdefault("items", [])
    for i in range(ev.arg):
        items.append(await ctx.call("get", world.fn(ev.task, "get", lambda i: i), i))
    return list(items)


async def fills_before_calls(ctx: Context, ev: SimGo, world: World) -> dict[str, Any]:
    """Sets an object first and fills it afterwards."""
    found: dict[str, Any] = {}
    ctx.data["found"] = found
    for i in range(ev.arg):
        found[f"key {i}"] = [i]
        await ctx.call("get", world.fn(ev.task, "get", lambda i: i), i)
        found[f"key {i}"].append(i)
        await world.pause()
    return dict(found)


async def appends_between_sends(ctx: Context, ev: SimGo, world: World) -> None:
    """Synchronous effects commit at the next suspension."""
    items = ctx.data.setdefault("items", [])
    for i in range(ev.arg):
        items.append(i)
        ctx.send_event(SimWork(i=i))
        await world.pause()
        items.append(-i)
        await ctx.checkpoint(f"round {i}")


async def appends_between_waits(ctx: Context, ev: SimGo, world: World) -> list[str]:
    texts: list[str] = []
    await ctx.store.set("texts", texts)
    for i in range(ev.arg):
        texts.append(f"asked {i}")
        reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question=str(i)), timeout=None)
        texts.append(reply.text)
        await ctx.sleep(1)
        (await ctx.store.get("texts")).append(f"slept {i}")
    return list(texts)


async def appends_and_retries(ctx: Context, ev: SimGo, world: World) -> int:
    """What it changed in place stays when it raises."""
    items = ctx.data.setdefault("items", [])
    while len(items) < ev.arg:
        items.append(len(items))
        await world.pause()
        if world.fails(len(items)):
            raise ValueError(str(len(items)))
        await ctx.checkpoint(f"at {len(items)}")
    return len(items)


async def strands_append(ctx: Context, ev: SimGo, world: World) -> list[str]:
    """Several strands of one step change one list."""
    items = ctx.data.setdefault("items", [])

    async def one(name: str) -> None:
        items.append(f"{name}1")
        await ctx.call(f"a{name}", world.fn(ev.task, f"a{name}", str), name)
        items.append(f"{name}2")
        await ctx.call(f"b{name}", world.fn(ev.task, f"b{name}", str), name)
        items.append(f"{name}3")

    await asyncio.gather(one("x"), one("y"), one("z"))
    return sorted(items)


async def locked_append(ctx: Context, ev: SimGo, world: World) -> None:
    """Under the lock changes in place are exact, also where other steps have read the object before."""
    for i in range(2):
        async with ctx.lock:
            items = ctx.data.setdefault("items", [])
            await world.pause()
            items.append([ev.arg, i])
            await world.pause()
        await ctx.call("outside", world.fn(ev.task, "outside", str), i)


async def locked_counter(ctx: Context, ev: SimGo, world: World) -> None:
    await world.pause()
    async with ctx.lock:
        n = await ctx.store.get("n", 0)
        await world.pause()
        await ctx.store.set("n", n + 1)
        if world.fails(("locked", ev.arg)):
            raise ValueError("inside the lock")
        await world.pause()
    await world.pause()


async def edits_state(ctx: Context, ev: SimGo, world: World) -> None:
    await world.pause()
    async with ctx.store.edit_state() as state:
        state["n"] = state.get("n", 0) + 1
        state.setdefault("seen", []).append(ev.arg)
        await world.pause()
    await world.pause()


async def counts_keys(ctx: Context, ev: SimGo, world: World) -> int:
    """Reads no key, but the whole context."""
    await world.pause()
    number = len(ctx.data)
    ctx.data[ev.task] = number
    await world.pause()
    await world.pause()
    return number


# -- Keys that come and go ---------------------------------------------------------------------------------------------


async def deletes(ctx: Context, ev: SimGo, world: World) -> list[Any]:
    data = ctx.data
    data.update({"a": 1, "b": [1, 2], "c": {"x": 1}, "d": 4})
    await world.pause()
    del data["a"]
    await ctx.checkpoint("one gone")
    taken = [data.pop("b"), data.pop("a", None), "a" in data]
    data["a"] = 2
    await ctx.call("between", world.fn(ev.task, "between", str), len(data))
    taken.append(data.pop("a"))
    data["a"] = 3
    await ctx.checkpoint("again")
    data["c"]["y"] = 2
    await world.pause()
    taken.append(sorted(data))
    del data["d"]
    return taken


async def clears(ctx: Context, ev: SimGo, world: World) -> list[str]:
    for i in range(3):
        ctx.data[f"k{i}"] = i
    await ctx.checkpoint("filled")
    before = sorted(ctx.data)
    await world.pause()
    ctx.clear()
    await ctx.checkpoint("emptied")
    ctx.data["left"] = 1
    await world.pause()
    return [*before, *sorted(ctx.data)]


# -- Time --------------------------------------------------------------------------------------------------------------


async def sleeper(ctx: Context, ev: SimGo, world: World) -> int:
    for i in range(3):
        ctx.data["naps"] = ctx.data.get("naps", 0) + 1
        await ctx.sleep(10 * i)
    naps: int = ctx.data["naps"]
    return naps


def naps_are_never_short(run: Simulation) -> list[str]:
    due = {r.seq: r.fact.due_at for r in run.store.records if isinstance(r.fact, TimerSet)}
    fired = [(r.at, due[r.fact.timer]) for r in run.store.records if isinstance(r.fact, TimerFired)]
    return ["early" for at, due_at in fired if at < due_at] + ["lost"] * (len(due) != 3 or len(fired) != 3)


async def strands(ctx: Context, ev: SimGo, world: World) -> list[str]:
    """Strands with every kind of awaited effect; what they write shows in which order they went on."""

    async def note(text: str) -> None:
        ctx.data["log"] = [*ctx.data.get("log", []), text]

    async def calls() -> None:
        for i in range(3):
            await note(f"called {await ctx.call('c', world.fn(ev.task, 'c', str), i)}")

    async def naps() -> None:
        for i in range(2):
            await ctx.sleep(0.004)
            await note(f"slept {i}")

    async def marks() -> None:
        for i in range(3):
            await ctx.checkpoint(f"mark {i}")
            await note(f"marked {i}")

    async def waits() -> None:
        reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question="q"), timeout=None)
        await note(reply.text)

    await asyncio.gather(calls(), naps(), marks(), waits())
    return sorted(ctx.data["log"])


async def strands_retried(ctx: Context, ev: SimGo, world: World) -> list[str]:
    """Attempt 2 finds some of its strands' calls made, and goes on with others."""

    async def one(name: str) -> None:
        for i in range(2):
            await ctx.call(f"{name}{i}", world.fn(ev.task, f"{name}{i}", str), i)
            ctx.data["log"] = [*ctx.data.get("log", []), f"{name}{i}"]
            if i == 0 and name == "x" and world.fails("strand"):
                raise ValueError("a strand")

    ctx.data["log"] = []
    await asyncio.gather(one("x"), one("y"), one("z"))
    return sorted(ctx.data["log"])


# -- Waiting -----------------------------------------------------------------------------------------------------------


async def asks_alone(ctx: Context, ev: SimGo, world: World) -> str:
    reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question=ev.task), timeout=None)
    await world.pause()
    return reply.text


async def nagging(ctx: Context, ev: SimGo, world: World) -> str:
    """Asks one of two questions by chance, so that it often comes back to one that it asked before."""
    reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question=world.coin()), timeout=None)
    return reply.text


class SimPing(Event):
    n: int


async def pinged(ctx: Context, ev: SimGo, world: World) -> int:
    await world.at("pinged waits")
    event = await ctx.wait_for_event(SimPing, timeout=None)
    return event.n


async def collects_and_fails(ctx: Context, ev: SimGo, world: World) -> int | None:
    """A collecting step that fails after it has collected does not collect twice."""
    both = ctx.collect_events(ev, [type(ev)] * 2, buffer_id="pair")
    await world.pause()
    if world.fails(("collects", ev.task), 2):
        raise ValueError("after collecting")
    return None if both is None else sorted(e.arg for e in both)  # type: ignore[attr-defined]


async def splits(ctx: Context, ev: SimGo, world: World) -> None:
    """Sends parts that two steps take, each on its own."""
    for i in range(ev.arg):
        ctx.send_event(SimWork(i=i))
        if i % 2:
            await world.pause()


async def streams_steadily(ctx: Context, ev: SimGo, world: World) -> None:
    for i in range(6):
        ctx.write_event_to_stream(SimItem(text=[ev.task, i]))
        if i % 3 == 0:
            await ctx.checkpoint(f"{ev.task} {i}")
        await world.pause()
        if i == 4 and world.fails(("stream", ev.task)):
            raise ValueError("on the stream")


class Listeners(Programs):
    """Two steps that accept one event, one of them failing at first."""

    @step(num_workers=1)
    async def first(self, ctx: Context, ev: SimWork) -> SimHeard:
        await self.world.pause()
        return SimHeard(by="first", i=ev.i)

    @step(num_workers=3, retry_policy=ConstantDelayRetryPolicy(5, 1))
    async def second(self, ctx: Context, ev: SimWork) -> SimHeard:
        await self.world.pause()
        if ev.i == 1 and self.world.fails("second"):
            raise ValueError("second")
        return SimHeard(by="second", i=ev.i)

    @step(num_workers=2)
    async def listen(self, ctx: Context, ev: SimHeard) -> SimDone | None:
        heard = ctx.collect_events(ev, [SimHeard] * 6)
        await self.world.pause()
        if heard is None:
            return None
        return SimDone(task="heard", result=sorted([h.by, h.i] for h in heard), total=2)  # type: ignore[attr-defined]


class FanOut(Programs):
    """A list of 20 parts, four workers, and a join."""

    @step
    async def split(self, ev: SimGo) -> list[SimPart]:
        return [SimPart(i=i, of=ev.arg, total=ev.total) for i in range(ev.arg)]

    @step(num_workers=4, retry_policy=ConstantDelayRetryPolicy(5, 1))
    async def work(self, ctx: Context, ev: SimPart) -> SimPiece:
        self.world.log.append((f"begin {ev.i}", "work", ()))
        async with ctx.lock:
            ctx.data["worked"] = ctx.data.get("worked", 0) + 1
        await self.world.pause()
        if ev.i % 7 == 3 and self.world.fails(ev.i):
            raise ValueError(str(ev.i))
        return SimPiece(i=ev.i, of=ev.of, total=ev.total)

    @step(num_workers=4)
    async def join(self, ctx: Context, ev: SimPiece) -> SimDone | None:
        await self.world.pause()
        pieces = ctx.collect_events(ev, [SimPiece] * ev.of)
        await self.world.pause()
        if pieces is None:
            return None
        return SimDone(task="join", result=sorted(p.i for p in pieces), total=ev.total)  # type: ignore[attr-defined]


def joined(number: int) -> Any:
    def check(run: Simulation) -> list[str]:
        released = [f for f in run.facts(BufferReleased) if f.buffer == "join"]
        return [f"join fired {len(released)} times"] * (len(released) != 1) + ["lost"] * (
            done(run).get("join") != list(range(number))
        )

    return check


def failures(run: Simulation) -> int:
    return len(run.facts(StepFailed))


def counted_or_reported(run: Simulation) -> list[str]:
    """A re-run may count keys that came meanwhile: the written number stands, and it is told that it is another."""
    diverged = {names_of_tasks(run)[f.task] for f in run.facts(StepDiverged)}
    return [f"state once: {t}" for t, number in done(run).items() if number != run.value(t) and t not in diverged]


def stream_in_order(*tasks: str) -> Any:
    """Each attempt's items are there once and in order; a second attempt publishes its own."""

    def check(run: Simulation) -> list[str]:
        broken = []
        for task in tasks:
            items = [e.text[1] for e in run.reader() if e.text[0] == task]  # type: ignore[attr-defined]
            # A failure that was not recorded did not happen: then the first attempt goes on.
            failed = any(names_of_tasks(run)[f.task] == task for f in run.facts(StepFailed))
            if items != [*(range(5) if failed else ()), *range(6)]:
                broken.append(f"stream of {task}: {items}")
        return broken

    return check


def one_task(program: str, arg: Any = 0) -> dict[str, tuple[str, Any]]:
    return {"A": (program, arg)}


def of(*programs: Any, base: type[Programs] = Consumers) -> type[Programs]:
    return with_programs(base, *programs)


def questions(number: int) -> Any:
    return lambda run: ["asked twice"] * (len(run.facts(WaitOpened)) != number)


MORE = {
    "fan-out of 20, join": Scenario(
        {"F": ("split", 20)}, workflow=FanOut, deterministic=False,
        check=both(joined(20), equal(lambda r: [(r.value("worked"), 20 + failures(r))])),
    ),
    "list held over calls": Scenario(
        one_task("appends_between_calls", 5), {"items": [0, 1, 2, 3, 4]}, workflow=of(appends_between_calls),
        check=exactly(get=5),
    ),
    "dict set, then filled": Scenario(
        one_task("fills_before_calls", 4), {"found": {f"key {i}": [i, i] for i in range(4)}},
        workflow=of(fills_before_calls),
    ),
    "list held over sends": Scenario(
        one_task("appends_between_sends", 4), {"items": [0, 0, 1, -1, 2, -2, 3, -3]},
        workflow=of(appends_between_sends), check=sends(SimWork=4),
    ),
    "list held over waits": Scenario(
        one_task("appends_between_waits", 3),
        {"texts": [t for i in range(3) for t in (f"asked {i}", f"re:{i}", f"slept {i}")]},
        workflow=of(appends_between_waits), check=questions(3),
    ),
    "list held, raises, retried": Scenario(
        one_task("appends_and_retries", 4), {"items": [0, 1, 2, 3]}, workflow=of(appends_and_retries),
        deterministic=False,
    ),
    "strands append to one list": Scenario(one_task("strands_append"), workflow=of(strands_append)),
    "append under the lock": Scenario(
        several("locked_append", 4), workflow=of(locked_append),
        check=equal(lambda r: [(sorted(r.value("items")), [[i, j] for i in range(4) for j in range(2)])]),
    ),
    "count under the lock, raises": Scenario(
        several("locked_counter", 4), workflow=of(locked_counter), deterministic=False,
        check=equal(lambda r: [(r.value("n"), 4 + failures(r))]),
    ),
    "edit_state": Scenario(
        several("edits_state", 4), {"n": 4}, workflow=of(edits_state),
        check=equal(lambda r: [(sorted(r.value("seen")), [0, 1, 2, 3])]),
    ),
    "counts the keys": Scenario(
        several("counts_keys", 4), workflow=of(counts_keys), deterministic=False,
        check=counted_or_reported,
    ),
    "deletes": Scenario(one_task("deletes"), {"a": 3, "c": {"x": 1, "y": 2}, "d": None}, workflow=of(deletes)),
    "clear": Scenario(one_task("clears"), {"left": 1, "k0": None}, workflow=of(clears)),
    "sleep": Scenario(one_task("sleeper"), {"naps": 3}, workflow=of(sleeper), check=naps_are_never_short),
    "strands of every kind": Scenario(
        one_task("strands"), workflow=of(strands), check=equal(lambda r: [(done(r)["A"], sorted(r.value("log")))])
    ),
    "strands, retried": Scenario(
        one_task("strands_retried"), workflow=of(strands_retried), deterministic=False,
        check=both(
            equal(lambda r: [(done(r)["A"], sorted(r.value("log")))]), exactly(x0=1, x1=1, y0=1, y1=1, z0=1, z1=1)
        ),
    ),
    "questions at once": Scenario(several("asks_alone", 6), workflow=of(asks_alone), check=questions(6)),
    "question of two, by chance": Scenario(one_task("nagging"), workflow=of(nagging), deterministic=False),
    "collects, then fails": Scenario(several("collects_and_fails", 2), workflow=of(collects_and_fails)),
    "two steps take one event": Scenario(
        one_task("splits", 3), more=1, workflow=of(splits, base=Listeners),
        check=equal(lambda r: [(done(r)["heard"], [[by, i] for by in ("first", "second") for i in range(3)])]),
    ),
    "streams, retried": Scenario(
        several("streams_steadily", 2), workflow=of(streams_steadily), check=stream_in_order("t0", "t1")
    ),
}  # fmt: skip

__all__ = ["MORE"]
