"""What `flow.run(run_id=...)` does, row by row of its table; resume, retry and recover."""

from __future__ import annotations

import asyncio
import re
from itertools import count
from uuid import UUID, uuid4

import pytest
from pydantic import Field

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Journal,
    NeedsAttentionError,
    RunConflictError,
    RunFailedError,
    RunIdError,
    RunNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    step,
)
from durable_flow.records import RunClaimed, RunStarted, StepCompleted

from .conftest import Log
from .flows import (
    Answer,
    Asking,
    Order,
    Packed,
    Shop,
    in_another_loop,
    question,
    records_of,
    released,
    streamed,
    time_stands_still,
)

# -- The table ---------------------------------------------------------------------------------------------------------


async def test_an_unknown_id_starts_a_run(journal: Journal) -> None:
    flow = Shop(journal=journal)
    assert await flow.run(run_id="order-42", item="lamp") == "shipped 1 lamp"
    info = await journal.run("order-42")
    assert (info.status, info.workflow, info.owner) == ("completed", "Shop", None)
    assert flow.ran == ["pack", "ship"]


async def test_without_an_id_a_run_gets_a_uuid7(memory: Journal) -> None:
    flow = Shop(journal=memory)
    handlers = [flow.run(item="lamp") for _ in range(3)]
    ids = [UUID(handler.run_id) for handler in handlers]
    await asyncio.gather(*handlers)
    assert {i.version for i in ids} == {7}
    assert len(set(ids)) == 3


async def test_an_unfinished_unowned_run_goes_on_where_it_stopped(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    await released(handler)
    again = Shop(journal=journal)
    assert await again.run(run_id="order-42", item="lamp") == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]
    assert again.ran == ["ship"]


async def test_a_run_of_an_ended_loop_goes_on_at_once(url: str) -> None:
    async def begin() -> None:
        flow = Shop(journal=url, hold=asyncio.Event())
        flow.run(run_id="order-42", item="lamp")
        await flow.shipping.wait()

    await in_another_loop(begin)
    flow = Shop(journal=url)
    assert await flow.run(run_id="order-42", item="lamp") == "shipped 1 lamp"
    assert flow.ran == ["ship"]


async def test_a_live_run_is_attached_to_and_no_step_runs_twice(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    first = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    second = flow.run(run_id="order-42", item="lamp")
    flow.hold.set()
    events = await streamed(second)
    assert [e.item for e in events[:-1]] == ["shipping 1 lamp"]
    assert await first == await second == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]
    assert len(await records_of(journal, "order-42", RunStarted, RunClaimed)) == 1


async def test_an_attached_handler_can_answer(journal: Journal) -> None:
    flow = Asking(journal=journal)
    first = flow.run(run_id="r")
    await question(first)
    second = flow.run(run_id="r")
    await second.send_event(Answer(text="yes"))
    assert await first == "yes"


async def test_two_run_calls_with_one_id_at_once_make_one_run(journal: Journal) -> None:
    flow = Shop(journal=journal)
    handlers = [flow.run(run_id="order-42", item="lamp") for _ in range(5)]
    assert await asyncio.gather(*handlers) == ["shipped 1 lamp"] * 5
    assert flow.ran == ["pack", "ship"]


async def test_two_run_calls_at_once_take_an_unfinished_run_up_once(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    await released(handler)
    again = Shop(journal=journal)
    handlers = [again.run(run_id="order-42", item="lamp") for _ in range(5)]
    assert await asyncio.gather(*handlers) == ["shipped 1 lamp"] * 5
    assert again.ran == ["ship"]
    assert len(await records_of(journal, "order-42", RunClaimed)) == 1


async def test_a_completed_run_returns_its_result_and_no_step_runs(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="order-42", item="lamp")
    before = await journal.history("order-42")
    again = Shop(journal=journal)
    handler = again.run(run_id="order-42", item="lamp")
    assert await handler == "shipped 1 lamp"
    assert again.ran == []
    assert await journal.history("order-42") == before
    events = await streamed(handler)
    assert [type(e) for e in events] == [Packed, StopEvent]
    assert events[-1].result == "shipped 1 lamp"


async def test_a_completed_run_with_a_stop_event_of_its_own_returns_the_event(journal: Journal) -> None:
    class Receipt(StopEvent):
        number: int

    class Buy(Workflow):
        @step
        async def buy(self, ev: StartEvent) -> Receipt:
            return Receipt(number=7)

    first = await Buy(journal=journal).run(run_id="r")
    second = await Buy(journal=journal).run(run_id="r")
    assert first == second == Receipt(number=7)
    assert type(second) is Receipt


async def test_a_failed_run_raises_its_recorded_error_and_names_retry(journal: Journal) -> None:
    with pytest.raises(KeyError):
        await Shop(journal=journal, fail=KeyError("no truck")).run(run_id="order-42", item="lamp")
    again = Shop(journal=journal)
    with pytest.raises(RunFailedError, match=r"(?s)KeyError.*no truck.*flow\.retry\('order-42'\)") as raised:
        await again.run(run_id="order-42", item="lamp")
    assert raised.value.error_type == "builtins.KeyError"
    assert isinstance(raised.value.__cause__, KeyError)
    assert "in ship" in raised.value.error_traceback
    assert again.ran == []


async def test_a_timed_out_run_raises_that_again_and_names_retry(journal: Journal) -> None:
    with pytest.raises(WorkflowTimeoutError):
        await Shop(journal=journal, hold=asyncio.Event(), timeout=0.05).run(run_id="order-42", item="lamp")
    again = Shop(journal=journal)
    with pytest.raises(WorkflowTimeoutError, match=r"after 0\.05 seconds.*flow\.retry\('order-42'\)"):
        await again.run(run_id="order-42", item="lamp")
    assert again.ran == []


async def test_a_cancelled_run_raises_that_again_and_names_retry(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    await handler.cancel_run()
    again = Shop(journal=journal)
    with pytest.raises(WorkflowCancelledByUser, match=r"flow\.retry\('order-42'\)"):
        await again.run(run_id="order-42", item="lamp")
    assert again.ran == []


async def test_other_arguments_are_a_conflict_for_a_finished_run(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="order-42", item="lamp")
    with pytest.raises(RunConflictError, match=r"order-42.*other arguments"):
        await Shop(journal=journal).run(run_id="order-42", item="chair")


async def test_other_arguments_are_a_conflict_for_a_live_run_which_goes_on(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    with pytest.raises(RunConflictError, match="other arguments"):
        await flow.run(run_id="order-42", item="chair")
    with pytest.raises(RunConflictError, match="other arguments"):
        await flow.run(run_id="order-42", item="lamp", count=1)
    flow.hold.set()
    assert await handler == "shipped 1 lamp"


async def test_of_two_calls_at_once_with_other_arguments_one_is_a_conflict(journal: Journal) -> None:
    flow = Shop(journal=journal)
    outcomes = await asyncio.gather(
        flow.run(run_id="r", item="lamp"), flow.run(run_id="r", item="chair"), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {str, RunConflictError}
    assert flow.ran == ["pack", "ship"]


async def test_the_order_of_arguments_and_of_keys_in_them_does_not_matter(journal: Journal) -> None:
    class Echo(Workflow):
        @step
        async def echo(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=[ev.a, ev.b])

    flow = Echo(journal=journal)
    first = await flow.run(run_id="r", a={"x": 1, "y": 2}, b=2)
    assert await flow.run(run_id="r", b=2, a={"y": 2, "x": 1}) == first


async def test_defaults_are_not_compared(journal: Journal) -> None:
    ids = count()

    class Job(StartEvent):
        name: str
        ticket: int = Field(default_factory=lambda: next(ids))

    class Work(Workflow):
        @step
        async def work(self, ev: Job) -> StopEvent:
            return StopEvent(result=ev.ticket)

    flow = Work(journal=journal)
    assert await flow.run(run_id="r", name="x") == await flow.run(run_id="r", name="x") == 0
    with pytest.raises(RunConflictError):
        await flow.run(run_id="r", name="x", ticket=0)


async def test_defaults_of_a_start_event_given_whole_are_not_compared(journal: Journal) -> None:
    class Job(StartEvent):
        name: str
        ticket: str = Field(default_factory=lambda: uuid4().hex)

    class Work(Workflow):
        @step
        async def work(self, ev: Job) -> StopEvent:
            return StopEvent(result=ev.ticket)

    flow = Work(journal=journal)
    first = await flow.run(run_id="r", start_event=Job(name="x"))
    assert await flow.run(run_id="r", start_event=Job(name="x")) == first
    assert await flow.run(run_id="r", name="x") == first
    with pytest.raises(RunConflictError):
        await flow.run(run_id="r", start_event=Job(name="y"))
    with pytest.raises(RunConflictError):
        await flow.run(run_id="r", start_event=Job(name="x", ticket=first))


async def test_an_id_of_another_workflow_is_a_conflict(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="order-42", item="lamp")
    other = Shop(journal=journal, workflow_name="OtherShop")
    for attempt in (other.run(run_id="order-42", item="lamp"), other.resume("order-42")):
        with pytest.raises(RunConflictError, match=r"order-42.*of workflow Shop.*OtherShop"):
            await attempt
    assert other.ran == []


async def test_an_id_of_another_live_workflow_is_a_conflict(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    with pytest.raises(RunConflictError, match="of workflow Shop"):
        await Shop(journal=journal, workflow_name="OtherShop").run(run_id="order-42", item="lamp")
    flow.hold.set()
    assert await handler == "shipped 1 lamp"


async def test_retry_of_a_run_of_another_workflow_is_a_conflict(journal: Journal) -> None:
    with pytest.raises(ValueError, match="no truck"):
        await Shop(journal=journal, fail=ValueError("no truck")).run(run_id="order-42", item="lamp")
    with pytest.raises(RunConflictError, match="of workflow Shop"):
        await Shop(journal=journal, workflow_name="OtherShop").retry("order-42")
    assert (await journal.run("order-42")).status == "failed"


# -- resume ------------------------------------------------------------------------------------------------------------


async def test_resume_goes_on_without_the_arguments(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp", count=3)
    await flow.shipping.wait()
    await released(handler)
    again = Shop(journal=journal)
    assert await (await again.resume("order-42")) == "shipped 3 lamp"
    assert again.ran == ["ship"]


async def test_resume_of_a_live_run_attaches(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    second = await flow.resume("order-42")
    flow.hold.set()
    assert await second == await handler == "shipped 1 lamp"
    assert flow.ran == ["pack", "ship"]


async def test_resume_of_a_finished_run_shows_its_outcome(journal: Journal) -> None:
    await Shop(journal=journal).run(run_id="good", item="lamp")
    with pytest.raises(ValueError, match="no truck"):
        await Shop(journal=journal, fail=ValueError("no truck")).run(run_id="bad", item="lamp")
    again = Shop(journal=journal)
    assert await (await again.resume("good")) == "shipped 1 lamp"
    with pytest.raises(RunFailedError, match="no truck"):
        await (await again.resume("bad"))
    assert again.ran == []


async def test_an_answer_sent_before_the_resume_is_taken(url: str) -> None:
    async def begin() -> None:
        await question(Asking(journal=url).run(run_id="r"))

    await in_another_loop(begin)
    async with Journal(url) as journal:
        assert await journal.send("r", Answer(text="yes"))
    flow = Asking(journal=url)
    assert await (await flow.resume("r")) == "yes"
    assert flow.ran == ["answered yes"]


# -- retry -------------------------------------------------------------------------------------------------------------


async def test_retry_runs_the_failed_step_again_and_keeps_the_finished_part(journal: Journal) -> None:
    with pytest.raises(ValueError, match="no truck"):
        await Shop(journal=journal, fail=ValueError("no truck")).run(run_id="order-42", item="lamp")
    again = Shop(journal=journal)
    assert await (await again.retry("order-42")) == "shipped 1 lamp"
    assert again.ran == ["ship"]
    assert (await journal.run("order-42")).status == "completed"


async def test_retry_of_a_timed_out_run_has_a_new_budget(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event(), timeout=0.05)
    handler = flow.run(run_id="order-42", item="lamp")
    with time_stands_still():
        await flow.shipping.wait()
    with pytest.raises(WorkflowTimeoutError):
        await handler
    again = Shop(journal=journal, timeout=30)
    assert await (await again.retry("order-42")) == "shipped 1 lamp"
    assert again.ran == ["ship"]


async def test_retry_runs_also_what_was_under_way_when_another_step_failed(journal: Journal) -> None:
    fail = True

    class Part(Event):
        n: int

    class Parts(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.started: list[int] = []
            self.all_started = asyncio.Event()

        @step
        async def split(self, ev: StartEvent) -> list[Part]:
            return [Part(n=n) for n in range(3)]

        @step
        async def work(self, ctx: Context, ev: Part) -> StopEvent | None:
            self.started.append(ev.n)
            if len(self.started) == 2:
                self.all_started.set()
            if ev.n == 0:
                done = await ctx.store.get("done", [])
                await ctx.store.set("done", [*done, 0])
                return None
            if fail:
                await self.all_started.wait() if ev.n == 1 else await asyncio.Event().wait()
                raise RuntimeError("part 1 broke")
            done = await ctx.store.get("done", [])
            await ctx.store.set("done", [*done, ev.n])
            return StopEvent(result=sorted([*done, ev.n])) if len(done) == 2 else None

    flow = Parts()
    with pytest.raises(RuntimeError, match="part 1 broke"):
        await flow.run(run_id="r")
    fail = False
    again = Parts()
    assert await (await again.retry("r")) == [0, 1, 2]
    assert sorted(again.started) == [1, 2]


async def test_retry_gives_a_step_all_its_attempts_again(journal: Journal) -> None:
    class Flaky(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.attempts = 0

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        async def work(self, ev: StartEvent) -> StopEvent:
            self.attempts += 1
            raise ValueError("always")

    flow = Flaky()
    with pytest.raises(ValueError, match="always"):
        await flow.run(run_id="r")
    assert flow.attempts == 3
    with pytest.raises(ValueError, match="always"):
        await (await flow.retry("r"))
    assert flow.attempts == 6


@pytest.mark.parametrize("how", ["completed", "cancelled"])
async def test_retry_is_for_failed_and_timed_out_runs(journal: Journal, how: str) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    if how == "completed":
        flow.hold.set()
        await handler
    else:
        await handler.cancel_run()
    with pytest.raises(WorkflowRuntimeError, match=f"order-42 is {how}"):
        await flow.retry("order-42")


async def test_retry_of_an_unfinished_run_names_resume(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    with pytest.raises(WorkflowRuntimeError, match=r"flow\.resume\('order-42'\)"):
        await flow.retry("order-42")
    flow.hold.set()
    await handler


# -- recover -----------------------------------------------------------------------------------------------------------


async def test_recover_takes_up_every_claimable_run_of_this_workflow(url: str) -> None:
    async def begin() -> None:
        shop = Shop(journal=url, hold=asyncio.Event())
        other = Shop(journal=url, workflow_name="OtherShop", hold=asyncio.Event())
        for n in (1, 2, 3):
            shop.run(run_id=f"order-{n}", item="lamp")
        other.run(run_id="other", item="lamp")
        await Shop(journal=url).run(run_id="done", item="lamp")
        await asyncio.gather(shop.shipping.wait(), other.shipping.wait())

    await in_another_loop(begin)
    flow = Shop(journal=url)
    handlers = await flow.recover()
    assert {h.run_id for h in handlers} == {"order-1", "order-2", "order-3"}
    assert await asyncio.gather(*handlers) == ["shipped 1 lamp"] * 3
    assert await flow.recover() == []


async def test_recover_leaves_alone_what_only_waits_until_it_was_answered(url: str) -> None:
    async def begin() -> None:
        flow = Asking(journal=url)
        for run_id in ("asked", "answered"):
            await question(flow.run(run_id=run_id))

    await in_another_loop(begin)
    flow = Asking(journal=url)
    assert await flow.recover() == []
    async with Journal(url) as journal:
        await journal.send("answered", Answer(text="yes"))
        handlers = await flow.recover()
        assert [h.run_id for h in handlers] == ["answered"]
        assert await handlers[0] == "yes"
        assert (await journal.run("asked")).status == "waiting"


async def test_recover_leaves_alone_what_is_live_here(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    assert await flow.recover() == []
    flow.hold.set()
    await handler


# -- The log line ------------------------------------------------------------------------------------------------------


async def test_the_first_use_of_a_workflow_with_unfinished_runs_logs_once_how_to_recover_them(
    url: str, log: Log
) -> None:
    async def begin() -> None:
        flow = Shop(journal=url, hold=asyncio.Event())
        for n in (1, 2):
            flow.run(run_id=f"order-{n}", item="lamp")
        await flow.shipping.wait()

    await in_another_loop(begin)
    flow = Shop(journal=url)
    await flow.run(item="chair")
    (line,) = await log.seen("unfinished_runs")
    assert re.search(r"Shop has 2 unfinished runs.*recover\(\).*resume\(", line.getMessage())
    await flow.run(item="chair")
    assert len(log.of("unfinished_runs")) == 1


async def test_without_unfinished_runs_nothing_is_said(url: str, log: Log) -> None:
    async def begin() -> None:
        await Shop(journal=url).run(item="lamp")

    await in_another_loop(begin)
    flow = Shop(journal=url)
    for _ in range(3):
        await flow.run(item="chair")
    assert log.of("unfinished_runs") == []


# -- Ids and unknown runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", ["", " ", "-a", ".a", "a b", "ä", "a/b", "a\n", "x" * 201, "a\0", 7, b"a"])
async def test_an_invalid_run_id_is_refused_at_once(memory: Journal, run_id: object) -> None:
    flow = Shop(journal=memory)
    with pytest.raises(RunIdError):
        flow.run(run_id=run_id, item="lamp")
    for attempt in (flow.resume, flow.retry, memory.run, memory.history, memory.state):
        with pytest.raises(RunIdError):
            await attempt(run_id)
    assert await memory.runs() == []


@pytest.mark.parametrize("run_id", ["a", "7", "A.b_c:d@e-f", "x" * 200])
async def test_a_valid_run_id_is_kept_as_it_is(journal: Journal, run_id: str) -> None:
    handler = Shop(journal=journal).run(run_id=run_id, item="lamp")
    assert handler.run_id == run_id
    await handler
    assert (await journal.run(run_id)).run_id == run_id


async def test_resuming_or_retrying_an_unknown_run_says_how_to_start_it(journal: Journal) -> None:
    flow = Shop(journal=journal)
    for attempt in (flow.resume, flow.retry):
        with pytest.raises(RunNotFoundError, match=r"no run nowhere.*flow\.run\(run_id='nowhere'"):
            await attempt("nowhere")
    assert await journal.runs() == []


async def test_arguments_that_make_no_start_event_are_refused_and_start_nothing(journal: Journal) -> None:
    flow = Shop(journal=journal)
    with pytest.raises(WorkflowRuntimeError, match="Order"):
        flow.run(run_id="r", count=2)
    with pytest.raises(ValueError, match="Order"):
        flow.run(run_id="r", start_event=StartEvent())
    with pytest.warns(UserWarning, match="item"):
        handler = flow.run(run_id="r", start_event=Order(item="chair"), item="lamp")
    assert await handler == "shipped 1 chair"


async def test_run_needs_a_running_loop_and_nothing_else_does(tmp_path: object) -> None:
    flow = Shop(journal=f"sqlite:///{tmp_path}/jobs.db")

    def in_a_thread() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            flow.run(item="lamp")

    await asyncio.to_thread(in_a_thread)


# -- Pending work whose step is gone -----------------------------------------------------------------------------------


async def test_work_for_a_step_that_is_gone_parks_the_run_until_it_is_restored(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    await released(handler)

    class WithoutShip(Workflow):
        @step
        async def pack(self, ev: Order) -> StopEvent:
            return StopEvent()

    changed = WithoutShip(journal=journal, workflow_name="Shop")
    with pytest.raises(NeedsAttentionError, match=r"'ship'.*Restore the step.*flow\.resume\('order-42'\)"):
        await changed.run(run_id="order-42", item="lamp")
    info = await journal.run("order-42")
    assert info.status == "needs_attention"
    assert "'ship'" in info.error
    assert "flow.resume('order-42')" in (await journal.state("order-42")).attention
    # Asking again changes nothing, nor does recovering.
    with pytest.raises(NeedsAttentionError, match="'ship'"):
        await changed.run(run_id="order-42", item="lamp")
    assert await Shop(journal=journal).recover() == []
    restored = Shop(journal=journal)
    assert await (await restored.resume("order-42")) == "shipped 1 lamp"
    assert restored.ran == ["ship"]


async def test_a_completed_step_may_vanish(journal: Journal) -> None:
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="order-42", item="lamp")
    await flow.shipping.wait()
    await released(handler)

    class ShipOnly(Workflow):
        @step
        async def other(self, ev: Order) -> Packed:
            raise AssertionError("never")

        @step
        async def ship(self, ev: Packed) -> StopEvent:
            return StopEvent(result="by the new code")

    changed = ShipOnly(journal=journal, workflow_name="Shop")
    assert await changed.run(run_id="order-42", item="lamp") == "by the new code"
    completed = await records_of(journal, "order-42", StepCompleted)
    assert [c.task.step for c in completed] == ["pack", "ship"]
