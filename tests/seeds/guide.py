"""The events and the first workflow of the integration guide (seed 000), to the letter but for the import line."""

from __future__ import annotations

import time
from typing import Any, Optional
from uuid import uuid4

from pydantic import Field

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step


class CustomEvent(Event):
    """Custom event with typed data payload"""

    data: str
    metadata: dict[str, Any]
    timestamp: float


class ProcessingEvent(Event):
    """Event emitted during processing"""

    result: dict[str, Any]
    status: str


class IntelligenceWorkflow(Workflow):
    """Event-driven AI workflow with state management"""

    @step
    async def entry_point(self, ctx: Context, ev: StartEvent) -> CustomEvent:
        """Initial step - receives start event and emits custom event"""
        # Access workflow context for shared state
        ctx.data["session_id"] = str(uuid4())
        ctx.data["start_time"] = time.time()

        # Emit custom event to trigger next step
        return CustomEvent(data=ev.input_data, metadata={"session_id": ctx.data["session_id"]}, timestamp=time.time())

    @step
    async def process_data(self, ctx: Context, ev: CustomEvent) -> ProcessingEvent | StopEvent:
        """Processing step - receives custom event, processes, and routes"""
        try:
            # Access shared context
            session_id = ctx.data["session_id"]

            # Process data
            result = await self._process_intelligence(ev.data, ev.metadata)

            # Update context state
            ctx.data["last_result"] = result
            ctx.data["processing_count"] = ctx.data.get("processing_count", 0) + 1

            # Conditional routing based on result
            if result.get("requires_more_processing"):
                return ProcessingEvent(result=result, status="continuing")
            else:
                return StopEvent(result=result)

        except Exception as e:
            # Error handling with context preservation
            ctx.data["error"] = str(e)
            return StopEvent(result={"error": str(e), "status": "failed"})

    @step
    async def finalize(self, ctx: Context, ev: ProcessingEvent) -> StopEvent:
        """Final processing step"""
        # Aggregate context data
        execution_time = time.time() - ctx.data["start_time"]

        final_result = {
            **ev.result,
            "session_id": ctx.data["session_id"],
            "execution_time_ms": execution_time * 1000,
            "processing_steps": ctx.data.get("processing_count", 0),
        }

        return StopEvent(result=final_result)


# Base event for all workflow events
class WorkflowBaseEvent(Event):
    """Base event with common metadata"""

    correlation_id: str = Field(default_factory=lambda: str(uuid4()))
    timestamp: float = Field(default_factory=time.time)
    metadata: dict[str, Any] = Field(default_factory=dict)


# Intelligence gathering events
class IntelligenceRequestEvent(WorkflowBaseEvent):
    """Event to request intelligence from RAG system"""

    query: str
    context: dict[str, Any]
    filters: Optional[dict[str, Any]] = None


class IntelligenceResponseEvent(WorkflowBaseEvent):
    """Event containing intelligence response"""

    results: list[dict[str, Any]]
    confidence_score: float
    sources: list[str]


# Processing events
class DataProcessingEvent(WorkflowBaseEvent):
    """Event for data processing steps"""

    input_data: Any
    processing_type: str
    parameters: dict[str, Any]


class ValidationEvent(WorkflowBaseEvent):
    """Event for validation steps"""

    data_to_validate: Any
    validation_rules: dict[str, Any]
    strict_mode: bool = True


# Error and control events
class ErrorEvent(WorkflowBaseEvent):
    """Event emitted on errors"""

    error_type: str
    error_message: str
    stack_trace: Optional[str] = None
    recoverable: bool = True


class RetryEvent(WorkflowBaseEvent):
    """Event to trigger retry logic"""

    original_event: Event
    retry_count: int
    max_retries: int = 3
