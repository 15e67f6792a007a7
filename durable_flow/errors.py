"""Every error that durable_flow raises, as one tree.

DurableFlowError
├── WorkflowValidationError          the workflow class, its steps or its arguments are wrong
│   └── WorkflowConfigurationError   start, stop or state classes are missing or several (also a ValueError)
├── WorkflowRuntimeError             a step or its caller did something that a run cannot go on with
│   ├── WorkflowStepDoesNotExistError
│   ├── RunFailedError               a run that failed earlier was asked for its result
│   └── RunConflictError             a run id is taken by other arguments or another workflow
├── WorkflowTimeoutError             the budget of active time is used up (also a TimeoutError)
├── WorkflowCancelledByUser          the run was cancelled
├── WorkflowDone                     internal to upstream programs that import it
├── ServiceNotFoundError             a ServiceManager has no service of this name (also a LookupError)
├── ContextStateError                a Context method was used where or when it cannot work
├── CheckpointError                  a checkpoint that the run does not have (also a ValueError)
├── StateEditError                   a change of a run's state that cannot be made (also a ValueError)
├── ContextSerdeError                a serialized context that cannot be read
├── RunIdError                       a run id of the wrong form (also a ValueError)
├── RunNotFoundError                 no such run in this journal
├── RunFinishedError                 something was sent to a run that has ended
├── AlreadyAnsweredError             a question was answered twice
├── NeedsAttentionError              a run is parked until a person repairs something
├── UnreconstructedException         stands for a step's exception that cannot be rebuilt from the journal
├── SerializationError               a value that cannot be encoded exactly, with its path (also a ValueError)
├── DeserializationError             stored bytes that cannot be decoded
├── PayloadTooLargeError             more than `max_payload_bytes`
├── ArchiveError                     an exported run that cannot be imported, or written (also a ValueError)
└── JournalError                     the database
    ├── JournalUrlError              a URL that names no usable database
    ├── JournalUnavailableError      it cannot be reached, read or written
    ├── SchemaVersionError           its schema is newer or older than this package
    ├── RunFenced                    another worker owns the run now; nothing was written
    └── WriteOutcomeUnknown          whether a commit happened could not be found out in time

StepReleased and StepDivergedError are BaseExceptions: no `except Exception` in a step swallows them.
"""

from __future__ import annotations


class DurableFlowError(Exception):
    """Base of every error that durable_flow raises."""


class WorkflowValidationError(DurableFlowError):
    """The workflow class, one of its steps or an argument is wrong; the message lists every problem found."""


class WorkflowConfigurationError(WorkflowValidationError, ValueError):
    """The workflow has no step for a start event, none that stops, several different ones, or unrelated state classes.

    Upstream raised this class, its base or, for state classes, ValueError: programs that expect one of them catch it.
    """


class WorkflowRuntimeError(DurableFlowError):
    """A step or its caller did something that the run cannot go on with."""


class WorkflowStepDoesNotExistError(WorkflowRuntimeError):
    """A step was named that the workflow does not have."""


class RunFailedError(WorkflowRuntimeError):
    """A run that failed earlier was asked for its result; `__cause__` is the original error where it can be rebuilt.

    `error_type` and `error_message` are those of the original error, `error_traceback` is its traceback as text.
    """

    def __init__(self, message: str, *, error_type: str = "", error_message: str = "", error_traceback: str = ""):
        super().__init__(message)
        self.error_type = error_type
        self.error_message = error_message
        self.error_traceback = error_traceback


class RunConflictError(WorkflowRuntimeError):
    """The run id belongs to a run with other arguments or of another workflow."""


class WorkflowTimeoutError(DurableFlowError, TimeoutError):
    """The run used up its budget of active time."""


class WorkflowCancelledByUser(DurableFlowError):
    """The run was cancelled."""


class WorkflowDone(DurableFlowError):
    """Kept for programs that import it; the engine never raises it."""


class ServiceNotFoundError(DurableFlowError, LookupError):
    """A ServiceManager was asked for a service that it does not have."""


class ContextStateError(DurableFlowError):
    """A Context method was used where or when it cannot work."""


class CheckpointError(DurableFlowError, ValueError):
    """A checkpoint that the run does not have: of another run, within a group of records, beyond the last record.

    Also one from which a run cannot go on, because it had ended for good there.
    """


class StateEditError(DurableFlowError, ValueError):
    """A change of a run's state that cannot be made: a patch that does not apply, a key that a typed state lacks.

    Nothing was written.
    """


class ContextSerdeError(DurableFlowError, ValueError):
    """A serialized context could not be read."""


class RunIdError(DurableFlowError, ValueError):
    """A run id of the wrong form."""


class RunNotFoundError(DurableFlowError, LookupError):
    """The journal has no run of this id."""


class RunFinishedError(DurableFlowError):
    """Something was sent to a run that has ended."""


class AlreadyAnsweredError(DurableFlowError):
    """The question was answered before, or is no longer open."""


class NeedsAttentionError(DurableFlowError):
    """The run is parked until a person repairs what the message names."""


class UnreconstructedException(DurableFlowError):
    """Stands for what a step raised, where that cannot be rebuilt exactly from the journal.

    Its text is that of the original, `original_type` the original's class, as "module.qualname".
    """

    def __init__(self, message: str, *, original_type: str | None = None):
        super().__init__(message)
        self.original_type = original_type

    def __repr__(self) -> str:
        return f"UnreconstructedException({str(self)!r}, original_type={self.original_type!r})"


class SerializationError(DurableFlowError, ValueError):
    """A value cannot be encoded so that it comes back equal and of the same type.

    `path` leads to the offending value, e.g. `Work.items[3].when`.
    """

    def __init__(self, message: str, *, path: str = ""):
        super().__init__(message)
        self.path = path


class DeserializationError(DurableFlowError, ValueError):
    """Stored bytes could not be decoded."""


class PayloadTooLargeError(SerializationError):
    """An encoded event or value is larger than the journal's `max_payload_bytes`."""


class ArchiveError(DurableFlowError, ValueError):
    """An archive of a run is damaged, incomplete, too large, of an unknown version, or holds what is not accepted.

    Nothing was imported.
    """


class JournalError(DurableFlowError):
    """Something is wrong with the database."""


class JournalUrlError(JournalError, ValueError):
    """The URL names no database that durable_flow can use."""


class JournalUnavailableError(JournalError):
    """The database cannot be reached, read or written."""


class SchemaVersionError(JournalError):
    """The schema of the database is newer than this package, or older and not to be upgraded by itself."""


class RunFenced(JournalError):
    """An append was refused because another worker has claimed the run. Nothing was written."""


class WriteOutcomeUnknown(JournalError):
    """Whether a commit reached the database could not be found out before the deadline."""


class StepReleased(BaseException):
    """The run was released while this step waited; it starts again when the run is taken up. Not an outcome."""


class StepDivergedError(BaseException):
    """A step that ran again after a crash made a recorded `ctx.call` with other arguments.

    A BaseException, so that no `except Exception` of the step swallows it and no retry policy is asked.
    """
