"""What reaches a run: the inputs of `decide`. Times, ids, routing and matches have become data by then.

Drafts are facts that a step has made but that are not journaled yet. What only the journal can number is a placeholder
in them: the id of a wait and the position of a stream item.
"""

from typing import NamedTuple

from .records import ContextSet, EncodedEvent, EncodedValue, ErrorInfo, EventEmitted, Fact, TaskId


class StartRequested(NamedTuple):
    """A run begins with these context values.

    `targets` are the steps that take the start event, `joins` the fan-ins that collect it.
    """

    workflow: str
    uid: str
    shape: str
    arguments: EncodedValue | None
    event: EncodedEvent
    targets: tuple[str, ...]
    parent: str | None = None
    joins: tuple[str, ...] = ()
    context: tuple[ContextSet, ...] = ()


class ImportRequested(NamedTuple):
    """A run begins with the state of another one (`parent`, as of its record `seq`), then with the facts of `context`:
    values that were changed, and for a fork whatever else makes it different.

    `resume` clears what the other one needed attention for.
    """

    workflow: str
    uid: str
    shape: str
    arguments: EncodedValue | None
    parent: str
    seq: int
    state: EncodedValue
    context: tuple[Fact, ...] = ()
    resume: bool = False


class EditRequested(NamedTuple):
    """Somebody changes the context from outside of the steps: `facts` are StateEdited and the writes."""

    facts: tuple[Fact, ...]


class Question(NamedTuple):
    """A returned InputRequiredEvent: who emitted it, what answers it, and the answer's JSON schema as text."""

    emitted: EventEmitted
    wanted: tuple[str, ...]
    schema: str | None


class Collectors(NamedTuple):
    """Who collects the elements of a list that a step returns: the joins, and after how many events each fires.

    0 is all of them. Steps with several event parameters need no mention: they take what meets within the fan-out.
    """

    joins: tuple[str, ...]
    takes: tuple[int, ...]


class StepReturned(NamedTuple):
    """A step came to its end, with the drafts its completion carries and what it returned, in order.

    `stop` is the StopEvent among what it returned; nothing after it counts. `fan_out` is given if it returned a list
    that is collected again.
    """

    task: TaskId
    attempt: int
    drafts: tuple[Fact, ...]
    emitted: tuple[EventEmitted | Question, ...]
    stop: EncodedEvent | None = None
    fan_out: Collectors | None = None


class StepRaised(NamedTuple):
    """An attempt raised. `retry_at` is the time of the next attempt, None if there is none.

    Then the step `handler` gets `event`; without a handler the run fails. `attention` parks the run instead: the step
    diverged and a person must decide. `exception` and `began_at` are as in StepFailed.
    """

    task: TaskId
    attempt: int
    drafts: tuple[Fact, ...]
    error: ErrorInfo
    retry_at: int | None
    attention: str | None = None
    handler: str | None = None
    event: EncodedEvent | None = None
    exception: EncodedValue | None = None
    began_at: int | None = None


class EffectsCommitted(NamedTuple):
    """A running step reached a commit point: the drafts it carries, its own effects among them, in order."""

    drafts: tuple[Fact, ...]
    stop: EncodedEvent | None = None


class EventReceived(NamedTuple):
    """An event from outside; `message` is the row of `messages` that brought it, with its id.

    If it ends the run, `drafts` are everybody's. One that is not `routable` reaches no step and answers no wait.
    """

    emitted: EventEmitted
    message: tuple[int, str | None] | None = None
    stop: EncodedEvent | None = None
    drafts: tuple[Fact, ...] = ()
    routable: bool = True


class TimerDue(NamedTuple):
    """The time of a `ctx.sleep` has come."""

    timer: int


class WaitDue(NamedTuple):
    """The deadline of a wait has come."""

    wait_id: str


class ChildAsks(NamedTuple):
    """A child asked a question at this position of its stream; `wait_id` leads to it."""

    child: int
    position: int
    prompt: EncodedEvent
    wait_id: str


class ChildOver(NamedTuple):
    """A child has ended with this status."""

    child: int
    status: str


class TimeIsUp(NamedTuple):
    """The budget of active time is used up; `drafts` are everybody's."""

    message: str
    drafts: tuple[Fact, ...] = ()


class CancelRequested(NamedTuple):
    """Somebody cancels the run; `drafts` are everybody's, because the end of a run carries all."""

    reason: str
    drafts: tuple[Fact, ...] = ()
    message: tuple[int, str | None] | None = None


class AttentionNeeded(NamedTuple):
    """The run cannot go on without a person."""

    reason: str


class CameToRest(NamedTuple):
    """Every step of a run that was claimed in vain has come to a wait."""


class ResumeRequested(NamedTuple):
    """A failed, timed-out or parked run is to go on."""

    by: str


Incoming = (
    StepReturned | EffectsCommitted | EventReceived | StepRaised | TimerDue | WaitDue | TimeIsUp | CancelRequested
    | AttentionNeeded | CameToRest | ResumeRequested | EditRequested | StartRequested | ImportRequested | ChildAsks
    | ChildOver
)  # fmt: skip
