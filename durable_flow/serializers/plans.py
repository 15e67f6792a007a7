"""Plans: how objects of a model, dataclass, namedtuple or enum class are taken apart and built again.

Building bypasses `__init__`, validators and `__post_init__`: a stored object comes back as it was, not as today's
code would make it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum, Flag
from typing import Any, Protocol

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..errors import DeserializationError
from ..events import InputRequiredEvent, WorkflowFailedEvent
from ..logs import fields as noted
from ..upcasting import version_of
from .refusal import Refusal

logger = logging.getLogger("durable_flow")

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for every class made by a `class` statement
_TEXT = frozenset({str})
# The id of a question's wait belongs to the record that opens it; a stored question is asked anew. The exception of a
# failure is told by its fields.
_KEPT_ELSEWHERE = (InputRequiredEvent, WorkflowFailedEvent)


class Plan(Protocol):
    """How objects of one class with named fields are stored."""

    version: int
    """The version of the class, stored with its objects unless it is 1."""

    def take(self, value: Any) -> tuple[dict[str, Any], list[str]]:
        """Return what the object holds by name, and which names a pydantic model counts as not set.

        The dict may be the object's own: not to be changed. Raises Refusal.
        """

    def build(self, content: dict[str, Any], unset: Iterable[str]) -> Any:
        """Return an object that holds this content; takes over the dict. Raises DeserializationError."""


def plan_for(cls: type) -> Plan | EnumPlan | None:
    """Return how objects of this class are stored, None if it is no model, dataclass, namedtuple or enum.

    Raises Refusal for a class whose objects could not be built again.
    """
    if issubclass(cls, BaseModel):
        _refuse_builtin_base(cls)
        return ModelPlan(cls)
    if issubclass(cls, Enum):
        return EnumPlan(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults"):
        return NamedTuplePlan(cls)
    if dataclasses.is_dataclass(cls):
        _refuse_builtin_base(cls)
        return DataclassPlan(cls)
    return None


class ModelPlan:
    """Stores pydantic models: fields and extra data, without `exclude=True` fields.

    `kept` names the stored fields. `is_simple`: all fields are stored under their own names, extra data are taken, and
    there is nothing else to look at.
    """

    def __init__(self, cls: type[BaseModel]):
        self.cls = cls
        self.version = version_of(cls)
        self.fields: dict[str, FieldInfo] = dict(cls.model_fields)
        self.kept = frozenset(name for name, field in self.fields.items() if field.exclude is not True)
        self.allows_extra = cls.model_config.get("extra") == "allow"
        self.private = dict(cls.__private_attributes__)
        self._gone: frozenset[str] = frozenset()
        self._is_root = cls.__pydantic_root_model__  # has these two on the class; on the object they would be data
        excluded = self.fields.keys() - self.kept
        self._other_slots = _slots(cls) - _slots(BaseModel)
        self.is_simple = (
            self.allows_extra
            and not (excluded or self.private or self._other_slots)
            and not any(name[:1] == "$" for name in self.fields)
        )
        # A class that says of which type its extra data are keeps them among its attributes.
        self._left_out = excluded | _cached_properties(cls) | {"__pydantic_extra__"}
        for name in excluded:
            if self.fields[name].is_required():
                raise Refusal(
                    f"{cls.__qualname__}.{name} has exclude=True and no default, so it would be missing when the "
                    "object is read again; give it a default"
                )

    def take(self, value: Any) -> tuple[dict[str, Any], list[str]]:
        """Return fields and extra data, and the names of those that were not set."""
        state: dict[str, Any] = value.__dict__
        if state.keys() != self.kept:
            state = _only_kept(value, state, self.kept, self._left_out)
        _refuse_filled(value, self._other_slots)
        if value.__pydantic_private__:
            self._check_private(value.__pydantic_private__, state)
        extra = value.__pydantic_extra__
        if extra:
            self._check_extra(extra)
            state = {**state, **extra}
        fields_set = value.__pydantic_fields_set__
        if state.keys() <= fields_set:
            return state, []
        return state, [name for name in state if name not in fields_set]

    def build(self, content: dict[str, Any], unset: Iterable[str]) -> Any:
        """Return a model; content that is no field becomes extra data, or is dropped if the class takes none."""
        cls, fields = self.cls, self.fields
        state, extra = content, {}
        if content.keys() != fields.keys():
            state = {name: item for name, item in content.items() if name in fields}
            if self.allows_extra:
                extra = {name: item for name, item in content.items() if name not in fields}
            elif len(state) < len(content):
                self._gone = _left_out(cls, content, state, self._gone)
        fields_set = {*state, *extra}
        fields_set.difference_update(unset)
        for name, field in fields.items():
            if name not in state:
                state[name] = _default(cls, name, field, state)
        model = object.__new__(cls)
        object.__setattr__(model, "__dict__", state)
        object.__setattr__(model, "__pydantic_fields_set__", fields_set)
        if not self._is_root:
            private = self._private_defaults(state) if self.private else None
            object.__setattr__(model, "__pydantic_extra__", extra if self.allows_extra else None)
            object.__setattr__(model, "__pydantic_private__", private)
        return model

    def _check_extra(self, extra: dict[str, Any]) -> None:
        if not self.allows_extra:
            raise Refusal(f"it holds extra data, which class {self.cls.__qualname__} does not take")
        if not _TEXT.issuperset(map(type, extra)):
            raise Refusal("its extra data have a name that is not exactly a str")
        both = self.fields.keys() & extra
        if both:
            raise Refusal(f"it has extra data under the name of its field {min(both)!r}")

    def _check_private(self, private: dict[str, Any], state: dict[str, Any]) -> None:
        defaults = self._private_defaults(state)
        for name, value in private.items():
            if any(name in cls.__private_attributes__ and issubclass(self.cls, cls) for cls in _KEPT_ELSEWHERE):
                continue
            default = defaults.get(name, PydanticUndefined)
            if not _is_same(value, default):
                raise Refusal(
                    f"its private attribute {name} differs from its default, and private attributes are not stored; "
                    f"make it a field, or register_adapter({self.cls.__qualname__}, encode, decode)"
                )

    def _private_defaults(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return what pydantic's `init_private_attributes` gives an object with these fields."""
        defaults: dict[str, Any] = {}
        for name, attribute in self.private.items():
            factory: Any = attribute.default_factory
            if factory is None:
                default = attribute.get_default()
            elif getattr(attribute, "default_factory_takes_validated_data", False):
                default = factory({**state, **defaults})
            else:
                default = factory()
            if default is not PydanticUndefined:
                defaults[name] = default
        return defaults


class DataclassPlan:
    """Stores dataclasses: all fields, in `__dict__` or in slots."""

    def __init__(self, cls: type):
        self.cls = cls
        self.version = version_of(cls)
        self.fields = {field.name: field for field in dataclasses.fields(cls)}
        self._names = frozenset(self.fields)
        self._left_out = _cached_properties(cls)
        slots = _slots(cls)
        self._slots = slots & self._names
        self._other_slots = slots - self._names
        self._gone: frozenset[str] = frozenset()

    def take(self, value: Any) -> tuple[dict[str, Any], list[str]]:
        """Return all fields; refuses instance attributes that are no fields."""
        _refuse_filled(value, self._other_slots)
        state: dict[str, Any] = getattr(value, "__dict__", {})
        if self._slots:
            state = state | {name: getattr(value, name) for name in self._slots if hasattr(value, name)}
            state = {name: state[name] for name in (*self.fields, *state.keys() - self._names) if name in state}
        if state.keys() != self._names:
            state = _only_kept(value, state, self._names, self._left_out)
        return state, []

    def build(self, content: dict[str, Any], unset: Iterable[str]) -> Any:
        """Return an object with these fields; content that is no field is dropped."""
        if not content.keys() <= self._names:
            self._gone = _left_out(self.cls, content, self._names, self._gone)
        instance: Any = object.__new__(self.cls)
        for name, field in self.fields.items():
            if name in content:
                value = content[name]
            elif field.default is not dataclasses.MISSING:
                value = field.default
            elif field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            else:
                raise _missing(self.cls, name)
            if name in self._slots:
                object.__setattr__(instance, name, value)
            else:
                instance.__dict__[name] = value
        return instance


class NamedTuplePlan:
    """Stores namedtuples by field name."""

    def __init__(self, cls: Any):
        self.cls = cls
        self.version = version_of(cls)
        self._names: frozenset[str] = frozenset(cls._fields)
        self._gone: frozenset[str] = frozenset()

    def take(self, value: Any) -> tuple[dict[str, Any], list[str]]:
        """Return the items by name."""
        if len(value) != len(self.cls._fields):
            raise Refusal(f"it is a {self.cls.__qualname__} with {len(value)} items for {len(self.cls._fields)} fields")
        for name in getattr(value, "__dict__", ()):
            raise Refusal(_no_field(value, name))
        return dict(zip(self.cls._fields, value, strict=True)), []

    def build(self, content: dict[str, Any], unset: Iterable[str]) -> Any:
        """Return the namedtuple; content that is no field is dropped."""
        if not content.keys() <= self._names:
            self._gone = _left_out(self.cls, content, self._names, self._gone)
        items = {**self.cls._field_defaults, **content}
        for name in self.cls._fields:
            if name not in items:
                raise _missing(self.cls, name)
        return tuple.__new__(self.cls, [items[name] for name in self.cls._fields])


class EnumPlan:
    """Stores members by name, and what has none (a combination of flags) by its number."""

    def __init__(self, cls: type[Enum]):
        self.cls = cls

    def take(self, value: Any) -> str | int:
        """Return the member's name, or a flag's number."""
        name = value._name_
        if name is not None and self.cls.__members__.get(name) is value:
            return str(name)
        if isinstance(value, Flag) and type(value.value) is int and self.cls(value.value) is value:
            return value.value
        raise Refusal(f"{value!r} is no member of {self.cls.__qualname__} by name, so it could not be found again")

    def build(self, content: str | int) -> Any:
        """Return the member."""
        try:
            return self.cls(content) if type(content) is int else self.cls.__members__[str(content)]
        except (KeyError, ValueError) as error:
            raise DeserializationError(
                f"{self.cls.__qualname__} has no member {content!r}, which stored data hold; restore it"
            ) from error


def _left_out(cls: type, content: Iterable[str], kept: Iterable[str], told: frozenset[str]) -> frozenset[str]:
    """Log, once for each, the stored fields that the class has no longer; the journal keeps them."""
    gone = frozenset(content).difference(kept)
    if names := gone - told:
        extra = noted("fields_left_out")
        logger.warning(
            "stored data of %s.%s have what the class has no longer, and it is left out: %s",
            cls.__module__, cls.__qualname__, ", ".join(sorted(names)), extra=extra,
        )  # fmt: skip
    return told | gone


def _is_same(value: Any, default: Any) -> bool:
    try:
        return value is default or (type(value) is type(default) and bool(value == default))
    except Exception:  # arrays, for instance, are neither equal nor unequal
        return False


def _only_kept(value: Any, state: dict[str, Any], kept: frozenset[str], left_out: AbstractSet[str]) -> dict[str, Any]:
    """Return the part of an object's attributes that is stored. Raises Refusal if one is missing or unknown."""
    for name in state.keys() - kept - left_out:
        raise Refusal(_no_field(value, name))
    for name in kept - state.keys():
        raise Refusal(f"its field {name} has no value, and would come back with one or not at all")
    return {name: item for name, item in state.items() if name in kept}


def _no_field(value: Any, name: str) -> str:
    cls = type(value).__qualname__
    if name == "__orig_class__":  # by typing.Generic, on each object that is made so
        return (
            f"it was made as {getattr(value, name)!r}(...) and would not know its type argument any more; "
            f"make it as {cls}(...)"
        )
    return (
        f"its attribute {name!r} is no field of {cls} and would be lost; make it a field, or "
        f"register_adapter({cls}, encode, decode)"
    )


def _default(cls: type, name: str, field: FieldInfo, state: dict[str, Any]) -> Any:
    # Pydantic 2.10 added factories that take the fields before them.
    if getattr(field, "default_factory_takes_validated_data", False):
        return field.get_default(call_default_factory=True, validated_data=state)
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        raise _missing(cls, name)
    return value


def _missing(cls: type, name: str) -> DeserializationError:
    return DeserializationError(
        f"stored data of {cls.__module__}.{cls.__qualname__} have no value for its field {name!r}, which has no "
        "default; give the field a default"
    )


def _cached_properties(cls: type) -> frozenset[str]:
    """Return the names under which `functools.cached_property` keeps values that can be computed again."""
    return frozenset(
        name
        for base in cls.__mro__
        for name, attribute in vars(base).items()
        if isinstance(attribute, functools.cached_property)
    )


def _slots(cls: type) -> set[str]:
    """Return the names of the attributes that objects of this class keep in slots."""
    found: set[str] = set()
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            is_mangled = name.startswith("__") and not name.endswith("__")
            found.add(f"_{base.__name__.lstrip('_')}{name}" if is_mangled else name)
    return found - {"__dict__", "__weakref__"}


def _refuse_filled(value: Any, slots: Iterable[str]) -> None:
    for name in slots:
        if hasattr(value, name):
            raise Refusal(_no_field(value, name))


def _refuse_builtin_base(cls: type) -> None:
    """Refuse classes whose objects hold something outside of their fields, e.g. a dataclass that is an Exception."""
    for base in cls.__mro__:
        if base is not object and not base.__flags__ & _HEAP_TYPE:
            raise Refusal(
                f"class {cls.__qualname__} derives from the builtin {base.__qualname__}, whose part would be lost; "
                f"register_adapter({cls.__qualname__}, encode, decode)"
            )
