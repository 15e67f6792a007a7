"""Effects of a running step: `ctx.call`, `ctx.sleep`, `ctx.checkpoint`, idempotency keys, and the end of a context."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    Journal,
    NeedsAttentionError,
    SerializationError,
    StartEvent,
    StepDivergedError,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from durable_flow.records import CallRecorded, TimerFired, TimerSet

from .flows import records_of, released, until


class Stops:
    """A place in a step where the test holds it, once."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.passes = False

    async def here(self) -> None:
        if not self.passes:
            self.passes = True
            self.reached.set()
            await asyncio.Event().wait()


# -- ctx.call ----------------------------------------------------------------------------------------------------------


async def test_a_call_is_made_once_and_its_result_returned_to_a_step_that_runs_again(journal: Journal) -> None:
    calls: list[tuple[Any, ...]] = []
    stop = Stops()

    async def charge(amount: int, *, currency: str) -> dict[str, Any]:
        calls.append((amount, currency))
        return {"receipt": len(calls)}

    class Pays(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first = await ctx.call("charge", charge, 5, currency="EUR")
            second = await ctx.call("charge", charge, 6, currency="EUR")
            await stop.here()
            third = await ctx.call("charge", charge, 7, currency="EUR")
            return StopEvent(result=[first, second, third])

    flow = Pays(journal=journal)
    handler = flow.run(run_id="r")
    await stop.reached.wait()
    await released(handler)
    assert await (await flow.resume("r")) == [{"receipt": 1}, {"receipt": 2}, {"receipt": 3}]
    assert calls == [(5, "EUR"), (6, "EUR"), (7, "EUR")]
    recorded = await records_of(journal, "r", CallRecorded)
    assert [(c.name, c.k, journal.decode(c.result)) for c in recorded] == [
        ("charge", 0, {"receipt": 1}),
        ("charge", 1, {"receipt": 2}),
        ("charge", 2, {"receipt": 3}),
    ]


async def test_a_plain_function_is_called_in_a_thread(journal: Journal) -> None:
    class Calls(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ctx.call("ident", threading.get_ident))

    assert await Calls(journal=journal).run() != threading.get_ident()


async def test_what_a_call_raises_reaches_the_step_and_it_is_made_again(journal: Journal) -> None:
    calls: list[int] = []

    async def flaky() -> str:
        calls.append(len(calls))
        if len(calls) < 3:
            raise ConnectionError(f"down {len(calls)}")
        return "up"

    class Calls(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            errors = []
            while True:
                try:
                    return StopEvent(result=[*errors, await ctx.call("flaky", flaky)])
                except ConnectionError as error:
                    errors.append(str(error))

    assert await Calls(journal=journal).run(run_id="r") == ["down 1", "down 2", "up"]
    assert [c.k for c in await records_of(journal, "r", CallRecorded)] == [0]


async def test_calls_of_one_name_at_once_are_refused_and_distinct_names_are_not(journal: Journal) -> None:
    async def echo(value: int) -> int:
        await asyncio.sleep(0)
        return value

    class Calls(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            same = await asyncio.gather(ctx.call("a", echo, 1), ctx.call("a", echo, 2), return_exceptions=True)
            assert same[0] == 1
            assert isinstance(same[1], WorkflowRuntimeError)
            assert "'a'" in str(same[1])
            return StopEvent(result=await asyncio.gather(*(ctx.call(f"a{n}", echo, n) for n in range(5))))

    assert await Calls(journal=journal).run() == [0, 1, 2, 3, 4]


async def test_a_result_that_cannot_be_encoded_is_named_and_not_recorded(journal: Journal) -> None:
    async def odd() -> dict[str, Any]:
        return {"ok": 1, "bad": [object()]}

    class Calls(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(SerializationError, match="odd") as raised:
                await ctx.call("odd", odd)
            return StopEvent(result=raised.value.path)

    path = await Calls(journal=journal).run(run_id="r")
    assert path.endswith("['bad'][0]") or path.endswith(".bad[0]")
    assert await records_of(journal, "r", CallRecorded) == []


async def test_other_arguments_in_a_re_run_park_the_run_and_call_nothing(journal: Journal) -> None:
    calls: list[str] = []
    queries = ["first", "second", "first"]
    stop = Stops()

    async def search(query: str) -> str:
        calls.append(query)
        return f"found {query}"

    class Searches(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=5, delay=0))
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                found = await ctx.call("search", search, queries.pop(0))
            except Exception:
                raise AssertionError("no Exception: nothing may swallow it") from None
            await stop.here()
            return StopEvent(result=found)

    flow = Searches(journal=journal)
    handler = flow.run(run_id="r")
    await stop.reached.wait()
    await released(handler)
    with pytest.raises(NeedsAttentionError, match=r"'search'.*other arguments.*through ctx\.call too.*flow\.resume"):
        await (await flow.resume("r"))
    assert (await journal.run("r")).status == "needs_attention"
    assert await (await flow.resume("r")) == "found first"
    assert calls == ["first"]
    assert not issubclass(StepDivergedError, Exception)


async def test_an_equal_call_of_an_earlier_attempt_is_not_made_again_and_another_one_is(journal: Journal) -> None:
    calls: list[int] = []

    def charge(amount: int) -> int:
        calls.append(amount)
        return amount

    class Pays(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.attempts = 0

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0))
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.attempts += 1
            await ctx.call("charge", charge, 5)
            await ctx.call("charge", charge, 10 * self.attempts)
            if self.attempts == 1:
                raise ValueError("after both")
            return StopEvent(result=list(calls))

    assert await Pays().run() == [5, 10, 20]


async def test_arguments_that_cannot_be_encoded_are_not_compared(journal: Journal) -> None:
    stop = Stops()
    calls: list[str] = []

    def use(thing: object) -> str:
        calls.append(type(thing).__name__)
        return "used"

    class Uses(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            used = await ctx.call("use", use, object())
            await stop.here()
            return StopEvent(result=used)

    flow = Uses(journal=journal)
    handler = flow.run(run_id="r")
    await stop.reached.wait()
    await released(handler)
    assert await (await flow.resume("r")) == "used"
    assert calls == ["object"]


async def test_a_call_without_a_function_is_explained(memory: Journal) -> None:
    class Wrong(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.call("charge", 5)  # type: ignore[arg-type]
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"ctx\.call takes a name and a function"):
        await Wrong(journal=memory).run()


async def test_the_result_of_a_call_is_that_of_its_function_in_this_process(memory: Journal) -> None:
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([1])
        return made[0]

    class Makes(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ctx.call("make", make) is made[0])

    assert await Makes(journal=memory).run() is True


async def test_a_call_commits_the_writes_before_it(journal: Journal) -> None:
    seen: list[dict[str, Any]] = []

    class Commits(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["before"] = 1
            await ctx.call("nothing", lambda: None)
            seen.append((await journal.state("r")).context)
            ctx.data["after"] = 2
            return StopEvent()

    await Commits(journal=journal).run(run_id="r")
    assert seen == [{"before": 1}]
    assert (await journal.state("r")).context == {"before": 1, "after": 2}


# -- ctx.sleep ---------------------------------------------------------------------------------------------------------


async def test_a_sleep_is_never_short(journal: Journal) -> None:
    class Sleeps(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            began = time.monotonic()
            await ctx.sleep(0.05)
            return StopEvent(result=time.monotonic() - began)

    assert await Sleeps(journal=journal).run(run_id="r") >= 0.05
    (timer,) = await records_of(journal, "r", TimerSet)
    fired = next(r for r in await journal.history("r") if isinstance(r.fact, TimerFired))
    assert fired.at >= timer.due_at


async def test_a_re_run_sleeps_for_what_is_left(journal: Journal) -> None:
    class Sleeps(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.sleeping: asyncio.Event = asyncio.Event()
            self.began = 0

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.began += 1
            self.sleeping.set()
            await ctx.sleep(0.3)
            return StopEvent(result="awake")

    flow = Sleeps()
    handler = flow.run(run_id="r")
    await flow.sleeping.wait()
    await until(lambda: records_of(journal, "r", TimerSet))
    await released(handler)
    assert (await journal.run("r")).wake_at is not None
    assert await handler == "awake"  # the poller takes it up when it is due
    assert flow.began == 2
    (timer,) = await records_of(journal, "r", TimerSet)
    fired = [r for r in await journal.history("r") if isinstance(r.fact, TimerFired)]
    assert len(fired) == 1
    assert fired[0].at >= timer.due_at


async def test_a_sleeping_step_holds_no_worker(journal: Journal) -> None:
    class Item(Event):
        n: int

    class Sleeps(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.begun: list[int] = []

        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(3)]

        @step(num_workers=1)
        async def nap(self, ctx: Context, ev: Item) -> StopEvent | None:
            self.begun.append(ev.n)
            if ev.n < 2:
                await ctx.sleep(3600)
            return StopEvent(result=self.begun)

    # With a worker held while sleeping, the last one would not have begun.
    assert await Sleeps().run() == [0, 1, 2]


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_time_to_sleep_is_fine(memory: Journal, seconds: float) -> None:
    class Sleeps(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.sleep(seconds)
            return StopEvent(result="awake")

    assert await Sleeps(journal=memory).run() == "awake"


# -- ctx.checkpoint ----------------------------------------------------------------------------------------------------


async def test_a_named_checkpoint_is_found_in_the_journal_with_the_state_it_had(journal: Journal) -> None:
    stop = Stops()

    class Marks(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["phase"] = 1
            await ctx.checkpoint("one")
            ctx.data["phase"] = 2
            await ctx.checkpoint("two")
            await stop.here()
            ctx.data["phase"] = 3
            return StopEvent()

    flow = Marks(journal=journal)
    handler = flow.run(run_id="r")
    await stop.reached.wait()
    await released(handler)
    await (await flow.resume("r"))
    state = await journal.state("r")
    assert list(state.checkpoints) == ["one", "two"]
    contexts = [(await journal.state("r", at=seq)).context for seq in state.checkpoints.values()]
    assert contexts == [{"phase": 1}, {"phase": 2}]
    assert state.context == {"phase": 3}


# -- Idempotency keys --------------------------------------------------------------------------------------------------


async def test_a_key_is_stable_over_attempts_and_restarts(journal: Journal) -> None:
    keys: list[str] = []
    stop = Stops()

    class Keys(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            keys.append(ctx.idempotency_key())
            if len(keys) == 1:
                raise ValueError("once")
            await stop.here()
            return StopEvent()

    flow = Keys(journal=journal)
    handler = flow.run(run_id="r")
    await stop.reached.wait()
    await released(handler)
    await (await flow.resume("r"))
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_keys_differ_by_name_task_step_and_run(journal: Journal) -> None:
    keys: list[str] = []

    class Item(Event):
        pass

    class Keys(Workflow):
        @step
        async def split(self, ctx: Context, ev: StartEvent) -> list[Item]:
            keys.append(ctx.idempotency_key())
            return [Item(), Item()]

        @step
        async def a(self, ctx: Context, ev: Item) -> StopEvent | None:
            keys.extend([ctx.idempotency_key(), ctx.idempotency_key("x"), ctx.idempotency_key("y")])
            return None

        @step
        async def b(self, ctx: Context, ev: Item) -> StopEvent | None:
            keys.append(ctx.idempotency_key())
            return StopEvent() if ctx.collect_events(ev, [Item, Item]) else None

    flow = Keys(journal=journal)
    await flow.run(run_id="one")
    await flow.run(run_id="two")
    assert len(keys) == len(set(keys)) == 2 * (1 + 6 + 2)


async def test_a_run_of_the_same_id_in_another_journal_has_other_keys(memory: Journal) -> None:
    keys: list[str] = []

    class Keys(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            keys.append(ctx.idempotency_key("x"))
            return StopEvent()

    await Keys(journal=memory).run(run_id="r")
    async with Journal("memory://") as other:
        await Keys(journal=other).run(run_id="r")
    assert keys[0] != keys[1]


# -- The end of a context ----------------------------------------------------------------------------------------------


async def test_a_strand_that_outlives_its_step_cannot_use_the_context(journal: Journal) -> None:
    errors: list[str] = []

    class Item(Event):
        pass

    class Leaks(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.go = asyncio.Event()
            self.strand: asyncio.Task[None] | None = None

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item:
            self.strand = asyncio.create_task(self.late(ctx))
            return Item()

        async def late(self, ctx: Context) -> None:
            await self.go.wait()
            for attempt in (
                lambda: ctx.data.__setitem__("x", 1),
                lambda: ctx.send_event(Item()),
                lambda: ctx.write_event_to_stream(Item()),
            ):
                with pytest.raises(ContextStateError, match="detached") as raised:
                    attempt()
                errors.append(str(raised.value))
            with pytest.raises(ContextStateError, match="detached"):
                await ctx.call("x", lambda: None)

        @step
        async def end(self, ev: Item) -> StopEvent:
            self.go.set()
            assert self.strand is not None
            await self.strand
            return StopEvent()

    await Leaks().run(run_id="r")
    assert len(errors) == 3
    assert (await journal.state("r")).context == {}


async def test_a_failed_attempt_waits_for_its_calls_and_keeps_their_results(journal: Journal) -> None:
    calls: list[str] = []

    class Strands(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.attempts = 0
            self.calling, self.finish = asyncio.Event(), asyncio.Event()

        async def slow(self) -> str:
            calls.append("slow")
            self.calling.set()
            await self.finish.wait()
            return "slow result"

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0))
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.attempts += 1
            strand = asyncio.create_task(ctx.call("slow", self.slow))
            await self.calling.wait()
            if self.attempts == 1:
                asyncio.get_running_loop().call_soon(self.finish.set)
                raise ValueError("while the call is in flight")
            return StopEvent(result=await strand)

    assert await Strands().run() == "slow result"
    assert calls == ["slow"]
