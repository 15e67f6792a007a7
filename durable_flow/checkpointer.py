"""`WorkflowCheckpointer`: the checkpoints of runs as LlamaIndex had them, one for each step that completed."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from .context.seen import checkpoint_seen, seen
from .engine.attachment import Attachment
from .engine.checkpointing import recorded_completions
from .errors import WorkflowRuntimeError, WorkflowStepDoesNotExistError
from .events import Event
from .journal.checkpoint import Checkpoint
from .journal.runid import require_run_id
from .steps import step_table

if TYPE_CHECKING:
    from .context import Context
    from .handler import WorkflowHandler
    from .serializers import Serializer
    from .workflow import Workflow

__all__ = ["Checkpoint", "CheckpointCallback", "WorkflowCheckpointer"]


class CheckpointCallback(Protocol):
    """What `Workflow.run(checkpoint_callback=)` takes: called for each step of the run that completes."""

    def __call__(
        self,
        run_id: str,
        last_completed_step: str | None,
        input_ev: Event | None,
        output_ev: Event | None,
        ctx: Context[Any],
    ) -> Awaitable[None]:
        """Take note that a step has completed.

        Its arguments are given by name; `run_id` may be left out. `ctx` shows the context as it was then:
        `ctx.to_dict()` is the `ctx_state` of a Checkpoint.
        """


class WorkflowCheckpointer:
    """Runs a workflow, and keeps a Checkpoint of each step that completes in its runs.

    Every step that completes is a checkpoint of the journal anyway; this is a view of them, in memory. `checkpoints`
    has what this object has seen: the runs that were started with it, and those that `load` has read from the
    journal, of other processes too.

    `checkpoint_serializer` writes the values and events in `ctx_state`; default is as they are in the journal.
    `disabled_steps` are steps whose checkpoints are not kept. The workflow may be replaced: `ckptr.workflow = other`.

    Raises WorkflowRuntimeError for what is no instance of a workflow, and WorkflowStepDoesNotExistError for a disabled
    step that it does not have.
    """

    def __init__(
        self,
        workflow: Workflow,
        checkpoint_serializer: Serializer | None = None,
        disabled_steps: Collection[str] = (),
    ):
        self.workflow = workflow
        self.enabled_checkpoints: set[str] = set(_steps(workflow))
        self._checkpoint_serializer = checkpoint_serializer
        self._checkpoints: dict[str, list[Checkpoint]] = {}
        for step in disabled_steps:
            self.disable_checkpoint(step)

    @property
    def workflow(self) -> Workflow:
        """The workflow whose runs `run`, `run_from` and `load` are about; another instance may be set."""
        return self._workflow

    @workflow.setter
    def workflow(self, workflow: Workflow) -> None:
        if isinstance(workflow, type) or not hasattr(workflow, "_durable_program_now"):
            raise WorkflowRuntimeError(f"WorkflowCheckpointer takes an instance of a Workflow, not {workflow!r:.80}")
        self._workflow = workflow

    @property
    def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """The checkpoints that this object has seen, by run id, each run's in the order of its journal."""
        return self._checkpoints

    def enable_checkpoint(self, step: str) -> None:
        """Keep the checkpoints of a step from now on. Raises WorkflowStepDoesNotExistError."""
        self._require(step)
        self.enabled_checkpoints.add(step)

    def disable_checkpoint(self, step: str) -> None:
        """Keep those of a step no longer; what is there stays. Raises WorkflowStepDoesNotExistError."""
        self._require(step)
        self.enabled_checkpoints.discard(step)

    def _require(self, step: str) -> None:
        steps = _steps(self.workflow)
        if step not in steps:
            raise WorkflowStepDoesNotExistError(
                f"workflow {self.workflow.workflow_name} has no step {step!r}, whose checkpoints could be kept; its "
                f"steps are {', '.join(steps)}"
            )

    def run(self, **kwargs: Any) -> WorkflowHandler:
        """Return `workflow.run(...)` with the same arguments; the checkpoints of the run are kept here."""
        return self.workflow.run(checkpoint_callback=self.new_checkpoint_callback_for_run(), **kwargs)

    def run_from(self, checkpoint: Checkpoint, **kwargs: Any) -> WorkflowHandler:
        """Return `workflow.run_from(checkpoint, ...)`: a new run, whose checkpoints are kept here under its id."""
        return self.workflow.run_from(
            checkpoint,
            ctx_serializer=self._checkpoint_serializer,
            checkpoint_callback=self.new_checkpoint_callback_for_run(),
            **kwargs,
        )

    def new_checkpoint_callback_for_run(self) -> CheckpointCallback:
        """Return a callback for `workflow.run(checkpoint_callback=)` that keeps the checkpoints of its run here."""

        async def keep(
            run_id: str,
            last_completed_step: str | None,
            input_ev: Event | None,
            output_ev: Event | None,
            ctx: Context[Any],
        ) -> None:
            if last_completed_step not in self.enabled_checkpoints:
                return
            checkpoint = checkpoint_seen(ctx, self._checkpoint_serializer)
            if checkpoint is None:  # called by hand
                checkpoint = Checkpoint(
                    run_id=run_id,
                    last_completed_step=last_completed_step,
                    input_event=input_ev,
                    output_event=output_ev,
                    ctx_state=ctx.to_dict(self._checkpoint_serializer),
                )
            self._keep(run_id, [checkpoint])

        return keep

    async def load(self, run_id: str) -> list[Checkpoint]:
        """Read the checkpoints of a run of this workflow from the journal, whoever had it; return those kept here.

        What was there of the run stays, the same objects; what is missing of the enabled steps is added. Reads the
        run's journal once, whole, and keeps a state for each checkpoint.

        Raises RunNotFoundError, and RunConflictError for a run of another workflow.
        """
        program, engine = self.workflow._durable_prepare(), self.workflow._durable_engine()
        found = []
        async with aclosing(recorded_completions(Attachment(engine, program, require_run_id(run_id)))) as completions:
            async for completion in completions:
                if completion.checkpoint.last_completed_step in self.enabled_checkpoints:
                    checkpoint = checkpoint_seen(seen(program, completion), self._checkpoint_serializer)
                    assert checkpoint is not None
                    found.append(checkpoint)
        self._keep(run_id, found)
        return self._checkpoints.get(run_id, [])

    def _keep(self, run_id: str, checkpoints: list[Checkpoint]) -> None:
        """Add those that are not there yet, each at its place in the run."""
        if not checkpoints:
            return
        kept = self._checkpoints.setdefault(run_id, [])
        if not kept or checkpoints[0].seq > kept[-1].seq:  # as they come from a run: no look at all of them
            kept += checkpoints
            return
        known = {checkpoint.id_ for checkpoint in kept}
        kept += [checkpoint for checkpoint in checkpoints if checkpoint.id_ not in known]
        kept.sort(key=lambda checkpoint: checkpoint.seq)

    def filter_checkpoints(
        self,
        run_id: str | None = None,
        last_completed_step: str | None = None,
        input_event_type: type[Event] | None = None,
        output_event_type: type[Event] | None = None,
    ) -> list[Checkpoint]:
        """Return the checkpoints that this object has seen to which all of the given filters apply.

        Classes of events are compared exactly: a derived one is another one. A run that this object has not seen has no
        checkpoints here; `load` reads them. Raises ValueError without any filter.
        """
        if run_id is None and last_completed_step is None and input_event_type is None and output_event_type is None:
            raise ValueError(
                "filter_checkpoints needs a filter: run_id, last_completed_step, input_event_type or "
                "output_event_type; `checkpoints` has all of them"
            )
        runs = [self._checkpoints.get(run_id, [])] if run_id is not None else self._checkpoints.values()
        return [
            checkpoint
            for run in runs
            for checkpoint in run
            if (last_completed_step is None or checkpoint.last_completed_step == last_completed_step)
            and (input_event_type is None or type(checkpoint.input_event) is input_event_type)
            and (output_event_type is None or type(checkpoint.output_event) is output_event_type)
        ]


def _steps(workflow: Workflow) -> tuple[str, ...]:
    return tuple(step_table(type(workflow)).steps)
