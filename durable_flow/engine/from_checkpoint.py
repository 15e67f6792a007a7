"""Running from a Checkpoint: a fork, if its run is in the journal, else a run that begins with what it carries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..branching import Branch, Emit, branch, emitted_events, output_of
from ..errors import CheckpointError, DeserializationError, SerializationError
from ..events import Event, StopEvent, UnknownEvent
from ..journal.checkpoint import Checkpoint
from ..journal.folding import state_at
from ..journal.forking import ForkRequest, planned, taken
from ..journal.patches import Patch, Validate, edit_facts
from ..journal.points import checkpoint_at, group_ending
from ..journal.protocol import RunRow
from ..journal.runid import new_run_id as made_run_id
from ..journal.runid import new_uid
from ..records import EncodedEvent, EncodedValue, Fact, Record, StepCompleted
from ..serializers.json import JsonSerializer
from ..state import CANCELLED, COMPLETED, RunState
from .attachment import Attachment
from .forking import emit_by
from .known import require_workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .beginning import Beginning
    from .engine import Engine
    from .program import Program

_EXACT = JsonSerializer()


def run_from(
    engine: Engine,
    program: Program,
    checkpoint: Checkpoint,
    given: Beginning | None,
    new_run_id: str | None,
    validate: Validate,
    *,
    stepwise: bool,
) -> Attachment:
    """Begin a run that goes on from a checkpoint; returns at once. `given` is what its `ctx_state` says.

    What goes wrong is told to the attachment: CheckpointError, RunConflictError, and what forking raises.
    """
    attachment = Attachment(engine, program, new_run_id or made_run_id())
    attachment.stepwise = stepwise
    if program.limit is not None:
        engine.placing.ask(attachment)  # at once: in the order of the starts
    create = partial(_create, attachment, checkpoint, given, validate)
    engine.in_background(engine.starting.in_its_place(attachment, create))
    return attachment


async def _create(attachment: Attachment, checkpoint: Checkpoint, given: Beginning | None, validate: Validate) -> None:
    engine = attachment.engine
    if await engine.store.find(attachment.run_id) is not None:
        raise taken(attachment.run_id)
    row = await _origin(engine, checkpoint, given)
    if row is not None:
        made = await _forked(attachment, row, checkpoint, given, validate)
    else:
        made = _carried_on(attachment, checkpoint, given, validate)
    if not await engine.starting.create(attachment, None, made.start):
        raise taken(attachment.run_id)


async def _origin(engine: Engine, checkpoint: Checkpoint, given: Beginning | None) -> RunRow | None:
    """Return the run that the checkpoint is one of, if this journal has it: the same one, not only of the same id."""
    row = await engine.store.find(checkpoint.run_id) if checkpoint.run_id and checkpoint.seq else None
    uid = _uid(given)
    if row is not None and uid and uid != row.uid:
        row = None
    if row is not None and given is not None and 1 < row.first >= checkpoint.seq:
        row = None  # compacted or pruned since: what the checkpoint carries is all there is
    if row is None and given is None:
        whose = f"run {checkpoint.run_id} is not in {engine.store.url}" if checkpoint.run_id else "it names no run"
        raise CheckpointError(
            f"checkpoint {checkpoint.id} has no ctx_state to go on from, and {whose}. Use the journal that has its "
            "run, or a checkpoint of WorkflowCheckpointer, which carries the state"
        )
    return row


def _uid(given: Beginning | None) -> str:
    """Return the uid of the run whose state this is, as far as it says so."""
    if given is None:
        return ""
    if given.point is not None:
        return given.point.before.uid
    return "" if given.unfinished is None else given.unfinished.uid


async def _forked(
    attachment: Attachment, row: RunRow, checkpoint: Checkpoint, given: Beginning | None, validate: Validate
) -> Branch:
    """Return the run that goes on from a checkpoint of this journal, with what was changed in it."""
    store, program = attachment.engine.store, attachment.program
    require_workflow(Attachment(attachment.engine, program, row.run_id), row.workflow)
    seq = await checkpoint_at(store, row, checkpoint)
    emit = _emit(program, checkpoint, await group_ending(store, row, seq))
    values, patch = None, None
    if given is not None:
        values, patch = _changes(program, (await state_at(store, row.run, seq)).context, given)
    request = ForkRequest(seq, values, patch, emit, False, validate)
    fork = await planned(store, row, program.codec, new_uid(), program.shape, request)
    attachment.forked_from = (row.run, fork.seq)
    return fork.branch


def _carried_on(attachment: Attachment, checkpoint: Checkpoint, given: Beginning | None, validate: Validate) -> Branch:
    """Return the run that goes on from what the checkpoint carries: its own run is not here."""
    assert given is not None
    program = attachment.program
    point = given.point
    state = point.state if point is not None else _state(program, given)
    if state.workflow != program.name:
        raise CheckpointError(
            f"checkpoint {checkpoint.id} is of workflow {state.workflow}, and cannot be gone on from by {program.name}"
        )
    if point is not None:
        emit = _emit(program, checkpoint, point.group)
        values, patch = _changes(program, state.context, given)
    else:
        # Nothing tells what came of the step from what else was pending.
        event = checkpoint.output_for(program.codec)
        emit = None if event is None or state.tasks else emit_by(program, checkpoint.run_id, event)
        values, patch = None, None
    if emit is None and (state.ended in (COMPLETED, CANCELLED) or not _has_work(state)):
        raise CheckpointError(f"checkpoint {checkpoint.id}: nothing is left to go on with there")
    output = output_of(point.group) if point is not None and emit is not None else None
    before = point.before if point is not None and output is not None else state

    def edit(at: RunState) -> list[Fact]:
        return edit_facts(
            at.context, program.codec, run_id=checkpoint.run_id, by="fork", values=values, patch=patch,
            validate=validate,
        )  # fmt: skip

    edits = values is not None or patch is not None
    return branch(before, output, new_uid(), program.shape, edit=edit if edits else None, emit=emit)


def _has_work(state: RunState) -> bool:
    """Tell whether something of a run is pending: a task, a question, or a fan-in that is due."""
    return bool(state.tasks or state.ripe or state.idle or any(wait.is_open for wait in state.waits.values()))


def _state(program: Program, given: Beginning) -> RunState:
    if given.unfinished is not None:
        return given.unfinished
    return RunState(workflow=program.name, context=given.live.encoded())


def _emit(program: Program, checkpoint: Checkpoint, group: Sequence[Record]) -> Emit | None:
    """Return what emits the checkpoint's output event, if it is another one than recorded or ends the run."""
    recorded, event = emitted_events(group, output_of(group)), checkpoint.output_for(program.codec)
    if event is None:
        if recorded:
            raise CheckpointError(
                f"checkpoint {checkpoint.id} has no output event any more. Set the one that is to take its place; "
                "flow.fork(run_id, at, event=..., drop_pending=True) gives up what was pending"
            )
        return None
    completes = any(isinstance(record.fact, StepCompleted) for record in group)
    is_same = bool(recorded) and (checkpoint.recorded_output == recorded[0] or _is_same(program, event, recorded[0]))
    if is_same and not (completes and isinstance(event, StopEvent)):
        return None
    if isinstance(event, UnknownEvent):
        raise CheckpointError(
            f"checkpoint {checkpoint.id}: this program has no event class {event.name!r}, of which its output event is"
        )
    return emit_by(program, checkpoint.run_id, event)


def _is_same(program: Program, event: Event, recorded: EncodedEvent) -> bool:
    codec = program.codec
    encoded = codec.encode_event(event)
    if encoded == recorded:
        return True
    try:
        before = codec.decode_event(recorded)
    except DeserializationError:
        return False
    # Encoded again, as today's class is written.
    return encoded == codec.encode_event(before) or _are_alike(before, event)


def _are_alike(before: object, now: object) -> bool:
    """Tell whether two values whose encodings differ are the same all the same: other codecs than JSON may write equal
    values in several ways.

    Equality alone does not say it, for 1, 1.0 and True are equal.
    """
    try:
        if before != now:
            return False
        return _EXACT.serialize(before) == _EXACT.serialize(now)
    except SerializationError:
        return True  # JSON has no say in what it cannot write
    except Exception:
        return False  # no two of its kind can be compared


def _changes(
    program: Program, recorded: Mapping[str, EncodedValue], given: Beginning
) -> tuple[dict[str, Any] | None, Patch | None]:
    """Return what was changed in the values that a checkpoint carries: those to set, and the removal of others."""
    values, codec = given.live.encoded(), program.codec

    def is_other(key: str) -> bool:
        before, now = recorded.get(key), values[key]
        if before is None or before == now:
            return before is None
        old, new = codec.decode_value(before), codec.decode_value(now)
        return codec.encode_value(old) != codec.encode_value(new) and not _are_alike(old, new)

    changed = {key: codec.decode_value(value) for key, value in values.items() if is_other(key)}
    removed = [
        {"op": "remove", "path": "/" + key.replace("~", "~0").replace("/", "~1")}
        for key in recorded
        if key not in values
    ]
    return changed or None, removed or None
