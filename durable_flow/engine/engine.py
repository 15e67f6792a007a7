"""The engine of one event loop on one database: starts runs, owns them, watches those of others."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from ..decide import decide
from ..errors import (
    DurableFlowError,
    JournalUnavailableError,
    NeedsAttentionError,
    RunConflictError,
    RunFenced,
    RunNotFoundError,
    WorkflowRuntimeError,
    WriteOutcomeUnknown,
)
from ..events import StartEvent
from ..fold import evolve, fold
from ..incoming import ImportRequested, StartRequested
from ..journal.protocol import FINAL_STATUSES, Claim, JournalStore, NewRun, RunRow, RunUpdate
from ..journal.shared import SharedStore, StoreSettings, acquire, give_back
from ..logs import fields, said
from ..records import ContextDeleted, ContextSet, EncodedValue, Record, RunCompleted, TaskId
from ..state import COMPLETED, FAILED, NEEDS_ATTENTION, RUNNING, TIMED_OUT, RunState
from .attachment import Attachment
from .beginning import Beginning, first_facts, same_facts
from .children import cancel_unused, leave_children
from .claims import Owners, growing_pauses, is_claimable, register_local
from .clock import new_run_id, new_uid
from .collecting import joins_of_sent
from .current import outside_of_steps
from .heart import Heart, Moment
from .identity import is_gone, new_worker
from .outcome import Outcome
from .placing import Placing, give_place_back
from .program import Program
from .run import Run
from .sending import Sending
from .stepwise import Gate
from .taking import Taking
from .watcher import Watcher

logger = logging.getLogger("durable_flow")


# How long an engine that ends waits for the database to take note. Without that others see its heartbeat stand still.
RETIRE_SECONDS = 5.0
# Killed processes leave a row each; so many may lie about before a start sweeps them up in one commit.
MAX_GONE_WORKERS = 16


@dataclass(frozen=True, slots=True)
class EngineSettings:
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
        # A lock lives as long as somebody holds it or waits for it.
        self._starting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background: set[asyncio.Task[Any]] = set()
        self.taking = Taking(self)
        self.sending = Sending(self)
        self.placing = Placing(self)
        self._suspended: OrderedDict[Run, int] = OrderedDict()
        self._suspended_steps = 0
        self._told: set[str] = set()
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

    # -- Starting ------------------------------------------------------------------------------------------------------

    def start(
        self,
        program: Program,
        run_id: str | None,
        event: StartEvent | None,
        arguments: EncodedValue | None,
        beginning: Beginning | None = None,
        *,
        stepwise: bool = False,
    ) -> Attachment:
        """Begin a run, or attach to the one that has this id; returns at once.

        `event` is None if the run goes on from what it begins with. Raises SerializationError for a start event or a
        context value that cannot be encoded.
        """
        attachment = Attachment(self, program, run_id or new_run_id())
        attachment.beginning, attachment.is_new, attachment.stepwise = beginning, run_id is None, stepwise
        start = self.start_request(program, event, arguments, None, beginning)
        self.in_background(self.begin(attachment, event, start, known=run_id is not None))
        return attachment

    def start_request(
        self,
        program: Program,
        event: StartEvent | None,
        arguments: EncodedValue | None,
        parent: str | None = None,
        beginning: Beginning | None = None,
    ) -> StartRequested | ImportRequested:
        """Return what begins a run. Raises SerializationError for a start event or a value that cannot be encoded."""
        if event is None:
            assert beginning is not None
            return beginning.import_request(program, arguments)
        return StartRequested(
            program.name, new_uid(), program.shape, arguments, program.codec.encode_event(event),
            program.targets(event), parent, joins_of_sent(program, event, None) if program.has_joins else (),
            () if beginning is None else beginning.values(program),
        )  # fmt: skip

    async def resume(self, program: Program, run_id: str) -> Attachment:
        """Take up an unfinished run, clearing its need for attention; a finished one only shows its outcome."""
        await self.ready()
        row = await self._require_row(run_id)
        attachment = Attachment(self, program, run_id)
        if program.limit is None:
            await self._continue(attachment, row, None, resume=True)
            return attachment
        try:
            if row.status == NEEDS_ATTENTION or await self.placing.is_needed(attachment):
                await self.placing.wait(attachment)
                row = await self._require_row(run_id)
            await self._continue(attachment, row, None, resume=True)
        finally:
            give_place_back(attachment)
        return attachment

    async def retry(self, program: Program, run_id: str) -> Attachment:
        """Take up a failed or timed-out run: its pending work runs again."""
        await self.ready()
        attachment = Attachment(self, program, run_id)
        for look, pause in enumerate(growing_pauses()):
            row = await self._require_row(run_id)
            self._require_workflow(attachment, row)
            retried = row.owner is not None and not (await self.owners.gone())(row.owner)
            if row.status not in (FAILED, TIMED_OUT) and not look:
                raise WorkflowRuntimeError(
                    f"run {run_id} is {row.status}; flow.retry takes up failed and timed-out runs only"
                    + ("" if row.status in FINAL_STATUSES else f", flow.resume({run_id!r}) unfinished ones")
                )
            if row.status not in (FAILED, TIMED_OUT) or retried:
                raise RunConflictError(
                    f"run {run_id} was taken up by another worker at the same moment; "
                    f"flow.resume({run_id!r}) follows it"
                )
            try:
                await self.placing.wait(attachment)
                taken = await self.taking.take_up(attachment, row, resume=True)
            finally:
                give_place_back(attachment)
            if taken:
                break
            # Its row was locked for a moment, or somebody was faster.
            await asyncio.sleep(pause)
        return attachment

    async def recover(self, program: Program) -> list[Attachment]:
        """Take up every claimable unfinished run of the workflow.

        Returns as soon as it is known of every owner whether it lives. That takes one look, unless the heartbeats of an
        owner whose process cannot be looked at (another machine, a container, before a reboot) are missing, or a
        process of this machine is stopped: such an owner is watched until it beats again or its expiry is over.
        """
        await self.ready()
        taken: dict[str, Attachment] = {}
        while True:
            # The runs first: the owner of one that came up in between is not known, and must not pass for a gone one.
            rows = await self.store.list_runs(workflow=program.name, unfinished=True)
            gone = await self.owners.gone()
            undecided = False
            for row in rows:
                if row.run_id in taken or row.run_id in self.runs:
                    continue
                if is_claimable(row, self.now(), gone):
                    attachment = Attachment(self, program, row.run_id)
                    if program.limit is not None:
                        taken[row.run_id] = attachment
                        self.placing.take_up_soon(attachment, row)
                    elif await self.taking.take_up(attachment, row):
                        taken[row.run_id] = attachment
                    else:
                        undecided = undecided or await self._is_unclaimed(row)
                elif row.status != NEEDS_ATTENTION:
                    giving_up = self.taking.giving_up(row.run_id) is not None
                    undecided = undecided or giving_up or self.owners.in_doubt(row.owner)
                    if row.owner == self.worker.id and not giving_up:
                        # It was live here, and may have been given back since its row was read.
                        undecided = undecided or (await self._require_row(row.run_id)).owner is None
            if not undecided:
                return list(taken.values())
            await asyncio.sleep(self.options.poll_seconds)

    async def _is_unclaimed(self, row: RunRow) -> bool:
        """Tell whether nobody has claimed the run since the row was read: its row was only locked for a moment."""
        rows = await self.store.find_many([row.run])
        return bool(rows) and rows[0].epoch == row.epoch

    async def begin(
        self, attachment: Attachment, event: StartEvent | None, start: StartRequested | ImportRequested, *, known: bool
    ) -> None:
        """Create the run, or find it if its id may be `known`; what goes wrong is told to the attachment."""
        if attachment.program.limit is not None:
            self.placing.ask(attachment)  # before anything is awaited: in the order of the starts
        try:
            await self.ready()
            if attachment.asked is not None:
                await self.placing.asked(attachment, known=known)
                if attachment.outcome is not None or attachment.failure is not None:
                    return  # cancelled or given up meanwhile
            if not known:
                await self._create(attachment, event, start)
            else:
                async with self._starting.setdefault(attachment.run_id, asyncio.Lock()):
                    await self._create_or_continue(attachment, event, start)
            self._tell_of_unfinished(attachment.program)
        except asyncio.CancelledError:
            attachment.fail(DurableFlowError(f"run {attachment.run_id} was not started: the event loop ended"))
            raise
        except BaseException as error:
            attachment.fail(error)
        finally:
            give_place_back(attachment)

    async def _create_or_continue(
        self, attachment: Attachment, event: StartEvent | None, start: StartRequested | ImportRequested
    ) -> None:
        live = self.runs.get(attachment.run_id)
        if live is None:
            if await self._create(attachment, event, start):
                return
            row = await self._require_row(attachment.run_id)
            await self._require_beginning(attachment, row.run, start)
            await self._continue(attachment, row, start.arguments)
            return
        if live.program.name != attachment.program.name:
            raise self._conflict(attachment, f"of workflow {live.program.name}")
        self._require_arguments(attachment, live.state.arguments, start.arguments)
        await self._require_beginning(attachment, live.claim.run, start)
        self.adopt(attachment, live)

    async def _create(
        self, attachment: Attachment, event: StartEvent | None, start: StartRequested | ImportRequested
    ) -> bool:
        program = attachment.program
        state, records = RunState(), []
        facts = decide(state, start)
        now = self.now()
        for at, fact in enumerate(facts, 1):
            records.append(Record(at, now, at == len(facts), fact))
            evolve(state, records[-1])
        new = NewRun(attachment.run_id, start.uid, program.name, program.shape)
        try:
            wake_at = None if state.status == RUNNING else state.wake_at
            claim = await self.store.create(new, records, RunUpdate(state.status, wake_at), self.worker)
        except WriteOutcomeUnknown:
            self.taking.give_back(new.run_id, new.uid, 1)
            raise
        if claim is None:
            return False
        run = self.new_run(program, claim, state)
        run.told(records)
        if isinstance(start, StartRequested) and event is not None and not start.joins:
            run.keep_live(start.event, event, start.targets)
        if attachment.beginning is not None:
            attachment.beginning.hand_over(run)
        self.adopt(attachment, run)
        if attachment.stepwise:
            run.gate = Gate(run)
        self.begin_run(run)
        return True

    async def _continue(
        self, attachment: Attachment, row: RunRow, arguments: EncodedValue | None, *, resume: bool = False
    ) -> None:
        """Attach to an existing run, taking it up if nobody has it."""
        self._require_workflow(attachment, row)
        if not resume:
            first = await self.store.read(row.run, to=1)
            self._require_arguments(attachment, fold(first).arguments, arguments)
        attachment.key = row.run
        pauses = growing_pauses()
        stale = True  # at first the row may say of a run that was given back since it was read that it is ours
        while True:
            # A run that is live here knows better than its row: it may have been retried a moment ago.
            live = self.runs.get(row.run_id)
            if live is not None:
                self.adopt(attachment, live)
                return
            gone = await self.owners.gone()
            if row.owner is not None and not gone(row.owner) and self.taking.giving_up(row.run_id) is None:
                if stale and row.owner == self.worker.id:
                    stale = False
                    row = await self._require_row(row.run_id)
                    continue
                self._hold(attachment)
                attachment.begun()  # owned elsewhere: watched as soon as somebody waits for it
                return
            if row.status in FINAL_STATUSES:
                outcome = await self._recorded_outcome(attachment, row)
                if outcome is not None:
                    attachment.ended_before = True
                    attachment.end(outcome)
                    attachment.begun()
                    return
                row = await self._require_row(row.run_id)
                continue
            if row.status == NEEDS_ATTENTION and not resume:
                raise NeedsAttentionError(f"run {row.run_id} needs attention: {row.error}")
            giving_up = self.taking.giving_up(row.run_id)
            if giving_up is not None:
                # This engine has dropped the run and its row does not say so yet.
                await asyncio.wait([giving_up])
                row = await self._require_row(row.run_id)
                continue
            if await self.taking.take_up(attachment, row, resume=resume):
                return
            before, row = row, await self._require_row(row.run_id)
            if row.epoch == before.epoch:
                # Nobody was faster: its row was locked for a moment.
                await asyncio.sleep(next(pauses))

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
        self._hold(attachment)
        self._watcher.forget(attachment)
        attachment.begun()

    def _hold(self, attachment: Attachment) -> None:
        # Weakly, as those who hold them may go; lighter than a WeakSet, of which every run would have one.
        others = self._attachments.get(attachment.run_id, ())
        self._attachments[attachment.run_id] = {*(other for other in others if other() is not None), ref(attachment)}

    def _held(self, run_id: str) -> list[Attachment]:
        return [a for held in self._attachments.get(run_id, ()) if (a := held()) is not None]

    async def tell_end(self, attachment: Attachment, row: RunRow) -> bool:
        """End an attachment by the recorded outcome of its run; tell whether there is one."""
        outcome = await self._recorded_outcome(attachment, row)
        if outcome is None:
            return False
        self._attachments.pop(row.run_id, None)
        attachment.end(outcome)
        return True

    async def _recorded_outcome(self, attachment: Attachment, row: RunRow) -> Outcome | None:
        """Return how the run of a row ended; None if it goes on by now, because somebody has retried or resumed it."""
        program = attachment.program
        last = await self.store.read(row.run, after=row.seq - 1)
        if last and isinstance(last[-1].fact, RunCompleted) and attachment.beginning is None:
            return Outcome.completed(program.codec.decode_event(last[-1].fact.result))
        state = fold(await self.store.read(row.run))
        if attachment.beginning is not None:
            attachment.found = state
        if state.ended == COMPLETED:
            assert state.result is not None
            return Outcome.completed(program.codec.decode_event(state.result))
        if not state.ended and not state.attention:
            return None
        return Outcome.recorded(row.run_id, state, program.timeout)

    # -- Checks --------------------------------------------------------------------------------------------------------

    async def _require_row(self, run_id: str) -> RunRow:
        row = await self.store.find(run_id)
        if row is None:
            raise RunNotFoundError(
                f"there is no run {run_id} in {self.store.url}; start it with flow.run(run_id={run_id!r}, ...)"
            )
        return row

    def _require_workflow(self, attachment: Attachment, row: RunRow) -> None:
        if row.workflow != attachment.program.name:
            raise self._conflict(attachment, f"of workflow {row.workflow}")

    def _require_arguments(
        self, attachment: Attachment, recorded: EncodedValue | None, given: EncodedValue | None
    ) -> None:
        if recorded == given:
            return
        codec = attachment.program.codec
        # Codecs other than JSON are not canonical: equal values may have other bytes.
        if recorded is not None and given is not None and codec.decode_value(recorded) == codec.decode_value(given):
            return
        raise self._conflict(attachment, "that was started with other arguments")

    async def _require_beginning(
        self, attachment: Attachment, run: int, start: StartRequested | ImportRequested
    ) -> None:
        """Compare the context that the caller has for a run with what that run began with; an empty one takes all."""
        given = first_facts(start) if attachment.beginning is not None else []
        if not given:
            return
        recorded = [record.fact for record in await self.store.read(run, after=1, to=len(given) + 2)]
        more = recorded[len(given) :]
        if not same_facts(attachment.program.codec, recorded[: len(given)], given) or (
            more and isinstance(more[0], ContextSet | ContextDeleted)
        ):
            raise self._conflict(attachment, "that began with another context")

    def _conflict(self, attachment: Attachment, what: str) -> RunConflictError:
        run_id = attachment.run_id
        return RunConflictError(
            f"run id {run_id} belongs to a run {what}; this one is of workflow {attachment.program.name}. Nothing was "
            f"started. Take another run id, or flow.resume({run_id!r}) to go on with that run"
        )

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
            # One that waits for a child would be taken up again at once.
            if run.only_waits() and not run.state.waits_for_child:
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
            self.in_background(self._go_on(run, attachments))

    async def _go_on(self, run: Run, attachments: list[Attachment]) -> None:
        """After a lapse, take a run up again if it is free, whether anybody waits for it or not: it was live here."""
        try:
            await self.ready()
        except JournalUnavailableError as error:
            for attachment in attachments:
                if attachment.run is None and attachment.outcome is None:
                    attachment.fail(error)
            return
        giving_up = self.taking.giving_up(run.run_id)
        if giving_up is not None:
            await asyncio.wait([giving_up])
        try:
            row = await self._require_row(run.run_id)
            if is_claimable(row, self.now(), await self.owners.gone()) and not self.closed:
                attachment = Attachment(self, run.program, run.run_id)
                attachment.stepwise = run.gate is not None
                try:
                    await self.placing.wait(attachment)
                    await self.taking.take_up(attachment, row)
                finally:
                    give_place_back(attachment)
        except DurableFlowError as error:
            extra = fields("run_left", run.run_id)
            logger.warning("run %s is left to others: %s", run.run_id, said(error), extra=extra)

    def _tell_of_unfinished(self, program: Program) -> None:
        """Say once per workflow how to take up what earlier processes left."""
        if program.name in self._told:
            return
        self._told.add(program.name)

        async def tell() -> None:
            rows = await self.store.list_runs(workflow=program.name, unfinished=True, limit=1000)
            gone = await self.owners.gone()
            keys = [r.run for r in rows if r.owner != self.worker.id and (r.owner is None or gone(r.owner))]
            # Once more: some may have ended, and their worker with them, before the workers were looked at.
            left = [r for r in await self.store.find_many(keys) if r.status not in FINAL_STATUSES]
            if left:
                logger.warning(
                    "workflow %s has %d unfinished runs that nobody owns, the newest is %s: "
                    "`await flow.recover()` takes up those that have something to do, `await flow.resume(run_id)` one",
                    program.name, len(left), left[0].run_id, extra=fields("unfinished_runs"),
                )  # fmt: skip

        self.in_background(tell())

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

    def in_background(self, work: Any) -> asyncio.Task[Any]:
        """Do something that the engine waits for when it closes."""
        task = self.loop.create_task(work, context=outside_of_steps())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
