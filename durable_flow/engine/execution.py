"""One execution of one attempt of a step: the effects that it awaits, and its end (design section 3, rules 4 to 9)."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import (
    ContextStateError,
    SerializationError,
    StepDivergedError,
    StepReleased,
    WorkflowRuntimeError,
)
from ..events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, event_name
from ..records import (
    CALL,
    CHECKPOINT,
    CHILD,
    SLEEP,
    WAIT,
    CallRecorded,
    CheckpointNamed,
    ChildStarted,
    EncodedValue,
    Fact,
    Place,
    TimerSet,
    WaitClosed,
    WaitOpened,
)
from ..retries import RetryInfo
from ..state import Effect, Task
from .answers import answer_schema
from .child_ids import child_run_id
from .clock import MICROSECONDS
from .failure import retry_info
from .handed import Handed
from .live import held_by_caller
from .replay import NEVER_RECORDED, ReplayOrder
from .step_output import StepOutput

if TYPE_CHECKING:
    from ..serializers.codec import Codec
    from .attachment import Attachment
    from .beginning import Beginning
    from .engine import Engine
    from .program import Program
    from .run import Run


# The name of the `ctx.call` whose function the current asyncio task, or the one that began it, is inside of.
IN_CALL: ContextVar[str | None] = ContextVar("durable_flow_in_call", default=None)


class PlannedChild(NamedTuple):
    """A child that a step starts: its run id, where its record stands, and when that is durable (None: it is).

    `seq` is that of its ChildStarted; None while that is not yet in the journal. In a replay `replayed` gives what the
    step gets in the place of a run.
    """

    run_id: str
    place: Place
    seq: int | None
    durable: asyncio.Future[None] | None
    replayed: Callable[[Engine, Program, StartEvent, EncodedValue | None, Beginning | None], Attachment] | None = None


class Execution(StepOutput):
    """What a step's Context talks to. All methods run in the loop's thread; `FromThread` gets there from another."""

    def __init__(self, run: Run, task: Task):
        super().__init__(run, task)
        self.worker_task: asyncio.Task[None] | None = None
        self.suspended = 0
        self.has_worker = True
        self.began_at = run.acted_at
        self.last_error: Exception | None = None
        self.handed = Handed()
        self._calls: dict[str, asyncio.Future[None]] = {}
        self._sleepers: set[asyncio.Future[Any]] = set()

    @cached_property
    def _replay(self) -> ReplayOrder:
        return ReplayOrder(self.run.loop)

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
            await self._replay.in_turn(record.seq)
            return self.codec.decode_value(record.outcome)
        if arguments is not None:
            await self._after_replay(NEVER_RECORDED)
            record = self._reuse(place, arguments)
            if record is not None:
                return self.codec.decode_value(record.outcome)
        under_way = self._calls[name] = self.run.loop.create_future()
        try:
            outside = IN_CALL.get()
            IN_CALL.set(name)
            try:
                result = await invoke(fn, args, kwargs)
            finally:
                IN_CALL.set(outside)
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
            timer = self.run.state.timers[self.effect_at(place).outcome]
        else:
            timer = self.run.state.timers[record.outcome]
        if timer.fired_at and timer.fired_at <= self.run.durable_seq:
            await self._replay.in_turn(timer.fired_at)
            return
        await self._suspend(self.run.waiting.future(timer.seq))
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
        if record is not None and not self._history.is_same(record, content) and waiter_id is None:
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
            schema = answer_schema((cls,)) if human else None
            fact = WaitOpened(
                "", self.task_id, self.attempt, name, place.k, waiter_id is not None, wanted, needed, deadline, asked,
                human, schema,
            )  # fmt: skip
            await self._commit(*closed, fact)
            wait_id = self.effect_at(place).outcome
        else:
            wait_id = record.outcome
        wait = self.run.state.waits[wait_id]
        if wait.settled_at and wait.settled_at <= self.run.durable_seq:
            await self._replay.in_turn(wait.settled_at)
        else:
            await self._suspend(self.run.waiting.future(wait_id))
            await self._after_replay(wait.settled_at)
        if wait.timed_out:
            raise TimeoutError(
                f"step {self.step!r} of run {self.run.run_id}: no {wanted[0]} came before the deadline of its wait "
                f"{wait_id}"
            )
        assert wait.answer is not None
        return self.codec.decode_event(wait.answer)

    def start_child(self, program: Program, run_id: str | None, arguments: EncodedValue | None) -> PlannedChild:
        """Record that the step starts a child, or find the record of that; `run_id` is one that the step has named."""
        workflow = program.name
        self._require_attached()
        if IN_CALL.get() is not None:
            raise ContextStateError(
                f"step {self.step!r} of run {self.run.run_id} starts a run of {workflow} inside the function of its "
                f"call {IN_CALL.get()!r}. That function is not called again once its result is recorded, and its run "
                "would not be found again. Start the run in the step, outside of ctx.call"
            )
        self.detect_changes(strict=False)
        place, record = self._history.take(CHILD, workflow)
        content = (arguments, run_id)
        durable: asyncio.Future[None] | None = None
        if record is not None:
            if not same_child(program.codec, record.content, content):
                raise StepDivergedError(
                    f"step {self.step!r} of run {self.run.run_id} ran again after a crash and started its recorded run "
                    f"of {workflow} (number {place.k + 1}) with other arguments. Nothing was started. Take the varying "
                    f"value through ctx.call, then flow.resume({self.run.run_id!r})"
                )
        else:
            record = self._reuse(place, content)
            if record is not None:
                durable = self._commit()
        if record is not None:
            child = self.run.state.children[record.outcome]
            return PlannedChild(child.run_id, place, child.seq, durable)
        state = self.run.state
        id = run_id or child_run_id(self.run.run_id, state.uid, self.task_id, self.attempt, place, state.revivals)
        started = ChildStarted(self.task_id, self.attempt, place.k, workflow, id, arguments, run_id is not None)
        return PlannedChild(id, place, None, self._commit(started))

    async def child_ended(self, seq: int) -> None:
        """Wait for the end of a child, in its turn; the step's worker is free meanwhile."""
        self._require_attached()
        child = self.run.state.children.get(seq)
        if child is None:
            return  # ended, and so has the step that had started it
        if child.ended_at and child.ended_at <= self.run.durable_seq:
            await self._replay.in_turn(child.ended_at)
            return
        assert self.run.children is not None
        await self.pause_for_child(self.run.children.end_of(seq))
        await self._after_replay(child.ended_at)

    async def pause_for_child(self, future: asyncio.Future[Any]) -> None:
        """Give up the step's worker until a child has news."""
        self._refuse_lock("waits for a run that it has started")
        await self._suspend(future)

    def child_message_id(self, run_id: str, wait_id: str | None) -> str:
        """Return the id of what the step sends to a child next: a re-run sends the same under the same id."""
        place, _ = self._history.take("message", run_id)
        which = f"{self.attempt}:{place.k}" if wait_id is None else f"answer:{wait_id}"
        return self.idempotency_key(f"message:{run_id}:{which}")

    async def checkpoint(self, name: str) -> None:
        """Commit what the step did so far and name this position."""
        self._require_attached()
        self.detect_changes(strict=False)
        place, record = self._history.take(CHECKPOINT, name)
        if record is None:
            await self._commit(CheckpointNamed(self.task_id, self.attempt, name, place.k))
            await self._after_replay(place)
        else:
            await self._replay.in_turn(record.seq)

    def idempotency_key(self, name: str | None) -> str:
        """Return a key that is stable over attempts and restarts of this task, and another one in a fork."""
        text = f"{self.run.state.uid}:{self.task_id.seq}:{self.step}:{name or ''}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def retry_info(self) -> RetryInfo:
        """Return what the attempts before this one came to."""
        self._require_attached()
        return retry_info(self.run, self.run.state.tasks[self.task_id], self.last_error)

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

    def _refuse_lock(self, what: str) -> None:
        where = held_by_caller(self.run)
        if where is not None:
            raise ContextStateError(
                f"step {self.step!r} of run {self.run.run_id} {what} inside {where}; nobody else could get the lock "
                f"until that is over, and it is not kept over a restart. Leave {where} first"
            )

    def effect_at(self, place: Place) -> Effect:
        """Return an effect that has just become durable."""
        effects = self.run.state.tasks[self.task_id].effects
        assert effects is not None
        return effects[self.attempt][place]

    def _digest(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        try:
            data = self.codec.encode_value([list(args), dict(sorted(kwargs.items()))], "arguments").data
        except SerializationError:
            return None  # such arguments take no part in comparisons
        return hashlib.blake2b(data, digest_size=16).hexdigest()

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
        self._require_attached()  # the attempt may have ended meanwhile, and so have its waits

    async def _after_replay(self, at: Place | int) -> None:
        """While recorded outcomes are handed out, a new one, by its place or its seq, queues behind them."""
        if self._replay.under_way:
            await self._replay.in_turn(self.effect_at(at).seq if isinstance(at, Place) else at)


def same_child(codec: Codec, recorded: Any, content: tuple[EncodedValue | None, str | None]) -> bool:
    """Tell whether a child is the recorded one: by its arguments, and the run id that the step has named."""
    before, now = recorded[0], content[0]
    if recorded == content or recorded[1] != content[1] or before is None or now is None:
        return bool(recorded == content)
    # Codecs other than JSON are not canonical: equal values may have other bytes.
    return bool(codec.decode_value(before) == codec.decode_value(now))


async def invoke(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call an async function, or a plain one in a thread."""
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004
        return await fn(*args, **kwargs)
    result = await asyncio.to_thread(fn, *args, **kwargs)
    if inspect.isawaitable(result):
        return await result
    return result
