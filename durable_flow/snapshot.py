"""A run's folded state as JSON, and back: complete, versioned, without any class of the user.

`load(dump(state)) == state`. How a class is written follows from its type hints, once per class, so a new field of
`RunState` or of what it holds needs no change here. Fields at their defaults are left out. Data with a field, a class
or a version that is not known come from a newer version of durable_flow and are refused.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from . import records
from . import state as states
from .errors import DeserializationError
from .records import EncodedEvent, EncodedValue, WaitOpened
from .state import Effect, RunState

VERSION = 1
CODEC = "json"

PartT = TypeVar("PartT")

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class _Form(NamedTuple):
    """How values of a type are written and read."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def dump(state: RunState) -> dict[str, Any]:
    """Return a run's state as JSON-able data."""
    return {"version": VERSION, **_form(RunState).dump(state)}


def load(data: Any) -> RunState:
    """Return the state that `dump` wrote. Raises DeserializationError."""
    if not isinstance(data, dict) or type(version := data.get("version")) is not int:
        raise DeserializationError("these data are no state of a run: they have no version")
    if not 1 <= version <= VERSION:
        raise _newer(f"version {version} of a run's state")
    content = {key: value for key, value in data.items() if key != "version"}
    try:
        state: RunState = _form(RunState).load(content)
    except DeserializationError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise DeserializationError(f"these data are no state of a run: {error}") from error
    return state


def encode_state(state: RunState) -> EncodedValue:
    """Return a state as bytes; equal states give equal bytes."""
    return joined(encoded_parts(state))


def encoded_parts(state: RunState) -> Iterator[str]:
    """Yield what `joined` makes `encode_state`'s bytes of: parts, so that whoever encodes much can pause in between."""
    yield f'{{"version":{VERSION}'
    for name, (form, default) in _planned(RunState).items():
        value = getattr(state, name)
        if _is_default(value, default):
            continue
        yield f',"{name}":'
        if type(value) is not dict or not value:
            yield _to_json(form.dump(value))
            continue
        before = "["
        for key, part in value.items():
            # A mapping is written as its pairs, whatever it is a part of.
            [pair] = form.dump({key: part})
            yield before + _to_json(pair)
            before = ","
        yield "]"
    yield "}"


def joined(parts: Iterable[str]) -> EncodedValue:
    """Return the parts of an encoded state as one."""
    return EncodedValue(CODEC, "".join(parts).encode("utf-8", "surrogatepass"))


def decode_state(encoded: EncodedValue) -> RunState:
    """Return the state that `encode_state` wrote. Raises DeserializationError."""
    if encoded.codec != CODEC:
        raise _newer(f"a run's state in the codec {encoded.codec!r}")
    try:
        data = json.loads(encoded.data.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise DeserializationError(f"{len(encoded.data)} bytes are no state of a run: {error}") from error
    return load(data)


def dump_value(value: Any) -> Any:
    """Return plain values, payloads, facts and records as JSON-able data that name their kinds.

    Raises TypeError for anything else.
    """
    return _dump_any(value)


def load_value(data: Any) -> Any:
    """Return what `dump_value` wrote. Raises DeserializationError."""
    try:
        return _load_any(data)
    except DeserializationError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise DeserializationError(f"these data are no part of a run: {error}") from error


def open_waits(state: RunState) -> Iterator[tuple[WaitOpened, int]]:
    """Yield what is still awaited, as if it was opened now, with the time when it was opened."""
    for wait in state.waits.values():
        if wait.is_open:
            name = wait.wanted[0] if wait.wanted else ""
            yield (
                WaitOpened(
                    wait.wait_id, wait.task, wait.attempt, name, 0, False, wait.wanted, wait.requirements,
                    wait.deadline, wait.prompt, wait.human, wait.schema,
                ),
                wait.opened_at,
            )  # fmt: skip


def with_payloads(state: PartT, rewrite: Callable[[Any], Any]) -> PartT:
    """Return the same state, or part of one, with what `rewrite` returns for each EncodedValue and EncodedEvent."""

    def walk(value: Any) -> Any:
        cls = type(value)
        if cls is EncodedValue or cls is EncodedEvent:
            return rewrite(value)
        if cls is dict:
            return {walk(key): walk(part) for key, part in value.items()}
        if cls in _CONTAINERS.values():
            return cls(walk(part) for part in value)
        if hasattr(value, "_fields"):
            return cls(*map(walk, value))
        if is_dataclass(cls):
            return cls(**{each.name: walk(getattr(value, each.name)) for each in fields(cls)})
        return value

    result: PartT = walk(state)
    return result


def copied(state: RunState) -> RunState:
    """Return a copy that `evolve` does not reach; what is never changed is shared."""
    result: RunState = _dataclass_copier(RunState)(state)
    return result


# -- Copying -----------------------------------------------------------------------------------------------------------

_Copier = Callable[[Any], Any]


@cache
def _copier(hint: Any) -> _Copier | None:
    """Return what copies a value of this type, None if such values are never changed."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        copiers = [copier for argument in arguments if (copier := _copier(argument)) is not None]
        if not copiers:
            return None
        [inner] = copiers
        return lambda value: None if value is None else inner(value)
    if origin is dict:
        part = _copier(arguments[1])
        return dict.copy if part is None else _each_value(part)
    if origin in (list, set):
        part = _copier(arguments[0])
        return origin.copy if part is None else lambda values: origin(map(part, values))
    if isinstance(hint, type) and is_dataclass(hint) and hint is not Effect:
        return _dataclass_copier(hint)
    # Tuples, named ones too, are shared with all that they hold.
    return None


def _each_value(part: _Copier) -> _Copier:
    return lambda mapping: {key: part(value) for key, value in mapping.items()}


@cache
def _dataclass_copier(cls: Any) -> _Copier:
    hints = get_type_hints(cls)
    parts = attrgetter(*(each.name for each in fields(cls)))
    changing = [(each.name, copier) for each in fields(cls) if (copier := _copier(hints[each.name])) is not None]

    def copy(value: Any) -> Any:
        other = cls(*parts(value))
        for name, copier in changing:
            setattr(other, name, copier(getattr(value, name)))
        return other

    return copy


# -- Forms of types ----------------------------------------------------------------------------------------------------


@cache
def _form(hint: Any) -> _Form:
    """Return how values of a type are written."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is bytes:
        return _Form(_dump_bytes, _load_bytes)
    if hint in (str, int, bool, float):
        return _Form(_same, _checked(hint))
    if hint is NoneType:
        return _Form(_same, _checked(NoneType))
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is dict:
        return _mapping(_form(arguments[0]), _form(arguments[1]))
    if origin in (list, set, frozenset) or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return _sequence(origin, _form(arguments[0]))
    if origin is tuple:
        return _fixed(tuple, [_form(argument) for argument in arguments])
    if isinstance(hint, type) and hint.__name__ in _CLASSES and _CLASSES[hint.__name__] is hint:
        return _dataclass(hint) if is_dataclass(hint) else _named_tuple(hint)
    return _Form(_dump_any, _load_any)


def _same(value: Any) -> Any:
    return value


def _checked(cls: type) -> Callable[[Any], Any]:
    accepted: tuple[type, ...] = (float, int) if cls is float else (cls,)

    def load(value: Any) -> Any:
        if type(value) not in accepted:
            raise DeserializationError(
                f"these data are no state of a run: a {type(value).__name__} where a {cls.__name__} belongs"
            )
        return value

    return load


def _dump_bytes(value: bytes) -> Any:
    """Payloads are mostly JSON: those stay text that people can read."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _load_bytes(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode()
    try:
        return base64.b64decode(data["base64"], validate=True)
    except (TypeError, KeyError, binascii.Error) as error:
        raise DeserializationError(f"these data are no state of a run: {error!r} where bytes belong") from error


def _union(arguments: tuple[Any, ...]) -> _Form:
    others = [argument for argument in arguments if argument is not NoneType]
    if len(others) == len(arguments) or len(others) > 1:
        return _Form(_dump_any, _load_any)
    inner = _form(others[0])
    return _Form(
        lambda value: None if value is None else inner.dump(value),
        lambda data: None if data is None else inner.load(data),
    )


def _mapping(key: _Form, value: _Form) -> _Form:
    """Pairs, because order counts and keys are no strings everywhere."""
    return _Form(
        lambda mapping: [[key.dump(k), value.dump(v)] for k, v in mapping.items()],
        lambda data: {key.load(k): value.load(v) for k, v in _listed(data)},
    )


def _sequence(cls: type, item: _Form) -> _Form:
    def dump(values: Any) -> list[Any]:
        dumped = [item.dump(value) for value in values]
        return dumped if cls in (list, tuple) else sorted(dumped, key=json.dumps)

    return _Form(dump, lambda data: cls(item.load(value) for value in _listed(data)))


def _fixed(make: Callable[[list[Any]], Any], items: list[_Form]) -> _Form:
    return _Form(
        lambda values: [item.dump(value) for item, value in zip(items, values, strict=True)],
        lambda data: make([item.load(value) for item, value in zip(items, _listed(data), strict=True)]),
    )


def _listed(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise DeserializationError(f"these data are no state of a run: a {type(data).__name__} where a list belongs")
    return data


def _named_tuple(cls: Any) -> _Form:
    hints = get_type_hints(cls)
    items = [_form(hints[name]) for name in cls._fields]

    def load(data: Any) -> Any:
        values = _listed(data)
        if len(values) > len(items):
            raise _newer(f"a {cls.__name__} of {len(values)} fields")
        return cls(*[item.load(value) for item, value in zip(items, values, strict=False)])

    return _Form(lambda value: [item.dump(part) for item, part in zip(items, value, strict=True)], load)


@cache
def _planned(cls: Any) -> Mapping[str, tuple[_Form, Any]]:
    """Return the fields of a class with their defaults. Asked late, because a class may hold itself."""
    hints = get_type_hints(cls)
    return {
        each.name: (
            _form(hints[each.name]),
            each.default_factory() if each.default_factory is not MISSING else each.default,
        )
        for each in fields(cls)
    }


def _is_default(value: Any, default: Any) -> bool:
    return default is not MISSING and type(value) is type(default) and value == default


def _dataclass(cls: Any) -> _Form:
    def dump(value: Any) -> dict[str, Any]:
        found = {name: (form, getattr(value, name), default) for name, (form, default) in _planned(cls).items()}
        return {
            name: form.dump(part) for name, (form, part, default) in found.items() if not _is_default(part, default)
        }

    def load(data: Any) -> Any:
        known = _planned(cls)
        if not isinstance(data, dict):
            raise DeserializationError(f"these data are no {cls.__name__}: {type(data).__name__}")
        if unknown := data.keys() - known.keys():
            raise _newer(f"a {cls.__name__} with {', '.join(sorted(map(str, unknown)))}")
        return cls(**{name: known[name][0].load(part) for name, part in data.items()})

    return _Form(dump, load)


# What a field of no declared type holds names its kind: the content and the outcome of an effect.


def _dump_any(value: Any) -> Any:
    cls = type(value)
    if value is None or cls in (str, int, bool, float):
        return value
    if cls is bytes:
        return {"bytes": _dump_bytes(value)}
    if cls in _CONTAINERS.values():
        return {cls.__name__: _form(cls[Any, Any] if cls is dict else _of_anything(cls)).dump(value)}
    if _CLASSES.get(cls.__name__) is cls:
        return {cls.__name__: _form(cls).dump(value)}
    raise TypeError(f"the state of a run holds a {cls.__qualname__}, which is no plain value")


def _load_any(data: Any) -> Any:
    if not isinstance(data, dict):
        if isinstance(data, list):
            raise DeserializationError("these data are no state of a run: a list without its kind")
        return data
    [(name, content)] = data.items()
    if name == "bytes":
        return _load_bytes(content)
    if name in _CONTAINERS:
        cls = _CONTAINERS[name]
        return _form(cls[Any, Any] if cls is dict else _of_anything(cls)).load(content)
    if name not in _CLASSES:
        raise _newer(f"a value of the class {name}")
    cls = _CLASSES[name]
    return _form(cls).load(content)


def _of_anything(cls: Any) -> Any:
    return tuple[Any, ...] if cls is tuple else cls[Any]


def _newer(what: str) -> DeserializationError:
    return DeserializationError(
        f"{what} is not known to this version of durable_flow: a newer one wrote it, or it was changed. Upgrade the "
        "package to read it."
    )


_CONTAINERS: dict[str, Any] = {cls.__name__: cls for cls in (tuple, list, dict, set, frozenset)}
_CLASSES: dict[str, Any] = {
    name: value
    for module in (records, states)
    for name, value in vars(module).items()
    if isinstance(value, type) and (is_dataclass(value) or hasattr(value, "_fields"))
}
"""Every class of facts and of state, by name: what a state may consist of."""
