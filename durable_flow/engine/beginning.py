"""What a run begins with: the values that a Context held before it, or the unfinished state of another run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..incoming import ImportRequested, StartRequested
from ..records import ContextDeleted, ContextSet, EncodedValue, StateImported
from ..snapshot import encode_state
from .clock import new_uid
from .live import ContextLocks, LiveContext

if TYPE_CHECKING:
    from ..serializers.codec import Codec
    from ..state import RunState
    from .program import Program
    from .run import Run


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


def first_facts(start: StartRequested | ImportRequested) -> list[Any]:
    """Return what the journal of a run has between its first record and its start event."""
    if isinstance(start, StartRequested):
        return list(start.context)
    return [StateImported(start.parent, start.seq, start.state), *start.context]


def same_facts(codec: Codec, recorded: Collection[Any], given: Collection[Any]) -> bool:
    """Tell whether a run began with the same facts, in whatever order the values were set."""
    if set(recorded) == set(given):
        return True
    # Codecs other than JSON are not canonical: equal values may have other bytes.
    one, other = (
        ({f.key: codec.decode_value(f.value) for f in facts if isinstance(f, ContextSet)},
         {f for f in facts if not isinstance(f, ContextSet)})
        for facts in (recorded, given)
    )  # fmt: skip
    return one == other


def _changes(
    before: Mapping[str, EncodedValue], now: Mapping[str, EncodedValue]
) -> tuple[ContextSet | ContextDeleted, ...]:
    """Return what leads from some values to others."""
    return (
        *(ContextSet(key, value, None, 0, 0) for key, value in now.items() if before.get(key) != value),
        *(ContextDeleted(key, None, 0, 0) for key in before if key not in now),
    )
