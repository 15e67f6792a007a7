"""Durable, event-driven workflows: every event and every context write goes to a SQL journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context import Context
from .decorators import catch_error, step
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
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    StreamResetEvent,
    UnknownEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)
from .handler import WorkflowHandler
from .journal.info import RunInfo, StateInfo, StreamItem, TaskInfo, WaitInfo
from .journal.journal import Journal
from .retry_policy import ConstantDelayRetryPolicy, ExponentialBackoffRetryPolicy, RetryInfo, RetryPolicy
from .serializers import JsonSerializer, Seal, Serializer, register_adapter
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
    "Journal",
    "JournalError",
    "JournalUnavailableError",
    "JournalUrlError",
    "JsonSerializer",
    "NeedsAttentionError",
    "PayloadTooLargeError",
    "RetryInfo",
    "RetryPolicy",
    "RunConflictError",
    "RunFailedError",
    "RunFenced",
    "RunFinishedError",
    "RunIdError",
    "RunInfo",
    "RunNotFoundError",
    "SchemaVersionError",
    "Seal",
    "SerializationError",
    "Serializer",
    "StartEvent",
    "StateInfo",
    "StepDivergedError",
    "StepFailedEvent",
    "StepReleased",
    "StopEvent",
    "StreamItem",
    "StreamResetEvent",
    "TaskInfo",
    "UnknownEvent",
    "UnreconstructedException",
    "WaitInfo",
    "Workflow",
    "WorkflowCancelledByUser",
    "WorkflowCancelledEvent",
    "WorkflowConfigurationError",
    "WorkflowDone",
    "WorkflowFailedEvent",
    "WorkflowHandler",
    "WorkflowRuntimeError",
    "WorkflowStepDoesNotExistError",
    "WorkflowTimedOutEvent",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "WriteOutcomeUnknown",
    "catch_error",
    "register_adapter",
    "step",
]


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: unpickling is the unsafe tier.
    if name == "PickleSerializer":
        from .serializers.pickle import PickleSerializer

        return PickleSerializer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
