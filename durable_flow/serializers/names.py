"""Names of classes in stored data: "module:qualname", found again among loaded modules and never by importing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import ModuleType
from typing import Any

# The second is what a child of `multiprocessing` calls the module of the script.
_MAIN = ("__main__", "__mp_main__")


def stored_name(cls: type) -> str:
    """Return "module:qualname"; for a class of the script itself the script's module name, so `jobs` for `jobs.py`.

    So `python jobs.py` and a program that imports `jobs` read each other's data.
    """
    module = cls.__module__
    return f"{_script_name(module) if module in _MAIN else module}:{cls.__qualname__}"


def find_loaded(name: str) -> type | None:
    """Return the class of this stored name if its module is loaded, else None.

    Looks into the dictionaries of modules and classes, because a module's `__getattr__` could import.
    """
    module_name, _, qualname = name.partition(":")
    for module in _loaded(module_name):
        found: Any = module
        for part in qualname.split("."):
            found = vars(found).get(part) if isinstance(found, (ModuleType, type)) else None
        if isinstance(found, type):
            return found
    return None


def _loaded(name: str) -> Iterator[ModuleType]:
    for main in _MAIN:
        if main in sys.modules and _script_name(main) == name:
            yield sys.modules[main]
    if name in sys.modules:
        yield sys.modules[name]


def _script_name(main: str) -> str:
    module = sys.modules.get(main)
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name)
    file = getattr(module, "__file__", None)
    return PurePath(file).stem if file else main
