"""`RunObserver`: who is told of a workflow's records as they become durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from .records import Record


@runtime_checkable
class RunObserver(Protocol):
    """Metrics, tracing, mirrors: given to `Workflow(observers=[...])`.

    It is told by the process that wrote the records, in order, once for each append that has become durable, also of
    the start of a run and of its being taken up. Records that were written while nobody observed are not told again:
    `Journal.follow` and `Journal.history` have all of them.
    """

    def appended(self, run_id: str, workflow: str, records: Sequence[Record]) -> None:
        """Take note of records that are durable; they are immutable, and their payloads encoded.

        Called in the event loop, before the run goes on: it must not block. What it raises is logged, once for each
        class of error, and does the run no harm.
        """
