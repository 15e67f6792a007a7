"""Checkpoints: what `journal.checkpoints` and `journal.blame` tell."""

from __future__ import annotations

from .journal.checkpoint import Checkpoint, KeyChange

__all__ = ["Checkpoint", "KeyChange"]
