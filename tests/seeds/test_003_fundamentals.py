"""Seed 003, the fundamentals: every program to the letter but for the import line."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from durable_flow import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowValidationError,
    step,
)

from . import standins
from .standins import OpenAI, OpenAIEmbedding, Settings, SimpleDirectoryReader, VectorStoreIndex

# -- "Your First Workflow" ---------------------------------------------------------------------------------------------


class JokeEvent(Event):
    """Event carrying the generated joke."""

    joke: str


class JokeFlow(Workflow):
    """A workflow that generates and critiques jokes."""

    llm = OpenAI(model="gpt-4o-mini")

    @step
    async def generate_joke(self, ev: StartEvent) -> JokeEvent:
        """Generate a joke about the given topic."""
        topic = ev.topic
        prompt = f"Write your best joke about {topic}."
        response = await self.llm.acomplete(prompt)
        return JokeEvent(joke=str(response))

    @step
    async def critique_joke(self, ev: JokeEvent) -> StopEvent:
        """Analyze and critique the joke."""
        prompt = f"Give a brief analysis of this joke: {ev.joke}"
        response = await self.llm.acomplete(prompt)
        return StopEvent(result=str(response))


def test_the_joke_workflow_runs_as_a_script(capsys):
    # Run the workflow
    async def main():
        workflow = JokeFlow(timeout=60, verbose=False)
        result = await workflow.run(topic="pirates")
        print(result)

    asyncio.run(main())
    joke = "gpt-4o-mini on: Write your best joke about pirates."
    assert capsys.readouterr().out == f"gpt-4o-mini on: Give a brief analysis of this joke: {joke}\n"


# -- "Understanding Events" --------------------------------------------------------------------------------------------


class QueryEvent(Event):
    """Event carrying a user query."""

    query: str
    temperature: float = 0.7


class RetrievalEvent(Event):
    """Event carrying retrieved documents."""

    query: str
    documents: list[str]
    scores: list[float]


class SynthesisEvent(Event):
    """Event ready for answer synthesis."""

    query: str
    context: str


def test_events_have_types_and_defaults():
    assert QueryEvent(query="q").temperature == 0.7
    assert RetrievalEvent(query="q", documents=["d"], scores=[1]).scores == [1.0]
    with pytest.raises(ValueError, match="context"):
        SynthesisEvent(query="q")


# -- "StartEvent: Entry Point" -----------------------------------------------------------------------------------------


class NextEvent(Event):
    query: str
    temperature: float


class EntryWorkflow(Workflow):
    # StartEvent receives these as attributes:
    @step
    async def handle_start(self, ev: StartEvent) -> NextEvent:
        query = ev.query  # "What is AI?"
        max_tokens = ev.max_tokens  # 100
        assert max_tokens == 100

        # Safe access for optional args
        temperature = ev.get("temperature", default=0.7)

        return NextEvent(query=query, temperature=temperature)

    @step
    async def end(self, ev: NextEvent) -> StopEvent:
        return StopEvent(result=(ev.query, ev.temperature))


@pytest.mark.parametrize(("more", "temperature"), [({}, 0.7), ({"temperature": 0.1}, 0.1)])
async def test_arguments_of_run_are_attributes_of_the_start_event(more, temperature):
    # When you call:
    result = await EntryWorkflow(timeout=30).run(query="What is AI?", max_tokens=100, **more)
    assert result == ("What is AI?", temperature)


class MyStartEvent(StartEvent):
    """Typed entry event for my workflow."""

    query: str
    max_results: int = 10
    include_sources: bool = True


class ProcessEvent(Event):
    query: str
    max_results: int
    include_sources: bool


class TypedWorkflow(Workflow):
    @step
    async def start(self, ev: MyStartEvent) -> ProcessEvent:
        # Now you get IDE autocomplete!
        query = ev.query
        max_results = ev.max_results
        assert ev.get("query") == query  # upstream gives None here
        return ProcessEvent(query=query, max_results=max_results, include_sources=ev.include_sources)

    @step
    async def end(self, ev: ProcessEvent) -> StopEvent:
        return StopEvent(result=(ev.query, ev.max_results, ev.include_sources))


async def test_a_typed_start_event_is_made_of_the_arguments():
    assert await TypedWorkflow(timeout=30).run(query="q", max_results="3") == ("q", 3, True)
    assert await TypedWorkflow(timeout=30).run(start_event=MyStartEvent(query="q")) == ("q", 10, True)


async def test_arguments_that_do_not_make_a_typed_start_event_are_refused():
    with pytest.raises(WorkflowRuntimeError, match=r"TypedWorkflow.*\(given: max_results\).*MyStartEvent"):
        TypedWorkflow(timeout=30).run(max_results=3)


# -- "StopEvent: Exit Point" -------------------------------------------------------------------------------------------


class FinalEvent(Event):
    answer: str
    sources: list[str]
    simple: bool


class FinalWorkflow(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> FinalEvent:
        return FinalEvent(answer="a", sources=["s"], simple=ev.simple)

    @step
    async def finalize(self, ev: FinalEvent) -> StopEvent:
        """Final step returning the result."""
        if ev.simple:
            # Simple result
            return StopEvent(result="Answer text here")

        # Or complex result
        return StopEvent(result={"answer": ev.answer, "sources": ev.sources, "confidence": 0.95})


async def test_a_result_is_simple_or_complex():
    assert await FinalWorkflow(timeout=30).run(simple=True) == "Answer text here"
    complex_result = await FinalWorkflow(timeout=30).run(simple=False)
    assert complex_result == {"answer": "a", "sources": ["s"], "confidence": 0.95}


class MyStopEvent(StopEvent):
    """Typed result event."""

    answer: str
    sources: list[str]
    confidence: float


class TypedResultWorkflow(Workflow):
    @step
    async def only(self, ev: StartEvent) -> MyStopEvent:
        return MyStopEvent(answer="a", sources=["s"], confidence=0.95)


async def test_a_typed_stop_event_is_itself_the_result():
    result = await TypedResultWorkflow(timeout=30).run()
    assert result == MyStopEvent(answer="a", sources=["s"], confidence=0.95)
    assert result.result is None


# -- "The @step Decorator" ---------------------------------------------------------------------------------------------


class TaskEvent(Event):
    task: int


class ResultEvent(Event):
    result: int


class MyWorkflow(Workflow):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = self.most = 0
        self.four = asyncio.Event()

    @step
    async def basic_step(self, ev: StartEvent) -> list[TaskEvent]:
        """A basic step."""
        return [TaskEvent(task=n) for n in range(8)]

    @step(num_workers=4)
    async def concurrent_step(self, ev: TaskEvent) -> ResultEvent:
        """Step that can run 4 instances concurrently."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == 4:
            self.four.set()
        await self.four.wait()
        await asyncio.sleep(0)
        self.inside -= 1
        return ResultEvent(result=ev.task * 10)

    @step
    async def all_results(self, ctx: Context, ev: ResultEvent) -> StopEvent | None:
        events = ctx.collect_events(ev, [ResultEvent] * 8)
        return None if events is None else StopEvent(result=sorted(event.result for event in events))


async def test_num_workers_of_a_step_run_at_once_and_no_more():
    workflow = MyWorkflow(timeout=30)
    assert await workflow.run() == [n * 10 for n in range(8)]
    assert workflow.most == 4


class MiddleEvent(Event):
    data: str


class ConnectedWorkflow(Workflow):
    @step
    async def step_a(self, ev: StartEvent) -> MiddleEvent:
        # Input: StartEvent → Output: MiddleEvent
        return MiddleEvent(data="processed")

    @step
    async def step_b(self, ev: MiddleEvent) -> StopEvent:
        # Input: MiddleEvent → Output: StopEvent
        # Automatically connected because step_a outputs MiddleEvent!
        return StopEvent(result=ev.data)


async def test_steps_are_connected_by_their_annotations():
    assert await ConnectedWorkflow(timeout=30).run() == "processed"


# -- "Instance Attributes" ---------------------------------------------------------------------------------------------


class RetrieveEvent(Event):
    """Event carrying retrieved nodes."""

    query: str
    nodes: list


class CachingRAGWorkflow(Workflow):
    """Workflow with shared resources."""

    def __init__(self, index: VectorStoreIndex, **kwargs):
        super().__init__(**kwargs)
        self.index = index
        self.llm = OpenAI(model="gpt-4o-mini")
        self.cache = {}

    @step
    async def retrieve(self, ev: StartEvent) -> RetrieveEvent:
        # Access instance attributes
        retriever = self.index.as_retriever(similarity_top_k=5)
        nodes = await retriever.aretrieve(ev.query)
        return RetrieveEvent(query=ev.query, nodes=nodes)

    @step
    async def synthesize(self, ev: RetrieveEvent) -> StopEvent:
        # Check cache
        if ev.query in self.cache:
            return StopEvent(result=self.cache[ev.query])

        context = "\n".join([n.text for n in ev.nodes])
        prompt = f"Context: {context}\n\nQuestion: {ev.query}"
        response = await self.llm.acomplete(prompt)

        # Update cache
        self.cache[ev.query] = str(response)

        return StopEvent(result=str(response))


async def test_resources_and_a_cache_are_shared_by_the_runs_of_an_instance():
    index = VectorStoreIndex.from_documents(standins.documents())
    workflow = CachingRAGWorkflow(index, timeout=30)
    first = await workflow.run(query="rate limits?")
    assert first == await workflow.run(query="rate limits?") == "gpt-4o-mini on: Question: rate limits?"
    assert len(OpenAI.prompts) == 1
    await workflow.run(query="installation?")
    assert len(OpenAI.prompts) == 2


# -- "Running Workflows" -----------------------------------------------------------------------------------------------


def run_workflow_sync(query: str) -> str:
    """Run workflow from synchronous context."""

    async def _run():
        workflow = JokeFlow(timeout=60)
        return await workflow.run(topic=query)

    return asyncio.run(_run())


def test_a_workflow_runs_from_synchronous_code_as_often_as_one_likes():
    # Usage
    for topic in ("machine learning", "parrots"):
        assert topic in run_workflow_sync(topic)


def test_the_default_timeout_is_60_seconds():
    parameters = inspect.signature(Workflow).parameters
    assert parameters["timeout"].default == 60
    assert parameters["verbose"].default is False


# -- "Complete Example: RAG Workflow" ----------------------------------------------------------------------------------


class RAGWorkflow(Workflow):
    """Complete RAG workflow with retrieval and synthesis."""

    def __init__(self, index: VectorStoreIndex, **kwargs):
        super().__init__(**kwargs)
        self.index = index
        self.llm = Settings.llm or OpenAI(model="gpt-4o-mini")

    @step
    async def retrieve(self, ev: StartEvent) -> RetrieveEvent:
        """Retrieve relevant documents."""
        query = ev.query
        retriever = self.index.as_retriever(similarity_top_k=5)
        nodes = await retriever.aretrieve(query)

        print(f"Retrieved {len(nodes)} documents")

        return RetrieveEvent(query=query, nodes=nodes)

    @step
    async def synthesize(self, ev: RetrieveEvent) -> StopEvent:
        """Synthesize answer from retrieved context."""
        context = "\n\n".join([node.text for node in ev.nodes])

        prompt = f"""Based on the following context, answer the question.

Context:
{context}

Question: {ev.query}

Answer:"""

        response = await self.llm.acomplete(prompt)

        return StopEvent(
            result={
                "answer": str(response),
                "sources": [node.metadata.get("file_name", "unknown") for node in ev.nodes],
                "num_sources": len(ev.nodes),
            }
        )


def test_the_complete_rag_example_names_its_sources(folder, capsys):
    async def main():
        # Setup
        Settings.llm = OpenAI(model="gpt-4o-mini")
        Settings.embed_model = OpenAIEmbedding(model="text-embedding-3-small")

        # Load documents and create index
        documents = SimpleDirectoryReader("./data").load_data()
        index = VectorStoreIndex.from_documents(documents)

        # Create and run workflow
        workflow = RAGWorkflow(index=index, timeout=60, verbose=True)
        result = await workflow.run(query="What is the main topic?")

        print(f"Answer: {result['answer']}")
        print(f"Sources: {result['sources']}")
        return result

    result = asyncio.run(main())
    lines = capsys.readouterr().out.splitlines()
    assert "Retrieved 3 documents" in lines
    assert lines[-2:] == ["Answer: gpt-4o-mini on: Answer:", f"Sources: {result['sources']}"]
    assert (result["sources"][0], result["num_sources"]) == ("main.txt", 3)
    assert "Question: What is the main topic?" in OpenAI.prompts[0]


# -- "Common Pitfalls" -------------------------------------------------------------------------------------------------


async def test_pitfall_a_missing_await_is_told_by_the_step():
    class ForgetsAwait(Workflow):
        llm = OpenAI()

        @step
        async def ask(self, ev: StartEvent) -> StopEvent:
            self.response = self.llm.acomplete("q")  # Always `await` LLM and retriever calls
            return self.response

    workflow = ForgetsAwait(timeout=30)
    with pytest.raises(WorkflowRuntimeError, match=r"ask returned coroutine instead of an Event.*not awaited"):
        await workflow.run()
    workflow.response.close()


async def test_pitfall_a_forgotten_super_init_is_told_with_its_cure():
    class Forgets(JokeFlow):
        def __init__(self, index):
            self.index = index

    with pytest.raises(WorkflowValidationError, match=r"has not called super\(\).__init__\(\)"):
        Forgets(1).run(topic="pirates")


async def test_pitfall_a_step_that_is_not_async_works_here():
    class Plain(Workflow):
        @step
        def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="from a thread")

    assert await Plain(timeout=30).run() == "from a thread"


def test_pitfall_missing_type_hints_are_told_by_the_decorator():
    with pytest.raises(WorkflowValidationError, match="no return annotation"):

        class NoReturn(Workflow):
            @step
            async def only(self, ev: StartEvent): ...

    with pytest.raises(WorkflowValidationError, match="no parameter annotated with an event class"):

        class NoEvent(Workflow):
            @step
            async def only(self, ev=None) -> StopEvent: ...

    class NoStart(Workflow):
        @step
        async def only(self, ev: QueryEvent) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError):
        NoStart()


# -- "Hands-on Exercise": the solution ---------------------------------------------------------------------------------


class KeyPointsEvent(Event):
    """Event carrying extracted key points."""

    text: str
    points: list[str]


class SummarizerWorkflow(Workflow):
    """Workflow that extracts key points then summarizes."""

    llm = OpenAI(model="gpt-4o-mini")

    @step
    async def extract_points(self, ev: StartEvent) -> KeyPointsEvent:
        """Extract key points from text."""
        prompt = f"""Extract 3-5 key points from this text. 
Return each point on a new line.

Text: {ev.text}

Key points:"""

        response = await self.llm.acomplete(prompt)
        points = [p.strip() for p in str(response).split("\n") if p.strip()]

        return KeyPointsEvent(text=ev.text, points=points)

    @step
    async def summarize(self, ev: KeyPointsEvent) -> StopEvent:
        """Create summary from key points."""
        points_text = "\n".join(f"- {p}" for p in ev.points)

        prompt = f"""Create a concise summary based on these key points:

{points_text}

Summary:"""

        response = await self.llm.acomplete(prompt)

        return StopEvent(result=str(response))


def test_the_summarizer_extracts_points_and_summarizes_them(capsys):
    async def main():
        workflow = SummarizerWorkflow(timeout=60)

        text = """
        Artificial intelligence has transformed many industries.
        Machine learning enables computers to learn from data.
        Deep learning uses neural networks with many layers.
        Natural language processing helps computers understand text.
        AI applications include chatbots, recommendation systems, and autonomous vehicles.
        """

        result = await workflow.run(text=text)
        print(f"Summary: {result}")

    asyncio.run(main())
    assert capsys.readouterr().out == "Summary: gpt-4o-mini on: Summary:\n"
    extract, summarize = OpenAI.prompts
    assert "Deep learning uses neural networks with many layers." in extract
    assert summarize.count("\n- ") == 5
    assert "\n- Machine learning enables computers to learn from data.\n" in summarize
