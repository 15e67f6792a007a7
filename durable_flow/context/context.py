"""`Context`: state, events, stream, waits and durable effects of a run, as a step or a handler sees them."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic import BaseModel

from ..engine.beginning import Beginning
from ..engine.current import current_execution, executing
from ..engine.handed import Handed, awaited, known_as_async
from ..engine.live import MISSING
from ..errors import ContextSerdeError, ContextStateError, WorkflowRuntimeError
from ..events import Event
from ..retries import RetryInfo
from .arguments import require_collectable, require_name, require_seconds, require_wait
from .data import ContextData
from .face import Effects, Face, Outside
from .lock import ContextLock
from .paths import defaults_of
from .store import ContextStore

# The saving of contexts, `saved`, is imported where it is done: few programs do it, and the package's import is to be
# quick.
if TYPE_CHECKING:
    from ..engine.attachment import Attachment
    from ..engine.execution import Execution
    from ..engine.run import Run
    from ..engine.threads import FromThread
    from ..program import WorkflowProgram
    from ..serializers import Serializer
    from ..workflow import Workflow

StateT = TypeVar("StateT", bound=BaseModel)
EventT = TypeVar("EventT", bound=Event)


class Context(Generic[StateT]):
    """The shared context of a run.

    A step gets one as a parameter annotated `Context` or `Context[MyState]`; `handler.ctx` is that of a run as its
    caller sees it. `ctx.data`, `ctx.store` and `ctx.get`/`ctx.set` are views of the same state.

    `Context(flow)` belongs to no run yet: `flow.run(ctx=ctx)` starts one with the values that it holds, and after the
    run's end it holds them, the same objects, for the next. A step that is called by itself, `await
    flow.rank(Context(flow), Ranked())`, has its effects in memory: see `sent_events` and `streamed_events`.
    `previous_context` is what `to_dict` returned.
    """

    _face: Face
    _handed: Handed | None = None
    _run_of: Callable[[], Run | Beginning]
    _state_class: type[BaseModel] | None = None
    _data: ContextData | None = None
    _data_of: Run | Beginning | None = None
    _store: ContextStore[Any] | None = None
    _store_of: Run | Beginning | None = None

    def __init__(
        self,
        workflow: Workflow,
        previous_context: Mapping[str, Any] | None = None,
        serializer: Serializer | None = None,
    ):
        if isinstance(workflow, type) or not hasattr(workflow, "_durable_program_now"):
            raise WorkflowRuntimeError(
                f"Context takes an instance of a Workflow, not {workflow!r}; inside a step use the one that it is given"
            )
        program = workflow._durable_program_now(executing())
        if previous_context is None:
            beginning = Beginning.of(program, {})
        else:
            from .saved import restored

            beginning = restored(program, previous_context, serializer)
        face = Outside(None, beginning)
        self._face = face
        self._run_of = lambda: face.run
        self._state_class = program.table.state_class

    @classmethod
    def _of(cls, execution: Execution | FromThread, state_class: type[BaseModel] | None = None) -> Context[Any]:
        context: Context[Any] = cls.__new__(cls)
        run = execution.run
        context._face = cast("Face", execution)
        context._handed = execution.handed
        context._run_of = lambda: run
        context._state_class = state_class
        return context

    @classmethod
    def _outside(cls, attachment: Attachment, state_class: type[BaseModel] | None = None) -> Context[Any]:
        context: Context[Any] = cls.__new__(cls)
        face = Outside(attachment)
        context._face = face
        context._run_of = lambda: face.run
        context._state_class = state_class
        return context

    @staticmethod
    def get_step_context() -> Context[Any]:
        """Return the context of the step that runs, for code that is not handed it.

        Raises WorkflowRuntimeError outside a step.
        """
        execution = current_execution.get()
        if execution is None:
            raise WorkflowRuntimeError(
                "Context.get_step_context() may only be called from within a step. A step that is called by itself, "
                "without a run, has the Context that it was given"
            )
        program = cast("WorkflowProgram", execution.run.program)
        return Context._of(execution, program.table.state_class)

    @property
    def _run(self) -> Run | Beginning:
        return self._run_of()

    @property
    def _any_face(self) -> Face:
        return self._face

    def _effects(self, method: str) -> Effects:
        face = self._face
        if isinstance(face, Outside):
            return cast("Effects", face.alone_for(method))
        return cast("Effects", face)

    def _outside_face(self, method: str) -> Outside:
        """Return the face of a context that its caller has; ContextStateError for that of a step."""
        if not isinstance(self._face, Outside):
            raise ContextStateError(
                f"{method} is for those who start and watch a run; this is the context of a step (run {self.run_id}). "
                "Use handler.ctx outside of the step"
            )
        return self._face

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
    def store(self) -> ContextStore[StateT]:
        """The state by dotted paths, as a whole (`get_state`, `edit_state`), and typed for `Context[MyState]`."""
        run = self._run_of()
        if self._store is None or self._store_of is not run:
            self._with_defaults()
            self._store, self._store_of = ContextStore(run, self._any_face, self._state_class, self._handed), run
        return self._store

    def _with_defaults(self) -> None:
        """Give the fields of a typed state that nobody has set their defaults, once and for all steps."""
        if self._state_class is not None:
            self._any_face.fill(self._state_class.model_fields, partial(defaults_of, self._state_class))

    @known_as_async
    def get(self, key: str, default: Any = MISSING) -> Coroutine[Any, Any, Any]:
        """Return the live value of a key, taken literally (no path); ValueError if it is missing and no default."""
        made = self._get(key, default)
        # As `awaited` does it, but this is called most often.
        if (handed := self._handed) is not None:
            if (last := handed.last) is not None and last.cr_frame is not None:
                handed.keep(last)
            handed.last = made
        return made

    async def _get(self, key: str, default: Any) -> Any:
        if self._state_class is not None:
            self._with_defaults()
        value = self._face.read(key, MISSING)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise ValueError(f"Key '{key}' not found in Context (run {self._run.run_id})")
        return default

    @awaited
    async def set(self, key: str, value: Any, make_private: bool = False) -> None:
        """Set a key, taken literally (no path). Waits while another step is in `edit_state`.

        `make_private` is accepted for old programs, and ignored with a warning: all steps see every key.
        """
        if make_private:
            warnings.warn(
                f"ctx.set({key!r}, ..., make_private=True): make_private is ignored, all steps see every key",
                stacklevel=2,
            )
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
        return ContextLock(self._run, self._any_face, self._handed)

    # -- Events --------------------------------------------------------------------------------------------------------

    def send_event(self, message: Event, step: str | None = None) -> None:
        """Emit an event to the steps that accept it, or to one of them.

        Inside a step it is handed over at the step's next suspension or at its end. From outside it is ordered after
        what was sent before, and not yet durable: `await handler.send_event` returns when it is. Raises
        WorkflowStepDoesNotExistError, WorkflowRuntimeError if the step does not accept it, RunFinishedError and
        AlreadyAnsweredError.
        """
        self._any_face.send(message, step)

    def collect_events(
        self, ev: Event, expected: Sequence[type[Event]], buffer_id: str | None = None
    ) -> list[Event] | None:
        """Put an event into a buffer of this step; return the expected events once all are there, else None.

        The result is in the order of `expected`, events of one class in the order in which they were collected.
        Left-over events stay in the buffer. An event of a class that is not expected is not collected.
        """
        effects = self._effects("collect_events")
        if type(expected) is not list or type(ev) not in expected or buffer_id is not None:
            require_collectable(effects, ev, expected, buffer_id)
        return effects.collect(ev, expected, buffer_id)

    def write_event_to_stream(self, ev: Event | None) -> None:
        """Publish an item to those who iterate over `handler.stream_events()`; None is ignored."""
        if ev is not None:
            self._effects("write_event_to_stream").publish(ev)

    async def stream_events(self, expose_internal: bool = False) -> AsyncGenerator[Event, None]:
        """Yield what `handler.stream_events()` yields; each call is a reader of its own, from the first item on.

        Raises ContextStateError inside a step and before the run begins.
        """
        from ..handler import WorkflowHandler  # here, because handlers have contexts

        face = self._outside_face("ctx.stream_events")
        attachment = face.attachment
        if attachment is None:
            raise face.of_no_run("call flow.run(ctx=ctx), then stream its events")
        async with aclosing(WorkflowHandler(attachment).stream_events(expose_internal)) as events:
            async for event in events:
                yield event

    @awaited
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
        effects = self._effects("wait_for_event")
        require_wait(effects, event_type, waiter_event, waiter_id, requirements, timeout)
        event = await effects.wait_for(
            event_type, prompt=waiter_event, waiter_id=waiter_id, requirements=requirements, timeout=timeout
        )
        return cast("EventT", event)

    @property
    def sent_events(self) -> list[Event]:
        """What was sent by this Context, in order, as long as it belongs to no run: the output of a step under test."""
        return self._outside_face("ctx.sent_events").alone_for("sent_events").sent

    @property
    def streamed_events(self) -> list[Event]:
        """What was published by this Context, in order, as long as it belongs to no run."""
        return self._outside_face("ctx.streamed_events").alone_for("streamed_events").published

    # -- Durable effects -----------------------------------------------------------------------------------------------

    @awaited
    async def call(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run `fn(*args, **kwargs)` at least once until its result is durable, then never again for this task.

        A plain function runs in a thread. Concurrent calls within a step need distinct names. A later attempt gets the
        result of an equal call (name and arguments). Raises what `fn` raises, SerializationError if the result cannot
        be encoded, and StepDivergedError, a BaseException, if the step runs again after a crash with other arguments.
        """
        if not isinstance(name, str) or not callable(fn):
            raise WorkflowRuntimeError(
                f"ctx.call takes a name and a function, ctx.call('charge', charge, amount), not "
                f"({type(name).__name__}, {type(fn).__name__}) (run {self._run.run_id})"
            )
        return await self._effects("call").call(name, fn, args, kwargs)

    @awaited
    async def sleep(self, seconds: float) -> None:
        """Sleep on a durable timer: never short, and after a restart only for what is left."""
        effects = self._effects("sleep")
        require_seconds(effects, seconds)
        await effects.sleep(seconds)

    @awaited
    async def checkpoint(self, name: str) -> None:
        """Commit what the step did so far and name this position of the journal. It seals nothing."""
        effects = self._effects("checkpoint")
        require_name(effects, name)
        await effects.checkpoint(name)

    def idempotency_key(self, name: str | None = None) -> str:
        """Return a key for the outside world: the same over attempts and restarts of this task, another in a fork."""
        return self._effects("idempotency_key").idempotency_key(name)

    def retry_info(self) -> RetryInfo:
        """Return what the failed attempts of this step came to, also those of a process that is gone."""
        return self._effects("retry_info").retry_info()

    # -- About the run -------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's id. Raises ContextStateError for a context that belongs to no run."""
        face = self._face
        return face.run_id if isinstance(face, Outside) else self._run.run_id

    @property
    def is_running(self) -> bool:
        """Tell whether the run has begun and not ended; also for a saved state that goes on with the next run."""
        face = self._face
        if isinstance(face, Outside):
            return face.is_running
        run = self._run
        return not isinstance(run, Beginning) and not run.closed

    def get_result(self) -> Any:
        """Return the result of the run that this context belongs to, for programs that ask here, not the handler.

        Raises what `await handler` would raise, and ContextStateError in a step and while the run has not ended.
        """
        face = self._outside_face("ctx.get_result")
        attachment = face.attachment
        if attachment is None:
            raise face.of_no_run("there is no result yet. Use `await flow.run(ctx=ctx)`")
        if attachment.failure is not None:
            raise attachment.failure
        if attachment.outcome is None:
            raise ContextStateError(
                f"there is no result yet: this Context is that of run {attachment.run_id}, under way. Use `await "
                "flow.run(ctx=ctx)`"
            )
        return attachment.outcome.value()

    async def running_steps(self) -> list[str]:
        """Return the names of the steps that are in flight in this process.

        Raises ContextStateError before the run begins.
        """
        run = self._run
        if not isinstance(run, Beginning):
            return [] if run.closed else run.running_steps()
        if isinstance(self._face, Outside) and self._face.attachment is None:
            raise self._face.of_no_run("no step can be running. Call flow.run(ctx=ctx)")
        return []

    # -- State as data -------------------------------------------------------------------------------------------------

    def to_dict(self, serializer: Serializer | None = None, *, include_state: bool = True) -> dict[str, Any]:
        """Return the state of the run as JSON-able data, from which `Context.from_dict` makes a new Context.

        Its size is that of the state, however long the run's history is. Of a run that is not finished it holds what is
        decided at this moment: values that were committed, pending events, what pending steps have recorded, open
        questions, timers and retries. What a running step has written and not committed yet is not in it, just as after
        a crash. Before the run and after its end it holds the values as they are.

        Args:
            serializer: how values and events are written; default is as they are in the journal. A PickleSerializer or
                JsonPickleSerializer needs no key here. Reading such data runs their code: take them from nobody whom
                you do not trust.
            include_state: False leaves the values of the context out.

        Raises SerializationError, and ContextStateError inside a step, or if the run lives elsewhere and has not ended.
        """
        from .saved import saved

        return saved(self._outside_face("ctx.to_dict"), serializer, include_state=include_state)

    @classmethod
    def from_dict(
        cls, workflow: Workflow, data: Mapping[str, Any], serializer: Serializer | None = None
    ) -> Context[StateT]:
        """Return a Context with the state that `to_dict` returned, in this process or another.

        `flow.run(ctx=ctx)` goes on with the pending work if the run was not finished, as a new run; else it starts a
        run with the same values. `serializer` is the one that `to_dict` was given. Raises ContextSerdeError for data
        that are damaged, of a newer version, or not of durable_flow.
        """
        if data is None:
            raise ContextSerdeError("there are no data to make a Context of: None. Use Context(workflow) for a new one")
        return cls(workflow, data, serializer)

    def serialize(self, serializer: Serializer | None = None) -> dict[str, Any]:
        """Return `to_dict(serializer)`."""
        return self.to_dict(serializer)

    def deserialize(self, data: Mapping[str, Any], serializer: Serializer | None = None) -> Context[StateT]:
        """Take over the state that `to_dict` returned, in the place of the values of this context; return it.

        Raises ContextSerdeError as `from_dict` does, and ContextStateError while a run of this context is unfinished.
        """
        from .saved import restored

        face = self._outside_face("ctx.deserialize")
        face.replace(restored(face.next_beginning().program, data, serializer))
        return self


get_step_context = Context.get_step_context
