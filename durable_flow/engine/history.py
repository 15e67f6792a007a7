"""What a task recorded before this execution of it: records matched by place (same attempt) or content (earlier ones).

Design section 3, rules 4 to 6; `k` is an effect's ordinal within its kind and name.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ..events import names_differ
from ..records import CALL, CHILD, COLLECT, SENT, STREAM, WAIT, WRITE, Place
from ..serializers.codec import Codec
from ..state import COMPLETED, Effect, RunState, Task
from .sameness import is_same, under_todays_names

_REUSABLE = frozenset({SENT, CALL, WAIT, COLLECT, CHILD})
# Shared by the executions that have nothing to meet again, which are nearly all; never changed.
_NO_RECORDS: dict[Place, Effect] = {}
_NO_EFFECTS: list[Effect] = []
_NO_WRITES: dict[str, deque[Effect]] = {}


class History:
    """The recorded effects that one execution of an attempt has to meet again.

    With a codec, content that has other bytes is compared as today's code reads it.
    """

    __slots__ = ("_codec", "_earlier", "_records", "_used", "_writes")

    def __init__(self, state: RunState, task: Task, codec: Codec | None = None):
        self._codec = codec
        self._used: dict[tuple[str, str], int] = {}
        self._records, self._earlier, self._writes = _NO_RECORDS, _NO_EFFECTS, _NO_WRITES
        if task.effects is None:
            return
        self._records = dict(task.effects.get(task.attempt, _NO_RECORDS))
        reused = {effect.origin for effect in self._records.values() if effect.origin is not None}
        self._earlier = [
            effect
            for attempt in sorted(task.effects)
            if attempt < task.attempt
            for effect in task.effects[attempt].values()
            if effect.origin is None and effect.seq not in reused and _serves(state, effect)
        ]
        if names_differ():
            renamed = map(under_todays_names, self._records.values())
            self._records = {effect.place: effect for effect in renamed}
            self._earlier = list(map(under_todays_names, self._earlier))
        self._writes = {}
        for place in sorted(p for p in self._records if p.kind == WRITE):
            self._writes.setdefault(place.name, deque()).append(self._records[place])

    def take(self, kind: str, name: str) -> tuple[Place, Effect | None]:
        """Return the place of the next effect of this kind and name, and its record if there is one."""
        k = self._used.get((kind, name), 0)
        self._used[kind, name] = k + 1
        place = Place(kind, name, k)
        return place, self._records.get(place) if self._records else None

    def give_back(self, place: Place) -> None:
        """Undo `take`: the effect did not come about."""
        self._used[place.kind, place.name] -= 1

    def equal(self, kind: str, name: str, content: Any) -> Effect | None:
        """Take the oldest effect of an earlier attempt that is equal in content. Each serves once per attempt."""
        for at, effect in enumerate(self._earlier):
            if effect.place.kind == kind and effect.place.name == name and self.is_same(effect, content):
                return self._earlier.pop(at)
        return None

    def is_same(self, effect: Effect, content: Any) -> bool:
        """Tell whether an effect has the content of one that the step makes now."""
        return effect.content == content or (self._codec is not None and is_same(self._codec, effect.content, content))

    def written(self) -> list[str]:
        """Return the keys of the writes that were taken."""
        return [name for (kind, name), k in self._used.items() if kind == WRITE and k]

    def standing_write(self, key: str) -> Effect | None:
        """Return the next recorded write of this key that the step has not repeated yet."""
        writes = self._writes.get(key) if self._writes else None
        return writes[0] if writes else None

    def standing_keys(self) -> list[str]:
        """Return the keys with recorded writes that the step has not repeated yet."""
        return [key for key, writes in self._writes.items() if writes]

    def repeat_write(self, key: str) -> None:
        """Note that the step came to the next recorded write of this key."""
        self._writes[key].popleft()

    def forget_stream(self) -> None:
        """After a reset the recorded stream items match no more."""
        self._records = {place: effect for place, effect in self._records.items() if place.kind != STREAM}

    def next_stream_item(self) -> Effect | None:
        """Return the next recorded stream item that was not published again."""
        return self._records.get(Place(STREAM, "", self._used.get((STREAM, ""), 0))) if self._records else None

    def unmet(self) -> list[Effect]:
        """Return the records, stream items apart, that this execution never came to."""
        return [
            effect
            for place, effect in self._records.items()
            if place.kind != STREAM and place.k >= self._used.get((place.kind, place.name), 0)
        ]


def _serves(state: RunState, effect: Effect) -> bool:
    """Tell whether an effect of an earlier attempt may stand for an equal one of a later attempt."""
    if effect.place.kind == WAIT:
        wait = state.waits.get(effect.outcome)
        return wait is not None and not wait.timed_out
    if effect.place.kind == CHILD:
        child = state.children.get(effect.outcome)
        # One that failed, timed out or was cancelled is no result: the next attempt starts another.
        return child is not None and (not child.ended_at or child.status == COMPLETED)
    return effect.place.kind in _REUSABLE
