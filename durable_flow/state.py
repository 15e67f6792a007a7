"""RunState: what a journal says about its run. Changed by `fold.evolve` and by nobody else."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .records import EncodedEvent, EncodedValue, ErrorInfo, Place, TaskId

RUNNING, WAITING, NEEDS_ATTENTION = "running", "waiting", "needs_attention"
COMPLETED, FAILED, TIMED_OUT, CANCELLED = "completed", "failed", "timed_out", "cancelled"


@dataclass(slots=True)
class Effect:
    """A recorded effect of a pending task; it is never changed, another one may take its place.

    `content` is compared when the step runs again, `outcome` is what it then gets: the encoded result of a call, the
    id of a wait, the seq of a timer, the released events of a buffer or None. `before` is the value that a write
    replaced (None: the key was absent). `seq` is the record's; `origin` the first record's for a reused effect.
    """

    place: Place
    seq: int
    content: Any = None
    outcome: Any = None
    before: EncodedValue | None = None
    origin: int | None = None


@dataclass(slots=True)
class Task:
    """An event delivered to a step that has not completed yet.

    `attempt` counts from 1; `failures` are those that the retry policy is told of (a manual retry starts them anew),
    `began_at` is when the first of them began and `failed_at` when the last one came, `exception` what it raised.
    `recoveries` counts by handler the failures that it took among the task's ancestors; several tasks may share it.
    `effects` are the recorded effects by attempt and place. `open` counts the open waits, timers and children of this
    attempt. The task of a fan-in has no `event` but the `joined` ones. `scope` is the fan-out that it belongs to and
    keeps open, 0 for none; `opened` the one that its returned events belong to.
    """

    id: TaskId
    event: EncodedEvent | None
    created_at: int
    attempt: int = 1
    failures: int = 0
    retry_at: int | None = None
    error: ErrorInfo | None = None
    effects: dict[int, dict[Place, Effect]] | None = None
    open: int = 0
    diverged: set[Place] | None = None
    began_at: int | None = None
    failed_at: int | None = None
    exception: EncodedValue | None = None
    recoveries: dict[str, int] | None = None
    joined: tuple[EncodedEvent, ...] | None = None
    scope: int = 0
    opened: int = 0


class Member(NamedTuple):
    """An event that a fan-in has collected, with the seq of its record, and what its task had of `Task.recoveries`."""

    seq: int
    event: EncodedEvent
    recoveries: dict[str, int] | None = None


@dataclass(slots=True)
class Slots:
    """What a step with several event parameters has collected in one fan-out: `number` of them, events by parameter."""

    number: int
    events: dict[str, list[Member]] = field(default_factory=dict)


@dataclass(slots=True)
class FanOut:
    """A returned list that is being collected again.

    `parent` is the fan-out that it belongs to, 0 for none. `open` counts what keeps it open: pending tasks, questions
    and fan-outs within it. `takes` are the joins that fire after a number of events. `members` holds what each join has
    collected, until it fires; `slots` what steps with several event parameters have, by step. `recoveries` are those of
    the task that returned the list.
    """

    parent: int
    takes: dict[str, int]
    members: dict[str, list[Member]]
    recoveries: dict[str, int] | None = None
    slots: dict[str, Slots] = field(default_factory=dict)
    open: int = 0

    @property
    def joins(self) -> dict[str, int]:
        """The steps that collect the list, those that have fired included, each with its number (0: all)."""
        return {**dict.fromkeys(self.members, 0), **self.takes}


class ScopedStep(NamedTuple):
    """A fan-in in one fan-out: the seq of its record (0: in none), and the step."""

    scope: int
    step: str


@dataclass(slots=True)
class Wait:
    """An awaited event. `answer` and `answered_at` (a seq) are set once it came; `timed_out` if it did not in time.

    `scope` is the fan-out that a returned question belongs to, 0 for none.
    """

    wait_id: str
    task: TaskId | None
    attempt: int
    wanted: tuple[str, ...]
    requirements: EncodedValue | None
    deadline: int | None
    prompt: EncodedEvent | None
    human: bool
    opened_at: int
    schema: str | None = None
    answer: EncodedEvent | None = None
    settled_at: int = 0
    timed_out: bool = False
    scope: int = 0

    @property
    def is_open(self) -> bool:
        """Tell whether nothing has come yet."""
        return not self.settled_at


@dataclass(slots=True)
class Timer:
    """A `ctx.sleep`; `fired_at` is the seq of its TimerFired record, 0 before."""

    seq: int
    task: TaskId
    due_at: int
    fired_at: int = 0


@dataclass(slots=True)
class Child:
    """A run that a step started. `asked` is the position of its last question that was shown on this run's stream.

    `ended_at` is the seq of its ChildEnded record, 0 before; `status` is how it ended.
    """

    seq: int
    task: TaskId
    attempt: int
    workflow: str
    run_id: str
    independent: bool = False
    asked: int = 0
    ended_at: int = 0
    status: str | None = None


@dataclass(slots=True)
class RunState:
    """The fold of a run's records; all values encoded, all times in microseconds.

    `seq` is the last record's, `boundary` the last checkpoint's. `active` tells whether the budget of active time runs
    now, `active_us` how much of it is used up to `last_at`. `runnable` and `delayed` index the pending tasks: by step
    in the order of their events, and by the time of their next attempt. `claims` counts the claims from
    workers that were gone, since anything else happened. `children` are the runs that steps started, by the seq of
    their start: those that have not ended, and those of pending tasks. `revivals` counts how often the run went on
    after its end; `parent` is the run that started it and ends it with itself.
    `fan_outs` are the open ones by the seq of their record,
    `slots` what steps with several event parameters have collected outside of any. `ripe` indexes the fan-ins that have
    enough to fire, `idle` the fan-outs in which nothing is pending.
    Tasks, effects, timers and waits are numbered by `offset` plus
    the seq of their record: in a run that goes on from the state of another one as if that one's journal went on, so
    that nothing new has the number of something imported. `position` is that of the last stream item, going on in the
    same way, and `streamed_before` that of the last one which only the other run has.
    """

    workflow: str = ""
    uid: str = ""
    shape: str = ""
    arguments: EncodedValue | None = None
    seq: int = 0
    boundary: int = 0
    offset: int = 0
    epoch: int = 0
    claims: int = 0
    created_at: int = 0
    last_at: int = 0
    active: bool = False
    active_us: int = 0
    ended: str | None = None
    result: EncodedEvent | None = None
    error: ErrorInfo | None = None
    error_step: str | None = None
    attention: str | None = None
    timeout_message: str = ""
    context: dict[str, EncodedValue] = field(default_factory=dict)
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    runnable: dict[str, dict[TaskId, None]] = field(default_factory=dict)
    delayed: dict[TaskId, int] = field(default_factory=dict)
    waiting_tasks: int = 0
    buffers: dict[str, list[EncodedEvent]] = field(default_factory=dict)
    fan_outs: dict[int, FanOut] = field(default_factory=dict)
    slots: dict[str, Slots] = field(default_factory=dict)
    ripe: dict[ScopedStep, None] = field(default_factory=dict)
    idle: dict[int, None] = field(default_factory=dict)
    waits: dict[str, Wait] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    timers: dict[int, Timer] = field(default_factory=dict)
    children: dict[int, Child] = field(default_factory=dict)
    position: int = 0
    streamed_before: int = 0
    unhandled: list[str] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)
    steps_completed: int = 0
    revivals: int = 0
    parent: str | None = None

    @property
    def status(self) -> str:
        """The run's status, derived."""
        if self.ended:
            return self.ended
        if self.attention:
            return NEEDS_ATTENTION
        # A run that waits for a child is taken up by whoever looks for work: nobody else wakes it.
        return WAITING if self.parked and not self.waits_for_child else RUNNING

    @property
    def waits_for_child(self) -> bool:
        """Tell whether a pending task has started a child that has not ended."""
        return any(
            not child.ended_at and child.task in self.tasks and self.tasks[child.task].attempt == child.attempt
            for child in self.children.values()
        )

    @property
    def parked(self) -> bool:
        """Tell whether every pending task waits for an event, a timer or a child, and at least one thing is awaited.

        A run whose next fan-in is due is not parked.
        """
        if len(self.tasks) > self.waiting_tasks or self.ripe or self.idle:
            return False
        return self.waiting_tasks > 0 or any(wait.is_open for wait in self.waits.values())

    @property
    def wake_at(self) -> int | None:
        """The earliest time at which this run must be taken up although nobody sent it anything; None: never."""
        if self.ended or self.attention:
            return None
        times = [w.deadline for w in self.waits.values() if w.deadline is not None and w.is_open]
        times += [t.due_at for t in self.timers.values() if not t.fired_at]
        # A retry that has come to a wait or a sleep of its own has begun: its time is past.
        times += [at for task_id, at in self.delayed.items() if not self.tasks[task_id].open]
        return min(times, default=None)
