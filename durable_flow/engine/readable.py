"""Whether a program has the serializers that a run was written with: asked before it is taken up, not in its midst."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import DeserializationError
from ..records import EncodedEvent, EncodedValue, Record

if TYPE_CHECKING:
    from ..journal.protocol import JournalStore, RunRow
    from ..serializers.codec import Codec
    from ..state import RunState

_PAGE = 1000


async def require_readable(store: JournalStore, row: RunRow, codec: Codec, state: RunState) -> None:
    """Raise DeserializationError if the state of a run holds what this codec has no serializer for.

    The error names the run, the record and the serializer's codec.
    """
    if all(_is_read(codec, encoded) for encoded in _held(state)):
        return
    after = 0
    while records := await store.read(row.run, after=after, limit=_PAGE):
        for record in records:
            require_known(row.run_id, record, codec)
        after = records[-1].seq
    # In the state of another run, with which this one began.
    unread = next(encoded for encoded in _held(state) if not _is_read(codec, encoded))
    raise _unread(row.run_id, "its first state", unread)


def require_known(run_id: str, record: Record, codec: Codec) -> None:
    """Raise DeserializationError if a record holds what this codec has no serializer for."""
    fact: Any = record.fact
    for part in _encoded(fact):
        if not _is_read(codec, part):
            raise _unread(run_id, f"seq {record.seq} ({type(fact).__name__})", part)


def _is_read(codec: Codec, encoded: EncodedEvent | EncodedValue) -> bool:
    return codec.reads(encoded.codec, encoded.name if isinstance(encoded, EncodedEvent) else None)


def _held(state: RunState) -> Iterator[EncodedEvent | EncodedValue]:
    """Yield what steps that go on may read: values, events of tasks, fan-ins, buffers and waits, and the result."""
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
    for events in state.buffers.values():
        yield from events
    for wait in state.waits.values():
        yield from (part for part in (wait.prompt, wait.answer, wait.requirements) if part is not None)
    if state.result is not None:
        yield state.result


def _encoded(parts: Iterable[Any]) -> Iterator[EncodedEvent | EncodedValue]:
    return (part for part in parts if isinstance(part, EncodedEvent | EncodedValue))


def _unread(run_id: str, where: str, encoded: EncodedEvent | EncodedValue) -> DeserializationError:
    return DeserializationError(
        f"run {run_id}, {where}: written by the serializer {encoded.codec!r}, which this program does not have. "
        "Give it to the workflow, or read it besides: Journal(url, readers=[...]). The run was left as it is"
    )
