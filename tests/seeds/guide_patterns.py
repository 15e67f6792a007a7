"""The patterns and examples of the integration guide (seed 000), to the letter but for the import line.

Methods that the guide calls and does not show (`_query_archon_rag`, `_process_data`, ...) are given by the tests.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

from durable_flow import Context, StartEvent, StopEvent, Workflow, step

from .guide import (
    DataProcessingEvent,
    ErrorEvent,
    IntelligenceRequestEvent,
    IntelligenceResponseEvent,
    ProcessingEvent,
    RetryEvent,
    ValidationEvent,
)
from .standins import ArchonMCPClient, NodeBridgeOrchestrator


class RAGIntelligenceWorkflow(Workflow):
    """Workflow integrating RAG intelligence"""

    @step
    async def gather_intelligence(
        self, ctx: Context, ev: IntelligenceRequestEvent
    ) -> IntelligenceResponseEvent | ErrorEvent:
        """Query RAG system for intelligence"""
        try:
            # Store request in context
            ctx.data["intelligence_request"] = ev.query

            # Query Archon MCP for intelligence
            rag_results = await self._query_archon_rag(query=ev.query, context=ev.context, filters=ev.filters)

            # Calculate confidence from multiple sources
            confidence = self._calculate_confidence(rag_results)

            return IntelligenceResponseEvent(
                results=rag_results,
                confidence_score=confidence,
                sources=[r["source"] for r in rag_results],
                correlation_id=ev.correlation_id,
            )

        except Exception as e:
            return ErrorEvent(
                error_type="intelligence_gathering_failed",
                error_message=str(e),
                recoverable=True,
                correlation_id=ev.correlation_id,
            )

    @step
    async def apply_intelligence(self, ctx: Context, ev: IntelligenceResponseEvent) -> DataProcessingEvent | StopEvent:
        """Apply gathered intelligence to processing"""
        # Check confidence threshold
        if ev.confidence_score < 0.7:
            return StopEvent(
                result={
                    "status": "low_confidence",
                    "confidence": ev.confidence_score,
                    "recommendation": "manual_review_required",
                }
            )

        # Extract insights from intelligence
        insights = self._extract_insights(ev.results)

        # Store insights in context for later steps
        ctx.data["intelligence_insights"] = insights

        return DataProcessingEvent(
            input_data=insights,
            processing_type="intelligence_application",
            parameters={"confidence": ev.confidence_score},
            correlation_id=ev.correlation_id,
        )


class ResilientWorkflow(Workflow):
    """Workflow with built-in error handling and retry"""

    @step
    async def execute_with_retry(
        self, ctx: Context, ev: DataProcessingEvent
    ) -> ProcessingEvent | RetryEvent | ErrorEvent:
        """Execute processing with automatic retry"""
        retry_count = ctx.data.get(f"retry_count_{ev.correlation_id}", 0)

        try:
            result = await self._process_data(ev.input_data, ev.parameters)

            # Reset retry counter on success
            ctx.data[f"retry_count_{ev.correlation_id}"] = 0

            return ProcessingEvent(result=result, status="success", correlation_id=ev.correlation_id)

        except Exception as e:
            # Increment retry counter
            retry_count += 1
            ctx.data[f"retry_count_{ev.correlation_id}"] = retry_count

            # Check if retries exhausted
            if retry_count >= 3:
                return ErrorEvent(
                    error_type="max_retries_exceeded",
                    error_message=f"Failed after {retry_count} retries: {str(e)}",
                    recoverable=False,
                    correlation_id=ev.correlation_id,
                )

            # Emit retry event with exponential backoff
            await asyncio.sleep(2**retry_count)  # 2s, 4s, 8s
            return RetryEvent(original_event=ev, retry_count=retry_count, correlation_id=ev.correlation_id)

    @step
    async def handle_retry(self, ctx: Context, ev: RetryEvent) -> DataProcessingEvent:
        """Handle retry events by re-emitting original event"""
        return ev.original_event


class ParallelWorkflow(Workflow):
    """Workflow with parallel step execution"""

    @step
    async def fan_out(self, ctx: Context, ev: StartEvent) -> list[DataProcessingEvent]:
        """Fan out to multiple parallel processing steps"""
        tasks = ev.input_data.get("tasks", [])

        # Create event for each parallel task
        events = [
            DataProcessingEvent(
                input_data=task,
                processing_type=f"parallel_{i}",
                parameters={"task_id": i},
                correlation_id=f"{ev.correlation_id}_task_{i}",
            )
            for i, task in enumerate(tasks)
        ]

        # Store parallel task count in context
        ctx.data["parallel_task_count"] = len(events)
        ctx.data["completed_tasks"] = []

        return events

    @step
    async def process_parallel(self, ctx: Context, ev: DataProcessingEvent) -> ProcessingEvent:
        """Process individual parallel task"""
        result = await self._process_task(ev.input_data)

        # Track completion in context
        completed = ctx.data.get("completed_tasks", [])
        completed.append(ev.correlation_id)
        ctx.data["completed_tasks"] = completed

        return ProcessingEvent(result=result, status="completed", correlation_id=ev.correlation_id)

    @step
    async def fan_in(self, ctx: Context, ev: ProcessingEvent) -> StopEvent | None:
        """Aggregate results when all parallel tasks complete"""
        completed_count = len(ctx.data.get("completed_tasks", []))
        total_count = ctx.data.get("parallel_task_count", 0)

        if completed_count < total_count:
            # Not all tasks complete, wait for more
            return None

        # All tasks complete, aggregate results
        all_results = ctx.data.get("all_results", [])
        all_results.append(ev.result)
        ctx.data["all_results"] = all_results

        if len(all_results) == total_count:
            return StopEvent(
                result={"parallel_results": all_results, "total_tasks": total_count, "status": "all_completed"}
            )


class DataPipelineWorkflow(Workflow):
    """Multi-step data processing pipeline"""

    @step
    async def ingest(self, ctx: Context, ev: StartEvent) -> ValidationEvent:
        """Step 1: Ingest and validate input"""
        return ValidationEvent(
            data_to_validate=ev.input_data,
            validation_rules={"required_fields": ["id", "content"]},
            correlation_id=str(uuid4()),
        )

    @step
    async def validate(self, ctx: Context, ev: ValidationEvent) -> DataProcessingEvent:
        """Step 2: Validate data"""
        validated_data = self._validate(ev.data_to_validate, ev.validation_rules)
        ctx.data["validated"] = True
        return DataProcessingEvent(input_data=validated_data, processing_type="transformation", parameters={})

    @step
    async def transform(self, ctx: Context, ev: DataProcessingEvent) -> ProcessingEvent:
        """Step 3: Transform data"""
        transformed = await self._transform(ev.input_data)
        return ProcessingEvent(result=transformed, status="transformed")

    @step
    async def persist(self, ctx: Context, ev: ProcessingEvent) -> StopEvent:
        """Step 4: Persist results"""
        await self._save_to_db(ev.result)
        return StopEvent(result={"status": "success", "data": ev.result, "metadata": ctx.data})


class BridgeOrchestratorWorkflow(Workflow):
    """Integrate LlamaIndex Workflow with ONEX Bridge Orchestrator"""

    def __init__(self, orchestrator: NodeBridgeOrchestrator, **kwargs):
        super().__init__(**kwargs)
        self.orchestrator = orchestrator

    @step
    async def prepare_stamping(self, ctx: Context, ev: StartEvent) -> DataProcessingEvent:
        """Prepare data for metadata stamping"""
        prepared_data = {
            "content": ev.input_data.get("content"),
            "namespace": ev.input_data.get("namespace", "default"),
            "correlation_id": str(uuid4()),
        }
        ctx.data["stamping_request"] = prepared_data
        return DataProcessingEvent(input_data=prepared_data, processing_type="stamping", parameters={})

    @step
    async def execute_stamping(self, ctx: Context, ev: DataProcessingEvent) -> ProcessingEvent:
        """Execute stamping via Bridge Orchestrator"""
        # Call Bridge Orchestrator node
        result = await self.orchestrator.execute_orchestration(ev.input_data)

        ctx.data["stamp_result"] = result
        return ProcessingEvent(result=result, status="stamped")

    @step
    async def validate_stamp(self, ctx: Context, ev: ProcessingEvent) -> StopEvent:
        """Validate stamping result"""
        validation = {
            "success": ev.result.get("success", False),
            "file_hash": ev.result.get("file_hash"),
            "stamp_id": ev.result.get("stamp_id"),
            "performance": ev.result.get("performance_metrics"),
        }
        return StopEvent(result=validation)


class ArchonIntelligenceWorkflow(Workflow):
    """Workflow integrating Archon MCP intelligence services"""

    def __init__(self, archon_client: ArchonMCPClient, **kwargs):
        super().__init__(**kwargs)
        self.archon = archon_client

    @step
    async def query_rag(self, ctx: Context, ev: IntelligenceRequestEvent) -> IntelligenceResponseEvent:
        """Query Archon RAG for intelligence"""
        # Parallel query across RAG, Qdrant, Memgraph
        results = await self.archon.research_orchestrator.parallel_research(query=ev.query, context=ev.context)

        # Store intelligence in context
        ctx.data["archon_intelligence"] = results

        return IntelligenceResponseEvent(
            results=results["combined_insights"],
            confidence_score=results["confidence"],
            sources=results["sources"],
        )

    @step
    async def apply_patterns(self, ctx: Context, ev: IntelligenceResponseEvent) -> DataProcessingEvent:
        """Apply learned patterns from Archon"""
        patterns = await self.archon.pattern_traceability.query_patterns(
            {"metadata_filter": {"domain": "optimization"}}
        )

        # Combine intelligence with historical patterns
        combined_insights = {
            "intelligence": ev.results,
            "patterns": patterns,
            "recommendations": self._synthesize(ev.results, patterns),
        }

        return DataProcessingEvent(
            input_data=combined_insights,
            processing_type="pattern_application",
            parameters={"confidence": ev.confidence_score},
        )
