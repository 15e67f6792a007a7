"""What a step does today, held against what is recorded of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from ...errors import DeserializationError, DurableFlowError
from ...events import current_name
from ...incoming import Question, StepReturned
from ...journal.protocol import JournalStore
from ...records import (
    CALL,
    CHECKPOINT,
    CHILD,
    COLLECT,
    SENT,
    SLEEP,
    STREAM,
    WAIT,
    WRITE,
    CheckpointNamed,
    ContextDeleted,
    ContextSet,
    EffectReused,
    EncodedEvent,
    EncodedValue,
    ErrorInfo,
    EventCollected,
    EventEmitted,
    Fact,
    Place,
    WaitOpened,
)
from ...state import Effect, Task
from ..step_output import digest_of
from .differences import Differences
from .report import MAX_DIVERGENCES, NOTHING, Divergence, DivergenceKind, shown_arguments

_KINDS: dict[str, DivergenceKind] = {
    SENT: "event", WRITE: "context", STREAM: "stream", CALL: "call", WAIT: "wait", SLEEP: "sleep",
    COLLECT: "collect_events", CHECKPOINT: "checkpoint", CHILD: "child",
}  # fmt: skip
_NEVER_IGNORED = frozenset({"error", "timeout", "input", "step"})
# Behind every effect: what the step returns.
_LAST = 1 << 62


class StepStopped(BaseException):
    """Ends a step at an effect that cannot be answered. No `except Exception` of the step swallows it."""


class Findings:
    """What the judges of a replay have found, in the order of the journal."""

    def __init__(self, store: JournalStore, run: int, run_id: str, differences: Differences):
        self.store = store
        self.run = run
        self.run_id = run_id
        self.differences = differences
        self.count = 0
        self.divergences: list[Divergence] = []
        self.defaults: list[Divergence] = []

    def add(self, found: Sequence[Divergence], defaults: Sequence[Divergence]) -> None:
        """Take over what was found in a step."""
        self.count += len(found)
        self.divergences += found[: MAX_DIVERGENCES - len(self.divergences)]
        self.defaults += defaults[: MAX_DIVERGENCES - len(self.defaults)]


class _Found(NamedTuple):
    """A divergence, the seq of the effect at which or behind which it came, and which it was in time."""

    at: int
    turn: int
    divergence: Divergence


class _Item(NamedTuple):
    """A stream item that is not, to the byte, the recorded one; `new` is None if it did not come."""

    at: int
    turn: int
    k: int
    position: int
    new: EncodedEvent | None
    live: Any


class Judge:
    """Judges one completed step. `seq` is its checkpoint."""

    def __init__(self, findings: Findings, task: Task, seq: int):
        self._findings = findings
        self._task = task
        self._seq = seq
        self._found: list[_Found] = []
        self._defaults: list[Divergence] = []
        self._items: list[_Item] = []
        # The live objects of what the step encodes, by the identity of the encoded.
        self._objects: dict[int, tuple[Any, Any]] = {}
        # Called when the step is stopped.
        self.stops: Callable[[], None] = lambda: None
        # What a step still does that was stopped, or took too long, is not judged.
        self._is_over = False
        self._turns: Iterator[int] = itertools.count()
        # The seq of the last effect that was met.
        self._at = 0
        self._order: list[Effect] = []
        self._strands: set[object] = set()

    def encoded(self, encoded: EncodedEvent | EncodedValue, live: Any) -> None:
        """Take note of what something was encoded from."""
        self._objects[id(encoded)] = (encoded, live)

    # -- Effects -------------------------------------------------------------------------------------------------------

    def met(self, effect: Effect, strand: object) -> None:
        """The step came to a recorded effect, in this strand of its work."""
        self._at = effect.seq
        if effect.place.kind not in (WRITE, STREAM):
            self._order.append(effect)
            self._strands.add(strand)

    def compare(self, effect: Effect, content: Any) -> None:
        """Hold what the step does at a recorded place against the record."""
        if content == effect.content or self._is_unsettled(effect.place):
            return
        match effect.place.kind:
            case "write":
                self._compare(effect.seq, "context", effect.place.name, effect.content, content)
            case "send_event":
                (recorded, to), (new, step) = effect.content, content
                self._compare(effect.seq, "event", None, recorded, new)
                if to != step:
                    self._add(effect.seq, "event", f"{current_name(new.name)} (step=)", to, step)
            case "collect_events":
                self._compare(effect.seq, "collect_events", None, effect.content, content)
            case "wait":
                (wanted, asked, needed), (wants, asks, needs) = effect.content, content
                name = effect.place.name
                if wanted != wants:
                    self._add(effect.seq, "wait", name, ", ".join(wanted), ", ".join(wants))
                self._compare(effect.seq, "wait", None if asked and asks else name, asked, asks)
                self._compare(effect.seq, "wait", f"{name} (requirements)", needed, needs)

    def other_arguments(self, effect: Effect, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A recorded call is made with other arguments, of which the journal has a digest."""
        if not self._is_unsettled(effect.place):
            self._add(
                effect.seq, "call", effect.place.name, NOTHING, shown_arguments(args, kwargs),
                f"call number {effect.place.k + 1} of this name has other arguments than the recorded one, of which "
                "the journal keeps a digest. It was answered with the recorded result",
            )  # fmt: skip

    def other_child(self, effect: Effect, arguments: EncodedValue | None, run_id: str | None) -> None:
        """A recorded child is started with other arguments, or under another id."""
        if self._is_unsettled(effect.place):
            return
        recorded, named = effect.content
        name = effect.place.name
        if named != run_id:
            self._add(effect.seq, "child", f"{name} (run_id=)", named, run_id)
        self._compare(effect.seq, "child", f"{name} (arguments)", recorded, arguments)

    def missing(self, effect: Effect) -> None:
        """The step never came to a recorded effect."""
        if self._is_unsettled(effect.place):
            return
        kind, name, k = effect.place
        note = "the step no longer does this" + (f" (number {k + 1})" if k else "")
        recorded: Any = effect.content
        if kind == SENT:
            recorded = self._decoded(effect.content[0])
        elif isinstance(effect.content, EncodedEvent | EncodedValue):
            recorded = self._decoded(effect.content)
        elif kind == WAIT:
            recorded = self._decoded(effect.content[1]) if effect.content[1] is not None else name
        elif kind in (SLEEP, CHECKPOINT, CALL, CHILD):
            recorded = name or "a timer"
        elif kind == WRITE:
            recorded = "deleted"
        self._add(effect.seq, _KINDS[kind], name, recorded, NOTHING, note)

    def extra(self, fact: Fact) -> None:
        """The step does something that is not recorded. Raises StepStopped where that cannot be answered."""
        note = "this is not recorded"
        match fact:
            case ContextSet(task=None) | ContextDeleted(task=None):
                pass  # a default of the typed state: judged where it is filled in
            case ContextSet():
                self._compare(self._at, "context", fact.key, NOTHING, fact.value, note)
            case ContextDeleted():
                self._add(self._at, "context", fact.key, NOTHING, "deleted", note)
            case EventEmitted():
                self._compare(self._at, "event", current_name(fact.event.name), NOTHING, fact.event, note)
            case EffectReused():
                self._add(
                    self._at, _KINDS[fact.kind], fact.name, NOTHING, "as in an earlier attempt",
                    "this attempt has not recorded it",
                )  # fmt: skip
            case CheckpointNamed():
                self._add(self._at, "checkpoint", fact.name, NOTHING, fact.name, note)
            case EventCollected():
                self.stop("collect_events", fact.buffer, self._decoded(fact.event))
            case WaitOpened():
                asked = fact.wanted[0] if fact.prompt is None else self._decoded(fact.prompt)
                self.stop("wait", fact.name, asked)
            case _:
                pass  # nothing that others see

    def extra_place(self, place: Place, new: Any) -> None:
        """The step does something that is not recorded and needs no answer."""
        self._add(self._at, _KINDS[place.kind], place.name or "ctx.sleep", NOTHING, new, "this is not recorded")

    def stop(self, kind: DivergenceKind, what: str, new: Any, why: str = "this is not recorded") -> NoReturn:
        """The step does something for which there is no answer: it ends here. Raises StepStopped."""
        why += ". The step was stopped here; what follows is not judged"
        # Also of an effect whose name is to be ignored: the step was not judged to its end.
        self._found.append(_Found(self._at, next(self._turns), self._divergence(kind, what, NOTHING, new, why, "")))
        self._is_over = True
        self.stops()
        raise StepStopped

    def filled(self, key: str, recorded: EncodedValue | None, new: EncodedValue, varies: bool) -> None:
        """A field of the typed state got its default. None is recorded of a field that the class did not have then."""
        if recorded is None or varies:
            if recorded is None or recorded != new:
                before = NOTHING if recorded is None else self._decoded(recorded)
                self._default("context", key, before, self._decoded(new))
            return
        self._compare(self._at, "context", key, recorded, new, "this is the default of the typed state")

    def item(self, effect: Effect | None, k: int, new: EncodedEvent, live: Any) -> None:
        """The step publishes its k-th stream item."""
        if self._is_over:
            return
        if effect is None:
            self._compare(self._at, "stream", current_name(new.name), NOTHING, new, "this item is not recorded")
        elif effect.content != digest_of(new):
            self._items.append(_Item(effect.seq, next(self._turns), k, effect.outcome, new, live))

    def missing_items(self, effects: Sequence[Effect]) -> None:
        """The step ends without the last of the recorded stream items."""
        if not self._is_over:
            for effect in effects:
                item = _Item(effect.seq, next(self._turns), effect.place.k, effect.outcome, None, None)
                self._items.append(item)

    # -- The end of the step -------------------------------------------------------------------------------------------

    def returned(self, recorded: Sequence[EncodedEvent], outcome: StepReturned) -> None:
        """Hold what the step returned against the record."""
        emitted = (each.emitted if isinstance(each, Question) else each for each in outcome.emitted)
        new = [each.event for each in emitted] + ([] if outcome.stop is None else [outcome.stop])
        for at in range(max(len(recorded), len(new))):
            if at >= len(new):
                name, note = current_name(recorded[at].name), "the step no longer returns this"
                self._compare(_LAST, "event", name, recorded[at], NOTHING, note)
            elif at >= len(recorded):
                self._compare(
                    _LAST, "event", current_name(new[at].name), NOTHING, new[at], "the step returns this, too"
                )
            else:
                self._compare(_LAST, "event", None, recorded[at], new[at])
        if len(self._strands) == 1:
            self._judge_order()

    def raised(self, error: ErrorInfo) -> None:
        """The step raises today."""
        text = f"{error.type}: {error.message}"
        self._add(_LAST, "error", text, "the step completed", text, traceback=error.traceback)

    def ended_otherwise(self) -> None:
        """The step has neither returned nor raised."""
        what = "it cancelled its own task"
        self._add(_LAST, "error", what, "the step completed", what, "a run would have been released here")

    def unreadable(self, why: str) -> None:
        """The step cannot be given its event."""
        self._add(0, "input", "its event", note=why)

    def gone(self, why: str) -> None:
        """There is no such step any more."""
        self._add(0, "step", self._task.id.step, note=why)

    def hangs(self, seconds: float) -> None:
        """The step makes no end; what it still does does not count."""
        self._add(
            _LAST, "timeout", f"after {seconds:g} s", note="it did not end within the workflow's timeout: it may wait "
            "for what another step does, or call what does not answer",
        )  # fmt: skip
        self._is_over = True

    def _judge_order(self) -> None:
        """Effects of one strand have their records in the order of the program. Of several, only chance knows."""
        for before, effect in zip(self._order, self._order[1:], strict=False):
            if effect.seq < before.seq:
                kind, name, _ = effect.place
                self._add(
                    effect.seq, "order", f"{kind} {name}".rstrip(),
                    f"before {before.place.kind} {before.place.name}".rstrip(),
                    f"after {before.place.kind} {before.place.name}".rstrip(),
                )  # fmt: skip
                return

    async def close(self, raced: Sequence[str]) -> bool:
        """Hand over what was found; tell whether the step did what is recorded.

        `raced` are the keys that it has read and other steps changed.
        """
        self._is_over = False
        for item in self._items:
            recorded = await self._published(item.position)
            self._turns = itertools.repeat(item.turn)
            note = ""
            new: Any = item.new
            if item.new is None:
                new, note = NOTHING, f"the step no longer publishes this (item number {item.k + 1})"
            if recorded is None:
                new = NOTHING if item.new is None else self._decoded(item.new)
                note = note or "the recorded one is in another run"
                self._add(item.at, "stream", f"item number {item.k + 1}", NOTHING, new, note)
            else:
                if item.new is not None:
                    self.encoded(item.new, item.live)
                self._compare(item.at, "stream", None, recorded, new, note)
        found = [each.divergence for each in sorted(self._found, key=lambda each: each[:2])]
        if raced and found:
            found = [replace(each, raced=tuple(raced)) for each in found]
        self._findings.add(found, self._defaults)
        return not found

    async def _published(self, position: int) -> EncodedEvent | None:
        rows = await self._findings.store.stream(self._findings.run, position - 1, limit=1)
        return rows[0].event if rows and rows[0].position == position else None

    # -- Parts ---------------------------------------------------------------------------------------------------------

    def _compare(
        self, at: int, kind: DivergenceKind, path: str | None, recorded: Any, new: Any, note: str = ""
    ) -> None:
        """Add what differs between two encoded events or values; for events `path` is the name of their class."""
        if recorded == new:
            return
        live = self._objects.get(id(new), (None, NOTHING))[1]
        try:
            before = self._decode(recorded)
        except DurableFlowError as error:
            self._add(at, kind, path or current_name(recorded.name), recorded, self._decoded(new), f"{note} {error}")
            return
        now = self._decoded(new)
        if path is None:
            path = current_name(recorded.name)
        for difference in self._findings.differences.of(path, before, now, live):
            if difference.is_default:
                self._default(kind, difference.path, difference.recorded, difference.new)
            else:
                self._add(at, kind, difference.path, difference.recorded, difference.new, note)

    def _decode(self, encoded: Any) -> Any:
        if isinstance(encoded, EncodedEvent):
            return self._findings.differences.codec.decode_event(encoded)
        if isinstance(encoded, EncodedValue):
            return self._findings.differences.codec.decode_value(encoded)
        return NOTHING if encoded is None else encoded

    def _decoded(self, encoded: Any) -> Any:
        """Return what is encoded, or the encoded itself where today's code cannot read it."""
        try:
            return self._decode(encoded)
        except DeserializationError:
            return encoded

    def _is_unsettled(self, place: Place) -> bool:
        """Tell whether the run itself came to something else at this place, when the step ran again after a crash.

        Then the record is not what its last execution did.
        """
        return self._task.diverged is not None and place in self._task.diverged

    def _add(
        self, at: int, kind: DivergenceKind, what: str, recorded: Any = NOTHING, new: Any = NOTHING, note: str = "",
        traceback: str = "",
    ) -> None:  # fmt: skip
        if not self._is_over and (kind in _NEVER_IGNORED or not self._findings.differences.is_ignored(what)):
            self._found.append(
                _Found(at, next(self._turns), self._divergence(kind, what, recorded, new, note, traceback))
            )

    def _default(self, kind: DivergenceKind, what: str, recorded: Any, new: Any) -> None:
        self._defaults.append(self._divergence(kind, what, recorded, new, "a default", ""))

    def _divergence(
        self, kind: DivergenceKind, what: str, recorded: Any, new: Any, note: str, traceback: str
    ) -> Divergence:
        task = self._task
        return Divergence(
            self._findings.run_id, task.id.step, task.attempt, task.id.seq, self._seq, kind, what, recorded, new,
            note.strip(), traceback,
        )  # fmt: skip
