"""Durable, event-driven workflows: every event and every context write goes to a SQL journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context import Context
from .decorators import step
from .errors import (
    AlreadyAnsweredError,
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
    StepDivergedError,
    StepReleased,
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
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    StartEvent,
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
from .journal.info import RunInfo, StateInfo, StreamItem, TaskInfo, WaitInfo
from .journal.journal import Journal
from .observers import RunObserver
from .resource import Resource, ResourceConfig, ResourceDefinition, ResourceManager
from .retry_policy import ConstantDelayRetryPolicy, ExponentialBackoffRetryPolicy, RetryPolicy
from .serializers import JsonSerializer, Seal, Serializer, register_adapter
from .service import ServiceManager
from .workflow import Workflow

if TYPE_CHECKING:
    from .serializers.pickle import PickleSerializer as PickleSerializer

__version__ = "0.1.0"

__all__ = [
    "AlreadyAnsweredError",
    "ConstantDelayRetryPolicy",
    "Context",
    "ContextSerdeError",
    "ContextStateError",
    "DeserializationError",
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
    "Resource",
    "ResourceConfig",
    "ResourceDefinition",
    "ResourceManager",
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
    "StateInfo",
    "StepDivergedError",
    "StepReleased",
    "StepState",
    "StepStateChanged",
    "StopEvent",
    "StreamItem",
    "StreamResetEvent",
    "TaskInfo",
    "UnhandledEvent",
    "UnknownEvent",
    "WaitInfo",
    "Workflow",
    "WorkflowCancelledByUser",
    "WorkflowCancelledEvent",
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
    "register_adapter",
    "step",
]


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: unpickling is the unsafe tier.
    if name == "PickleSerializer":
        from .serializers.pickle import PickleSerializer

        return PickleSerializer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
