"""The JSON serializer: fast and safe. Every value comes back equal and of the same type, or is refused when written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from ..errors import DeserializationError, SerializationError
from ..events import Event, UnknownEvent
from .adapters import adapter_of
from .decoder import Decoder
from .encoder import Encoder, are_plain_names
from .plans import ModelPlan
from .refusal import Refusal
from .registry import Registry
from .scalars import PRIMITIVES

_CHUNK = 2048  # bytes
_MARKS = ("$event", "$v")


class JsonSerializer:
    """Stores values as JSON text with tags for what JSON does not have.

    Beyond JSON's own types: events and pydantic models, dataclasses, namedtuples, enums, tuple, set, frozenset, bytes,
    bytearray, datetime, date, time, timedelta, UUID, Decimal, pathlib paths, complex, range, OrderedDict, dicts with
    any storable keys, and classes with an adapter (`register_adapter`). Other subclasses of builtins are refused.
    Not kept: fields with `exclude=True`, values of `functools.cached_property`, and that one object lay in two places.

    `types` are classes that are found before those which the program has loaded, and may be local to a function.
    `allowed_types` closes the set of classes: besides durable_flow's own only these (and those that are named, as
    "package.module.Class") are stored and built. Events of other classes are read as UnknownEvent, other objects are
    refused.
    """

    codec = "json"

    def __init__(self, types: Iterable[type] = (), *, allowed_types: Iterable[type | str] | None = None):
        self._types = tuple(types)
        self._allowed = None if allowed_types is None else tuple(allowed_types)
        self._registry = Registry(self._types, self._allowed)
        self._find_event = self._registry.find_event
        self._events: dict[type, ModelPlan] = {}

    def with_types(self, *classes: type) -> JsonSerializer:
        """Return a serializer that finds these classes too, and allows them if the set is closed."""
        allowed = None if self._allowed is None else (*self._allowed, *classes)
        return JsonSerializer((*self._types, *classes), allowed_types=allowed)

    def serialize(self, value: Any) -> bytes:
        """Return the value as JSON text. Raises SerializationError with the path to what cannot be stored exactly."""
        # The common cases take a few C calls. The bytes tell afterwards whether a number may be too long to be read.
        cls = type(value)
        try:
            plan = self._events.get(cls)
            if plan is not None:
                data = self._simple_event(value, cls, plan)
            elif cls is dict:
                data = None
                if PRIMITIVES.issuperset(map(type, value.values())) and are_plain_names(value):
                    data = to_json(value, inf_nan_mode="constants")
            elif cls in PRIMITIVES or (cls is list and PRIMITIVES.issuperset(map(type, value))):
                data = to_json(value, inf_nan_mode="constants")
            else:
                data = None
        except (PydanticSerializationError, RecursionError):  # to be met again, and reported, on the long way
            data = None
        if data is None or (len(data) >= 2 * _CHUNK and _may_have_long_number(data)):
            return self._serialize_any(value)
        return data

    def deserialize(self, data: bytes) -> Any:
        """Return the value. Raises DeserializationError; an event of an unknown class becomes an UnknownEvent."""
        try:
            value = from_json(data)
            tag = data.find(b'"$')
            if tag < 0:
                return value
            decoder = Decoder(self._registry)
            if tag == 1 and data.startswith(b'{"$event"') and data.find(b'"$', 2) < 0:
                # No other tag and no escaped name: an event whose values are plain JSON.
                name = value.pop("$event")
                cls = self._find_event(name)
                plan = self._events.get(cls) if cls is not None else None
                return decoder.event(name, value) if plan is None or plan.version != 1 else plan.build(value, ())
            return decoder.decode(value)
        except DeserializationError:
            raise
        except Exception as error:  # an adapter, a default factory, or data that this serializer did not write
            raise DeserializationError(
                f"{len(data)} bytes of stored JSON cannot be read: {type(error).__name__}: {error}"
            ) from error

    def _simple_event(self, event: Event, cls: type[Event], plan: ModelPlan) -> bytes | None:
        """Return the JSON text of an event, None if something about it is unusual or has to be refused."""
        state = event.__dict__
        name = cls._stored_name
        if state.keys() != plan.kept or self._find_event(name) is not cls or adapter_of(cls) is not None:
            return None
        content = {"$event": name, **state} if plan.version == 1 else {"$event": name, "$v": plan.version, **state}
        extra = event.__pydantic_extra__
        if extra:
            content |= extra
            if len(content) != (1 if plan.version == 1 else 2) + len(state) + len(extra) or not are_plain_names(extra):
                return None
        if not PRIMITIVES.issuperset(map(type, content.values())):
            encoder = Encoder(self._registry, careful=False)
            try:
                for key, item in content.items():
                    if type(item) not in PRIMITIVES:
                        content[key] = encoder.encode(item, 1)
            except Refusal:
                return None  # to be met again on the long way, which knows the path
        fields_set = event.__pydantic_fields_set__
        if not (state.keys() <= fields_set and (not extra or extra.keys() <= fields_set)):
            content["$unset"] = [key for key in content if key not in fields_set and key not in _MARKS]
        return to_json(content, inf_nan_mode="constants")

    def _serialize_any(self, value: Any) -> bytes:
        root = type(value).__name__ if isinstance(value, Event) else "value"
        try:
            data = self._encode(value, careful=False)
            if data is None or _may_have_long_number(data):
                data = self._encode(value, careful=True)
        except Refusal as refusal:
            raise refusal.error(root) from refusal.__cause__
        except RecursionError as error:
            raise SerializationError(f"{root}: the call stack is too full to store it", path=root) from error
        if data is None:
            raise SerializationError(f"{root}: some text in it is not valid Unicode", path=root)
        if isinstance(value, Event):
            self._remember(type(value))
        return data

    def _encode(self, value: Any, *, careful: bool) -> bytes | None:
        """Return the JSON text, None if it cannot be written."""
        try:
            return to_json(Encoder(self._registry, careful=careful).encode(value, 0), inf_nan_mode="constants")
        except PydanticSerializationError:
            return None

    def _remember(self, cls: type[Event]) -> None:
        """Let events of this class take the short way from now on, if nothing about the class is unusual."""
        if cls is not UnknownEvent and adapter_of(cls) is None:
            plan = self._registry.plan(cls)
            if isinstance(plan, ModelPlan) and plan.is_simple:
                self._events[cls] = plan


def _may_have_long_number(data: bytes) -> bool:
    """Tell whether there may be a number of 4,096 digits or more, which covers at least one whole chunk."""
    return any(data[start : start + _CHUNK].isdigit() for start in range(0, len(data), _CHUNK))
