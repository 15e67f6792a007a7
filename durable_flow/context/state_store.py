"""The state of a context by itself: `DictState`, what a state store is, and one that is kept in memory."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from ..engine.live import MISSING
from ..errors import ContextSerdeError, DeserializationError, WorkflowRuntimeError
from .paths import child_of, iter_fields, may_have, nested, new_state, parts_of, put_below, put_field

if TYPE_CHECKING:
    from ..serializers import Serializer

FORMAT, VERSION = "durable_flow.State", 1


class DictState(BaseModel):
    """Untyped state: any keys, as attributes and items."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    @property
    def _values(self) -> dict[str, Any]:
        if self.__pydantic_extra__ is None:
            object.__setattr__(self, "__pydantic_extra__", {})
        assert self.__pydantic_extra__ is not None
        return self.__pydantic_extra__

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key."""
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a key."""
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        """Delete a key."""
        del self._values[key]

    def __contains__(self, key: object) -> bool:
        """Tell whether there is such a key."""
        return key in self._values

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # as a dict does; pydantic iterates over pairs
        """Iterate over the keys."""
        return iter(self._values)

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._values)

    def __bool__(self) -> bool:
        """Tell that a state is always true, also an empty one."""
        return True

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        return self._values.get(key, default)

    def keys(self) -> Any:
        """Return the keys."""
        return self._values.keys()

    def values(self) -> Any:
        """Return the values."""
        return self._values.values()

    def items(self) -> Any:
        """Return keys and values."""
        return self._values.items()

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value."""
        return self._values.pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, setting it first if it is absent."""
        return self._values.setdefault(key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override,unused-ignore]
        """Set several keys."""
        self._values.update(*args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a new dict."""
        return dict(self._values)


StateT = TypeVar("StateT", bound=BaseModel)


@runtime_checkable
class StateStore(Protocol[StateT]):
    """A state that is read and written by dotted paths and as a whole: `ctx.store`, and `InMemoryStateStore`."""

    async def get(self, path: str, default: Any = MISSING) -> Any:
        """Return the value at a path; ValueError if there is none and no default."""

    async def set(self, path: str, value: Any) -> None:
        """Set the value at a path."""

    async def get_state(self) -> StateT:
        """Return a copy of the whole state."""

    async def set_state(self, state: StateT) -> None:
        """Replace the state; ValueError for one of an unrelated class."""

    async def clear(self) -> None:
        """Set every field to its default."""

    def edit_state(self) -> AbstractAsyncContextManager[StateT]:
        """Edit an isolated copy: committed at the end, dropped on an exception."""


class InMemoryStateStore(Generic[StateT]):
    """A state by itself, of no run: nothing is journaled.

    `get` returns the live object. Writers wait for whoever is in `edit_state`; readers see the last committed state.
    """

    def __init__(self, initial_state: StateT):
        self._state = initial_state
        self._lock = asyncio.Lock()
        self._editor: asyncio.Task[Any] | None = None

    @property
    def state_type(self) -> type[StateT]:
        """The class of the state."""
        return type(self._state)

    async def get(self, path: str, default: Any = MISSING) -> Any:
        """Return the live value at a path; ValueError if there is none and no default."""
        value: Any = self._state
        for at, part in enumerate(parts_of(path)):
            value = iter_fields(self._state).get(part, MISSING) if not at else child_of(value, part)
            if value is MISSING:
                if default is MISSING:
                    raise ValueError(f"Path '{path}' not found in state")
                return default
        return value

    async def set(self, path: str, value: Any) -> None:
        """Set the value at a path, creating dicts on the way; ValueError if it cannot be set."""
        async with self._writing():
            head, *rest = parts_of(path)
            cls = type(self._state)
            if not may_have(cls, head):
                raise ValueError(f"{cls.__name__} has no field {head!r}")
            place = iter_fields(self._state).get(head, MISSING)
            if not rest or place is MISSING:
                put_field(self._state, head, nested(rest, value))
                return
            put_below(place, rest, value, path)

    async def get_state(self) -> StateT:
        """Return a copy of the whole state; what lies in its fields is not copied."""
        return self._with(iter_fields(self._state))

    async def set_state(self, state: StateT) -> None:
        """Replace the state; one of a parent class only replaces the fields of that. ValueError for another class."""
        cls = type(self._state)
        async with self._writing():
            if isinstance(state, cls):
                self._state = self._with(iter_fields(state))
            elif issubclass(cls, type(state)):
                self._state = self._with({**iter_fields(self._state), **iter_fields(state)})
            else:
                raise ValueError(f"State must be of type {cls.__name__} or a parent of it, not {type(state).__name__}")

    async def clear(self) -> None:
        """Set every field to its default; ValueError if one has none."""
        async with self._writing():
            self._state = self._with(iter_fields(new_state(type(self._state))))

    @asynccontextmanager
    async def edit_state(self) -> AsyncGenerator[StateT]:
        """Edit a copy, containers and models in it copied too: committed at the end, dropped on an exception."""
        async with self._writing():
            self._editor = asyncio.current_task()
            try:
                state = self._with({key: _isolated(value) for key, value in iter_fields(self._state).items()})
                yield state
                self._state = state
            finally:
                self._editor = None

    def to_dict(self, serializer: Serializer) -> dict[str, Any]:
        """Return the state as JSON-able data. Raises SerializationError."""
        data = base64.b64encode(serializer.serialize(self._state)).decode("ascii")
        return {"format": FORMAT, "version": VERSION, "serializer": serializer.codec, "state": data}

    @classmethod
    def from_dict(cls, serialized_state: Mapping[str, Any], serializer: Serializer) -> InMemoryStateStore[Any]:
        """Return a store with the state that `to_dict` returned. Raises ContextSerdeError."""
        found = (serialized_state.get("format"), serialized_state.get("version"), serialized_state.get("serializer"))
        if found != (FORMAT, VERSION, serializer.codec):
            raise ContextSerdeError(
                f"these data are no state that InMemoryStateStore.to_dict wrote with the serializer "
                f"{serializer.codec!r}: format, version and serializer are {found}"
            )
        try:
            state = serializer.deserialize(base64.b64decode(serialized_state["state"], validate=True))
        except (DeserializationError, KeyError, TypeError, binascii.Error) as error:
            raise ContextSerdeError(f"a saved state cannot be read: {error}") from error
        if not isinstance(state, BaseModel):
            raise ContextSerdeError(f"a saved state is a {type(state).__name__}, and not a model")
        return cls(state)  # type: ignore[arg-type]  # of whatever class it is

    def _with(self, values: Mapping[str, Any]) -> StateT:
        state = type(self._state).model_construct()
        for key, value in values.items():
            put_field(state, key, value)
        return state

    @asynccontextmanager
    async def _writing(self) -> AsyncGenerator[None]:
        if self._editor is not None and self._editor is asyncio.current_task():
            raise WorkflowRuntimeError(
                "the state is written inside edit_state of the same task; change the copy that edit_state gave, or "
                "leave it first"
            )
        async with self._lock:
            yield


def _isolated(value: Any) -> Any:
    """Copy containers and models, all the way down; other objects stay what they are."""
    cls = type(value)
    if cls is dict:
        return {key: _isolated(part) for key, part in value.items()}
    if cls in (list, tuple, set, frozenset):
        return cls(map(_isolated, value)) if cls in (list, tuple) else cls(value)
    if isinstance(value, BaseModel):
        copy = value.model_copy()
        for key, part in iter_fields(value).items():
            put_field(copy, key, _isolated(part))
        return copy
    return value
