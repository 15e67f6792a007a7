"""The handler: awaited, waited for, given up and taken up again."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from durable_flow import (
    Context,
    ContextStateError,
    Event,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    step,
)
from durable_flow.records import RunClaimed

from .flows import Asking, Shop, in_another_loop, question, records_of, released, streamed

# -- Awaiting ----------------------------------------------------------------------------------------------------------


async def test_the_result_is_the_same_every_time(memory: Journal) -> None:
    class Make(Workflow):
        @step
        async def make(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result={"made": 1})

    handler = Make(journal=memory).run()
    first = await handler
    assert first == {"made": 1}
    assert await handler is first
    assert await asyncio.gather(handler, handler) == [first, first]


async def test_the_error_is_the_original_one_every_time(journal: Journal) -> None:
    error = ValueError("no truck")
    handler = Shop(journal=journal, fail=error).run(item="lamp")
    for _ in range(2):
        with pytest.raises(ValueError, match="no truck") as raised:
            await handler
        assert raised.value is error
    assert "in ship" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("result", [None, 0, False, "", [], {}, 0.0, b""])
async def test_falsy_results_are_kept(journal: Journal, result: object) -> None:
    class Give(Workflow):
        @step
        async def give(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=result)

    flow = Give(journal=journal)
    for _ in range(2):
        given = await flow.run(run_id="r")
        assert given == result
        assert type(given) is type(result)


async def test_a_stop_event_of_ones_own_is_the_result_itself(memory: Journal) -> None:
    class Done(StopEvent):
        total: int

    class Count(Workflow):
        @step
        async def count(self, ev: StartEvent) -> Done:
            return Done(total=3)

    handler = Count(journal=memory).run()
    assert await handler == Done(total=3)
    assert handler.get_stop_event() == Done(total=3)
    assert await handler.stop_event_result() == Done(total=3)


async def test_what_a_handler_tells_before_and_after_the_end(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    assert not handler.is_done()
    assert handler.get_stop_event() is None
    assert "order-42" in repr(handler)
    assert await handler.ctx.running_steps() == ["ship"]
    assert handler.ctx.is_running
    flow.hold.set()
    assert (await handler.stop_event_result()).result == "shipped 1 lamp"
    assert handler.is_done()
    assert not handler.ctx.is_running


async def test_the_stop_event_of_a_failed_run_tells_of_the_failure(memory: Journal) -> None:
    handler = Shop(journal=memory, fail=ValueError("no truck")).run(item="lamp")
    with pytest.raises(ValueError, match="no truck"):
        await handler.stop_event_result()
    event = handler.get_stop_event()
    assert isinstance(event, WorkflowFailedEvent)
    assert (event.step_name, event.attempts) == ("ship", 1)
    assert (event.exception_type, event.exception_message) == ("builtins.ValueError", "no truck")


async def test_no_step_begins_before_the_caller_can_subscribe(memory: Journal) -> None:
    flow = Shop(journal=memory)
    handler = flow.run(item="lamp")
    assert flow.ran == []
    await handler


async def test_a_run_that_nobody_awaits_goes_on(memory: Journal) -> None:
    flow = Shop(journal=memory)
    run_id = flow.run(item="lamp").run_id
    await flow.shipping.wait()
    assert await (await flow.resume(run_id)) == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]


async def test_the_context_of_a_handler_knows_the_state_and_not_what_only_steps_can(memory: Journal) -> None:
    flow = Asking(journal=memory)
    handler = flow.run()
    await question(handler)
    handler.ctx.data["seen"] = True
    assert await handler.ctx.store.get("seen") is True
    for call in (
        lambda: handler.ctx.collect_events(Event(), [Event]),
        lambda: handler.ctx.write_event_to_stream(Event()),
        lambda: handler.ctx.idempotency_key(),
    ):
        with pytest.raises(ContextStateError, match="inside a step only"):
            call()
    with pytest.raises(ContextStateError, match="inside a step only"):
        await handler.ctx.wait_for_event(Event)


async def test_a_write_of_the_handler_is_seen_by_steps_and_journaled(journal: Journal) -> None:
    class Reads(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.begun, self.go = asyncio.Event(), asyncio.Event()

        @step
        async def read(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.begun.set()
            await self.go.wait()
            return StopEvent(result=ctx.data["from outside"])

    flow = Reads()
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    handler.ctx.data["from outside"] = 7
    flow.go.set()
    assert await handler == 7
    assert (await journal.state("r")).context == {"from outside": 7}


# -- With the tools of asyncio -----------------------------------------------------------------------------------------


async def test_gather_and_wait_take_handlers(memory: Journal) -> None:
    flow = Shop(journal=memory)
    assert await asyncio.gather(flow.run(item="a"), flow.run(item="b")) == ["shipped 1 a", "shipped 1 b"]
    done, pending = await asyncio.wait([asyncio.ensure_future(flow.run(item=item)) for item in "ab"])
    assert {task.result() for task in done} == {"shipped 1 a", "shipped 1 b"}
    assert not pending


async def test_wait_for_gives_up_a_run_that_goes_on_when_awaited_again(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handler, 0.01)
    assert not handler.is_done()
    flow.hold.set()
    assert await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship", "ship"]
    assert len(await records_of(journal, "order-42", RunClaimed)) == 1


async def test_a_run_whose_awaiting_task_is_cancelled_is_released(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    await released(handler)
    flow.shipping.clear()
    # Another handler takes it up: it would only attach if the run was still live.
    second = await flow.resume("order-42")
    await flow.shipping.wait()
    flow.hold.set()
    assert await second == await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship", "ship"]


async def test_a_released_step_is_cancelled_and_nothing_of_it_is_recorded(journal: Journal) -> None:
    class Slow(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.begun, self.cancelled = asyncio.Event(), asyncio.Event()

        @step
        async def slow(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["draft"] = 1
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return StopEvent()

    flow = Slow()
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await released(handler)
    await flow.cancelled.wait()
    state = await journal.state("r")
    assert state.context == {}
    assert [task.step for task in state.tasks] == ["slow"]


async def test_cancelling_one_of_two_who_await_changes_nothing(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    staying = asyncio.ensure_future(handler)
    await asyncio.sleep(0)
    await released(handler)
    flow.hold.set()
    assert await staying == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]


async def test_two_handlers_of_one_run_count_as_two_who_await(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    first = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    second = await flow.resume("order-42")
    staying = asyncio.ensure_future(second)
    await asyncio.sleep(0)
    await released(first)
    flow.hold.set()
    assert await staying == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]


async def test_shield_keeps_the_run_live(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(handler), 0.01)
    flow.hold.set()
    assert await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]


async def test_a_run_given_up_before_it_began_does_not_run_until_it_is_awaited_again(journal: Journal) -> None:
    flow = Shop(journal=journal)
    handler = flow.run(run_id="order-42", item="lamp")
    await released(handler)  # nothing of the run exists yet
    assert await flow.run(item="chair") == "shipped 1 chair"  # by now the other would have run too
    assert flow.ran == ["pack", "ship"]
    assert await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"] * 2


async def test_the_end_of_the_loop_releases_the_run(url: str) -> None:
    begun: list[str] = []

    class Slow(Workflow):
        @step
        async def slow(self, ev: StartEvent) -> StopEvent:
            begun.append("slow")
            if len(begun) == 1:
                flow_begun.set()
                await asyncio.Event().wait()
            return StopEvent(result="done")

    async def begin() -> None:
        global flow_begun
        flow_begun = asyncio.Event()
        Slow(journal=url).run(run_id="r")
        await flow_begun.wait()

    await in_another_loop(begin)
    async with Journal(url) as journal:
        info = await journal.run("r")
        assert (info.status, info.owner) == ("running", None)
    assert await (await Slow(journal=url).resume("r")) == "done"
    assert begun == ["slow", "slow"]


async def test_a_task_that_cancels_itself_counts_as_a_crash(journal: Journal) -> None:
    class Odd(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.runs = 0

        @step
        async def odd(self, ev: StartEvent) -> StopEvent:
            self.runs += 1
            if self.runs == 1:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            return StopEvent(result=self.runs)

    assert await Odd().run() == 2


async def test_awaiting_something_cancelled_is_an_error_of_the_step(journal: Journal) -> None:
    class Odd(Workflow):
        @step
        async def odd(self, ev: StartEvent) -> StopEvent:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
            return StopEvent()

    with pytest.raises(Exception, match="awaited something that was cancelled") as raised:
        await Odd(journal=journal).run(run_id="r")
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert (await journal.run("r")).status == "failed"


# -- As a coroutine, and what old programs ask of it -------------------------------------------------------------------


async def test_a_task_may_be_made_of_a_handler(memory: Journal) -> None:
    flow = Shop(journal=memory)
    task = asyncio.create_task(flow.run(item="lamp"), name="order")
    assert await task == "shipped 1 lamp"
    assert asyncio.iscoroutine(flow.run(item="chair"))


async def test_several_tasks_of_one_handler_get_the_same(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(item="lamp")
    tasks = [asyncio.create_task(handler) for _ in range(3)]
    shielded = asyncio.shield(handler)
    await flow.shipping.wait()
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    flow.hold.set()
    assert await asyncio.gather(*tasks[1:], shielded, handler, handler) == ["shipped 1 lamp"] * 5
    assert flow.ran == ["pack", "ship"]


async def test_a_task_group_and_wait_take_tasks_of_handlers(memory: Journal) -> None:
    flow = Shop(journal=memory)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(flow.run(item=item)) for item in "ab"]
    assert [task.result() for task in tasks] == ["shipped 1 a", "shipped 1 b"]
    done, _ = await asyncio.wait([asyncio.create_task(flow.run(item="c"))])
    assert [task.result() for task in done] == ["shipped 1 c"]


async def test_a_task_of_a_handler_raises_its_error(memory: Journal) -> None:
    task = asyncio.create_task(Shop(journal=memory, fail=ValueError("no truck")).run(item="lamp"))
    with pytest.raises(ValueError, match="no truck"):
        await task


async def test_a_cancelled_task_of_a_handler_releases_the_run(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    task = asyncio.create_task(flow.run(run_id="order-42", item="lamp"))
    await flow.shipping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    flow.hold.set()
    assert await flow.run(run_id="order-42", item="lamp") == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship", "ship"]


@pytest.mark.filterwarnings("error")
async def test_the_methods_of_a_future(memory: Journal) -> None:
    flow = Shop(journal=memory, hold=asyncio.Event())
    handler = flow.run(item="lamp")
    await flow.shipping.wait()
    assert not handler.done()
    assert not handler.cancelled()
    with pytest.raises(asyncio.InvalidStateError):
        handler.exception()
    flow.hold.set()
    await handler
    assert handler.done()
    assert not handler.cancelled()
    assert handler.exception() is None
    assert not handler.cancel()
    error = ValueError("no truck")
    failed = Shop(journal=memory, fail=error).run(item="lamp")
    with pytest.raises(ValueError, match="no truck"):
        await failed
    assert failed.exception() is error


async def test_cancelling_a_handler_ends_it_and_leaves_the_run_unfinished(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    waiting = asyncio.ensure_future(handler)
    await flow.shipping.wait()
    assert handler.cancel()
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await handler
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert handler.done()
    assert handler.is_done()
    assert handler.cancelled()
    assert handler.exception() is None
    assert handler.get_stop_event() is None
    flow.hold.set()
    assert await flow.run(run_id="order-42", item="lamp") == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship", "ship"]


async def test_cancelling_one_of_two_handlers_leaves_the_other_its_run(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    first = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    staying = asyncio.ensure_future(await flow.resume("order-42"))
    await asyncio.sleep(0)
    first.cancel()
    flow.hold.set()
    assert await staying == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]


async def test_a_cancelled_run_is_a_cancelled_handler(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(item="lamp")
    await flow.shipping.wait()
    await handler.cancel_run()
    assert handler.cancelled()
    assert handler.done()
    assert isinstance(handler.exception(), WorkflowCancelledByUser)
    with pytest.raises(WorkflowCancelledByUser):
        await handler.stop_event_result()


async def test_a_second_reader_of_a_handlers_stream_waits_and_then_finds_it_consumed(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(item="lamp")
    first = asyncio.create_task(streamed(handler))
    await flow.shipping.wait()
    second = asyncio.create_task(streamed(handler))
    await asyncio.sleep(0)
    assert not second.done()
    flow.hold.set()
    assert [type(event).__name__ for event in await first] == ["Packed", "StopEvent"]
    with pytest.raises(WorkflowRuntimeError, match="already been consumed"):
        await second


# -- Without an event loop ---------------------------------------------------------------------------------------------


def test_run_sync_runs_to_the_end(url: str) -> None:
    flow = Shop(journal=url)
    assert flow.run_sync(item="lamp", run_id="order-42") == "shipped 1 lamp"
    assert flow.run_sync(item="lamp", run_id="order-42") == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]


def test_run_sync_raises_the_runs_error(url: str) -> None:
    with pytest.raises(ValueError, match="no truck"):
        Shop(journal=url, fail=ValueError("no truck")).run_sync(item="lamp")


async def test_run_sync_is_refused_where_a_loop_runs(memory: Journal) -> None:
    with pytest.raises(RuntimeError, match=r"await flow\.run"):
        Shop(journal=memory).run_sync(item="lamp")
