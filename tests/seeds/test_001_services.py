"""Seed 001: "Resource Allocation and Service Management", the services that a workflow's steps are given by name."""

from __future__ import annotations

import pytest

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, WorkflowValidationError, step
from durable_flow.service import ServiceManager, ServiceNotFoundError

from . import standins
from .standins import OpenAI, OpenAIEmbedding, VectorStoreIndex


class Retrieved(Event):
    text: str


class WithServices(Workflow):
    """The three services of the diagram, under the names of the parameters."""

    @step
    async def retrieve(self, ev: StartEvent, vector_store: VectorStoreIndex, embedding: OpenAIEmbedding) -> Retrieved:
        nodes = await vector_store.as_retriever(similarity_top_k=1).aretrieve(ev.query)
        return Retrieved(text=f"{embedding.model}: {nodes[0].text}")

    @step
    async def synthesize(self, ctx: Context, ev: Retrieved, llm: OpenAI) -> StopEvent:
        return StopEvent(result=(ev.text, (await llm.acomplete("summarize")).text))


def services() -> ServiceManager:
    manager = ServiceManager()
    manager.add("llm", OpenAI("m"))
    manager.add("embedding", OpenAIEmbedding("e"))
    manager.add("vector_store", VectorStoreIndex(standins.documents()))
    return manager


async def test_services_are_found_by_the_names_of_the_parameters():
    result = await WithServices(timeout=30, service_manager=services()).run(query="pip install")
    assert result == (f"e: {standins.DOCUMENTS['install.txt']}", "m on: summarize")


async def test_a_missing_service_is_named_before_anything_runs():
    manager = ServiceManager()
    manager.add("llm", OpenAI("m"))
    with pytest.raises(WorkflowValidationError, match=r"services are not available: .*embedding"):
        await WithServices(timeout=30, service_manager=manager).run(query="q")


def test_a_service_manager_gives_what_was_added_or_a_default():
    manager, llm = ServiceManager(), OpenAI("m")
    manager.add("llm", llm)
    assert manager.get("llm") is llm
    assert manager.get("other", llm) is llm
    with pytest.raises(ServiceNotFoundError):
        manager.get("other")


class Reflection(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"improved: {ev.query}")


class Main(Workflow):
    @step
    async def improve(self, ctx: Context, ev: StartEvent, reflection_workflow: Reflection) -> StopEvent:
        return StopEvent(result=await reflection_workflow.run(query=ev.query))


async def test_a_workflow_is_added_to_another_as_a_service():
    main = Main(timeout=30)
    main.add_workflows(reflection_workflow=Reflection(timeout=30))
    assert await main.run(query="q") == "improved: q"


async def test_a_workflow_that_was_not_added_is_named():
    with pytest.raises(WorkflowValidationError, match=r"services are not available: .*reflection_workflow"):
        await Main(timeout=30).run(query="q")
