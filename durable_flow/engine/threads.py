"""Sync steps: the threads that they run in, and their effects, each of which is carried out in the loop's thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from .current import current_execution
from .execution import Execution, is_async

T = TypeVar("T")

# In how many threads of steps somebody waits for what takes long, a child's run for example.
_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


async def in_a_thread(thread: FromThread, call: Callable[..., T], *args: Any) -> T:
    """Call the function of a sync step in a thread, and return its result.

    The loop has few threads. A step of a child gets another one while threads wait for children: they could all be
    waiting for this very step. If this is cancelled, so is what the thread waits for.
    """
    run = thread.execution.run
    try:
        if run.state.parent is None or not _waiting.get(run.loop):
            return await asyncio.to_thread(call, *args)
        return await _in_another_thread(f"step {thread.execution.step}", call, *args)
    except asyncio.CancelledError:
        thread.cancel()
        raise


async def _in_another_thread(name: str, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function in a thread that is begun for it."""
    context, done = copy_context(), Future[T]()

    def work() -> None:
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(context.run(call, *args, **kwargs))
            except BaseException as error:
                done.set_exception(error)

    # When the process ends it is left behind, as by a crash: the loop that it would need has ended before.
    threading.Thread(target=work, name=f"durable_flow {name}", daemon=True).start()
    return await asyncio.wrap_future(done)


class FromThread:
    """An Execution as a thread sees it. Methods wait until the loop has carried them out.

    Those that are awaited may be awaited in a loop of the thread's own, in `asyncio.run(...)`.
    """

    def __init__(self, execution: Execution):
        self.execution = execution
        self._under_way: set[asyncio.Task[Any]] = set()

    def cancel(self) -> None:
        """Cancel what the thread waits for. Called in the loop's thread."""
        for task in self._under_way:
            task.cancel()

    def in_step(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do work in the loop's thread as a part of the step, and return its result. For the step's own thread only."""
        try:
            return self._begin(work).result()
        except CancelledError:
            # That of futures is an Exception, which steps catch.
            raise asyncio.CancelledError from None

    async def call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """As `Execution.call`. While it lasts this thread waits, so a plain function gets one of its own."""
        if not is_async(fn):
            fn = partial(_in_another_thread, f"call {name}", fn)
        return await self._awaited(self.execution.call, name, fn, args, kwargs)

    async def _awaited(self, method: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> T:
        if threading.get_ident() == self.execution.run.thread:
            return await method(*args, **kwargs)
        return await asyncio.wrap_future(self._begin(lambda: method(*args, **kwargs)))

    def _begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        loop = self.execution.run.loop

        async def in_loop() -> T:
            current_execution.set(self.execution)
            task = asyncio.current_task()
            assert task is not None
            self._under_way.add(task)
            _waiting[loop] = _waiting.get(loop, 0) + 1
            try:
                return await work()
            finally:
                _waiting[loop] -= 1
                self._under_way.discard(task)

        return asyncio.run_coroutine_threadsafe(in_loop(), loop)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.execution, name)
        if not callable(attribute):
            return attribute
        if inspect.iscoroutinefunction(attribute):
            return partial(self._awaited, attribute)
        run = self.execution.run

        def in_loop(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == run.thread:
                return attribute(*args, **kwargs)
            done: Future[Any] = Future()

            def carry_out() -> None:
                try:
                    done.set_result(attribute(*args, **kwargs))
                except BaseException as error:
                    done.set_exception(error)

            run.loop.call_soon_threadsafe(carry_out)
            return done.result()

        return in_loop
