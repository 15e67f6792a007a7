"""Facts and records: what can happen to a run, one row of the journal each.

A *fact* says what happened; a *record* is a fact with its place in the journal (`seq`), its time and the boundary mark.
Facts are immutable and hold encoded values only, so that a run can be folded and shown without the user's code.
All times are database time in integer microseconds since 1970, UTC.
"""

from typing import NamedTuple


class TaskId(NamedTuple):
    """One event delivered to one step: the seq of the event's record, and the step's name."""

    seq: int
    step: str


class EncodedEvent(NamedTuple):
    """An event as bytes: its stored name, the codec, the class's `event_version` and the serializer's output."""

    name: str
    codec: str
    v: int
    data: bytes


class EncodedValue(NamedTuple):
    """A value as bytes: the codec and the serializer's output."""

    codec: str
    data: bytes


class ErrorInfo(NamedTuple):
    """An exception as data: class (module and qualname), message and formatted traceback."""

    type: str
    message: str
    traceback: str = ""


class Place(NamedTuple):
    """Where in an attempt an effect stands: the k-th (from 0) of its kind and name."""

    kind: str
    name: str
    k: int


# Kinds of effects, as they stand in a Place.
SENT, WRITE, CALL, WAIT, SLEEP, COLLECT, STREAM, CHECKPOINT, CHILD = (
    "send_event", "write", "call", "wait", "sleep", "collect_events", "stream", "checkpoint", "child",
)  # fmt: skip


class RunStarted(NamedTuple):
    """The run exists. `arguments` is what the caller passed, encoded; `shape` the workflow's, as text.

    `parent` is the id of the run that started this one and ends it with itself, if there is one.
    """

    workflow: str
    uid: str
    shape: str
    arguments: EncodedValue | None
    parent: str | None = None


class StateImported(NamedTuple):
    """The run goes on from the state of another one (`parent`, its uid) as of that one's record `seq`.

    `state` is that state as `snapshot.encode_state` writes it. The run keeps its own uid, epoch and times of birth; all
    times in the state stay what they are.
    """

    parent: str
    seq: int
    state: EncodedValue


class JournalCompacted(NamedTuple):
    """Stands for all records of the run up to this one, which were taken out of the journal: `state` is their fold.

    It has the seq and the time of the last of them, so everything that follows is numbered, and goes on, as before.
    """

    state: EncodedValue


class StateEdited(NamedTuple):
    """Somebody changed the context from outside of the steps: the writes that follow in this group are the change.

    `by` says who. `patch` is the JSON Patch (RFC 6902) that was asked for, None where keys were simply set.
    """

    by: str
    patch: EncodedValue | None = None


class PendingDropped(NamedTuple):
    """All that was pending is given up: tasks (`tasks` of them), open questions, timers, what was being collected.

    The context stays. Open waits have been closed by the records before.
    """

    tasks: int


class RunClaimed(NamedTuple):
    """A worker took the run; its epoch is higher than every earlier one.

    `previous` is the worker that had it and was gone; None if nobody had it, because it had been given back.
    """

    epoch: int
    worker: str
    previous: str | None = None


class MessageReceived(NamedTuple):
    """The owner took a row of the `messages` table into the journal; `row` is that row's id."""

    row: int
    message_id: str | None
    kind: str


class EventEmitted(NamedTuple):
    """An event came into being and was routed.

    `task`, `attempt`: the step that emitted it, None and 0 for an event from outside. `k` is its ordinal among the
    events of this name that the attempt sent with `send_event`; None for a returned event. `step` is the step that
    `send_event(step=)` named. `targets` are the steps that get it, each a new task. `answers` is the wait it closes.

    `joins` are the fan-ins that collect it: the name of a step with a `list[E]` parameter, or, for a step with several
    event parameters, `step.parameter/number of its parameters` (`step.a|b/2` where either of two takes it).

    An event belongs to the fan-out of the task that emitted it (for an answer: of the question); what a task returns
    after its `FanOutOpened` belongs to that one.
    """

    event: EncodedEvent
    task: TaskId | None
    attempt: int
    k: int | None
    targets: tuple[str, ...]
    step: str | None = None
    answers: str | None = None
    joins: tuple[str, ...] = ()


class StepCompleted(NamedTuple):
    """A step came to its end; it never runs again for this task."""

    task: TaskId
    attempt: int


class StepFailed(NamedTuple):
    """An attempt raised. The next one starts at `retry_at`; None if there is none.

    Then `handler` takes the failure: this record delivers `event` to that step as a new task, and ends the one that
    failed. Without a handler the run fails. `exception` is what the next attempt is told was raised, None where it
    cannot be encoded; `began_at` is when the first of the attempts so far began.
    """

    task: TaskId
    attempt: int
    error: ErrorInfo
    retry_at: int | None
    handler: str | None = None
    event: EncodedEvent | None = None
    exception: EncodedValue | None = None
    began_at: int | None = None


class ContextSet(NamedTuple):
    """A context key got a value; `k` counts the attempt's writes (and deletions) of this key."""

    key: str
    value: EncodedValue
    task: TaskId | None
    attempt: int
    k: int


class ContextSpliced(NamedTuple):
    """A context key got a value that begins as the one before: that one's first `keep` bytes, then those of `tail`.

    So a list that grows by an item a step does not cost its whole length each time. The codec is still the same one.
    """

    key: str
    keep: int
    tail: EncodedValue
    task: TaskId | None
    attempt: int
    k: int


class ContextDeleted(NamedTuple):
    """A context key was deleted; `k` counts the attempt's writes (and deletions) of this key."""

    key: str
    task: TaskId | None
    attempt: int
    k: int


class EventCollected(NamedTuple):
    """`collect_events` put an event into a buffer."""

    task: TaskId
    attempt: int
    buffer: str
    k: int
    event: EncodedEvent


class BufferReleased(NamedTuple):
    """The `collect_events` call just recorded took these events out of the buffer: names in the order asked for.

    Each name takes the oldest event of that name.
    """

    task: TaskId
    attempt: int
    buffer: str
    k: int
    events: tuple[str, ...]


class WaitOpened(NamedTuple):
    """Something is awaited: an event by a step (`task`), or the answer to a returned question (`task` is None).

    `wanted` are the names of the events that close it. `requirements` is an encoded dict of attribute values.
    `name` is the explicit `waiter_id`, or the wanted event's name; `explicit` tells which. `human` marks waits that a
    person answers. `schema` is the JSON schema of the answer as text. `scope` is the fan-out (the seq of its record)
    that a returned question belongs to and keeps open, 0 for none.
    """

    wait_id: str
    task: TaskId | None
    attempt: int
    name: str
    k: int
    explicit: bool
    wanted: tuple[str, ...]
    requirements: EncodedValue | None
    deadline: int | None
    prompt: EncodedEvent | None
    human: bool
    schema: str | None = None
    scope: int = 0


class WaitAnswered(NamedTuple):
    """The wait got the event recorded just before."""

    wait_id: str


class WaitTimedOut(NamedTuple):
    """The wait's deadline passed first."""

    wait_id: str


class WaitClosed(NamedTuple):
    """The wait is no longer of interest: its task ended, or another question was asked in its place."""

    wait_id: str


class CallRecorded(NamedTuple):
    """A `ctx.call` returned. `arguments` is a digest, None if they cannot be encoded and so cannot be compared."""

    task: TaskId
    attempt: int
    name: str
    k: int
    arguments: str | None
    result: EncodedValue


class EffectReused(NamedTuple):
    """An effect of a later attempt equal to one that an earlier attempt recorded (at `seq`): not made again."""

    task: TaskId
    attempt: int
    kind: str
    name: str
    k: int
    seq: int


class TimerSet(NamedTuple):
    """A `ctx.sleep` began; it ends at `due_at`."""

    task: TaskId
    attempt: int
    k: int
    due_at: int


class TimerFired(NamedTuple):
    """The timer set at seq `timer` came due."""

    timer: int


class ChildStarted(NamedTuple):
    """A step starts a run of another workflow, or goes on with it: the run `run_id` is created after this is durable.

    `arguments` are those of its `run()`. `independent`: the step named the run id itself; such a run does not end with
    its parent.
    """

    task: TaskId
    attempt: int
    k: int
    workflow: str
    run_id: str
    arguments: EncodedValue | None
    independent: bool = False


class ChildAsked(NamedTuple):
    """The child started at seq `child` asked a question at this position of its stream; it is published here, too."""

    child: int
    position: int


class ChildEnded(NamedTuple):
    """The child started at seq `child` has ended with this status."""

    child: int
    status: str


class StreamPublished(NamedTuple):
    """Items were published at positions `first` onwards, one per digest.

    `task` is None for an item of the run itself (its end). `items` go to the stream table, so they are empty in
    records that were read back; nothing is folded from them.
    """

    first: int
    digests: tuple[str, ...]
    task: TaskId | None
    attempt: int
    k: int
    items: tuple[EncodedEvent, ...] = ()
    wait_id: str | None = None


class StreamReset(NamedTuple):
    """A re-run publishes other items than before from its `k`-th on; the reset itself is published at `position`.

    `since` is the position of the first item that no longer counts.
    """

    task: TaskId
    attempt: int
    k: int
    position: int
    since: int


class StepDiverged(NamedTuple):
    """A re-run after a crash came to other content at a recorded place, or never came to it. The record stands."""

    task: TaskId
    attempt: int
    kind: str
    name: str
    k: int


class CheckpointNamed(NamedTuple):
    """`ctx.checkpoint(name)`: this position has a name."""

    task: TaskId
    attempt: int
    name: str
    k: int


class FanOutOpened(NamedTuple):
    """A step returned a list that is collected again; the events that follow, of the same task, are its elements.

    `joins` are the steps that collect from it; for each of them `takes` has the number of events after which it fires,
    0 for all of them.
    """

    task: TaskId
    attempt: int
    joins: tuple[str, ...]
    takes: tuple[int, ...]


class JoinFired(NamedTuple):
    """A fan-in has what it waited for: this record's seq and `step` are the new task.

    `source` is the fan-out that was collected from, 0 for a step with several event parameters; `scope` the one that
    the task belongs to, 0 for none. `events` are the seqs of the events that it gets: in the order of their emission,
    or in that of the names of the parameters.
    """

    step: str
    source: int
    scope: int
    events: tuple[int, ...]


class FanOutClosed(NamedTuple):
    """Nothing is pending any more in the fan-out opened at seq `source`; its joins have fired."""

    source: int


class RunAtRest(NamedTuple):
    """After `claims` claims in vain the run has come to where every step only waits: it is not what ends processes."""

    claims: int


class RunParked(NamedTuple):
    """The run needs attention: `reason` says why and what to do."""

    reason: str


class RunResumed(NamedTuple):
    """A failed, timed-out or parked run goes on: pending work runs again, the budget of active time begins anew."""

    by: str


class RunCompleted(NamedTuple):
    """A step returned a StopEvent: the run's result."""

    result: EncodedEvent
    task: TaskId | None


class RunFailed(NamedTuple):
    """The run ended in an error. `step` is None if no step is to blame."""

    error: ErrorInfo
    step: str | None


class RunCancelled(NamedTuple):
    """The run was cancelled; it is never resumed."""

    reason: str


class RunTimedOut(NamedTuple):
    """The budget of active time is used up."""

    message: str


Fact = (
    ContextSet | EventEmitted | StepCompleted | StreamPublished | CallRecorded | EventCollected | BufferReleased
    | ContextDeleted | ContextSpliced | WaitOpened | WaitAnswered | WaitTimedOut | WaitClosed | MessageReceived
    | EffectReused | TimerSet | TimerFired | StreamReset | StepDiverged | CheckpointNamed | StepFailed | FanOutOpened
    | JoinFired | FanOutClosed | ChildStarted | ChildAsked | ChildEnded | RunStarted | RunClaimed | RunAtRest
    | RunParked | RunResumed | RunCompleted | RunFailed | RunCancelled | RunTimedOut | StateImported
    | StateEdited | PendingDropped | JournalCompacted
)  # fmt: skip
"""Any fact; the most frequent first, because `match` asks in order."""


class Record(NamedTuple):
    """A fact with its place: `seq` from 1 without gaps, time in microseconds, and whether a group ends here.

    Only a boundary is a checkpoint: state is never read, forked or edited between the records of one decision.
    """

    seq: int
    at: int
    boundary: bool
    fact: Fact
