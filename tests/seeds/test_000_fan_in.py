"""Seed 000: "Pattern 3: Parallel Step Execution" as it is best written: a parameter that collects the fan-out."""

from __future__ import annotations

from typing import Any

import pytest

from durable_flow import StartEvent, StopEvent, Workflow, step

from .guide import DataProcessingEvent, ProcessingEvent


class CollectingWorkflow(Workflow):
    @step
    async def fan_out(self, ev: StartEvent) -> list[DataProcessingEvent]:
        return [
            DataProcessingEvent(input_data=task, processing_type=f"parallel_{i}", parameters={"task_id": i})
            for i, task in enumerate(ev.input_data.get("tasks", []))
        ]

    @step
    async def process_parallel(self, ev: DataProcessingEvent) -> ProcessingEvent:
        return ProcessingEvent(result=await self._process_task(ev.input_data), status="completed")

    @step
    async def fan_in(self, results: list[ProcessingEvent]) -> StopEvent:
        return StopEvent(result=[event.result["done"] for event in results])

    async def _process_task(self, task: Any) -> dict[str, Any]:
        return {"done": task}


@pytest.mark.parametrize("count", [0, 1, 5, 20])
async def test_a_list_parameter_joins_any_number_of_tasks_also_none(count):
    results = await CollectingWorkflow(timeout=30).run(input_data={"tasks": list(range(count))})
    assert sorted(results) == list(range(count))
