"""`Checkpoint`: a boundary of a run's journal, from which the run can be looked at or forked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_serializer,
    field_validator,
)

from ..errors import CheckpointError, DeserializationError, SerializationError
from ..events import Event, UnknownEvent
from ..records import EncodedEvent
from ..serializers.base import Serializer
from ..serializers.codec import Codec
from ..serializers.json import JsonSerializer
from ..snapshot import dump_value, load_value

CheckpointKind = Literal["start", "step", "named", "wait", "edit", "end", "compacted"]

FORMAT = "durable_flow.Checkpoint"
VERSION = 1

_EXACT = JsonSerializer()


class Checkpoint(BaseModel):
    """A boundary of a run's journal.

    `kind` says what happened there: the run's "start", a "step" that completed, a place "named" by `ctx.checkpoint`, a
    "wait" for an event or a person, an "edit" of the context from outside, the "end" of the run; or that all before it
    was "compacted", so that what happened there is not known any more. `run_id` and `seq` lead to its last record (an
    empty text and 0: one that was made by hand), `at` is its time. `name` is given where `ctx.checkpoint` named it.

    `last_completed_step` is the step that completed here, None if none did. `input_event` is what that step, or the one
    that named the place or waits, was given: the first of `input_events`, which a step that collects has several of.
    `output_event` is what came into being here, the first of `output_events`: what the step returned, or sent in its
    last moments; the result at the run's end; the start event at its start. `keys_changed` are the context keys written
    since the checkpoint before, sorted.

    `ctx_state` is the state of the run here as `Context.to_dict` returns it. Only checkpoints of `WorkflowCheckpointer`
    and those that a `checkpoint_callback` makes have it: listing is quick without.

    `output_event` and `ctx_state` may be changed before `Workflow.run_from`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    id_: str = Field(default_factory=lambda: str(uuid4()))
    last_completed_step: str | None = None
    input_event: Event | None = None
    output_event: Event | None = None
    ctx_state: dict[str, Any] | None = None
    run_id: str = ""
    seq: int = 0
    kind: CheckpointKind = "step"
    at: datetime | None = None
    name: str | None = None
    keys_changed: tuple[str, ...] = ()

    _inputs: tuple[Event, ...] = PrivateAttr(())
    _outputs: tuple[Event, ...] = PrivateAttr(())
    # The first of the output events as it was stored, and its digest when it had been read: by that a change is found.
    _recorded: EncodedEvent | None = PrivateAttr(None)
    _read_as: bytes | None = PrivateAttr(None)

    @field_serializer("input_event", "output_event")
    def _write(self, event: Event | None) -> Any:
        # As fields of an Event, which pydantic would write, it would come back without its class.
        return None if event is None else dump_value(Codec(_EXACT).encode_event(event))

    @field_validator("input_event", "output_event", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if list(value) != [EncodedEvent.__name__]:
            raise ValueError("give an Event, or what model_dump() wrote")
        try:
            return Codec(_EXACT).decode_event(_stored(value))
        except DeserializationError as error:
            raise ValueError(f"it cannot be read: {error}") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Checkpoint):
            return NotImplemented
        return (self.__dict__, self.input_events, self.output_events) == (
            other.__dict__, other.input_events, other.output_events
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash(self.id_)

    @property
    def id(self) -> str:
        """Its id: run id and seq, as in "order-42/17"."""
        return self.id_

    @property
    def input_events(self) -> tuple[Event, ...]:
        """All of the input events: several for a step that collects."""
        return _all(self.input_event, self._inputs)

    @property
    def output_events(self) -> tuple[Event, ...]:
        """All of the output events, in order; an `output_event` that was replaced stands for all of them."""
        return _all(self.output_event, self._outputs)

    def output_for(self, codec: Codec) -> Event | None:
        """Return the output event; one whose class was not there when the checkpoint was made is read again."""
        recorded = self.recorded_output if type(self.output_event) is UnknownEvent else None
        return self.output_event if recorded is None else codec.decode_event(recorded)

    @property
    def recorded_output(self) -> EncodedEvent | None:
        """The output event as it was stored, if it is the one that was read, unchanged.

        Written again it may be another one: a field that its class has gained since has its default.
        """
        event = self.output_event
        if event is None or self._read_as is None or self._outputs[0] is not event or _digest(event) != self._read_as:
            return None
        return self._recorded

    def to_dict(self, serializer: Serializer | None = None) -> dict[str, Any]:
        """Return it as JSON-able data, for `from_dict` in this process or another.

        `serializer` writes the events; default is exact JSON. Raises SerializationError for an event that it cannot
        write.
        """
        codec = Codec(serializer or _EXACT)
        outputs = [codec.encode_event(event) for event in self.output_events]
        recorded = self.recorded_output
        if recorded is not None and recorded.codec == codec.serializer.codec:
            outputs[0] = recorded
        return {
            "format": FORMAT,
            "version": VERSION,
            **{name: getattr(self, name) for name in _PLAIN},
            "at": None if self.at is None else self.at.isoformat(),
            "keys_changed": list(self.keys_changed),
            "inputs": [dump_value(codec.encode_event(event)) for event in self.input_events],
            "outputs": [dump_value(event) for event in outputs],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], serializer: Serializer | None = None) -> Checkpoint:
        """Return the checkpoint that `to_dict` returned; `serializer` is the one that it was given.

        An event whose class this program does not have is an UnknownEvent. Raises CheckpointError for data that are
        damaged, of a newer version, or no checkpoint.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise CheckpointError("these data are no checkpoint: give what checkpoint.to_dict() returned")
        version = data.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise CheckpointError(
                f"this is version {version!r} of a checkpoint, and this version of durable_flow reads up to {VERSION}: "
                "a newer one wrote it. Upgrade the package to read it."
            )
        codec = Codec(serializer or _EXACT, readers=(_EXACT,))
        try:
            inputs, outputs = ([_stored(each) for each in data[name]] for name in ("inputs", "outputs"))
            plain = {name: data[name] for name in (*_PLAIN, "at", "keys_changed")}
            return checkpoint(inputs, outputs, codec.decode_event, cls, **plain)
        except (LookupError, TypeError, ValidationError, DeserializationError) as error:
            raise CheckpointError(f"this checkpoint cannot be read: {error}") from error


_PLAIN = ("id_", "last_completed_step", "ctx_state", "run_id", "seq", "kind", "name")


def checkpoint(
    inputs: Iterable[EncodedEvent],
    outputs: Sequence[EncodedEvent],
    event_of: Callable[[EncodedEvent], Event],
    cls: type[Checkpoint] = Checkpoint,
    **values: Any,
) -> Checkpoint:
    """Return a checkpoint with all of its input and output events."""
    given, made = tuple(map(event_of, inputs)), tuple(map(event_of, outputs))
    result = cls(input_event=given[0] if given else None, output_event=made[0] if made else None, **values)
    result._inputs, result._outputs = given, made
    if made:
        result._recorded, result._read_as = outputs[0], _digest(made[0])
    return result


def _digest(event: Event) -> bytes | None:
    try:
        return hashlib.blake2b(_EXACT.serialize(event), digest_size=16).digest()
    except SerializationError:
        return None


def _all(first: Event | None, events: tuple[Event, ...]) -> tuple[Event, ...]:
    if events and events[0] is first:
        return events
    return () if first is None else (first,)


def _stored(data: Any) -> EncodedEvent:
    encoded = load_value(data)
    if not isinstance(encoded, EncodedEvent):
        raise DeserializationError("where an event belongs there is something else")
    return encoded


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
