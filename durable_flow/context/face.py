"""What a Context talks to: a running step's execution, or a run as seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.live import MISSING, REQUIRED, require_key
from ..errors import ContextStateError
from ..events import Event
from ..records import ContextDeleted, ContextSet

if TYPE_CHECKING:
    from ..engine.attachment import Attachment
    from ..engine.live import Mirror
    from ..engine.run import Run
    from ..retry_policy import RetryInfo


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
    """A run as its handler's context sees it. Writes are journaled by themselves, in order with everything else."""

    def __init__(self, attachment: Attachment):
        self.attachment = attachment

    @property
    def run(self) -> Run:
        """The live run; ContextStateError if it is not live in this process."""
        return self.attachment.live()

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
        self.run.live.mirrors.add(view)

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

    def _has_ended(self) -> bool:
        return self.run.closed or self.run.state.ended is not None

    def _require_running(self) -> None:
        if self._has_ended():
            raise ContextStateError(f"run {self.run.run_id} has ended; its context cannot be changed any more")


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
