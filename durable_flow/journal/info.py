"""What a Journal tells about runs: plain values, made without the user's code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..events import Event
from ..records import ErrorInfo, TaskId


@dataclass(frozen=True, slots=True)
class WaitInfo:
    """An open wait. `wanted` are the names of the events that close it, `schema` is the answer's JSON schema.

    `step` is the step that waits, None for a question that a step returned.
    """

    run_id: str
    workflow: str
    wait_id: str
    step: str | None
    wanted: tuple[str, ...]
    prompt: Event | None
    schema: dict[str, Any] | None
    deadline: datetime | None
    opened_at: datetime
    human: bool


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run's row: where it stands. `seq` is its last record's; `waits` what it waits for; `error` one line.

    `forked_from` is the id of the checkpoint ("run_id/seq") from which it was forked. `first_seq` is the seq of the
    first record that is kept, `compacted_at` since when; `pruned_at` is when all but the outcome was forgotten.
    """

    run_id: str
    uid: str
    workflow: str
    shape: str
    status: str
    seq: int
    epoch: int
    owner: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    wake_at: datetime | None
    error: str | None
    waits: tuple[WaitInfo, ...] = ()
    forked_from: str | None = None
    first_seq: int = 1
    compacted_at: datetime | None = None
    pruned_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A pending task: the event that a step has not finished. `attempt` counts from 1.

    A task with several events, of a step that collects, has `joined` and no `event`.
    """

    id: TaskId
    step: str
    event: Event | None
    attempt: int
    retry_at: datetime | None
    error: ErrorInfo | None
    joined: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A run that a step has started; `status` is how it ended, None as long as that is not in this run's journal.

    An `independent` one does not end with this run.
    """

    run_id: str
    workflow: str
    step: str
    status: str | None
    independent: bool


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A run's folded state at a checkpoint.

    `seq` is that of the checkpoint; `context` holds the decoded values (an EncodedValue stays as it is if this program
    does not have its class); `checkpoints` are the named ones with their seq. `children` are the runs that pending
    steps have started, and others that have not ended; `parent` is the run that ends this one with itself.
    """

    run_id: str
    seq: int
    at: datetime
    status: str
    context: dict[str, Any]
    tasks: tuple[TaskInfo, ...]
    waits: tuple[WaitInfo, ...]
    result: Event | None
    error: ErrorInfo | None
    attention: str | None
    steps_completed: int
    stream_position: int
    checkpoints: dict[str, int] = field(default_factory=dict)
    children: tuple[ChildInfo, ...] = ()
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class StreamItem:
    """A published item. `task` is the seq of the event whose step published it.

    On a reset `event` is None, and the items of the same task from position `reset_since` on are void.
    """

    position: int
    at: datetime
    step: str | None
    event: Event | None
    wait_id: str | None
    reset_since: int | None
    task: int | None


def parsed_schema(text: str | None) -> dict[str, Any] | None:
    """Return a stored JSON schema."""
    if text is None:
        return None
    schema: dict[str, Any] = json.loads(text)
    return schema


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """An exported run. `records`, `items` and `messages` are counts, `bytes` the size before any compression.

    `hash` is that of the last line, and so of all: whoever gets it by another way knows that the archive is the one.
    """

    run_id: str
    uid: str
    workflow: str
    status: str
    records: int
    items: int
    messages: int
    bytes: int
    hash: str


@dataclass(frozen=True, slots=True)
class CompactInfo:
    """What compacting a run did: its journal begins with checkpoint `first` now, and `records` records are gone."""

    run_id: str
    first: str
    records: int


@dataclass(frozen=True, slots=True)
class PruneInfo:
    """What was pruned, or with `dry_run` would be: `runs` runs with `records` records; `run_ids` are the first 100.

    `left` are runs that were to be pruned and stay: ones that are being retried, that cannot be read, or, where results
    are not kept, that a run has started which may still go on and ask for their result.
    """

    runs: int
    records: int
    run_ids: tuple[str, ...]
    left: int
    dry_run: bool
