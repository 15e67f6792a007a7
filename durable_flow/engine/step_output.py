"""What a running step sends, publishes and collects, and when its drafts are handed over (design section 3, rule 1)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import WorkflowRuntimeError
from ..events import Event, InputRequiredEvent, StopEvent, current_name, event_name
from ..fold import take_from_buffer
from ..records import (
    COLLECT,
    SENT,
    STREAM,
    BufferReleased,
    EffectReused,
    EncodedEvent,
    EventCollected,
    EventEmitted,
    Fact,
    Place,
    StreamPublished,
    StreamReset,
)
from ..state import Effect, Task
from .collecting import joins_of_sent
from .routing import route
from .step_context import StepContext

if TYPE_CHECKING:
    from .run import Run


class StepOutput(StepContext):
    """The effects that do not wait. They are handed over together when the step suspends, or by its end."""

    def __init__(self, run: Run, task: Task):
        super().__init__(run, task)
        self._items: list[EncodedEvent] = []
        self._items_from = 0
        self._urgent = False
        self._flush_at_suspension = False

    def send(self, event: Event, step: str | None = None) -> None:
        """Emit an event; handed over at the step's next suspension or at its end."""
        self._require_attached()
        program = self.run.program
        targets = route(program, self.run.run_id, event, step)
        joins = joins_of_sent(program, event, step) if program.has_joins else ()
        encoded, event = self.run.live.encode_event(event)
        if isinstance(event, StopEvent):
            self.run.stop(self.carried(), encoded, event)
            return
        self.detect_changes(strict=False)
        place, record = self._history.take(SENT, encoded.name)
        content = (encoded, step)
        if record is not None:
            if not self._history.is_same(record, content):
                self._diverged(record)
            return
        if self._reuse(place, content) is not None:
            return
        if not joins:
            self.run.keep_live(encoded, event, targets)
        self._draft(EventEmitted(encoded, self.task_id, self.attempt, place.k, targets, step, None, joins))
        self._flush_urgently()

    def publish(self, event: Event) -> None:
        """Publish an item on the run's stream, in order."""
        self._require_attached()
        encoded = self._item(event)
        if encoded is None:
            return
        record = self._history.next_stream_item()
        if record is not None and record.content == digest_of(encoded):
            self._history.take(STREAM, "")
            return
        if record is not None:
            self._reset_stream(record)
        place, _ = self._history.take(STREAM, "")
        if not self._items:
            self._items_from = place.k
        self._items.append(encoded)
        self._flush_soon()

    def _item(self, event: Event) -> EncodedEvent | None:
        """Return an item as it is published, None if it comes to the stream by itself."""
        if not isinstance(event, Event):
            raise WorkflowRuntimeError(
                f"step {self.step!r} of run {self.run.run_id} published a {type(event).__name__}; "
                "write_event_to_stream takes Event instances, ctx.write_event_to_stream(Event(msg=...)) for example"
            )
        if isinstance(event, InputRequiredEvent) and event.wait_id is not None:
            return None  # the question of a run that the step has started
        return self.codec.encode_event(event)

    def _reset_stream(self, record: Effect) -> None:
        self._commit_alone(StreamReset(self.task_id, self.attempt, record.place.k, 0, record.outcome))
        self._history.forget_stream()

    def _take_items(self) -> list[Fact]:
        if not self._items:
            return []
        items, self._items = tuple(self._items), []
        digests = tuple(digest_of(item) for item in items)
        return [StreamPublished(0, digests, self.task_id, self.attempt, self._items_from, items)]

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Event] | None:
        """Put the event into a buffer and return the expected events once all are there, in the order of `expected`."""
        self._require_attached()
        if not expected:
            return []
        if type(event) not in expected:
            return None
        buffer = buffer_id if buffer_id is not None else self.step
        self.keys.add(f"\0buffer:{buffer}")
        encoded, event = self.run.live.encode_event(event)
        self.detect_changes(strict=False)
        place, record = self._history.take(COLLECT, buffer)
        if record is not None and not self._history.is_same(record, encoded):
            self._diverged(record)
        if record is None:
            record = self._reuse(place, encoded)
        if record is not None:
            return None if record.outcome is None else [self.codec.decode_event(e) for e in record.outcome]
        collected = self.run.buffers.setdefault(buffer, [])
        collected.append(Collected(encoded, event))
        self._draft(EventCollected(self.task_id, self.attempt, buffer, place.k, encoded), f"\0buffer:{buffer}")
        self._flush_urgently()
        if len(collected) < len(expected):
            return None
        names = [event_name(cls) for cls in expected]
        if Counter(names) - Counter(item.name for item in collected):
            return None
        released = take_from_buffer(collected, names)
        stored = tuple(item.encoded.name for item in released)
        fact = BufferReleased(self.task_id, self.attempt, buffer, place.k, stored)
        self._draft(fact, f"\0buffer:{buffer}")
        return [item.event if item.event is not None else self.codec.decode_event(item.encoded) for item in released]

    def carried(self) -> tuple[Fact, ...]:
        """Return everybody's drafts: the end of a run carries them all."""
        self.detect_changes()
        return (*self.run.everybodys_drafts(), *self._take_items())

    def _reuse(self, place: Place, content: Any) -> Effect | None:
        old = self._history.equal(place.kind, place.name, content)
        if old is not None:
            self._draft(EffectReused(self.task_id, self.attempt, place.kind, place.name, place.k, old.seq))
        return old

    # -- Handing over --------------------------------------------------------------------------------------------------

    def _commit(self, *facts: Fact) -> asyncio.Future[None]:
        """Hand over the step's drafts, what they rest on, and `facts`; the future ends when they are durable."""
        self._urgent = False
        carried = self.run.drafts.take(self.task_id, self.run.executions)
        return self.run.commit((*carried, *self._take_items(), *facts))

    def _commit_alone(self, *facts: Fact) -> None:
        self.run.commit((*self._take_items(), *facts))

    def _flush_soon(self) -> None:
        """Hand over synchronous effects when the step suspends; if it returns first, its completion takes them."""
        if not self._flush_at_suspension:
            self._flush_at_suspension = True
            self.run.loop.call_soon(self._flush)

    def _flush_urgently(self) -> None:
        self._urgent = True
        self._flush_soon()

    def _flush(self) -> None:
        self._flush_at_suspension = False
        if not self.attached:
            return
        if self._urgent:
            self._commit()
        elif self._items:
            self._commit_alone()


class Collected:
    """An event in a buffer: its encoding and, in the process that collected it, the live object.

    `name` is what events of its class are called today.
    """

    __slots__ = ("encoded", "event", "name")

    def __init__(self, encoded: EncodedEvent, event: Event | None):
        self.encoded = encoded
        self.event = event
        self.name = current_name(encoded.name)


def digest_of(event: EncodedEvent) -> str:
    """Return a short digest of an event, by which a re-run recognises a published item."""
    content = hashlib.blake2b(event.data, digest_size=9)
    content.update(event.name.encode())
    return content.hexdigest()
