"""Seed 000: the guide's first workflow and its events."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

from .guide import (
    CustomEvent,
    DataProcessingEvent,
    ErrorEvent,
    IntelligenceRequestEvent,
    IntelligenceWorkflow,
    ProcessingEvent,
    RetryEvent,
    ValidationEvent,
    WorkflowBaseEvent,
)

# -- "Event-Driven Workflow Architecture" ------------------------------------------------------------------------------


class Intelligence(IntelligenceWorkflow):
    """The guide does not show `_process_intelligence`."""

    def __init__(self, more: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.more = more

    async def _process_intelligence(self, data: str, metadata: dict[str, Any]) -> dict[str, Any]:
        if data == "bad":
            raise ValueError("no intelligence in bad")
        return {"about": data, "session": metadata["session_id"], "requires_more_processing": self.more}


async def test_a_result_that_needs_no_more_processing_ends_the_run():
    handler = Intelligence(timeout=60.0).run(input_data="nodes")
    result = await handler
    assert result == {
        "about": "nodes",
        "session": handler.ctx.data["session_id"],
        "requires_more_processing": False,
    }
    assert handler.ctx.data["last_result"] == result


async def test_a_result_that_needs_more_processing_goes_to_finalize():
    handler = Intelligence(more=True, timeout=60.0).run(input_data="nodes")
    result = await handler
    assert (result["about"], result["processing_steps"]) == ("nodes", 1)
    assert result["session_id"] == handler.ctx.data["session_id"] == result["session"]
    assert result["execution_time_ms"] >= 0


async def test_an_error_is_kept_in_the_context_and_told_as_the_result():
    handler = Intelligence(timeout=60.0).run(input_data="bad")
    assert await handler == {"error": "no intelligence in bad", "status": "failed"}
    assert handler.ctx.data["error"] == "no intelligence in bad"


# -- "Custom Event Definitions" ----------------------------------------------------------------------------------------


def test_the_base_event_gives_every_event_its_metadata():
    before = time.time()
    one, two = (IntelligenceRequestEvent(query="q", context={}) for _ in range(2))
    assert one.correlation_id != two.correlation_id
    assert before <= one.timestamp <= time.time()
    assert (one.metadata, one.filters) == ({}, None)
    assert ValidationEvent(data_to_validate=1, validation_rules={}).strict_mode is True
    assert ErrorEvent(error_type="t", error_message="m").recoverable is True
    assert isinstance(one, WorkflowBaseEvent)


def test_fields_are_validated():
    with pytest.raises(ValidationError, match="query"):
        IntelligenceRequestEvent(context={})
    with pytest.raises(ValidationError, match="status"):
        ProcessingEvent(result={})


def test_a_class_without_the_field_keeps_a_correlation_id_all_the_same():
    event = ProcessingEvent(result={}, status="done", correlation_id="c")
    assert event.correlation_id == "c"


async def test_an_event_inside_an_event_keeps_its_class_and_its_fields_in_the_journal():
    seen = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> RetryEvent:
            return RetryEvent(
                original_event=DataProcessingEvent(input_data=[1], processing_type="t", parameters={"a": 1}),
                retry_count=1,
            )

        @step
        async def one(self, ev: RetryEvent) -> DataProcessingEvent:
            return ev.original_event

        @step
        async def two(self, ev: RetryEvent) -> None:
            seen.append(ev.original_event)  # two steps take it, so this one was decoded from what is stored

        @step
        async def end(self, ctx: Context, ev: DataProcessingEvent) -> StopEvent:
            return StopEvent(result=(ev.input_data, ev.parameters))

    assert await Flow().run() == ([1], {"a": 1})
    [event] = seen
    assert type(event) is DataProcessingEvent
    assert (event.processing_type, event.input_data) == ("t", [1])


# -- "Example 1: RAG-Powered Intelligence Workflow" --------------------------------------------------------------------

INPUT = {
    "query": "Find optimization patterns for ONEX nodes",
    "context": {"domain": "performance_optimization", "node_type": "reducer"},
    "filters": {"confidence_threshold": 0.8},
}


class BridgeEvent(Event):
    data: Any


class BridgeIntelligenceWorkflow(Workflow):
    """Stands for `omninode_bridge.workflows.IntelligenceWorkflow`, which takes a dict."""

    @step
    async def entry_point(self, ctx: Context, ev: StartEvent) -> BridgeEvent:
        ctx.data["query"] = ev.input_data["query"]
        return BridgeEvent(data=ev.input_data)

    @step
    async def process(self, ctx: Context, ev: BridgeEvent) -> StopEvent:
        return StopEvent(result={"query": ctx.data["query"], "domain": ev.data["context"]["domain"]})


async def execute_intelligence_workflow():
    """Execute RAG-powered intelligence gathering workflow"""

    # Initialize workflow
    workflow = BridgeIntelligenceWorkflow(timeout=60.0)

    # Execute with input data
    result = await workflow.run(
        input_data={
            "query": "Find optimization patterns for ONEX nodes",
            "context": {"domain": "performance_optimization", "node_type": "reducer"},
            "filters": {"confidence_threshold": 0.8},
        }
    )

    print(f"Intelligence gathered: {result}")
    return result


async def test_the_input_of_a_run_may_be_a_dict(capsys):
    result = await execute_intelligence_workflow()
    assert result == {"query": INPUT["query"], "domain": "performance_optimization"}
    assert f"Intelligence gathered: {result}" in capsys.readouterr().out


async def test_the_guides_own_class_takes_text_only_so_a_dict_fails_the_run():
    with pytest.raises(ValidationError, match=r"CustomEvent\ndata\n.*valid string"):
        await Intelligence(timeout=60.0).run(input_data=INPUT)
    assert CustomEvent.model_fields["data"].annotation == "str" or CustomEvent.model_fields["data"].annotation is str
