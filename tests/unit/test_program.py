"""What the engine sees of a workflow: routing, calls, results, retries, and the event that starts a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from durable_flow.context import Context
from durable_flow.decorators import step
from durable_flow.errors import WorkflowRuntimeError, WorkflowStepDoesNotExistError
from durable_flow.events import Event, StartEvent, StopEvent
from durable_flow.retry_policy import ConstantDelayRetryPolicy
from durable_flow.start_event import start_event_of
from durable_flow.workflow import Workflow


class Work(Event):
    n: int = 0


class Other(Event):
    pass


class Simple(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Work: ...

    @step(num_workers=2)
    def finish(self, ctx: Context, ev: Work) -> StopEvent: ...


class BaseState(BaseModel):
    n: int = 0


class DerivedState(BaseState):
    m: int = 0


def program(workflow):
    return workflow._durable_prepare()


# -- The program -------------------------------------------------------------------------------------------------------


def test_what_the_engine_asks():
    p = program(Simple(verbose=True))
    assert p.num_workers == {"begin": 4, "finish": 2}
    assert p.sync_steps == {"finish"}
    assert p.verbose is True
    assert p.targets(Work()) == ("finish",)
    assert p.targets(Other()) == ()
    assert p.accepts("finish", Work())
    assert not p.accepts("finish", StartEvent())
    with pytest.raises(WorkflowStepDoesNotExistError, match=r"no step 'nope'.*begin, finish"):
        p.accepts("nope", Work())


def test_a_subclass_of_an_accepted_event_is_not_delivered():
    class Special(Work):
        pass

    assert program(Simple()).targets(Special()) == ()


def test_several_steps_of_one_event_are_all_targets_in_definition_order():
    class Flow(Simple):
        @step
        async def audit(self, ev: Work) -> None: ...

        @step
        async def another(self, ev: Work | Other) -> None: ...

    assert program(Flow(disable_validation=True)).targets(Work()) == ("finish", "audit", "another")


async def test_a_call_binds_the_instance_and_the_event():
    class Flow(Workflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(self, ev))

        @step
        def plain(self, ev: StartEvent) -> None:
            return "plain", self, ev

    flow = Flow()
    event = StartEvent()
    assert (await program(flow).call("go", event, None)).result == (flow, event)
    assert program(flow).call("plain", event, None) == ("plain", flow, event)


def test_a_context_is_made_of_the_execution_for_steps_that_take_one():
    class Flow(Workflow):
        @step
        def go(self, ev: StartEvent, where: Context[DerivedState]) -> StopEvent:
            return where

    execution = SimpleNamespace(run="the run", handed=None)
    context = program(Flow()).call("go", StartEvent(), execution)
    assert isinstance(context, Context)
    assert context._run == "the run"


def test_the_fingerprint_is_that_of_steps_events_and_state_and_of_nothing_else():
    def make(state, accepted, body):
        class Flow(Workflow):
            @step
            async def begin(self, ctx: Context[state], ev: StartEvent) -> Work: ...

            @step(num_workers=body)
            async def end(self, ev: accepted) -> StopEvent:
                return StopEvent(result=body)

        return program(Flow(disable_validation=True)).fingerprint

    shape = make(BaseState, Work, 1)
    assert len(shape) == 16
    assert int(shape, 16)
    assert make(BaseState, Work, 2) == shape
    assert len({shape, make(DerivedState, Work, 1), make(BaseState, Work | Other, 1)}) == 3


class Results(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Work | StopEvent | None: ...

    @step
    async def many(self, ev: Work) -> list[Other]: ...

    @step
    async def maybe_many(self, ev: Work) -> list[Other] | None: ...

    @step
    async def both(self, ev: Work) -> list[Other] | StopEvent: ...

    @step
    async def take(self, ev: Other) -> StopEvent | None: ...


@pytest.mark.parametrize(
    ("name", "result", "emitted"),
    [
        ("one", Work(n=1), (Work(n=1),)),
        ("one", None, ()),
        ("one", Other(), (Other(),)),
        ("take", Other(), (Other(),)),
        ("many", [Other(), Work(n=2)], (Other(), Work(n=2))),
        ("many", (Other(),), (Other(),)),
        ("many", [], ()),
        ("maybe_many", None, ()),
        ("both", [Other()], (Other(),)),
        ("both", StopEvent(), (StopEvent(),)),
    ],
)
def test_what_a_result_stands_for(name, result, emitted):
    assert program(Results()).emitted(name, result) == emitted


@pytest.mark.parametrize(
    ("name", "result", "message"),
    [
        ("one", {"a": 1}, r"Step function one returned dict instead of an Event instance\."),
        ("one", "x", r"Step function one returned str instead of an Event instance\."),
        ("one", [Work()], r"Step function one returned list instead of an Event instance\. .*list\[MyEvent\]"),
        ("one", (Work(),), r"Step function one returned tuple instead of an Event instance\."),
        ("one", Work, r"returned ModelMetaclass instead of an Event instance"),
        ("many", Other(), r"Step function many returned Other instead of a list of events\. Return \[event\]"),
        ("many", [Other(), None], r"many returned a list with NoneType instead of an Event instance"),
        ("many", [Other(), 3], r"many returned a list with int"),
        ("many", {Other: 1}, r"many returned dict instead of an Event instance"),
    ],
)
def test_results_that_are_no_events(name, result, message):
    with pytest.raises(WorkflowRuntimeError, match=message):
        program(Results()).emitted(name, result)


def test_a_forgotten_await_is_named():
    async def later(): ...

    coroutine = later()
    with pytest.raises(WorkflowRuntimeError, match=r"returned coroutine instead of an Event instance.*await it"):
        program(Results()).emitted("one", coroutine)
    coroutine.close()


def retrying(policy):
    class Flow(Workflow):
        @step(retry_policy=policy)
        async def go(self, ev: StartEvent) -> StopEvent: ...

    return program(Flow())


def test_retry_delays_come_from_the_policy():
    p = retrying(ConstantDelayRetryPolicy(maximum_attempts=2, delay=7))
    assert p.retry_delay("go", 0.0, 1, ValueError(), 1) == 7
    assert p.retry_delay("go", 0.0, 2, ValueError(), 1) is None
    assert retrying(None).retry_delay("go", 0.0, 1, ValueError(), 1) is None


def test_a_policy_gets_all_it_needs_and_the_seed_only_if_it_takes_it():
    class Old:
        def next(self, elapsed_time, attempts, error):
            return elapsed_time + attempts + len(error.args)

    class New:
        def next(self, elapsed_time, attempts, error, *, seed=None):
            return seed

    class Open:
        def next(self, *args, **kwargs):
            return kwargs["seed"] + len(args)

    error = ValueError("x")
    assert retrying(Old()).retry_delay("go", 10.0, 2, error, 99) == 13
    assert retrying(New()).retry_delay("go", 10.0, 2, error, 99) == 99
    assert retrying(Open()).retry_delay("go", 10.0, 2, error, 99) == 102


def test_what_a_policy_raises_rises_and_a_wrong_answer_is_named():
    class Policy:
        def __init__(self, answer):
            self.answer = answer

        def next(self, elapsed_time, attempts, error):
            if self.answer is None:
                raise KeyError("mine")
            return self.answer

    with pytest.raises(KeyError, match="mine"):
        retrying(Policy(None)).retry_delay("go", 0.0, 1, ValueError(), 0)
    for answer in (-1, float("nan"), "soon", True):
        with pytest.raises(WorkflowRuntimeError, match=r"retry policy of step go returned"):
            retrying(Policy(answer)).retry_delay("go", 0.0, 1, ValueError(), 0)


# -- The start event ---------------------------------------------------------------------------------------------------


class Typed(StartEvent):
    n: int


class MoreTyped(Typed):
    pass


class Starts(Workflow):
    @step
    async def go(self, ev: Typed) -> StopEvent: ...


def test_arguments_make_the_start_event():
    assert start_event_of(Starts, None, {"n": 3}) == Typed(n=3)
    plain = start_event_of(Simple, None, {"query": "x"})
    assert (type(plain), plain.query) == (StartEvent, "x")


def test_arguments_that_do_not_fit():
    with pytest.raises(WorkflowRuntimeError, match=r"(?s)Starts: the arguments of run\(\) \(given: m\).*Typed.*n"):
        start_event_of(Starts, None, {"m": 3})
    with pytest.raises(WorkflowRuntimeError, match=r"given: none"):
        start_event_of(Starts, None, {})


def test_a_given_start_event_is_taken_as_it_is():
    event = Typed(n=1)
    assert start_event_of(Starts, event, {}) is event


def test_a_start_event_of_a_subclass_is_taken_where_a_step_takes_subclasses():
    class Wide(Workflow):
        @step(accept_event_subclasses=True)
        async def begin(self, ev: Typed) -> StopEvent:
            return StopEvent()

    event = MoreTyped(n=1)
    assert start_event_of(Wide, event, {}) is event


def test_arguments_beside_a_start_event_are_dropped_with_a_warning():
    event = Typed(n=1)
    with pytest.warns(UserWarning, match="n, more will be dropped"):
        assert start_event_of(Starts, event, {"n": 2, "more": 3}) is event


@pytest.mark.parametrize("given", [Work(), {"n": 1}, "x", StartEvent(n=1), MoreTyped(n=1)])
def test_a_start_event_of_another_class(given):
    with pytest.raises(ValueError, match=rf"Starts starts with Typed.*{type(given).__name__}"):
        start_event_of(Starts, given, {})
