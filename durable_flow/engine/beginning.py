"""What a run begins with: the values that a Context held before it, or the unfinished state of another run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..incoming import ImportRequested, StartRequested
from ..journal.runid import new_uid
from ..records import ContextDeleted, ContextSet, EncodedEvent, EncodedValue, Fact, JournalCompacted, StateImported
from ..snapshot import decode_state, encode_state, with_payloads
from .live import ContextLocks, LiveContext

if TYPE_CHECKING:
    from ..branching import BranchPoint
    from ..journal.protocol import JournalStore
    from ..serializers.codec import Codec
    from ..state import RunState
    from .program import Program
    from .run import Run

# What a run begins with beside the values of its context: its start, the state or event, what is awaited.
_FEW_RECORDS = 8


class Beginning(ContextLocks):
    """The state of a Context that belongs to no run, with the locks that a run has for its own.

    `unfinished` is the state that a run goes on from; None: the run starts anew and only takes the values over. The
    live objects stay what they are when a run of this process begins with them. `face` is who has views of them.
    """

    run_id = "(not started)"

    def __init__(self, program: Program, live: LiveContext, unfinished: RunState | None = None, *, face: object = None):
        self.program = program
        self.face = face
        self.live = live
        self.unfinished = unfinished
        # Where the state comes from, if it is that of a checkpoint.
        self.point: BranchPoint | None = None
        # Whether a run has taken it over.
        self.begun = False
        self._given: dict[str, EncodedValue] = {}

    @classmethod
    def of(cls, program: Program, stored: Mapping[str, EncodedValue], unfinished: RunState | None = None) -> Beginning:
        """Return one that holds these values."""
        return cls(program, LiveContext(program.codec, stored), unfinished)

    def values(self, program: Program) -> tuple[ContextSet, ...]:
        """Return the values as a run begins with them: as they are now, changes in place included.

        Raises SerializationError for a value that cannot be encoded any more.
        """
        self._encode(program)
        return tuple(ContextSet(key, value, None, 0, 0) for key, value in self._given.items())

    def import_request(self, program: Program, arguments: EncodedValue | None) -> ImportRequested:
        """Return what starts a run that goes on from the unfinished state. Raises SerializationError, as `values`."""
        state = self.unfinished
        assert state is not None
        self._encode(program)
        return ImportRequested(
            program.name, new_uid(), program.shape, arguments, state.uid, state.seq, encode_state(state),
            _changes(state.context, self._given), resume=state.attention is not None,
        )  # fmt: skip

    def _encode(self, program: Program) -> None:
        self.program = program
        self.live = self.live.taken_over(program.codec, self.face)
        self._given = self.live.encoded()

    def hand_over(self, run: Run) -> None:
        """Let a run that has just been created have the live objects, and what was written since it was requested."""
        self.begun = True
        run.live = self.live
        late = _changes(self._given, self.live.encoded())
        if late:
            run.commit(late)


def first_facts(start: StartRequested | ImportRequested) -> list[Fact]:
    """Return what the journal of a run has between its first record and its start event."""
    if isinstance(start, StartRequested):
        return list(start.context)
    return [StateImported(start.parent, start.seq, start.state), *start.context]


async def recorded_beginning(store: JournalStore, run: int, expected: int) -> list[Fact] | None:
    """Return what a run's journal has in the place of `first_facts`, of which about so many are expected.

    None if that is not known any more, as it was compacted. A run begins with one group of records. What follows it is
    no beginning any more, though it be a value that a step or a caller has set before anything else happened.
    """
    some = expected + _FEW_RECORDS
    records = await store.read(run, limit=some)
    while len(records) == some and not any(record.boundary for record in records):
        some *= 2
        records = await store.read(run, limit=some)
    if isinstance(records[0].fact, JournalCompacted):
        return None
    end = next(at for at, record in enumerate(records, 1) if record.boundary)
    return [r.fact for r in records[:end] if isinstance(r.fact, StateImported | ContextSet | ContextDeleted)]


def begins_alike(codec: Codec, recorded: Collection[Fact], given: Collection[Fact]) -> bool:
    """Tell whether a run began with the same state and values, in whatever order the values were set.

    Codecs other than JSON are not canonical: equal values may have other bytes. So what differs is compared decoded,
    and each value as it stands in the end, in the state or set after it.
    """
    if set(recorded) == set(given):
        return True
    (state, values), (other_state, other_values) = _meaning(codec, recorded), _meaning(codec, given)
    return state == other_state and values == other_values


def _meaning(codec: Codec, facts: Collection[Fact]) -> tuple[Any, dict[str, _Payload]]:
    """Return which unfinished state these facts begin with, without its values, and the values by key."""
    state: Any = None
    values: dict[str, EncodedValue] = {}
    for fact in facts:
        if isinstance(fact, StateImported):
            imported = decode_state(fact.state)
            values.update(imported.context)
            state = (fact.parent, fact.seq, with_payloads(replace(imported, context={}), partial(_Payload, codec)))
        elif isinstance(fact, ContextSet):
            values[fact.key] = fact.value
        elif isinstance(fact, ContextDeleted):
            values.pop(fact.key, None)
    return state, {key: _Payload(codec, value) for key, value in values.items()}


class _Payload:
    """An encoded value or event that equals another one if their bytes or what they stand for are equal."""

    def __init__(self, codec: Codec, encoded: EncodedValue | EncodedEvent):
        self._codec = codec
        self._encoded = encoded

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Payload) or type(self._encoded) is not type(other._encoded):
            return False
        return self._encoded == other._encoded or bool(self._decoded() == other._decoded())

    def __hash__(self) -> int:
        return hash(type(self._encoded))

    def _decoded(self) -> Any:
        if isinstance(self._encoded, EncodedEvent):
            return self._codec.decode_event(self._encoded)
        return self._codec.decode_value(self._encoded)


def _changes(
    before: Mapping[str, EncodedValue], now: Mapping[str, EncodedValue]
) -> tuple[ContextSet | ContextDeleted, ...]:
    """Return what leads from some values to others."""
    return (
        *(ContextSet(key, value, None, 0, 0) for key, value in now.items() if before.get(key) != value),
        *(ContextDeleted(key, None, 0, 0) for key in before if key not in now),
    )
