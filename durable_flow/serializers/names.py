"""Names of classes in stored data: "module:qualname", found again among loaded modules and never by importing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import ModuleType
from typing import Any

from ..events import Event, alias_event

# The second is what a child of `multiprocessing` calls the module of the script.
_MAIN = ("__main__", "__mp_main__")
# The classes that former names belong to.
_renamed: dict[str, type] = {}


def stored_name(cls: type) -> str:
    """Return "module:qualname"; for a class of the script itself the script's module name, so `jobs` for `jobs.py`.

    So `python jobs.py` and a program that imports `jobs` read each other's data.
    """
    module = cls.__module__
    return f"{_script_name(module) if module in _MAIN else module}:{cls.__qualname__}"


def register_alias(cls: type, *names: str) -> None:
    """Let stored data that name a class by one of `names` be read as objects of `cls`, in the whole process.

    For models, dataclasses, namedtuples and enums that were renamed or moved: the names are those that they had,
    "package.module:Class". Of an event class they are the names of events, as in its `event_aliases`. Registering
    again replaces what was registered for a name.

    Raises ValueError for a name of the wrong form, and for the name that the class has now.
    """
    if not isinstance(cls, type) or not names:
        raise ValueError(f"register_alias takes a class and the names that it had, not {cls!r} and {names!r}")
    if issubclass(cls, Event):
        alias_event(cls, names)
        return
    for name in names:
        module, colon, qualname = name.partition(":")
        if not (module and colon and qualname):
            raise ValueError(
                f"register_alias({cls.__qualname__}, {name!r}): a class is stored by module and name, as in "
                f"'package.module:{cls.__qualname__}'"
            )
        if name == stored_name(cls):
            raise ValueError(f"register_alias: {name!r} is the name of {cls.__qualname__} today, not a former one")
    _renamed.update(dict.fromkeys(names, cls))


def find_loaded(name: str) -> type | None:
    """Return the class of this stored name, or alias, if its module is loaded, else None.

    Looks into the dictionaries of modules and classes, because a module's `__getattr__` could import.
    """
    if name in _renamed:
        return _renamed[name]
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
