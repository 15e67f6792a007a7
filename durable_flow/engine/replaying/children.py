"""Runs that a replayed step starts: recorded ones answer from their own journals, and nothing reaches them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING, Any

from ...errors import ContextStateError, DurableFlowError
from ...events import Event, InternalDispatchEvent, StartEvent
from ...journal.protocol import JournalStore, StreamRow
from ...journal.shared import StoreSettings, acquire, give_back, settings_for
from ...records import EncodedValue
from ...serializers.base import MAX_PAYLOAD_BYTES
from ...state import Child
from ..attachment import Attachment
from ..children import as_first_told
from ..engine import Engine, EngineSettings, engine_for
from ..internal import Listener
from ..known import recorded_outcome
from ..outcome import Outcome

if TYPE_CHECKING:
    from ..beginning import Beginning
    from ..program import Program
    from .execution import ReplayedExecution

_PAGE = 1000


class RecordedRuns:
    """Finds the journals of children. It stands where the steps of a live run have their engine.

    `settings` are those of the run's own database, whose store is open; None: the run is that of an archive, and
    children that have no journal of their own are nowhere.
    """

    def __init__(self, settings: StoreSettings | None):
        self.settings = settings
        # None of them is live.
        self.runs: dict[str, Any] = {}
        self._opened: dict[StoreSettings, JournalStore] = {}
        self._others: dict[StoreSettings, RecordedRuns] = {}

    def recorded_child(
        self, execution: ReplayedExecution, child: Child, engine: Engine, program: Program, event: StartEvent,
        arguments: EncodedValue | None, beginning: Beginning | None,
    ) -> Attachment:  # fmt: skip
        """Return what a step holds of a recorded child."""
        return RecordedChild(self, engine, program, execution, child)

    def live_child(
        self, engine: Engine, program: Program, event: StartEvent, arguments: EncodedValue | None,
        beginning: Beginning | None,
    ) -> Attachment:  # fmt: skip
        """Start a child of a live step, in a journal in memory of this process."""
        return engine_for(_memory(), EngineSettings()).starting.start(program, None, event, arguments, beginning)

    def beside(self, settings: StoreSettings, options: EngineSettings) -> RecordedRuns:
        """Return the same for a workflow that has a journal of its own."""
        if settings not in self._others:
            other = self._others[settings] = RecordedRuns(settings)
            other._opened, other._others = self._opened, self._others
        return self._others[settings]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ContextStateError(
            "in a replay a step gets the recorded runs that it has started with flow.run(), and nothing else of an "
            "engine: no run is resumed, retried, forked or edited. Leave this step out: skip=(...)"
        )

    async def store(self, settings: StoreSettings | None) -> JournalStore | None:
        """Return the store with these settings, for reading; None if the run is that of an archive."""
        if settings is None:
            return None
        if settings not in self._opened:
            self._opened[settings] = (await acquire(settings)).store
        return self._opened[settings]

    async def close(self) -> None:
        """Give the stores back."""
        while self._opened:
            settings, _ = self._opened.popitem()
            await give_back(settings)


class RecordedChild(Attachment):
    """A recorded child, as the step that started it sees it again."""

    def __init__(
        self, runs: RecordedRuns, engine: Engine, program: Program, execution: ReplayedExecution, child: Child
    ):
        super().__init__(engine, program, child.run_id)
        self._runs = runs
        self._execution = execution
        self._child = child
        self._begun = True

    async def result(self) -> Outcome:
        """Return how the child had ended, in its turn."""
        await self._execution.child_ended(self._child.seq)
        if self.outcome is None:
            self.outcome = as_first_told(await self._recorded(await self._store()))
        return self.outcome

    async def ended(self) -> None:
        """Wait for the turn of the child's recorded end."""
        await self._execution.child_ended(self._child.seq)

    async def rows(
        self, after: int, listener: Listener | None = None
    ) -> AsyncIterator[StreamRow | InternalDispatchEvent]:
        """Yield what the child has published."""
        store = await self._store()
        assert self.key is not None
        while rows := await store.stream(self.key, after, _PAGE):
            for row in rows:
                after = row.position
                yield row

    async def was_answered(self, row: StreamRow) -> bool:
        """Show the step every question, as it saw them."""
        return False

    async def send(self, event: Event, step: str | None = None, wait_id: str | None = None) -> None:
        """Send nothing: it was sent."""

    def send_soon(self, event: Event, step: str | None = None) -> None:
        """Send nothing: it was sent."""

    async def cancel(self, reason: str) -> None:
        """Cancel nothing: it was cancelled, if it had not ended."""

    def give_up(self) -> None:
        """Give up nothing."""

    async def _store(self) -> JournalStore:
        """Return the store that has the child. Ends the step if there is none."""
        child = self._child
        why = "the run is read from an archive, which does not hold the runs that it started"
        store = None
        try:
            store = await self._runs.store(self.engine.settings)
            if store is not None:
                why = f"{store.url} has no such run"
                row = await store.find(child.run_id)
                if row is not None:
                    self.key = row.run
                    return store
        except DurableFlowError as error:
            why = str(error)
        return self._execution.unanswerable(child.run_id, f"the result of this run is not to be had: {why}")

    async def _recorded(self, store: JournalStore) -> Outcome:
        child, row = self._child, await store.find(self._child.run_id)
        assert row is not None
        outcome = await recorded_outcome(store, self, row)
        if outcome is None or outcome.status != child.status:
            now = "is under way again" if outcome is None else f"is {outcome.status} by now"
            self._execution.unanswerable(child.run_id, f"the run had ended as {child.status}, and {now}")
        return outcome


@cache
def _memory() -> StoreSettings:
    return settings_for("memory://", durability="normal", max_payload_bytes=MAX_PAYLOAD_BYTES)
