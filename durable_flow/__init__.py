"""Durable, event-driven workflows: every event and every context write goes to a SQL journal."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .checkpointer import CheckpointCallback, WorkflowCheckpointer
from .checkpoints import Checkpoint
from .collect import All, Collect, Take
from .context import Context, get_step_context
from .decorators import catch_error, step
from .engine.replaying.report import Divergence, ReplayReport
from .errors import (
    AlreadyAnsweredError,
    ArchiveError,
    CheckpointError,
    ContextSerdeError,
    ContextStateError,
    DeserializationError,
    DurableFlowError,
    JournalError,
    JournalUnavailableError,
    JournalUrlError,
    NeedsAttentionError,
    PayloadTooLargeError,
    RunConflictError,
    RunFailedError,
    RunFenced,
    RunFinishedError,
    RunIdError,
    RunNotFoundError,
    SchemaVersionError,
    SerializationError,
    ServiceNotFoundError,
    StateEditError,
    StepDivergedError,
    StepReleased,
    UnreconstructedException,
    WorkflowCancelledByUser,
    WorkflowConfigurationError,
    WorkflowDone,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    WriteOutcomeUnknown,
)
from .events import (
    CollectionReleaseEvent,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    StartEvent,
    StepFailedEvent,
    StepState,
    StepStateChanged,
    StopEvent,
    StreamResetEvent,
    UnhandledEvent,
    UnknownEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
)
from .handler import WorkflowHandler
from .journal.info import (
    ArchiveInfo,
    ChildInfo,
    CompactInfo,
    PruneInfo,
    RunInfo,
    StateInfo,
    StreamItem,
    TaskInfo,
    WaitInfo,
)
from .journal.journal import Journal
from .observers import RunObserver
from .resource import Resource, ResourceConfig, ResourceDefinition, ResourceManager
from .retry_policy import (
    ConstantDelayRetryPolicy,
    ExponentialBackoffRetryPolicy,
    RetryInfo,
    RetryPolicy,
    retry_all,
    retry_always,
    retry_any,
    retry_if_exception,
    retry_if_exception_cause_type,
    retry_if_exception_message,
    retry_if_exception_type,
    retry_if_not_exception_message,
    retry_if_not_exception_type,
    retry_never,
    retry_unless_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    stop_any,
    stop_before_delay,
    stop_never,
    wait_chain,
    wait_combine,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_full_jitter,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)
from .serializers import JsonSerializer, Seal, Serializer, register_adapter, register_alias
from .service import ServiceManager
from .upcasting import upcast
from .version import __version__ as __version__
from .workflow import Workflow

if TYPE_CHECKING:
    from .representation import get_workflow_representation as get_workflow_representation
    from .serializers.encryption import EncryptedSeal as EncryptedSeal
    from .serializers.jsonpickle import JsonPickleSerializer as JsonPickleSerializer
    from .serializers.pickle import PickleSerializer as PickleSerializer
    from .signatures import StepConfig as StepConfig
    from .types import EventType as EventType
    from .types import RunResultT as RunResultT
    from .types import StopEventT as StopEventT
    from .utils import BUSY_WAIT_DELAY as BUSY_WAIT_DELAY
    from .utils import StepSignatureSpec as StepSignatureSpec
    from .utils import get_qualified_name as get_qualified_name
    from .utils import get_steps_from_class as get_steps_from_class
    from .utils import get_steps_from_instance as get_steps_from_instance
    from .utils import import_module_from_qualified_name as import_module_from_qualified_name
    from .utils import inspect_signature as inspect_signature
    from .utils import is_free_function as is_free_function
    from .utils import validate_step_signature as validate_step_signature
    from .workflow import WorkflowMeta as WorkflowMeta


__all__ = [
    "All",
    "AlreadyAnsweredError",
    "ArchiveError",
    "ArchiveInfo",
    "Checkpoint",
    "CheckpointCallback",
    "CheckpointError",
    "ChildInfo",
    "Collect",
    "CollectionReleaseEvent",
    "CompactInfo",
    "ConstantDelayRetryPolicy",
    "Context",
    "ContextSerdeError",
    "ContextStateError",
    "DeserializationError",
    "Divergence",
    "DurableFlowError",
    "Event",
    "ExponentialBackoffRetryPolicy",
    "HumanResponseEvent",
    "InputRequiredEvent",
    "InternalDispatchEvent",
    "Journal",
    "JournalError",
    "JournalUnavailableError",
    "JournalUrlError",
    "JsonSerializer",
    "NeedsAttentionError",
    "PayloadTooLargeError",
    "PruneInfo",
    "ReplayReport",
    "Resource",
    "ResourceConfig",
    "ResourceDefinition",
    "ResourceManager",
    "RetryInfo",
    "RetryPolicy",
    "RunConflictError",
    "RunFailedError",
    "RunFenced",
    "RunFinishedError",
    "RunIdError",
    "RunInfo",
    "RunNotFoundError",
    "RunObserver",
    "SchemaVersionError",
    "Seal",
    "SerializationError",
    "Serializer",
    "ServiceManager",
    "ServiceNotFoundError",
    "StartEvent",
    "StateEditError",
    "StateInfo",
    "StepDivergedError",
    "StepFailedEvent",
    "StepReleased",
    "StepState",
    "StepStateChanged",
    "StopEvent",
    "StreamItem",
    "StreamResetEvent",
    "Take",
    "TaskInfo",
    "UnhandledEvent",
    "UnknownEvent",
    "UnreconstructedException",
    "WaitInfo",
    "Workflow",
    "WorkflowCancelledByUser",
    "WorkflowCancelledEvent",
    "WorkflowCheckpointer",
    "WorkflowConfigurationError",
    "WorkflowDone",
    "WorkflowFailedEvent",
    "WorkflowHandler",
    "WorkflowIdleEvent",
    "WorkflowRuntimeError",
    "WorkflowStepDoesNotExistError",
    "WorkflowTimedOutEvent",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "WriteOutcomeUnknown",
    "catch_error",
    "get_step_context",
    "register_adapter",
    "register_alias",
    "retry_all",
    "retry_always",
    "retry_any",
    "retry_if_exception",
    "retry_if_exception_cause_type",
    "retry_if_exception_message",
    "retry_if_exception_type",
    "retry_if_not_exception_message",
    "retry_if_not_exception_type",
    "retry_never",
    "retry_unless_exception_type",
    "step",
    "stop_after_attempt",
    "stop_after_delay",
    "stop_all",
    "stop_any",
    "stop_before_delay",
    "stop_never",
    "upcast",
    "wait_chain",
    "wait_combine",
    "wait_exponential",
    "wait_exponential_jitter",
    "wait_fixed",
    "wait_full_jitter",
    "wait_incrementing",
    "wait_none",
    "wait_random",
    "wait_random_exponential",
]


# Not imported before they are asked for: unpickling is the unsafe tier, the others serve few programs.
_ON_DEMAND = {
    "EncryptedSeal": "serializers.encryption",
    "JsonPickleSerializer": "serializers.jsonpickle",
    "PickleSerializer": "serializers.pickle",
    "WorkflowMeta": "workflow",
    "get_workflow_representation": "representation",
    **dict.fromkeys(("EventType", "RunResultT", "StopEventT"), "types"),
    "StepConfig": "signatures",
    **dict.fromkeys(
        (
            "BUSY_WAIT_DELAY",
            "StepSignatureSpec",
            "get_qualified_name",
            "get_steps_from_class",
            "get_steps_from_instance",
            "import_module_from_qualified_name",
            "inspect_signature",
            "is_free_function",
            "validate_step_signature",
        ),
        "utils",
    ),
}


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
