"""Classes by their qualified names, by the module name that LlamaIndex Workflows has for it."""

from __future__ import annotations

from ..utils import get_qualified_name, import_module_from_qualified_name

__all__ = ["get_qualified_name", "import_module_from_qualified_name"]
