"""A forgotten `await` in a step: the step fails, and the error names the call, the step, the run and what to write."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    HumanResponseEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)


class Answer(HumanResponseEvent):
    text: str


class Body(Workflow):
    """One step, whose body is given."""

    def __init__(self, journal: Journal, body: Callable[[Context], Awaitable[Any]], **kwargs: Any):
        super().__init__(journal=journal, workflow_name="Body", **kwargs)
        self.body = body

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await self.body(ctx))


async def charge(amount: int) -> int:
    raise AssertionError("nobody awaits it")


CALLS: dict[str, Callable[[Context], Any]] = {
    "ctx.set('k', ...)": lambda ctx: ctx.set("k", 1),
    "ctx.get('k')": lambda ctx: ctx.get("k"),
    "ctx.store.set('a.b', ...)": lambda ctx: ctx.store.set("a.b", 1),
    "ctx.store.get('a.b', ...)": lambda ctx: ctx.store.get("a.b", default=None),
    "ctx.store.get_state()": lambda ctx: ctx.store.get_state(),
    "ctx.store.set_state(...)": lambda ctx: ctx.store.set_state({}),
    "ctx.store.clear()": lambda ctx: ctx.store.clear(),
    "ctx.call('charge', ...)": lambda ctx: ctx.call("charge", charge, 3),
    "ctx.sleep(...)": lambda ctx: ctx.sleep(1),
    "ctx.checkpoint('here')": lambda ctx: ctx.checkpoint("here"),
    "ctx.wait_for_event(Answer, ...)": lambda ctx: ctx.wait_for_event(Answer),
    "ctx.lock.acquire()": lambda ctx: ctx.lock.acquire(),
}


@pytest.mark.parametrize("written", CALLS)
async def test_the_step_fails_and_says_which_call_was_not_awaited(memory: Journal, written: str):
    async def body(ctx: Context) -> None:
        CALLS[written](ctx)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python's own warning would be one too many
        with pytest.raises(WorkflowRuntimeError) as raised:
            await Body(memory, body).run(run_id="order-7")
    assert str(raised.value) == (
        f"step 'work' of run order-7 (attempt 1): {written} was not awaited, so nothing of it was done. "
        f"Write `await {written}`."
    )


async def test_it_is_so_on_every_journal_and_nothing_was_done(journal: Journal):
    async def body(ctx: Context) -> int:
        await ctx.set("before", 1)
        ctx.set("k", 1)
        return 1

    handler = Body(journal, body).run(run_id="r")
    with pytest.raises(WorkflowRuntimeError, match=r"ctx\.set\('k', \.\.\.\) was not awaited"):
        await handler
    state = await journal.state("r")
    assert (state.status, state.context) == ("failed", {"before": 1})


async def test_in_a_condition_and_in_a_variable(memory: Journal):
    async def body(ctx: Context) -> str:
        flag = ctx.get("flag")
        if flag or ctx.store.get("other"):
            return "always"
        return "never"

    with pytest.raises(WorkflowRuntimeError, match=r"ctx\.get\('flag'\) was not awaited"):
        await Body(memory, body).run()


async def test_all_of_them_are_named_once_each(memory: Journal):
    async def body(ctx: Context) -> None:
        for _ in range(200):
            ctx.set("n", 1)
            await ctx.get("n", None)
        ctx.sleep(1)

    with pytest.raises(WorkflowRuntimeError) as raised:
        await Body(memory, body).run()
    assert "ctx.set('n', ...) and ctx.sleep(...) were not awaited" in str(raised.value)


async def test_a_value_is_not_in_the_message(memory: Journal):
    async def body(ctx: Context) -> None:
        ctx.set("password", "hunter2")

    with pytest.raises(WorkflowRuntimeError) as raised:
        await Body(memory, body).run()
    assert "password" in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_a_plain_step_is_told_that_it_cannot_await(memory: Journal):
    class Plain(Workflow):
        @step
        def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.set("k", 1)
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"ctx\.set\('k', \.\.\.\) was not awaited.*make it `async def`"):
        await Plain(journal=memory).run()


async def test_an_error_that_comes_of_it_has_a_note(memory: Journal):
    async def body(ctx: Context) -> Any:
        ctx.set("k", 1)
        return await ctx.get("k")

    with pytest.raises(ValueError, match="Key 'k' not found") as raised:
        await Body(memory, body).run(run_id="r")
    [note] = raised.value.__notes__
    assert note.startswith("Before that, in step 'work' of run r, attempt 1: ctx.set('k', ...) was not awaited")


async def test_it_is_an_outcome_of_the_attempt_like_any_error(memory: Journal):
    class Twice(Workflow):
        tries = 0

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.tries += 1
            done = ctx.set("k", self.tries)
            if self.tries > 1:
                await done
            del done
            return StopEvent(result=self.tries)

    assert await Twice(journal=memory).run() == 2


async def test_a_returned_coroutine_is_told_as_what_it_is(memory: Journal):
    class Returns(Workflow):
        async def helper(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return self.helper(ev) if ev.get("own") else ctx.get("k")  # type: ignore[return-value]

    for own in (True, False):
        with pytest.raises(WorkflowRuntimeError) as raised:
            await Returns(journal=memory).run(own=own, run_id=f"r-{own}")
        message = str(raised.value)
        assert message.startswith(
            "Step function work returned coroutine instead of an Event instance. It was not awaited"
        )
        assert message.endswith(f"(run r-{own}, attempt 1)")


# -- What is not forgotten ---------------------------------------------------------------------------------------------


async def test_what_is_gathered_or_made_a_task_is_awaited(journal: Journal):
    async def body(ctx: Context) -> Any:
        await asyncio.gather(*(ctx.set(f"k{n}", n) for n in range(300)))
        first = ctx.get("k1")
        found = await asyncio.gather(*(ctx.get(f"k{n}") for n in range(300)), asyncio.create_task(ctx.store.get("k2")))
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.set("last", 1))
        return [sum(found), await first, await asyncio.wait_for(ctx.get("last"), 5)]

    assert await Body(journal, body).run() == [sum(range(300)) + 2, 1, 1]


async def test_a_task_that_has_not_begun_when_the_step_returns_is_not_forgotten(memory: Journal):
    tasks = []

    async def body(ctx: Context) -> str:
        tasks.append(asyncio.create_task(ctx.get("k", 1)))
        return "done"

    assert await Body(memory, body).run() == "done"
    [late] = await asyncio.gather(*tasks, return_exceptions=True)
    assert late == 1 or "Await all work of a step before it returns" in str(late)


async def test_what_somebody_still_holds_may_be_awaited_yet(memory: Journal):
    held = []

    async def body(ctx: Context) -> str:
        held.append(ctx.get("k", 1))
        return "done"

    assert await Body(memory, body).run() == "done"
    held.pop().close()


async def test_what_was_begun_and_given_up_is_not_forgotten(memory: Journal):
    async def body(ctx: Context) -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ctx.wait_for_event(Answer), 0.01)
        return "done"

    assert await Body(memory, body).run() == "done"


async def test_a_step_that_is_called_alone_and_a_context_outside_work_as_ever(memory: Journal):
    class One(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.set("k", 2)
            return StopEvent(result=await ctx.store.get("k"))

    flow = One(journal=memory)
    ctx = Context(flow)
    assert (await flow.work(ctx, StartEvent())).result == 2
    pending = ctx.get("k")
    assert inspect.iscoroutine(pending)
    assert await pending == 2
    handler = flow.run()
    assert await handler == 2
    assert await handler.ctx.get("k") == 2


async def test_a_forgotten_call_keeps_nothing_in_memory(memory: Journal):
    contexts = []

    async def body(ctx: Context) -> None:
        contexts.append(weakref.ref(ctx))
        ctx.set("k", 1)

    gc.collect()
    gc.disable()
    try:
        assert await Body(memory, _returns).run() == 1
        handler = Body(memory, body).run()
        assert isinstance(await _failure(handler), WorkflowRuntimeError)
        del handler
        await asyncio.sleep(0)
        assert [ref() for ref in contexts] == [None]
    finally:
        gc.enable()


async def _returns(ctx: Context) -> int:
    await ctx.set("k", 1)
    return 1


async def _failure(handler: Any) -> BaseException | None:
    try:
        await handler
    except Exception as error:
        error.__traceback__ = None
        return error
    return None
