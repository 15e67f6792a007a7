"""`Checkpoint`: a boundary of a run's journal, from which the run can be looked at or forked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ..events import Event

CheckpointKind = Literal["start", "step", "named", "wait", "edit", "end", "compacted"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A boundary of a run's journal.

    `kind` says what happened there: the run's "start", a "step" that completed, a place "named" by `ctx.checkpoint`, a
    "wait" for an event or a person, an "edit" of the context from outside, the "end" of the run; or that all before it
    was "compacted", so that what happened there is not known any more. `seq` is that of its last record, `at` its time.
    `name` is given where `ctx.checkpoint` named it.

    `last_completed_step` is the step that completed here, None if none did. `input_events` are what that step, or the
    one that named the place or waits, was given: one event, or several for a step that collects. `output_events` came
    into being here, in order: what the step returned, or sent in its last moments; the result at the run's end; the
    start event at its start. `keys_changed` are the context keys written since the checkpoint before, sorted.
    """

    run_id: str
    seq: int
    kind: CheckpointKind
    at: datetime
    name: str | None
    last_completed_step: str | None
    input_events: tuple[Event, ...] = field(hash=False)
    output_events: tuple[Event, ...] = field(hash=False)
    keys_changed: tuple[str, ...]

    @property
    def id(self) -> str:
        """Its id: run id and seq, as in "order-42/17"."""
        return id_of(self.run_id, self.seq)

    @property
    def id_(self) -> str:
        """Its id, under the name that LlamaIndex has for it."""
        return self.id

    @property
    def input_event(self) -> Event | None:
        """The first of the input events, of which there is mostly one."""
        return self.input_events[0] if self.input_events else None

    @property
    def output_event(self) -> Event | None:
        """The first of the output events, of which there is mostly one."""
        return self.output_events[0] if self.output_events else None


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A change of one context key, from `old` to `new`.

    `existed` and `exists` tell whether the key was there before and after: an absent one has the value None. `kind` is
    "step" (then `step` and `attempt` say which), "outside" (through `handler.ctx`, or before the run began), "edit"
    (then `by` says who), "imported" (the run is a fork, or began with a saved context), or "compacted" (what happened
    before is not known any more). Values of classes that this
    program does not have stay encoded. `seq` is that of the record, `at` its time.
    """

    run_id: str
    key: str
    seq: int
    at: datetime
    kind: Literal["step", "outside", "edit", "imported", "compacted"]
    step: str | None
    attempt: int | None
    by: str | None
    existed: bool
    old: Any = field(hash=False)
    exists: bool
    new: Any = field(hash=False)


At = int | str | datetime | Checkpoint
"""Where in a run: a seq, a checkpoint or its id, a name given by `ctx.checkpoint`, or an aware time."""


def id_of(run_id: str, seq: int) -> str:
    """Return the id of a checkpoint."""
    return f"{run_id}/{seq}"
