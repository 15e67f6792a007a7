"""What steps are given when they are called: services by name, resources from their factories."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Journal,
    Resource,
    ResourceManager,
    RunFailedError,
    ServiceManager,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)
from durable_flow.records import StepCompleted, StepFailed

from .flows import Answer, Question, in_another_loop, question, records_of, released


class Model:
    def complete(self, prompt: str) -> str:
        return f"answer to {prompt}"


class Summary(Workflow):
    @step
    async def summarise(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"short {ev.text}")


class Drafted(Event):
    text: str


# -- Services ----------------------------------------------------------------------------------------------------------


class Writer(Workflow):
    @step
    async def draft(self, llm: Model, ctx: Context, ev: StartEvent) -> Drafted:
        return Drafted(text=llm.complete(ev.topic))

    @step
    async def shorten(self, ev: Drafted, *, summary: Summary, tone: str = "dry") -> StopEvent:
        return StopEvent(result=f"{await summary.run(text=ev.text)}, {tone}")


async def test_steps_are_given_services_by_the_names_of_their_parameters(journal: Journal) -> None:
    services = ServiceManager()
    services.add("llm", Model())
    flow = Writer(journal=journal, service_manager=services)
    flow.add_workflows(summary=Summary(journal=journal))
    assert await flow.run(topic="rain") == "short answer to rain, dry"
    services.add("tone", "warm")
    assert await flow.run(topic="rain") == "short answer to rain, warm"


async def test_a_missing_service_is_told_at_run_before_anything_is_journaled(journal: Journal) -> None:
    flow = Writer(journal=journal)
    flow.add_workflows(summary=Summary(journal=journal))
    with pytest.raises(
        WorkflowValidationError, match=r"services are not available: llm\.\n  - step 'draft' takes 'llm'"
    ):
        flow.run(run_id="r", topic="rain")
    assert await journal.runs() == []
    with pytest.raises(WorkflowValidationError, match="not available: llm"):
        await flow.resume("r")


async def test_plain_functions_are_given_services_too(memory: Journal) -> None:
    class Sync(Workflow):
        @step
        def begin(self, ev: StartEvent, llm: Model) -> StopEvent:
            return StopEvent(result=llm.complete("it"))

    services = ServiceManager()
    services.add("llm", Model())
    assert await Sync(journal=memory, service_manager=services).run() == "answer to it"


async def test_free_functions_are_given_services_too(memory: Journal) -> None:
    class Free(Workflow):
        pass

    @step(workflow=Free)
    async def begin(llm: Model, ev: StartEvent) -> StopEvent:
        return StopEvent(result=llm.complete("it"))

    services = ServiceManager()
    services.add("llm", Model())
    assert await Free(journal=memory, service_manager=services).run() == "answer to it"


# -- Resources ---------------------------------------------------------------------------------------------------------


class Connection:
    """Made for each process anew; cannot be stored."""

    opened = 0

    def __init__(self) -> None:
        Connection.opened += 1
        self.number = Connection.opened
        self.lock = asyncio.Lock()


@pytest.fixture(autouse=True)
def _none_opened() -> None:
    Connection.opened = 0


async def connect() -> Connection:
    await asyncio.sleep(0)
    return Connection()


def per_call() -> list[int]:
    return []


class Uses(Workflow):
    @step
    async def begin(
        self,
        connection: Annotated[Connection, Resource(connect)],
        ev: StartEvent,
        own: Annotated[list[int], Resource(per_call, cache=False)],
    ) -> Drafted:
        own.append(1)
        return Drafted(text=f"{connection.number} {own}")

    @step
    def end(
        self,
        ev: Drafted,
        connection: Annotated[Connection, Resource(connect)],
        own: Annotated[list[int], Resource(per_call, cache=False)],
    ) -> StopEvent:
        own.append(2)
        return StopEvent(result=f"{ev.text}, {connection.number} {own}")


async def test_resources_are_resolved_per_step_call_and_cached_per_manager(journal: Journal) -> None:
    flow = Uses(journal=journal)
    assert await flow.run() == "1 [1], 1 [2]"
    assert await flow.run() == "1 [1], 1 [2]"
    assert await Uses(journal=journal).run() == "2 [1], 2 [2]"
    manager = ResourceManager()
    for _ in range(2):
        assert await Uses(journal=journal, resource_manager=manager).run() == "3 [1], 3 [2]"


class Both(Workflow):
    @step
    async def begin(
        self,
        ev: StartEvent,
        fresh: Annotated[Connection, Resource(connect, cache=False)],
        kept: Annotated[Connection, Resource(connect)],
    ) -> StopEvent:
        return StopEvent(result=(fresh is kept, kept.number))


async def test_a_step_that_takes_a_resource_both_ways_gets_one_object(memory: Journal) -> None:
    flow = Both(journal=memory)
    assert [await flow.run(), await flow.run()] == [(True, 1), (True, 1)]


async def test_resources_are_never_journaled(journal: Journal) -> None:
    await Uses(journal=journal).run(run_id="r")
    assert "Connection" not in repr(await journal.history("r"))


class Paused(Workflow):
    @step
    async def begin(
        self, ctx: Context, ev: StartEvent, connection: Annotated[Connection, Resource(connect)]
    ) -> StopEvent:
        answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="go on?"))
        return StopEvent(result=f"{answer.text} by {connection.number}")


async def test_a_resource_is_made_anew_by_the_process_that_goes_on(url: str) -> None:
    async def first_process() -> None:
        async with Journal(url, durability="normal") as journal:
            handler = Paused(journal=journal).run(run_id="r")
            await question(handler)
            await released(handler)

    await in_another_loop(first_process)
    assert Connection.opened == 1
    async with Journal(url, durability="normal") as journal:
        handler = await Paused(journal=journal).resume("r")
        await handler.send_event(Answer(text="yes"))
        assert await handler == "yes by 2"


class Flaky(Workflow):
    """Its resource fails so often."""

    def __init__(self, failures: int, **kwargs: Any):
        super().__init__(**{"workflow_name": "Flaky", **kwargs})
        Flaky.failures = failures
        self.ran = 0

    failures = 0

    @staticmethod
    def make() -> str:
        if Flaky.failures:
            Flaky.failures -= 1
            raise OSError("no database")
        return "made"

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.001))
    async def begin(self, ev: StartEvent, it: Annotated[str, Resource(make.__func__)]) -> StopEvent:
        self.ran += 1
        return StopEvent(result=it)


async def test_a_factory_that_fails_is_tried_again_by_the_retry_policy(journal: Journal) -> None:
    flow = Flaky(2, journal=journal)
    assert await flow.run(run_id="r") == "made"
    assert flow.ran == 1
    failed = await records_of(journal, "r", StepFailed)
    assert [(fact.attempt, fact.error.message) for fact in failed] == [(1, "no database"), (2, "no database")]


async def test_a_factory_that_goes_on_failing_fails_the_run_by_its_error_which_names_the_place(
    journal: Journal,
) -> None:
    flow = Flaky(99, journal=journal)
    with pytest.raises(OSError, match="no database") as raised:
        await flow.run(run_id="r")
    [note] = set(raised.value.__notes__)
    for part in ("Flaky.make", "parameter 'it'", "step 'begin'", "run r", "flow.retry('r')"):
        assert part in note
    assert flow.ran == 0
    [*_, last] = await records_of(journal, "r", StepFailed)
    assert note in last.error.traceback
    Flaky.failures = 0
    assert await (await flow.retry("r")) == "made"


async def test_a_later_process_is_told_where_a_resource_failed(file: Journal, url: str) -> None:
    with pytest.raises(OSError, match="no database"):
        await Flaky(99, journal=file).run(run_id="r")

    async def later() -> str:
        async with Journal(url, durability="normal") as journal:
            with pytest.raises(RunFailedError) as raised:
                await Flaky(0, journal=journal).run(run_id="r")
            return raised.value.error_traceback

    assert "parameter 'it' of step 'begin', run r" in await in_another_loop(later)


def chicken(egg: Annotated[int, Resource(egg)]) -> int:
    return egg


def egg(chicken: Annotated[int, Resource(chicken)]) -> int:
    return chicken


async def test_a_cycle_of_resources_fails_the_run(memory: Journal) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, it: Annotated[int, Resource(chicken)]) -> StopEvent:
            return StopEvent()

    with pytest.raises(ValueError, match="Circular resource dependency detected: chicken -> egg -> chicken") as raised:
        await Flow(journal=memory).run(run_id="r")
    assert "step 'begin', run r" in raised.value.__notes__[0]


async def test_a_run_is_released_while_a_resource_is_being_made(journal: Journal) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await go_on.wait()
        return "made"

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, it: Annotated[str, Resource(slow)]) -> StopEvent:
            return StopEvent(result=it)

    flow = Flow(journal=journal)
    handler = flow.run(run_id="r")
    await begun.wait()
    await released(handler)
    assert await records_of(journal, "r", StepFailed, StepCompleted) == []
    go_on.set()
    assert await (await flow.resume("r")) == "made"


async def test_a_step_that_is_called_validate_is_given_resources_too(memory: Journal) -> None:
    class Names(Workflow):
        @step
        async def validate(self, ev: StartEvent, it: Annotated[list[int], Resource(per_call)]) -> StopEvent:  # type: ignore[override]
            return StopEvent(result=it)

    assert await Names(journal=memory).run() == []
