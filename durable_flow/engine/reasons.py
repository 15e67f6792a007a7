"""Why a run does not go on, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..state import RunState
from .collecting import incomplete_sets
from .program import Program


def why_crashing(run_id: str, claims: int) -> str:
    """Say that a run seems to kill its process."""
    return (
        f"run {run_id} was taken up {claims} times and every time its process ended before anything was recorded. "
        f"Look for what kills it, then flow.resume({run_id!r})"
    )


def why_aside(run_id: str, program: Program, steps: Iterable[str]) -> str:
    """Say that there is work for steps that are gone."""
    listed = ", ".join(repr(step) for step in steps)
    return (
        f"run {run_id} has pending work for {listed}, which workflow {program.name} no longer has. Restore the step, "
        f"then flow.resume({run_id!r})"
    )


def why_timed_out(run_id: str, program: Program, state: RunState, active: Collection[str]) -> str:
    """Say what a run whose time is up was doing: its `active` steps, and what it waited for in vain."""
    message = f"Operation timed out after {program.timeout} seconds. "
    message += f"Currently active steps: {', '.join(sorted(active))}" if active else "No steps active"
    if state.unhandled:
        message += f". Events that no step handled: {', '.join(state.unhandled)}"
    message += incomplete_sets(state)
    return f"{message} (run {run_id}; flow.retry({run_id!r}) goes on with a new budget)"
