"""`ctx.store`: the run's state by dotted paths, as a whole, and typed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from ..engine.live import MISSING
from ..errors import WorkflowRuntimeError
from .face import Face

if TYPE_CHECKING:
    from ..engine.run import Run
    from ..records import EncodedValue


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

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._values)

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


class StateStore(Generic[StateT]):
    """The context through paths such as `user.name` or `items.0`: dict keys, attributes and list indexes.

    `get` returns the live object; what is changed in it is found when the step commits.
    """

    def __init__(self, run: Run, face: Face, state_class: type[BaseModel] | None):
        self._run = run
        self._face = face
        self._state_class = state_class

    async def get(self, path: str, default: Any = MISSING) -> Any:
        """Return the live value at a path; ValueError if there is none and no default."""
        head, *rest = _parts(path)
        value = self._head(head)
        for part in rest:
            if value is MISSING:
                break
            value = _child(value, part)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise ValueError(f"Path '{path}' not found in state of run {self._run.run_id}")
        return default

    def _head(self, key: str) -> Any:
        value = self._face.read(key, MISSING)
        if value is MISSING and self._state_class is not None and key in self._state_class.model_fields:
            # A field that was deleted; its default is kept, so that a change in it sticks.
            self._face.fill((key,), partial(defaults_of, self._state_class))
            value = self._face.read(key, MISSING)
        return value

    async def set(self, path: str, value: Any) -> None:
        """Set the value at a path, creating dicts on the way. Waits while another step is in `edit_state`."""
        async with self.writing():
            head, *rest = _parts(path)
            self._check_field(head)
            if not rest:
                self._face.write(head, value)
                return
            # Before anything is changed in place: what is refused leaves nothing behind.
            self._run.program.codec.encode_value(value, path)
            place = self._head(head)
            if place is MISSING:
                self._face.write(head, _nested(rest, value))
                return
            while len(rest) > 1 and (below := _child(place, rest[0])) is not MISSING:
                place = below
                del rest[0]
            try:
                _assign(place, rest[0], _nested(rest[1:], value))
            except (AttributeError, TypeError, ValueError, IndexError) as error:
                raise ValueError(
                    f"Path '{path}' cannot be set: {rest[0]!r} of a {type(place).__name__}: {error} "
                    f"(run {self._run.run_id})"
                ) from error
            self._face.write(head, self._face.read(head))

    def _check_field(self, key: str) -> None:
        if self._state_class is not None and key not in self._state_class.model_fields:
            extra = self._state_class.model_config.get("extra")
            if extra != "allow":
                raise ValueError(f"{self._state_class.__name__} has no field {key!r} (run {self._run.run_id})")

    async def get_state(self) -> StateT:
        """Return a copy of the whole state."""
        return self._copy()

    def _copy(self) -> StateT:
        codec = self._run.program.codec
        state = new_state(self._state_class or DictState)
        for key, value in self._all().items():
            put_field(state, key, codec.copy(value))
        return state  # type: ignore[return-value]

    async def set_state(self, state: BaseModel | Mapping[str, Any]) -> None:
        """Replace the state; a parent type of the state's class only replaces its own fields."""
        cls = self._state_class or DictState
        async with self.writing():
            if isinstance(state, Mapping) and self._state_class is None:
                self._replace(self._encoded(self._all()), dict(state))
            elif isinstance(state, cls):
                self._replace(self._encoded(self._all()), iter_fields(state))
            elif isinstance(state, BaseModel) and issubclass(cls, type(state)):
                for key, value in iter_fields(state).items():
                    self._face.write(key, value)
            else:
                raise ValueError(
                    f"State must be of type {cls.__name__} or a parent of it, not {type(state).__name__} "
                    f"(run {self._run.run_id})"
                )

    def _encoded(self, values: Mapping[str, Any]) -> dict[str, EncodedValue]:
        codec = self._run.program.codec
        return {key: codec.encode_value(value, key) for key, value in values.items()}

    def _all(self) -> dict[str, Any]:
        return {key: self._face.read(key) for key in self._face.visible_keys()}

    def _replace(self, before: Mapping[str, EncodedValue], values: Mapping[str, Any]) -> None:
        """Write what differs from `before`. What cannot be encoded is refused before anything is written."""
        codec = self._run.program.codec
        changed = [key for key, value in values.items() if codec.encode_value(value, key) != before.get(key)]
        for key in before:
            if key not in values and self._holds(key) and self._face.peek(key) is not MISSING:
                self._face.delete(key)
        for key in changed:
            self._face.write(key, values[key])

    def _holds(self, key: str) -> bool:
        """Tell whether the key is part of the state as a whole; beside a typed one there may be keys of `ctx.data`."""
        cls = self._state_class
        return cls is None or key in cls.model_fields or cls.model_config.get("extra") == "allow"

    async def clear(self) -> None:
        """Set every field to its default, or empty an untyped state."""
        async with self.writing():
            defaults = {} if self._state_class is None else defaults_of(self._state_class)
            self._replace(self._encoded(self._all()), defaults)

    @asynccontextmanager
    async def edit_state(self) -> AsyncGenerator[StateT]:
        """Edit an isolated copy: committed at the end, dropped on an exception. Other writers wait meanwhile."""
        async with self.writing(editing=True):
            self._face.detect_changes()
            state = self._copy()
            before = self._encoded(iter_fields(state))
            yield state
            self._replace(before, iter_fields(state))

    @asynccontextmanager
    async def writing(self, editing: bool = False) -> AsyncGenerator[None]:
        """Wait until nobody edits the state; `editing` keeps other writers out."""
        run, me = self._run, asyncio.current_task()
        if run.editor is not None and run.editor is me:
            raise WorkflowRuntimeError(
                f"run {run.run_id}: the state is written inside edit_state of the same task; change the copy that "
                "edit_state gave, or leave it first"
            )
        if not editing and not run.write_lock.locked():
            yield
            return
        async with run.write_lock:
            if editing:
                run.editor = me
            try:
                yield
            finally:
                if editing:
                    run.editor = None


def new_state(cls: type[BaseModel]) -> BaseModel:
    """Return a state with every field at its default; ValueError if a field has none."""
    try:
        return cls()
    except Exception as error:
        raise ValueError(f"all fields of the state class {cls.__name__} need defaults: {error}") from error


def defaults_of(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the default of every field, made anew; ValueError if a field has none."""
    return iter_fields(new_state(cls))


def iter_fields(state: BaseModel) -> dict[str, Any]:
    """Return a model's fields and extra data by name; cached properties are neither."""
    fields = type(state).model_fields
    values = {name: value for name, value in state.__dict__.items() if name in fields}
    return {**values, **(state.__pydantic_extra__ or {})}


def put_field(state: BaseModel, key: str, value: Any) -> None:
    """Set a field or extra value without validation."""
    if key in type(state).model_fields:
        state.__dict__[key] = value
        state.__pydantic_fields_set__.add(key)
    elif state.__pydantic_extra__ is not None:
        state.__pydantic_extra__[key] = value


def _parts(path: str) -> list[str]:
    if type(path) is not str or not path:
        raise ValueError(f"a path into the state is a string that is not empty, not {path!r}")
    return path.split(".")


def _nested(parts: Sequence[str], value: Any) -> Any:
    """Return the value in new dicts, one for each part."""
    for part in reversed(parts):
        value = {part: value}
    return value


def _child(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, MISSING)
    if isinstance(value, list | tuple):
        try:
            return value[int(part)]
        except (ValueError, IndexError):
            return MISSING
    return getattr(value, part, MISSING)


def _assign(place: Any, part: str, value: Any) -> None:
    if isinstance(place, MutableMapping):
        place[part] = value
    elif isinstance(place, list):
        place[int(part)] = value
    else:
        setattr(place, part, value)
