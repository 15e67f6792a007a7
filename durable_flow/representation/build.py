"""The graph of a workflow, by the module name that LlamaIndex Workflows has for it."""

from __future__ import annotations

from . import get_workflow_representation

__all__ = ["get_workflow_representation"]
