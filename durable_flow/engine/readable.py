"""Whether a program has the serializers that a run was written with: asked before it is taken up, not in its midst."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import DeserializationError
from ..records import EncodedEvent, EncodedValue

if TYPE_CHECKING:
    from ..journal.protocol import JournalStore, RunRow
    from ..serializers.codec import Codec
    from ..state import RunState

_PAGE = 1000


async def require_readable(
    store: JournalStore, row: RunRow, codec: Codec, wanted: Iterable[EncodedEvent | EncodedValue]
) -> None:
    """Raise DeserializationError if one of these parts of a run's state was written by a serializer not known here.

    The error names the run, the record and the serializer's codec.
    """
    unread = next((part for part in wanted if not _is_read(codec, part)), None)
    if unread is None:
        return
    after = 0
    while records := await store.read(row.run, after=after, limit=_PAGE):
        for record in records:
            fact: Any = record.fact
            if unread in _encoded(fact):
                raise _unread(row.run_id, f"seq {record.seq} ({type(fact).__name__})", unread)
        after = records[-1].seq
    # In the state of another run, with which this one began, or put together from several records.
    raise _unread(row.run_id, f"state at seq {row.seq}", unread)


def _is_read(codec: Codec, encoded: EncodedEvent | EncodedValue) -> bool:
    return codec.reads(encoded.codec, encoded.name if isinstance(encoded, EncodedEvent) else None)


def held(state: RunState) -> Iterator[EncodedEvent | EncodedValue]:
    """Yield what steps that go on may read: values, and the events of tasks, fan-ins, buffers and waits."""
    yield from state.context.values()
    for task in state.tasks.values():
        yield from task.joined or ()
        if task.event is not None:
            yield task.event
        for effects in (task.effects or {}).values():
            yield from _encoded(effect.outcome for effect in effects.values())
    for collected in state.fan_outs.values():
        for members in collected.members.values():
            yield from (member.event for member in members)
    for by_step in (state.slots, *(collected.slots for collected in state.fan_outs.values())):
        for slots in by_step.values():
            yield from (member.event for members in slots.events.values() for member in members)
    for events in state.buffers.values():
        yield from events
    for wait in state.waits.values():
        yield from (part for part in (wait.prompt, wait.answer, wait.requirements) if part is not None)


def _encoded(parts: Iterable[Any]) -> Iterator[EncodedEvent | EncodedValue]:
    return (part for part in parts if isinstance(part, EncodedEvent | EncodedValue))


def _unread(run_id: str, where: str, encoded: EncodedEvent | EncodedValue) -> DeserializationError:
    return DeserializationError(
        f"run {run_id}, {where}: written by the serializer {encoded.codec!r}, which this program does not have. "
        "Give it to the workflow, or read it besides: Journal(url, readers=[...]). The run was left as it is"
    )
