"""What a step's context has handed out to be awaited, and what of it the step has forgotten to await."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .live import MISSING

P = ParamSpec("P")
R = TypeVar("R")
_Made = Any  # a coroutine of an `async def`, whose frame and state can be looked at

# Above so many that nobody had begun when the next one was made, those begun meanwhile are let go.
_MANY = 64
_WRITTEN_AS = {"Context": "ctx", "ContextStore": "ctx.store", "ContextLock": "ctx.lock"}


class Handed:
    """The coroutines that the methods of a step's Context have returned, as far as nobody may have begun them.

    Mostly a step awaits one after another, and `last` is all there is to look at.
    """

    __slots__ = ("_limit", "_more", "last")

    def __init__(self) -> None:
        self.last: _Made = None
        self._more: list[_Made] = []
        self._limit = _MANY

    def hand(self, made: _Made) -> None:
        """Remember a coroutine until it was begun."""
        last = self.last
        if last is not None and last.cr_frame is not None:
            self.keep(last)
        self.last = made

    def keep(self, made: _Made) -> None:
        """Remember one that is not finished and no longer the last."""
        if _is_new(made):
            self._more.append(made)
            if len(self._more) > self._limit:
                self._more = [one for one in self._more if _is_new(one)]
                self._limit = _MANY + 2 * len(self._more)

    def forgotten(self) -> Sequence[str]:
        """Return the calls that were never awaited and cannot be any more, and forget everything.

        One that a task, a list or anything else still holds is not forgotten: it may be awaited yet.
        """
        last, self.last = self.last, None
        if not self._more and (last is None or last.cr_frame is None):
            return ()
        left, self._more = self._more, []
        if last is not None:
            left.append(last)
            last = None  # else it would be held here
        left.reverse()
        found = []
        while left:
            made, holders = _taken(left)
            if holders == _NOBODY_ELSE and _is_new(made):
                found.append(_written(made))
                made.close()  # else Python warns, too, without saying which step it was
        return found


class Handing(Protocol):
    """Whose methods hand out coroutines; `_handed` is None outside of a run's steps."""

    _handed: Handed | None


H = TypeVar("H", bound=Handing)


def awaited(
    method: Callable[Concatenate[H, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[H, P], Coroutine[Any, Any, R]]:
    """Let an async method of a Context remember its coroutine, so that a forgotten `await` is found."""

    @wraps(method)
    def handing(self: H, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        made = method(self, *args, **kwargs)
        if self._handed is not None:
            self._handed.hand(made)
        return made

    return known_as_async(handing)


def known_as_async(function: Callable[P, R]) -> Callable[P, R]:
    """Let `inspect.iscoroutinefunction` tell what it would tell of an `async def`, where Python has a way to say so."""
    mark: Callable[[Callable[P, R]], Callable[P, R]] | None = getattr(inspect, "markcoroutinefunction", None)
    return function if mark is None else mark(function)


def sentence(forgotten: Sequence[str], *, is_async: bool) -> str:
    """Say what a step has not awaited, and what to write."""
    calls = list(dict.fromkeys(forgotten))
    said = f"{' and '.join(calls)} {'was' if len(calls) == 1 else 'were'} not awaited, so nothing of it was done. "
    if is_async:
        return said + f"Write `await {calls[0]}`."
    return said + "A plain `def` step cannot await: make it `async def`. For values there is ctx.data['key'], too."


def _is_new(made: _Made) -> bool:
    return inspect.getcoroutinestate(made) == inspect.CORO_CREATED


def _taken(items: list[Any]) -> tuple[Any, int]:
    """Take the last item; return it and how many hold it now."""
    item = items.pop()
    return item, sys.getrefcount(item)


_NOBODY_ELSE = _taken([object()])[1]


def _written(made: _Made) -> str:
    """Return a call as it stands in the program: the key or name that it begins with, no values."""
    owner, _, method = made.__qualname__.rpartition(".")
    arguments = list(inspect.getcoroutinelocals(made).values())[1:]
    first = arguments[:1]
    shown = [repr(a) if isinstance(a, str) else a.__name__ if isinstance(a, type) else "..." for a in first]
    if any(argument is not MISSING for argument in arguments[1:]):
        shown.append("...")
    return f"{_WRITTEN_AS.get(owner, owner)}.{method.removeprefix('_')}({', '.join(shown)})"
