"""Durable, event-driven workflows: every event and every context write goes to a SQL journal."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .collect import All, Collect, Take
from .context import Context, get_step_context
from .decorators import catch_error, step
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
from .journal.journal import Journal
from .observers import RunObserver
from .resource import Resource, ResourceConfig, ResourceDefinition, ResourceManager
from .retries import RetryInfo, RetryPolicy
from .serializers import JsonSerializer, Seal, Serializer, register_adapter, register_alias
from .service import ServiceManager
from .upcasting import upcast
from .version import __version__ as __version__
from .workflow import Workflow

if TYPE_CHECKING:
    from .checkpointer import CheckpointCallback as CheckpointCallback
    from .checkpointer import WorkflowCheckpointer as WorkflowCheckpointer
    from .checkpoints import Checkpoint as Checkpoint
    from .engine.replaying.report import Divergence as Divergence
    from .engine.replaying.report import ReplayReport as ReplayReport
    from .journal.info import ArchiveInfo as ArchiveInfo
    from .journal.info import ChildInfo as ChildInfo
    from .journal.info import CompactInfo as CompactInfo
    from .journal.info import PruneInfo as PruneInfo
    from .journal.info import RunInfo as RunInfo
    from .journal.info import StateInfo as StateInfo
    from .journal.info import StreamItem as StreamItem
    from .journal.info import TaskInfo as TaskInfo
    from .journal.info import WaitInfo as WaitInfo
    from .representation import get_workflow_representation as get_workflow_representation
    from .retry_policy import ConstantDelayRetryPolicy as ConstantDelayRetryPolicy
    from .retry_policy import ExponentialBackoffRetryPolicy as ExponentialBackoffRetryPolicy
    from .retry_policy import retry_all as retry_all
    from .retry_policy import retry_always as retry_always
    from .retry_policy import retry_any as retry_any
    from .retry_policy import retry_if_exception as retry_if_exception
    from .retry_policy import retry_if_exception_cause_type as retry_if_exception_cause_type
    from .retry_policy import retry_if_exception_message as retry_if_exception_message
    from .retry_policy import retry_if_exception_type as retry_if_exception_type
    from .retry_policy import retry_if_not_exception_message as retry_if_not_exception_message
    from .retry_policy import retry_if_not_exception_type as retry_if_not_exception_type
    from .retry_policy import retry_never as retry_never
    from .retry_policy import retry_unless_exception_type as retry_unless_exception_type
    from .retry_policy import stop_after_attempt as stop_after_attempt
    from .retry_policy import stop_after_delay as stop_after_delay
    from .retry_policy import stop_all as stop_all
    from .retry_policy import stop_any as stop_any
    from .retry_policy import stop_before_delay as stop_before_delay
    from .retry_policy import stop_never as stop_never
    from .retry_policy import wait_chain as wait_chain
    from .retry_policy import wait_combine as wait_combine
    from .retry_policy import wait_exponential as wait_exponential
    from .retry_policy import wait_exponential_jitter as wait_exponential_jitter
    from .retry_policy import wait_fixed as wait_fixed
    from .retry_policy import wait_full_jitter as wait_full_jitter
    from .retry_policy import wait_incrementing as wait_incrementing
    from .retry_policy import wait_none as wait_none
    from .retry_policy import wait_random as wait_random
    from .retry_policy import wait_random_exponential as wait_random_exponential
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


# What is imported when it is asked for, by module: unpickling is the unsafe tier, everything else serves few programs.
_BY_MODULE = {
    "checkpointer": (
        "CheckpointCallback",
        "WorkflowCheckpointer",
    ),
    "checkpoints": ("Checkpoint",),
    "engine.replaying.report": (
        "Divergence",
        "ReplayReport",
    ),
    "journal.info": (
        "ArchiveInfo",
        "ChildInfo",
        "CompactInfo",
        "PruneInfo",
        "RunInfo",
        "StateInfo",
        "StreamItem",
        "TaskInfo",
        "WaitInfo",
    ),
    "retry_policy": (
        "ConstantDelayRetryPolicy",
        "ExponentialBackoffRetryPolicy",
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
        "stop_after_attempt",
        "stop_after_delay",
        "stop_all",
        "stop_any",
        "stop_before_delay",
        "stop_never",
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
    ),
    "serializers.encryption": ("EncryptedSeal",),
    "serializers.jsonpickle": ("JsonPickleSerializer",),
    "serializers.pickle": ("PickleSerializer",),
    "workflow": ("WorkflowMeta",),
    "representation": ("get_workflow_representation",),
    "types": (
        "EventType",
        "RunResultT",
        "StopEventT",
    ),
    "signatures": ("StepConfig",),
    "utils": (
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
}
_ON_DEMAND = {name: module for module, names in _BY_MODULE.items() for name in names}
# They were loaded, and so to be had as attributes, with the package.
_MODULES = {"checkpointer", "checkpoints", "retry_policy"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _ON_DEMAND:
        return getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_ON_DEMAND})
