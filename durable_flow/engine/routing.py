"""Where an event goes: the steps that take it."""

from __future__ import annotations

from ..errors import WorkflowRuntimeError, WorkflowStepDoesNotExistError
from ..events import Event, HumanResponseEvent, StopEvent
from .collecting import joins_of_sent
from .program import Program


def route(program: Program, run_id: str, event: Event, step: str | None) -> tuple[str, ...]:
    """Return the steps that an event goes to; raises for what cannot be sent."""
    if not isinstance(event, Event):
        raise WorkflowRuntimeError(f"send_event takes Event instances, not {type(event).__name__} (run {run_id})")
    if step is None:
        return () if isinstance(event, StopEvent) else program.targets(event)
    if step not in program.num_workers:
        raise WorkflowStepDoesNotExistError(
            f"run {run_id}: there is no step {step!r} in workflow {program.name}; "
            f"its steps are {', '.join(sorted(program.num_workers))}"
        )
    if not program.accepts(step, event):
        raise WorkflowRuntimeError(
            f"run {run_id}: step {step!r} does not accept {type(event).__name__}. Send it without a step, to those "
            "that do, or add its class to the step's annotation"
        )
    if program.has_joins and step in program.joins(type(event)):
        raise WorkflowRuntimeError(
            f"run {run_id}: {type(event).__name__} was sent to the collecting step {step!r}, which takes what steps "
            "return within a fan-out, and no events sent to it. Return the event instead"
        )
    return () if program.has_joins and joins_of_sent(program, event, step) else (step,)


def named_wait(event: Event) -> str | None:
    """Return the wait that an answer names by its `wait_id`, if it does."""
    wait_id = event.get("wait_id") if isinstance(event, HumanResponseEvent) else None
    return wait_id if isinstance(wait_id, str) else None
