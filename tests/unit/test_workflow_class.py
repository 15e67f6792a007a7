"""The Workflow class: which steps and events it has, its arguments, and its checks before a run."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from durable_flow.context import Context
from durable_flow.decorators import step
from durable_flow.errors import (
    WorkflowConfigurationError,
    WorkflowValidationError,
)
from durable_flow.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from durable_flow.resource import ResourceManager
from durable_flow.serializers import JsonSerializer
from durable_flow.service import ServiceManager
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


def program(workflow):
    return workflow._durable_prepare()


def steps_of(cls):
    return program(cls(disable_validation=True)).table.steps


# -- Start and stop ----------------------------------------------------------------------------------------------------


def test_start_and_stop_classes_are_found_in_the_annotations():
    class MyStart(StartEvent):
        pass

    class MyStop(StopEvent):
        pass

    class Flow(Workflow):
        @step
        async def go(self, ev: MyStart) -> MyStop: ...

    flow = Flow()
    assert (flow.start_event_class, flow.stop_event_class) == (MyStart, MyStop)
    assert set(flow.events) == {MyStart, MyStop}


def test_no_steps_at_all():
    class Flow(Workflow):
        async def go(self, ev: StartEvent) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match=r"Flow has no steps.*@step"):
        Flow()


def test_no_step_that_accepts_a_start_event():
    class Flow(Workflow):
        @step
        async def go(self, ev: Work) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match=r"Flow has no step that accepts a StartEvent"):
        Flow()


@pytest.mark.parametrize("returned", [None, Any, Work])
def test_no_step_that_returns_a_stop_event(returned):
    async def go(self, ev): ...

    go.__qualname__ = "Flow.go"
    go.__annotations__ = {"ev": StartEvent, "return": returned}
    with pytest.raises(WorkflowConfigurationError, match=r"Flow has no step that returns a StopEvent"):
        type("Flow", (Workflow,), {"go": step(go)})()


def test_several_start_or_stop_classes():
    class OtherStart(StartEvent):
        pass

    class OtherStop(StopEvent):
        pass

    class TwoStarts(Workflow):
        @step
        async def go(self, ev: StartEvent | OtherStart) -> StopEvent: ...

    class TwoStops(Workflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent | OtherStop: ...

    with pytest.raises(WorkflowConfigurationError, match="StartEvent, OtherStart"):
        TwoStarts()
    with pytest.raises(WorkflowConfigurationError, match="StopEvent, OtherStop"):
        TwoStops()


# -- Inheritance and free functions ------------------------------------------------------------------------------------


def test_steps_are_inherited_also_from_a_mixin():
    class Mixin:
        @step
        async def extra(self, ev: Other) -> None: ...

    class Flow(Mixin, Simple):
        pass

    assert set(steps_of(Flow)) == {"begin", "finish", "extra"}


def test_an_override_with_step_replaces_the_step():
    class Flow(Simple):
        @step
        async def finish(self, ev: Work | Other) -> StopEvent: ...

    assert steps_of(Flow)["finish"].accepted == (Work, Other)
    assert steps_of(Simple)["finish"].accepted == (Work,)


def test_an_override_without_step_removes_the_step():
    class Flow(Simple):
        def finish(self): ...

        @step
        async def end(self, ev: Work) -> StopEvent: ...

    assert set(steps_of(Flow)) == {"begin", "end"}


def test_a_step_removed_in_between_comes_back_with_step():
    class Between(Simple):
        finish = None

    class Flow(Between):
        @step
        async def finish(self, ev: Work) -> StopEvent: ...

    assert set(steps_of(Flow)) == {"begin", "finish"}


def test_a_free_function_belongs_to_exactly_its_class():
    class Flow(Simple):
        pass

    class Child(Flow):
        pass

    @step(workflow=Flow)
    async def free(ev: Work) -> None: ...

    assert set(steps_of(Flow)) == {"begin", "finish", "free"}
    assert set(steps_of(Child)) == set(steps_of(Simple)) == {"begin", "finish"}


def test_a_workflow_of_free_functions_alone():
    class Flow(Workflow):
        pass

    @step(workflow=Flow)
    async def only(ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result="done")

    assert Flow().validate() is False


def test_a_free_function_needs_a_name_of_its_own():
    class Flow(Simple):
        pass

    with pytest.raises(WorkflowValidationError, match=r"Flow already has a step 'finish'"):

        @step(workflow=Flow)
        async def finish(ev: Work) -> None: ...

    @step(workflow=Flow)
    async def free(ev: Work) -> None: ...

    with pytest.raises(WorkflowValidationError, match=r"already has a step 'free'"):
        Flow.add_step(free)


def test_add_step_refuses_what_is_not_decorated_and_methods():
    async def plain(ev: Work) -> None: ...

    class Flow(Simple):
        pass

    with pytest.raises(WorkflowValidationError, match=r"'plain'.*missing the @step decorator"):
        Flow.add_step(plain)
    with pytest.raises(WorkflowValidationError, match=r"Simple.begin' is a method"):
        Flow.add_step(Simple.begin)


def test_adding_a_step_reaches_instances_that_exist_and_is_checked_again():
    class Flow(Simple):
        pass

    flow = Flow()
    flow.validate()
    before = program(flow)
    assert program(flow) is before

    @step(workflow=Flow)
    async def free(ev: Work) -> Other: ...

    with pytest.raises(WorkflowValidationError, match="Other"):
        flow.validate()

    @step(workflow=Flow)
    async def takes_other(ev: Other) -> StopEvent: ...

    after = program(flow)
    assert set(after.num_workers) == {"begin", "finish", "free", "takes_other"}
    assert after.shape != before.shape
    assert set(before.num_workers) == {"begin", "finish"}


def test_the_table_is_built_once_per_class():
    assert program(Simple()).table is program(Simple()).table


# -- Names and state ---------------------------------------------------------------------------------------------------


def test_two_event_classes_of_one_stored_name_are_refused():
    class First(Event):
        event_name: ClassVar[str] = "thing"

    class Second(Event):
        event_name: ClassVar[str] = "thing"

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> First | Second: ...

        @step
        async def end(self, ev: First | Second) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match=r"'thing'.*First and .*Second.*event_name"):
        Flow()


class BaseState(BaseModel):
    n: int = 0


class DerivedState(BaseState):
    m: int = 0


class UnrelatedState(BaseModel):
    x: int = 0


def test_the_state_class_is_the_most_derived_of_all_steps():
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[BaseState], ev: StartEvent) -> Work: ...

        @step
        async def middle(self, ctx: Context[DerivedState], ev: Work) -> Other: ...

        @step
        async def end(self, ctx: Context, ev: Other) -> StopEvent: ...

    assert program(Flow()).table.state_class is DerivedState


def test_unrelated_state_classes_are_refused():
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[DerivedState], ev: StartEvent) -> Work: ...

        @step
        async def end(self, ctx: Context[UnrelatedState], ev: Work) -> StopEvent: ...

    with pytest.raises(ValueError, match=r"unrelated state classes: DerivedState, UnrelatedState"):
        Flow()


# -- The constructor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0, 0.5, 60])
def test_timeouts(timeout):
    assert program(Simple(timeout=timeout)).timeout == timeout


def test_arguments_that_upstream_takes_by_position_are_taken_so():
    found = program(Simple(7, True, True, None, None, None, "by position"))
    assert (found.timeout, found.verbose, found.name) == (7, True, "by position")
    with pytest.raises(WorkflowValidationError, match="timeout='memory://'"):
        Simple("memory://")  # type: ignore[arg-type]  # the journal is named


def test_the_default_timeout_is_a_minute():
    assert program(Simple()).timeout == 60


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), True, "60"])
def test_bad_timeouts(timeout):
    with pytest.raises(WorkflowValidationError, match="timeout="):
        Simple(timeout=timeout)


@pytest.mark.parametrize("value", [0, -2, True, 1.0, "2"])
def test_bad_num_concurrent_runs(value):
    with pytest.raises(WorkflowValidationError, match="num_concurrent_runs="):
        Simple(num_concurrent_runs=value)


def test_other_bad_arguments():
    with pytest.raises(WorkflowValidationError, match="runtime="):
        Simple(runtime=object())
    with pytest.raises(WorkflowValidationError, match="workflow_name="):
        Simple(workflow_name="")
    with pytest.raises(WorkflowValidationError, match=r"skip_graph_checks names reach\..*dead_end, reachability"):
        Simple(skip_graph_checks={"reach"})
    with pytest.raises(TypeError):
        Simple(timout=3)


def test_arguments_of_old_programs_are_accepted():
    assert (
        Simple(service_manager=ServiceManager(), resource_manager=ResourceManager(), runtime=None).validate() is False
    )


def test_the_serializer_that_was_given_is_told():
    serializer = JsonSerializer()
    assert Simple(serializer=serializer).serializer is serializer
    assert Simple().serializer is None


def test_the_stored_name_is_the_qualname_or_the_one_given():
    class Local(Simple):
        pass

    assert Local().workflow_name == program(Local()).name == Local.__qualname__
    assert Local(workflow_name="orders").workflow_name == program(Local(workflow_name="orders")).name == "orders"


def test_a_forgotten_super_init_is_named():
    class Flow(Simple):
        def __init__(self, llm):
            self.llm = llm

    flow = Flow("llm")
    with pytest.raises(WorkflowValidationError, match=r"Flow.__init__ has not called super\(\).__init__\(\)"):
        flow.validate()
    with pytest.raises(WorkflowValidationError, match="super"):
        _ = flow.workflow_name


def test_the_constructor_neither_hashes_the_instance_nor_sets_public_attributes():
    class Flow(Simple):
        __hash__ = None

    assert all(name.startswith("_durable_") for name in vars(Flow()))


def test_a_workflow_may_be_a_pydantic_model():
    class Agent(Simple, BaseModel):
        title: str = "a"

        def __init__(self, title: str, **kwargs: Any):
            BaseModel.__init__(self, title=title)
            Workflow.__init__(self, **kwargs)

    agent = Agent("x", timeout=5)
    assert set(Agent.model_fields) == {"title"}
    assert (agent.title, program(agent).timeout, agent.validate()) == ("x", 5, False)


# -- Validation --------------------------------------------------------------------------------------------------------


class Broken(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Work | StopEvent: ...

    @step
    async def lost(self, ev: Other) -> StopEvent: ...


def test_the_graph_is_checked_before_a_run_not_in_the_constructor():
    broken = Broken()
    with pytest.raises(WorkflowValidationError, match=r"(?s)Broken cannot run:.*'lost'.*Other.*'begin'.*Work"):
        program(broken)


def test_checks_can_be_left_out():
    assert program(Broken(disable_validation=True)).name == "Broken"

    class OnlyUnused(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Work | StopEvent: ...

    with pytest.raises(WorkflowValidationError, match="Work"):
        OnlyUnused().validate()
    assert OnlyUnused(skip_graph_checks={"terminal_event"}).validate() is False


def test_validate_tells_whether_a_human_is_asked():
    class Asks(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> InputRequiredEvent: ...

        @step
        async def take(self, ev: HumanResponseEvent) -> StopEvent: ...

    flow = Asks()
    assert flow.validate() is True
    assert program(flow).answer_types == (HumanResponseEvent,)
    assert Simple().validate() is False


def test_steps_and_helpers_may_have_the_names_of_the_class():
    class Flow(Workflow):
        @step
        async def validate(self, ev: StartEvent) -> Work: ...

        @step
        async def events(self, ev: Work) -> Other: ...

        @step
        async def serializer(self, ev: Other) -> StopEvent: ...

        def _validate(self, data, rules): ...

        def start_event_class(self): ...

        def workflow_name(self): ...

    flow = Flow()
    assert list(program(flow).num_workers) == ["validate", "events", "serializer"]
    assert start_event_of(Flow, None, {}) == StartEvent()
