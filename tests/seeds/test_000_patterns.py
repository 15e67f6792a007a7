"""Seed 000: the workflow step patterns and the usage examples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from durable_flow import (
    Context,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    step,
)

from . import guide_patterns
from .guide import DataProcessingEvent, ErrorEvent, IntelligenceRequestEvent, ProcessingEvent
from .guide_patterns import (
    ArchonIntelligenceWorkflow,
    BridgeOrchestratorWorkflow,
    DataPipelineWorkflow,
    ParallelWorkflow,
    RAGIntelligenceWorkflow,
    ResilientWorkflow,
)
from .standins import ArchonMCPClient, NodeBridgeOrchestrator

# -- "Pattern 1: Intelligence Gathering with RAG" ----------------------------------------------------------------------


def test_pattern_1_has_no_step_for_a_start_event_and_cannot_be_constructed():
    with pytest.raises(WorkflowConfigurationError, match="no step that accepts a StartEvent"):
        RAGIntelligenceWorkflow(timeout=60)


class WithAStart(RAGIntelligenceWorkflow):
    """Pattern 1 and the step that it lacks; who takes ErrorEvent and DataProcessingEvent is still open."""

    @step
    async def begin(self, ev: StartEvent) -> IntelligenceRequestEvent:
        return IntelligenceRequestEvent(query=ev.query, context={}, correlation_id="c-1")


def test_events_that_nobody_takes_are_told_before_a_run():
    with pytest.raises(WorkflowValidationError, match=r"(?s)ErrorEvent.*never consumed.*DataProcessingEvent"):
        WithAStart().validate()


class Intelligence(WithAStart):
    """Pattern 1 made whole: a start, and takers for what it returns."""

    def __init__(self, confidence: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.confidence = confidence

    @step
    async def failed(self, ev: ErrorEvent) -> StopEvent:
        return StopEvent(result=[ev.error_type, ev.error_message, ev.recoverable, ev.correlation_id])

    @step
    async def end(self, ctx: Context, ev: DataProcessingEvent) -> StopEvent:
        return StopEvent(result=[ev.input_data, ev.parameters, ev.correlation_id, dict(ctx.data)])

    async def _query_archon_rag(self, query: str, context: dict[str, Any], filters: Any) -> list[dict[str, Any]]:
        if query == "broken":
            raise ConnectionError("Archon is away")
        return [{"source": "rag", "text": query}]

    def _calculate_confidence(self, results: list[dict[str, Any]]) -> float:
        return self.confidence

    def _extract_insights(self, results: list[dict[str, Any]]) -> list[str]:
        return [result["text"] for result in results]


async def test_pattern_1_made_whole_applies_what_it_is_sure_of():
    result = await Intelligence(0.9).run(query="reducers")
    assert result == [
        ["reducers"],
        {"confidence": 0.9},
        "c-1",
        {"intelligence_request": "reducers", "intelligence_insights": ["reducers"]},
    ]


async def test_pattern_1_made_whole_asks_for_a_review_of_what_it_is_not_sure_of():
    assert await Intelligence(0.5).run(query="reducers") == {
        "status": "low_confidence",
        "confidence": 0.5,
        "recommendation": "manual_review_required",
    }


async def test_pattern_1_made_whole_turns_an_exception_into_an_event():
    assert await Intelligence(0.9).run(query="broken") == [
        "intelligence_gathering_failed",
        "Archon is away",
        True,
        "c-1",
    ]


# -- "Pattern 2: Error Handling and Retry Logic" -----------------------------------------------------------------------


def test_pattern_2_has_no_step_for_a_start_event_and_cannot_be_constructed():
    with pytest.raises(WorkflowConfigurationError, match="no step that accepts a StartEvent"):
        ResilientWorkflow(timeout=60)


class Resilient(ResilientWorkflow):
    def __init__(self, failures: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.failures = failures

    @step
    async def begin(self, ev: StartEvent) -> DataProcessingEvent:
        return DataProcessingEvent(input_data="x", processing_type="t", parameters={}, correlation_id="c")

    @step
    async def succeeded(self, ctx: Context, ev: ProcessingEvent) -> StopEvent:
        return StopEvent(result=(ev.result, ctx.data["retry_count_c"]))

    @step
    async def gave_up(self, ctx: Context, ev: ErrorEvent) -> StopEvent:
        return StopEvent(result=(ev.error_message, ctx.data["retry_count_c"]))

    async def _process_data(self, data: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("away")
        return {"processed": data}


@pytest.fixture
def slept(monkeypatch) -> list[int]:
    """The seconds that the program slept, without sleeping."""
    seconds: list[int] = []

    async def sleep(delay: int) -> None:
        seconds.append(delay)

    monkeypatch.setattr(guide_patterns, "asyncio", SimpleNamespace(sleep=sleep))
    return seconds


@pytest.mark.parametrize(
    ("failures", "result", "delays"),
    [
        (0, ({"processed": "x"}, 0), []),
        (2, ({"processed": "x"}, 0), [2, 4]),
        (3, ("Failed after 3 retries: away", 3), [2, 4]),
    ],
)
async def test_pattern_2_tries_three_times_and_waits_longer_each_time(failures, result, delays, slept):
    assert await Resilient(failures).run() == result
    assert slept == delays


# -- "Pattern 3: Parallel Step Execution" ------------------------------------------------------------------------------


class Parallel(ParallelWorkflow):
    async def _process_task(self, task: Any) -> dict[str, Any]:
        return {"done": task}


@pytest.mark.parametrize("count", [1, 3, 4])
async def test_pattern_3_ends_while_all_tasks_run_at_once(count):
    tasks = list(range(count))
    result = await Parallel(timeout=30).run(input_data={"tasks": tasks}, correlation_id="c")
    assert result == {
        "parallel_results": [{"done": task} for task in tasks],
        "total_tasks": count,
        "status": "all_completed",
    }


async def test_pattern_3_hangs_when_there_are_more_tasks_than_workers():
    # Whoever comes to fan_in before all have completed is sent away, and its result with it.
    with pytest.raises(WorkflowTimeoutError):
        await Parallel(timeout=0.5).run(input_data={"tasks": list(range(20))}, correlation_id="c")


async def test_pattern_3_hangs_without_tasks():
    with pytest.raises(WorkflowTimeoutError):
        await Parallel(timeout=0.5).run(input_data={"tasks": []}, correlation_id="c")


async def test_pattern_3_reads_a_correlation_id_that_the_caller_must_give():
    with pytest.raises(AttributeError, match="correlation_id"):
        await Parallel(timeout=30).run(input_data={"tasks": [1]})


# -- "Example 2: Multi-Step Processing Pipeline" -----------------------------------------------------------------------


class Pipeline(DataPipelineWorkflow):
    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.saved: list[Any] = []

    def _validate(self, data: dict[str, Any], rules: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in rules["required_fields"] if name not in data]
        if missing:
            raise ValueError(f"missing: {missing}")
        return data

    async def _transform(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "content": data["content"].upper()}

    async def _save_to_db(self, result: Any) -> None:
        self.saved.append(result)


async def test_example_2_has_a_step_called_validate_and_returns_its_context(database):
    workflow = Pipeline(timeout=30.0)
    result = await workflow.run(input_data={"id": "123", "content": "data", "metadata": {}}, run_id="pipeline")
    transformed = {"id": "123", "content": "DATA", "metadata": {}}
    assert result == {"status": "success", "data": transformed, "metadata": {"validated": True}}
    assert workflow.saved == [transformed]
    async with Journal(database) as journal:
        assert [run.status for run in await journal.runs()] == ["completed"]


async def test_example_2_fails_with_the_exception_of_its_step():
    with pytest.raises(ValueError, match=r"missing: \['content'\]"):
        await Pipeline(timeout=30.0).run(input_data={"id": "123"})


# -- "Example 3: Bridge Node Integration" ------------------------------------------------------------------------------


async def test_example_3_stamps_through_the_orchestrator():
    orchestrator = NodeBridgeOrchestrator()
    workflow = BridgeOrchestratorWorkflow(orchestrator, timeout=30)
    handler = workflow.run(input_data={"content": "text", "namespace": "docs"})
    assert await handler == {
        "success": True,
        "file_hash": "hash of text",
        "stamp_id": "docs-1",
        "performance": {"execution_time_ms": 2},
    }
    [request] = orchestrator.requests
    assert handler.ctx.data["stamping_request"] == request
    assert handler.ctx.data["stamp_result"]["stamp_id"] == "docs-1"


# -- "Integration with Archon MCP" -------------------------------------------------------------------------------------


def test_the_archon_example_cannot_be_constructed():
    with pytest.raises(WorkflowConfigurationError, match="no step that accepts a StartEvent"):
        ArchonIntelligenceWorkflow(ArchonMCPClient())


class Archon(ArchonIntelligenceWorkflow):
    @step
    async def begin(self, ev: StartEvent) -> IntelligenceRequestEvent:
        return IntelligenceRequestEvent(query=ev.query, context={"domain": "reducers"})

    @step
    async def end(self, ctx: Context, ev: DataProcessingEvent) -> StopEvent:
        return StopEvent(result=(ev.input_data, ev.parameters, ctx.data["archon_intelligence"]["sources"]))

    def _synthesize(self, results: list[dict[str, Any]], patterns: list[str]) -> list[str]:
        return [f"{result['insight']}: {pattern}" for result in results for pattern in patterns]


async def test_the_archon_example_made_whole_combines_research_and_patterns():
    workflow: Workflow = Archon(ArchonMCPClient(), timeout=30)
    combined, parameters, sources = await workflow.run(query="speed")
    assert combined == {
        "intelligence": [{"source": "rag", "insight": "speed in reducers"}],
        "patterns": ["pattern for optimization"],
        "recommendations": ["speed in reducers: pattern for optimization"],
    }
    assert (parameters, sources) == ({"confidence": 0.9}, ["rag", "qdrant", "memgraph"])
