"""Drafts: facts that running steps have made and that no commit has carried yet (design section 3, rules 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ..records import Fact, TaskId


class Reader(Protocol):
    """What a running step has read or written so far."""

    keys: set[str]
    reads_all: bool


_OUTSIDE = TaskId(0, "")


class _OutsideReader:
    """A handler's context, as a reader of one key."""

    reads_all = False

    def __init__(self, key: str):
        self.keys = {key}


class Draft(NamedTuple):
    """A fact of `task`. `key` is what it changes for others: a context key or a buffer; None: it only belongs to it."""

    task: TaskId
    key: str | None
    fact: Fact


class Drafts:
    """The drafts of a run, in the order in which they became visible."""

    def __init__(self) -> None:
        self._drafts: list[Draft] = []

    def __len__(self) -> int:
        return len(self._drafts)

    def add(self, task: TaskId, key: str | None, fact: Fact) -> None:
        """Append a draft."""
        self._drafts.append(Draft(task, key, fact))

    def take_all(self) -> tuple[Fact, ...]:
        """Take every draft: the end of a run carries them all."""
        drafts, self._drafts = self._drafts, []
        return tuple(d.fact for d in drafts)

    def take(self, task: TaskId, readers: Mapping[TaskId, Reader]) -> tuple[Fact, ...]:
        """Take what a commit of `task` carries, in order of visibility.

        These are its own drafts, every draft of another step on a key that it has read or written, that step's
        earlier drafts and, in turn, what that step had read.
        """
        drafts = self._drafts
        if not drafts:
            return ()
        if all(d.task == task for d in drafts):
            return self.take_all()
        upto: dict[TaskId, int] = {}
        todo = [(task, len(drafts))]
        while todo:
            reader, end = todo.pop()
            if upto.get(reader, 0) >= end:
                continue
            upto[reader] = end
            seen = readers[reader]
            todo += [
                (d.task, at + 1)
                for at, d in enumerate(drafts[:end])
                if d.key is not None and d.task != reader and (seen.reads_all or d.key in seen.keys)
            ]
        carried = [at < upto.get(d.task, 0) for at, d in enumerate(drafts)]
        self._drafts = [d for d, gone in zip(drafts, carried, strict=True) if not gone]
        return tuple(d.fact for d, taken in zip(drafts, carried, strict=True) if taken)

    def take_for(self, key: str, readers: Mapping[TaskId, Reader]) -> tuple[Fact, ...]:
        """Take what a write of this key from outside rests on."""
        return self.take(_OUTSIDE, {**readers, _OUTSIDE: _OutsideReader(key)})
