"""Forks and edits by an engine: who takes a fork's event, the new run that lives here, and who owns the edited one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from ..branching import Emission, Emit, Output
from ..errors import WorkflowRuntimeError
from ..events import Event, HumanResponseEvent, InputRequiredEvent, StopEvent
from ..incoming import Collectors, Question
from ..journal.editing import edit, owned
from ..journal.forking import ForkRequest, planned, require_event, taken
from ..journal.patches import edit_facts
from ..journal.runid import id_of, new_uid
from ..journal.runid import new_run_id as made_run_id
from ..records import EventEmitted
from ..state import RunState
from .answers import Answers, answer_names, answer_schema
from .attachment import Attachment
from .collecting import joins_in, joins_of_sent
from .known import require_row, require_workflow
from .placing import give_place_back
from .routing import named_wait, route

if TYPE_CHECKING:
    from .engine import Engine
    from .program import Program


async def fork(
    engine: Engine, program: Program, run_id: str, new_run_id: str | None, request: ForkRequest
) -> Attachment:
    """Create a run that goes on from a checkpoint of another one, and let it begin here.

    Raises RunNotFoundError, RunConflictError for a run of another workflow or a run id that is taken, and what
    `planned` raises.
    """
    attachment = Attachment(engine, program, new_run_id or made_run_id())
    forking = engine.in_background(_fork(engine, program, run_id, attachment, request))
    try:
        await asyncio.shield(forking)
    except asyncio.CancelledError:
        attachment.abandon()
        raise
    return attachment


async def _fork(engine: Engine, program: Program, run_id: str, attachment: Attachment, request: ForkRequest) -> None:
    try:
        await engine.ready()
        row = await require_row(engine.store, run_id)
        require_workflow(Attachment(engine, program, run_id), row.workflow)
        if await engine.store.find(attachment.run_id) is not None:
            raise taken(attachment.run_id)
        await engine.placing.wait(attachment)
        plan = await planned(engine.store, row, program.codec, new_uid(), program.shape, request)
        attachment.forked_from = (row.run, plan.seq)
        if not await engine.starting.create(attachment, None, plan.branch.start):
            raise taken(attachment.run_id)
    finally:
        give_place_back(attachment)


async def edit_in_place(engine: Engine, program: Program, run_id: str, by: str, request: ForkRequest) -> str:
    """Change the context of a run that nobody has, and return the id of the checkpoint that this makes.

    Raises RunNotFoundError, RunConflictError for a run of another workflow or one whose owner lives, RunFinishedError,
    StateEditError and SerializationError.
    """
    await engine.ready()
    giving_up = engine.taking.giving_up(run_id)
    if giving_up is not None:
        await asyncio.wait([giving_up])
    row = await require_row(engine.store, run_id)
    require_workflow(Attachment(engine, program, run_id), row.workflow)
    if run_id in engine.runs or not (await engine.owners.gone())(row.owner):
        raise owned(row)
    seq = await edit(
        engine.store,
        row,
        lambda state: edit_facts(
            state.context, program.codec, run_id=run_id, by=by,
            values=request.values, patch=request.patch, validate=request.validate,
        ),
    )  # fmt: skip
    engine.shared.hear([row.run])
    return id_of(run_id, seq)


def emit_by(program: Program, run_id: str, event: Event) -> Emit:
    """Return what emits an event in a fork of this workflow's run. Raises SerializationError for what is no event."""
    encoded = program.codec.encode_event(require_event(run_id, event))

    def emit(state: RunState, output: Output | None, returned: bool) -> Emission:
        stop = encoded if isinstance(event, StopEvent) else None
        answers = Answers(run_id, state, program)
        asks = isinstance(event, InputRequiredEvent)
        if not returned or output is None or output.task is None:
            wait_id = named_wait(event)
            answers.require_open(event, wait_id)
            joins = joins_of_sent(program, event, None) if program.has_joins else ()
            emitted = EventEmitted(encoded, None, 0, None, route(program, run_id, event, None), None, wait_id, joins)
            return Emission(_question(program, emitted) if asks else answers.received(emitted)[0], stop)
        fan_out = None if stop is not None else _fan_out(program, output, output.task.step, event)
        around = state.fan_outs.get(state.tasks[output.task].scope)
        bound: Collection[str] = fan_out.joins if fan_out is not None else () if around is None else around.joins
        joins = joins_in(program, type(event), bound) if program.has_joins else ()
        targets = () if stop is not None else program.targets(event)
        emitted = EventEmitted(encoded, output.task, output.attempt, None, targets, joins=joins)
        replacing = _question(program, emitted) if asks else answers.matched((emitted,), set())[0]
        return Emission(replacing, stop, fan_out)

    return emit


def _fan_out(program: Program, output: Output, step: str, event: Event) -> Collectors | None:
    """Return who collects the list of which a fork's event is the only element; None if it is returned by itself."""
    fan_out = program.fan_outs.get(step)
    if fan_out is None or output.fan_out is not None:
        return fan_out
    try:
        program.emitted(step, event)
    except WorkflowRuntimeError:
        return fan_out  # the step had returned None, and may return nothing else but lists
    return None


def _question(program: Program, emitted: EventEmitted) -> Question:
    classes = program.answer_types or (HumanResponseEvent,)
    return Question(emitted, answer_names(program), answer_schema(classes))
