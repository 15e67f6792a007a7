"""Names for annotations in programs that build on workflows."""

from __future__ import annotations

from .events import EventType, RunResultT, StopEventT

__all__ = ["EventType", "RunResultT", "StopEventT"]
