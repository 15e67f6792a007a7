"""What log records carry: always run, step and attempt as fields, never a payload."""

from __future__ import annotations

import traceback
from typing import Any

from .errors import DeserializationError, DurableFlowError, SerializationError


def fields(
    action: str, run_id: str | None = None, step: str | None = None, attempt: int | None = None, **more: Any
) -> dict[str, Any]:
    """Return the `extra` of a log call. The fields are there on every record, None where there is no run or step."""
    return {"action": action, "run_id": run_id, "step": step, "attempt": attempt, **more}


def said(error: BaseException) -> str:
    """Return an error as it may be logged: our own text, of others only class and place, for a text may quote data."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, SerializationError):
        return f"{type(error).__name__} at {error.path}"
    if isinstance(error, DurableFlowError) and not isinstance(error, DeserializationError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} at {frames[-1].filename}:{frames[-1].lineno}" if frames else name
