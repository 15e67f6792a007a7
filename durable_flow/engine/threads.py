"""Effects from a sync step's thread: each call is carried out in the loop's thread, in order."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from .execution import Execution


class FromThread:
    """An Execution as a thread sees it. Methods wait until the loop has carried them out."""

    def __init__(self, execution: Execution):
        self._execution = execution

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
