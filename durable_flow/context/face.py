"""What a Context talks to: a running step's execution, or a run as seen from outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.beginning import Beginning
from ..engine.live import MISSING, REQUIRED, require_key
from ..errors import ContextStateError, WorkflowRuntimeError
from ..events import Event
from ..records import ContextDeleted, ContextSet
from ..state import NEEDS_ATTENTION, RunState

if TYPE_CHECKING:
    from ..engine.attachment import Attachment
    from ..engine.live import Mirror
    from ..engine.run import Run
    from ..retries import RetryInfo
    from .alone import Alone


class Face(Protocol):
    """The state operations that a step's context and a handler's context share."""

    def read(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a live value."""

    def visible_keys(self) -> list[str]:
        """Return all keys."""

    def peek(self, key: str) -> Any:
        """Return a live value or MISSING; not a read."""

    def show(self, view: Mirror) -> None:
        """Fill a view that holds values itself, and keep it up to date; not a read."""

    def fill(self, names: Collection[str], defaults: Callable[[], Mapping[str, Any]]) -> None:
        """Give those of these keys that are missing their defaults."""

    def write(self, key: str, value: Any) -> None:
        """Set a key."""

    def delete(self, key: str) -> None:
        """Delete a key."""

    def detect_changes(self) -> None:
        """Record changes in place."""

    def send(self, event: Event, step: str | None = None) -> None:
        """Send an event."""


class Outside:
    """A context as its caller sees it: that of a run, or of none before the run begins.

    Writes to a run are journaled by themselves, in order with everything else. After the run's end the context holds
    the values for the next run, and the first write makes it the context of no run.
    """

    def __init__(self, attachment: Attachment | None, beginning: Beginning | None = None):
        self.attachment = attachment
        self.alone: Alone | None = None
        self._beginning = beginning
        self._found: Beginning | None = None
        if beginning is not None:
            beginning.face = self

    @property
    def run(self) -> Run | Beginning:
        """The live run, or what is no run yet or any more; ContextStateError if the run is not live in this process."""
        attachment, beginning = self.attachment, self._beginning
        if attachment is not None and attachment.run is not None:
            return attachment.run
        if beginning is not None and (attachment is None or not (attachment.started or beginning.begun)):
            return beginning
        assert attachment is not None
        if attachment.is_new and not attachment.started and attachment.beginning is None:
            # Nobody has written to this run; what is written before it is there is its first state.
            self._beginning = attachment.beginning = Beginning.of(attachment.program, {})
            self._beginning.face = self
            return self._beginning
        if beginning is not None and attachment.failure is not None and not beginning.begun:
            return beginning  # the run could not be started
        if attachment.found is not None:
            if self._found is None:
                self._found = Beginning.of(attachment.program, attachment.found.context)
                self._found.face = self
            return self._found
        return attachment.live()

    @property
    def is_running(self) -> bool:
        """Tell whether the run has begun and not ended; also true of a saved state that goes on with the next run.

        One that needs attention has not ended.
        """
        if self.attachment is None:
            assert self._beginning is not None
            return self._beginning.unfinished is not None
        outcome = self.attachment.outcome
        return self.attachment.failure is None and (outcome is None or outcome.status == NEEDS_ATTENTION)

    @property
    def run_id(self) -> str:
        """The run's id; ContextStateError if there is none."""
        if self.attachment is None:
            raise self.of_no_run("handler = flow.run(ctx=ctx) starts one")
        return self.attachment.run_id

    def of_no_run(self, cure: str) -> ContextStateError:
        """Return the error for what only the context of a run can tell."""
        return ContextStateError(f"this Context belongs to no run yet: {cure}")

    def belong_to(self, attachment: Attachment) -> None:
        """Become the context of a run."""
        self.attachment, self._beginning, self._found = attachment, attachment.beginning, None

    def replace(self, beginning: Beginning) -> None:
        """Hold what the next run begins with instead of what is held now."""
        views = self.run.live.views_of(self)
        beginning.face = self
        self.attachment, self._beginning, self._found, self.alone = None, beginning, None, None
        for view in views:
            view.forget()
            self.show(view)

    def next_beginning(self) -> Beginning:
        """Return what the next run begins with: the values of this context, the same objects.

        Raises ContextStateError while a run of it is unfinished.
        """
        attachment = self.attachment
        if attachment is not None and self.is_running:
            cure = "Wait for its end, or use a new Context"
            if attachment.outcome is not None or (attachment.started and attachment.run is None):
                cure = f"It is not live in this process now: flow.resume({attachment.run_id!r}) goes on with it"
            raise ContextStateError(
                f"Cannot start a new run while the context is already running (run {attachment.run_id}). {cure}."
            )
        place = self.run
        if self.alone is not None and self.alone.sent:
            names = ", ".join(type(event).__name__ for event in self.alone.sent)
            raise ContextStateError(
                f"events were sent by this Context before it belonged to a run, and no run would get them: {names}. "
                "Send them once the run has begun; for a run take another Context than for a step that is called alone."
            )
        return place if isinstance(place, Beginning) else Beginning(place.program, place.live, face=self)

    def read(self, key: str, default: Any = REQUIRED) -> Any:
        """Return the live value of a key; KeyError without a default."""
        entry = self.run.live.entry(key)
        if entry is not None:
            return entry.value
        if default is REQUIRED:
            raise KeyError(key)
        return default

    def visible_keys(self) -> list[str]:
        """Return all keys."""
        self.run.live.whole_reads += 1
        return list(self.run.live)

    def peek(self, key: str) -> Any:
        """Return the live value of a key, or MISSING."""
        return self.read(key, MISSING)

    def show(self, view: Mirror) -> None:
        """Fill a view that holds values itself, and keep it up to date."""
        for key in self.visible_keys():
            view.mirror(key)
        self.run.live.add_view(view)

    def fill(self, names: Collection[str], defaults: Callable[[], Mapping[str, Any]]) -> None:
        """Give those of these keys that are missing their defaults; only to be looked at once the run has ended."""
        missing = [key for key in names if key not in self.run.live]
        values = defaults() if missing else {}
        for key in missing:
            if self._has_ended():
                self.run.live.set(key, values[key], self.run.program.codec.encode_value(values[key], key))
            else:
                self.write(key, values[key])

    def write(self, key: str, value: Any) -> None:
        """Set a key."""
        require_key(key, f"run {self.run.run_id}")
        encoded, value = self.run.live.encode_value(value, key)
        run = self._writable()
        run.live.set(key, value, encoded)
        if not isinstance(run, Beginning):
            run.commit((*run.drafts_on(key), ContextSet(key, encoded, None, 0, 0)))

    def delete(self, key: str) -> None:
        """Delete a key; KeyError if there is none."""
        if self.run.live.entry(key) is None:
            raise KeyError(key)
        run = self._writable()
        run.live.delete(key)
        if not isinstance(run, Beginning):
            run.commit((*run.drafts_on(key), ContextDeleted(key, None, 0, 0)))

    def detect_changes(self) -> None:
        """Changes in place from outside belong to no step; they are found by the steps that read the value."""

    def send(self, event: Event, step: str | None = None) -> None:
        """Send an event: in order, not yet durable."""
        if self.attachment is not None:
            self.attachment.send_soon(event, step)
        else:
            self.alone_for("send_event").send(event, step)

    def alone_for(self, method: str) -> Alone:
        """Return the effects of a step that is called alone; ContextStateError if this is not for one."""
        if self.attachment is not None:
            raise ContextStateError(
                f"ctx.{method} works inside a step only; this is the context of a handler (run "
                f"{self.attachment.run_id}). Call it in a step, on the Context that the step is given"
            )
        assert self._beginning is not None
        if self._beginning.unfinished is not None:
            raise ContextStateError(
                f"ctx.{method} was called before the run goes on: start it first, handler = flow.run(ctx=ctx)"
            )
        if self.alone is None:
            from .alone import Alone

            self.alone = Alone(self._beginning)
        return self.alone

    def saved(self) -> tuple[RunState, bool]:
        """Return the state to be kept, and whether it is an unfinished run's: then all that is journaled of it.

        Else it is the values as they are now.
        """
        place = self.run
        if not isinstance(place, Beginning) and place.state.ended is None:
            return place.state, True
        context = place.live.taken_over(place.program.codec).encoded()
        if isinstance(place, Beginning) and place.unfinished is not None:
            return dataclasses.replace(place.unfinished, context=context), True
        return RunState(workflow=place.program.name, context=context), False

    def _has_ended(self) -> bool:
        run = self.run
        if isinstance(run, Beginning):
            return run is self._found
        return run.closed or run.state.ended is not None

    def _writable(self) -> Run | Beginning:
        """Return where a write goes. After the end of the run this is what the next run begins with."""
        if self._has_ended():
            beginning = self.next_beginning()
            beginning.live = beginning.live.taken_over(beginning.program.codec, self)
            self.replace(beginning)
        return self.run


def require_startable(ctx: object, run_id: str | None) -> tuple[Outside, Beginning | None]:
    """Return what a run with this Context needs; no Beginning if it is to be the one that the Context has already.

    Raises ContextStateError if it cannot be the context of another run, WorkflowRuntimeError for what is no Context.
    """
    face = getattr(ctx, "_face", None)
    if face is None:
        raise WorkflowRuntimeError(f"run(ctx=...) takes a Context, Context(flow) for example, not {type(ctx).__name__}")
    if not isinstance(face, Outside):
        raise ContextStateError(
            "run(ctx=...) got the context of a step, whose run is not finished. Start the other run with a Context of "
            "its own, Context(flow), and put in what it needs"
        )
    if face.attachment is not None and run_id == face.attachment.run_id:
        return face, None
    return face, face.next_beginning()


class Effects(Face, Protocol):
    """What only a running step can do."""

    def publish(self, event: Event) -> None:
        """Publish a stream item."""

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Event] | None:
        """Buffer an event."""

    async def call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call once."""

    async def sleep(self, seconds: float) -> None:
        """Sleep on a durable timer."""

    async def wait_for(
        self, cls: type[Event], *, prompt: Event | None, waiter_id: str | None,
        requirements: Mapping[str, Any] | None, timeout: float | None,
    ) -> Event:  # fmt: skip
        """Wait for an event."""

    async def checkpoint(self, name: str) -> None:
        """Name a position."""

    def idempotency_key(self, name: str | None) -> str:
        """Return the stable key."""

    def retry_info(self) -> RetryInfo:
        """Return what the attempts before this one came to."""
