"""One execution of one attempt of a step: its effects on the run (design section 3)."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import (
    ContextStateError,
    SerializationError,
    StepDivergedError,
    StepReleased,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
)
from ..events import Event, HumanResponseEvent, InputRequiredEvent, StopEvent, event_name
from ..fold import take_from_buffer
from ..records import (
    CALL,
    CHECKPOINT,
    COLLECT,
    SENT,
    SLEEP,
    STREAM,
    WAIT,
    WRITE,
    BufferReleased,
    CallRecorded,
    CheckpointNamed,
    ContextDeleted,
    ContextSet,
    EffectReused,
    EncodedEvent,
    EncodedValue,
    EventCollected,
    EventEmitted,
    Fact,
    Place,
    StepDiverged,
    StreamPublished,
    StreamReset,
    TimerSet,
    WaitClosed,
    WaitOpened,
)
from ..state import Effect, Task
from .history import History
from .live import MISSING, REQUIRED, require_key

if TYPE_CHECKING:
    from .live import Mirror
    from .program import Program
    from .run import Run

MICROSECONDS = 1_000_000
# A replayed strand may need a few turns of the loop (nested tasks) before it asks for its recorded outcome.
TURNS_TO_SETTLE = 3
# Behind every record: for what a later attempt takes over from an earlier one.
NEVER_RECORDED = 1 << 62


class Execution:
    """What a step's Context talks to. All methods run in the loop's thread; `FromThread` gets there from another."""

    def __init__(self, run: Run, task: Task):
        self.run = run
        self.task_id = task.id
        self.attempt = task.attempt
        self.failures = task.failures
        self.step = task.id.step
        self.codec = run.program.codec
        self.keys: set[str] = set()
        self.reads_all = False
        self.attached = True
        self.worker_task: asyncio.Task[None] | None = None
        self.suspended = 0
        self.has_worker = True
        self._history = History(run.state, task)
        self._private: dict[str, tuple[Any, EncodedValue | None]] = {}
        self._touched: dict[str, None] = {}
        self._items: list[EncodedEvent] = []
        self._items_from = 0
        self._urgent = False
        self._flush_at_suspension = False
        self._calls: dict[str, asyncio.Future[None]] = {}
        self._replay: list[tuple[int, asyncio.Future[None]]] = []
        self._replay_turns = 0
        self._sleepers: set[asyncio.Future[Any]] = set()

    # -- The context ---------------------------------------------------------------------------------------------------

    def read(self, key: str, default: Any = REQUIRED) -> Any:
        """Return the live object of a key; KeyError without a default."""
        self._require_attached()
        self.keys.add(key)
        value = self._see(key)
        if value is not MISSING:
            return value
        if default is REQUIRED:
            raise KeyError(key)
        return default

    def visible_keys(self) -> list[str]:
        """Return every key that the step sees; it has then read the whole context."""
        self._require_attached()
        self.reads_all = True
        self.run.live.whole_reads += 1
        return self.peek_keys()

    def peek(self, key: str) -> Any:
        """Return what the step sees of a key, MISSING if nothing; not a read."""
        touched = key in self._touched
        value = self._see(key)
        if not touched:
            self._touched.pop(key, None)
        return value

    def peek_keys(self) -> list[str]:
        """Return every key that the step sees; not a read."""
        keys = [k for k in self.run.live if self._history.standing_write(k) is None or self.peek(k) is not MISSING]
        return keys + [
            k for k in self._history.standing_keys() if k not in self.run.live and self.peek(k) is not MISSING
        ]

    def show(self, view: Mirror) -> None:
        """Fill a view that holds values itself, and keep it up to date; not a read."""
        for key in self.peek_keys():
            view.mirror(key)
        self.run.live.mirrors.add(view)

    def fill(self, names: Collection[str], defaults: Callable[[], Mapping[str, Any]]) -> None:
        """Give those of these keys that are missing their defaults.

        They are drafts of this step, but no effect of it: a re-run finds them as they are and does not meet them again.
        """
        missing = [key for key in names if self.peek(key) is MISSING]
        if not missing:
            return
        self._require_attached()
        values = defaults()
        for key in missing:
            if self._history.standing_write(key) is not None:
                self._private[key] = (values[key], None)  # what it then wrote stands
                continue
            encoded, value = self.run.live.encode_value(values[key], key)
            self.run.live.set(key, value, encoded)
            self._draft(ContextSet(key, encoded, None, 0, 0), key)

    def _see(self, key: str) -> Any:
        """Return what the step sees of a key, to be looked at again for changes in place.

        While it has standing writes not yet repeated it sees a private copy of the value before the next of them.
        """
        standing = self._history.standing_write(key)
        if standing is not None:
            if key not in self._private:
                before = standing.before
                value = MISSING if before is None else self.codec.decode_value(before)
                self._private[key] = (value, before)
            return self._private[key][0]
        entry = self.run.live.entry(key)
        if entry is None:
            return MISSING
        if entry.mutable:
            self._touched[key] = None
        return entry.value

    def write(self, key: str, value: Any) -> None:
        """Set a key; visible to other steps at once, durable with the step's next commit."""
        self._require_attached()
        require_key(key, f"step {self.step!r} of run {self.run.run_id}")
        encoded, value = self.run.live.encode_value(value, key)
        self._write(key, value, encoded)

    def delete(self, key: str) -> None:
        """Delete a key; KeyError if there is none."""
        self._require_attached()
        if self._see(key) is MISSING:
            self.keys.add(key)
            raise KeyError(key)
        self._write(key, MISSING, None)

    def _write(self, key: str, value: Any, encoded: EncodedValue | None) -> None:
        self.keys.add(key)
        self._touched.pop(key, None)
        place, record = self._history.take(WRITE, key)
        if record is not None:
            if record.content != encoded:
                self._diverged(record)
            self._history.repeat_write(key)
            self._keep_object(key, value, encoded)
            self.run.live.refresh(key)
            return
        if encoded is None:
            self.run.live.delete(key)
            self._draft(ContextDeleted(key, self.task_id, self.attempt, place.k), key)
        else:
            self.run.live.set(key, value, encoded)
            self._touched[key] = None
            self._draft(ContextSet(key, encoded, self.task_id, self.attempt, place.k), key)

    def _keep_object(self, key: str, value: Any, encoded: EncodedValue | None) -> None:
        """Let the object of a repeated write stay the key's: what the step changes in it later must be found.

        Unless the next value is another one, because the step diverged or because others wrote.
        """
        self._private.pop(key, None)
        if encoded is None or self.codec.is_immutable(value):
            return
        standing = self._history.standing_write(key)
        if standing is not None:
            if standing.before is not None and self._baseline(standing.before) == encoded:
                self._private[key] = (value, standing.before)
            return
        entry = self.run.live.entry(key)
        if entry is not None and entry.encoded == encoded:
            self.run.live.set(key, value, encoded)
            self._touched[key] = None

    def detect_changes(self, *, strict: bool = True) -> None:
        """Turn changes in place of objects that the step has read into writes.

        Called by each effect that commits, also by one that a re-run meets again, and not by the commit itself: so the
        changes are found at the same points of the program, wherever the step was suspended. Not strict: one that
        cannot be encoded is left for the attempt's end, which it fails. What the holder of `ctx.lock` has looked at is
        left to it, so that half a change is nobody's.
        """
        holder = self.run.lock_holder
        locked = holder._touched if isinstance(holder, Execution) and holder is not self else ()
        for key in list(self._touched):
            entry = self.run.live.entry(key)
            if entry is None or not entry.mutable or key in locked or self._history.standing_write(key) is not None:
                continue
            try:
                encoded, value = self.run.live.encode_value(entry.value, key)
            except SerializationError:
                if strict:
                    raise
                continue
            if encoded != entry.encoded:
                self._write(key, value, encoded)
        for key, (value, before) in list(self._private.items()):
            if value is MISSING or before is None or self.codec.is_immutable(value):
                continue
            try:
                encoded, value = self.run.live.encode_value(value, key)
            except SerializationError:
                if strict:
                    raise
                continue
            if encoded != self._baseline(before):
                self._write(key, value, encoded)

    def drop_changes(self) -> None:
        """Undo changes in place that cannot be encoded, so that nobody else meets them."""
        for key in list(self._touched):
            entry = self.run.live.entry(key)
            if entry is not None and entry.mutable:
                try:
                    self.codec.encode_value(entry.value, key)
                except SerializationError:
                    self.run.live.restore(key)
        self._private.clear()

    def _baseline(self, stored: EncodedValue) -> EncodedValue:
        return self.codec.encode_value(self.codec.decode_value(stored), "value")

    # -- Events and stream ---------------------------------------------------------------------------------------------

    def send(self, event: Event, step: str | None = None) -> None:
        """Emit an event; handed over at the step's next suspension or at its end."""
        self._require_attached()
        targets = route(self.run.program, self.run.run_id, event, step)
        encoded, event = self.run.live.encode_event(event)
        if isinstance(event, StopEvent):
            self.run.stop(self.carried(), encoded, event)
            return
        self.detect_changes(strict=False)
        place, record = self._history.take(SENT, encoded.name)
        content = (encoded, step)
        if record is not None:
            if record.content != content:
                self._diverged(record)
            return
        if self._reuse(place, content) is not None:
            return
        self.run.keep_live(encoded, event, targets)
        self._draft(EventEmitted(encoded, self.task_id, self.attempt, place.k, targets, step))
        self._flush_urgently()

    def publish(self, event: Event) -> None:
        """Publish an item on the run's stream, in order."""
        self._require_attached()
        if not isinstance(event, Event):
            raise WorkflowRuntimeError(
                f"step {self.step!r} of run {self.run.run_id} published a {type(event).__name__}; "
                "write_event_to_stream takes Event instances"
            )
        encoded = self.codec.encode_event(event)
        record = self._history.next_stream_item()
        if record is not None and record.content == digest_of(encoded):
            self._history.take(STREAM, "")
            return
        if record is not None:
            self._reset_stream(record)
        place, _ = self._history.take(STREAM, "")
        if not self._items:
            self._items_from = place.k
        self._items.append(encoded)
        self._flush_soon()

    def _reset_stream(self, record: Effect) -> None:
        self._commit_alone(StreamReset(self.task_id, self.attempt, record.place.k, 0, record.outcome))
        self._history.forget_stream()

    def _take_items(self) -> list[Fact]:
        if not self._items:
            return []
        items, self._items = tuple(self._items), []
        digests = tuple(digest_of(item) for item in items)
        return [StreamPublished(0, digests, self.task_id, self.attempt, self._items_from, items)]

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Event] | None:
        """Put the event into a buffer and return the expected events once all are there, in the order of `expected`."""
        self._require_attached()
        if not expected:
            return []
        if type(event) not in expected:
            return None
        buffer = buffer_id if buffer_id is not None else self.step
        self.keys.add(f"\0buffer:{buffer}")
        encoded, event = self.run.live.encode_event(event)
        self.detect_changes(strict=False)
        place, record = self._history.take(COLLECT, buffer)
        if record is not None and record.content != encoded:
            self._diverged(record)
        if record is None:
            record = self._reuse(place, encoded)
        if record is not None:
            return None if record.outcome is None else [self.codec.decode_event(e) for e in record.outcome]
        collected = self.run.buffers.setdefault(buffer, [])
        collected.append(Collected(encoded, event))
        self._draft(EventCollected(self.task_id, self.attempt, buffer, place.k, encoded), f"\0buffer:{buffer}")
        self._flush_urgently()
        if len(collected) < len(expected):
            return None
        names = [event_name(cls) for cls in expected]
        if Counter(names) - Counter(item.name for item in collected):
            return None
        released = take_from_buffer(collected, names)
        fact = BufferReleased(self.task_id, self.attempt, buffer, place.k, tuple(names))
        self._draft(fact, f"\0buffer:{buffer}")
        return [item.event if item.event is not None else self.codec.decode_event(item.encoded) for item in released]

    # -- Effects that are awaited --------------------------------------------------------------------------------------

    async def call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run `fn` at least once until its result is durable, then never again for this task."""
        self._require_attached()
        if name in self._calls:
            raise WorkflowRuntimeError(
                f"step {self.step!r} of run {self.run.run_id} has two calls named {name!r} under way at once; "
                "their results could not be told apart after a crash: give concurrent calls distinct names"
            )
        arguments = self._digest(args, kwargs)
        self.detect_changes(strict=False)
        place, record = self._history.take(CALL, name)
        if record is not None:
            if arguments is not None and record.content is not None and record.content != arguments:
                raise StepDivergedError(
                    f"step {self.step!r} of run {self.run.run_id} ran again after a crash and made its recorded call "
                    f"{name!r} (number {place.k + 1}) with other arguments. Nothing was called. Take the varying value "
                    f"through ctx.call too, then flow.resume({self.run.run_id!r})"
                )
            await self._in_turn(record.seq)
            return self.codec.decode_value(record.outcome)
        if arguments is not None:
            await self._after_replay(NEVER_RECORDED)
            record = self._reuse(place, arguments)
            if record is not None:
                return self.codec.decode_value(record.outcome)
        under_way = self._calls[name] = self.run.loop.create_future()
        try:
            result = await _invoke(fn, args, kwargs)
            self._require_attached()
            encoded = self.codec.encode_value(result, f"result of call {name!r}")
            durable = self._commit(CallRecorded(self.task_id, self.attempt, name, place.k, arguments, encoded))
        except BaseException:
            self._history.give_back(place)
            raise
        finally:
            del self._calls[name]
            under_way.set_result(None)
        await durable
        await self._after_replay(place)
        return result

    async def sleep(self, seconds: float) -> None:
        """Sleep on a durable timer: a re-run sleeps for what is left of it."""
        self._require_attached()
        self._refuse_lock("sleeps on a durable timer")
        self.detect_changes(strict=False)
        place, record = self._history.take(SLEEP, "")
        if record is None:
            due_at = self.run.clock.now() + round(max(0.0, seconds) * MICROSECONDS)
            await self._commit(TimerSet(self.task_id, self.attempt, place.k, due_at))
            timer = self.run.state.timers[self._outcome_at(place)]
        else:
            timer = self.run.state.timers[record.outcome]
        if timer.fired_at and timer.fired_at <= self.run.durable_seq:
            await self._in_turn(timer.fired_at)
            return
        await self._suspend(self.run.sleeper(timer.seq))
        await self._after_replay(timer.fired_at)

    async def wait_for(
        self,
        cls: type[Event],
        *,
        prompt: Event | None,
        waiter_id: str | None,
        requirements: Mapping[str, Any] | None,
        timeout: float | None,
    ) -> Event:
        """Wait for an event; raises TimeoutError when the deadline, kept in the journal, passes first."""
        self._require_attached()
        self._refuse_lock("waits for an event")
        wanted = (event_name(cls),)
        asked = None if prompt is None else self.codec.encode_event(prompt)
        needed = self.codec.encode_value(dict(requirements), "requirements") if requirements else None
        content = (wanted, asked, needed)
        name = waiter_id if waiter_id is not None else wanted[0]
        self.detect_changes(strict=False)
        place, record = self._history.take(WAIT, name)
        closed: tuple[Fact, ...] = ()
        if record is not None and record.content != content and waiter_id is None:
            # An answer is given only to the question that was asked.
            if record.outcome in self.run.state.waits:
                closed = (WaitClosed(record.outcome),)
            record = None
        elif record is None:
            record = self._reuse(place, content)
            if record is not None:
                await self._commit()
        if record is None:
            deadline = None if timeout is None else self.run.clock.now() + round(timeout * MICROSECONDS)
            human = issubclass(cls, HumanResponseEvent) or isinstance(prompt, InputRequiredEvent)
            schema = self.run.schema_of((cls,)) if human else None
            fact = WaitOpened(
                "", self.task_id, self.attempt, name, place.k, waiter_id is not None, wanted, needed, deadline, asked,
                human, schema,
            )  # fmt: skip
            await self._commit(*closed, fact)
            wait_id = self._outcome_at(place)
        else:
            wait_id = record.outcome
        wait = self.run.state.waits[wait_id]
        if wait.settled_at and wait.settled_at <= self.run.durable_seq:
            await self._in_turn(wait.settled_at)
        else:
            await self._suspend(self.run.waiter(wait_id))
            await self._after_replay(wait.settled_at)
        if wait.timed_out:
            raise TimeoutError(
                f"step {self.step!r} of run {self.run.run_id}: no {wanted[0]} came before the deadline of its wait "
                f"{wait_id}"
            )
        assert wait.answer is not None
        return self.run.answer(wait)

    async def checkpoint(self, name: str) -> None:
        """Commit what the step did so far and name this position."""
        self._require_attached()
        self.detect_changes(strict=False)
        place, record = self._history.take(CHECKPOINT, name)
        if record is None:
            await self._commit(CheckpointNamed(self.task_id, self.attempt, name, place.k))
            await self._after_replay(place)
        else:
            await self._in_turn(record.seq)

    def idempotency_key(self, name: str | None) -> str:
        """Return a key that is stable over attempts and restarts of this task, and another one in a fork."""
        text = f"{self.run.state.uid}:{self.task_id.seq}:{self.step}:{name or ''}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    # -- The end of the attempt ----------------------------------------------------------------------------------------

    def finish(self, completed: bool) -> tuple[Fact, ...]:
        """Return the drafts that the attempt's end carries, and detach the context."""
        self.detect_changes()
        left = self._history.next_stream_item()
        if left is not None:
            self._reset_stream(left)
        if completed:
            for effect in self._history.unmet():
                self._diverged(effect)
        drafts = self.run.drafts.take(self.task_id, self.run.executions)
        self.attached = False
        return (*drafts, *self._take_items())

    def carried(self) -> tuple[Fact, ...]:
        """Return everybody's drafts: the end of a run carries them all."""
        self.detect_changes()
        return (*self.run.everybodys_drafts(), *self._take_items())

    async def calls_settled(self) -> None:
        """Wait until no call of this attempt is in flight."""
        while self._calls:
            await asyncio.wait(list(self._calls.values()))
            await asyncio.sleep(0)

    def release(self) -> None:
        """Detach the context, then wake what waits in it with StepReleased."""
        self.attached = False
        for future in list(self._sleepers):
            if not future.done():
                future.set_exception(StepReleased(f"run {self.run.run_id} was released while this step waited"))

    # -- Parts ---------------------------------------------------------------------------------------------------------

    def _require_attached(self) -> None:
        if not self.attached:
            raise ContextStateError(self._detached())

    def _refuse_lock(self, what: str) -> None:
        editing = self.run.editor is not None and self.run.editor is asyncio.current_task()
        if editing or self.run.lock_holder is self:
            where = "edit_state" if editing else "ctx.lock"
            raise ContextStateError(
                f"step {self.step!r} of run {self.run.run_id} {what} inside {where}; nobody else could get the lock "
                f"until that is over, and it is not kept over a restart. Leave {where} first"
            )

    def _detached(self) -> str:
        return (
            f"the context of step {self.step!r} (attempt {self.attempt}) of run {self.run.run_id} is detached: the "
            "attempt has ended or the run was released. Await all work of a step before it returns"
        )

    def _outcome_at(self, place: Place) -> Any:
        """Return the outcome of an effect that has just become durable."""
        effects = self.run.state.tasks[self.task_id].effects
        assert effects is not None
        return effects[self.attempt][place].outcome

    def _recorded_at(self, place: Place) -> int:
        """Return the seq of an effect that has just become durable."""
        effects = self.run.state.tasks[self.task_id].effects
        assert effects is not None
        return effects[self.attempt][place].seq

    def _draft(self, fact: Fact, key: str | None = None) -> None:
        self.run.drafts.add(self.task_id, key, fact)

    def _diverged(self, record: Effect) -> None:
        place = record.place
        if self.run.note_divergence(self.task_id, place):
            self._draft(StepDiverged(self.task_id, self.attempt, place.kind, place.name, place.k))

    def _reuse(self, place: Place, content: Any) -> Effect | None:
        old = self._history.equal(place.kind, place.name, content)
        if old is not None:
            self._draft(EffectReused(self.task_id, self.attempt, place.kind, place.name, place.k, old.seq))
        return old

    def _digest(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        try:
            data = self.codec.encode_value([list(args), dict(sorted(kwargs.items()))], "arguments").data
        except SerializationError:
            return None  # such arguments take no part in comparisons
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    def _commit(self, *facts: Fact) -> asyncio.Future[None]:
        """Hand over the step's drafts, what they rest on, and `facts`; the future ends when they are durable."""
        self._urgent = False
        carried = self.run.drafts.take(self.task_id, self.run.executions)
        return self.run.commit((*carried, *self._take_items(), *facts))

    def _commit_alone(self, *facts: Fact) -> None:
        self.run.commit((*self._take_items(), *facts))

    def _flush_soon(self) -> None:
        """Hand over synchronous effects when the step suspends; if it returns first, its completion takes them."""
        if not self._flush_at_suspension:
            self._flush_at_suspension = True
            self.run.loop.call_soon(self._flush)

    def _flush_urgently(self) -> None:
        self._urgent = True
        self._flush_soon()

    def _flush(self) -> None:
        self._flush_at_suspension = False
        if not self.attached:
            return
        if self._urgent:
            self._commit()
        elif self._items:
            self._commit_alone()

    async def _suspend(self, future: asyncio.Future[Any]) -> None:
        """Give up the step's worker while the future is pending; go on only with a free one."""
        self._sleepers.add(future)
        self.run.suspended(self)
        try:
            await future
        except BaseException:
            self.run.unsuspended(self, patient=False)
            raise
        finally:
            self._sleepers.discard(future)
        again = self.run.unsuspended(self, patient=True)
        if again is not None:
            self._sleepers.add(again)
            try:
                await again
            finally:
                self._sleepers.discard(again)

    async def _in_turn(self, seq: int) -> None:
        """Wait until every outcome awaited at the same time that is older has been handed out and made use of."""
        future = self.run.loop.create_future()
        self._replay.append((seq, future))
        if not self._replay_turns:
            self.run.loop.call_soon(self._hand_out)
        self._replay_turns = TURNS_TO_SETTLE
        await future

    def _hand_out(self) -> None:
        self._replay_turns -= 1
        if not self._replay_turns:
            if not self._replay:
                return
            oldest = min(self._replay, key=lambda item: item[0])
            self._replay.remove(oldest)
            if not oldest[1].done():
                oldest[1].set_result(None)
            self._replay_turns = TURNS_TO_SETTLE
        self.run.loop.call_soon(self._hand_out)

    async def _after_replay(self, at: Place | int) -> None:
        """While recorded outcomes are handed out, a new one, by its place or its seq, queues behind them."""
        if self._replay_turns:
            await self._in_turn(self._recorded_at(at) if isinstance(at, Place) else at)


class Collected:
    """An event in a buffer: its encoding and, in the process that collected it, the live object."""

    __slots__ = ("encoded", "event", "name")

    def __init__(self, encoded: EncodedEvent, event: Event | None):
        self.encoded = encoded
        self.event = event
        self.name = encoded.name


async def _invoke(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004
        return await fn(*args, **kwargs)
    result = await asyncio.to_thread(fn, *args, **kwargs)
    if inspect.isawaitable(result):
        return await result
    return result


def route(program: Program, run_id: str, event: Event, step: str | None) -> tuple[str, ...]:
    """Return the steps that an event goes to; raises for what cannot be sent."""
    if not isinstance(event, Event):
        raise WorkflowRuntimeError(f"send_event takes Event instances, not {type(event).__name__} (run {run_id})")
    if step is None:
        return () if isinstance(event, StopEvent) else program.targets(event)
    if step not in program.num_workers:
        raise WorkflowStepDoesNotExistError(
            f"run {run_id}: there is no step {step!r} in workflow {program.name}; "
            f"its steps are {', '.join(sorted(program.num_workers))}"
        )
    if not program.accepts(step, event):
        raise WorkflowRuntimeError(f"run {run_id}: step {step!r} does not accept {type(event).__name__}")
    return (step,)


def digest_of(event: EncodedEvent) -> str:
    """Return a short digest of an event, by which a re-run recognises a published item."""
    content = hashlib.blake2b(event.data, digest_size=9)
    content.update(event.name.encode())
    return content.hexdigest()
