"""`@step` with a list of events or several event parameters: what is read from the signature, and what is refused."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import pytest

from durable_flow import All, Collect, Event, StartEvent, StopEvent, Take, Workflow, WorkflowValidationError, step
from durable_flow.collect import Cardinality
from durable_flow.decorators import declaration_of
from durable_flow.program import WorkflowProgram
from durable_flow.serializers.codec import Codec
from durable_flow.serializers.json import JsonSerializer
from durable_flow.steps import step_table


class A(Event):
    n: int = 0


class B(Event):
    pass


class SubA(A):
    pass


def config_of(annotation: Any, **options: Any) -> Any:
    async def collects(self, found): ...

    collects.__annotations__ = {"found": annotation, "return": StopEvent}
    collects.__qualname__ = "Flow.collects"
    found = declaration_of(step(**options)(collects))
    assert found is not None
    return found.config()


# -- What is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "accepted", "collect"),
    [
        (list[A], (A,), All()),
        ("list[A]", (A,), All()),
        (list[A | B], (A, B), All()),
        (list["A"], (A,), All()),
        (Optional[list[A]], (A,), All()),  # noqa: UP045
        (Annotated[list[A], Collect()], (A,), All()),
        (Annotated[list[A], Collect(All())], (A,), All()),
        (Annotated[list[A | B], Collect(Take(3))], (A, B), Take(3)),
        (Annotated[list[A], "a remark", Collect(Take(1))], (A,), Take(1)),
    ],
)
def test_a_list_parameter(annotation, accepted, collect):
    config = config_of(annotation)
    assert (config.accepted, config.collect, config.event_parameter) == (accepted, collect, "found")
    assert config.slots == ()


def test_several_event_parameters_in_their_order():
    async def meets(self, b: B, ctx: Any = None, *, a: A) -> StopEvent: ...

    meets.__qualname__ = "Flow.meets"
    config = declaration_of(step(meets)).config()
    assert config.slots == (("b", B), ("a", A))
    assert config.accepted == (B, A)
    assert config.collect is None


def test_what_is_returned_in_a_list_and_what_alone():
    async def returns(self, ev: A) -> list[A | B] | B | None: ...

    returns.__qualname__ = "Flow.returns"
    config = declaration_of(step(returns)).config()
    assert (config.listed, config.single, config.emitted) == ((A, B), (B,), (A, B))


# -- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (list[A] | list[B], r"mixes a list of events with something else in parameter 'found'.*list\[A \| B\]"),
        (list[A | int], "mixes a list of events with something else"),
        (list[A] | B, "mixes events with"),
        (Annotated[A, Collect()], "has a Collect on parameter 'found', which is no list of events"),
        (Annotated[list[int], Collect()], "has a Collect on parameter 'found', which is no list of events"),
        (Annotated[list[A], Collect(Cardinality())], r"Collect\(All\(\)\).*Take\(n\)"),
        (Annotated[list[A], Collect(3)], r"says Collect\(cardinality=3\).*Take\(n\)"),
        (Annotated[list[A], Take(1)], r"says Take\(n=1\) about parameter 'found'"),
        (Annotated[list[A], Collect], "says <class"),
        (Annotated[list[A], Collect(), Collect(Take(1))], "says Collect.*, Collect"),
        (list, "no parameter annotated with an event class.*or with a list of them"),
        (list[int], "no parameter annotated with an event class.*or with a list of them"),
    ],
)
def test_a_list_parameter_that_cannot_work(annotation, message):
    with pytest.raises(WorkflowValidationError, match=rf"(?s)step 'Flow.collects' .*{message}"):
        config_of(annotation)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"one": list[A], "two": list[B]}, r"several list parameters \(one, two\).*list\[A \| B\]"),
        ({"one": list[A], "two": B}, r"a list parameter \(one\) beside single events \(two\).*step of its own"),
        ({"one": A | B, "two": B}, r"takes several events \(one, two\), and a union in parameter 'one'"),
    ],
)
def test_parameters_that_cannot_work_together(annotations, message):
    async def meets(self, one, two): ...

    meets.__annotations__ = {**annotations, "return": StopEvent}
    meets.__qualname__ = "Flow.meets"
    with pytest.raises(WorkflowValidationError, match=rf"(?s)meets' .*{message}"):
        step(meets)


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "2", None])
def test_take_needs_a_whole_number_of_at_least_one(number):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        Take(number)


def test_unknown_checks_of_a_step_are_refused():
    with pytest.raises(WorkflowValidationError, match=r"skip_graph_checks with speed.*dead_end, reachability"):
        config_of(A, skip_graph_checks=["speed", "dead_end"])


def test_a_check_of_a_step_may_be_named_without_a_list():
    assert config_of(A, skip_graph_checks="dead_end").skip_graph_checks == {"dead_end"}


def test_accept_event_subclasses_is_a_switch():
    with pytest.raises(WorkflowValidationError, match=r"accept_event_subclasses='yes'.*True or False"):
        config_of(A, accept_event_subclasses="yes")


# -- The class ---------------------------------------------------------------------------------------------------------


class Flow(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[A]:
        return []

    @step
    async def join(self, found: Annotated[list[A], Collect(Take(2))]) -> StopEvent:
        return StopEvent()


class Twin(Flow):
    @step
    async def join(self, found: A) -> StopEvent:
        return StopEvent()


def program(cls: type[Workflow]) -> WorkflowProgram:
    codec = Codec(JsonSerializer())
    return WorkflowProgram(cls(), step_table(cls), codec, name="Flow", timeout=None, verbose=False)


def test_the_table_knows_where_events_go_and_whose_lists_are_collected():
    table = step_table(Flow)
    assert table.routes[A] == ()
    assert table.joins[A] == ("join",)
    assert table.fan_outs == {"split": (("join",), (2,))}
    assert program(Flow).has_joins
    assert not program(Twin).has_joins
    assert step_table(Twin).fan_outs == {}


def test_a_fan_in_is_part_of_the_shape():
    assert step_table(Flow).shape != step_table(Twin).shape


def test_the_validation_names_joins_with_everything_else_that_is_wrong():
    class Wrong(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A | StopEvent:
            return StopEvent()

        @step
        async def join(self, found: list[A]) -> StopEvent:
            return StopEvent()

        @step
        async def lost(self, ev: B) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError) as found:
        Wrong().validate()
    assert "step 'join' collects list[A]" in str(found.value)
    assert "step 'lost' accepts B" in str(found.value)


def test_a_step_can_leave_itself_out_of_a_check():
    class Skips(Workflow):
        @step(skip_graph_checks={"terminal_event"})
        async def begin(self, ev: StartEvent) -> A | StopEvent:
            return StopEvent()

    assert Skips().validate(validate_resource_configs=True, validate_resources=False) is False


def test_a_step_added_later_is_validated_and_collects():
    class Grows(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A] | StopEvent:
            return []

        @step
        async def each(self, ev: A) -> StopEvent:
            return StopEvent()

    flow = Grows()
    flow.validate()
    assert step_table(Grows).fan_outs == {}

    @step(workflow=Grows)
    async def join(found: list[A]) -> None: ...

    flow.validate()
    assert step_table(Grows).fan_outs == {"split": (("join",), (0,))}

    @step(workflow=Grows)
    async def lost(found: list[B]) -> None: ...

    with pytest.raises(WorkflowValidationError, match="'lost' accepts B"):
        flow.validate()


def test_the_events_of_a_workflow_include_those_in_lists():
    assert set(Flow().events) == {StartEvent, A, StopEvent}


# -- Subclasses --------------------------------------------------------------------------------------------------------


class Bases(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> SubA | StopEvent:
        return StopEvent()

    @step(accept_event_subclasses=True)
    async def base(self, ev: A) -> None: ...

    @step
    async def exact(self, ev: SubA) -> None: ...

    @step(accept_event_subclasses=True)
    async def meet(self, any_a: A, sub: SubA) -> None: ...


def test_subclasses_are_routed_by_their_bases():
    routes = program(Bases)
    assert routes.targets(SubA()) == ("base", "exact")
    assert routes.targets(A()) == ("base",)
    assert routes.targets(B()) == ()
    assert routes.joins(SubA) == ("meet.sub|any_a/2",)
    assert routes.joins(A) == ("meet.any_a/2",)


def test_a_class_that_no_annotation_names_is_routed_by_its_bases_too():
    class Unnamed(SubA):
        pass

    routes = program(Bases)
    assert routes.targets(Unnamed()) == ("base",)
    assert routes.accepts("base", Unnamed())
    assert not routes.accepts("exact", Unnamed())
    assert program(Flow).targets(Unnamed()) == ()
