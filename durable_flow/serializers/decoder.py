"""The decoder: builds values from the JSON values that `encoder.py` made. It imports no module that data name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import DeserializationError
from ..events import UnknownEvent
from ..upcasting import upcasted
from .adapters import adapter_named
from .plans import EnumPlan, Plan
from .refusal import Refusal
from .registry import Registry
from .scalars import SCALAR_TAGS

_CONTAINERS = frozenset({list, dict})


class Decoder:
    """Decodes one value, changing the JSON values it is given where it can."""

    __slots__ = ("_classes", "_registry")

    def __init__(self, registry: Registry):
        self._registry = registry
        self._classes: dict[str, type] = {}

    def decode(self, value: Any) -> Any:
        """Return what these JSON values stand for. Raises DeserializationError, or whatever malformed data lead to."""
        if type(value) is list:
            return self._list(value)
        if type(value) is dict:
            first = next(iter(value), "")
            if first[:1] == "$" and first[:2] != "$$":
                return self._tagged(first, value)
            return self._named(value)
        return value

    def event(self, name: str, content: dict[str, Any]) -> Any:
        """Return the event of this stored name and encoded content, an UnknownEvent if its class is not known."""
        cls = self._registry.find_event(name)
        if cls is None:
            return UnknownEvent(name=name, raw=content)
        unset, version = content.pop("$unset", ()), content.pop("$v", 1)
        return self._built(cls, name, version, self._named(content), unset)

    def _tagged(self, tag: str, value: dict[str, Any]) -> Any:
        content = value.pop(tag)
        if tag == "$event":
            return self.event(content, value)
        if tag == "$type":
            unset, version = value.pop("$unset", ()), value.pop("$v", 1)
            return self._built(self._class(content), content, version, self._named(value), unset)
        build = SCALAR_TAGS.get(tag)
        if build is not None:
            return build(content)
        decode = _TAGS.get(tag)
        if decode is None:
            raise DeserializationError(f"stored data use the tag {tag!r}, which this version of durable_flow lacks")
        return decode(self, content)

    def _built(self, cls: type, name: str, version: Any, content: dict[str, Any], unset: Iterable[str]) -> Any:
        """Return an object of the class, whose data have this name and version. Calls nothing that decodes a value.

        (What lies in values is as deep as the call stack allows, so a level takes as few calls as possible.)
        """
        plan = self._plan(cls)
        if version != plan.version:
            content = upcasted(cls, content, version, name)
        return plan.build(content, unset)

    def _list(self, values: list[Any]) -> list[Any]:
        if not _CONTAINERS.isdisjoint(map(type, values)):
            for index, value in enumerate(values):
                if type(value) in _CONTAINERS:
                    values[index] = self.decode(value)
        return values

    def _named(self, content: dict[str, Any]) -> dict[str, Any]:
        return {
            (name[1:] if name[:1] == "$" else name): self.decode(value) if type(value) in _CONTAINERS else value
            for name, value in content.items()
        }

    def _pairs(self, content: list[Any]) -> list[tuple[Any, Any]]:
        items = self._list(content)
        return list(zip(items[::2], items[1::2], strict=True))

    def _enum(self, content: list[Any]) -> Any:
        name, member = content
        plan = self._registry.plan(self._class(name))
        if not isinstance(plan, EnumPlan):
            raise DeserializationError(f"stored data hold a member of the enum {name}, which is no enum now")
        return plan.build(member)

    def _adapted(self, content: list[Any]) -> Any:
        name, value = content
        adapter = adapter_named(name)
        if adapter is None:
            raise DeserializationError(
                f"stored data were written by the adapter {name!r}, which is not registered; call register_adapter "
                "for it (import the module that does) before reading"
            )
        if not self._registry.permits(adapter.cls):
            raise DeserializationError(
                f"stored data hold an object of class {name}, which is not among the allowed_types of this "
                "JsonSerializer"
            )
        return adapter.decode(self.decode(value))

    def _plan(self, cls: type) -> Plan:
        try:
            plan = self._registry.plan(cls)
        except Refusal as refusal:
            raise DeserializationError(
                f"stored data hold an object that cannot be built: {refusal.reason}"
            ) from refusal
        if plan is None or isinstance(plan, EnumPlan):
            raise DeserializationError(
                f"stored data hold an object of {cls.__module__}.{cls.__qualname__}, which is no longer a model, "
                "dataclass or namedtuple"
            )
        return plan

    def _class(self, name: str) -> type:
        cls = self._classes.get(name)
        if cls is None:
            cls = self._registry.find_class(name)
            if cls is None:
                raise DeserializationError(
                    f"stored data hold an object of class {name}, which this program has not loaded; import the module "
                    "that defines it before reading, and name it if the serializer has allowed_types"
                )
            self._classes[name] = cls
        return cls


_TAGS: dict[str, Callable[[Decoder, Any], Any]] = {
    "$int": lambda decoder, text: int(text, 16),
    "$tuple": lambda decoder, items: tuple(decoder._list(items)),
    "$set": lambda decoder, items: set(decoder._list(items)),
    "$frozenset": lambda decoder, items: frozenset(decoder._list(items)),
    "$dict": lambda decoder, items: dict(decoder._pairs(items)),
    "$ordered": lambda decoder, items: OrderedDict(decoder._pairs(items)),
    "$enum": Decoder._enum,
    "$adapted": Decoder._adapted,
}
