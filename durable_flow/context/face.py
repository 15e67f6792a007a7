"""What a Context talks to: a running step's execution, or a run as seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.live import MISSING, REQUIRED
from ..errors import ContextStateError, SerializationError
from ..events import Event
from ..records import ContextDeleted, ContextSet

if TYPE_CHECKING:
    from ..engine.attachment import Attachment
    from ..engine.run import Run


class Face(Protocol):
    """The state operations that a step's context and a handler's context share."""

    def read(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a live value."""

    def visible_keys(self) -> list[str]:
        """Return all keys."""

    def peek(self, key: str) -> Any:
        """Return a live value or MISSING; not a read."""

    def peek_keys(self) -> list[str]:
        """Return all keys; not a read."""

    def write(self, key: str, value: Any) -> None:
        """Set a key."""

    def delete(self, key: str) -> None:
        """Delete a key."""

    def detect_changes(self) -> None:
        """Record changes in place."""

    def send(self, event: Event, step: str | None = None) -> None:
        """Send an event."""


class Outside:
    """A run as its handler's context sees it. Writes are journaled by themselves, in order with everything else."""

    def __init__(self, attachment: Attachment):
        self.attachment = attachment

    @property
    def run(self) -> Run:
        """The live run; ContextStateError if it is not live in this process."""
        run: Run = self.attachment.live()
        return run

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
        return list(self.run.live)

    def peek(self, key: str) -> Any:
        """Return the live value of a key, or MISSING."""
        return self.read(key, MISSING)

    def peek_keys(self) -> list[str]:
        """Return all keys."""
        return self.visible_keys()

    def write(self, key: str, value: Any) -> None:
        """Set a key."""
        if type(key) is not str:
            raise SerializationError(
                f"context keys are strings, not {type(key).__name__}: {key!r} in run {self.run.run_id}; use str(key)",
                path=f"context[{key!r}]",
            )
        encoded = self.run.program.codec.encode_value(value, key)
        self._require_running()
        self.run.live.set(key, value, encoded)
        self.run.commit((*self.run.drafts_on(key), ContextSet(key, encoded, None, 0, 0)))

    def delete(self, key: str) -> None:
        """Delete a key; KeyError if there is none."""
        if self.run.live.entry(key) is None:
            raise KeyError(key)
        self._require_running()
        self.run.live.delete(key)
        self.run.commit((*self.run.drafts_on(key), ContextDeleted(key, None, 0, 0)))

    def detect_changes(self) -> None:
        """Changes in place from outside belong to no step; they are found by the steps that read the value."""

    def send(self, event: Event, step: str | None = None) -> None:
        """Send an event: in order, not yet durable."""
        self.attachment.send_soon(event, step)

    def _require_running(self) -> None:
        if self.run.closed:
            raise ContextStateError(f"run {self.run.run_id} has ended; its context cannot be changed any more")


class Effects(Face, Protocol):
    """What only a running step can do."""

    step: str
    attempt: int
    failures: int

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
