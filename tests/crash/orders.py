"""The workflow that is killed: fan-outs and joins, failure, retry, questions, a wait, calls, a timer, stream, loop."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from durable_flow import (
    Collect,
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Take,
    Workflow,
    WorkflowHandler,
    step,
)

PARTS = 3
CRATES = 3
FAILING_PART = 2
RETRY_SECONDS = 0.02
SLEEP_SECONDS = 0.02


class Ordered(StartEvent):
    order: str
    laps: int


class Part(Event):
    number: int


class Priced(Event):
    number: int
    price: int


class Packed(Event):
    total: int


class Approval(InputRequiredEvent):
    total: int


class Approved(HumanResponseEvent):
    by: str


class Lap(Event):
    number: int
    of: int


class Ready(Event):
    pass


class TruckWanted(InputRequiredEvent):
    order: str


class Truck(Event):
    order: str
    plate: str


class Loaded(Event):
    number: int


class Stowed(Event):
    number: int


class Label(Event):
    number: int


class Printed(Event):
    number: int


class Bundle(Event):
    labels: list[int]


class Sealed(Event):
    pass


class Progress(Event):
    of: str
    number: int
    text: str
    nonce: str = ""


def price_of(number: int) -> int:
    return 100 + number


class Notes:
    """The side file: one line for every start of a step's body and of a called function."""

    def __init__(self, path: Path):
        self.path = path

    def add(self, run_id: str, what: str, key: str, attempt: int = 1) -> None:
        self._write(self.path, f"{run_id} {what} {key} {attempt}\n")

    def seen(self, run_id: str, position: int, event: Event) -> None:
        """Note in a file beside it what a reader of the stream got."""
        if isinstance(event, Progress):
            self._write(self.path.with_name("seen.txt"), f"{run_id} {position} {event.model_dump_json()}\n")

    def _write(self, path: Path, line: str) -> None:
        file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(file, line.encode())
        os.close(file)


class Orders(Workflow):
    def __init__(self, notes: Notes, **kwargs: Any):
        super().__init__(**kwargs)
        self.notes = notes

    def note(self, ctx: Context, step: str, event: Event, attempt: int = 1) -> None:
        self.notes.add(ctx.run_id, step, f"{type(event).__name__}:{getattr(event, 'number', 0)}", attempt)

    @step
    async def begin(self, ctx: Context, ev: Ordered) -> list[Part]:
        self.note(ctx, "begin", ev)
        ctx.data["order"] = ev.order
        ctx.data["wanted"] = ev.laps
        ctx.data["laps"] = []
        return [Part(number=number) for number in range(1, PARTS + 1)]

    @step(num_workers=2, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=RETRY_SECONDS))
    async def price(self, ctx: Context, ev: Part) -> Priced:
        tries = ctx.data.get(f"tries:{ev.number}", 0) + 1
        self.note(ctx, "price", ev, tries)
        ctx.data[f"tries:{ev.number}"] = tries
        price = await ctx.call("quote", self.quote, ctx.run_id, ev.number)
        ctx.write_event_to_stream(Progress(of="price", number=ev.number, text=f"try {tries}"))
        if ev.number == FAILING_PART and tries == 1:
            raise ConnectionError("the price list cannot be read")
        await ctx.store.set(f"prices.{ev.number}", price)
        return Priced(number=ev.number, price=price)

    async def quote(self, run_id: str, number: int) -> int:
        self.notes.add(run_id, "call", f"quote:{number}")
        return price_of(number)

    @step
    async def join(self, ctx: Context, ev: Priced) -> Packed | None:
        self.note(ctx, "join", ev)
        priced = ctx.collect_events(ev, [Priced] * PARTS)
        # A commit between the collection and the end: killed here, the step collects once more.
        await ctx.checkpoint(f"collected {ev.number}")
        if priced is None:
            return None
        return Packed(total=sum(one.price for one in priced))

    @step
    async def pack(self, ctx: Context, ev: Packed) -> Approval:
        self.note(ctx, "pack", ev)
        ctx.write_event_to_stream(Progress(of="pack", number=1, text="began"))
        await ctx.checkpoint("packing")
        # Another one in each run of this body: after a crash the item is published anew, behind a reset.
        ctx.write_event_to_stream(Progress(of="pack", number=2, text="sealed", nonce=secrets.token_hex(4)))
        await ctx.sleep(SLEEP_SECONDS)
        ctx.write_event_to_stream(Progress(of="pack", number=3, text="done"))
        ctx.data["total"] = ev.total
        return Approval(total=ev.total)

    @step
    async def deliver(self, ctx: Context, ev: Approved) -> Lap:
        self.note(ctx, "deliver", ev)
        await ctx.set("approved_by", ev.by)
        return Lap(number=1, of=ctx.data["wanted"])

    @step
    async def lap(self, ctx: Context, ev: Lap) -> Lap | Ready:
        self.note(ctx, "lap", ev)
        ctx.data["laps"].append(ev.number)
        await asyncio.sleep(0)
        return Lap(number=ev.number + 1, of=ev.of) if ev.number < ev.of else Ready()

    @step
    async def ship(self, ctx: Context, ev: Ready) -> Loaded:
        self.note(ctx, "ship", ev)
        order = ctx.data["order"]
        truck = await ctx.wait_for_event(Truck, waiter_event=TruckWanted(order=order), requirements={"order": order})
        for number in range(1, CRATES):
            ctx.send_event(Loaded(number=number))
        ctx.data["truck"] = await ctx.call("book", self.book, ctx.run_id, truck.plate)
        return Loaded(number=CRATES)

    async def book(self, run_id: str, plate: str) -> str:
        self.notes.add(run_id, "call", "book:0")
        return f"booked {plate}"

    @step
    async def load(self, ctx: Context, ev: Loaded) -> Stowed:
        self.note(ctx, "load", ev)
        async with ctx.store.edit_state() as state:
            state[f"crate:{ev.number}"] = "stowed"
        return Stowed(number=ev.number)

    @step
    async def stow(self, ctx: Context, ev: Stowed) -> list[Label] | None:
        self.note(ctx, "stow", ev)
        stowed = ctx.collect_events(ev, [Stowed] * CRATES)
        if stowed is None:
            return None
        return [Label(number=number) for number in sorted(one.number for one in stowed)]

    @step(num_workers=2)
    async def print_label(self, ctx: Context, ev: Label) -> Printed:
        self.note(ctx, "print_label", ev)
        await ctx.checkpoint(f"printing {ev.number}")
        return Printed(number=ev.number)

    @step
    async def bundle(self, ctx: Context, labels: list[Printed]) -> Bundle:
        self.notes.add(ctx.run_id, "bundle", "bundle:0")
        return Bundle(labels=sorted(label.number for label in labels))

    @step
    async def seal(self, ctx: Context, first: Annotated[list[Printed], Collect(Take(1))]) -> Sealed:
        self.notes.add(ctx.run_id, "seal", "seal:0")
        assert len(first) == 1
        return Sealed()

    @step
    async def finish(self, ctx: Context, bundle: Bundle, seal: Sealed) -> StopEvent:
        self.notes.add(ctx.run_id, "finish", "finish:0")
        data = ctx.data
        return StopEvent(
            result={
                "order": data["order"],
                "total": data["total"],
                "by": data["approved_by"],
                "laps": list(data["laps"]),
                "truck": data["truck"],
                "crates": bundle.labels,
            }
        )


async def attend(
    flow: Orders,
    journal: Journal,
    run_id: str,
    *,
    laps: int,
    handler: WorkflowHandler | None,
    at_question: Callable[[], None] | None,
) -> Any:
    """Start a run or go on with it, answer what it asks, note what it streams, and return its result."""
    if handler is None:
        handler = flow.run(run_id=run_id, order=f"of {run_id}", laps=laps)
    async for event in handler.stream_events():
        flow.notes.seen(run_id, handler.stream_position, event)
        if isinstance(event, Approval):
            if at_question is not None:
                at_question()
            await handler.send_event(Approved(by="kim", wait_id=event.wait_id))
        elif isinstance(event, TruckWanted):
            # By the journal, and with an id: it is sent again by every process that sees the question.
            await journal.send(run_id, Truck(order=event.order, plate="K-42"), message_id=f"truck-{run_id}")
    return await handler
