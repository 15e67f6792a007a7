"""What a run's row says of it: whether it goes on by itself, and when it must be woken."""

from __future__ import annotations

from ..state import RUNNING, RunState
from .protocol import RunUpdate

Standing = tuple[str, int | None]
"""Status and wake_at of a run's row."""


def standing_of(state: RunState) -> Standing:
    """Return what the row of a run in this state says."""
    status = state.status
    return status, None if status == RUNNING else state.wake_at


def row_update(state: RunState, before: Standing) -> RunUpdate | None:
    """Return what changes in the row that said `before`: the status, or when a parked run must be woken."""
    status = state.status
    if status == RUNNING:
        return None if before[0] == RUNNING else RunUpdate(status)
    wake_at = state.wake_at
    if (status, wake_at) == before:
        return None
    error = state.attention
    if state.ended and state.error is not None:
        error = f"{state.error.type}: {state.error.message}"[:500]
    return RunUpdate(status, wake_at, error, release=state.ended is not None or state.attention is not None)
