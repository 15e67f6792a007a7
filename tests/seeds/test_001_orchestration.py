"""Seed 001, the overview: it describes and draws, so each test is one of its sections as the least program.

The notebooks that it names are the scripts in `examples/`; services, nested workflows and the context as data have
files of their own beside this one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    JsonSerializer,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    step,
)

from . import standins
from .standins import OpenAI, VectorStoreIndex

# -- "Workflow Definition and Execution Contexts": parse, retrieve, synthesize -----------------------------------------


class Parsed(Event):
    terms: list[str]


class Retrieved(Event):
    chunks: list[str]


class Agent(Workflow):
    def __init__(self, index: VectorStoreIndex, llm: OpenAI, **kwargs: Any):
        super().__init__(**kwargs)
        self.index = index
        self.llm = llm

    @step
    async def parse(self, ctx: Context, ev: StartEvent) -> Parsed:
        await ctx.set("query", ev.query)
        return Parsed(terms=ev.query.lower().split())

    @step
    async def retrieve(self, ctx: Context, ev: Parsed) -> Retrieved:
        nodes = await self.index.as_retriever(similarity_top_k=1).aretrieve(" ".join(ev.terms))
        return Retrieved(chunks=[node.text for node in nodes])

    @step
    async def synthesize(self, ctx: Context, ev: Retrieved) -> StopEvent:
        response = await self.llm.acomplete(f"{ev.chunks[0]}\n{await ctx.get('query')}")
        return StopEvent(result=response.text)


async def test_an_agent_parses_retrieves_and_synthesizes():
    agent = Agent(VectorStoreIndex(standins.documents()), OpenAI("m"), timeout=30)
    assert await agent.run(query="pip install") == "m on: pip install"
    assert OpenAI.prompts == [f"{standins.DOCUMENTS['install.txt']}\npip install"]


# -- "State Management and Context": the class diagram -----------------------------------------------------------------


class Diagram(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.set("a", 1)
        ctx.update({"b": 2, "c": 3})
        return StopEvent(result=[await ctx.get(key) for key in "abc"])


async def test_the_context_gets_sets_and_updates():
    handler = Diagram(timeout=30).run()
    assert await handler == [1, 2, 3]
    assert handler.ctx.data == {"a": 1, "b": 2, "c": 3}


def test_the_json_serializer_gives_back_what_it_was_given():
    serializer = JsonSerializer()
    state = {"notes": ["a", {"b": (1, 2)}], "seen": {3, 4}, "event": Parsed(terms=["x"])}
    assert serializer.deserialize(serializer.serialize(state)) == state


# -- "Event-Driven Processing Patterns": running, paused, running, stopped ---------------------------------------------


class Pausing(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
        ctx.data["draft"] = f"draft on {ev.topic}"
        return InputRequiredEvent(prefix="go on?")

    @step
    async def resume_work(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"{ctx.data['draft']}: {ev.response}")


def test_a_run_pauses_for_a_human_and_resumes_in_another_event_loop_with_its_context(database):
    async def pause() -> None:
        handler = Pausing(timeout=30).run(topic="birds", run_id="paused")
        async for event in handler.stream_events():
            assert event.prefix == "go on?"
            break

    async def answer() -> None:
        async with Journal(database) as journal:
            [question] = await journal.pending()
            await journal.send("paused", HumanResponseEvent(response="yes"), wait_id=question.wait_id)

    async def resume() -> str:
        return await (await Pausing(timeout=30).resume("paused"))

    for part in (pause, answer):
        asyncio.run(part())
    assert asyncio.run(resume()) == "draft on birds: yes"


# -- "Composition, Parallel Execution, and Conditional Branching" ------------------------------------------------------


class Go(Event):
    pass


class Left(Event):
    n: int


class Right(Event):
    n: int


class BothSides(Workflow):
    """Two steps take one event and run at once; a third goes on when both have ended, by what is in the context."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.together = asyncio.Barrier(2)

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Go:
        ctx.data["add"] = ev.add
        return Go()

    @step
    async def left(self, ev: Go) -> Left:
        await self.together.wait()
        return Left(n=3)

    @step
    async def right(self, ev: Go) -> Right:
        await self.together.wait()
        return Right(n=4)

    @step
    async def join(self, ctx: Context, ev: Left | Right) -> StopEvent | None:
        both = ctx.collect_events(ev, [Left, Right])
        if both is None:
            return None
        left, right = both
        return StopEvent(result=left.n + right.n if ctx.data["add"] else left.n * right.n)


@pytest.mark.parametrize(("add", "result"), [(True, 7), (False, 12)])
async def test_steps_run_at_once_and_the_context_decides_the_branch(add, result):
    assert await BothSides(timeout=30).run(add=add) == result


# -- "Error Handling Strategies" ---------------------------------------------------------------------------------------


class Fallback(Event):
    reason: str


class Recovering(Workflow):
    @step
    async def risky(self, ctx: Context, ev: StartEvent) -> StopEvent | Fallback:
        try:
            raise ConnectionError("service away")
        except ConnectionError as error:
            ctx.data["error"] = str(error)
            return Fallback(reason=str(error))

    @step
    async def recover(self, ctx: Context, ev: Fallback) -> StopEvent:
        return StopEvent(result=f"recovered from {ctx.data['error']}")


class Invalid(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent | Go: ...


class Hanging(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        await asyncio.Event().wait()


class WrongResult(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return {"answer": 42}


async def test_an_error_is_kept_in_the_context_and_an_event_triggers_the_recovery():
    assert await Recovering(timeout=30).run() == "recovered from service away"


async def test_validation_runtime_and_timeout_errors_are_three_kinds():
    with pytest.raises(WorkflowValidationError, match="Go"):
        Invalid(timeout=30).run()
    with pytest.raises(WorkflowRuntimeError, match="Step function only returned dict"):
        await WrongResult(timeout=30).run()
    with pytest.raises(WorkflowTimeoutError, match=r"timed out after 0\.5 seconds\. Currently active steps: only"):
        await Hanging(timeout=0.5).run()


# -- "Practical Examples": the flowchart of plan, retrieve, synthesize and "emit event if needed" ----------------------


class Plan(Event):
    round: int


class Found(Event):
    round: int
    text: str


class Practical(Workflow):
    @step
    async def plan(self, ctx: Context, ev: StartEvent | Plan) -> Plan | Found:
        round = 1 if isinstance(ev, StartEvent) else ev.round
        return Found(round=round, text=f"context {round}")

    @step
    async def synthesize(self, ctx: Context, ev: Found) -> Plan | StopEvent:
        answer = [*ctx.data.get("answer", []), ev.text]
        ctx.data["answer"] = answer
        return StopEvent(result=answer) if ev.round == 3 else Plan(round=ev.round + 1)


async def test_the_flowchart_goes_round_until_it_is_complete():
    assert await Practical(timeout=30).run() == ["context 1", "context 2", "context 3"]


# -- "Workflow Monitoring and Debugging" -------------------------------------------------------------------------------


async def test_a_run_can_be_watched_by_its_events_and_its_state_at_every_checkpoint(database):
    await Practical(timeout=30).run(run_id="watched")
    async with Journal(database) as journal:
        records = await journal.history("watched")
        checkpoints = [record.seq for record in records if record.boundary]
        states = [(await journal.state("watched", at=seq)).context for seq in checkpoints]
    growth = [len(state.get("answer", [])) for state in states]
    assert growth == sorted(growth)
    assert set(growth) == {0, 1, 2, 3}


async def test_the_steps_that_run_can_be_asked_for():
    class Watched(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            self.started.set()
            await self.go_on.wait()
            return StopEvent()

    workflow = Watched(timeout=30)
    workflow.started, workflow.go_on = asyncio.Event(), asyncio.Event()
    handler = workflow.run()
    await workflow.started.wait()
    assert await handler.ctx.running_steps() == ["only"]
    workflow.go_on.set()
    await handler


# -- "Performance Considerations": retry policies ----------------------------------------------------------------------


class Unsteady(Workflow):
    calls = 0

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
    async def only(self, ev: StartEvent) -> StopEvent:
        self.calls += 1
        if self.calls < 3:
            raise ConnectionError("away")
        return StopEvent(result=self.calls)


async def test_a_retry_policy_tries_again():
    assert await Unsteady(timeout=30).run() == 3
