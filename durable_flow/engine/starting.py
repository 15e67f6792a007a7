"""Starting runs: a new one is created, one that is known is gone on with, and its caller hears how that came out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..decide import decide
from ..errors import DurableFlowError, WriteOutcomeUnknown
from ..events import StartEvent
from ..fold import evolve
from ..incoming import ImportRequested, StartRequested
from ..journal.protocol import FINAL_STATUSES, NewRun, RunUpdate
from ..journal.runid import new_run_id, new_uid
from ..journal.standing import standing_of
from ..logs import fields
from ..records import EncodedValue, Record
from ..state import RunState
from .attachment import Attachment
from .collecting import joins_of_sent
from .known import require_arguments, require_beginning, require_row, require_workflow
from .placing import give_place_back
from .program import Program
from .stepwise import Gate

if TYPE_CHECKING:
    from .beginning import Beginning
    from .engine import Engine

logger = logging.getLogger("durable_flow")


class Starting:
    """Creates the runs of an engine."""

    def __init__(self, engine: Engine):
        self._engine = engine
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # The workflows of which it was said what earlier processes left.
        self._told: set[str] = set()

    def __bool__(self) -> bool:
        """Tell whether a run whose id may be known is being started."""
        return bool(self._locks)

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
        attachment = Attachment(self._engine, program, run_id or new_run_id())
        attachment.beginning, attachment.is_new, attachment.stepwise = beginning, run_id is None, stepwise
        start = start_request(program, event, arguments, None, beginning)
        self._engine.in_background(self.begin(attachment, event, start, known=run_id is not None))
        return attachment

    async def begin(
        self, attachment: Attachment, event: StartEvent | None, start: StartRequested | ImportRequested, *, known: bool
    ) -> None:
        """Create the run, or find it if its id may be `known`; what goes wrong is told to the attachment."""
        if attachment.program.limit is not None:
            self._engine.placing.ask(attachment)  # before anything is awaited: in the order of the starts

        async def create() -> None:
            if not known:
                await self.create(attachment, event, start)
            else:
                async with self._locks.setdefault(attachment.run_id, asyncio.Lock()):
                    await self._create_or_continue(attachment, event, start)
            self._tell_of_unfinished(attachment.program)

        await self.in_its_place(attachment, create, known=known)

    async def in_its_place(
        self, attachment: Attachment, create: Callable[[], Awaitable[None]], *, known: bool = False
    ) -> None:
        """Create a run once it has the place that was asked for; what goes wrong is told to the attachment."""
        try:
            await self._engine.ready()
            if attachment.asked is not None:
                await self._engine.placing.asked(attachment, known=known)
                if attachment.outcome is not None or attachment.failure is not None:
                    return  # cancelled or given up meanwhile
            await create()
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
        live = self._engine.runs.get(attachment.run_id)
        if live is None:
            if await self.create(attachment, event, start):
                return
            row = await require_row(self._engine.store, attachment.run_id)
            await require_beginning(self._engine.store, attachment, row.run, start)
            await self._engine.continuing.attach(attachment, row, start.arguments)
            return
        require_workflow(attachment, live.program.name)
        require_arguments(attachment, live.state.arguments, start.arguments)
        await require_beginning(self._engine.store, attachment, live.claim.run, start)
        self._engine.adopt(attachment, live)

    async def create(
        self, attachment: Attachment, event: StartEvent | None, start: StartRequested | ImportRequested
    ) -> bool:
        """Create the run and let it begin; False if its id is taken."""
        program = attachment.program
        state, records = RunState(), []
        facts = decide(state, start)
        now = self._engine.now()
        for at, fact in enumerate(facts, 1):
            records.append(Record(at, now, at == len(facts), fact))
            evolve(state, records[-1])
        new = NewRun(attachment.run_id, start.uid, program.name, program.fingerprint, *attachment.forked_from)
        try:
            update = RunUpdate(*standing_of(state))
            claim = await self._engine.store.create(new, records, update, self._engine.worker)
        except WriteOutcomeUnknown:
            self._engine.taking.give_back(new.run_id, new.uid, 1)
            raise
        if claim is None:
            return False
        run = self._engine.new_run(program, claim, state)
        run.told(records)
        if isinstance(start, StartRequested) and event is not None and not start.joins:
            run.keep_live(start.event, event, start.targets)
        if attachment.beginning is not None:
            attachment.beginning.hand_over(run)
        self._engine.adopt(attachment, run)
        if attachment.stepwise:
            run.gate = Gate(run)
        self._engine.begin_run(run)
        return True

    def _tell_of_unfinished(self, program: Program) -> None:
        """Say once per workflow how to take up what earlier processes left."""
        if program.name in self._told:
            return
        self._told.add(program.name)

        async def tell() -> None:
            rows = await self._engine.store.list_runs(workflow=program.name, unfinished=True, limit=1000)
            gone = await self._engine.owners.gone()
            keys = [r.run for r in rows if r.owner != self._engine.worker.id and (r.owner is None or gone(r.owner))]
            # Once more: some may have ended, and their worker with them, before the workers were looked at.
            left = [r for r in await self._engine.store.find_many(keys) if r.status not in FINAL_STATUSES]
            if left:
                logger.warning(
                    "workflow %s has %d unfinished runs that nobody owns, the newest is %s: "
                    "`await flow.recover()` takes up those that have something to do, `await flow.resume(run_id)` one",
                    program.name, len(left), left[0].run_id, extra=fields("unfinished_runs"),
                )  # fmt: skip

        self._engine.in_background(tell())


def start_request(
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
