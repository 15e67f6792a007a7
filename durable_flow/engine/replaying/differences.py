"""Where two values differ: paths of fields, keys and items, without those that nobody wants to hear of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, time
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel

from ...errors import DurableFlowError
from ...serializers.codec import Codec
from .report import NOTHING

# A default that differs when it is made again is made of the clock, a counter or chance; so often it is tried.
_TRIES = 100


class Difference(NamedTuple):
    """A place at which two values differ. `is_default`: the new one is a default made of the clock or of chance."""

    path: str
    recorded: Any
    new: Any
    is_default: bool = False


class Differences:
    """Finds differences; what `ignore` names (patterns as of fnmatch, over whole paths) is none, nor what is in it."""

    def __init__(self, codec: Codec, ignore: Sequence[str] = ()):
        self.codec = codec
        self._ignore = tuple(ignore)

    def of(self, path: str, recorded: Any, new: Any, live: Any = NOTHING) -> Iterator[Difference]:
        """Yield what differs in two decoded values. `live` is the object that `new` was encoded from: it knows which
        of its fields were set.
        """
        if self.is_ignored(path):
            return
        if type(recorded) is not type(new):
            yield Difference(path, recorded, new)
        elif isinstance(new, BaseModel):
            yield from self._of_model(path, recorded, new, live)
        elif isinstance(new, dict):
            for key in dict.fromkeys([*recorded, *new]):
                parts = (recorded.get(key, NOTHING), new.get(key, NOTHING))
                yield from self.of(f"{path}.{key}", *parts, live.get(key, NOTHING) if type(live) is dict else NOTHING)
        elif isinstance(new, list | tuple):
            for at in range(max(len(recorded), len(new))):
                yield from self.of(f"{path}.{at}", _item(recorded, at), _item(new, at), _item(live, at))
        elif dataclasses.is_dataclass(new):
            for name in (each.name for each in dataclasses.fields(new)):
                parts = (getattr(recorded, name, NOTHING), getattr(new, name, NOTHING))
                yield from self.of(f"{path}.{name}", *parts, getattr(live, name, NOTHING))
        elif not self._is_equal(recorded, new):
            yield Difference(path, recorded, new)

    def is_ignored(self, path: str) -> bool:
        """Tell whether this path is left out."""
        return any(fnmatchcase(path, pattern) for pattern in self._ignore)

    def _of_model(self, path: str, recorded: Any, new: Any, live: Any) -> Iterator[Difference]:
        if type(live) is not type(new):
            live = NOTHING
        for name in dict.fromkeys([*_names(recorded), *_names(new)]):
            if _is_not_kept(recorded, name) and _is_not_kept(new, name):
                continue
            at, parts = f"{path}.{name}", (_field(recorded, name), _field(new, name))
            found = list(self.of(at, *parts, _field(live, name)))
            if not found or live is NOTHING or name in live.model_fields_set or not varies(type(live), name):
                yield from found
            elif isinstance(parts[0], BaseModel) and type(parts[0]) is type(parts[1]):
                # The step may have changed the default in place: only what is different each time is left out.
                varying = tuple(self._varying(at, type(live), name))
                for difference in found:
                    is_default = any(
                        difference.path == each or difference.path.startswith(f"{each}.") for each in varying
                    )
                    yield difference._replace(is_default=True) if is_default else difference
            else:
                yield Difference(at, *parts, is_default=True)

    def _varying(self, path: str, cls: type[BaseModel], name: str) -> set[str]:
        """Return the paths in a default that are different each time that it is made."""
        first = _default(cls, name)
        found: set[str] = set()
        for _ in range(_TRIES):
            found |= {difference.path for difference in self.of(path, first, _default(cls, name))}
            if found:
                break
        return found

    def _is_equal(self, recorded: Any, new: Any) -> bool:
        try:
            # NaN is not itself.
            if recorded == new or (recorded != recorded and new != new):
                return True
        except Exception:
            pass  # from a class of the program, whatever it is
        if isinstance(new, BaseException):
            return bool(vars(recorded) == vars(new) and recorded.args == new.args)
        try:
            # A class that does not say what makes its objects equal.
            return self.codec.encode_value(recorded) == self.codec.encode_value(new)
        except DurableFlowError:
            return False


def varies(cls: type[BaseModel], name: str) -> bool:
    """Tell whether a field has a default that is another one each time, or a time or an id."""
    field = cls.model_fields.get(name)
    if field is None or field.default_factory is None:
        return False
    return makes_varying(lambda: _default(cls, name))


def makes_varying(make: Callable[[], Any]) -> bool:
    """Tell whether what this makes is another one each time, or a time or an id."""
    try:
        first = make()
        return isinstance(first, date | time | UUID) or any(make() != first for _ in range(_TRIES))
    except Exception:
        return False  # it needs what is not known here


def _default(cls: type[BaseModel], name: str) -> Any:
    return cls.model_fields[name].get_default(call_default_factory=True, validated_data={})


def _is_not_kept(model: BaseModel, name: str) -> bool:
    """Tell whether a field was made up when the model was read: `exclude=True` fields are not stored."""
    field = type(model).model_fields.get(name)
    return field is not None and field.exclude is True and name not in model.model_fields_set


def _names(model: BaseModel) -> Iterable[str]:
    return [*type(model).model_fields, *(model.__pydantic_extra__ or {})]


def _field(model: Any, name: str) -> Any:
    # Not by getattr: the attributes of a model are more than its fields.
    if model is NOTHING:
        return NOTHING
    return model.__dict__.get(name, (model.__pydantic_extra__ or {}).get(name, NOTHING))


def _item(value: Any, at: int) -> Any:
    return value[at] if isinstance(value, list | tuple) and at < len(value) else NOTHING
