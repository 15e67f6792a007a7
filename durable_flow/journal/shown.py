"""What a journal shows of its rows and states: the values of `info`. Classes that are not known here hinder nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import DeserializationError
from ..events import Event, InputRequiredEvent
from ..records import EncodedEvent, EncodedValue
from ..serializers.codec import Codec
from ..state import RunState
from .info import (
    ChildInfo,
    RunInfo,
    StateInfo,
    StreamItem,
    TaskInfo,
    WaitInfo,
    parsed_schema,
)
from .listing import shown_by
from .protocol import RunRow, StreamRow, WaitRow
from .runid import id_of
from .times import at_moment, moment


class Shown:
    """Shows what a codec decodes."""

    def __init__(self, codec: Codec):
        self._codec = codec

    def run(self, row: RunRow, waits: Sequence[WaitRow]) -> RunInfo:
        """Return a run with its open waits."""
        return RunInfo(
            run_id=row.run_id,
            uid=row.uid,
            workflow=row.workflow,
            shape=row.shape,
            status=row.status,
            seq=row.seq,
            epoch=row.epoch,
            owner=row.owner,
            created_at=at_moment(row.created_at),
            updated_at=at_moment(row.updated_at),
            finished_at=moment(row.finished_at),
            wake_at=moment(row.wake_at),
            error=row.error,
            waits=tuple(self.wait(wait) for wait in waits),
            first_seq=row.first,
            compacted_at=moment(row.compacted_at),
            pruned_at=moment(row.pruned_at),
            forked_from=None if row.parent is None or row.parent_seq is None else id_of(row.parent, row.parent_seq),
        )

    def wait(self, row: WaitRow) -> WaitInfo:
        """Return an open wait."""
        prompt = None if row.prompt is None else self.event(row.prompt, row.wait_id)
        return WaitInfo(
            row.run_id, row.workflow, row.wait_id, row.step, row.wanted, prompt, parsed_schema(row.schema),
            moment(row.deadline), at_moment(row.opened_at), row.human,
        )  # fmt: skip

    def item(self, row: StreamRow) -> StreamItem:
        """Return a published item."""
        event = None if row.event is None else self.event(row.event, row.wait_id)
        return StreamItem(row.position, at_moment(row.at), row.step, event, row.wait_id, row.reset_since, row.task)

    def event(self, encoded: EncodedEvent, wait_id: str | None = None) -> Event:
        """Return the event, of an unknown class as UnknownEvent; `wait_id` is that of the question that it is."""
        event = shown_by(self._codec)(encoded)
        if wait_id is not None and isinstance(event, InputRequiredEvent):
            event._wait_id = wait_id
        return event

    def value(self, encoded: EncodedValue) -> Any:
        """Return the value, still encoded if its class is not known."""
        try:
            return self._codec.decode_value(encoded)
        except DeserializationError:
            return encoded  # its class is not known here; shown raw, never dropped

    def state(self, run_id: str, state: RunState) -> StateInfo:
        """Return the folded state of a run."""
        waits = tuple(
            WaitInfo(
                run_id, state.workflow, w.wait_id, w.task.step if w.task else None, w.wanted,
                None if w.prompt is None else self.event(w.prompt, w.wait_id), parsed_schema(w.schema),
                moment(w.deadline), at_moment(w.opened_at), w.human,
            )
            for w in state.waits.values() if w.is_open
        )  # fmt: skip
        tasks = tuple(
            TaskInfo(
                t.id, t.id.step, None if t.event is None else self.event(t.event), t.attempt, moment(t.retry_at),
                t.error, tuple(self.event(event) for event in t.joined or ()),
            )
            for t in state.tasks.values()
        )  # fmt: skip
        return StateInfo(
            run_id=run_id,
            seq=state.seq,
            at=at_moment(state.last_at),
            status=state.status,
            context={key: self.value(value) for key, value in state.context.items()},
            tasks=tasks,
            waits=waits,
            result=None if state.result is None else self.event(state.result),
            error=state.error,
            attention=state.attention,
            steps_completed=state.steps_completed,
            stream_position=state.position,
            checkpoints=dict(state.checkpoints),
            children=tuple(
                ChildInfo(c.run_id, c.workflow, c.task.step, c.status, c.independent) for c in state.children.values()
            ),
            parent=state.parent,
        )
