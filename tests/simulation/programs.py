"""The programs of the effects model as steps of a real workflow, and the join that ends their run.

A program is `async def program(ctx, ev, world)`; `ev.arg` is what the model calls its event. It becomes a step of the
same name; what it returns is its task's result. The run ends when all tasks are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from durable_flow import Context, Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from durable_flow.retry_policy import ConstantDelayRetryPolicy

from .simulation import CallFailed, Human, World, answering

RETRY_DELAY = 3


class SimBegin(StartEvent):
    """`tasks` are names with program and argument; `more` counts the tasks that those bring about by events."""

    tasks: dict[str, tuple[str, Any]]
    more: int = 0


class SimGo(Event):
    """Starts a program."""

    task: str
    arg: Any = None
    total: int


class SimDone(Event):
    """A program's end."""

    task: str
    result: Any = None
    total: int


class SimSid(Event):
    sid: str
    total: int


class SimLast(Event):
    y: int
    total: int


class SimWork(Event):
    i: Any


class SimPaid(Event):
    amount: int


class SimChosen(Event):
    choice: str


class SimAfter(Event):
    choice: Any


class SimBranchA(Event):
    pass


class SimBranchB(Event):
    pass


class SimItem(Event):
    text: Any


class SimAsk(InputRequiredEvent):
    question: str


class SimReply(HumanResponseEvent):
    text: str


def human(eager: float = 0.3) -> Human:
    """Return a human who repeats the question in the answer."""
    someone = answering(lambda ask: SimReply(text=f"re:{ask.question}"))  # type: ignore[attr-defined]
    someone.eager = eager
    return someone


Program = Callable[[Context, Any, World], Awaitable[Any]]
EVENTS: dict[str, type[SimGo]] = {"split": SimGo}


def as_step(program: Program, *, num_workers: int = 4, attempts: int = 6) -> Any:
    """Return the program as a step that takes an event class of its own."""
    name = program.__name__
    event_class = type("Sim" + name.title().replace("_", ""), (SimGo,), {"__module__": __name__})
    EVENTS[name] = event_class

    async def body(self: Any, ctx: Context, ev: SimGo) -> SimDone:
        result = await program(ctx, ev, self.world)
        return SimDone(task=ev.task, result=result, total=ev.total)

    body.__name__, body.__qualname__ = name, f"Programs.{name}"
    body.__annotations__ = {"self": Any, "ctx": Context, "ev": event_class, "return": SimDone}
    return step(num_workers=num_workers, retry_policy=ConstantDelayRetryPolicy(attempts, RETRY_DELAY))(body)


class Programs(Workflow):
    """Begins the tasks and ends the run when all of them are done; subclasses hold the programs."""

    world: World

    @step
    async def begin(self, ev: SimBegin) -> list[SimGo]:
        total = len(ev.tasks) + ev.more
        return [EVENTS[program](task=task, arg=arg, total=total) for task, (program, arg) in ev.tasks.items()]

    @step(num_workers=1)
    async def finish(self, ctx: Context, ev: SimDone) -> StopEvent | None:
        done = ctx.collect_events(ev, [SimDone] * ev.total)
        if done is None:
            return None
        return StopEvent(result={d.task: d.result for d in done})  # type: ignore[attr-defined]


def with_programs(base: type[Programs], *programs: Program) -> type[Programs]:
    """Return a workflow with these programs as its steps."""
    steps = {program.__name__: as_step(program) for program in programs}
    return type(f"With{base.__name__}", (base,), steps)


# The model's programs.
async def counter(ctx: Context, ev: SimGo, world: World) -> int:
    await world.pause()
    n = ctx.data.get("n", 0)
    ctx.data["n"] = n + 1
    await world.at(f"{ev.task} has written")
    await world.pause()
    await world.pause()
    return n + 1


async def append(ctx: Context, ev: SimGo, world: World) -> None:
    await world.pause()
    await ctx.set("list", [*await ctx.get("list", []), ev.arg])
    await world.pause()
    await world.pause()


async def own_key(ctx: Context, ev: SimGo, world: World) -> str:
    await world.pause()
    value = world.llm()
    ctx.data[f"notes:{ev.arg}"] = value
    await world.at(f"{ev.task} has written")
    await world.pause()
    await world.pause()
    return value


async def noise(ctx: Context, ev: SimGo, world: World) -> None:
    for _ in range(3):
        await world.pause()


async def sender(ctx: Context, ev: SimGo, world: World) -> None:
    sid = world.llm()
    ctx.data["sid"] = sid
    ctx.send_event(SimSid(sid=sid, total=ev.total))
    await world.at(f"{ev.task} has sent")
    for _ in range(3):
        await world.pause()


async def asker(ctx: Context, ev: SimGo, world: World) -> None:
    ctx.data["s"] = "asked"
    while ctx.data["s"] != "answered":
        await world.at(f"{ev.task} polls")
        await world.pause()
    ctx.data["s"] = "done"
    await world.pause()


async def answerer(ctx: Context, ev: SimGo, world: World) -> None:
    while ctx.data.get("s") != "asked":
        if ctx.data.get("s") == "done":
            return
        await world.pause()
    ctx.data["s"] = "answered"
    await world.pause()


async def charger(ctx: Context, ev: SimGo, world: World) -> int:
    await ctx.call("charge", world.fn(ev.task, "charge", lambda amount: "receipt"), 7)
    tries: int = ctx.data.get("tries", 0) + 1
    ctx.data["tries"] = tries
    ctx.send_event(SimPaid(amount=7))
    await world.pause()
    if tries < ev.arg:
        raise ValueError("mail server")
    return tries


async def _loop_sends(ctx: Context, world: World, content: Callable[[int], Any]) -> None:
    for i in range(ctx.data.get("i", 0), 8):
        ctx.send_event(SimWork(i=content(i)))
        if i == 2 and world.fails("between"):
            raise ValueError("between the event and the progress")
        ctx.data["i"] = i + 1
        await world.pause()
        if i in (3, 5) and world.fails(i):
            raise ValueError(f"at {i}")


async def loop_sends(ctx: Context, ev: SimGo, world: World) -> None:
    await _loop_sends(ctx, world, lambda i: i)


async def loop_ticks(ctx: Context, ev: SimGo, world: World) -> None:
    await _loop_sends(ctx, world, lambda i: "tick")


async def loop_calls(ctx: Context, ev: SimGo, world: World) -> None:
    for i in range(ctx.data.get("i", 0), ev.arg):
        await ctx.call("get", world.fn(ev.task, "get", str), i)
        ctx.data["i"] = ctx.data.get("i", 0) + 1


async def watcher(ctx: Context, ev: SimGo, world: World) -> list[int]:
    for _ in range(world.rng.randrange(5)):
        await world.pause()
    return [ctx.data.get(key, 0) for key in ("i", "n", "sum", "tries")]


async def nested_a(ctx: Context, ev: SimGo, world: World) -> None:
    ctx.data["w"] = 1
    ctx.data["x"] = 1
    for _ in range(4):
        await world.pause()


async def nested_b(ctx: Context, ev: SimGo, world: World) -> None:
    while (x := ctx.data.get("x")) is None:
        await world.pause()
    ctx.data["y"] = x + 1
    for _ in range(4):
        await world.pause()


async def nested_c(ctx: Context, ev: SimGo, world: World) -> None:
    while (y := ctx.data.get("y")) is None:
        await world.pause()
    ctx.send_event(SimLast(y=y, total=ev.total))
    await world.pause()


async def writer(ctx: Context, ev: SimGo, world: World) -> None:
    for key in ("a", "b", "a") if ev.arg % 2 else ("b", "a", "a"):
        ctx.data[key] = ctx.data.get(key, 0) + 1
        await world.pause()
        if world.fails((ev.arg, key), ev.arg % 3):
            raise ValueError(key)


async def asks_human(ctx: Context, ev: SimGo, world: World) -> tuple[str, str]:
    question = await ctx.call("draft", world.fn(ev.task, "draft", world.llm)) if ev.arg else world.llm()
    reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question=question), timeout=None)
    ctx.data["answer"] = (question, reply.text)
    await world.pause()
    if ev.arg and world.fails("human"):
        raise ValueError("after the answer")
    return question, reply.text


async def streamer(ctx: Context, ev: SimGo, world: World) -> str:
    items = ""
    for _ in range(world.rng.randrange(1, 5)):
        item = world.coin()
        ctx.write_event_to_stream(SimItem(text=item))
        items += item
        await world.pause()
    return items


async def gathering(ctx: Context, ev: SimGo, world: World) -> int:
    async def one(u: int) -> None:
        result = await ctx.call(f"get{u}", world.fn(ev.task, f"get{u}", lambda: 10**u))
        ctx.data["sum"] = ctx.data.get("sum", 0) + result

    await asyncio.gather(*(one(u) for u in range(4)))
    total: int = ctx.data["sum"]
    return total


async def flaky_call(ctx: Context, ev: SimGo, world: World) -> str | None:
    def fetch() -> str:
        if world.fails("fetch"):
            raise CallFailed("fetch")
        return "page"

    page = None
    for _ in range(3):
        try:
            page = await ctx.call("fetch", world.fn(ev.task, "fetch", fetch))
        except CallFailed:
            continue
        break
    await world.pause()
    return page


async def chooser(ctx: Context, ev: SimGo, world: World) -> None:
    choice = world.coin()
    ctx.data["choice"] = choice
    ctx.send_event(SimChosen(choice=choice))
    await world.pause()
    if world.fails("chooser"):
        raise ValueError("after the choice")
    ctx.send_event(SimAfter(choice=ctx.data["choice"]))
    await world.pause()
    await world.pause()


async def branch(ctx: Context, ev: SimGo, world: World) -> None:
    ctx.send_event(SimBranchA() if world.coin() == "a" else SimBranchB())
    await world.pause()
    await world.pause()


async def llm_charge(ctx: Context, ev: SimGo, world: World) -> None:
    amount = world.llm()
    await ctx.call("charge", world.fn(ev.task, "charge", lambda amount: "receipt"), amount)
    await world.pause()
    await world.pause()


async def deadline(ctx: Context, ev: SimGo, world: World) -> str:
    reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question="name?"), timeout=5)
    return reply.text


async def parses(ctx: Context, ev: SimGo, world: World) -> str:
    reply: str = await ctx.call("llm", world.fn(ev.task, "llm", world.coin))
    await world.pause()
    if reply == "b":
        raise ValueError("not JSON")
    return reply


async def search(ctx: Context, ev: SimGo, world: World) -> None:
    query = world.llm() if ev.arg == "other" else "q"
    await ctx.call("search", world.fn(ev.task, "search", str), query)
    await world.at(f"{ev.task} has called")
    await world.pause()


async def asks(ctx: Context, ev: SimGo, world: World) -> str:
    reply = await ctx.wait_for_event(
        SimReply, waiter_event=SimAsk(question=world.llm()), waiter_id=ev.arg, timeout=None
    )
    return reply.text


async def letters(ctx: Context, ev: SimGo, world: World) -> None:
    for letter in "abc" if world.fails("letters") else "aX":
        ctx.write_event_to_stream(SimItem(text=letter))
        await world.at(f"{ev.task} has streamed {letter}")
        await world.pause()


MODEL = (
    counter, append, own_key, noise, sender, asker, answerer, charger, loop_sends, loop_ticks, loop_calls, watcher,
    nested_a, nested_b, nested_c, writer, asks_human, streamer, gathering, flaky_call, chooser, branch, llm_charge,
    deadline, parses, search, asks, letters,
)  # fmt: skip


class Consumers(Programs):
    """The consumers of what the model's programs send."""

    @step
    async def sid_reader(self, ctx: Context, ev: SimSid) -> SimDone:
        await self.world.pause()
        return SimDone(task=f"read {ev.sid}", result=(ev.sid, ctx.data.get("sid")), total=ev.total)

    @step
    async def nested_last(self, ctx: Context, ev: SimLast) -> SimDone:
        return SimDone(task="last", result=[ctx.data.get(key) for key in "wxy"], total=ev.total)


ModelPrograms = with_programs(Consumers, *MODEL)
