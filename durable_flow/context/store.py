"""`ctx.store`: the run's state by dotted paths, as a whole, and typed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from ..engine.handed import Handed, awaited, known_as_async
from ..engine.live import EDITING, MISSING
from ..errors import WorkflowRuntimeError
from .face import Face
from .paths import child_of, defaults_of, iter_fields, may_have, nested, new_state, parts_of, put_below, put_field
from .state_store import DictState

if TYPE_CHECKING:
    from ..engine.beginning import Beginning
    from ..engine.run import Run
    from ..records import EncodedValue


StateT = TypeVar("StateT", bound=BaseModel)


class ContextStore(Generic[StateT]):
    """The context through paths such as `user.name` or `items.0`: dict keys, attributes and list indexes.

    `get` returns the live object; what is changed in it is found when the step commits.
    """

    def __init__(
        self, run: Run | Beginning, face: Face, state_class: type[BaseModel] | None, handed: Handed | None = None
    ):
        self._run = run
        self._face = face
        self._state_class = state_class
        self._handed = handed

    @known_as_async
    def get(self, path: str, default: Any = MISSING) -> Coroutine[Any, Any, Any]:
        """Return the live value at a path; ValueError if there is none and no default."""
        made = self._get(path, default)
        # As `awaited` does it, but this is called most often.
        if (handed := self._handed) is not None:
            if (last := handed.last) is not None and last.cr_frame is not None:
                handed.keep(last)
            handed.last = made
        return made

    async def _get(self, path: str, default: Any) -> Any:
        head, *rest = parts_of(path)
        value = self._face.read(head, MISSING)
        if value is MISSING:
            value = self._head(head)
        for part in rest:
            if value is MISSING:
                break
            value = child_of(value, part)
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

    @awaited
    async def set(self, path: str, value: Any) -> None:
        """Set the value at a path, creating dicts on the way. Waits while another step is in `edit_state`."""
        async with self.writing():
            head, *rest = parts_of(path)
            self._check_field(head)
            if not rest:
                self._face.write(head, value)
                return
            # Before anything is changed in place: what is refused leaves nothing behind.
            self._run.program.codec.encode_value(value, path)
            place = self._head(head)
            if place is MISSING:
                self._face.write(head, nested(rest, value))
                return
            put_below(place, rest, value, path, f" (run {self._run.run_id})")
            self._face.write(head, self._face.read(head))

    def _check_field(self, key: str) -> None:
        cls = self._state_class
        if cls is not None and not may_have(cls, key):
            raise ValueError(f"{cls.__name__} has no field {key!r} (run {self._run.run_id})")

    @awaited
    async def get_state(self) -> StateT:
        """Return a copy of the whole state."""
        return self._copy()

    def _copy(self) -> StateT:
        codec = self._run.program.codec
        state = new_state(self._state_class or DictState)
        for key, value in self._all().items():
            put_field(state, key, codec.copy(value))
        return state  # type: ignore[return-value]

    @awaited
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
        return cls is None or may_have(cls, key)

    @awaited
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
                EDITING.set(me)
            try:
                yield
            finally:
                if editing:
                    run.editor = None
