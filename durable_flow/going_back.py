"""What a workflow does with what is recorded: forks and edits of runs, replays, and runs from a checkpoint.

Few programs do, so `Workflow` imports it where they do.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .context.edits import validated
from .context.saved import restored
from .context.seen import seen
from .engine import forking
from .engine.attachment import Attachment
from .engine.checkpointing import Completion, OnCompletion
from .engine.from_checkpoint import run_from as begin_from
from .errors import CheckpointError, WorkflowRuntimeError
from .events import Event
from .journal.checkpoint import At, Checkpoint
from .journal.forking import ForkRequest
from .journal.patches import Patch, Validate
from .journal.runid import require_run_id

if TYPE_CHECKING:
    from .engine.engine import Engine
    from .program import WorkflowProgram
    from .serializers import Serializer


async def fork(
    engine: Engine,
    program: WorkflowProgram,
    run_id: str,
    at: At | None,
    new_run_id: str | None,
    values: Mapping[str, Any] | None,
    patch: Patch | None,
    event: Event | None,
    drop_pending: bool,
) -> Attachment:
    """Begin a run that goes on from a checkpoint of another one, see `Workflow.fork`."""
    if new_run_id is not None:
        require_run_id(new_run_id)
    emit = None if event is None else forking.emit_by(program, run_id, event)
    request = ForkRequest(at, values, patch, emit, drop_pending, _validate(program, run_id))
    return await forking.fork(engine, program, require_run_id(run_id), new_run_id, request)


async def edit(
    engine: Engine,
    program: WorkflowProgram,
    run_id: str,
    values: Mapping[str, Any] | None,
    patch: Patch | None,
    by: str,
) -> str:
    """Change the context of a run that nobody has, see `Workflow.edit`."""
    request = ForkRequest(values=values, patch=patch, validate=_validate(program, run_id))
    return await forking.edit_in_place(engine, program, require_run_id(run_id), by, request)


def run_from(
    engine: Engine,
    program: WorkflowProgram,
    checkpoint: Checkpoint,
    ctx_serializer: Serializer | None,
    checkpoint_callback: Callable[..., Awaitable[None]] | None,
    run_id: str | None,
    stepwise: bool,
    dropped: Collection[str],
) -> Attachment:
    """Begin a run from a checkpoint, see `Workflow.run_from`."""
    if not isinstance(checkpoint, Checkpoint):
        raise CheckpointError(
            f"run_from takes a Checkpoint, not a {type(checkpoint).__name__}. To go on from a run by an id, a seq or a "
            "name: flow.fork(run_id, at)"
        )
    if run_id is not None:
        require_run_id(run_id)
    if dropped:
        warnings.warn(
            f"run_from() goes on from a checkpoint and sends no start event; {', '.join(dropped)} will be dropped",
            stacklevel=3,
        )
    on_completion = None if checkpoint_callback is None else calling(program, checkpoint_callback)
    given = None if checkpoint.ctx_state is None else restored(program, checkpoint.ctx_state, ctx_serializer)
    attachment = begin_from(
        engine, program, checkpoint, given, run_id, _validate(program, checkpoint.run_id), stepwise=stepwise
    )
    if on_completion is not None:
        attachment.call_back(on_completion)
    return attachment


def calling(program: WorkflowProgram, callback: Callable[..., Awaitable[None]]) -> OnCompletion:
    """Return what calls back when a step has completed. Raises WorkflowRuntimeError for what cannot be called."""
    if not callable(callback):
        raise WorkflowRuntimeError(
            f"checkpoint_callback={callback!r:.80} cannot be called: it is an async function of last_completed_step, "
            "input_ev, output_ev and ctx, and of run_id if it wants that"
        )
    takes_run_id = _takes_run_id(callback)

    async def call(completion: Completion) -> None:
        checkpoint = completion.checkpoint
        arguments: dict[str, Any] = {
            "last_completed_step": checkpoint.last_completed_step,
            "input_ev": checkpoint.input_event,
            "output_ev": checkpoint.output_event,
            "ctx": seen(program, completion),
        }
        if takes_run_id:
            arguments["run_id"] = checkpoint.run_id
        result: Any = callback(**arguments)
        if inspect.isawaitable(result):
            await result

    return call


def _validate(program: WorkflowProgram, run_id: str) -> Validate:
    return partial(validated, run_id, program.table.state_class, program.codec)


def _takes_run_id(callback: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(callback).parameters
    except (TypeError, ValueError):
        return False
    return "run_id" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
