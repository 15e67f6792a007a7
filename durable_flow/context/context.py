"""`Context`: state, events, stream, waits and durable effects of a run, as a step or a handler sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic import BaseModel

from ..engine.live import MISSING
from ..errors import ContextStateError, WorkflowRuntimeError
from ..events import Event
from ..retry_policy import RetryInfo
from .data import ContextData
from .face import Effects, Face, Outside
from .lock import ContextLock
from .store import StateStore, defaults_of

if TYPE_CHECKING:
    from ..engine.attachment import Attachment
    from ..engine.execution import Execution
    from ..engine.run import Run
    from ..engine.threads import FromThread

StateT = TypeVar("StateT", bound=BaseModel)
EventT = TypeVar("EventT", bound=Event)


class Context(Generic[StateT]):
    """The shared context of a run.

    A step gets one as a parameter annotated `Context` or `Context[MyState]`; `handler.ctx` is that of a run as its
    caller sees it. `ctx.data`, `ctx.store` and `ctx.get`/`ctx.set` are views of the same state.
    """

    _face: Face | None = None
    _run_of: Callable[[], Run] | None = None
    _state_class: type[BaseModel] | None = None
    _data: ContextData | None = None
    _data_of: Run | None = None
    _store: StateStore[Any] | None = None
    _store_of: Run | None = None

    @classmethod
    def _of(cls, execution: Execution | FromThread, state_class: type[BaseModel] | None = None) -> Context[Any]:
        context: Context[Any] = cls()
        run = execution.run
        context._face = cast("Face", execution)
        context._run_of = lambda: run
        context._state_class = state_class
        return context

    @classmethod
    def _outside(cls, attachment: Attachment, state_class: type[BaseModel] | None = None) -> Context[Any]:
        context: Context[Any] = cls()
        face = Outside(attachment)
        context._face = face
        context._run_of = lambda: face.run
        context._state_class = state_class
        return context

    @property
    def _run(self) -> Run:
        if self._run_of is None:
            raise ContextStateError("this Context belongs to no run. Use the one that a step is given, or handler.ctx")
        return self._run_of()

    @property
    def _any_face(self) -> Face:
        if self._face is None:
            raise ContextStateError("this Context belongs to no run. Use the one that a step is given, or handler.ctx")
        return self._face

    def _effects(self, method: str) -> Effects:
        face = self._any_face
        if isinstance(face, Outside):
            raise ContextStateError(
                f"ctx.{method} works inside a step only; this is the context of a handler (run "
                f"{face.attachment.run_id}). Call it in a step, on the Context that the step is given"
            )
        return cast("Effects", face)

    # -- State ---------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> ContextData:
        """The state as a live dict; every change is journaled, and visible to other steps at once."""
        run = self._run
        if self._data is None or self._data_of is not run:
            self._with_defaults()
            self._data, self._data_of = ContextData(self._any_face), run
        return self._data

    @data.setter
    def data(self, value: ContextData) -> None:
        # `ctx.data |= {...}` ends with this assignment.
        if value is not self._data:
            raise AttributeError(
                "ctx.data is the view of the run's state and cannot be replaced; use ctx.data.update(...), or "
                "ctx.data.clear() before it"
            )

    @property
    def store(self) -> StateStore[StateT]:
        """The state by dotted paths, as a whole (`get_state`, `edit_state`), and typed for `Context[MyState]`."""
        run = self._run
        if self._store is None or self._store_of is not run:
            self._with_defaults()
            self._store, self._store_of = StateStore(run, self._any_face, self._state_class), run
        return self._store

    def _with_defaults(self) -> None:
        """Give the fields of a typed state that nobody has set their defaults, once and for all steps."""
        if self._state_class is not None:
            self._any_face.fill(self._state_class.model_fields, partial(defaults_of, self._state_class))

    async def get(self, key: str, default: Any = MISSING) -> Any:
        """Return the live value of a key, taken literally (no path); ValueError if it is missing and no default."""
        self._with_defaults()
        value = self._any_face.read(key, MISSING)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise ValueError(f"Key '{key}' not found in Context (run {self.run_id})")
        return default

    async def set(self, key: str, value: Any, make_private: bool = False) -> None:
        """Set a key, taken literally (no path). Waits while another step is in `edit_state`.

        `make_private` is accepted for old programs and ignored.
        """
        if self._run.write_lock.locked():
            async with self.store.writing():
                self._any_face.write(key, value)
        else:
            self._any_face.write(key, value)

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several keys."""
        for key, value in values.items():
            self._any_face.write(key, value)

    def clear(self) -> None:
        """Remove every key; the fields of a typed state get their defaults."""
        self.data.clear()
        self._with_defaults()

    @property
    def session(self) -> Context[StateT]:
        """This context; for old programs."""
        return self

    @property
    def lock(self) -> ContextLock:
        """The run's lock, for read-modify-write over an `await`."""
        return ContextLock(self._run, self._any_face)

    # -- Events --------------------------------------------------------------------------------------------------------

    def send_event(self, event: Event, step: str | None = None) -> None:
        """Emit an event to the steps that accept it, or to one of them.

        Inside a step it is handed over at the step's next suspension or at its end. From outside it is ordered after
        what was sent before, and not yet durable: `await handler.send_event` returns when it is. Raises
        WorkflowStepDoesNotExistError, WorkflowRuntimeError if the step does not accept it, RunFinishedError and
        AlreadyAnsweredError.
        """
        self._any_face.send(event, step)

    def collect_events(
        self, ev: Event, expected: Sequence[type[Event]], buffer_id: str | None = None
    ) -> list[Event] | None:
        """Put an event into a buffer of this step; return the expected events once all are there, else None.

        The result is in the order of `expected`, events of one class in the order in which they were collected.
        Left-over events stay in the buffer. An event of a class that is not expected is not collected.
        """
        return self._effects("collect_events").collect(ev, expected, buffer_id)

    def write_event_to_stream(self, ev: Event | None) -> None:
        """Publish an item to those who iterate over `handler.stream_events()`; None is ignored."""
        if ev is not None:
            self._effects("write_event_to_stream").publish(ev)

    async def wait_for_event(
        self,
        event_type: type[EventT],
        waiter_event: Event | None = None,
        waiter_id: str | None = None,
        requirements: Mapping[str, Any] | None = None,
        timeout: float | None = 2000,
    ) -> EventT:
        """Wait for an event without holding one of the step's workers; it may come days later, to another process.

        Args:
            event_type: the exact class that is awaited.
            waiter_event: published once, with the wait's id, to ask for the answer.
            waiter_id: names the wait; then a re-run accepts the recorded answer although the question has changed.
            requirements: attribute values that the event must have.
            timeout: seconds until TimeoutError is raised, by a deadline in the journal; None waits for ever.

        Raises ContextStateError inside `ctx.lock`. When the run is released meanwhile, StepReleased, a BaseException,
        is raised: do not compensate in `finally`, the step starts again when the run is taken up.
        """
        event = await self._effects("wait_for_event").wait_for(
            event_type, prompt=waiter_event, waiter_id=waiter_id, requirements=requirements, timeout=timeout
        )
        return cast("EventT", event)

    # -- Durable effects -----------------------------------------------------------------------------------------------

    async def call(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run `fn(*args, **kwargs)` at least once until its result is durable, then never again for this task.

        A plain function runs in a thread. Concurrent calls within a step need distinct names. A later attempt gets the
        result of an equal call (name and arguments). Raises what `fn` raises, SerializationError if the result cannot
        be encoded, and StepDivergedError, a BaseException, if the step runs again after a crash with other arguments.
        """
        if not isinstance(name, str) or not callable(fn):
            raise WorkflowRuntimeError(
                f"ctx.call takes a name and a function, ctx.call('charge', charge, amount), not "
                f"({type(name).__name__}, {type(fn).__name__}) (run {self.run_id})"
            )
        return await self._effects("call").call(name, fn, args, kwargs)

    async def sleep(self, seconds: float) -> None:
        """Sleep on a durable timer: never short, and after a restart only for what is left."""
        await self._effects("sleep").sleep(seconds)

    async def checkpoint(self, name: str) -> None:
        """Commit what the step did so far and name this position of the journal. It seals nothing."""
        await self._effects("checkpoint").checkpoint(name)

    def idempotency_key(self, name: str | None = None) -> str:
        """Return a key for the outside world: the same over attempts and restarts of this task, another in a fork."""
        return self._effects("idempotency_key").idempotency_key(name)

    def retry_info(self) -> RetryInfo:
        """Return what the failed attempts of this step came to, also those of a process that is gone."""
        return self._effects("retry_info").retry_info()

    # -- About the run -------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's id."""
        face = self._any_face
        return face.attachment.run_id if isinstance(face, Outside) else self._run.run_id

    @property
    def is_running(self) -> bool:
        """Tell whether the run is live in this process."""
        return not self._run.closed

    async def running_steps(self) -> list[str]:
        """Return the names of the steps that are in flight."""
        return self._run.running_steps()
