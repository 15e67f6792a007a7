"""Small workflows that several tests use, and what they need to watch and hold them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest import mock

from durable_flow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowHandler,
    step,
)
from durable_flow.engine.run import Run


class Order(StartEvent):
    item: str
    count: int = 1


class Packed(Event):
    item: str


class Shop(Workflow):
    """Packs an order, then ships it. `hold`, if given, keeps the shipping until it is set."""

    def __init__(self, *, hold: asyncio.Event | None = None, fail: BaseException | None = None, **kwargs: Any):
        super().__init__(**{"workflow_name": "Shop", **kwargs})
        self.hold = hold
        self.fail = fail
        self.ran: list[str] = []
        self.shipping = asyncio.Event()

    @step
    async def pack(self, ev: Order) -> Packed:
        self.ran.append("pack")
        return Packed(item=f"{ev.count} {ev.item}")

    @step
    async def ship(self, ctx: Context, ev: Packed) -> StopEvent:
        self.ran.append("ship")
        ctx.write_event_to_stream(Packed(item=f"shipping {ev.item}"))
        self.shipping.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fail is not None:
            raise self.fail
        return StopEvent(result=f"shipped {ev.item}")


class Question(InputRequiredEvent):
    text: str


class Answer(HumanResponseEvent):
    text: str


class Asking(Workflow):
    """Asks by a returned event; the answer starts a step."""

    def __init__(self, **kwargs: Any):
        super().__init__(**{"workflow_name": "Asking", **kwargs})
        self.ran: list[str] = []

    @step
    async def ask(self, ev: StartEvent) -> Question:
        self.ran.append("ask")
        return Question(text="go on?")

    @step
    async def answered(self, ev: Answer) -> StopEvent:
        self.ran.append(f"answered {ev.text}")
        return StopEvent(result=ev.text)


async def question(handler: WorkflowHandler) -> Question:
    """Return the next question on the stream."""
    async with contextlib.aclosing(handler.stream_events()) as events:
        async for event in events:
            if isinstance(event, Question):
                return event
    raise AssertionError("the run ended without a question")


async def released(handler: WorkflowHandler) -> None:
    """Release a run as a cancelled caller does, and wait until that is known."""
    waiting = asyncio.ensure_future(handler)
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


async def streamed(handler: WorkflowHandler) -> list[Event]:
    """Return everything on the stream up to the run's end."""
    return [event async for event in handler.stream_events()]


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait for what only the journal tells, or another thread or process does."""
    while True:
        if await condition():
            return
        await asyncio.sleep(0.002)


@contextlib.contextmanager
def time_stands_still() -> Iterator[None]:
    """Let no time pass for the runs of this process within the block, so that none is too slow for its timeout."""
    now = time.time_ns() // 1_000
    still = SimpleNamespace(now=lambda: now)
    # In front of the clock that a run has of its own, or is given meanwhile.
    clock = property(lambda run: still, lambda run, clock: vars(run).update(clock=clock))
    with mock.patch.object(Run, "clock", clock, create=True):
        yield


async def recorded(journal: Journal, run_id: str, kind: type, count: int = 1) -> None:
    """Wait until so many facts of this kind are in the journal of a run, which may be about to begin."""

    async def there() -> bool:
        with contextlib.suppress(RunNotFoundError):
            return len(await records_of(journal, run_id, kind)) >= count
        return False

    await until(there)


async def in_another_loop(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main()` to its end in a loop and thread of its own."""
    with ThreadPoolExecutor(1) as threads:
        return await asyncio.wrap_future(threads.submit(lambda: asyncio.run(main())))


async def records_of(journal: Journal, run_id: str, *kinds: type) -> list[Any]:
    """Return the facts of these kinds in a run's journal, in order."""
    return [r.fact for r in await journal.history(run_id) if isinstance(r.fact, kinds)]
