"""Forks: a new run that goes on from a checkpoint of another one, with something changed. It costs O(state)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..branching import Branch, Emission, Emit, Output, branch, in_place_of, output_of, without_output
from ..errors import CheckpointError, RunConflictError, SerializationError, StateEditError
from ..events import Event, current_name
from ..records import EncodedEvent, EventEmitted, Fact, JournalCompacted, Record
from ..serializers.codec import Codec
from ..state import CANCELLED, COMPLETED, RunState
from .checkpoint import At
from .folding import state_at
from .patches import Patch, Validate, edit_facts
from .points import checkpoint_at, group_ending
from .protocol import JournalStore, NewRun, RunRow, RunUpdate, WorkerId
from .runid import id_of, new_uid
from .standing import standing_of


class ForkRequest(NamedTuple):
    """What is to be different in a fork: context values, a JSON Patch of them, an event; and what is dropped."""

    at: At | None = None
    values: Mapping[str, Any] | None = None
    patch: Patch | None = None
    emit: Emit | None = None
    drop_pending: bool = False
    validate: Validate | None = None


class Fork(NamedTuple):
    """A run to be created, and the seq of the checkpoint from which it goes on."""

    branch: Branch
    seq: int


async def planned(
    store: JournalStore, row: RunRow, codec: Codec, uid: str, shape: str | None, request: ForkRequest
) -> Fork:
    """Return the run that a fork is; `shape` is that of its workflow, None: as it was. Nothing is written.

    Raises CheckpointError for what is no checkpoint of the run or leaves nothing to go on with, StateEditError and
    SerializationError for changes that cannot be made.
    """
    emit = request.emit
    if request.drop_pending and emit is None:
        raise CheckpointError(
            f"run {row.run_id}: drop_pending leaves nothing to go on with; pass event= with what comes instead"
        )
    seq = await checkpoint_at(store, row, request.at)
    output, state = None, None
    if emit is not None:
        group = await group_ending(store, row, seq)
        output = output_of(group)
        if isinstance(group[-1].fact, JournalCompacted) and not request.drop_pending:
            raise CheckpointError(
                f"run {row.run_id}: which event {id_of(row.run_id, seq)} completed with is not known any more, because "
                "the journal was compacted there, so event= cannot take its place. Fork without event=, with "
                "drop_pending=True (then the event is all there is to do), or a later checkpoint"
            )
        if output is not None:
            before = group[0].seq - 1
            state = await state_at(store, row.run, before) if before else without_output(group, output)
    if state is None:
        state = await state_at(store, row.run, seq)
    if state.ended in (COMPLETED, CANCELLED):
        raise CheckpointError(
            f"run {row.run_id} was {state.ended} at {id_of(row.run_id, seq)}: nothing is left to go on with. Fork an "
            "earlier checkpoint, or the completion of its last step with event="
        )

    def edit(at: RunState) -> list[Fact]:
        return edit_facts(
            at.context, codec, run_id=row.run_id, by="fork",
            values=request.values, patch=request.patch, validate=request.validate,
        )  # fmt: skip

    edits = bool(request.values) or request.patch is not None
    made = branch(
        state,
        output,
        uid,
        shape or state.shape,
        edit=edit if edits else None,
        emit=emit,
        drop_pending=request.drop_pending,
    )
    after = made.state
    if emit is not None and not (after.tasks or after.waits or after.slots or after.fan_outs or after.ended):
        raise StateEditError(
            f"run {row.run_id}: nothing is left but the event, and no step takes that by itself: nothing "
            "would ever happen. Steps that collect a list are given what is returned within a fan-out only. Nothing "
            "was written"
        )
    return Fork(made, seq)


def require_event(run_id: str, event: object) -> Event:
    """Return what a fork is to begin with if it is an event. Raises SerializationError."""
    if not isinstance(event, Event):
        raise SerializationError(f"run {run_id}: fork(event=) takes an Event, not {type(event).__name__}")
    return event


def emit_like(encoded: EncodedEvent, run_id: str) -> Emit:
    """Return what emits an event where no workflow says to whom it goes: to where the one goes that it replaces.

    Raises StateEditError, when it is called, if it replaces no event of its own class.
    """

    def emit(state: RunState, output: Output | None, returned: bool) -> Emission:
        for emitted in output.emitted if output is not None else ():
            if current_name(emitted.event.name) != encoded.name:
                continue
            assert output is not None
            fact = emitted._replace(event=encoded, k=None, step=None)
            if not returned:
                fact = fact._replace(task=None, attempt=0)
                if emitted.answers not in state.waits:
                    # Lists are collected of what steps return, and of answers.
                    fact = fact._replace(answers=None, joins=tuple(join for join in emitted.joins if "." in join))
            return in_place_of(output, emitted, fact)
        events = [emitted.event for emitted in output.emitted] if output is not None else []
        if output is not None and output.result is not None:
            if current_name(output.result.name) == encoded.name:
                return Emission(EventEmitted(encoded, None, 0, None, ()), encoded)
            events.append(output.result)
        had = ", ".join(event.name for event in events)
        raise StateEditError(
            f"run {run_id}: who takes a {encoded.name} is known to the workflow alone; the journal can only replace an "
            f"event by one of the same class (at this checkpoint: {had or 'none'}). Use flow.fork. Nothing was written"
        )

    return emit


async def fork(store: JournalStore, row: RunRow, codec: Codec, new_run_id: str, request: ForkRequest) -> None:
    """Create a fork that nobody owns. Raises RunConflictError if its run id is taken, and what `planned` raises."""
    if await store.find(new_run_id) is not None:
        raise taken(new_run_id)
    fork = await planned(store, row, codec, new_uid(), None, request)
    now = store.now()
    facts = fork.branch.facts
    records = [Record(n, now, n == len(facts), fact) for n, fact in enumerate(facts, 1)]
    status, wake_at = standing_of(fork.branch.state)
    new = NewRun(new_run_id, fork.branch.start.uid, row.workflow, row.shape, row.run, fork.seq)
    claim = await store.create(new, records, RunUpdate(status, wake_at, release=True), nobody())
    if claim is None:
        raise taken(new_run_id)


def taken(run_id: str) -> RunConflictError:
    """Return the error for a fork onto a run that exists."""
    return RunConflictError(f"there is a run {run_id} already; a fork needs a run id of its own. Nothing was written")


def nobody() -> WorkerId:
    """Return a worker that is in no table of workers, so that what it owned for a moment is free if it dies."""
    return WorkerId(f"journal-{new_uid()}", "", "", "", 0, 0)
