"""The loop of one run: take what came, decide, append, and only then act."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from ..commands import Command, EndByTimeout, ExpireWait, FireTimer, ParkAside, RunStep, WakeAt
from ..decide import decide
from ..due import Limits, due
from ..errors import (
    DeserializationError,
    DurableFlowError,
    RunFenced,
    RunFinishedError,
    SerializationError,
)
from ..events import Event, StopEvent
from ..fold import evolve
from ..incoming import (
    AttentionNeeded,
    CameToRest,
    CancelRequested,
    EffectsCommitted,
    EventReceived,
    Incoming,
    StepRaised,
    StepReturned,
    TimeIsUp,
    TimerDue,
    WaitDue,
)
from ..joins import due_joins
from ..journal.protocol import Append, Claim, JournalStore, MessageRow, RunUpdate, StreamRow
from ..logs import fields, said
from ..records import (
    ChildEnded,
    EncodedEvent,
    EventEmitted,
    Fact,
    Place,
    Record,
    StepCompleted,
    StepDiverged,
    StepFailed,
    StreamPublished,
    StreamReset,
    TaskId,
    TimerFired,
    WaitAnswered,
    WaitClosed,
    WaitTimedOut,
)
from ..serializers.json import JsonSerializer
from ..state import COMPLETED, FAILED, RUNNING, RunState, Task
from .answers import Answers
from .attempt import make_attempt
from .claims import SUSPICIOUS_CLAIMS
from .clock import MICROSECONDS, Clock
from .collecting import incomplete_sets, joins_of_sent, warn_if_ignored
from .current import outside_of_steps
from .drafts import Drafts
from .execution import Execution
from .internal import Internals, Listener
from .live import ContextLocks, LiveContext
from .outcome import Outcome
from .program import Program
from .routing import named_wait, route
from .step_output import Collected
from .stream import StreamTail
from .workers import Workers

if TYPE_CHECKING:
    from .children import Children
    from .places import Places
    from .stepwise import Gate

logger = logging.getLogger("durable_flow")

MAX_IDLE_CLAIMS = 5

Reply = asyncio.Future[None]
OUTSIDE = TaskId(0, "")
# Each call of frozenset() makes an object, and nearly every run would have some of them.
NOTHING: frozenset[Any] = frozenset()


class GivenUp(DurableFlowError):
    """What came to a run when this process had dropped it. Nothing of it was recorded."""


class Host(Protocol):
    """What a run asks of the engine that owns it."""

    def run_ended(self, run: Run) -> None:
        """The run has an outcome and holds nothing any more."""

    def run_dropped(self, run: Run, error: BaseException | None) -> None:
        """The run stopped in this process without an outcome; it stays recoverable."""

    def step_left(self, run: Run, task: TaskId, attempt: int) -> None:
        """A step of a run with children has completed with this attempt."""

    def step_suspended(self, run: Run) -> None:
        """One more step of the run waits in memory."""

    def step_resumed(self, run: Run) -> None:
        """One less."""


class Run(ContextLocks):
    """A run that this engine owns.

    Everything happens in callbacks of one event loop. `accept` takes what comes; a *turn* decides about all of it and
    hands one append to the store; when that is durable the run acts. Nothing leaves before.
    """

    def __init__(
        self, host: Host, store: JournalStore, clock: Clock, program: Program, claim: Claim, state: RunState,
        *, idle_release_seconds: float | None,
    ):  # fmt: skip
        self.host = host
        self.store = store
        self.clock = clock
        self.program = program
        self.claim = claim
        self.run_id = claim.run_id
        self.state = state
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        timeout = program.timeout
        self.limits = Limits(program.num_workers, None if timeout is None else round(timeout * MICROSECONDS))
        self.live = LiveContext(program.codec, state.context)
        self.drafts = Drafts()
        self.buffers = {name: [Collected(e, None) for e in events] for name, events in state.buffers.items()}
        self.executions: dict[TaskId, Execution] = {}
        self.running: dict[str, dict[TaskId, Execution]] = {}
        self.workers = Workers(self.loop, program.num_workers)
        self.tail = StreamTail(state.position)
        # The waits that had been answered when this engine took the run up: their questions are not shown again.
        self.answered_before: frozenset[str] = NOTHING
        self.outcome: Outcome | None = None
        self.closed = False
        # Who is told of each append, and of what steps do; nearly always nobody.
        self.observers = program.observers
        self.followers: Mapping[int, Collection[Callable[[], None]]] = {}
        self.internals: Internals | None = None
        # What the run's row says, as far as it is durable: status and wake_at.
        self.standing = (state.status, None if state.status == RUNNING else state.wake_at)
        # Numbered as the state numbers what it holds: behind the records of the runs that this one goes on from.
        self.durable_seq = state.offset + state.seq
        # The live objects by which the run ended in this process.
        self.stop_event: StopEvent | None = None
        self.failure: BaseException | None = None
        # What the attempts before those that wait for their time raised in this process.
        self.last_errors: dict[TaskId, Exception] = {}
        # When steps were started last.
        self.acted_at = state.last_at
        # Why it was dropped, if it was.
        self.error: BaseException | None = None
        # Turns run in it, whoever asks for them, and each step in a copy.
        self._context = outside_of_steps()
        self._idle_release_seconds = idle_release_seconds
        self._inbox: list[tuple[Incoming, Reply | None]] = []
        self._append: asyncio.Future[None] | None = None
        self._appending = False
        self._scheduled = False
        self._appended: list[Record] = []
        self._replies: list[tuple[int, Reply]] = []  # each with the seq of its last record
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0
        self._idle: asyncio.TimerHandle | None = None
        self._status = self.standing
        self._live_events: dict[int, tuple[EncodedEvent, Event]] = {}
        self._waiters: dict[str, list[asyncio.Future[Any]]] = {}
        self._timers: dict[int, list[asyncio.Future[Any]]] = {}
        self._diverged: set[tuple[TaskId, Place]] = set()
        self._messages: set[int] = set()
        # The runs that its steps have started, once one has.
        self.children: Children | None = None
        # Holds tasks back, in a stepwise run.
        self.gate: Gate | None = None
        # The place that it takes among the runs of its instance, and those that it and the runs above it take.
        self.place: Places | None = None
        self.places: frozenset[Places] = NOTHING
        # What was published up to here, others than this engine have published.
        self.position_before = state.position
        self._answers = Answers(self.run_id, state, program)

    # -- In ------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start what is due; called once, after the run was created or claimed."""
        if self.state.claims > MAX_IDLE_CLAIMS and not self.state.ended and not self.state.attention:
            self.accept(
                AttentionNeeded(
                    f"run {self.run_id} was taken up {self.state.claims} times and every time its process ended before "
                    f"anything was recorded. Look for what kills it, then flow.resume({self.run_id!r})"
                )
            )
        elif self._inbox or self.state.ripe or self.state.idle:
            self._turn_soon()  # what waited for the run comes first; it acts when that is durable
        else:
            self._act_or_drop()

    def accept(self, incoming: Incoming, reply: Reply | None = None) -> None:
        """Take something that concerns the run; `reply` ends when its records are durable."""
        if self.closed:
            if reply is not None:
                reply.set_exception(self._closed_error())
            return
        self._inbox.append((incoming, reply))
        self._turn_soon()

    def commit(self, drafts: tuple[Fact, ...]) -> Reply:
        """Take a step's effects at a commit point."""
        reply = self.loop.create_future()
        self.accept(EffectsCommitted(drafts), reply)
        # A step that ends before its commit is durable does not look at the reply any more.
        reply.add_done_callback(_retrieved)
        return reply

    def stop(self, drafts: tuple[Fact, ...], encoded: EncodedEvent, event: StopEvent) -> None:
        """End the run by a StopEvent that a step sent."""
        self.stop_event = self.stop_event or event
        self.accept(EffectsCommitted(drafts, encoded))

    def receive(self, event: Event, step: str | None = None, wait_id: str | None = None) -> Reply:
        """Take an event from outside; the reply ends when it is durable. Raises what makes it unacceptable."""
        targets = route(self.program, self.run_id, event, step)
        joins = joins_of_sent(self.program, event, step) if self.program.has_joins else ()
        encoded = self.program.codec.encode_event(event)
        wait_id = wait_id or named_wait(event)
        if self.state.ended:
            raise self._finished_error()
        self._answers.require_open(event, wait_id)
        reply = self.loop.create_future()
        if isinstance(event, StopEvent):
            self.stop_event = self.stop_event or event
            emitted = EventEmitted(encoded, None, 0, None, ())
            self.accept(EventReceived(emitted, None, encoded), reply)
        else:
            self.accept(EventReceived(EventEmitted(encoded, None, 0, None, targets, step, wait_id, joins)), reply)
        return reply

    def asks_for(self, event: Event, wait_id: str | None) -> bool:
        """Tell whether an event from outside answers a question of the run that is still open."""
        return not self.closed and not self.state.ended and self._answers.asks_for(event, wait_id or named_wait(event))

    def cancel(self, reason: str) -> Reply:
        """End the run as cancelled."""
        reply = self.loop.create_future()
        self.accept(CancelRequested(reason), reply)
        return reply

    def take_messages(self, rows: Iterable[MessageRow]) -> None:
        """Take unconsumed messages, each once."""
        for row in rows:
            if row.id in self._messages:
                continue
            self._messages.add(row.id)
            message = (row.id, row.message_id)
            if row.kind == "cancel":
                self.accept(CancelRequested(row.reason or "cancelled by message", (), message))
                continue
            assert row.event is not None
            self.accept(self._message_event(row, row.event, message))

    def _message_event(self, row: MessageRow, encoded: EncodedEvent, message: tuple[int, str | None]) -> EventReceived:
        """Route a message's event. What cannot be read or routed is journaled all the same, and reaches nobody."""
        try:
            if encoded.codec != JsonSerializer.codec:
                raise DeserializationError(f"messages come in JSON, and this one in {encoded.codec!r}; it is not read")
            event = self.program.codec.decode_event(encoded)
            targets = route(self.program, self.run_id, event, row.step)
            joins = joins_of_sent(self.program, event, row.step) if self.program.has_joins else ()
            stop = encoded if isinstance(event, StopEvent) else None
        except DurableFlowError as error:
            extra = fields("message_unroutable", self.run_id, row.step, row=row.id)
            logger.error("message %d of run %s reaches no step: %s", row.id, self.run_id, said(error), extra=extra)
            return EventReceived(EventEmitted(encoded, None, 0, None, (), row.step), message, routable=False)
        emitted = EventEmitted(encoded, None, 0, None, targets, row.step, row.wait_id, joins)
        return EventReceived(emitted, message, stop)

    @property
    def is_quiet(self) -> bool:
        """Tell whether everything that has come is durable."""
        return not self._inbox and not self._appending

    def wake(self) -> None:
        """Ask soon what is due."""
        self._turn_soon()

    # -- A turn --------------------------------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._scheduled and not self._appending:
            self._scheduled = True
            self.loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._scheduled = False
        if self._appending or self.closed:
            return
        inbox, self._inbox = self._inbox, []
        now = max(self.clock.now(), self.state.last_at)
        records: list[Record] = []
        after = self.state.seq
        try:
            self._fire_joins(now, records)
            for incoming, reply in inbox:
                incoming = self._prepared(incoming, reply)
                facts = decide(self.state, incoming)
                self._apply(facts, now, records)
                if reply is not None and not reply.done():
                    if facts or not self.state.ended:
                        self._replies.append((self.state.seq, reply))
                    else:
                        reply.set_exception(self._finished_error())
                self._fire_joins(now, records)
            if records:
                append = Append(self.claim.run, self.run_id, after, self.claim.epoch, records, self._update())
                self._append = self.store.submit(append)
                self._appending = True
                self._appended = records
                self._append.add_done_callback(self._durable)
                return
        except Exception as error:
            self.drop(error)
            return
        self._tell_replies(None)
        self._act_or_drop()

    def _act_or_drop(self) -> None:
        try:
            self._act()
        except Exception as error:
            self.drop(error)

    def _tell_replies(self, error: BaseException | None) -> None:
        replies, self._replies = self._replies, []
        for _, reply in replies:
            _end(reply, error)

    def _apply(self, facts: Sequence[Fact], now: int, records: list[Record]) -> None:
        last = len(facts) - 1
        for at, fact in enumerate(facts):
            record = Record(self.state.seq + 1, now, at == last, fact)
            evolve(self.state, record)
            records.append(record)

    def _fire_joins(self, now: int, records: list[Record]) -> None:
        """Add what the fan-ins do about the state: a group each, in the same append."""
        while (self.state.ripe or self.state.idle) and (facts := due_joins(self.state)):
            self._apply(facts, now, records)

    def _prepared(self, incoming: Incoming, reply: Reply | None) -> Incoming:
        """Add what only the live objects know: which wait an event satisfies, and the end's drafts of everybody."""
        match incoming:
            case StepReturned() | EffectsCommitted() | StepRaised() if self.state.waits:
                taken = {fact.wait_id for fact in incoming.drafts if isinstance(fact, WaitClosed)}
                incoming = incoming._replace(drafts=self._answers.matched(incoming.drafts, taken))
                if isinstance(incoming, StepReturned):
                    incoming = incoming._replace(emitted=self._answers.matched(incoming.emitted, taken))
                return incoming
            case EventReceived(routable=False):
                return incoming
            case EventReceived() if incoming.stop is None:
                return self._received(incoming, reply)
            case CancelRequested() | TimeIsUp() | EventReceived():
                return incoming._replace(drafts=self.everybodys_drafts())
            case _:
                return incoming

    def _received(self, incoming: EventReceived, reply: Reply | None) -> EventReceived:
        emitted, error = self._answers.received(incoming.emitted)
        if error is None:
            pass
        elif reply is not None:
            reply.set_exception(error)
        else:
            logger.warning("%s", said(error), extra=fields("answer_dropped", self.run_id))
        return incoming._replace(emitted=emitted)

    def everybodys_drafts(self) -> tuple[Fact, ...]:
        """Take the drafts of every step, changes in place included: the end of a run carries them all."""
        for execution in self.executions.values():
            if execution.attached:
                try:
                    execution.detect_changes()
                except SerializationError as error:
                    logger.warning(
                        "run %s ends; a change in place by step %r is lost: %s", self.run_id, execution.step,
                        said(error), extra=fields("change_lost", self.run_id, execution.step, execution.attempt),
                    )  # fmt: skip
        return self.drafts.take_all()

    def _update(self) -> RunUpdate | None:
        """Return what changes in the run's row: its status, or when a parked run must be woken."""
        status = self.state.status
        if status == RUNNING:
            if self._status[0] == RUNNING:
                return None
            self._status = (status, None)
            return RunUpdate(status)
        wake_at = self.state.wake_at
        if (status, wake_at) == self._status:
            return None
        self._status = (status, wake_at)
        error = self.state.attention
        if self.state.ended and self.state.error is not None:
            error = f"{self.state.error.type}: {self.state.error.message}"[:500]
        release = self.state.ended is not None or self.state.attention is not None
        return RunUpdate(status, wake_at, error, release)

    # -- Durable -------------------------------------------------------------------------------------------------------

    def _durable(self, appended: asyncio.Future[None]) -> None:
        """The append has an outcome. Only now does anything leave the loop."""
        try:
            self._appended_with(appended)
        except Exception as error:
            self.drop(error)

    def _appended_with(self, appended: asyncio.Future[None]) -> None:
        self._appending = False
        error = appended.exception() if not appended.cancelled() else DurableFlowError("the append was cancelled")
        if error is None:
            self.standing = self._status
            if self.observers is not None or self.followers:
                self.told(self._appended)
        if self.closed:
            self._tell_replies(error)  # released meanwhile: what was under way has an outcome all the same
            return
        if error is not None:
            self.drop(error)
            return
        records, self._appended = self._appended, []
        self.durable_seq = self.state.offset + records[-1].seq
        replies, self._replies = deque(self._replies), []
        for record in records:
            self._publish(record)
            # In the journal's order: in that one a re-run hands recorded outcomes out.
            while replies and replies[0][0] <= record.seq:
                _end(replies.popleft()[1], None)
        if self.internals is not None:
            self.internals.appended(records)
        self._act()
        if self._inbox:
            self._turn_soon()

    def _publish(self, record: Record) -> None:
        """Tell those who wait in this process what has become durable."""
        fact = record.fact
        match fact:
            case StepCompleted():
                self._step_ended(fact.task)
                if self.state.children:
                    self.host.step_left(self, fact.task, fact.attempt)
            case StreamPublished():
                task, step = fact.task if fact.task is not None else (None, None)
                for position, item in enumerate(fact.items, fact.first):
                    self.tail.add(StreamRow(position, record.at, step, item, fact.wait_id, None, task))
            case StreamReset():
                task, step = fact.task
                self.tail.add(StreamRow(fact.position, record.at, step, None, None, fact.since, task))
            case WaitAnswered() | WaitTimedOut() | WaitClosed():
                for waiter in self._waiters.pop(fact.wait_id, ()):
                    if not waiter.done():
                        waiter.set_result(None)
            case TimerFired():
                for sleeper in self._timers.pop(fact.timer, ()):
                    if not sleeper.done():
                        sleeper.set_result(None)
            case StepDiverged():
                logger.warning(
                    "step %r of run %s ran again after a crash and came to another %s of %r; the recorded one stands",
                    fact.task.step, self.run_id, fact.kind, fact.name,
                    extra=fields("step_diverged", self.run_id, fact.task.step, fact.attempt),
                )  # fmt: skip
            case StepFailed():
                self._step_ended(fact.task)
                retry = "" if fact.retry_at is None else "; it is tried again"
                if fact.handler is not None:
                    retry = f"; {fact.handler} takes it"
                    if self.state.children:
                        self.host.step_left(self, fact.task, fact.attempt + 1)
                logger.warning(
                    "step %r of run %s failed (attempt %d): %s%s",
                    fact.task.step, self.run_id, fact.attempt, fact.error.type, retry,
                    extra=fields("step_failed", self.run_id, fact.task.step, fact.attempt),
                )  # fmt: skip
            case ChildEnded():
                if self.children is not None:
                    self.children.ended(fact.child)
            case EventEmitted(targets=(), joins=(), answers=None) if self.program.has_joins:
                warn_if_ignored(self.program, self.run_id, fact)
            case _:
                pass  # nobody in this process waits for it

    def _act(self) -> None:
        """Carry out what is due."""
        if self.state.ended or self.state.attention:
            self._finish()
            return
        self.acted_at = self.clock.now()
        for command in due(self.state, self.limits, self.acted_at, self.workers.busy, self.running):
            self._carry_out(command)
        if self.internals is not None:
            self.internals.acted()
        if self.gate is not None:
            self.gate.look()
        if self.state.claims >= SUSPICIOUS_CLAIMS and self._is_at_rest():
            self.accept(CameToRest())
        self._consider_release()

    def _carry_out(self, command: Command) -> None:
        match command:
            case RunStep():
                if self.gate is None or self.gate.lets(command.task):
                    self._start(self.state.tasks[command.task])
            case FireTimer():
                self.accept(TimerDue(command.timer))
            case ExpireWait():
                self.accept(WaitDue(command.wait_id))
            case EndByTimeout():
                self.accept(TimeIsUp(self._timeout_message()))
            case ParkAside():
                steps = ", ".join(repr(step) for step in command.steps)
                self.accept(
                    AttentionNeeded(
                        f"run {self.run_id} has pending work for {steps}, which workflow {self.program.name} no longer "
                        f"has. Restore the step, then flow.resume({self.run_id!r})"
                    )
                )
            case WakeAt():
                self._set_alarm(command.at)
            case _:
                assert_never(command)

    def _set_alarm(self, at: int) -> None:
        if self._alarm is not None:
            if self._alarm_at <= at:
                return  # it rings too early at worst, and is then set again: mostly the time only moves on
            self._alarm.cancel()
        delay = max(0.0, (at - self.clock.now()) / MICROSECONDS)
        self._alarm_at = at
        self._alarm = self.loop.call_later(min(delay, 86_400.0), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._turn_soon()

    def _timeout_message(self) -> str:
        active = ", ".join(sorted(self.running_steps())) or None
        message = f"Operation timed out after {self.program.timeout} seconds. "
        message += f"Currently active steps: {active}" if active else "No steps active"
        if self.state.unhandled:
            message += f". Events that no step handled: {', '.join(self.state.unhandled)}"
        message += incomplete_sets(self.state)
        return f"{message} (run {self.run_id}; flow.retry({self.run_id!r}) goes on with a new budget)"

    def running_steps(self) -> list[str]:
        """Return the names of the steps that are in flight."""
        return [step for step, tasks in self.running.items() if tasks]

    # -- Steps ---------------------------------------------------------------------------------------------------------

    def _start(self, task: Task) -> None:
        execution = Execution(self, task)
        self.executions[task.id] = execution
        if self.last_errors:
            execution.last_error = self.last_errors.pop(task.id, None)
        step = task.id.step
        self.running.setdefault(step, {})[task.id] = execution
        self.workers.take(step)
        event = None if task.event is None else self.take_live(task, task.event)
        if self.internals is not None:
            self.internals.started(execution)
        execution.worker_task = self.loop.create_task(make_attempt(self, execution, task, event))

    def _step_ended(self, task_id: TaskId) -> None:
        """The attempt's outcome is durable: it is no longer in flight and gives its worker back."""
        execution = self.executions.pop(task_id)
        del self.running[task_id.step][task_id]
        if execution.has_worker:
            self.workers.give_back(task_id.step)

    # -- What executions ask -------------------------------------------------------------------------------------------

    def drafts_on(self, key: str) -> tuple[Fact, ...]:
        """Take what a write of this key from outside rests on."""
        return self.drafts.take(OUTSIDE, {**self.executions, OUTSIDE: _OutsideReader({key})})

    def keep_live(self, encoded: EncodedEvent, event: Event, targets: tuple[str, ...]) -> None:
        """Let a single consumer get the event object itself; the encoding's identity finds it again."""
        if len(targets) == 1:
            self._live_events[id(encoded)] = (encoded, event)

    def event_of(self, encoded: EncodedEvent) -> Event:
        """Return an event of a task that has not started."""
        live = self._live_events.get(id(encoded))
        return live[1] if live is not None else self.program.codec.decode_event(encoded)

    def take_live(self, task: Task, encoded: EncodedEvent) -> Event | None:
        """Return the event object that was kept for the task, if this is its first attempt."""
        live = self._live_events.pop(id(encoded), None)
        return live[1] if live is not None and task.attempt == 1 else None

    def suspended(self, execution: Execution) -> None:
        """A strand of the step waits: its worker is free for another task."""
        if execution.has_worker:
            execution.has_worker = False
            self.workers.give_back(execution.step)
            self._turn_soon()
            if self.internals is not None:
                self.internals.suspended(execution)
        execution.suspended += 1
        self.host.step_suspended(self)

    def unsuspended(self, execution: Execution, patient: bool) -> asyncio.Future[None] | None:
        """A strand goes on; returns a future to await first if no worker is free and the strand is patient."""
        execution.suspended -= 1
        self.host.step_resumed(self)
        if execution.has_worker or self.closed or not execution.attached:
            return None
        execution.has_worker = True
        again = None
        if patient:
            again = self.workers.take_again(execution.step)
        else:
            self.workers.take(execution.step)
        if self.internals is not None:
            self.internals.goes_on(execution, again)
        return again

    def waiter(self, wait_id: str) -> asyncio.Future[Any]:
        """Return a future that ends when the wait is answered, timed out or closed."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self._waiters.setdefault(wait_id, []).append(future)
        return future

    def sleeper(self, timer: int) -> asyncio.Future[Any]:
        """Return a future that ends when the timer has fired."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self._timers.setdefault(timer, []).append(future)
        return future

    def told(self, records: Sequence[Record]) -> None:
        """Tell observers, and who follows the journal in this loop, that these records are durable."""
        if self.observers is not None:
            self.observers.tell(self.run_id, self.program.name, records)
        for wake in tuple(self.followers.get(self.claim.run, ())):
            wake()

    def tell_internals(self, listener: Listener) -> None:
        """Tell a reader what the steps do, from now on."""
        if self.internals is None:
            self.internals = Internals(self)
        self.internals.listen(listener)

    def end_internals(self, listener: Listener) -> None:
        """Tell it no longer."""
        if self.internals is not None and not self.internals.end(listener):
            self.internals = None

    def note_divergence(self, task_id: TaskId, place: Place) -> bool:
        """Tell whether this divergence is new: it is recorded once."""
        known = self.state.tasks[task_id].diverged or ()
        if place in known or (task_id, place) in self._diverged:
            return False
        self._diverged.add((task_id, place))
        return True

    # -- The end -------------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Stop the run in this process and give it up unfinished; it can be taken up again, here or elsewhere."""
        if not self.closed:
            self._close()
            self.host.run_dropped(self, None)

    async def settled(self) -> None:
        """Wait until the append that is under way has an outcome, and `standing` tells of it."""
        if self._appending and self._append is not None:
            await asyncio.wait([self._append])

    def only_waits(self) -> bool:
        """Tell whether every step in flight is suspended."""
        return all(execution.suspended for execution in self.executions.values())

    def _is_at_rest(self) -> bool:
        """Tell whether every pending task has been started here and waits."""
        return self.state.parked and len(self.executions) == len(self.state.tasks) and self.only_waits()

    def _consider_release(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        idle = self.state.parked and not self.executions and not (self.children and self.children.unfinished)
        if self._idle_release_seconds is not None and idle:
            self._idle = self.loop.call_later(self._idle_release_seconds, self._release_if_idle)

    def _release_if_idle(self) -> None:
        if self.state.parked and not self.executions and not self._inbox and not self._appending:
            logger.info("run %s released", self.run_id, extra=fields("run_released", self.run_id))
            self.release()

    def _finish(self) -> None:
        if self.closed:
            return
        state = self.state
        if state.ended == COMPLETED:
            assert state.result is not None
            stop = self.stop_event if self.stop_event is not None else self.program.codec.decode_event(state.result)
            self.outcome = Outcome.completed(stop)
        elif state.ended == FAILED and self.failure is not None:
            self.outcome = Outcome.failed(state, self.failure)
        else:
            self.outcome = Outcome.recorded(self.run_id, state, self.program.timeout)
        self._close()
        self.host.run_ended(self)

    def drop(self, error: BaseException) -> None:
        """The journal refused or failed: the state is thrown away, the run stays recoverable."""
        if self.closed:
            return
        self.error = error
        action = "claim_lost" if isinstance(error, RunFenced) else "run_dropped"
        logger.warning(
            "run %s stopped in this process: %s", self.run_id, said(error), extra=fields(action, self.run_id)
        )
        self._close()
        self.host.run_dropped(self, error)

    def _close(self) -> None:
        self.closed = True
        for timer in (self._alarm, self._idle):
            if timer is not None:
                timer.cancel()
        current = asyncio.current_task() if asyncio.get_running_loop() is self.loop else None
        for execution in self.executions.values():
            task = execution.worker_task
            if execution.suspended and self.outcome is None:
                execution.release()
                continue
            execution.attached = False
            if task is not None and task is not current:
                task.cancel()
        inbox, self._inbox = self._inbox, []
        for _, reply in inbox:
            if reply is not None and not reply.done():
                reply.set_exception(self._closed_error())
        if not self._appending:
            self._tell_replies(self.error or self._closed_error())
        self.executions = {}
        self._live_events.clear()
        if self.gate is not None:
            self.gate.look()

    def _closed_error(self) -> DurableFlowError:
        if self.outcome is not None:
            return self._finished_error()
        return GivenUp(f"run {self.run_id} was given up by this process; nothing of this was recorded")

    def _finished_error(self) -> RunFinishedError:
        return RunFinishedError(f"run {self.run_id} has ended ({self.state.ended}); nothing can be sent to it any more")


class _OutsideReader:
    """A handler's context, as a reader of one key."""

    reads_all = False

    def __init__(self, keys: set[str]):
        self.keys = keys


def _end(reply: Reply, error: BaseException | None) -> None:
    if reply.done():
        return
    if error is None:
        reply.set_result(None)
    else:
        reply.set_exception(error)


def _retrieved(reply: asyncio.Future[None]) -> None:
    if not reply.cancelled():
        reply.exception()
