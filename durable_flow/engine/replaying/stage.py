"""What stands in for the live run while one step of its history runs again: it answers, and nothing leaves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...incoming import Incoming
from ...records import EncodedEvent, EncodedValue, Fact, Place, TaskId
from ..drafts import Drafts
from ..live import ContextLocks, Entry, LiveContext
from ..waiting import Waiting

if TYPE_CHECKING:
    from ...events import Event, StopEvent
    from ...serializers.codec import Codec
    from ...state import RunState
    from ..execution import Execution
    from ..program import Program
    from .children import RecordedRuns
    from .judge import Judge
    from .progress import Mark, Values

# Everything that a replayed step waits for is durable.
_ALL = 1 << 62


class ReplayedContext(LiveContext):
    """The context as a step saw it at a place of the history; it is shown anew at each place."""

    def __init__(self, codec: Codec, shown: Values, encoded: Callable[[Any, Any], None]):
        super().__init__(codec, shown)
        self._shown = shown
        self._encoded = encoded

    def show(self, values: Values) -> None:
        """Let what others changed be seen. The object of a key whose value is the same stays."""
        before, self._shown = self._shown, values
        if before is values:
            return
        for key, value in values.items():
            if before.get(key) is not value:
                self._take(key, value)
        for key in before.keys() - values.keys():
            if key in self:
                self.delete(key)

    def keep(self, key: str, value: Any, encoded: EncodedValue) -> bool:
        """Let an object be that of a key which holds just this, and was not decoded yet; tell whether it is."""
        if self._stored.get(key) != encoded:
            return False
        self.set(key, value, encoded)
        return True

    def _take(self, key: str, value: EncodedValue) -> None:
        entry: Entry | None = self._entries.get(key)
        if entry is None or entry.encoded != value:
            self._entries.pop(key, None)
            self._stored[key] = value
            self._order[key] = None
            self.refresh(key)

    def encode_value(self, value: Any, path: str) -> tuple[EncodedValue, Any]:
        """As LiveContext does; what was encoded is noted."""
        encoded, kept = super().encode_value(value, path)
        self._encoded(encoded, value)
        return encoded, kept

    def encode_event(self, event: Event) -> tuple[EncodedEvent, Event]:
        """As LiveContext does; what was encoded is noted."""
        encoded, kept = super().encode_event(event)
        self._encoded(encoded, event)
        return encoded, kept


class NewDrafts(Drafts):
    """Takes what a step does beyond its records, and keeps nothing."""

    def __init__(self, judge: Judge):
        super().__init__()
        self._judge = judge

    def add(self, task: TaskId, key: str | None, fact: Fact) -> None:
        """Judge a draft: a step that repeats its records makes none."""
        self._judge.extra(fact)


class RecordedClock:
    """Stands still at a recorded time."""

    def __init__(self, now: int):
        self._now = now

    def now(self) -> int:
        """Return that time."""
        return self._now


class Stage(ContextLocks):
    """As much of a `Run` as one execution of a step asks for. What comes of the step is in `outcome`."""

    internals = None
    failure: BaseException | None = None
    stop_event: StopEvent | None = None
    durable_seq = _ALL

    def __init__(
        self, run_id: str, program: Program, state: RunState, marks: Sequence[Mark], last: Values, judge: Judge,
        host: RecordedRuns, began_at: int, *, advances: bool, seen: frozenset[str],
    ):  # fmt: skip
        self.run_id = run_id
        self.program = program
        self.state = state
        self.host = host
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.clock = RecordedClock(began_at)
        self.acted_at = began_at
        self.live = ReplayedContext(program.codec, marks[0].after, judge.encoded)
        self.drafts = NewDrafts(judge)
        self.buffers: dict[str, list[Any]] = {}
        self.executions: dict[TaskId, Execution] = {}
        self.waiting: Waiting[str | int] = Waiting(self.loop)
        self.last_errors: dict[TaskId, Exception] = {}
        self.closed = False
        self.outcome: Incoming | None = None
        self._judge = judge
        self._marks = marks
        self._last = last
        self._seen = seen
        self._at = 0
        # A plain `def` step is in a thread: the loop turns whatever it does.
        self._advances = advances

    # -- Where the step stands -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The step begins now."""
        self._stand_at(0)

    def move(self, seq: int) -> None:
        """The step has come to its own record of this seq: it sees the context as it was there, never as before."""
        at = self._at
        while at + 1 < len(self._marks) and self._marks[at + 1].seq <= seq:
            at += 1
        if at > self._at:
            self._stand_at(at)

    def raced(self, keys: set[str], reads_all: bool, filled: Values) -> list[str]:
        """Return those keys that other steps changed between the step's own records.

        `filled` are the fields of the typed state to which the step has given their defaults itself.
        """
        found: set[str] = set()
        for at, mark in enumerate(self._marks):
            after, then = mark.after, self._until(at)
            if after is not then:
                changed = {key for key in after.keys() | then.keys() if after.get(key) != then.get(key)}
                found |= {key for key in changed if key in after or then[key] != filled.get(key)}
        return sorted(found if reads_all else found & keys)

    def first(self, key: str) -> EncodedValue | None:
        """Return the first value that a key gets while the step is under way, None if it gets none."""
        seen = [values for mark in self._marks[self._at + 1 :] for values in (mark.before, mark.after)]
        return next((values[key] for values in (*seen, self._last) if key in values), None)

    def _stand_at(self, at: int) -> None:
        self._at = at
        values = self._marks[at].after
        seen = self._marks[at + 1].seen if at + 1 < len(self._marks) else self._seen
        if seen:
            # Its next commit carries these writes of others, so it has seen them.
            until = self._until(at)
            values = {key: value for key, value in values.items() if key not in seen}
            values |= {key: until[key] for key in seen if key in until}
        self.live.show(values)
        if self._advances and self._until(at) is not values:
            self.loop.call_soon(self._advance, at)

    def _advance(self, at: int) -> None:
        """The step waits for something that is no effect: it then sees what others do until its next effect."""
        if self._at == at and not self.closed:
            self.live.show(self._until(at))

    def _until(self, at: int) -> Values:
        return self._marks[at + 1].before if at + 1 < len(self._marks) else self._last

    # -- What executions ask of a run ----------------------------------------------------------------------------------

    def accept(self, incoming: Incoming) -> None:
        """Take the end of the attempt."""
        self.outcome = incoming
        self.closed = True

    def commit(self, facts: tuple[Fact, ...]) -> asyncio.Future[None]:
        """Judge what is new; nothing is written."""
        for fact in facts:
            self._judge.extra(fact)
        done: asyncio.Future[None] = self.loop.create_future()
        done.set_result(None)
        return done

    def stop(self, drafts: tuple[Fact, ...], encoded: EncodedEvent, event: StopEvent) -> None:
        """A StopEvent that is sent ends a run at once; a step that has completed did not send one."""
        self._judge.stop("event", encoded.name, event, "this would have ended the run")

    def release(self) -> None:
        """The process is told to end."""
        self.closed = True

    def everybodys_drafts(self) -> tuple[Fact, ...]:
        """Return nothing: no other step is under way."""
        return ()

    def keep_live(self, encoded: EncodedEvent, event: Event, targets: tuple[str, ...]) -> None:
        """Keep nothing: no other step gets the event."""

    def take_live(self, task: Any, encoded: EncodedEvent) -> None:
        """Return nothing: the step gets its event decoded afresh."""

    def running_steps(self) -> list[str]:
        """Return the steps that are under way in the history."""
        return sorted({execution.step for execution in self.executions.values()})

    def suspended(self, execution: Execution) -> None:
        """The step waits."""
        execution.suspended += 1

    def unsuspended(self, execution: Execution, patient: bool) -> None:
        """It goes on; a worker is always free."""
        execution.suspended -= 1

    def note_divergence(self, task_id: TaskId, place: Place) -> bool:
        """Record nothing."""
        return False
