"""Plain `def` steps: what they may do in their threads, and that none of them waits for the threads of others."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.records import CallRecorded, CheckpointNamed, TimerFired

from .flows import records_of


class SyncItem(Event):
    n: int


class SyncDone(Event):
    n: int


class SyncQuestion(InputRequiredEvent):
    text: str


class SyncAnswer(HumanResponseEvent):
    text: str


@pytest.fixture
async def two_threads() -> None:
    """Let the running loop have no more than two threads for `asyncio.to_thread`."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))


class Doubles(Workflow):
    @step
    def double(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=2 * ev.n)


class Nests(Workflow):
    """Runs a child in each of several threads at once, whose only step is a plain one, too."""

    def __init__(self, child: Workflow, **kwargs: Any):
        super().__init__(**kwargs)
        self.child = child

    @step
    async def begin(self, ev: StartEvent) -> list[SyncItem]:
        return [SyncItem(n=ev.get("n", 0) + n) for n in range(5)]

    @step(num_workers=5)
    def nest(self, ev: SyncItem) -> SyncDone:
        return SyncDone(n=self.child.run_sync(n=ev.n))

    @step
    async def end(self, events: list[SyncDone]) -> StopEvent:
        return StopEvent(result=sum(event.n for event in events))


async def test_plain_steps_that_wait_for_children_leave_these_a_thread(journal: Journal, two_threads: None) -> None:
    assert await Nests(Doubles(), journal=journal).run() == 2 * (0 + 1 + 2 + 3 + 4)


async def test_children_of_children_have_threads_too(memory: Journal, two_threads: None) -> None:
    inner = Nests(Doubles(), workflow_name="Inner")
    assert await Nests(inner, journal=memory).run() == sum(2 * (n + m) for n in range(5) for m in range(5))


async def test_an_error_of_a_childs_plain_step_reaches_its_parents_thread(memory: Journal, two_threads: None) -> None:
    class Fails(Workflow):
        @step
        def fail(self, ev: StartEvent) -> StopEvent:
            raise LookupError(f"no {ev.n}")

    class Catches(Nests):
        @step(num_workers=5)
        def nest(self, ev: SyncItem) -> SyncDone:
            with pytest.raises(LookupError, match=f"no {ev.n}"):
                self.child.run_sync(n=ev.n)
            return SyncDone(n=1)

    assert await Catches(Fails(), journal=memory).run() == 5


async def test_what_a_context_lets_await_can_be_awaited_in_a_loop_of_the_thread(journal: Journal) -> None:
    called = threading.Event()

    def price(item: str) -> int:
        assert not called.is_set()
        called.set()
        return len(item)

    class Asks(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0))
        def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def asked() -> Any:
                await ctx.set("price", await ctx.call("price", price, "lamp"))
                await ctx.sleep(0.001)
                await ctx.checkpoint("priced")
                answer = await ctx.wait_for_event(SyncAnswer, waiter_event=SyncQuestion(text="buy?"), waiter_id="buy")
                if ctx.retry_info().retry_number == 0:
                    raise LookupError("not now")
                return answer.text, await ctx.get("price")

            return StopEvent(result=asyncio.run(asked()))

    handler = Asks(journal=journal).run(run_id="asks")
    async for event in handler.stream_events():
        if isinstance(event, SyncQuestion):
            await handler.send_event(SyncAnswer(text="yes"), wait_id=event.wait_id)
    assert await handler == ("yes", 4)
    kinds = CallRecorded, CheckpointNamed, TimerFired
    # The second attempt has the call's result and the answer, and sleeps anew.
    assert [len(await records_of(journal, "asks", kind)) for kind in kinds] == [1, 2, 2]


async def test_a_call_in_a_thread_needs_no_thread_of_the_loop(memory: Journal, two_threads: None) -> None:
    class Calls(Nests):
        @step(num_workers=5)
        def nest(self, ctx: Context, ev: SyncItem) -> SyncDone:  # type: ignore[override]
            return SyncDone(n=asyncio.run(ctx.call("double", lambda n: 2 * n, ev.n)))

    assert await Calls(Doubles(), journal=memory).run() == 20


async def test_a_run_that_is_released_while_a_thread_waits_goes_on_later(journal: Journal) -> None:
    left = asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    class Waits(Workflow):
        @step
        def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["times"] = ctx.data.get("times", 0) + 1
            try:
                answer = asyncio.run(ctx.wait_for_event(SyncAnswer, waiter_event=SyncQuestion(text="?")))
            except BaseException as error:
                loop.call_soon_threadsafe(left.put_nowait, type(error).__name__)
                raise
            return StopEvent(result=(answer.text, ctx.data["times"]))

    flow = Waits(journal=journal)
    first = flow.run(run_id="waits")
    async for event in first.stream_events():
        if isinstance(event, SyncQuestion):
            break
    assert first.cancel()
    # By then it is suspended or just about to be.
    assert await left.get() in ("StepReleased", "CancelledError")
    later = flow.run(run_id="waits")
    await later.send_event(SyncAnswer(text="hello"))
    assert await later == ("hello", 1)


async def test_locks_are_taken_from_threads_and_from_the_loop(journal: Journal) -> None:
    class Counts(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[SyncItem]:
            return [SyncItem(n=n) for n in range(4)]

        async def count(self, ctx: Context) -> None:
            async with ctx.lock:
                number = await ctx.get("locked", 0)
                await asyncio.sleep(0.001)
                await ctx.set("locked", number + 1)
            async with ctx.store.edit_state() as state:
                number = state.get("edited", 0)
                await asyncio.sleep(0.001)
                state["edited"] = number + 1

        @step(num_workers=4)
        def in_thread(self, ctx: Context, ev: SyncItem) -> SyncDone:
            asyncio.run(self.count(ctx))
            return SyncDone(n=ev.n)

        @step(num_workers=4)
        async def in_loop(self, ctx: Context, ev: SyncItem) -> SyncDone:
            await self.count(ctx)
            return SyncDone(n=ev.n)

        @step
        async def end(self, ctx: Context, events: list[SyncDone]) -> StopEvent:
            return StopEvent(result=[len(events), ctx.data["locked"], ctx.data["edited"]])

    assert await Counts(journal=journal).run() == [8, 8, 8]


async def test_a_thread_that_gives_up_waiting_for_the_lock_does_not_get_it(memory: Journal) -> None:
    given_up, loop = asyncio.Event(), asyncio.get_running_loop()

    class GivesUp(Workflow):
        @step
        async def hold(self, ctx: Context, ev: StartEvent) -> SyncItem | StopEvent:
            async with ctx.lock:
                ctx.send_event(SyncItem(n=1))
                await given_up.wait()
            async with ctx.lock:
                return StopEvent(result="locked again")

        @step
        def give_up(self, ctx: Context, ev: SyncItem) -> StopEvent | None:
            async def wait() -> None:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ctx.lock.acquire(), 0.001)

            asyncio.run(wait())
            loop.call_soon_threadsafe(given_up.set)
            return None

    assert await GivesUp(journal=memory).run() == "locked again"


async def test_the_end_of_a_run_cancels_what_its_threads_wait_for(journal: Journal) -> None:
    left, loop = asyncio.Queue[str](), asyncio.get_running_loop()

    class AsksToo(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(SyncAnswer, waiter_event=SyncQuestion(text="child?"))
            return StopEvent(result=answer.text)

    class Asks(Workflow):
        child = AsksToo()

        @step
        async def begin(self, ev: StartEvent) -> list[SyncItem]:
            return [SyncItem(n=0), SyncItem(n=1)]

        @step
        def work(self, ctx: Context, ev: SyncItem) -> StopEvent:
            try:
                if ev.n:
                    return StopEvent(result=self.child.run_sync())
                question = SyncQuestion(text="thread?")
                return StopEvent(result=asyncio.run(ctx.wait_for_event(SyncAnswer, waiter_event=question)).text)
            except BaseException as error:
                loop.call_soon_threadsafe(left.put_nowait, type(error).__name__)
                raise

    handler, asked = Asks(journal=journal).run(), set()
    async for event in handler.stream_events():
        if isinstance(event, SyncQuestion):
            asked.add(event.text)
            if asked == {"child?", "thread?"}:
                break
    await handler.cancel_run()
    assert [await left.get() for _ in range(2)] == ["CancelledError"] * 2


async def test_a_thread_may_not_wait_for_an_event_while_it_edits_the_state(memory: Journal) -> None:
    class Edits(Workflow):
        @step
        def edit(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def edit() -> None:
                async with ctx.store.edit_state() as state:
                    state["n"] = 1
                    with pytest.raises(ContextStateError, match="inside edit_state"):
                        await ctx.wait_for_event(SyncAnswer)
                await ctx.sleep(0)

            asyncio.run(edit())
            return StopEvent(result=ctx.data["n"])

    assert await Edits(journal=memory).run() == 1
