"""Finds and loads the demo's workflow, `document_review.py`: from a source checkout or from the installed package."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "_examples" / "document_review.py", _PACKAGE.parent / "examples" / "document_review.py")


def example_path() -> Path:
    """Return where the file is. Raises FileNotFoundError."""
    for path in _PLACES:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"document_review.py, the demo's workflow, is at none of {', '.join(map(str, _PLACES))}. "
        "Install durable-flow from a complete checkout or wheel."
    )


def load_example() -> ModuleType:
    """Return the file as a module, for its event classes and its library; its script does not run."""
    path = example_path()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded as a module; install durable-flow again.")
    module = importlib.util.module_from_spec(spec)
    # Registered first: postponed annotations are looked up in the module that `sys.modules` has under this name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def child_environment() -> dict[str, str]:
    """Return the environment in which the file finds the same durable_flow as this process has."""
    if example_path() == _PLACES[0]:
        return dict(os.environ)
    # A checkout need not be installed: then only this process knows where it is.
    paths = [str(_PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
