"""The checkpoints of a run, and who changed a context key: read page by page, folded on the way, never held whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from ..branching import emitted_events, output_of
from ..errors import DeserializationError
from ..events import Event, UnknownEvent
from ..fold import evolve
from ..records import (
    CheckpointNamed,
    EncodedEvent,
    EncodedValue,
    JournalCompacted,
    Record,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunTimedOut,
    StateEdited,
    StateImported,
    StepCompleted,
    TaskId,
    WaitOpened,
)
from ..serializers.codec import Codec
from ..state import RunState
from .checkpoint import Checkpoint, CheckpointKind, KeyChange, checkpoint
from .folding import PAGE, state_at
from .protocol import JournalStore
from .runid import id_of
from .times import at_moment

ItemT = TypeVar("ItemT")

# What makes a group of records a checkpoint that is listed, the weightiest first: it gives the checkpoint its kind.
_KINDS: dict[type, CheckpointKind] = {
    RunCompleted: "end",
    RunFailed: "end",
    RunCancelled: "end",
    RunTimedOut: "end",
    RunStarted: "start",
    JournalCompacted: "compacted",
    StepCompleted: "step",
    CheckpointNamed: "named",
    StateEdited: "edit",
    WaitOpened: "wait",
}
_WEIGHTS = {kind: weight for weight, kind in enumerate(_KINDS)}


class Listing(Generic[ItemT]):
    """What a journal lists: `await` it for all of it at once, or iterate over it with `async for`, in pages.

    Each time it is read anew.
    """

    def __init__(self, items: Callable[[], AsyncGenerator[ItemT]]):
        self._items = items

    def __await__(self) -> Generator[Any, None, list[ItemT]]:
        return self._all().__await__()

    def __aiter__(self) -> AsyncIterator[ItemT]:
        return self._items()

    async def _all(self) -> list[ItemT]:
        async with aclosing(self._items()) as items:
            return [item async for item in items]


async def grouped(store: JournalStore, run: int, after: int, to: int) -> AsyncGenerator[list[Record]]:
    """Yield the groups of records of a run that are whole behind `after` and up to `to`, read a page at a time."""
    group = list[Record]()
    while after < to:
        page = await store.read(run, after=after, to=to, limit=PAGE)
        if not page:
            return
        after = page[-1].seq
        for record in page:
            group.append(record)
            if record.boundary:
                yield group
                group = []


async def groups(store: JournalStore, run: int, after: int, to: int) -> AsyncGenerator[tuple[RunState, list[Record]]]:
    """Yield each group of records behind `after` with the state before it, which the receiver brings up to date."""
    state = await state_at(store, run, after) if after else RunState()
    async with aclosing(grouped(store, run, state.seq, to)) as found:
        async for group in found:
            yield state, group


class Finder:
    """Finds the checkpoints of a run in its groups of records, given one after another."""

    def __init__(self, run_id: str, event_of: Callable[[EncodedEvent], Event]):
        self._run_id = run_id
        self._event_of = event_of
        self._changed: set[str] = set()

    def next(self, state: RunState, group: Sequence[Record], after: int = 0) -> Checkpoint | None:
        """Bring the state up to date with its next group; return the checkpoint there, if its seq is above `after`."""
        inputs: dict[TaskId, tuple[EncodedEvent, ...]] = {}
        kinds = []
        for record in group:
            fact = record.fact
            if type(fact) in _KINDS:
                kinds.append(fact)
                task_id = getattr(fact, "task", None)
                if task_id in state.tasks:
                    task = state.tasks[task_id]
                    inputs[task_id] = (task.joined or ()) if task.event is None else (task.event,)
            # Every kind of write has a key, and nothing else has.
            key = getattr(fact, "key", None)
            if key is not None:
                self._changed.add(key)
            evolve(state, record)
        last = group[-1]
        if not kinds or last.seq <= after:
            return None
        main = min(kinds, key=lambda fact: _WEIGHTS[type(fact)])
        named = next((fact.name for fact in reversed(kinds) if isinstance(fact, CheckpointNamed)), None)
        completed = next((fact for fact in kinds if isinstance(fact, StepCompleted)), None)
        of = completed.task if completed is not None else getattr(main, "task", None)
        changed = tuple(sorted(self._changed))
        self._changed.clear()
        return checkpoint(
            inputs.get(of, ()) if of is not None else (),
            emitted_events(group, output_of(group)),
            self._event_of,
            id_=id_of(self._run_id, last.seq),
            run_id=self._run_id,
            seq=last.seq,
            kind=_KINDS[type(main)],
            at=at_moment(last.at),
            name=named,
            last_completed_step=None if completed is None else completed.task.step,
            keys_changed=changed,
        )


def shown_by(codec: Codec) -> Callable[[EncodedEvent], Event]:
    """Return what decodes events to be shown: one that its class does not fit any more becomes an UnknownEvent."""

    def shown(encoded: EncodedEvent) -> Event:
        try:
            return codec.decode_event(encoded)
        except DeserializationError:
            # One such event must not hide the rest.
            return UnknownEvent(name=encoded.name, raw=encoded.data)

    return shown


async def checkpoints(
    store: JournalStore,
    run: int,
    run_id: str,
    event_of: Callable[[EncodedEvent], Event],
    *,
    after: int,
    to: int,
    limit: int | None,
) -> AsyncGenerator[Checkpoint]:
    """Yield the checkpoints of a run with a seq above `after`, at most `limit`."""
    finder, left = Finder(run_id, event_of), limit
    async with aclosing(groups(store, run, after, to)) as found:
        async for state, group in found:
            if left is not None and left <= 0:
                return
            here = finder.next(state, group, after)
            if here is not None:
                yield here
                if left is not None:
                    left -= 1


async def changes(
    store: JournalStore, run: int, run_id: str, key: str, value_of: Callable[[EncodedValue], Any], *, to: int
) -> AsyncGenerator[KeyChange]:
    """Yield every change of a context key, in order."""

    def change(record: Record, old: EncodedValue | None, new: EncodedValue | None, **of: Any) -> KeyChange:
        return KeyChange(
            run_id=run_id,
            key=key,
            seq=record.seq,
            at=at_moment(record.at),
            existed=old is not None,
            old=None if old is None else value_of(old),
            exists=new is not None,
            new=None if new is None else value_of(new),
            **{"step": None, "attempt": None, "by": None, **of},
        )

    async with aclosing(groups(store, run, 0, to)) as found:
        async for state, group in found:
            editor: str | None = None
            for record in group:
                fact = record.fact
                old = state.context.get(key)
                evolve(state, record)
                new = state.context.get(key)
                if isinstance(fact, StateEdited):
                    editor = fact.by
                elif isinstance(fact, JournalCompacted) and new is not None:
                    yield change(record, old, new, kind="compacted")
                elif isinstance(fact, StateImported) and new is not None:
                    yield change(record, old, new, kind="imported")
                elif getattr(fact, "key", None) == key:
                    task: TaskId | None = getattr(fact, "task", None)
                    if task is not None:
                        yield change(
                            record, old, new, kind="step", step=task.step, attempt=getattr(fact, "attempt", None)
                        )
                    else:
                        yield change(record, old, new, kind="outside" if editor is None else "edit", by=editor)
