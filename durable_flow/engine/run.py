"""The loop of one run: take what came, decide, append, and only then act."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..decide import decide
from ..due import Limits, due
from ..errors import (
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
    Incoming,
)
from ..joins import due_joins
from ..journal.protocol import Append, Claim, JournalStore, MessageRow
from ..journal.standing import row_update, standing_of
from ..logs import fields, said
from ..records import (
    ContextSet,
    EncodedEvent,
    Fact,
    Place,
    Record,
    TaskId,
)
from ..state import COMPLETED, FAILED, RunState, Task
from .acting import carry_out, publish
from .answers import Answers
from .asked import AskedBefore
from .attempt import make_attempt
from .claims import SUSPICIOUS_CLAIMS
from .clock import MICROSECONDS, Clock
from .current import outside_of_steps
from .drafts import Drafts
from .execution import Execution
from .host import GivenUp, Host
from .internal import Internals, Listener
from .live import ContextLocks, LiveContext
from .outcome import Outcome
from .places import NOTHING, Places
from .preparing import prepared
from .program import Program
from .reasons import why_crashing
from .receiving import from_caller, from_message
from .routing import named_wait
from .snapshots import note_snapshot
from .splicing import LEAST_BYTES, spliced
from .step_output import Collected
from .stream import StreamTail
from .waiting import Waiting
from .workers import Workers

if TYPE_CHECKING:
    from .checkpointing import Checkpointing
    from .children import Children
    from .stepwise import Gate

logger = logging.getLogger("durable_flow")

MAX_IDLE_CLAIMS = 5

Reply = asyncio.Future[None]


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
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
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
        # The questions of before this engine took the run up; None: it has created it.
        self.asked_before: AskedBefore | None = None
        self.outcome: Outcome | None = None
        self.closed = False
        # Who is told of each append, and of what steps do; nearly always nobody.
        self.observers = program.observers
        self.checkpointing: Checkpointing | None = None
        self.followers: Mapping[int, Collection[Callable[[], None]]] = {}
        self.internals: Internals | None = None
        # What the run's row says, as far as it is durable.
        self.standing = standing_of(state)
        # Numbered as the state numbers what it holds: behind the records of the runs that this one goes on from.
        self.durable_seq = state.offset + state.seq
        # The last snapshot, its bytes, and from which seq on the next one is due.
        self.snapshot_seq = self.snapshot_size = self.snapshot_due = 0
        note_snapshot(self, 0, 0)
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
        self.answers = Answers(self.run_id, state, program)

    @cached_property
    def waiting(self) -> Waiting[str | int]:
        """The steps that wait: for what becomes of a wait, by its id, or for a timer, by its seq."""
        return Waiting(self.loop)

    # -- In ------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start what is due; called once, after the run was created or claimed."""
        if self.state.claims > MAX_IDLE_CLAIMS and not self.state.ended and not self.state.attention:
            self.accept(AttentionNeeded(why_crashing(self.run_id, self.state.claims)))
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
        wait_id = wait_id or named_wait(event)
        incoming = from_caller(self.program, self.run_id, event, step, wait_id)
        if self.state.ended:
            raise self._finished_error()
        self.answers.require_open(event, wait_id)
        if isinstance(event, StopEvent):
            self.stop_event = self.stop_event or event
        reply = self.loop.create_future()
        self.accept(incoming, reply)
        return reply

    def asks_for(self, event: Event, wait_id: str | None) -> bool:
        """Tell whether an event from outside answers a question of the run that is still open."""
        return not self.closed and not self.state.ended and self.answers.asks_for(event, wait_id or named_wait(event))

    def cancel(self, reason: str) -> Reply:
        """End the run as cancelled."""
        reply = self.loop.create_future()
        self.accept(CancelRequested(reason), reply)
        return reply

    def take_messages(self, rows: Iterable[MessageRow]) -> None:
        """Take unconsumed messages, each once."""
        for row in rows:
            if row.id not in self._messages:
                self._messages.add(row.id)
                self.accept(from_message(self.program, self.run_id, row))

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
                incoming = prepared(self, incoming, reply)
                facts = decide(self.state, incoming)
                self._apply(facts, now, records)
                if reply is not None and not reply.done():
                    if facts or not self.state.ended:
                        self._replies.append((self.state.seq, reply))
                    else:
                        reply.set_exception(self._finished_error())
                self._fire_joins(now, records)
            if records:
                update = row_update(self.state, self._status)
                if update is not None:
                    self._status = (update.status, update.wake_at)
                append = Append(self.claim.run, self.run_id, after, self.claim.epoch, records, update)
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
            if type(fact) is ContextSet and len(fact.value.data) >= LEAST_BYTES:
                # The state takes the value whole: folding the splice gives the same.
                records.append(spliced(record, fact, self.state.context.get(fact.key)))
            else:
                records.append(record)
            evolve(self.state, record)

    def _fire_joins(self, now: int, records: list[Record]) -> None:
        """Add what the fan-ins do about the state: a group each, in the same append."""
        while (self.state.ripe or self.state.idle) and (facts := due_joins(self.state)):
            self._apply(facts, now, records)

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
            publish(self, record)
            # In the journal's order: in that one a re-run hands recorded outcomes out.
            while replies and replies[0][0] <= record.seq:
                _end(replies.popleft()[1], None)
        if self.internals is not None:
            self.internals.appended(records)
        self._act()
        if self.state.seq >= self.snapshot_due:
            self.host.snapshot_is_due(self)
        if self._inbox:
            self._turn_soon()

    def _act(self) -> None:
        """Carry out what is due."""
        if self.state.ended or self.state.attention:
            self._finish()
            return
        self.acted_at = self.clock.now()
        for command in due(self.state, self.limits, self.acted_at, self.workers.busy, self.running):
            carry_out(self, command)
        if self.internals is not None:
            self.internals.acted()
        if self.gate is not None:
            self.gate.look()
        if self.state.claims >= SUSPICIOUS_CLAIMS and self._is_at_rest():
            self.accept(CameToRest())
        self._consider_release()

    def set_alarm(self, at: int) -> None:
        """Ask again what is due at this time at the latest."""
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

    def running_steps(self) -> list[str]:
        """Return the names of the steps that are in flight."""
        return [step for step, tasks in self.running.items() if tasks]

    # -- Steps ---------------------------------------------------------------------------------------------------------

    def start(self, task: Task) -> None:
        """Start an attempt of a task."""
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

    def step_ended(self, task_id: TaskId) -> None:
        """The attempt's outcome is durable: it is no longer in flight and gives its worker back."""
        execution = self.executions.pop(task_id)
        del self.running[task_id.step][task_id]
        if execution.has_worker:
            self.workers.give_back(task_id.step)

    # -- What executions ask -------------------------------------------------------------------------------------------

    def drafts_on(self, key: str) -> tuple[Fact, ...]:
        """Take what a write of this key from outside rests on."""
        return self.drafts.take_for(key, self.executions)

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
        if self._idle_release_seconds is not None and idle and not (self.checkpointing and self.checkpointing.is_busy):
            self._idle = self.loop.call_later(self._idle_release_seconds, self._release_if_idle)

    def _release_if_idle(self) -> None:
        if self.state.parked and not self.executions and not self._inbox and not self._appending:
            logger.info("run %s released", self.run_id, extra=fields("run_released", self.run_id))
            self.release()

    def _finish(self) -> None:
        if self.closed or (self.checkpointing is not None and self.checkpointing.holds_the_end()):
            return
        state = self.state
        if state.ended == COMPLETED:
            assert state.result is not None
            stop = self.stop_event if self.stop_event is not None else self.program.codec.decode_event(state.result)
            self.outcome = Outcome.completed(self.run_id, stop)
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
