"""What a run had asked before this engine took it up: questions that had their answers are not shown again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..journal.protocol import MessageRow
from ..state import RunState


class AskedBefore(NamedTuple):
    """How the questions stood that had been published up to a stream position.

    `open` are the ids of the waits that nothing had come for; for those in `answered` an answer lay in the database.
    What is in neither had been settled: the database tells how.
    """

    position: int
    open: frozenset[str]
    answered: frozenset[str]

    @classmethod
    def of(cls, state: RunState, messages: Iterable[MessageRow]) -> AskedBefore:
        """Return how they stand in this state, with these unconsumed messages."""
        return cls(
            state.position,
            frozenset(wait.wait_id for wait in state.waits.values() if wait.is_open),
            frozenset(message.wait_id for message in messages if message.wait_id is not None),
        )
