"""Effects from a sync step's thread: each call is carried out in the loop's thread, in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from .current import current_execution
from .execution import Execution

T = TypeVar("T")


class FromThread:
    """An Execution as a thread sees it. Methods wait until the loop has carried them out."""

    def __init__(self, execution: Execution):
        self._execution = execution

    def in_step(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do work in the loop's thread as a part of the step, and return its result. For the step's own thread only."""

        async def in_loop() -> T:
            current_execution.set(self._execution)
            return await work()

        return asyncio.run_coroutine_threadsafe(in_loop(), self._execution.run.loop).result()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._execution, name)
        if not callable(attribute):
            return attribute
        run = self._execution.run

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
