"""A workflow as a graph of nodes and edges, read from its class: what drawings and servers show of it."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from ..events import Event, HumanResponseEvent, InputRequiredEvent, event_name
from ..resource import Resource, ResourceConfig, ResourceDescriptor
from ..steps import step_table

if TYPE_CHECKING:
    from ..workflow import Workflow

__all__ = [
    "WorkflowEventNode",
    "WorkflowExternalNode",
    "WorkflowGenericNode",
    "WorkflowGraph",
    "WorkflowGraphEdge",
    "WorkflowGraphNode",
    "WorkflowNodeBase",
    "WorkflowResourceConfigNode",
    "WorkflowResourceNode",
    "WorkflowStepNode",
    "get_workflow_representation",
]

EXTERNAL = "external_step"
"""The id of the node that stands for the world outside: it takes questions and gives answers."""


class WorkflowNodeBase(BaseModel):
    """What every node has: an `id` that edges refer to, and a `label` for people."""

    id: str
    label: str

    def truncated_label(self, max_length: int) -> str:
        """Return the label, shortened to `max_length` characters; the last one is then an asterisk."""
        return self.label if len(self.label) <= max_length else f"{self.label[: max_length - 1]}*"


class WorkflowStepNode(WorkflowNodeBase):
    """A step; its docstring is the description."""

    node_type: Literal["step"] = "step"
    description: str | None = None


class WorkflowEventNode(WorkflowNodeBase):
    """An event class.

    `event_types` are the names of the class and of those it derives from, below `Event`; `produced_by` the steps that
    return it; `event_schema` its JSON schema, None where a field has none.
    """

    node_type: Literal["event"] = "event"
    event_type: str
    event_types: list[str]
    event_schema: dict[str, Any] | None = None
    produced_by: list[str] = Field(default_factory=list)

    def is_subclass_of(self, *type_names: str) -> bool:
        """Tell whether one of these is the class or one that it derives from."""
        return not set(type_names).isdisjoint(self.event_types)


class WorkflowExternalNode(WorkflowNodeBase):
    """The world outside: whoever answers questions."""

    node_type: Literal["external"] = "external"


class WorkflowResourceNode(WorkflowNodeBase):
    """A resource that a factory makes; `getter_name` is the factory's, `type_name` the annotated type's where known."""

    node_type: Literal["resource"] = "resource"
    type_name: str | None = None
    getter_name: str | None = None
    source_file: str | None = None
    source_line: int | None = None
    description: str | None = None


class WorkflowResourceConfigNode(WorkflowNodeBase):
    """A resource that is read from a file. What stands in the file is not shown: it may be a secret."""

    node_type: Literal["resource_config"] = "resource_config"
    type_name: str | None = None
    config_file: str | None = None
    path_selector: str | None = None
    config_schema: dict[str, Any] | None = None
    description: str | None = None


class WorkflowGenericNode(WorkflowNodeBase):
    """A node of a kind that this version does not know."""

    node_type: str
    event_type: str | None = None
    event_types: list[str] | None = None

    def is_subclass_of(self, *type_names: str) -> bool:
        """Tell whether it is an event node and one of these is its class or one that it derives from."""
        return not set(type_names).isdisjoint(self.event_types or ())


WorkflowGraphNode = (
    WorkflowStepNode
    | WorkflowEventNode
    | WorkflowExternalNode
    | WorkflowResourceNode
    | WorkflowResourceConfigNode
    | WorkflowGenericNode
)


class WorkflowGraphEdge(BaseModel):
    """An arrow from one node to another."""

    source: str
    target: str
    label: str | None = None


class WorkflowGraph(BaseModel):
    """The nodes and edges of a workflow; its class's docstring is the description."""

    name: str
    nodes: list[WorkflowGraphNode]
    edges: list[WorkflowGraphEdge]
    description: str | None = None

    def filter_by_node_type(self, *node_types: str) -> WorkflowGraph:
        """Return the graph without the nodes of these types.

        What was connected through them is connected directly. The label of such an edge is that of the node it jumps
        over; of several, that of the last.
        """
        gone = {node.id: node for node in self.nodes if node.node_type in node_types}
        leaving: dict[str, list[WorkflowGraphEdge]] = {}
        for edge in self.edges:
            leaving.setdefault(edge.source, []).append(edge)
        edges: dict[tuple[str, str, str | None], None] = {}
        for edge in self.edges:
            if edge.source in gone:
                continue
            seen: set[str] = set()
            pending = [edge]
            while pending:
                last = pending.pop(0)
                if last.target not in gone:
                    over = gone.get(last.source)
                    edges[edge.source, last.target, last.label if over is None else over.label] = None
                elif last.target not in seen:
                    seen.add(last.target)
                    pending += leaving.get(last.target, ())
        return WorkflowGraph(
            name=self.name,
            nodes=[node for node in self.nodes if node.id not in gone],
            edges=[WorkflowGraphEdge(source=source, target=target, label=label) for source, target, label in edges],
            description=self.description,
        )


def get_workflow_representation(workflow: Workflow | type[Workflow]) -> WorkflowGraph:
    """Return the graph of a workflow or its class, without running anything.

    Raises WorkflowValidationError for a class that cannot be a workflow.
    """
    cls = workflow if isinstance(workflow, type) else type(workflow)
    steps = list(step_table(cls).steps.values())
    ids = _event_ids(event for step in steps for event in (*step.accepted, *step.emitted))
    nodes: dict[str, WorkflowGraphNode] = {}
    edges: list[tuple[str, str]] = []
    for step in steps:
        nodes[step.name] = WorkflowStepNode(id=step.name, label=step.name, description=_description(step.function))
        for event in step.accepted:
            edges.append((ids[event], step.name))
            if issubclass(event, HumanResponseEvent):
                edges.append((EXTERNAL, ids[event]))
        for event in step.emitted:
            edges.append((step.name, ids[event]))
            if issubclass(event, InputRequiredEvent):
                edges.append((ids[event], EXTERNAL))
    for event, name in ids.items():
        nodes[name] = _event_node(event, name, [step.name for step in steps if event in step.emitted])
    if any(EXTERNAL in edge for edge in edges):
        nodes[EXTERNAL] = WorkflowExternalNode(id=EXTERNAL, label=EXTERNAL)
    resources = _Resources()
    for step in steps:
        for needed in step.resources:
            resources.add(step.name, needed.name, needed.resource, needed.type_annotation)
    arrows = [WorkflowGraphEdge(source=source, target=target) for source, target in dict.fromkeys(edges)]
    return WorkflowGraph(
        name=cls.__name__,
        nodes=[*nodes.values(), *resources.nodes.values()],
        edges=[*arrows, *resources.edges],
        description=_description(cls),
    )


class _Resources:
    """The resources that steps and other resources need: one node each, however many need it."""

    def __init__(self) -> None:
        self.nodes: dict[Hashable, WorkflowResourceNode | WorkflowResourceConfigNode] = {}
        self.edges: list[WorkflowGraphEdge] = []

    def add(self, source: str, parameter: str, resource: ResourceDescriptor, kind: Any) -> None:
        """Add an edge from what needs a resource, and its node if it is new; then what that one needs."""
        node = self.nodes.get(resource.key)
        is_new = node is None
        if node is None:
            name = f"{'resource' if isinstance(resource, Resource) else 'resource_config'}_{len(self.nodes) + 1}"
            node = self.nodes[resource.key] = _resource_node(name, resource, getattr(kind, "__name__", None))
        self.edges.append(WorkflowGraphEdge(source=source, target=node.id, label=parameter))
        if is_new:
            for needed, dependency in resource.dependencies().items():
                self.add(node.id, needed, dependency, None)


def _resource_node(
    name: str, resource: ResourceDescriptor, kind: str | None
) -> WorkflowResourceNode | WorkflowResourceConfigNode:
    if isinstance(resource, ResourceConfig):
        model = resource.model
        return WorkflowResourceConfigNode(
            id=name,
            label=resource.label or resource.name,
            type_name=model.__name__ if model is not None else kind,
            config_file=resource.config_file,
            path_selector=resource.path_selector,
            config_schema=_schema(model) if model is not None else None,
            description=resource.description,
        )
    factory = resource.factory
    code = getattr(inspect.unwrap(factory), "__code__", None)
    return WorkflowResourceNode(
        id=name,
        label=kind or resource.name,
        type_name=kind,
        getter_name=getattr(factory, "__name__", resource.name),
        source_file=code.co_filename if code is not None else None,
        source_line=code.co_firstlineno if code is not None else None,
        description=_description(factory),
    )


def _event_ids(events: Iterable[type[Event]]) -> dict[type[Event], str]:
    """Return the classes with their ids: the class's name, or its longer one if another class has that name."""
    ids: dict[type[Event], str] = {}
    for event in events:
        if event not in ids:
            ids[event] = event_name(event) if event.__name__ in ids.values() else event.__name__
    return ids


def _event_node(event: type[Event], name: str, produced_by: list[str]) -> WorkflowEventNode:
    return WorkflowEventNode(
        id=name,
        label=event.__name__,
        event_type=event.__name__,
        event_types=[cls.__name__ for cls in event.__mro__ if issubclass(cls, Event) and cls is not Event],
        event_schema=_schema(event),
        produced_by=produced_by,
    )


def _schema(model: type[BaseModel]) -> dict[str, Any] | None:
    try:
        return model.model_json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
        return None  # fields of any type are allowed, also of types that have no JSON schema


def _description(documented: Any) -> str | None:
    text = documented.__dict__.get("__doc__") if isinstance(documented, type) else documented.__doc__
    return inspect.cleandoc(text) if text else None
