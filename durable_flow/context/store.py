"""`ctx.store`: the run's state by dotted paths, as a whole, and typed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from ..engine.live import MISSING
from ..errors import WorkflowRuntimeError
from .face import Face

if TYPE_CHECKING:
    from ..engine.run import Run


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
            # A field that nobody has set yet; kept, so that a change in its default sticks.
            value = self._defaults().get(key, MISSING)
            if value is not MISSING:
                self._face.write(key, value)
                value = self._face.read(key)
        return value

    def _defaults(self) -> dict[str, Any]:
        assert self._state_class is not None
        return dict(iter_fields(new_state(self._state_class)))

    async def set(self, path: str, value: Any) -> None:
        """Set the value at a path, creating dicts on the way. Waits while another step is in `edit_state`."""
        async with self._writing():
            head, *rest = _parts(path)
            if not rest:
                self._check_field(head, value)
                self._face.write(head, value)
                return
            root = self._head(head)
            if root is MISSING:
                root = {}
            place = root
            for part in rest[:-1]:
                below = _child(place, part)
                if below is MISSING:
                    below = {}
                    _assign(place, part, below)
                place = below
            _assign(place, rest[-1], value)
            self._face.write(head, root)

    def _check_field(self, key: str, value: Any) -> None:
        if self._state_class is not None and key not in self._state_class.model_fields:
            extra = self._state_class.model_config.get("extra")
            if extra != "allow":
                raise ValueError(f"{self._state_class.__name__} has no field {key!r} (run {self._run.run_id})")

    async def get_state(self) -> StateT:
        """Return a copy of the whole state."""
        return self._copy()

    def _copy(self) -> StateT:
        codec = self._run.program.codec
        values = {key: codec.copy(self._face.read(key)) for key in self._face.visible_keys()}
        cls = self._state_class or DictState
        state = new_state(cls)
        for key, value in values.items():
            put_field(state, key, value)
        return state  # type: ignore[return-value]

    async def set_state(self, state: BaseModel | Mapping[str, Any]) -> None:
        """Replace the state; a parent type of the state's class only replaces its own fields."""
        cls = self._state_class or DictState
        async with self._writing():
            if isinstance(state, Mapping) and self._state_class is None:
                self._replace(dict(state))
            elif isinstance(state, cls):
                self._replace(dict(iter_fields(state)))
            elif isinstance(state, BaseModel) and issubclass(cls, type(state)):
                for key, value in iter_fields(state):
                    self._face.write(key, value)
            else:
                raise ValueError(
                    f"State must be of type {cls.__name__} or a parent of it, not {type(state).__name__} "
                    f"(run {self._run.run_id})"
                )

    def _replace(self, values: dict[str, Any]) -> None:
        codec = self._run.program.codec
        for key in self._face.visible_keys():
            if key not in values:
                self._face.delete(key)
        for key, value in values.items():
            before = self._face.read(key, MISSING)
            if before is MISSING or codec.encode_value(before, key) != codec.encode_value(value, key):
                self._face.write(key, value)

    async def clear(self) -> None:
        """Set every field to its default, or empty an untyped state."""
        async with self._writing():
            self._replace(self._defaults() if self._state_class is not None else {})

    @asynccontextmanager
    async def edit_state(self) -> AsyncGenerator[StateT]:
        """Edit an isolated copy: committed at the end, dropped on an exception. Other writers wait meanwhile."""
        async with self._writing(editing=True):
            self._face.detect_changes()
            state = self._copy()
            yield state
            self._replace(dict(iter_fields(state)))

    @asynccontextmanager
    async def _writing(self, editing: bool = False) -> AsyncGenerator[None]:
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


def iter_fields(state: BaseModel) -> list[tuple[str, Any]]:
    """Return names and values of a model's fields and extra data."""
    return [*state.__dict__.items(), *(state.__pydantic_extra__ or {}).items()]


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
