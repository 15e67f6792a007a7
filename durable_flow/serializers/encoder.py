"""The encoder: turns any storable value into JSON values, or refuses it. `decoder.py` is its mirror image.

What JSON does not have becomes an object whose first key is a tag: "$" and a word, as in `{"$tuple": [1, 2]}`. A name
of the user's that begins with "$" gets another "$" in front, so that it is never taken for a tag.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import CoroutineType
from typing import Any

from pydantic_core import to_json

from ..events import Event, UnknownEvent
from .adapters import Adapter, adapter_of
from .names import stored_name
from .plans import EnumPlan, Plan
from .refusal import Refusal, item_of
from .registry import Registry
from .scalars import PRIMITIVES, SCALARS

MAX_LEVELS = 190
"""How deep JSON lists and objects may be nested. The parser reads 200 levels; a tag may bring two more unasked."""

_MAX_INT_BITS = 13_600  # 4,094 digits; the parser reads 4,300
_TEXT = frozenset({str})
_UNCHECKED = PRIMITIVES - {str, int}


class Encoder:
    """Encodes one value.

    Strings that are no Unicode and integers with thousands of digits are only looked for when `careful`, because to
    look at every one costs more than all the rest; `json.py` notices that there may be one and encodes again.
    """

    __slots__ = ("_names", "_plain", "_registry")

    def __init__(self, registry: Registry, *, careful: bool):
        self._registry = registry
        self._plain = _UNCHECKED if careful else PRIMITIVES
        self._names: dict[type, str] = {}

    def encode(self, value: Any, level: int) -> Any:
        """Return JSON values for a value that lies `level` JSON lists and objects deep. Raises Refusal.

        A result may be the value itself or hold parts of it: it is not to be changed.
        """
        cls = type(value)
        if cls in self._plain:
            return value
        if level >= MAX_LEVELS:
            raise Refusal(
                f"it is nested too deep (more than {MAX_LEVELS} JSON levels; a tuple, set or dict with keys that are "
                "not str takes two), or contains itself"
            )
        encode = _NATIVE.get(cls)
        if encode is not None:
            return encode(self, value, level)
        adapter = adapter_of(cls)
        if adapter is not None:
            self._registry.require_permitted(cls)
            return self._adapted(adapter, value, level)
        plan = self._registry.plan(cls)
        if plan is None:
            if isinstance(value, dict) and getattr(cls, "__durable_plain__", False) is True:
                return self._dict(dict(value.items()), level)
            raise Refusal(_unknown(cls))
        if isinstance(plan, EnumPlan):
            return {"$enum": [self._name(cls), plan.take(value)]}
        if cls is UnknownEvent and self._is_unread(value, level):
            return {"$event": value.name, **value.raw}
        return self._object(plan, value, level)

    def _text(self, value: str, level: int = 0) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refusal(f"the text is not valid Unicode: {error.reason} at {error.start}") from error
        return value

    def _int(self, value: int, level: int) -> Any:
        return value if value.bit_length() <= _MAX_INT_BITS else {"$int": format(value, "x")}

    def _scalar(self, value: Any, level: int) -> Any:
        scalar = SCALARS[type(value)]
        return {scalar.tag: self.encode(scalar.take(value), level + 1)}

    def _list(self, values: list[Any] | tuple[Any, ...], level: int) -> list[Any] | tuple[Any, ...]:
        plain = self._plain
        if plain.issuperset(map(type, values)):
            return values
        result: list[Any] = []
        try:
            for value in values:
                result.append(value if type(value) in plain else self.encode(value, level + 1))
        except Refusal as refusal:
            refusal.inside(f"[{len(result)}]")
            raise
        return result

    def _tuple(self, value: tuple[Any, ...], level: int) -> Any:
        return {"$tuple": self._list(value, level + 1)}

    def _set(self, value: frozenset[Any] | set[Any], level: int) -> Any:
        members = []
        for member in value:
            try:
                members.append(self.encode(member, level + 2))
            except Refusal as refusal:
                refusal.inside(f".member({item_of(member)[1:-1]})")
                raise
        members.sort(key=to_json)  # a set has no order of its own, and equal sets must have equal encodings
        return {"$set" if type(value) is set else "$frozenset": members}

    def _dict(self, value: dict[Any, Any], level: int) -> Any:
        plain = self._plain
        if plain is PRIMITIVES and plain.issuperset(map(type, value.values())) and are_plain_names(value):
            return value
        if not _TEXT.issuperset(map(type, value)):
            return {"$dict": self._pairs(value, level)}
        return self._named(value, {}, item_of, level)

    def _ordered_dict(self, value: OrderedDict[Any, Any], level: int) -> Any:
        if getattr(value, "__dict__", None):
            raise Refusal("it is an OrderedDict with attributes, which would be lost")
        return {"$ordered": self._pairs(value, level)}

    def _pairs(self, value: dict[Any, Any], level: int) -> list[Any]:
        result: list[Any] = []
        for key, item in value.items():
            try:
                result.append(self.encode(key, level + 2))
            except Refusal as refusal:
                refusal.inside(f".key({item_of(key)[1:-1]})")
                raise
            try:
                result.append(self.encode(item, level + 2))
            except Refusal as refusal:
                refusal.inside(item_of(key))
                raise
        return result

    def _object(self, plan: Plan, value: Any, level: int) -> dict[str, Any]:
        cls = type(value)
        content, unset = plan.take(value)
        result: dict[str, Any] = {"$event" if isinstance(value, Event) else "$type": self._name(cls)}
        if plan.version != 1:
            result["$v"] = plan.version
        self._named(content, result, ".{}".format, level)
        if unset:
            result["$unset"] = unset
        return result

    def _named(
        self, content: Mapping[str, Any], result: dict[str, Any], part: Callable[[str], str], level: int
    ) -> dict[str, Any]:
        """Add encoded items to `result` under their names; `part` makes the path part of a name."""
        plain = self._plain
        name = ""
        try:
            for name, value in content.items():
                if plain is not PRIMITIVES:
                    self._text(name)
                key = "$" + name if name[:1] == "$" else name
                result[key] = value if type(value) in plain else self.encode(value, level + 1)
        except Refusal as refusal:
            refusal.inside(part(name))
            raise
        return result

    def _adapted(self, adapter: Adapter, value: Any, level: int) -> Any:
        try:
            content = adapter.encode(value)
        except Exception as error:
            raise Refusal(f"the adapter {adapter.name!r} failed: {type(error).__name__}: {error}") from error
        return {"$adapted": [adapter.name, self.encode(content, level + 2)]}

    def _name(self, cls: type) -> str:
        name = self._names.get(cls)
        if name is None:
            is_event = issubclass(cls, Event)
            name = self._registry.name_of_event(cls) if is_event else self._registry.name_of_class(cls)
            self._names[cls] = name
        return name

    def _is_unread(self, event: UnknownEvent, level: int) -> bool:
        """Tell whether `raw` is the content of a stored event whose class is still unknown, to be stored as it was."""
        raw = event.raw
        return (
            type(event.name) is str
            and type(raw) is dict
            and "$event" not in raw
            and not event.keys()
            and self._registry.find_event(event.name) is None
            and _is_json(raw, MAX_LEVELS - level)
        )


def are_plain_names(names: Iterable[Any]) -> bool:
    """Tell whether all are exactly str and none begins with "$". May say no to a name that holds a line break."""
    return _TEXT.issuperset(map(type, names)) and "\n$" not in "\n" + "\n".join(names)


def _is_json(value: Any, levels: int) -> bool:
    cls = type(value)
    if cls is dict:
        return (
            levels > 0 and _TEXT.issuperset(map(type, value)) and all(_is_json(v, levels - 1) for v in value.values())
        )
    if cls is list:
        return levels > 0 and all(_is_json(item, levels - 1) for item in value)
    return cls in _UNCHECKED or cls is str or (cls is int and value.bit_length() <= _MAX_INT_BITS)


def _unknown(cls: type) -> str:
    name = stored_name(cls)
    if issubclass(cls, CoroutineType):
        return "it is a coroutine, something that was called and not awaited; write `await` before the call"
    for base in (str, int, float, list, dict, tuple, set, frozenset, bytes):
        if issubclass(cls, base):
            return (
                f"{name} is a subclass of {base.__name__}, and would come back as one; convert the value, or "
                f"register_adapter({cls.__qualname__}, encode, decode)"
            )
    return (
        f"values of class {name} cannot be stored; use a pydantic model, a dataclass or plain data, or "
        f"register_adapter({cls.__qualname__}, encode, decode). What is no data, as a client or an index, belongs on "
        "the workflow or into a Resource"
    )


_NATIVE: dict[type, Callable[[Encoder, Any, int], Any]] = {
    str: Encoder._text,
    int: Encoder._int,
    list: Encoder._list,
    tuple: Encoder._tuple,
    set: Encoder._set,
    frozenset: Encoder._set,
    dict: Encoder._dict,
    OrderedDict: Encoder._ordered_dict,
    **dict.fromkeys(SCALARS, Encoder._scalar),
}
