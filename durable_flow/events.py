"""Events: what steps exchange. Pydantic models that also take fields nobody declared."""

from __future__ import annotations

import weakref
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, SerializerFunctionWrapHandler, model_serializer

from .errors import UnreconstructedException as UnreconstructedException  # upstream has it here
from .errors import WorkflowValidationError

MAX_VERSION = 32_767
"""The largest `event_version`: its column has two bytes."""

_classes: dict[str, weakref.ref[type[Event]]] = {}
# The former names of classes, each with today's. Nearly always empty.
_renamed: dict[str, str] = {}


class Event(BaseModel):
    """Base of all events.

    Declared fields are validated as in any pydantic model. Keyword arguments that are no fields are kept as extra
    data: readable as attributes, and the only thing that the dict-like methods (`[]`, `in`, `keys`, `items`,
    `values`, `len`, `to_dict`) see. `get` looks at fields first.

    Class attributes:
        event_name: the name under which the journal stores this event; default is the class's `__qualname__`.
        event_version: stored with every event, so that `@upcast` can change old ones on reading.
        event_aliases: names under which events of this class were stored before it was renamed.
        event_serializer: stores the events of this class and its subclasses, instead of their workflow's serializer.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow")
    event_name: ClassVar[str]
    event_version: ClassVar[int] = 1
    event_aliases: ClassVar[tuple[str, ...]] = ()
    event_serializer: ClassVar[Any] = None
    _stored_name: ClassVar[str] = "Event"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class, so that stored events find it again."""
        super().__pydantic_init_subclass__(**kwargs)
        # Not inherited: a subclass of a renamed event is another event.
        name = cls.__dict__.get("event_name")
        cls._stored_name = name if isinstance(name, str) else cls.__qualname__
        _classes[cls._stored_name] = weakref.ref(cls)
        _renamed.pop(cls._stored_name, None)
        version = cls.__dict__.get("event_version", 1)
        if type(version) is not int or not 1 <= version <= MAX_VERSION:
            raise WorkflowValidationError(
                f"{cls.__qualname__}.event_version is a number from 1 to {MAX_VERSION:,}, not {version!r}."
            )
        if aliases := cls.__dict__.get("event_aliases"):
            alias_event(cls, aliases)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the field or extra value of this name, or `default`."""
        if key in type(self).model_fields:
            return getattr(self, key)
        return self._extra.get(key, default)

    @property
    def _extra(self) -> dict[str, Any]:
        extra = self.__pydantic_extra__
        return extra if extra is not None else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the extra data as a new dict."""
        return dict(self._extra)

    def keys(self) -> KeysView[str]:
        """Return the names of the extra data."""
        return self._extra.keys()

    def values(self) -> ValuesView[Any]:
        """Return the values of the extra data."""
        return self._extra.values()

    def items(self) -> ItemsView[str, Any]:
        """Return names and values of the extra data."""
        return self._extra.items()

    def __getitem__(self, key: str) -> Any:
        """Return the extra value of this name; KeyError if there is none."""
        return self._extra[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set an extra value."""
        if key in type(self).model_fields:
            setattr(self, key, value)
            return
        self._extra[key] = value

    def __contains__(self, key: str) -> bool:
        """Tell whether the extra data has this name."""
        return key in self._extra

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # pydantic iterates over fields, upstream over extra data
        """Iterate over the names of the extra data."""
        return iter(self._extra)

    def __len__(self) -> int:
        """Count the extra data."""
        return len(self._extra)

    def __bool__(self) -> bool:
        """Tell that an event is always true, also without extra data."""
        return True


EventType = type[Event]


class StartEvent(Event):
    """Starts a run; made from the keyword arguments of `Workflow.run`."""


class StopEvent(Event):
    """Ends a run. Awaiting the handler of a plain StopEvent gives `result`, of a subclass the event itself.

    The result may stand first: `StopEvent(42)`. A result that is None is no part of what pydantic writes of the event,
    so that the subclasses have just the fields that they declare. A plain StopEvent is printed as its result.
    """

    result: Any = None

    def __init__(self, *result: Any, **fields: Any):
        if result:
            if len(result) > 1 or "result" in fields:
                raise TypeError(f"{type(self).__name__} takes one result; give everything else by name")
            fields["result"] = result[0]
        super().__init__(**fields)

    @model_serializer(mode="wrap")
    def _without_empty_result(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        # Without a return annotation, because that would take the place of the fields in the JSON schema.
        written = handler(self)
        if self.result is None and isinstance(written, dict) and type(self).model_fields["result"].annotation is Any:
            written.pop("result", None)
        return written

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Name the result only where there is one."""
        return ((name, value) for name, value in super().__repr_args__() if name != "result" or value is not None)

    def __str__(self) -> str:
        """Return the result of a plain StopEvent as text, else the fields."""
        return str(self.result) if type(self) is StopEvent else super().__str__()


class InputRequiredEvent(Event):
    """Asks a human. Returned from a step it goes to the stream and opens a wait."""

    _wait_id: str | None = PrivateAttr(default=None)

    @property
    def wait_id(self) -> str | None:
        """The id of the wait that this question opened; None until it was published."""
        return self._wait_id


class HumanResponseEvent(Event):
    """A human's answer. `wait_id=` closes that wait; without one the oldest open wait of its type is closed."""


class UnknownEvent(Event):
    """A stored event whose class this program does not have; `name` is its stored name, `raw` its stored content."""

    name: str
    raw: Any = None


class StepFailedEvent(Event):
    """Goes to the `@catch_error` handler of a step that has failed for good.

    In the process where it failed `exception` is what the step raised; in another one it is rebuilt from the journal,
    without traceback and causes (an UnreconstructedException where that cannot be done exactly). `attempts` counts the
    failed attempts; `elapsed_seconds` is the time from the beginning of the first of them to `failed_at` (UTC).
    """

    step_name: str
    input_event: Event
    exception: Exception
    attempts: int
    elapsed_seconds: float
    failed_at: datetime


class CollectionReleaseEvent(Event):
    """Stands for what a step that collects was called with, as the `input_event` of its StepFailedEvent.

    `events` are in the order in which it got them; those of several parameters in the order of the parameters' names.
    """

    events: list[Event]


class WorkflowTimedOutEvent(StopEvent):
    """Ends the stream of a run that used up its time."""

    timeout: float = 0.0
    active_steps: list[str] = []


class WorkflowCancelledEvent(StopEvent):
    """Ends the stream of a run that was cancelled."""


class WorkflowFailedEvent(StopEvent):
    """Ends the stream of a run that failed.

    It may be made of an `exception=`, in tests of programs that read it.
    `attempts` counts the failed attempts of the step, `elapsed_seconds` is the time from the beginning of the first of
    them to the end of the last; None if no step is to blame.
    """

    step_name: str = ""
    exception_type: str = ""
    exception_message: str = ""
    attempts: int | None = None
    elapsed_seconds: float | None = None
    _exception: BaseException | None = PrivateAttr(default=None)

    def __init__(self, *result: Any, exception: BaseException | None = None, **fields: Any):
        if exception is not None:
            cls = type(exception)
            fields = {
                "exception_type": f"{cls.__module__}.{cls.__qualname__}", "exception_message": str(exception)
            } | fields  # fmt: skip
        super().__init__(*result, **fields)
        self._exception = exception

    @property
    def exception(self) -> BaseException:
        """What was raised; in another process as far as class and message tell, else an UnreconstructedException."""
        if self._exception is None:
            return UnreconstructedException(self.exception_message, original_type=self.exception_type)
        return self._exception


class InternalDispatchEvent(Event):
    """Base of what `stream_events(expose_internal=True)` yields beside published events. Live only, never stored."""


class StepState(Enum):
    """Where a task of a step stands."""

    PREPARING = "preparing"
    """It waits for one of the step's workers."""
    RUNNING = "running"
    """It runs. One that finds a free worker was never PREPARING."""
    NOT_RUNNING = "not_running"
    """It has completed or failed, or waits for an event or a timer."""


class StepStateChanged(InternalDispatchEvent):
    """A step started, ended, waits, or is queued. Told when the journal has it.

    `name` is the step's. `worker_id` numbers the tasks of a step that run at once, from "0"; "<enqueued>" while
    PREPARING. `input_event_name` and `output_event_name` are names of classes; the latter is None unless a step has
    returned an event (several are joined by commas).
    """

    name: str
    step_state: StepState
    worker_id: str
    input_event_name: str
    output_event_name: str | None = None


class UnhandledEvent(InternalDispatchEvent):
    """An event reached no step and no wait.

    `event_type` is the name of its class, `qualified_name` with the module; `step_name` the step that it was sent to,
    if any; `idle` tells whether nothing else goes on in the run.
    """

    event_type: str
    qualified_name: str
    step_name: str | None = None
    idle: bool


class WorkflowIdleEvent(InternalDispatchEvent):
    """Nothing runs, is queued or timed any more: the run waits for something from outside."""


class StreamResetEvent(Event):
    """Tells a stream's reader that a step which ran again after a crash publishes other items than before.

    `position` is that of the first item that no longer counts; of what followed, the items of the same step and task
    (the seq of its event) count neither.
    """

    position: int
    step: str | None = None
    task: int | None = None


StopEventT = TypeVar("StopEventT", bound=StopEvent)
RunResultT = StopEvent | Any


def event_name(cls: type[Event]) -> str:
    """Return the name under which the journal stores events of this class."""
    return cls._stored_name


_classes["Event"] = weakref.ref(Event)


def find_event_class(name: str) -> type[Event] | None:
    """Return the event class of this stored name that the program has defined last, or None. Imports nothing."""
    found = _classes.get(name)
    return found() if found is not None else None


def alias_event(cls: type[Event], names: Iterable[str]) -> None:
    """Let events that are stored under these names be read as events of this class, whatever was so called before.

    Raises WorkflowValidationError for anything but a collection of other names than the class has now.
    """
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise WorkflowValidationError(
            f"{cls.__qualname__}.event_aliases is a tuple of the names that it had before, not {names!r}. A tuple of "
            'one ends in a comma: ("OldName",)'
        )
    if cls._stored_name in names:
        raise WorkflowValidationError(
            f"{cls.__qualname__}: {cls._stored_name!r} is its name today, so it is no alias of it. Give the names that "
            "the class had before."
        )
    for name in names:
        _classes[name] = weakref.ref(cls)
        _renamed[name] = cls._stored_name


def current_name(name: str) -> str:
    """Return the name under which events that were stored as `name` are stored today."""
    return _renamed.get(name, name) if _renamed else name


def all_names(name: str) -> tuple[str, ...]:
    """Return every name under which events that are stored as `name` today, or were so, may be found in a journal."""
    if not _renamed:
        return (name,)
    today = current_name(name)
    return (today, *(former for former, now in _renamed.items() if now == today))


def names_differ() -> bool:
    """Tell whether any event class has had another name, so that stored names have to be compared by `current_name`."""
    return bool(_renamed)
