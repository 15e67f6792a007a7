"""Seed 002, the course: the workflows that it describes in prose, written as the prose says.

The course has no code blocks: names of classes, fields, steps and calls are its own; what a step does where the course
leaves it open ("process with RAG or lookup") is the least that shows the flow.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import gather

import pytest

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

from . import standins
from .standins import NodeWithScore, OpenAI, Settings, VectorStoreIndex

# -- "Events" and "Steps" ----------------------------------------------------------------------------------------------


class QueryEvent(Event):
    query: str


class RetrieveEvent(Event):
    query: str
    nodes: list[NodeWithScore]


class SynthesizeEvent(Event):
    query: str
    context: str


class OneStep(Workflow):
    def __init__(self, llm: OpenAI, **kwargs):
        super().__init__(**kwargs)
        self.llm = llm

    @step
    async def process(self, ev: StartEvent) -> StopEvent:
        query = ev.query
        result = await self.llm.acomplete(query)
        return StopEvent(result=result.text)


class AnswersAndSources(Workflow):
    @step
    async def process(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result={"answer": ev.query, "sources": [ev.context]})


def test_events_are_validated_models():
    with pytest.raises(ValueError, match="query"):
        QueryEvent()
    assert SynthesizeEvent(query="q", context="c").context == "c"


async def test_a_step_extracts_processes_and_returns():
    assert await OneStep(OpenAI("m"), timeout=30).run(query="What is AI?") == "m on: What is AI?"


async def test_keyword_arguments_become_attributes_of_the_start_event_and_the_result_may_be_a_dict():
    result = await AnswersAndSources(timeout=30).run(query="What is AI?", context="...")
    assert result == {"answer": "What is AI?", "sources": ["..."]}


# -- "Basic RAG Workflow" and "Running Workflows" ----------------------------------------------------------------------


class RAGWorkflow(Workflow):
    def __init__(self, index: VectorStoreIndex, **kwargs):
        super().__init__(**kwargs)
        self.index = index
        self.llm = Settings.llm

    @step
    async def retrieve(self, ev: StartEvent) -> RetrieveEvent:
        query = ev.query
        retriever = self.index.as_retriever(similarity_top_k=5)
        nodes = await retriever.aretrieve(query)
        return RetrieveEvent(query=query, nodes=nodes)

    @step
    async def synthesize(self, ev: RetrieveEvent) -> StopEvent:
        context = "\n\n".join([n.text for n in ev.nodes])
        prompt = f"Context:\n{context}\n\nQuestion: {ev.query}"
        response = await self.llm.acomplete(prompt)
        return StopEvent(result=response.text)


def test_the_basic_rag_workflow_runs_from_a_synchronous_script(capsys):
    Settings.llm = OpenAI(model="m")
    my_index = VectorStoreIndex.from_documents(standins.documents())

    async def main():
        workflow = RAGWorkflow(index=my_index, timeout=60, verbose=True)
        result = await workflow.run(query="Explain the rate limits")
        print(result)

    asyncio.run(main())
    assert capsys.readouterr().out.splitlines()[-1] == "m on: Question: Explain the rate limits"
    [prompt] = OpenAI.prompts
    assert all(text in prompt for text in standins.DOCUMENTS.values())


# -- "Conditional Branching" -------------------------------------------------------------------------------------------


class QueryTypeEvent(Event):
    query: str
    query_type: str


class FactualEvent(Event):
    query: str


class CreativeEvent(Event):
    query: str


class BranchingWorkflow(Workflow):
    @step
    async def classify(self, ev: StartEvent) -> QueryTypeEvent:
        asks = any(words in ev.query.lower() for words in ("explain", "what is"))
        return QueryTypeEvent(query=ev.query, query_type="factual" if asks else "creative")

    @step
    async def route(self, ev: QueryTypeEvent) -> FactualEvent | CreativeEvent:
        if ev.query_type == "factual":
            return FactualEvent(query=ev.query)
        else:
            return CreativeEvent(query=ev.query)

    @step
    async def handle_factual(self, ev: FactualEvent) -> StopEvent:
        return StopEvent(result=f"looked up: {ev.query}")

    @step
    async def handle_creative(self, ev: CreativeEvent) -> StopEvent:
        return StopEvent(result=f"made up: {ev.query}")


@pytest.mark.parametrize(
    ("query", "result"),
    [("What is AI?", "looked up: What is AI?"), ("A poem, please", "made up: A poem, please")],
)
async def test_a_union_return_branches(query, result):
    assert await BranchingWorkflow(timeout=30).run(query=query) == result


# -- "Loops for Refinement" --------------------------------------------------------------------------------------------


class RefineEvent(Event):
    query: str
    answer: str
    iteration: int


class QualityCheckEvent(Event):
    query: str
    answer: str
    iteration: int
    quality_score: float


class RefinementWorkflow(Workflow):
    def __init__(self, gain: float, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain

    @step
    async def generate(self, ev: StartEvent | RefineEvent) -> QualityCheckEvent:
        if isinstance(ev, StartEvent):
            iteration = 0
            answer = f"draft of {ev.query}"
        else:
            iteration = ev.iteration
            answer = f"{ev.answer}, refined"
        return QualityCheckEvent(
            query=ev.query, answer=answer, iteration=iteration + 1, quality_score=self.gain * (iteration + 1)
        )

    @step
    async def check_quality(self, ev: QualityCheckEvent) -> RefineEvent | StopEvent:
        if ev.quality_score > 0.8 or ev.iteration >= 3:
            return StopEvent(result=ev.answer)
        return RefineEvent(query=ev.query, answer=ev.answer, iteration=ev.iteration)


@pytest.mark.parametrize(
    ("gain", "result"),
    [(0.9, "draft of q"), (0.5, "draft of q, refined"), (0.1, "draft of q, refined, refined")],
    ids=["good at once", "good at the second", "three at most"],
)
async def test_a_loop_refines_until_it_is_good_or_has_gone_round_three_times(gain, result):
    assert await RefinementWorkflow(gain, timeout=30).run(query="q") == result


# -- "Using Context" ---------------------------------------------------------------------------------------------------


class MiddleEvent(Event):
    pass


class StateWorkflow(Workflow):
    @step
    async def step1(self, ctx: Context, ev: StartEvent) -> QueryEvent:
        await ctx.set("user_id", ev.user_id)
        await ctx.set("start_time", time.time())
        return QueryEvent(query="q")

    @step
    async def between(self, ev: QueryEvent) -> MiddleEvent:
        return MiddleEvent()

    @step
    async def step2(self, ctx: Context, ev: MiddleEvent) -> StopEvent:
        user_id = await ctx.get("user_id")
        start_time = await ctx.get("start_time")
        return StopEvent(result=(user_id, time.time() - start_time))


async def test_state_passes_between_steps_that_are_not_neighbours():
    user_id, seconds = await StateWorkflow(timeout=30).run(user_id="ann")
    assert user_id == "ann"
    assert 0 <= seconds < 30


async def test_the_state_of_one_run_is_not_that_of_another():
    workflow = StateWorkflow(timeout=30)
    results = await gather(*(workflow.run(user_id=name) for name in ("ann", "bob", "eve")))
    assert [user_id for user_id, _ in results] == ["ann", "bob", "eve"]


# -- "Instance Attributes" ---------------------------------------------------------------------------------------------


class CachedWorkflow(Workflow):
    def __init__(self, config: dict, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.llm = OpenAI(model="gpt-4o")
        self.cache = {}

    @step
    async def answer(self, ev: StartEvent) -> StopEvent:
        if ev.query in self.cache:
            return StopEvent(result=self.cache[ev.query])
        response = await self.llm.acomplete(f"{self.config['tone']}: {ev.query}")
        self.cache[ev.query] = response.text
        return StopEvent(result=response.text)


async def test_a_cache_on_the_instance_is_shared_by_its_runs():
    workflow = CachedWorkflow({"tone": "short"}, timeout=30)
    first = await workflow.run(query="q")
    assert first == await workflow.run(query="q") == "gpt-4o on: short: q"
    assert OpenAI.prompts == ["short: q"]


async def test_a_cache_on_the_instance_is_no_part_of_a_run():
    handler = CachedWorkflow({"tone": "short"}, timeout=30).run(query="q")
    await handler
    assert handler.ctx.data == {}
    assert await CachedWorkflow({"tone": "long"}, timeout=30).run(query="q") == "gpt-4o on: long: q"


# -- "Parallel Steps": gather and collect ------------------------------------------------------------------------------


class SearchResultEvent(Event):
    source: str
    results: list


class AggregatedEvent(Event):
    all_results: dict


class ParallelSearchWorkflow(Workflow):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.together = asyncio.Barrier(3)

    @step
    async def dispatch(self, ctx: Context, ev: StartEvent) -> list[SearchResultEvent]:
        query = ev.query
        tasks = [self.search_web(query), self.search_database(query), self.search_vector_store(query)]
        results = await gather(*tasks)
        sources = ["web", "database", "vector_store"]
        return [SearchResultEvent(source=s, results=r) for s, r in zip(sources, results, strict=True)]

    @step
    async def aggregate(self, ctx: Context, ev: SearchResultEvent) -> AggregatedEvent | None:
        events = ctx.collect_events(ev, [SearchResultEvent] * 3)
        if events is None:
            return None
        return AggregatedEvent(all_results={event.source: event.results for event in events})

    @step
    async def synthesize(self, ev: AggregatedEvent) -> StopEvent:
        return StopEvent(result=[r for source in sorted(ev.all_results) for r in ev.all_results[source]])

    # Each waits for the others, so this ends only if they run at once.
    async def search_web(self, query: str) -> list[str]:
        await self.together.wait()
        return [f"page on {query}"]

    async def search_database(self, query: str) -> list[str]:
        await self.together.wait()
        return [f"row on {query}"]

    async def search_vector_store(self, query: str) -> list[str]:
        await self.together.wait()
        return [f"node on {query}"]


async def test_sources_are_searched_at_once_and_their_results_collected():
    result = await ParallelSearchWorkflow(timeout=30).run(query="AI")
    assert result == ["row on AI", "node on AI", "page on AI"]


# -- "Rate Limiting" ---------------------------------------------------------------------------------------------------


class JobEvent(Event):
    n: int


class DoneEvent(Event):
    n: int


class RateLimitedWorkflow(Workflow):
    def __init__(self, max_concurrent: int = 5, **kwargs):
        super().__init__(**kwargs)
        self.semaphore = asyncio.Semaphore(max_concurrent)
        self.inside = self.most = 0

    @step
    async def dispatch(self, ctx: Context, ev: StartEvent) -> list[JobEvent]:
        await ctx.set("count", ev.count)
        return [JobEvent(n=n) for n in range(ev.count)]

    @step(num_workers=20)
    async def expensive(self, ev: JobEvent) -> DoneEvent:
        async with self.semaphore:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0)
            self.inside -= 1
        return DoneEvent(n=ev.n)

    @step
    async def collect(self, ctx: Context, ev: DoneEvent) -> StopEvent | None:
        events = ctx.collect_events(ev, [DoneEvent] * await ctx.get("count"))
        return None if events is None else StopEvent(result=sorted(event.n for event in events))


@pytest.mark.parametrize("limit", [2, 5])
async def test_a_semaphore_of_the_instance_limits_how_many_run_at_once(limit):
    workflow = RateLimitedWorkflow(max_concurrent=limit, timeout=30)
    assert await workflow.run(count=20) == list(range(20))
    assert workflow.most == limit
