"""The loop of one run: take what came, decide, append, and only then act."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol, assert_never

from pydantic.errors import PydanticInvalidForJsonSchema

from ..commands import Command, EndByTimeout, ExpireWait, FireTimer, ParkAside, RunStep, WakeAt
from ..decide import decide
from ..due import Limits, due
from ..errors import (
    AlreadyAnsweredError,
    DeserializationError,
    DurableFlowError,
    RunFenced,
    RunFinishedError,
    SerializationError,
    StepDivergedError,
    StepReleased,
    WorkflowRuntimeError,
)
from ..events import Event, HumanResponseEvent, InputRequiredEvent, StopEvent, event_name, find_event_class
from ..fold import evolve
from ..incoming import (
    AttentionNeeded,
    CancelRequested,
    EffectsCommitted,
    EventReceived,
    Incoming,
    Question,
    StepRaised,
    StepReturned,
    TimeIsUp,
    TimerDue,
    WaitDue,
)
from ..journal.protocol import Append, Claim, JournalStore, MessageRow, RunUpdate, StreamRow
from ..records import (
    EncodedEvent,
    ErrorInfo,
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
from ..state import RunState, Task, Wait
from .clock import Clock
from .drafts import Drafts
from .execution import MICROSECONDS, Collected, Execution, route
from .live import LiveContext
from .outcome import Outcome
from .program import Program
from .stream import StreamTail
from .threads import FromThread

logger = logging.getLogger("durable_flow")

MAX_IDLE_CLAIMS = 5
MAX_TRACEBACK = 20_000

Reply = asyncio.Future[None]
OUTSIDE = TaskId(0, "")


class Host(Protocol):
    """What a run asks of the engine that owns it."""

    def run_ended(self, run: Run) -> None:
        """The run has an outcome and holds nothing any more."""

    def run_dropped(self, run: Run, error: BaseException | None) -> None:
        """The run stopped in this process without an outcome; it stays recoverable."""

    def step_suspended(self, run: Run) -> None:
        """One more step of the run waits in memory."""

    def step_resumed(self, run: Run) -> None:
        """One less."""


class Run:
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
        self.busy: dict[str, int] = {}
        self.lock = asyncio.Lock()
        self.lock_holder: Any = None
        self.write_lock = asyncio.Lock()
        self.editor: asyncio.Task[Any] | None = None
        self.tail = StreamTail(state.position)
        # The waits that had been answered when this engine took the run up: their questions are not shown again.
        self.answered_before: frozenset[str] = frozenset()
        self.outcome: Outcome | None = None
        self.closed = False
        # What the run's row says, as far as it is durable: status and wake_at.
        self.standing = (state.status, state.wake_at)
        self.durable_seq = state.seq
        self.error: BaseException | None = None
        self._idle_release_seconds = idle_release_seconds
        self._inbox: list[tuple[Incoming, Reply | None]] = []
        self._appending = False
        self._scheduled = False
        self._appended: list[Record] = []
        self._replies: list[tuple[int, Reply]] = []  # each with the seq of its last record
        self._alarm: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._status: tuple[str, int | None] = ("running", None)
        self._live_events: dict[int, tuple[EncodedEvent, Event]] = {}
        self._waiters: dict[str, list[asyncio.Future[Any]]] = {}
        self._timers: dict[int, list[asyncio.Future[Any]]] = {}
        self._free_worker: dict[str, deque[asyncio.Future[None]]] = {}
        self._diverged: set[tuple[TaskId, Place]] = set()
        self._messages: set[int] = set()
        self._stop: StopEvent | None = None
        self._error: BaseException | None = None

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
        elif self._inbox:
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
        self._stop = self._stop or event
        self.accept(EffectsCommitted(drafts, encoded))

    def receive(self, event: Event, step: str | None = None, wait_id: str | None = None) -> Reply:
        """Take an event from outside; the reply ends when it is durable. Raises what makes it unacceptable."""
        targets = route(self.program, self.run_id, event, step)
        encoded = self.program.codec.encode_event(event)
        wait_id = wait_id or named_wait(event)
        self._refuse_second_answer(event, wait_id)
        reply = self.loop.create_future()
        if isinstance(event, StopEvent):
            self._stop = self._stop or event
            emitted = EventEmitted(encoded, None, 0, None, ())
            self.accept(EventReceived(emitted, None, encoded), reply)
        else:
            self.accept(EventReceived(EventEmitted(encoded, None, 0, None, targets, step, wait_id)), reply)
        return reply

    def cancel(self, reason: str, message: tuple[int, str | None] | None = None) -> Reply:
        """End the run as cancelled."""
        reply = self.loop.create_future()
        self.accept(CancelRequested(reason, (), message), reply)
        return reply

    def take_messages(self, rows: Iterable[MessageRow]) -> None:
        """Take unconsumed messages, each once."""
        for row in rows:
            if row.id in self._messages:
                continue
            self._messages.add(row.id)
            message = (row.id, row.message_id)
            if row.kind == "cancel":
                self.cancel(row.reason or "cancelled by message", message)
                continue
            assert row.event is not None
            emitted, stop = self._message_event(row, row.event)
            self.accept(EventReceived(emitted, message, stop))

    def _message_event(self, row: MessageRow, encoded: EncodedEvent) -> tuple[EventEmitted, EncodedEvent | None]:
        """Route a message's event. What cannot be routed is journaled all the same, for nobody."""
        targets: tuple[str, ...] = ()
        stop = None
        try:
            event = self.program.codec.decode_event(encoded)
            targets = route(self.program, self.run_id, event, row.step)
            stop = encoded if isinstance(event, StopEvent) else None
        except DurableFlowError as error:
            logger.error("message %d reaches no step: %s", row.id, error, extra={"run_id": self.run_id})
        return EventEmitted(encoded, None, 0, None, targets, row.step, row.wait_id), stop

    # -- A turn --------------------------------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._scheduled and not self._appending:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._appending or self.closed:
            return
        inbox, self._inbox = self._inbox, []
        now = max(self.clock.now(), self.state.last_at)
        records: list[Record] = []
        after = self.state.seq
        try:
            for incoming, reply in inbox:
                incoming = self._prepared(incoming, reply)
                facts = decide(self.state, incoming)
                self._apply(facts, now, records)
                if reply is not None and not reply.done():
                    if facts or not self.state.ended:
                        self._replies.append((self.state.seq, reply))
                    else:
                        reply.set_exception(self._finished_error())
            if records:
                append = Append(self.claim.run, self.run_id, after, self.claim.epoch, records, self._update())
                self._appending = True
                self._appended = records
                self.store.submit(append).add_done_callback(self._durable)
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

    def _prepared(self, incoming: Incoming, reply: Reply | None) -> Incoming:
        """Add what only the live objects know: which wait an event satisfies, and the end's drafts of everybody."""
        match incoming:
            case StepReturned() | EffectsCommitted() | StepRaised() if self.state.waits:
                taken = {fact.wait_id for fact in incoming.drafts if isinstance(fact, WaitClosed)}
                incoming = incoming._replace(drafts=self._matched(incoming.drafts, taken))
                if isinstance(incoming, StepReturned):
                    incoming = incoming._replace(emitted=self._matched(incoming.emitted, taken))
                return incoming
            case EventReceived() if incoming.stop is None:
                return self._received(incoming, reply)
            case CancelRequested() | TimeIsUp() | EventReceived():
                return incoming._replace(drafts=self.everybodys_drafts())
            case _:
                return incoming

    def _received(self, incoming: EventReceived, reply: Reply | None) -> EventReceived:
        emitted = incoming.emitted
        if emitted.answers is None:
            emitted = self._matched((emitted,), set())[0]
            before = self._answered_wait(emitted.event.name) if emitted.answers is None else None
            if before is None:
                return incoming._replace(emitted=emitted)
        else:
            wait = self.state.waits.get(emitted.answers)
            if wait is not None and wait.is_open:
                return incoming._replace(emitted=_answering(emitted, wait))
            before = emitted.answers
        # It was open when the answer was sent; an answer to nothing reaches no step.
        error = AlreadyAnsweredError(f"run {self.run_id}: wait {before} is no longer open; answer dropped")
        if reply is not None:
            reply.set_exception(error)
        else:
            logger.warning("%s", error, extra={"action": "answer_dropped", "run_id": self.run_id})
        return incoming._replace(emitted=emitted._replace(targets=(), answers=None))

    def _answered_wait(self, name: str) -> str | None:
        """Return the wait that an earlier answer of this name closed, if none is open and these events are answers."""
        before = self.state.answered.get(name)
        cls = find_event_class(name)
        if before is None or cls is None or not issubclass(cls, HumanResponseEvent):
            return None
        return None if any(w.is_open and name in w.wanted for w in self.state.waits.values()) else before

    def _matched(self, facts: tuple[Any, ...], taken: set[str]) -> tuple[Any, ...]:
        """Let each event that satisfies an open wait answer it: the oldest one, each once."""
        result = []
        for fact in facts:
            if isinstance(fact, EventEmitted):
                wait = next((w for w in self.state.waits.values() if self._satisfies(fact.event, w, taken)), None)
                if wait is not None:
                    taken.add(wait.wait_id)
                    fact = _answering(fact, wait)
            result.append(fact)
        return tuple(result)

    def _satisfies(self, encoded: EncodedEvent, wait: Wait, taken: set[str]) -> bool:
        if not wait.is_open or wait.wait_id in taken or encoded.name not in wait.wanted:
            return False
        if wait.requirements is None:
            return True
        event = self.program.codec.decode_event(encoded)
        needed: dict[str, Any] = self.program.codec.decode_value(wait.requirements)
        return all(getattr(event, name, event.get(name)) == value for name, value in needed.items())

    def everybodys_drafts(self) -> tuple[Fact, ...]:
        """Take the drafts of every step, changes in place included: the end of a run carries them all."""
        for execution in self.executions.values():
            if execution.attached:
                try:
                    execution.detect_changes()
                except SerializationError as error:
                    logger.warning(
                        "run %s ends; a change in place by step %r is lost: %s", self.run_id, execution.step, error,
                        extra={"action": "change_lost", "run_id": self.run_id, "step": execution.step},
                    )  # fmt: skip
        return self.drafts.take_all()

    def _update(self) -> RunUpdate | None:
        """Return what changes in the run's row: its status, or when a parked run must be woken."""
        status = self.state.status
        if status == "running":
            if self._status[0] == "running":
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
        if self.closed:
            self._tell_replies(error)  # released meanwhile: what was under way has an outcome all the same
            return
        if error is not None:
            self.drop(error)
            return
        self.standing = (self.state.status, self.state.wake_at)
        records, self._appended = self._appended, []
        self.durable_seq = records[-1].seq
        replies, self._replies = deque(self._replies), []
        for record in records:
            self._publish(record)
            # In the journal's order: in that one a re-run hands recorded outcomes out.
            while replies and replies[0][0] <= record.seq:
                _end(replies.popleft()[1], None)
        self._act()
        if self._inbox:
            self._turn_soon()

    def _publish(self, record: Record) -> None:
        """Tell those who wait in this process what has become durable."""
        fact = record.fact
        match fact:
            case StepCompleted():
                self._step_ended(fact.task)
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
                    extra={"action": "step_diverged", "run_id": self.run_id, "step": fact.task.step},
                )  # fmt: skip
            case StepFailed():
                self._step_ended(fact.task)
                retry = "" if fact.retry_at is None else "; it is tried again"
                logger.warning(
                    "step %r of run %s failed (attempt %d): %s%s",
                    fact.task.step, self.run_id, fact.attempt, fact.error.type, retry,
                    extra={"action": "step_failed", "run_id": self.run_id, "step": fact.task.step},
                )  # fmt: skip
            case _:
                pass  # nobody in this process waits for it

    def _act(self) -> None:
        """Carry out what is due."""
        if self.state.ended or self.state.attention:
            self._finish()
            return
        for command in due(self.state, self.limits, self.clock.now(), self.busy, self.running):
            self._carry_out(command)
        self._consider_release()

    def _carry_out(self, command: Command) -> None:
        match command:
            case RunStep():
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
            self._alarm.cancel()
        delay = max(0.0, (at - self.clock.now()) / MICROSECONDS)
        self._alarm = self.loop.call_later(min(delay, 86_400.0), self._turn_soon)

    def _timeout_message(self) -> str:
        active = ", ".join(sorted(self.running_steps())) or None
        message = f"Operation timed out after {self.program.timeout} seconds. "
        message += f"Currently active steps: {active}" if active else "No steps active"
        if self.state.unhandled:
            message += f". Events that no step handled: {', '.join(self.state.unhandled)}"
        return f"{message} (run {self.run_id}; flow.retry({self.run_id!r}) goes on with a new budget)"

    def running_steps(self) -> list[str]:
        """Return the names of the steps that are in flight."""
        return [step for step, tasks in self.running.items() if tasks]

    # -- Steps ---------------------------------------------------------------------------------------------------------

    def _start(self, task: Task) -> None:
        execution = Execution(self, task)
        self.executions[task.id] = execution
        step = task.id.step
        self.running.setdefault(step, {})[task.id] = execution
        self.busy[step] = self.busy.get(step, 0) + 1
        live = self._live_events.pop(id(task.event), None)
        event = live[1] if live is not None and task.attempt == 1 else None
        execution.worker_task = self.loop.create_task(self._attempt(execution, task, event))

    async def _attempt(self, execution: Execution, task: Task, event: Event | None) -> None:
        """Run one attempt of a step and accept its outcome."""
        step = task.id.step
        try:
            if event is None:
                event = self._input(task)
                if event is None:
                    return
            if self.program.verbose:
                print(f"Running step {step}")
            if step in self.program.sync_steps:
                result = await asyncio.to_thread(self.program.call, step, event, FromThread(execution))
            else:
                result = await self.program.call(step, event, execution)
            events = self.program.emitted(step, result)
            if self.program.verbose:
                produced = ", ".join(type(e).__name__ for e in events)
                print(f"Step {step} produced {f'event {produced}' if produced else 'no event'}")
            returned = self._returned(execution, events)
        except StepReleased:
            if not self.closed:
                raise
        except asyncio.CancelledError as error:
            if self.closed:
                return
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                self.release()  # as a crash: nothing is recorded, the step starts again when the run is taken up
                raise
            cancelled = WorkflowRuntimeError(
                f"step {step!r} of run {self.run_id} awaited something that was cancelled; catch asyncio.CancelledError "
                "around it, or let the step return"
            )
            cancelled.__cause__ = error
            await self._raised(execution, task, cancelled)
        except (KeyboardInterrupt, SystemExit):
            self.release()
            raise
        except BaseException as error:
            if self.closed:
                return
            await self._raised(execution, task, error)
        else:
            if self.closed:
                return
            self.accept(returned)

    def _input(self, task: Task) -> Event | None:
        """Return the task's event, decoded afresh. If it cannot be read, the step has not failed: the run is parked."""
        try:
            return self.program.codec.decode_event(task.event)
        except DeserializationError as error:
            self.accept(
                AttentionNeeded(
                    f"run {self.run_id}: the event of step {task.id.step!r} (record {task.id.seq}) cannot be read: {error}. "
                    f"Repair that, then flow.resume({self.run_id!r})"
                )
            )
            return None

    def _returned(self, execution: Execution, events: Sequence[Event]) -> StepReturned:
        emitted: list[EventEmitted | Question] = []
        stop: EncodedEvent | None = None
        stop_event: StopEvent | None = None
        for event in events:
            encoded, event = self.live.encode_event(event)
            if isinstance(event, StopEvent):
                stop, stop_event = encoded, event
                break
            targets = self.program.targets(event)
            self.keep_live(encoded, event, targets)
            fact = EventEmitted(encoded, execution.task_id, execution.attempt, None, targets)
            if isinstance(event, InputRequiredEvent):
                answers = self.program.answer_types or (HumanResponseEvent,)
                emitted.append(Question(fact, tuple(event_name(cls) for cls in answers), self.schema_of(answers)))
            else:
                emitted.append(fact)
        drafts = execution.finish(completed=True)
        self._stop = self._stop or stop_event  # not before: an attempt that fails here has returned nothing
        if stop is not None:
            drafts = (*drafts, *self.everybodys_drafts())
        return StepReturned(execution.task_id, execution.attempt, drafts, tuple(emitted), stop)

    async def _raised(self, execution: Execution, task: Task, error: BaseException) -> None:
        await execution.calls_settled()
        if self.closed:
            return
        try:
            drafts = execution.finish(completed=False)
        except SerializationError as second:
            # A value changed in place into something that cannot be encoded: this goes with the attempt, for everybody.
            if str(second) != str(error):
                error.add_note(f"and a change in place of its context was undone: {second}")
            execution.drop_changes()
            drafts = execution.finish(completed=False)
        attention = str(error) if isinstance(error, StepDivergedError) else None
        retry_at = None
        if attention is None and isinstance(error, Exception):
            now = self.clock.now()
            elapsed = (now - task.created_at) / MICROSECONDS
            try:
                seed = int(self.state.uid[:12], 16) ^ task.id.seq << 8 ^ task.failures
                delay = self.program.retry_delay(task.id.step, elapsed, task.failures + 1, error, seed)
            except Exception as policy_error:
                policy_error.__cause__ = error
                error, delay = policy_error, None
            if delay is not None:
                retry_at = now + round(max(0.0, delay) * MICROSECONDS)
        if retry_at is None and attention is None:
            drafts = (*drafts, *self.everybodys_drafts())
            self._error = self._error or error
        info = describe(error)
        self.accept(StepRaised(task.id, execution.attempt, drafts, info, retry_at, attention))

    def _step_ended(self, task_id: TaskId) -> None:
        """The attempt's outcome is durable: it is no longer in flight and gives its worker back."""
        execution = self.executions.pop(task_id)
        del self.running[task_id.step][task_id]
        if execution.has_worker:
            self._give_back_worker(task_id.step)

    def _give_back_worker(self, step: str) -> None:
        waiting = self._free_worker.get(step)
        while waiting:
            # A step that goes on after a wait comes before one that has not started.
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self.busy[step] -= 1

    # -- What executions ask -------------------------------------------------------------------------------------------

    def drafts_on(self, key: str) -> tuple[Fact, ...]:
        """Take what a write of this key from outside rests on."""
        return self.drafts.take(OUTSIDE, {**self.executions, OUTSIDE: _OutsideReader({key})})

    def keep_live(self, encoded: EncodedEvent, event: Event, targets: tuple[str, ...]) -> None:
        """Let a single consumer get the event object itself; the encoding's identity finds it again."""
        if len(targets) == 1:
            self._live_events[id(encoded)] = (encoded, event)

    def suspended(self, execution: Execution) -> None:
        """A strand of the step waits: its worker is free for another task."""
        if execution.has_worker:
            execution.has_worker = False
            self._give_back_worker(execution.step)
            self._turn_soon()
        execution.suspended += 1
        self.host.step_suspended(self)

    def unsuspended(self, execution: Execution, patient: bool) -> asyncio.Future[None] | None:
        """A strand goes on; returns a future to await first if no worker is free and the strand is patient."""
        execution.suspended -= 1
        self.host.step_resumed(self)
        if execution.has_worker or self.closed:
            return None
        execution.has_worker = True
        step = execution.step
        if patient and self.busy[step] >= self.program.num_workers[step]:
            future: asyncio.Future[None] = self.loop.create_future()
            self._free_worker.setdefault(step, deque()).append(future)
            return future
        self.busy[step] += 1
        return None

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

    def answer(self, wait: Wait) -> Event:
        """Return the answer of a wait, decoded afresh."""
        assert wait.answer is not None
        return self.program.codec.decode_event(wait.answer)

    def note_divergence(self, task_id: TaskId, place: Place) -> bool:
        """Tell whether this divergence is new: it is recorded once."""
        known = self.state.tasks[task_id].diverged or ()
        if place in known or (task_id, place) in self._diverged:
            return False
        self._diverged.add((task_id, place))
        return True

    def schema_of(self, classes: tuple[type[Event], ...]) -> str | None:
        """Return the JSON schema of the answer as text, None if its fields have none."""
        return answer_schema(classes)

    # -- The end -------------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Stop the run in this process and give it up unfinished; it can be taken up again, here or elsewhere."""
        if not self.closed:
            self._close()
            self.host.run_dropped(self, None)

    def only_waits(self) -> bool:
        """Tell whether every step in flight is suspended."""
        return all(execution.suspended for execution in self.executions.values())

    def _consider_release(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._idle_release_seconds is not None and self.state.parked and not self.executions:
            self._idle = self.loop.call_later(self._idle_release_seconds, self._release_if_idle)

    def _release_if_idle(self) -> None:
        if self.state.parked and not self.executions and not self._inbox and not self._appending:
            logger.info("run %s released", self.run_id, extra={"action": "run_released", "run_id": self.run_id})
            self.release()

    def _finish(self) -> None:
        if self.closed:
            return
        state = self.state
        if state.ended == "completed":
            assert state.result is not None
            stop = self._stop if self._stop is not None else self.program.codec.decode_event(state.result)
            self.outcome = Outcome.completed(stop)
        elif state.ended == "failed" and self._error is not None:
            self.outcome = Outcome.failed(state, self._error)
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
            "run %s stopped in this process: %s", self.run_id, error, extra={"action": action, "run_id": self.run_id}
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

    def _closed_error(self) -> DurableFlowError:
        if self.outcome is not None:
            return self._finished_error()
        return DurableFlowError(f"run {self.run_id} was given up by this process; nothing of this was recorded")

    def _finished_error(self) -> RunFinishedError:
        return RunFinishedError(f"run {self.run_id} has ended ({self.state.ended}); nothing can be sent to it any more")

    def _refuse_second_answer(self, event: Event, wait_id: str | None) -> None:
        if self.state.ended:
            raise self._finished_error()
        if wait_id is not None:
            wait = self.state.waits.get(wait_id)
            if wait is None or not wait.is_open:
                raise AlreadyAnsweredError(
                    f"run {self.run_id}: wait {wait_id} is not open; it was answered before, timed out or was closed. "
                    "Nothing was recorded"
                )
        elif isinstance(event, HumanResponseEvent):
            name = event_name(type(event))
            before = self._answered_wait(name)
            if before is not None:
                raise AlreadyAnsweredError(
                    f"run {self.run_id}: no open question takes a {name}; wait {before} was answered before. "
                    "Nothing was recorded"
                )


class _OutsideReader:
    """A handler's context, as a reader of one key."""

    reads_all = False

    def __init__(self, keys: set[str]):
        self.keys = keys


def named_wait(event: Event) -> str | None:
    """Return the wait that an answer names by its `wait_id`, if it does."""
    wait_id = event.get("wait_id") if isinstance(event, HumanResponseEvent) else None
    return wait_id if isinstance(wait_id, str) else None


def describe(error: BaseException) -> ErrorInfo:
    """Return an exception as data."""
    cls = type(error)
    text = "".join(traceback.format_exception(error))
    return ErrorInfo(f"{cls.__module__}.{cls.__qualname__}", clean(str(error)), clean(text[-MAX_TRACEBACK:]))


def clean(text: str) -> str:
    """Return text that every database takes: no NUL, no lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


@lru_cache(maxsize=256)
def answer_schema(classes: tuple[type[Event], ...]) -> str | None:
    """Return the JSON schema of events that answer a question, as text."""
    try:
        schemas = [cls.model_json_schema() for cls in classes]
    except PydanticInvalidForJsonSchema:
        return None
    return json.dumps(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})


def _answering(emitted: EventEmitted, wait: Wait) -> EventEmitted:
    """A step's wait consumes the event; the answer to a returned question also goes to the steps that take it."""
    return emitted._replace(answers=wait.wait_id, targets=() if wait.task is not None else emitted.targets)


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
