"""Why a run does not go on, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..errors import DeserializationError
from ..records import TaskId
from ..shape import changes
from ..state import RunState
from .collecting import incomplete_sets
from .program import Program


def why_crashing(run_id: str, claims: int) -> str:
    """Say that a run seems to kill its process."""
    return (
        f"run {run_id} was taken up {claims} times and every time its process ended before anything was recorded. "
        f"Look for what kills it, then flow.resume({run_id!r})"
    )


def why_aside(run_id: str, program: Program, state: RunState, steps: Iterable[str]) -> str:
    """Say that there is work for steps that are gone."""
    listed = ", ".join(repr(step) for step in steps)
    changed = changes(state.shape, program.shape)
    since = f" Changed since the run began: {'; '.join(changed)}." if changed else ""
    return (
        f"run {run_id} has pending work for {listed}, which workflow {program.name} no longer has.{since} Restore the "
        f"step, then flow.resume({run_id!r}); {remedies(run_id)}"
    )


def why_unreadable(run_id: str, task: TaskId, error: DeserializationError) -> str:
    """Say that a step cannot be given its event."""
    return (
        f"run {run_id}: the event of step {task.step!r} (record {task.seq}) cannot be read: {error}. Repair that, then "
        f"flow.resume({run_id!r}); {remedies(run_id)}"
    )


def remedies(run_id: str) -> str:
    """Say what else may be done with a run that today's code cannot go on with."""
    return (
        f"or resume it with the code that wrote it. To go on without: flow.edit({run_id!r}, ...) changes the run's "
        f"context, flow.fork({run_id!r}, at=..., event=...) makes a new run of it with other pending work"
    )


def why_timed_out(
    run_id: str, program: Program, state: RunState, active: Collection[str], called_for: str | None = None
) -> str:
    """Say what a run whose time is up was doing: its `active` steps, and what it waited for in vain.

    `called_for` is the step for whose completion its callbacks were called.
    """
    message = f"Operation timed out after {program.timeout} seconds. "
    message += f"Currently active steps: {', '.join(sorted(active))}" if active else "No steps active"
    if called_for is not None:
        message += f". The checkpoint_callback of step {called_for!r} was under way"
    if state.unhandled:
        message += f". Events that no step handled: {', '.join(state.unhandled)}"
    message += incomplete_sets(state)
    return f"{message} (run {run_id}; flow.retry({run_id!r}) goes on with a new budget)"
