"""Context: what a step uses to reach its run; see `context.py`."""

from .context import Context
from .store import DictState, StateStore

__all__ = ["Context", "DictState", "StateStore"]
