"""Programs change their import line and nothing else: every public name of upstream is found in the same module.

The lists are those of llama-index-workflows 2.26.1 (`workflows`) and of the older `llama_index.core.workflow`, without
what a module merely imports from another one, and without names that begin with an underscore.
"""

from __future__ import annotations

import importlib

import pytest

OFFERED = {
    # llama-index-workflows 2.26.1
    "": "Context Workflow catch_error step",
    "events": """CollectionReleaseEvent Event EventType HumanResponseEvent InputRequiredEvent InternalDispatchEvent
        StartEvent StepFailedEvent StepState StepStateChanged StopEvent UnhandledEvent UnreconstructedException
        WorkflowCancelledEvent WorkflowFailedEvent WorkflowIdleEvent WorkflowTimedOutEvent""",
    "errors": """ContextSerdeError ContextStateError WorkflowCancelledByUser WorkflowConfigurationError WorkflowDone
        WorkflowRuntimeError WorkflowStepDoesNotExistError WorkflowTimeoutError WorkflowValidationError""",
    "collect": "All Cardinality Collect Take",
    "context": "BaseSerializer Context JsonSerializer PickleSerializer",
    "context.context": "Context",
    "context.serializers": """BaseSerializer JsonPickleSerializer JsonSerializer PickleSerializer get_qualified_name
        import_module_from_qualified_name""",
    "context.utils": "get_qualified_name import_module_from_qualified_name",
    "context.state_store": "DictState InMemoryStateStore StateStore",
    "decorators": "RetryPolicy StepConfig StepFunction catch_error step",
    "handler": "WorkflowHandler",
    "retry_policy": """ConstantDelayRetryPolicy ExponentialBackoffRetryPolicy RetryCondition RetryInfo RetryPolicy
        StopCondition WaitStrategy retry_all retry_always retry_any retry_if_exception retry_if_exception_cause_type
        retry_if_exception_message retry_if_exception_type retry_if_not_exception_message
        retry_if_not_exception_type retry_never retry_policy retry_unless_exception_type stop_after_attempt
        stop_after_delay stop_all stop_any stop_before_delay stop_never wait_chain wait_combine wait_exponential
        wait_exponential_jitter wait_fixed wait_full_jitter wait_incrementing wait_none wait_random
        wait_random_exponential""",
    "types": "EventType RunResultT StopEventT",
    "utils": """BUSY_WAIT_DELAY EventType StepSignatureSpec get_steps_from_class get_steps_from_instance
        inspect_signature is_free_function validate_step_signature""",
    "representation": """WorkflowEventNode WorkflowExternalNode WorkflowGenericNode WorkflowGraph WorkflowGraphEdge
        WorkflowGraphNode WorkflowNodeBase WorkflowResourceConfigNode WorkflowResourceNode WorkflowStepNode
        get_workflow_representation""",
    "representation.build": "get_workflow_representation",
    "representation.types": """WorkflowEventNode WorkflowExternalNode WorkflowGenericNode WorkflowGraph
        WorkflowGraphEdge WorkflowGraphNode WorkflowNodeBase WorkflowResourceConfigNode WorkflowResourceNode
        WorkflowStepNode""",
    "resource": "Resource ResourceConfig ResourceDefinition ResourceDescriptor ResourceManager",
    "testing": "WorkflowTestRunner",
    "workflow": "Workflow WorkflowMeta",
    # llama_index.core.workflow: what its front door exported at some time, and the modules that only it has
    "context_serializers": "BaseSerializer JsonPickleSerializer JsonSerializer PickleSerializer",
    "checkpointer": "Checkpoint CheckpointCallback WorkflowCheckpointer",
    "service": "ServiceManager ServiceNotFoundError",
}
OLD_FRONT_DOOR = """Checkpoint Context Event HumanResponseEvent InputRequiredEvent JsonPickleSerializer
    JsonSerializer StartEvent StopEvent Workflow WorkflowCheckpointer WorkflowRuntimeError
    WorkflowTimeoutError WorkflowValidationError step"""
OLD_UTILS = "get_qualified_name import_module_from_qualified_name"
# Public names of the package's own modules that a program may also take from the front door.
FROM_THE_FRONT_DOOR = """BUSY_WAIT_DELAY EventType PickleSerializer RunResultT StepConfig StepSignatureSpec StopEventT
    WorkflowMeta get_qualified_name get_steps_from_class get_steps_from_instance get_workflow_representation
    import_module_from_qualified_name inspect_signature is_free_function validate_step_signature"""

PLUMBING = "plumbing of upstream's engine, which programs do not use"
FIELDS = "a field type that keeps an event's class; here a field of type Event does that by itself"
PATCHES = "state checkpoints as JSON Patches, new and experimental in upstream; the journal has every state"
STORED_STATE = """InMemorySerializedState StateRecord StateStorage StateStoreFacade assign_path_step
    copy_state_for_edit create_cleared_state create_in_memory_payload decode_seed_state decode_state
    decode_state_tree deserialize_dict_state_data deserialize_state_from_dict encode_state
    encode_state_tree get_by_path infer_state_type is_declared_model_path_segment
    is_durable_serialized_state merge_state parse_in_memory_state restored_run_id
    serialize_dict_state_data set_by_path set_by_path_copy string_record_from_state
    traverse_path_step"""
STORAGE = "how upstream stores its state; here the journal does"
CHECKS = "the checks of a graph as data; here Workflow.validate() raises one error that lists what they find"
LATER = "its feature comes with a later release; nothing is offered that does not work"

NOT_OFFERED = {
    "context.state_store.UnserializableKeyWarning": "a value that cannot be stored is refused where it is set",
    "context.state_store.StateCheckpoint": PATCHES,
    "context.state_store.apply_state_patch": PATCHES,
    **dict.fromkeys((f"context.state_store.{name}" for name in STORED_STATE.split()), STORAGE),
    "events.DictLikeModel": "the base of Event that is like a dict; here Event is it",
    "events.SerializableEvent": FIELDS,
    "events.SerializableEventType": FIELDS,
    "events.SerializableException": FIELDS,
    "events.SerializableOptionalEvent": FIELDS,
    "events.SerializableOptionalException": FIELDS,
    "events.IdleReleasedEvent": PLUMBING,
    "context.context.BrokerState": PLUMBING,
    "context.context.ExternalContext": "handler.ctx is a Context",
    "context.context.InternalContext": "a step's ctx is a Context",
    "context.context_types": "the layout of upstream's Context.to_dict, class by class; here it is another one",
    "representation.validate.build_step_graph": CHECKS,
    "representation.validate.StepGraph": CHECKS,
    "representation.validate.GraphValidationError": CHECKS,
    "representation.validate.validate_graph": CHECKS,
    "context.context.PreContext": "a Context made before a run is a Context",
    "decorators.make_step_function": PLUMBING,
    "decorators.CatchErrorHandler": PLUMBING,
    "handler.as_v2_runtime_compatibility_shim": PLUMBING,
    "workflow.step_accepts_event": PLUMBING,
    "runtime": "the engine of upstream, as plugins; durable_flow has one engine",
    "server": "their HTTP server; " + LATER,
    "client": "the client of their HTTP server; " + LATER,
    "drawing.draw_all_possible_flows": LATER,
    "drawing.draw_most_recent_execution": LATER,
    "draw_all_possible_flows": LATER,
    "draw_most_recent_execution": LATER,
}


def has(path: str) -> bool:
    """Tell whether `module.name` (or a module) can be imported from durable_flow."""
    module, _, name = f"durable_flow.{path}".rpartition(".")
    try:
        found = importlib.import_module(module)
        if hasattr(found, name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("module", OFFERED)
def test_a_module_of_this_name_has_the_public_names(module):
    found = importlib.import_module(f"durable_flow.{module}" if module else "durable_flow")
    assert [name for name in OFFERED[module].split() if not hasattr(found, name)] == []


def test_the_front_door_and_the_old_utils():
    assert [name for name in [*OLD_FRONT_DOOR.split(), *FROM_THE_FRONT_DOOR.split()] if not has(name)] == []
    assert [name for name in OLD_UTILS.split() if not has(f"utils.{name}")] == []


@pytest.mark.parametrize("path", NOT_OFFERED)
def test_what_is_not_offered_is_not_there_as_a_stub(path):
    assert not has(path)


def test_a_name_is_the_same_object_in_every_module():
    import durable_flow
    from durable_flow import context, decorators, events, retry_policy, types, utils, workflow
    from durable_flow.context import serializers

    assert durable_flow.Context is context.Context is context.context.Context
    assert durable_flow.Workflow is workflow.Workflow
    assert durable_flow.step is decorators.step
    assert decorators.RetryPolicy is retry_policy.RetryPolicy
    assert types.EventType is events.EventType is utils.EventType
    assert durable_flow.JsonSerializer is context.JsonSerializer is serializers.JsonSerializer
    assert durable_flow.PickleSerializer is context.PickleSerializer is serializers.PickleSerializer
    assert serializers.get_qualified_name is utils.get_qualified_name


def test_the_package_of_the_context_has_its_own_module_of_serializers():
    from durable_flow.context import serializers

    assert serializers.__name__ == "durable_flow.context.serializers"
