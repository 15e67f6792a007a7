"""`ctx.lock`: read-modify-write over an await, exact among concurrent steps and over a restart."""

import asyncio
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.errors import SerializationError

from .context_helpers import (
    RUN,
    Crew,
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


async def a_turn_of_the_loop() -> None:
    await asyncio.sleep(0)


async def test_read_modify_write_by_twenty_concurrent_steps_is_exact(journal: Journal):
    inside = 0

    async def body(ctx: Context) -> None:
        nonlocal inside
        async with ctx.lock:
            inside += 1
            assert inside == 1
            n = await ctx.get("n", 0)
            ctx.data.setdefault("xs", [])
            await a_turn_of_the_loop()
            await ctx.set("n", n + 1)
            ctx.data["xs"].append(n)
            inside -= 1

    await run(journal, **{f"s{i}": body for i in range(20)})
    assert await stored(journal) == {"n": 20, "xs": list(range(20))}


async def test_every_way_to_the_state_works_inside_the_lock(journal: Journal):
    async def body(ctx: Context) -> None:
        async with ctx.lock:
            await ctx.set("a", 1)
            assert await ctx.get("a") == 1
            await ctx.store.set("b.c", 2)
            ctx.data["d"] = 3
            async with ctx.store.edit_state() as state:
                state.e = 4
            await ctx.call("double", lambda: None)

    await run_alone(journal, body)
    assert await stored(journal) == {"a": 1, "b": {"c": 2}, "d": 3, "e": 4}


async def test_locked_tells_whether_any_step_holds_it(memory: Journal):
    taken, looked = asyncio.Event(), asyncio.Event()

    async def holder(ctx: Context) -> None:
        assert not ctx.lock.locked()
        assert await ctx.lock.acquire() is True
        taken.set()
        await looked.wait()
        ctx.lock.release()
        assert not ctx.lock.locked()

    async def other(ctx: Context) -> None:
        await taken.wait()
        assert ctx.lock.locked()
        assert handler.ctx.lock.locked()
        looked.set()

    handler = Crew(memory, holder=holder, other=other).run(run_id=RUN)
    await handler


class Boom(Exception):
    pass


async def test_an_exception_releases_the_lock_and_keeps_what_was_written(journal: Journal):
    async def body(ctx: Context) -> None:
        async def fail() -> None:
            async with ctx.lock:
                ctx.data["n"] = 1
                raise Boom

        with pytest.raises(Boom):
            await fail()
        assert not ctx.lock.locked()
        async with ctx.lock:
            ctx.data["n"] += 1

    await run_alone(journal, body)
    assert await stored(journal) == {"n": 2}


async def test_cancelling_a_holder_or_a_waiter_leaves_the_lock_to_the_next(memory: Journal):
    async def body(ctx: Context) -> None:
        taken = asyncio.Event()

        async def hold() -> None:
            async with ctx.lock:
                taken.set()
                await forever()

        async def wait() -> None:
            async with ctx.lock:
                ctx.data["waiter"] = "never"

        holder = asyncio.create_task(hold())
        await taken.wait()
        waiter = asyncio.create_task(wait())
        await a_turn_of_the_loop()
        waiter.cancel()
        holder.cancel()
        await asyncio.wait([holder, waiter])
        async with ctx.lock:
            ctx.data["done"] = True

    await run_alone(memory, body)
    assert await stored(memory) == {"done": True}


async def test_a_step_that_fails_inside_the_lock_has_released_it_for_its_next_attempt(journal: Journal):
    class Flaky(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(delay=0, maximum_attempts=2))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async with ctx.lock:
                ctx.data["tries"] = ctx.data.get("tries", 0) + 1
                if ctx.data["tries"] == 1:
                    raise Boom
                return StopEvent(result=ctx.data["tries"])

    assert await Flaky(journal=journal).run() == 2


async def test_a_handler_can_take_the_lock_too(memory: Journal):
    began, taken = asyncio.Event(), asyncio.Event()

    async def body(ctx: Context) -> None:
        began.set()
        await taken.wait()
        async with ctx.lock:
            ctx.data["n"] += 1

    handler = Crew(memory, only=body).run(run_id=RUN)
    await began.wait()
    async with handler.ctx.lock:
        taken.set()
        await a_turn_of_the_loop()
        handler.ctx.data["n"] = 1
    await handler
    assert await stored(memory) == {"n": 2}


async def test_waiting_for_an_event_or_a_timer_inside_the_lock_is_an_error(memory: Journal):
    async def body(ctx: Context) -> None:
        async with ctx.lock:
            with pytest.raises(ContextStateError, match=r"inside ctx\.lock"):
                await ctx.wait_for_event(Event)
            with pytest.raises(ContextStateError, match=r"inside ctx\.lock"):
                await ctx.sleep(0)
        await ctx.sleep(0)

    await run_alone(memory, body)


async def test_waiting_for_an_event_or_a_timer_inside_edit_state_is_an_error(memory: Journal):
    async def body(ctx: Context) -> None:
        async with ctx.store.edit_state() as state:
            with pytest.raises(ContextStateError, match="inside edit_state"):
                await ctx.wait_for_event(Event)
            with pytest.raises(ContextStateError, match="inside edit_state"):
                await ctx.sleep(0)
            state.n = 1
        await ctx.sleep(0)

    await run_alone(memory, body)
    assert await stored(memory) == {"n": 1}


async def test_another_steps_lock_does_not_hinder_waiting(memory: Journal):
    taken, slept = asyncio.Event(), asyncio.Event()

    async def holder(ctx: Context) -> None:
        async with ctx.lock:
            taken.set()
            await slept.wait()

    async def sleeper(ctx: Context) -> str:
        await taken.wait()
        await ctx.sleep(0)
        slept.set()
        return "slept"

    assert (await run(memory, holder=holder, sleeper=sleeper))["sleeper"] == "slept"


async def test_leaving_the_lock_journals_changes_in_place_for_the_next_holder(journal: Journal):
    """The change is a draft as soon as the lock is left: who reads it then carries it."""
    changed = asyncio.Event()

    async def changer(ctx: Context) -> None:
        ctx.data["xs"] = [0]
        async with ctx.lock:
            ctx.data["xs"].append(1)
        changed.set()
        await crew.done["reader"].wait()
        assert (await stored(journal))["xs"] == [0, 1]

    async def reader(ctx: Context) -> None:
        await changed.wait()
        async with ctx.lock:
            assert ctx.data["xs"] == [0, 1]

    crew = Crew(journal, changer=changer, reader=reader)
    await crew.run(run_id=RUN)


async def test_a_value_that_cannot_be_encoded_is_refused_when_the_lock_is_left(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.data["xs"] = []
        with pytest.raises(SerializationError, match=r"xs\[0\]"):
            async with ctx.lock:
                ctx.data["xs"].append(object())
        assert not ctx.lock.locked()
        ctx.data["xs"].clear()

    await run_alone(memory, body)
    assert await stored(memory) == {"xs": []}


def test_a_reader_does_not_record_half_of_what_the_holder_changes_in_place(url: str):
    """Else the change would stand although its step never came to an end, and be made twice."""
    half, read = asyncio.Event(), asyncio.Event()

    async def prepare(ctx: Context) -> None:
        ctx.data["xs"] = []

    async def changer(ctx: Context) -> None:
        await first.done["prepare"].wait()
        async with ctx.lock:
            ctx.data["xs"].append("half")
            half.set()
            await forever()

    async def reader(ctx: Context) -> None:
        await half.wait()
        assert ctx.data["xs"] == ["half"]
        read.set()

    first = Crew(url, prepare=prepare, changer=changer, reader=reader)
    run_until(first, first.done["reader"])
    assert read.is_set()
    assert stored_at(url) == {"xs": []}

    async def changer_again(ctx: Context) -> None:
        async with ctx.lock:
            ctx.data["xs"].extend(["half", "whole"])

    run_to_end(Crew(url, prepare=nothing, changer=changer_again, reader=nothing))
    assert stored_at(url) == {"xs": ["half", "whole"]}


def test_after_a_restart_the_lock_is_free_and_counting_goes_on_exactly(url: str):
    holding = asyncio.Event()

    async def count(ctx: Context) -> None:
        async with ctx.lock:
            n = ctx.data.get("n", 0)
            await a_turn_of_the_loop()
            ctx.data["n"] = n + 1

    async def stuck(ctx: Context) -> None:
        for name in counters:
            await first.done[name].wait()
        async with ctx.lock:
            ctx.data["n"] += 1
            holding.set()
            await forever()

    counters: dict[str, Any] = {f"c{i}": count for i in range(5)}
    first = Crew(url, stuck=stuck, **counters)
    run_until(first, holding)
    assert stored_at(url) == {"n": 5}
    run_to_end(Crew(url, stuck=count, **counters))
    assert stored_at(url) == {"n": 6}
    assert divergences(url) == []
