"""The helpers that programs built on workflows import."""

from __future__ import annotations

import functools
from abc import ABCMeta
from types import NoneType
from typing import Annotated

import pytest
from pydantic import BaseModel

from durable_flow import Context, Event, Resource, StartEvent, StopEvent, Workflow, WorkflowValidationError, step
from durable_flow.collect import Collect, Take
from durable_flow.utils import (
    StepSignatureSpec,
    get_qualified_name,
    get_steps_from_class,
    get_steps_from_instance,
    import_module_from_qualified_name,
    inspect_signature,
    is_free_function,
    validate_step_signature,
)
from durable_flow.workflow import WorkflowMeta


class A(Event):
    pass


class B(Event):
    pass


class State(BaseModel):
    n: int = 0


class Flow(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> A:
        return A()

    @step
    async def end(self, ctx: Context[State], ev: A | B) -> StopEvent | None:
        return StopEvent(result=self)

    def helper(self, ev: A) -> B: ...


@step(workflow=Flow)
async def outside(ev: A) -> list[B]: ...


def test_the_steps_of_a_class_are_its_functions():
    assert get_steps_from_class(Flow) == {"begin": Flow.begin, "end": Flow.end, "outside": outside}


async def test_the_steps_of_an_instance_can_be_called():
    flow = Flow()
    steps = get_steps_from_instance(flow)
    assert list(steps) == ["begin", "end", "outside"]
    stop = await steps["end"](None, A())
    assert stop.result is flow
    assert steps["outside"] is outside


def test_a_signature_is_read():
    spec = inspect_signature(Flow.end)
    assert spec.accepted_events == {"ev": [A, B]}
    assert spec.return_types == [StopEvent]
    assert (spec.context_parameter, spec.context_state_type, spec.is_fan_out) == ("ctx", State, False)
    spec = inspect_signature(outside)
    assert (spec.return_types, spec.context_parameter, spec.is_fan_out) == ([B], None, True)


def test_fan_ins_are_read():
    async def collects(evs: Annotated[list[A | B], Collect(Take(2))]) -> StopEvent: ...

    spec = inspect_signature(collects)
    assert (spec.accepted_events, spec.collection_param) == ({"evs": [A, B]}, ("evs", (A, B)))
    assert spec.collection_policy == Take(2)

    async def one_of_each(a: A, b: B) -> StopEvent: ...

    spec = inspect_signature(one_of_each)
    assert (spec.accepted_events, spec.collection_param, spec.collection_policy) == ({"a": [A], "b": [B]}, None, None)


def make_client() -> dict: ...


def test_what_a_step_is_given_beside_event_and_context_is_read():
    async def given(ev: A, client: Annotated[dict, Resource(make_client)], llm: list, limit: int = 3) -> B: ...

    spec = inspect_signature(given)
    [resource] = spec.resources
    assert (resource.name, resource.type_annotation) == ("client", dict)
    assert spec.requested_services["llm"] == [list]


def test_a_bound_method_and_a_wrapper_have_the_signature_of_their_function():
    @functools.wraps(Flow.end)
    async def wrapper(*args, **kwargs): ...

    assert inspect_signature(Flow().end) == inspect_signature(wrapper) == inspect_signature(Flow.end)


def test_a_step_that_returns_no_event_says_so():
    async def only_takes(ev: A) -> None: ...

    spec = inspect_signature(only_takes)
    assert spec.return_types == [NoneType]
    validate_step_signature(spec)


def test_annotations_that_are_local_names_are_given():
    async def local(ev: Local) -> B: ...  # noqa: F821

    with pytest.raises(WorkflowValidationError, match="Local"):
        inspect_signature(local)
    assert inspect_signature(local, {"Local": A}).accepted_events == {"ev": [A]}


def test_a_signature_that_cannot_be_a_step_is_refused():
    async def no_return(ev: A): ...

    with pytest.raises(WorkflowValidationError, match="return annotation"):
        inspect_signature(no_return)
    nothing = StepSignatureSpec(accepted_events={}, return_types=[], context_parameter=None)
    with pytest.raises(WorkflowValidationError, match=r"event class.*return annotation"):
        validate_step_signature(nothing)


@pytest.mark.parametrize(
    ("name", "free"),
    [("f", True), ("Class.f", False), ("f.<locals>.g", True), ("f.<locals>.Class.g", False), ("C.f.<locals>.g", True)],
)
def test_a_free_function_stands_in_no_class(name, free):
    assert is_free_function(name) is free


def test_a_free_function_has_a_name():
    with pytest.raises(ValueError, match="empty"):
        is_free_function("")


def test_qualified_names_lead_to_classes_and_back():
    name = get_qualified_name(A)
    assert name == f"{__name__}.A"
    assert get_qualified_name([]) == "builtins.list"
    assert import_module_from_qualified_name("durable_flow.events.StopEvent") is StopEvent


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nodot", ValueError),
        ("no_such_module.X", ImportError),
        ("durable_flow.no_such_module.X", ImportError),
        ("durable_flow.events.NoSuchEvent", AttributeError),
    ],
)
def test_a_name_that_leads_nowhere(name, error):
    with pytest.raises(error):
        import_module_from_qualified_name(name)


def test_a_metaclass_may_be_derived_and_combined():
    class Combined(WorkflowMeta, type(BaseModel)):
        pass

    class Abstract(WorkflowMeta, ABCMeta):
        pass

    class Small(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    class Agent(Small, BaseModel, metaclass=Combined):
        title: str = "a"

        def __init__(self, **kwargs):
            BaseModel.__init__(self, **kwargs)
            Workflow.__init__(self)

    class Plain(Small, metaclass=Abstract):
        pass

    assert Agent(title="x").validate() is Plain().validate() is False
