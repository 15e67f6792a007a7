"""Wrong use: an error of the class that upstream's users expect, which names run and step and says what to do."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr

from durable_flow import (
    Context,
    ContextStateError,
    Journal,
    SerializationError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
    WorkflowValidationError,
    step,
)
from durable_flow.records import StepFailed

from .flows import Packed, Shop, records_of


class Does(Workflow):
    """Its only step returns what the function that it is given returns, or what that is awaited to."""

    def __init__(self, act: Callable[[Context], Any], **kwargs: Any):
        super().__init__(**{"workflow_name": "Does", **kwargs})
        self.act = act

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        result = self.act(ctx)
        return await result if isinstance(result, Awaited) else result


class Awaited:
    """A coroutine that the step awaits."""

    def __init__(self, coroutine: Awaitable[Any]):
        self._coroutine = coroutine

    def __await__(self) -> Any:
        return self._coroutine.__await__()


async def failure(flow: Workflow, **arguments: Any) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # which one is the caller's question
        await flow.run(run_id="run-7", **arguments)
    return raised.value


async def used(use: Callable[[Any], Any], it: Any) -> None:
    """Call a method, and await it if that is what it is for."""
    result = use(it)
    if asyncio.iscoroutine(result):
        await result


def says(error: BaseException, *parts: str) -> None:
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    assert [part for part in parts if part not in text] == [], text


# -- Steps -------------------------------------------------------------------------------------------------------------


async def helper() -> StopEvent:
    return StopEvent()


@pytest.mark.parametrize("make", [lambda ctx: helper(), lambda ctx: ctx.store.get("x"), lambda ctx: ctx.get("x")])
async def test_a_step_that_returns_what_it_has_not_awaited(journal: Journal, make: Any) -> None:
    made: list[Any] = []

    def forgets(ctx: Context) -> Any:
        made.append(make(ctx))
        return made[-1]

    error = await failure(Does(forgets, journal=journal))
    assert type(error) is WorkflowRuntimeError
    says(error, "Step function begin returned coroutine", "not awaited: await it", "run run-7")
    assert [inspect.getcoroutinestate(coroutine) for coroutine in made] == [inspect.CORO_CLOSED]  # no warning later


async def test_a_value_that_was_not_awaited_cannot_be_stored(journal: Journal) -> None:
    forgotten: list[Any] = []

    def forgets(ctx: Context) -> Any:
        forgotten.append(ctx.store.get("x", 1))
        return forgotten[-1]

    async def keeps(ctx: Context) -> None:
        await ctx.set("found", forgets(ctx))

    error = await failure(Does(lambda ctx: StopEvent(result=forgets(ctx)), journal=journal))
    assert type(error) is SerializationError
    says(error, "StopEvent", "result", "coroutine", "write `await` before the call", "step 'begin' of run run-7")
    with pytest.raises(SerializationError, match=r"found.*: it is a coroutine.*await"):
        await Does(lambda ctx: Awaited(keeps(ctx)), journal=journal).run()
    for coroutine in forgotten:
        coroutine.close()


@pytest.mark.parametrize(
    ("result", "name"), [({"a": 1}, "dict"), ("text", "str"), (StopEvent, "ModelMetaclass"), ([], "list")]
)
async def test_a_step_that_returns_no_event(journal: Journal, result: Any, name: str) -> None:
    error = await failure(Does(lambda ctx: result, journal=journal))
    assert type(error) is WorkflowRuntimeError
    says(error, f"Step function begin returned {name} instead of an Event instance.", "run run-7")
    assert "Return an event, or None" in str(error) or "annotate the step with" in str(error)
    [failed] = await records_of(journal, "run-7", StepFailed)
    assert failed.task.step == "begin"


async def test_an_unknown_step_in_send_event(journal: Journal) -> None:
    def sends(ctx: Context) -> None:
        ctx.send_event(Packed(item="lamp"), step="wrap")

    error = await failure(Does(sends, journal=journal))
    assert type(error) is WorkflowStepDoesNotExistError
    says(error, "run-7", "no step 'wrap'", "its steps are begin")
    flow = Shop(journal=journal, hold=asyncio.Event())
    handler = flow.run(run_id="run-8", item="lamp")
    await flow.shipping.wait()
    with pytest.raises(WorkflowStepDoesNotExistError, match=r"run-8: there is no step 'wrap'.*pack, ship"):
        await handler.send_event(Packed(item="lamp"), step="wrap")
    with pytest.raises(WorkflowStepDoesNotExistError, match="run-8"):
        handler.ctx.send_event(Packed(item="lamp"), step="wrap")
    flow.hold.set()  # type: ignore[union-attr]
    await handler


async def test_send_event_to_a_step_that_does_not_take_it_or_of_no_event(journal: Journal) -> None:
    error = await failure(Does(lambda ctx: ctx.send_event(Packed(item="x"), step="begin"), journal=journal))
    assert type(error) is WorkflowRuntimeError
    says(error, "run-7", "step 'begin' does not accept Packed", "without a step")
    with pytest.raises(WorkflowRuntimeError, match="send_event takes Event instances, not dict"):
        await Does(lambda ctx: ctx.send_event({}), journal=journal).run()  # type: ignore[arg-type]


class Raises:
    """A retry policy with a mistake in it."""

    def next(self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None) -> float | None:
        raise KeyError("mistake in the policy")


async def test_a_policy_that_raises_fails_the_run_by_its_error_which_names_the_place(journal: Journal) -> None:
    class Flow(Workflow):
        @step(retry_policy=Raises())
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise ValueError("the step's own")

    error = await failure(Flow(journal=journal))
    assert type(error) is KeyError
    assert isinstance(error.__cause__, ValueError)
    says(
        error,
        "retry policy of step 'begin'",
        "run run-7",
        "failure 1, a ValueError",
        "seconds or None",
        "flow.retry('run-7')",
    )
    [failed] = await records_of(journal, "run-7", StepFailed)
    assert "retry policy of step 'begin', run run-7" in failed.error.traceback


# -- The Context -------------------------------------------------------------------------------------------------------


ARGUMENTS: dict[str, tuple[Callable[[Context], Any], str]] = {
    "a class that is no event": (lambda ctx: ctx.wait_for_event(dict), "takes an event class, not dict"),  # type: ignore[type-var]
    "an event for its class": (lambda ctx: ctx.wait_for_event(Packed(item="x")), "write wait_for_event(Packed)"),  # type: ignore[arg-type]
    "a question that is text": (lambda ctx: ctx.wait_for_event(Packed, "which?"), "waiter_event is an event"),  # type: ignore[arg-type]
    "a list of requirements": (lambda ctx: ctx.wait_for_event(Packed, requirements=["item"]), "requirements={"),  # type: ignore[arg-type]
    "a numbered waiter": (lambda ctx: ctx.wait_for_event(Packed, waiter_id=1), "waiter_id is a string"),  # type: ignore[arg-type]
    "a timeout in words": (lambda ctx: ctx.wait_for_event(Packed, timeout="1 h"), "timeout='1 h'"),  # type: ignore[arg-type]
    "a timeout without end": (lambda ctx: ctx.wait_for_event(Packed, timeout=float("inf")), "None to wait for ever"),
    "a timeout beyond all time": (lambda ctx: ctx.wait_for_event(Packed, timeout=1e19), "None to wait for ever"),
    "a timeout of 400 digits": (lambda ctx: ctx.wait_for_event(Packed, timeout=10**400), "None to wait for ever"),
    "a sleep beyond all time": (lambda ctx: ctx.sleep(1e19), "seconds, not 1e+19"),
    "a sleep in words": (lambda ctx: ctx.sleep("1 h"), "seconds, not '1 h'"),  # type: ignore[arg-type]
    "a sleep without end": (lambda ctx: ctx.sleep(float("nan")), "seconds, not nan"),
    "a checkpoint without name": (lambda ctx: ctx.checkpoint(None), "ctx.checkpoint('after search')"),  # type: ignore[arg-type]
    "one class to collect": (lambda ctx: ctx.collect_events(Packed(item="x"), Packed), "a list of event classes"),  # type: ignore[arg-type]
    "events to collect": (
        lambda ctx: ctx.collect_events(Packed(item="x"), [Packed(item="x")]),  # type: ignore[list-item]
        "a list of event classes",
    ),
    "text that is collected": (lambda ctx: ctx.collect_events("x", [Packed]), "collects events, not a str"),  # type: ignore[arg-type]
    "a numbered buffer": (
        lambda ctx: ctx.collect_events(Packed(item="x"), [Packed], 1),  # type: ignore[arg-type]
        "buffer_id is a string",
    ),
}


@pytest.mark.parametrize("how", ARGUMENTS)
async def test_arguments_of_a_method_for_steps(memory: Journal, how: str) -> None:
    use, cure = ARGUMENTS[how]

    async def uses(ctx: Context) -> None:
        await used(use, ctx)

    flow = Does(lambda ctx: Awaited(uses(ctx)), journal=memory)
    error = await failure(flow)
    assert type(error) is WorkflowRuntimeError
    says(error, "step 'begin' of run run-7", cure)
    with pytest.raises(WorkflowRuntimeError) as raised:  # of a step that is called by itself
        await used(use, Context(flow))
    says(raised.value, cure)


INSIDE_ONLY: dict[str, Callable[[Context], Any]] = {
    "collect_events": lambda ctx: ctx.collect_events(StartEvent(), [StartEvent]),
    "write_event_to_stream": lambda ctx: ctx.write_event_to_stream(Packed(item="x")),
    "wait_for_event": lambda ctx: ctx.wait_for_event(Packed),
    "call": lambda ctx: ctx.call("name", helper),
    "sleep": lambda ctx: ctx.sleep(1),
    "checkpoint": lambda ctx: ctx.checkpoint("name"),
    "idempotency_key": lambda ctx: ctx.idempotency_key(),
}


@pytest.mark.parametrize("method", INSIDE_ONLY)
async def test_a_method_for_steps_on_a_handlers_context(memory: Journal, method: str) -> None:
    flow = Shop(journal=memory, hold=asyncio.Event())
    handler = flow.run(run_id="run-7", item="lamp")
    await flow.shipping.wait()
    with pytest.raises(ContextStateError) as raised:
        await used(INSIDE_ONLY[method], handler.ctx)
    says(raised.value, f"ctx.{method} works inside a step only", "run-7", "on the Context that the step is given")
    flow.hold.set()  # type: ignore[union-attr]
    assert await handler == "shipped 1 lamp"


async def test_a_context_that_outlives_its_step(journal: Journal) -> None:
    kept: list[Context] = []

    def keeps(ctx: Context) -> StopEvent:
        kept.append(ctx)
        return StopEvent()

    await Does(keeps, journal=journal).run(run_id="run-7")
    for use in (lambda ctx: ctx.send_event(Packed(item="x")), lambda ctx: ctx.data.update(a=1)):
        with pytest.raises(ContextStateError) as raised:
            use(kept[0])
        says(raised.value, "step 'begin'", "run-7", "detached", "Await all work of a step before it returns")


async def test_a_wait_inside_the_lock(journal: Journal) -> None:
    async def waits(ctx: Context) -> None:
        async with ctx.lock:
            await ctx.wait_for_event(Packed)

    error = await failure(Does(lambda ctx: Awaited(waits(ctx)), journal=journal))
    assert type(error) is ContextStateError
    says(error, "step 'begin'", "run-7", "waits for an event inside ctx.lock", "Leave ctx.lock first")


# -- The Workflow ------------------------------------------------------------------------------------------------------


class Forgetful(Workflow):
    def __init__(self) -> None:
        self.name = "forgot"

    @step
    async def begin(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


USES: dict[str, Callable[[Workflow], Any]] = {
    "run": lambda flow: flow.run(),
    "resume": lambda flow: flow.resume("r"),
    "retry": lambda flow: flow.retry("r"),
    "recover": lambda flow: flow.recover(),
    "validate": lambda flow: flow.validate(),
    "workflow_name": lambda flow: flow.workflow_name,
    "add_workflows": lambda flow: flow.add_workflows(),
}


@pytest.mark.parametrize("use", USES)
async def test_a_forgotten_super_init(use: str) -> None:
    with pytest.raises(
        WorkflowValidationError, match=r"Forgetful.__init__ has not called super\(\).__init__\(\)\. Call it"
    ):
        await used(USES[use], Forgetful())


def test_the_constructor_sets_underscored_attributes_only() -> None:
    class Plain(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    flow = Plain(observers=[], verbose=True)
    flow.validate()
    assert [name for name in vars(flow) if not name.startswith("_")] == []


class Tool(BaseModel):
    name: str


SPARE = Tool(name="spare")


class Agent(BaseModel, Workflow):
    """As agents are: a pydantic model, compared by value and so not hashable, which is a workflow too."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str
    tools: list[Tool] = []
    _turns: int = PrivateAttr(default=0)

    def __init__(self, **kwargs: Any):
        flow = {key: kwargs.pop(key) for key in ("journal", "timeout", "observers") if key in kwargs}
        BaseModel.__init__(self, **kwargs)
        Workflow.__init__(self, **flow)

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Packed:
        self._turns += 1
        await ctx.set("name", self.name)
        return Packed(item=self.tools[0].name)

    @step
    async def end(self, ctx: Context, ev: Packed, tool: Tool = SPARE) -> StopEvent:
        return StopEvent(result=f"{await ctx.get('name')} uses {ev.item} and {tool.name}, turn {self._turns}")


class Specialist(Agent):
    skill: str = "none"


@pytest.mark.parametrize("cls", [Agent, Specialist])
async def test_a_workflow_may_be_a_pydantic_model(journal: Journal, cls: type[Agent]) -> None:
    agent = cls(name="Ada", tools=[{"name": "saw"}], journal=journal, timeout=5)
    with pytest.raises(TypeError, match="unhashable"):
        hash(agent)
    agent.add_workflows(tool=agent)
    assert await agent.run(run_id="r") == "Ada uses saw and Ada, turn 1"
    assert await agent.run(run_id="r") == "Ada uses saw and Ada, turn 1"
    assert (await (await agent.resume("r")), await agent.recover()) == ("Ada uses saw and Ada, turn 1", [])
    assert agent.model_dump()["name"] == "Ada"
    assert cls.model_validate({"name": "Bob"}) == cls(name="Bob")


def test_a_policy_class_instead_of_a_policy() -> None:
    with pytest.raises(WorkflowValidationError, match=r"begin' has retry_policy=.*no retry policy\. Give an object"):

        class Flow(Workflow):
            @step(retry_policy=Raises)  # type: ignore[arg-type]
            async def begin(self, ev: StartEvent) -> StopEvent:
                return StopEvent()
