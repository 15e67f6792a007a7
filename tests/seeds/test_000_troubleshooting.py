"""Seed 000: the troubleshooting guide, its four issues and the instrumented step.

The guide shows single steps; each stands here in the smallest workflow around it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from durable_flow import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    WorkflowTimeoutError,
    step,
)

from .guide import CustomEvent, ProcessingEvent


def process_data(data: str) -> str:
    return data.upper()


def custom(data: str) -> CustomEvent:
    return CustomEvent(data=data, metadata={}, timestamp=0.0)


# -- "Issue 1: Workflow Hangs or Never Completes" ----------------------------------------------------------------------


class Begins(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> CustomEvent:
        return custom("data")


class BrokenWorkflow(Begins):
    # Problem: Missing StopEvent in workflow
    @step
    async def broken_step(self, ctx: Context, ev: CustomEvent) -> None:
        # This step doesn't return StopEvent and workflow hangs
        result = process_data(ev.data)
        # Missing: return StopEvent(result=result)


class FixedStepWorkflow(Begins):
    # Solution: Always return StopEvent to complete workflow
    @step
    async def fixed_step(self, ctx: Context, ev: CustomEvent) -> StopEvent:
        result = process_data(ev.data)
        return StopEvent(result=result)


class ForgetfulWorkflow(Begins):
    @step
    async def broken_step(self, ctx: Context, ev: CustomEvent) -> StopEvent:
        process_data(ev.data)


def test_issue_1_a_workflow_that_never_stops_is_refused_before_it_runs():
    with pytest.raises(WorkflowConfigurationError, match="no step that returns a StopEvent"):
        BrokenWorkflow()


async def test_issue_1_a_step_that_forgets_its_promised_stop_event_hangs_until_the_timeout():
    with pytest.raises(WorkflowTimeoutError, match=r"timed out after 0\.5 seconds\..*No steps active"):
        await ForgetfulWorkflow(timeout=0.5).run()


async def test_issue_1_solved():
    assert await FixedStepWorkflow(timeout=30).run() == "DATA"


# -- "Issue 2: Context Data Lost Between Steps" ------------------------------------------------------------------------


class EndsWithContext(Workflow):
    @step
    async def end(self, ctx: Context, ev: CustomEvent) -> StopEvent:
        return StopEvent(result=(ev.data, ctx.data.get("session_id")))


class BrokenContextWorkflow(EndsWithContext):
    # Problem: Not accessing context correctly
    @step
    async def broken_context(self, ctx: Context, ev: StartEvent) -> CustomEvent:
        session_id = str(uuid4())  # Local variable, lost after step
        return custom(session_id)


class FixedContextWorkflow(EndsWithContext):
    # Solution: Store in context for persistence
    @step
    async def fixed_context(self, ctx: Context, ev: StartEvent) -> CustomEvent:
        ctx.data["session_id"] = str(uuid4())  # ✅ Persisted in context
        return custom(ctx.data["session_id"])


async def test_issue_2_a_local_variable_is_gone_after_its_step():
    sent, kept = await BrokenContextWorkflow(timeout=30).run()
    assert (str(UUID(sent)), kept) == (sent, None)


async def test_issue_2_solved():
    sent, kept = await FixedContextWorkflow(timeout=30).run()
    assert sent == kept


# -- "Issue 3: Event Routing Ambiguity" --------------------------------------------------------------------------------


class AmbiguousWorkflow(Begins):
    seen: list[tuple[str, str]]

    @step
    async def step_a(self, ev: CustomEvent) -> StopEvent:
        # Both steps can handle CustomEvent
        self.seen.append(("step_a", ev.data))

    @step
    async def step_b(self, ev: CustomEvent) -> StopEvent:
        # Which step gets called? Undefined!
        self.seen.append(("step_b", ev.data))
        if len(self.seen) == 2:
            return StopEvent()


class CustomEventA(Event):
    data: str


class CustomEventB(Event):
    data: str


class FixedWorkflow(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> CustomEventA:
        return CustomEventA(data="data")

    @step
    async def step_a(self, ev: CustomEventA) -> CustomEventB:
        # Explicit event routing
        return CustomEventB(data=ev.data)

    @step
    async def step_b(self, ev: CustomEventB) -> StopEvent:
        # Clear event flow
        return StopEvent(result=ev.data)


async def test_issue_3_is_not_undefined_every_step_gets_the_event():
    workflow = AmbiguousWorkflow(timeout=30)
    workflow.seen = []
    await workflow.run()
    assert workflow.seen == [("step_a", "data"), ("step_b", "data")]


async def test_issue_3_solved():
    assert await FixedWorkflow(timeout=30).run() == "data"


# -- "Issue 4: Parallel Step Synchronization" --------------------------------------------------------------------------


class Job(Event):
    n: int


class FansOut(Workflow):
    @step
    async def fan_out(self, ctx: Context, ev: StartEvent) -> list[Job]:
        ctx.data["expected_count"] = ev.count
        return [Job(n=n) for n in range(ev.count)]

    @step
    async def work(self, ev: Job) -> ProcessingEvent:
        return ProcessingEvent(result={"n": ev.n}, status="done")


class UnlockedWorkflow(FansOut):
    # Problem: Race condition in parallel step aggregation
    @step
    async def broken_fan_in(self, ctx: Context, ev: ProcessingEvent) -> StopEvent | None:
        results = ctx.data.get("results", [])
        results.append(ev.result)  # ⚠️ Race condition
        ctx.data["results"] = results

        if len(results) == ctx.data["expected_count"]:
            return StopEvent(result=results)


class LockedWorkflow(FansOut):
    # Solution: Use atomic operations or locks
    @step
    async def fixed_fan_in(self, ctx: Context, ev: ProcessingEvent) -> StopEvent | None:
        async with ctx.lock:  # ✅ Atomic context update
            results = ctx.data.get("results", [])
            results.append(ev.result)
            ctx.data["results"] = results

            if len(results) == ctx.data["expected_count"]:
                return StopEvent(result=results)


class RacingWorkflow(FansOut):
    """The same with an `await` between reading and writing, where the race is."""

    together: asyncio.Barrier

    @step
    async def fan_in(self, ctx: Context, ev: ProcessingEvent) -> StopEvent | None:
        results = list(ctx.data.get("results", []))
        await self.together.wait()
        ctx.data["results"] = [*results, ev.result]
        if ev.result["n"] == 1:
            return StopEvent(result=ctx.data["results"])


@pytest.mark.parametrize("count", [1, 5, 20])
@pytest.mark.parametrize("workflow", [UnlockedWorkflow, LockedWorkflow])
async def test_issue_4_any_number_of_results_arrives_once_each(workflow, count):
    results = await workflow(timeout=30).run(count=count)
    assert sorted(result["n"] for result in results) == list(range(count))


async def test_issue_4_what_is_read_before_an_await_and_written_after_it_loses_results():
    workflow = RacingWorkflow(timeout=30)
    workflow.together = asyncio.Barrier(2)
    assert await workflow.run(count=2) == [{"n": 1}]


# -- "Add Step Instrumentation" ----------------------------------------------------------------------------------------


class InstrumentedWorkflow(Begins):
    @step
    async def instrumented_step(self, ctx: Context, ev: CustomEvent) -> ProcessingEvent:
        start_time = time.time()

        print(f"[STEP] Processing {type(ev).__name__}")
        print(f"[CONTEXT] Current state: {ctx.data}")

        result = await self._process(ev)

        execution_time = (time.time() - start_time) * 1000
        print(f"[METRICS] Execution time: {execution_time:.2f}ms")

        return ProcessingEvent(result=result, status="completed")

    @step
    async def end(self, ctx: Context, ev: ProcessingEvent) -> StopEvent:
        return StopEvent(result=ev.result)

    async def _process(self, ev: CustomEvent) -> dict[str, Any]:
        return {"processed": ev.data}


async def test_an_instrumented_step_prints_the_context_as_a_dict(capsys):
    class WithState(InstrumentedWorkflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> CustomEvent:
            ctx.data["user"] = "ann"
            return custom("data")

    assert await WithState(timeout=30).run() == {"processed": "data"}
    shown = capsys.readouterr().out
    assert "[STEP] Processing CustomEvent\n[CONTEXT] Current state: {'user': 'ann'}\n[METRICS] Execution" in shown
