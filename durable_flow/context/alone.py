"""A step that is called by itself, `await flow.rank(Context(flow), Ranked(...))`: its effects are kept in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.answers import meets
from ..engine.execution import invoke
from ..engine.live import held_by_caller
from ..engine.routing import route
from ..errors import ContextStateError, WorkflowRuntimeError
from ..events import Event
from ..retries import RetryInfo

if TYPE_CHECKING:
    from ..engine.beginning import Beginning


class Alone:
    """The effects of a Context that belongs to no run. Nothing is journaled, nothing is repeated.

    `sent` and `published` are what was sent and published, in order.
    """

    def __init__(self, beginning: Beginning):
        self.sent: list[Event] = []
        self.published: list[Event] = []
        self._beginning = beginning
        self._buffers: dict[str, list[Event]] = {}
        self._calls: set[str] = set()

    def send(self, event: Event, step: str | None) -> None:
        """Keep an event, if it is one that could be sent."""
        program = self._beginning.program
        route(program, self._beginning.run_id, event, step)
        program.codec.encode_event(event)
        self.sent.append(event)

    def publish(self, event: Event) -> None:
        """Keep a stream item."""
        if not isinstance(event, Event):
            raise WorkflowRuntimeError(
                f"a {type(event).__name__} was published; write_event_to_stream takes Event instances"
            )
        self._beginning.program.codec.encode_event(event)
        self.published.append(event)

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Event] | None:
        """Buffer an event; return the expected ones once all are there."""
        if not expected:
            return []
        if type(event) not in expected:
            return None
        buffer = self._buffers.setdefault(buffer_id or "", [])
        buffer.append(event)
        if Counter(expected) - Counter(map(type, buffer)):
            return None
        return [buffer.pop(next(i for i, e in enumerate(buffer) if type(e) is cls)) for cls in expected]

    async def call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run `fn`."""
        if name in self._calls:
            raise WorkflowRuntimeError(
                f"two calls named {name!r} are under way at once; their results could not be told apart after a crash: "
                "give concurrent calls distinct names"
            )
        self._calls.add(name)
        try:
            result = await invoke(fn, args, kwargs)
            self._beginning.program.codec.encode_value(result, f"result of call {name!r}")
            return result
        finally:
            self._calls.discard(name)

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        self._refuse_lock("sleeps")
        await asyncio.sleep(max(0.0, seconds))

    async def wait_for(
        self, cls: type[Event], *, prompt: Event | None, waiter_id: str | None,
        requirements: Mapping[str, Any] | None, timeout: float | None,
    ) -> Event:  # fmt: skip
        """Return the oldest event of exactly this class that was put in with `ctx.send_event`."""
        self._refuse_lock("waits for an event")
        if prompt is not None:
            self.publish(prompt)
        for at, event in enumerate(self.sent):
            if type(event) is cls and meets(event, requirements or {}):
                return self.sent.pop(at)
        raise ContextStateError(
            f"a step that is called by itself waits for a {cls.__name__}, and nobody can send one. Put it in before: "
            f"ctx.send_event({cls.__name__}(...)), then await the step"
        )

    async def checkpoint(self, name: str) -> None:
        """Do nothing: there is no journal whose position could be named."""

    def idempotency_key(self, name: str | None) -> str:
        """Return a key that is the same for every call with this name."""
        text = f"{self._beginning.program.name}:{name or ''}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def retry_info(self) -> RetryInfo:
        """Return what a first attempt is told."""
        return RetryInfo(0, 0.0, None, None)

    def _refuse_lock(self, what: str) -> None:
        where = held_by_caller(self._beginning)
        if where is not None:
            raise ContextStateError(
                f"a step {what} inside {where}; nobody else could get the lock. Leave {where} first"
            )
