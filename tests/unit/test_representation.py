"""A workflow as nodes and edges."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict

from durable_flow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    ResourceConfig,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    step,
)
from durable_flow.representation import (
    WorkflowEventNode,
    WorkflowExternalNode,
    WorkflowGenericNode,
    WorkflowGraph,
    WorkflowNodeBase,
    WorkflowResourceConfigNode,
    WorkflowResourceNode,
    WorkflowStepNode,
    get_workflow_representation,
)


class Draft(Event):
    text: str


class Review(InputRequiredEvent):
    pass


class Verdict(HumanResponseEvent):
    pass


class Flow(Workflow):
    """Writes and asks."""

    @step
    async def write(self, ctx: Context, ev: StartEvent) -> Draft | Review:
        """Write a draft."""

    @step
    async def finish(self, ev: Draft | Verdict) -> StopEvent | None: ...


def arrows(graph):
    return {(edge.source, edge.target) for edge in graph.edges}


def of_type(graph, cls):
    return {node.id: node for node in graph.nodes if isinstance(node, cls)}


@pytest.mark.parametrize("make", [lambda: Flow, Flow], ids=["class", "instance"])
def test_steps_events_and_the_world_outside_are_nodes(make):
    graph = get_workflow_representation(make())
    assert (graph.name, graph.description) == ("Flow", "Writes and asks.")
    assert {name: node.description for name, node in of_type(graph, WorkflowStepNode).items()} == {
        "write": "Write a draft.",
        "finish": None,
    }
    events = of_type(graph, WorkflowEventNode)
    assert set(events) == {"StartEvent", "Draft", "Review", "Verdict", "StopEvent"}
    assert list(of_type(graph, WorkflowExternalNode)) == ["external_step"]
    assert len(graph.nodes) == 8


def test_edges_follow_the_annotations_and_questions_go_outside():
    assert arrows(get_workflow_representation(Flow)) == {
        ("StartEvent", "write"),
        ("write", "Draft"),
        ("write", "Review"),
        ("Review", "external_step"),
        ("external_step", "Verdict"),
        ("Draft", "finish"),
        ("Verdict", "finish"),
        ("finish", "StopEvent"),
    }


def test_an_event_node_tells_its_lineage_its_schema_and_who_returns_it():
    events = of_type(get_workflow_representation(Flow), WorkflowEventNode)
    assert events["Review"].event_types == ["Review", "InputRequiredEvent"]
    assert events["Review"].is_subclass_of("InputRequiredEvent", "StopEvent")
    assert not events["Review"].is_subclass_of("Event", "StopEvent")
    assert events["Draft"].produced_by == ["write"]
    assert events["Draft"].event_schema["required"] == ["text"]


def test_without_questions_there_is_no_world_outside():
    class Quiet(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    graph = get_workflow_representation(Quiet)
    assert of_type(graph, WorkflowExternalNode) == {}
    assert graph.description is None


def test_an_event_whose_fields_have_no_schema_is_a_node_all_the_same():
    class Connection:
        pass

    class Opened(Event):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        connection: Connection

    class Opens(Workflow):
        @step
        async def open(self, ev: StartEvent) -> Opened: ...

        @step
        async def close(self, ev: Opened) -> StopEvent: ...

    assert of_type(get_workflow_representation(Opens), WorkflowEventNode)["Opened"].event_schema is None


class Settings(BaseModel):
    password: str


def connect(settings: Annotated[Settings, ResourceConfig("app.json", "database", label="Database")]) -> dict:
    """Open the connection."""


class WithResources(Workflow):
    @step
    async def one(self, ev: StartEvent, db: Annotated[dict, Resource(connect)]) -> Draft: ...

    @step
    async def two(self, ev: Draft, connection: Annotated[dict, Resource(connect)]) -> StopEvent: ...


def test_resources_are_nodes_and_edges_lead_to_what_is_needed():
    graph = get_workflow_representation(WithResources)
    [resource] = of_type(graph, WorkflowResourceNode).values()
    assert (resource.type_name, resource.getter_name, resource.description) == (
        "dict",
        "connect",
        "Open the connection.",
    )
    assert resource.source_file == __file__
    [config] = of_type(graph, WorkflowResourceConfigNode).values()
    assert (config.label, config.type_name, config.config_file, config.path_selector) == (
        "Database",
        "Settings",
        "app.json",
        "database",
    )
    assert config.config_schema["required"] == ["password"]
    needs = [(edge.source, edge.target, edge.label) for edge in graph.edges if edge.label]
    assert sorted(needs) == sorted(
        [
            ("one", resource.id, "db"),
            ("two", resource.id, "connection"),
            (resource.id, config.id, "settings"),
        ]
    )
    assert WorkflowGraph.model_validate_json(graph.model_dump_json()) == graph


def test_two_events_of_one_class_name_are_two_nodes():
    class Other:
        class Draft(Event):
            pass

    class Both(Workflow):
        @step
        async def one(self, ev: StartEvent) -> Draft: ...

        @step
        async def two(self, ev: Draft) -> Other.Draft: ...

        @step
        async def three(self, ev: Other.Draft) -> StopEvent: ...

    graph = get_workflow_representation(Both)
    assert len(of_type(graph, WorkflowEventNode)) == 4
    assert ("one", "Draft") in arrows(graph)
    assert ("two", Other.Draft.__qualname__) in arrows(graph)


def test_nodes_of_a_kind_can_be_left_out_and_what_they_connected_stays_connected():
    graph = get_workflow_representation(Flow).filter_by_node_type("event")
    assert {node.node_type for node in graph.nodes} == {"step", "external"}
    assert arrows(graph) == {("write", "finish"), ("write", "external_step"), ("external_step", "finish")}
    labels = {(edge.source, edge.target): edge.label for edge in graph.edges}
    assert labels["write", "finish"] == "Draft"


def test_leaving_out_several_kinds_reaches_through_all_of_them_and_through_loops():
    class Loop(Workflow):
        @step
        async def turn(self, ev: StartEvent | Draft) -> Draft | StopEvent: ...

    graph = get_workflow_representation(Loop)
    assert arrows(graph.filter_by_node_type("step")) == {
        ("StartEvent", "Draft"),
        ("StartEvent", "StopEvent"),
        ("Draft", "Draft"),
        ("Draft", "StopEvent"),
    }
    assert graph.filter_by_node_type("step", "event").nodes == []
    assert arrows(graph) == arrows(graph.filter_by_node_type("external"))


def test_a_graph_goes_through_json_also_with_nodes_of_an_unknown_kind():
    graph = get_workflow_representation(Flow)
    assert WorkflowGraph.model_validate_json(graph.model_dump_json()) == graph
    data: dict[str, Any] = graph.model_dump()
    data["nodes"].append({"id": "x", "label": "x", "node_type": "agent", "event_types": ["A"]})
    node = WorkflowGraph.model_validate(data).nodes[-1]
    assert isinstance(node, WorkflowGenericNode)
    assert node.is_subclass_of("A")


def test_a_label_is_shortened_to_the_length_asked_for():
    node = WorkflowNodeBase(id="x", label="abcdefghijkl")
    assert node.truncated_label(5) == "abcd*"
    assert node.truncated_label(12) == "abcdefghijkl"


def test_a_class_that_cannot_be_a_workflow_is_refused():
    class Nothing(Workflow):
        pass

    with pytest.raises(WorkflowConfigurationError, match="has no steps"):
        get_workflow_representation(Nothing)


def test_the_models_are_plain_pydantic():
    assert issubclass(WorkflowGraph, BaseModel)
