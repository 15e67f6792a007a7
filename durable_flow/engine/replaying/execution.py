"""One execution of a recorded step: its effects are met as after a crash, and judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from ...events import Event
from ...records import CALL, CHECKPOINT, CHILD, SLEEP, STREAM, WAIT, EncodedValue, Fact, Place
from ...state import Effect, Task
from ..execution import IN_CALL, Execution, PlannedChild, invoke, same_child
from ..history import History
from ..live import MISSING
from ..replay import NEVER_RECORDED, ReplayOrder
from .differences import makes_varying
from .judge import Judge
from .report import shown_arguments

if TYPE_CHECKING:
    from ..program import Program
    from ..run import Run
    from .stage import Stage


# The step stands at their records when it gets the outcome.
_AWAITED = frozenset({CALL, CHECKPOINT, CHILD, SLEEP, WAIT})


class JudgedHistory(History):
    """Tells a judge where the step comes to a record, and with what. The record then stands, as after a crash."""

    __slots__ = ("_judge", "_stage")

    def __init__(self, stage: Stage, task: Task, judge: Judge):
        super().__init__(stage.state, task, stage.program.codec)
        self._judge = judge
        self._stage = stage

    def take(self, kind: str, name: str) -> tuple[Place, Effect | None]:
        """Return the place of the next effect and its record; the step then stands there, unless it awaits it."""
        place, record = super().take(kind, name)
        if record is not None:
            self._judge.met(record, asyncio.current_task(self._stage.loop))
            if kind not in _AWAITED:
                self._stage.move(record.seq)
        return place, record

    def is_same(self, effect: Effect, content: Any) -> bool:
        """Judge what the step does at a recorded place."""
        self._judge.compare(effect, content)
        return True

    def equal(self, kind: str, name: str, content: Any) -> Effect | None:
        """Take an effect of an earlier attempt that is equal in content."""
        for at, effect in enumerate(self._earlier):
            if effect.place.kind == kind and effect.place.name == name and super().is_same(effect, content):
                return self._earlier.pop(at)
        return None

    def items_left(self) -> list[Effect]:
        """Return the recorded stream items that were not published again."""
        used = self._used.get((STREAM, ""), 0)
        return [effect for place, effect in self._records.items() if place.kind == STREAM and place.k >= used]


class MovingOrder(ReplayOrder):
    """Hands out recorded outcomes; whoever gets one then stands at its record."""

    __slots__ = ("_move",)

    def __init__(self, loop: asyncio.AbstractEventLoop, move: Callable[[int], None]):
        super().__init__(loop)
        self._move = move

    async def in_turn(self, seq: int) -> None:
        """Wait for the turn of the outcome that was recorded at `seq`."""
        await super().in_turn(seq)
        if seq < NEVER_RECORDED:
            self._move(seq)


class ReplayedExecution(Execution):
    """An Execution on a Stage. `is_live`: its calls really are made, and the runs that it starts really run."""

    _history: JudgedHistory

    def __init__(self, stage: Stage, task: Task, judge: Judge, filled: Mapping[str, EncodedValue], *, is_live: bool):
        super().__init__(cast("Run", stage), task)
        self.is_live = is_live
        self._stage = stage
        self._judge = judge
        self._filled = filled
        self._was_stopped = False
        # By the identity of what is stored, which is kept beside it.
        self._baselines: dict[int, tuple[EncodedValue, EncodedValue]] = {}
        self._history = JudgedHistory(stage, task, judge)
        stage.executions[task.id] = self
        judge.stops = self._end_here

    @cached_property
    def _replay(self) -> ReplayOrder:
        return MovingOrder(self.run.loop, self._stage.move)

    # -- Effects that need other answers than after a crash ------------------------------------------------------------

    async def call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the recorded result; in a live step, that of `fn`."""
        self._require_attached()
        arguments = self._digest(args, kwargs)
        self.detect_changes(strict=False)
        place, record = self._history.take(CALL, name)
        if record is None:
            earlier = self._history.equal(CALL, name, arguments) if arguments is not None else None
            if earlier is not None:
                self._judge.extra_place(place, "as in an earlier attempt")
                return self.codec.decode_value(earlier.outcome)
            shown = shown_arguments(args, kwargs)
            if not self.is_live:
                self._judge.stop("call", name, shown, _NO_CALL)
            self._judge.extra_place(place, shown)
        elif arguments is not None and record.content is not None and record.content != arguments:
            self._judge.other_arguments(record, args, kwargs)
        if self.is_live:
            return await self._really_call(name, fn, args, kwargs, record)
        assert record is not None
        await self._replay.in_turn(record.seq)
        return self.codec.decode_value(record.outcome)

    async def _really_call(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], record: Effect | None
    ) -> Any:
        outside = IN_CALL.get()
        IN_CALL.set(name)
        try:
            result = await invoke(fn, args, kwargs)
        finally:
            IN_CALL.set(outside)
        self._require_attached()
        self.codec.encode_value(result, f"result of call {name!r}")
        if record is not None:
            self._stage.move(record.seq)
        return result

    async def sleep(self, seconds: float) -> None:
        """Return at once where the recorded timer fired."""
        self._require_attached()
        self._refuse_lock("sleeps on a durable timer")
        self.detect_changes(strict=False)
        place, record = self._history.take(SLEEP, "")
        if record is None:
            self._judge.extra_place(place, f"{seconds:g} s")
            return
        timer = self.run.state.timers[record.outcome]
        if not timer.fired_at:
            await self._suspend(self.run.waiting.future(timer.seq))  # the step did not wait for its end
        await self._replay.in_turn(timer.fired_at)

    def start_child(self, program: Program, run_id: str | None, arguments: EncodedValue | None) -> PlannedChild:
        """Return the recorded child; a live step gets one of its own, in a journal in memory."""
        self._require_attached()
        self.detect_changes(strict=False)
        place, record = self._history.take(CHILD, program.name)
        if record is None:
            if not self.is_live:
                self._judge.stop("child", program.name, "a run", _NO_CHILD)
            self._judge.extra_place(place, "a run")
        elif not same_child(program.codec, record.content, (arguments, run_id)):
            self._judge.other_child(record, arguments, run_id)
        if self.is_live:
            return PlannedChild("", place, None, None, self._stage.host.live_child)
        assert record is not None
        child = self.run.state.children[record.outcome]
        recorded = partial(self._stage.host.recorded_child, self, child)
        return PlannedChild(child.run_id, place, child.seq, None, recorded)

    async def child_ended(self, seq: int) -> None:
        """Wait for the turn of a child's recorded end."""
        self._require_attached()
        self._refuse_lock("waits for a run that it has started")
        child = self.run.state.children[seq]
        if not child.ended_at:
            await self._suspend(self.run.waiting.future(seq))  # the step did not wait for its end
        await self._replay.in_turn(child.ended_at)

    def unanswerable(self, what: str, why: str) -> NoReturn:
        """End the step: the journal of a child has no answer. Raises StepStopped."""
        self._judge.stop("child", what, "its result", why)

    def publish(self, event: Event) -> None:
        """Judge a stream item."""
        self._require_attached()
        encoded = self._item(event)
        if encoded is not None:
            record = self._history.next_stream_item()
            place, _ = self._history.take(STREAM, "")
            self._judge.item(record, place.k, encoded, event)

    def fill(self, names: Collection[str], defaults: Callable[[], Mapping[str, Any]]) -> None:
        """Give missing fields of the typed state what was recorded as their defaults, and judge those of today."""
        # Also those that the step writes itself: it sees them already, but nobody has given them their place.
        missing = [key for key in names if key not in self._stage.live]
        if not missing:
            return
        values = defaults()
        for key in missing:
            unseen = self.peek(key) is MISSING
            encoded, value = self._stage.live.encode_value(values[key], key)
            recorded = self._filled.get(key)
            if recorded is not None and recorded != encoded:
                self._judge.filled(key, recorded, encoded, makes_varying(lambda key=key: defaults()[key]))  # type: ignore[misc]
            if recorded is None and unseen:
                # Another step has filled it in at the same time, or nobody has.
                recorded = self._stage.first(key)
                if recorded is None:
                    self._judge.filled(key, None, encoded, False)
            if recorded is not None and recorded != encoded:
                encoded, value = recorded, self.codec.decode_value(recorded)
            if unseen and self._history.standing_write(key) is not None:
                self._private[key] = (value, None)
            else:
                self._stage.live.set(key, value, encoded)

    # -- Objects -------------------------------------------------------------------------------------------------------

    def _keep_object(self, key: str, value: Any, encoded: EncodedValue | None) -> None:
        """As after a crash, without decoding what is known to be equal."""
        if (
            encoded is None
            or self._history.standing_write(key) is not None
            or not self._stage.live.keep(key, value, encoded)
        ):
            super()._keep_object(key, value, encoded)
            return
        self._private.pop(key, None)
        if not self.codec.is_immutable(value):
            self._touched[key] = None

    def _baseline(self, stored: EncodedValue) -> EncodedValue:
        """As after a crash; each effect of the step asks for it."""
        known = self._baselines.get(id(stored))
        if known is None:
            known = self._baselines[id(stored)] = (stored, super()._baseline(stored))
        return known[1]

    # -- The end -------------------------------------------------------------------------------------------------------

    def finish(self, completed: bool) -> tuple[Fact, ...]:
        """Judge what the step never came to, and detach the context."""
        if completed:
            self.detect_changes()
            self._judge.missing_items(self._history.items_left())
            for effect in self._history.unmet():
                self._judge.missing(effect)
        self.attached = False
        return ()

    def effect_at(self, place: Place) -> Effect:
        """Return the record of an effect; one without a record comes behind all others."""
        effects = self.run.state.tasks[self.task_id].effects or {}
        return effects.get(self.attempt, {}).get(place) or Effect(place, NEVER_RECORDED)

    def _end_here(self) -> None:
        """Nothing that the step still does counts."""
        self._was_stopped = True
        self._stage.closed, self.attached = True, False
        self._end_quietly()
        if self.worker_task is not None and self.worker_task is not asyncio.current_task(self.run.loop):
            self.worker_task.cancel()

    def _require_attached(self) -> None:
        if self._was_stopped and not self.attached:
            self._end_quietly()
        super()._require_attached()

    def release(self) -> None:
        """Wake what waits. Of a step that was stopped nobody is left to look how that ends."""
        if self._was_stopped:
            for future in list(self._sleepers):
                future.cancel()
        super().release()

    def _end_quietly(self) -> None:
        """Let a strand of the step end without a word in the log: the report says why the step was stopped."""
        strand = asyncio.current_task()
        if strand is not None and strand is not self.worker_task:
            strand.add_done_callback(_look_at)


def _look_at(strand: asyncio.Task[Any]) -> None:
    if not strand.cancelled():
        strand.exception()


_NO_CALL = "the run has no result of this call: either it did not make it, or its function raised then"
_NO_CHILD = "the run did not start this one, so there is no result"
