"""The engine of one event loop on one database: starts runs, owns them, watches those of others."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from ..errors import (
    DurableFlowError,
    JournalUnavailableError,
    RunFenced,
)
from ..journal.protocol import Claim, JournalStore, RunRow
from ..journal.runid import new_uid
from ..journal.shared import SharedStore, StoreSettings, acquire, give_back
from ..logs import fields, said
from ..records import TaskId
from ..state import WAITING, RunState
from .attachment import Attachment
from .children import cancel_unused, leave_children
from .claims import Owners, register_local
from .continuing import Continuing
from .current import outside_of_steps
from .heart import Heart, Moment
from .identity import is_gone, new_worker
from .known import recorded_outcome
from .placing import Placing
from .program import Program
from .run import Run
from .sending import Sending
from .snapshots import Snapshots
from .starting import Starting
from .taking import Taking
from .watcher import Watcher

logger = logging.getLogger("durable_flow")


# How long an engine that ends waits for the database to take note. Without that others see its heartbeat stand still.
RETIRE_SECONDS = 5.0
# Killed processes leave a row each; so many may lie about before a start sweeps them up in one commit.
MAX_GONE_WORKERS = 16


class EngineSettings(NamedTuple):
    """How an engine keeps its runs; all times in seconds."""

    idle_release_seconds: float | None = 60.0
    max_suspended_steps: int = 1000
    heartbeat_seconds: float = 5.0
    expiry_seconds: float = 30.0
    poll_seconds: float = 0.1


_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[StoreSettings, EngineSettings], Engine]]
_engines = WeakKeyDictionary()
_inherited: list[object] = []


def _forget_after_fork() -> None:
    """A child has engines of its own. Its parent's are kept: destroying them would use the parent's connections."""
    _inherited.extend(_engines.values())
    _engines.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def engine_for(settings: StoreSettings, options: EngineSettings) -> Engine:
    """Return the running loop's engine for this database. Needs a running loop."""
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    engine = engines.get((settings, options))
    if engine is None:
        engine = engines[settings, options] = Engine(settings, options)
    return engine


class Engine:
    """Owns the runs that were started or taken up in its loop.

    It lives as long as the loop: when the loop shuts down, its runs are given up unfinished.
    """

    def __init__(self, settings: StoreSettings, options: EngineSettings):
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.options = options
        self.worker = new_worker(new_uid())
        self.runs: dict[str, Run] = {}
        self._local = register_local(self.worker, self._has_ended)
        self._shared: SharedStore | None = None
        self._opening: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._owners: Owners | None = None
        self._lifeline: AsyncGenerator[None] | None = None
        self._heart: Heart | None = None
        self._attachments: dict[str, set[ref[Attachment]]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self.starting = Starting(self)
        self.continuing = Continuing(self)
        self.taking = Taking(self)
        self.sending = Sending(self)
        self.snapshots = Snapshots(self)
        self.placing = Placing(self)
        self._suspended: OrderedDict[Run, int] = OrderedDict()
        self._suspended_steps = 0
        self._watcher = Watcher(self, options.poll_seconds)
        self.closed = False

    @property
    def shared(self) -> SharedStore:
        """The open store and who wants to know what happens in it."""
        assert self._shared is not None
        return self._shared

    @property
    def store(self) -> JournalStore:
        """The open store."""
        return self.shared.store

    @property
    def owners(self) -> Owners:
        """Who else owns runs of this database."""
        assert self._owners is not None
        return self._owners

    def now(self) -> int:
        """Return the database's time in microseconds."""
        return self.store.now()

    def new_run(self, program: Program, claim: Claim, state: RunState) -> Run:
        """Return a run that this engine owns from now on; `begin_run` lets it act."""
        run = Run(
            self, self.store, self.store, program, claim, state,
            idle_release_seconds=self.options.idle_release_seconds,
        )  # fmt: skip
        run.tail.listeners.add(partial(self.shared.published, claim.run))
        run.followers = self.shared.followers
        self.runs[claim.run_id] = run
        self._watcher.start()
        return run

    def begin_run(self, run: Run) -> None:
        """Let a run act, unless it was lost since it was claimed."""
        # The process may have stood still since the claim was made.
        self.fence_if_lapsed()
        if not run.closed:
            run.begin()

    def adopt(self, attachment: Attachment, run: Run) -> None:
        """Let the attachment hold a run that is live here."""
        if run.place is None and attachment.place is not None:
            run.place, attachment.place = attachment.place, None
            run.places = attachment.above | {run.place}
        elif attachment.above and not run.places:
            run.places = attachment.above
        attachment.attach(run)
        self.hold(attachment)
        self._watcher.forget(attachment)
        attachment.begun()

    def hold(self, attachment: Attachment) -> None:
        """Tell the attachment what becomes of its run, as long as somebody keeps it."""
        # Weakly, as those who hold them may go; lighter than a WeakSet, of which every run would have one.
        others = self._attachments.get(attachment.run_id, ())
        self._attachments[attachment.run_id] = {*(other for other in others if other() is not None), ref(attachment)}

    def _held(self, run_id: str) -> list[Attachment]:
        return [a for held in self._attachments.get(run_id, ()) if (a := held()) is not None]

    async def tell_end(self, attachment: Attachment, row: RunRow) -> bool:
        """End an attachment by the recorded outcome of its run; tell whether there is one."""
        outcome = await recorded_outcome(self.store, attachment, row)
        if outcome is None:
            return False
        self._attachments.pop(row.run_id, None)
        attachment.end(outcome)
        return True

    # -- What runs tell ------------------------------------------------------------------------------------------------

    def run_ended(self, run: Run) -> None:
        """The run has an outcome and holds nothing any more."""
        self._forget(run)
        if run.state.children:
            leave_children(self, run)
        assert run.outcome is not None
        attachments = self._held(run.run_id)
        self._attachments.pop(run.run_id, None)
        for attachment in attachments:
            attachment.end(run.outcome)
        self.shared.published(run.claim.run)

    def run_dropped(self, run: Run, error: BaseException | None) -> None:
        """The run stopped in this process; its claim, if it still has it, is given back."""
        self._forget(run)
        if run.state.children:
            leave_children(self, run)
        for attachment in self._held(run.run_id):
            if error is not None and not isinstance(error, RunFenced):
                attachment.fail(error)
            else:
                attachment.detach()
        if not self._held(run.run_id):
            self._attachments.pop(run.run_id, None)
        if not self.closed:
            # Also one that was fenced: a server that lost its last commits has an older journal of the same epoch.
            self.taking.give_up(run)

    def is_awaited(self, run: Run, *, beside: Attachment) -> bool:
        """Tell whether anybody waits for the run by another attachment."""
        return any(a.interested for a in self._held(run.run_id) if a is not beside)

    def snapshot_is_due(self, run: Run) -> None:
        """Enough has happened since the run's last snapshot; all of it is durable."""
        self.snapshots.take(run)

    def step_left(self, run: Run, task: TaskId, attempt: int) -> None:
        """A step has completed; what its failed attempts had started and nobody took over is no longer of interest."""
        cancel_unused(self, run, task, attempt)

    def step_suspended(self, run: Run) -> None:
        """One more step of the run waits in memory; above the limit the run that began to wait first is released."""
        self._suspended[run] = self._suspended.get(run, 0) + 1
        self._suspended_steps += 1
        if self._suspended_steps > self.options.max_suspended_steps:
            self.loop.call_soon(self._release_oldest)

    def step_resumed(self, run: Run) -> None:
        """One less."""
        if run in self._suspended:
            self._suspended[run] -= 1
            self._suspended_steps -= 1
            if not self._suspended[run]:
                del self._suspended[run]

    def _release_oldest(self) -> None:
        for run in list(self._suspended):
            if self._suspended_steps <= self.options.max_suspended_steps:
                return
            # One that waits for a child, or for nothing that is journaled, would be taken up again at once.
            if run.only_waits() and run.state.status == WAITING:
                run.release()

    def _forget(self, run: Run) -> None:
        self.runs.pop(run.run_id, None)
        if run.place is not None:
            run.place.give_back()
            run.place = None
        self._suspended_steps -= self._suspended.pop(run, 0)

    # -- Watching ------------------------------------------------------------------------------------------------------

    def watch(self, attachment: Attachment) -> None:
        """Follow a run that is not live here: its end, its stream, and whether it may be taken up."""
        self._watcher.watch(attachment)

    def look_soon(self) -> None:
        """Look at the database now, not only when it is time for it."""
        self._watcher.look_soon()

    def fence_if_lapsed(self) -> None:
        """Drop the runs if no heartbeat got through for a whole expiry: others may own them by now.

        If the database was asked all the time and did not answer, whoever waits for them is told. Else this process
        stood still, or its machine slept: then the runs are given back, and those who wait follow them.
        """
        if self._heart is None:
            return
        self._heart.turned()
        if not self._heart.lapsed() or not self.runs:
            return
        runs = list(self.runs.values())
        if self._heart.unanswered():
            error = JournalUnavailableError(
                f"no heartbeat reached {self.store.url} for {self.options.expiry_seconds} s; this process has dropped "
                "its runs, because others may have taken them up. They stay recoverable"
            )
            for run in runs:
                run.drop(error)
            return
        logger.warning(
            "this process stood still for over %g s, or its machine slept; others may have taken up its %d runs. What "
            "its steps were doing is dropped, and it goes on with those runs that are free",
            self.options.expiry_seconds, len(runs), extra=fields("lapsed"),
        )  # fmt: skip
        for run in runs:
            attachments = self._held(run.run_id)
            run.release()
            self.in_background(self.continuing.after_lapse(run, attachments))

    # -- Life ----------------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Open the store and make this worker known, once; after a lapse, drop the runs and make it known again.

        Raises JournalUnavailableError.
        """
        if self._heart is None:
            if self._opening is None or self._opening.done():
                self._opening = self.loop.create_task(self._open(), context=outside_of_steps())
            await asyncio.shield(self._opening)
        assert self._heart is not None
        while self._heart.lapsed():
            self.fence_if_lapsed()
            if self._renewing is None or self._renewing.done():
                self._renewing = self.loop.create_task(self._renew(self._heart))
            await asyncio.shield(self._renewing)

    async def _renew(self, heart: Heart) -> None:
        began = Moment.now()
        await self.store.heartbeat(self.worker)
        heart.renew(began)

    async def _open(self) -> None:
        if self._shared is None:
            self._shared = await acquire(self.settings)
            # From here on the loop's end gives it back, also if what follows is interrupted.
            self._lifeline = self._until_the_loop_ends()
            await anext(self._lifeline)
        shared = self._shared
        await shared.store.heartbeat(self.worker)
        gone = [w for w, _ in await shared.store.workers() if w.id != self.worker.id and is_gone(w)]
        if len(gone) > MAX_GONE_WORKERS:
            await asyncio.gather(*(shared.store.forget(worker) for worker in gone))
        self._owners = Owners(
            shared.store, self.worker,
            heartbeat_seconds=self.options.heartbeat_seconds, expiry_seconds=self.options.expiry_seconds,
        )  # fmt: skip
        self._heart = Heart(
            self.loop, shared.store, self.worker, self._steps_in_flight, lapsed=self.fence_if_lapsed,
            heartbeat_seconds=self.options.heartbeat_seconds, expiry_seconds=self.options.expiry_seconds,
        )  # fmt: skip
        self._heart.start()

    def _steps_in_flight(self) -> set[str]:
        # Asked by the heart's thread, hence the copies.
        return {f"{run.program.name}.{step}" for run in list(self.runs.values()) for step in run.running_steps()}

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Give everything back when the loop shuts down its asynchronous generators, as `asyncio.run` does."""
        try:
            yield
        finally:
            await self._close()

    async def _close(self) -> None:
        self.closed = True
        _engines.get(self.loop, {}).pop((self.settings, self.options), None)
        if self._heart is not None:
            self._heart.stop()
        for run in list(self.runs.values()):
            run.release()
        self.runs.clear()
        if self._shared is not None:
            if self._heart is not None:
                # A heartbeat that is under way would bring the worker back.
                await asyncio.to_thread(self._heart.join, RETIRE_SECONDS)
            try:
                async with asyncio.timeout(RETIRE_SECONDS):
                    await self.store.retire(self.worker)
            except (DurableFlowError, TimeoutError) as error:
                extra = fields("worker_not_retired")
                logger.warning("worker %s could not be retired: %s", self.worker.id, said(error), extra=extra)
            await asyncio.gather(*self._background, return_exceptions=True)
            await give_back(self.settings)

    def _has_ended(self) -> bool:
        return self.closed or self.loop.is_closed()

    def beside(self, settings: StoreSettings, options: EngineSettings) -> Engine:
        """Return the engine of the running loop for another database, which a step here uses."""
        return engine_for(settings, options)

    def in_background(self, work: Any) -> asyncio.Task[Any]:
        """Do something that the engine waits for when it closes."""
        task = self.loop.create_task(work, context=outside_of_steps())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
