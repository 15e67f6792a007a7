"""Seed 004, the tutorial: every program to the letter but for the import line."""

from __future__ import annotations

import asyncio
from typing import Union

import pytest
from pydantic import Field

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, WorkflowTimeoutError, step

from . import standins
from .standins import (
    OpenAI,
    OpenAIEmbedding,
    SentenceTransformerRerank,
    Settings,
    SimpleDirectoryReader,
    VectorStoreIndex,
)

# -- "Your First Workflow" ---------------------------------------------------------------------------------------------


class QueryEvent(Event):
    query: str


class AnswerEvent(Event):
    answer: str


class SimpleRAGWorkflow(Workflow):
    @step
    async def retrieve(self, ctx: Context, ev: StartEvent) -> QueryEvent:
        """Step 1: store the query and pass it forward."""
        await ctx.set("query", ev.get("query"))
        return QueryEvent(query=ev.get("query"))

    @step
    async def generate(self, ctx: Context, ev: QueryEvent) -> StopEvent:
        """Step 2: generate an answer."""
        query = ev.query
        llm = OpenAI(model="gpt-4o-mini")
        response = await llm.acomplete(f"Answer this question: {query}")
        return StopEvent(result=str(response))


def test_the_first_workflow_runs_as_a_script(capsys):
    # Run the workflow
    async def main():
        workflow = SimpleRAGWorkflow(timeout=60, verbose=True)
        result = await workflow.run(query="What is retrieval-augmented generation?")
        print(result)

    asyncio.run(main())
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "gpt-4o-mini on: Answer this question: What is retrieval-augmented generation?"
    # verbose=True
    assert any("retrieve" in line for line in lines[:-1])
    assert any("generate" in line for line in lines[:-1])


async def test_the_query_is_in_the_context():
    handler = SimpleRAGWorkflow(timeout=60).run(query="Why?")
    await handler
    assert await handler.ctx.get("query") == "Why?"


# -- "Real RAG Workflow: Retrieve → Rerank → Synthesize" ---------------------------------------------------------------


# Events with typed payloads
class RetrievedEvent(Event):
    nodes: list = Field(default_factory=list)


class RerankedEvent(Event):
    nodes: list = Field(default_factory=list)
    query: str = ""


class RAGWorkflow(Workflow):
    def __init__(self, index: VectorStoreIndex, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    @step
    async def retrieve(self, ctx: Context, ev: StartEvent) -> RetrievedEvent:
        query = ev.get("query", "")
        await ctx.set("query", query)

        retriever = self.index.as_retriever(similarity_top_k=15)
        nodes = await retriever.aretrieve(query)
        return RetrievedEvent(nodes=nodes)

    @step
    async def rerank(self, ctx: Context, ev: RetrievedEvent) -> RerankedEvent:
        query = await ctx.get("query")
        reranker = SentenceTransformerRerank(
            model="cross-encoder/ms-marco-MiniLM-L-2-v2",
            top_n=5,
        )
        reranked = reranker.postprocess_nodes(ev.nodes, query_str=query)
        return RerankedEvent(nodes=reranked, query=query)

    @step
    async def synthesize(self, ctx: Context, ev: RerankedEvent) -> StopEvent:
        context_str = "\n\n".join([n.text for n in ev.nodes])
        prompt = f"Context:\n{context_str}\n\nQuestion: {ev.query}\n\nAnswer based on the context above:"
        response = await Settings.llm.acomplete(prompt)
        return StopEvent(result=str(response))


def test_the_rag_workflow_retrieves_reranks_and_synthesizes(folder, capsys):
    Settings.llm = OpenAI(model="gpt-4o-mini")
    Settings.embed_model = OpenAIEmbedding(model="text-embedding-3-small")

    # Build and run
    async def main():
        documents = SimpleDirectoryReader("data/").load_data()
        index = VectorStoreIndex.from_documents(documents)

        workflow = RAGWorkflow(index=index, timeout=120, verbose=True)
        result = await workflow.run(query="How do I configure the API rate limits?")
        print(result)

    asyncio.run(main())
    assert capsys.readouterr().out.splitlines()[-1] == "gpt-4o-mini on: Answer based on the context above:"
    [prompt] = OpenAI.prompts
    assert "Question: How do I configure the API rate limits?" in prompt
    # The reranker puts the shortest first, the retriever the one with most of the query's words.
    context = prompt.removeprefix("Context:\n").partition("\n\nQuestion:")[0]
    assert context.split("\n\n") == sorted(standins.DOCUMENTS.values(), key=len)


# -- "Branching: Conditional Routing" ----------------------------------------------------------------------------------


class SimpleQueryEvent(Event):
    query: str


class ComplexQueryEvent(Event):
    query: str


class QueryRoutingWorkflow(Workflow):
    @step
    async def classify_query(self, ctx: Context, ev: StartEvent) -> Union[SimpleQueryEvent, ComplexQueryEvent]:
        query = ev.get("query", "")
        await ctx.set("query", query)

        # Route based on query complexity
        # In production: use an LLM classifier
        if len(query.split()) < 5:
            return SimpleQueryEvent(query=query)
        else:
            return ComplexQueryEvent(query=query)

    @step
    async def handle_simple(self, ctx: Context, ev: SimpleQueryEvent) -> StopEvent:
        # Fast path: direct LLM answer
        response = await Settings.llm.acomplete(ev.query)
        return StopEvent(result=f"[simple] {response}")

    @step
    async def handle_complex(self, ctx: Context, ev: ComplexQueryEvent) -> StopEvent:
        # Slow path: multi-step RAG
        response = await Settings.llm.acomplete(f"Decompose and answer thoroughly: {ev.query}")
        return StopEvent(result=f"[complex] {response}")


@pytest.mark.parametrize(
    ("query", "result"),
    [
        ("What is AI?", "[simple] m on: What is AI?"),
        (
            "How do agents plan their work well?",
            "[complex] m on: Decompose and answer thoroughly: How do agents plan their work well?",
        ),
    ],
)
async def test_a_query_goes_one_way_or_the_other(query, result):
    Settings.llm = OpenAI(model="m")
    assert await QueryRoutingWorkflow(timeout=30).run(query=query) == result


# -- "Parallel Steps" --------------------------------------------------------------------------------------------------


class SearchResultEvent(Event):
    source: str
    results: str


class ParallelSearchWorkflow(Workflow):
    @step(num_workers=3)  # run 3 workers concurrently
    async def search_sources(self, ctx: Context, ev: StartEvent) -> SearchResultEvent:
        query = ev.get("query")
        # In production: each worker searches a different source
        await asyncio.sleep(0.1)  # simulate async search
        return SearchResultEvent(source="knowledge_base", results=f"Results from knowledge base for: {query}")

    @step
    async def merge_results(self, ctx: Context, ev: SearchResultEvent) -> StopEvent:
        # Collect results from all parallel workers
        results = ctx.collect_events(ev, [SearchResultEvent] * 3)
        if results is None:
            return None  # not all results ready yet

        merged = "\n".join([f"[{r.source}] {r.results}" for r in results])
        return StopEvent(result=merged)


class FansOutWorkflow(Workflow):
    """What the tutorial means: one event for each source, so that three workers have something to do."""

    @step
    async def sources(self, ev: StartEvent) -> list[QueryEvent]:
        return [QueryEvent(query=ev.query, source=source) for source in ("web", "knowledge_base", "files")]

    @step(num_workers=3)
    async def search_sources(self, ctx: Context, ev: QueryEvent) -> SearchResultEvent:
        return SearchResultEvent(source=ev.source, results=f"Results from {ev.source} for: {ev.query}")

    merge_results = ParallelSearchWorkflow.merge_results


async def test_three_workers_are_not_three_executions_so_the_example_hangs():
    with pytest.raises(WorkflowTimeoutError, match="No steps active"):
        await ParallelSearchWorkflow(timeout=0.7).run(query="q")


async def test_the_example_made_right_sends_an_event_for_each_source():
    merged = await FansOutWorkflow(timeout=30).run(query="q")
    assert sorted(merged.splitlines()) == [
        "[files] Results from files for: q",
        "[knowledge_base] Results from knowledge_base for: q",
        "[web] Results from web for: q",
    ]


# -- "Streaming Workflow Outputs" --------------------------------------------------------------------------------------


class ProgressEvent(Event):
    message: str


class StreamingWorkflow(Workflow):
    @step
    async def step1(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(ProgressEvent(message="Step 1: Retrieving documents..."))
        await asyncio.sleep(SECONDS)  # simulate work

        ctx.write_event_to_stream(ProgressEvent(message="Step 2: Generating answer..."))
        await asyncio.sleep(SECONDS)

        return StopEvent(result="Final answer here")


SECONDS = 0.01


def test_progress_is_streamed_before_the_result(capsys):
    async def main():
        workflow = StreamingWorkflow(timeout=30)
        handler = workflow.run(query="test question")

        # Stream progress events as they arrive
        async for event in handler.stream_events():
            if isinstance(event, ProgressEvent):
                print(f"Progress: {event.message}")

        # Get final result
        result = await handler
        print(f"Result: {result}")

    asyncio.run(main())
    assert capsys.readouterr().out.splitlines() == [
        "Progress: Step 1: Retrieving documents...",
        "Progress: Step 2: Generating answer...",
        "Result: Final answer here",
    ]


# -- "How do I share data between workflow steps?" ---------------------------------------------------------------------


class MyEvent(Event):
    pass


class SharingWorkflow(Workflow):
    @step
    async def step1(self, ctx: Context, ev: StartEvent) -> MyEvent:
        await ctx.set("important_data", {"key": "value"})
        return MyEvent()

    @step
    async def step2(self, ctx: Context, ev: MyEvent) -> StopEvent:
        data = await ctx.get("important_data")
        return StopEvent(result=data["key"])


async def test_data_is_shared_by_set_and_get():
    assert await SharingWorkflow(timeout=30).run() == "value"


# -- "How do I handle errors in a workflow step?" ----------------------------------------------------------------------


class SuccessEvent(Event):
    data: str


class FallbackEvent(Event):
    error: str


class RiskyWorkflow(Workflow):
    def __init__(self, do_risky_thing, **kwargs):
        super().__init__(**kwargs)
        self.do_risky_thing = do_risky_thing

    @step
    async def risky_step(self, ctx: Context, ev: StartEvent) -> Union[SuccessEvent, FallbackEvent]:
        try:
            result = await self.do_risky_thing()
            return SuccessEvent(data=result)
        except Exception as e:
            return FallbackEvent(error=str(e))

    @step
    async def end(self, ev: SuccessEvent | FallbackEvent) -> StopEvent:
        return StopEvent(result=ev)


class UncaughtWorkflow(Workflow):
    @step
    async def risky_step(self, ev: StartEvent) -> StopEvent:
        raise ConnectionError("away")


async def goes_well():
    return "data"


async def goes_wrong():
    raise ConnectionError("away")


async def test_a_step_may_catch_what_goes_wrong_and_emit_a_fallback():
    assert await RiskyWorkflow(goes_well, timeout=30).run() == SuccessEvent(data="data")
    assert await RiskyWorkflow(goes_wrong, timeout=30).run() == FallbackEvent(error="away")


async def test_an_exception_that_nobody_catches_reaches_the_caller():
    with pytest.raises(ConnectionError, match="away"):
        await UncaughtWorkflow(timeout=30).run()
