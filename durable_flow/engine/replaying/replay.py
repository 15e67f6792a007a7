"""The replay of a run: one fold through its history, in which each completed step is run again where it completed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ...errors import CheckpointError, RunConflictError, WorkflowStepDoesNotExistError
from ...incoming import AttentionNeeded, StepRaised, StepReturned
from ...journal.archive_files import ArchiveFile
from ...journal.archives import import_run
from ...journal.checkpoint import At
from ...journal.kept import require_kept
from ...journal.listing import grouped
from ...journal.memory import MemoryStore
from ...journal.points import seq_of
from ...journal.protocol import JournalStore, RunRow
from ...journal.shared import StoreSettings
from ...records import (
    EncodedEvent,
    EventEmitted,
    Record,
    RunCompleted,
    StateImported,
    StepCompleted,
    StepFailed,
    TaskId,
    WaitClosed,
)
from ...shape import changes, step_names
from ...state import Task
from ..attempt import make_attempt
from ..current import outside_of_steps
from ..failure import describe
from ..known import require_row
from .children import RecordedRuns
from .differences import Differences
from .execution import ReplayedExecution
from .judge import Findings, Judge
from .progress import Progress
from .report import ReplayReport
from .stage import Stage

if TYPE_CHECKING:
    from ...serializers.base import Seal
    from ..program import Program
    from ..run import Run

# For so long a step that is told to end may still do so.
_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Up to where to replay; steps that are live or skipped; which differences are none."""

    to: At | None = None
    live: Collection[str] = ()
    skip: Collection[str] = ()
    ignore: Collection[str] = ()


async def replay_stored(settings: StoreSettings, program: Program, run_id: str, request: ReplayRequest) -> ReplayReport:
    """Replay a run of a database, of which nothing but that run, and those that it started, is read.

    Raises RunNotFoundError, RunConflictError for a run of another workflow, CheckpointError,
    WorkflowStepDoesNotExistError for a step that is neither the workflow's nor the run's, and DeserializationError for
    a record that cannot be read.
    """
    _require_names(request)
    runs = RecordedRuns(settings)
    try:
        store = await runs.store(settings)
        assert store is not None
        return await replay_row(store, await require_row(store, run_id), program, request, runs)
    finally:
        await runs.close()


async def replay_archive(
    file: ArchiveFile, program: Program, request: ReplayRequest, *, seal: Seal | None, allow_codecs: Collection[str],
    max_payload_bytes: int,
) -> ReplayReport:  # fmt: skip
    """Replay the run of an archive, which is checked as it is when it is imported. Raises ArchiveError, OSError."""
    _require_names(request)
    store = MemoryStore()
    await store.open()
    runs = RecordedRuns(None)
    try:
        run_id = await import_run(
            store, file, None, seal=seal, allow_codecs=allow_codecs, max_payload_bytes=max_payload_bytes
        )
        return await replay_row(store, await require_row(store, run_id), program, request, runs)
    finally:
        await runs.close()
        await store.close()


async def replay_row(
    store: JournalStore, row: RunRow, program: Program, request: ReplayRequest, runs: RecordedRuns
) -> ReplayReport:
    """Replay a run of an open store. Raises as `replay_stored`."""
    if row.workflow != program.name:
        raise RunConflictError(
            f"run {row.run_id} is of workflow {row.workflow}; this one is {program.name}. Replay it with its own "
            f"workflow, or, if that was renamed, with workflow_name={row.workflow!r}"
        )
    require_kept(row, "a replay")
    last = row.seq if request.to is None else await seq_of(store, row, request.to)
    return await _Replay(store, row, program, request, runs).upto(last)


class _Replay:
    """One replay: where the fold stands, and what was found up to there."""

    def __init__(self, store: JournalStore, row: RunRow, program: Program, request: ReplayRequest, runs: RecordedRuns):
        self._store = store
        self._row = row
        self._program = program
        self._request = request
        self._runs = runs
        self._progress = Progress(program.num_workers)
        self._findings = Findings(store, row.run, row.run_id, Differences(program.codec, tuple(request.ignore)))
        self._counts: Counter[str] = Counter()

    async def upto(self, last: int) -> ReplayReport:
        """Go through the history up to the last boundary that is not behind `last`."""
        progress, first, time = self._progress, 0, 0
        async for group in grouped(self._store, self._row.run, 0, last):
            if not first:
                first = group[0].seq
            elif group[0].at != time:
                progress.time_passes(group[0].at)
            time = group[0].at
            end = _completion(group)
            if end is None:
                progress.take_group(group)
                self._counts["failed"] += sum(type(record.fact) is StepFailed for record in group)
            else:
                done = next(record.fact.task for record in group if type(record.fact) is StepCompleted)
                progress.take_group(group[:end], done)
                await self._judge(progress.state.tasks[done], group)
                progress.take_group(group[end:])
            if group[0].seq == first:
                self._require_steps(progress.state.shape)
        if not first:
            raise CheckpointError(
                f"run {self._row.run_id} has no checkpoint up to record {last}; the first one comes later"
            )
        counts, found = self._counts, self._findings
        return ReplayReport(
            run_id=self._row.run_id, workflow=self._row.workflow, first=first, last=progress.state.seq,
            replayed=counts["equal"] + counts["diverged"], equal=counts["equal"], diverged=counts["diverged"],
            skipped=counts["skipped"], live=counts["live"], failed_attempts=counts["failed"],
            differences=found.count, divergences=tuple(found.divergences), defaults=tuple(found.defaults),
        )  # fmt: skip

    def _require_steps(self, shape: str) -> None:
        """Raise WorkflowStepDoesNotExistError for a step to be live, or skipped, that there is not and never was."""
        known = self._program.num_workers
        unknown = [name for name in self._request.live if name not in known]
        unknown += [name for name in self._request.skip if name not in known and name not in step_names(shape)]
        if unknown:
            raise WorkflowStepDoesNotExistError(
                f"replay of run {self._row.run_id}: workflow {self._program.name} has no step "
                f"{', '.join(map(repr, unknown))}; its steps are {', '.join(sorted(known))}"
            )

    async def _judge(self, task: Task, group: Sequence[Record]) -> None:
        """Judge the step that completes in this group, whose records but for the last are folded."""
        if task.id.step in self._request.skip:
            self._counts["skipped"] += 1
            return
        judge = Judge(self._findings, task, group[-1].seq)
        stage = None
        if task.id.step in self._program.num_workers:
            stage, execution = await self._run(task, judge)
            match stage.outcome:
                case StepReturned():
                    judge.returned(_returned(group, task.id), stage.outcome)
                case StepRaised():
                    judge.raised(stage.outcome.error)
                case AttentionNeeded():
                    judge.unreadable(stage.outcome.reason)
                case _:
                    judge.ended_otherwise()  # unless it was stopped, and the judge knows why
            raced = stage.raced(execution.keys, execution.reads_all, self._progress.filled(task.id))
            self._counts["live"] += execution.is_live
        else:
            raced = []
            since = "; ".join(changes(self._progress.state.shape, self._program.shape))
            judge.gone(
                f"workflow {self._program.name} has no such step any more"
                + (f" (since the run began: {since})" if since else "")
                + f"; leave it out with skip=({task.id.step!r},)"
            )
        self._counts["equal" if await judge.close(raced) else "diverged"] += 1

    async def _run(self, task: Task, judge: Judge) -> tuple[Stage, ReplayedExecution]:
        """Run today's code of a step until it ends, or its time is up."""
        progress, program = self._progress, self._program
        marks = progress.marks(task.id)
        began_at = task.created_at if task.retry_at is None else task.retry_at
        stage = Stage(
            self._row.run_id, program, progress.state, marks, progress.context(), judge, self._runs, began_at,
            advances=task.id.step not in program.sync_steps, seen=progress.carried,
        )  # fmt: skip
        is_live = task.id.step in self._request.live
        execution = ReplayedExecution(stage, task, judge, progress.filled(task.id), is_live=is_live)
        attempt = _attempted(stage, execution, task)
        work = execution.worker_task = asyncio.get_running_loop().create_task(attempt, context=outside_of_steps())
        stage.begin()
        try:
            await asyncio.wait({work}, timeout=program.timeout)
            if not work.done():
                assert program.timeout is not None
                judge.hangs(program.timeout)
        finally:
            stage.closed = True
            execution.attached = False
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=_GRACE_SECONDS)
            execution.release()  # what it has left behind
        if work.done() and not work.cancelled() and (error := work.exception()) is not None:
            raise error
        return stage, execution


async def _attempted(stage: Stage, execution: ReplayedExecution, task: Task) -> None:
    """Run an attempt. A step that ends the process is one that raises: the others are still to be judged."""
    try:
        await make_attempt(cast("Run", stage), execution, task, None)
    except SystemExit as error:
        stage.accept(StepRaised(task.id, task.attempt, (), describe(error), None))


def _require_names(request: ReplayRequest) -> None:
    for name in ("live", "skip", "ignore"):
        given = getattr(request, name)
        if isinstance(given, str):
            raise TypeError(f"replay({name}=...) takes several names; of one: {name}=({given!r},)")
        # Not an iterator: it would be asked for each step, and be used up by the first.
        if not isinstance(given, Collection) or not all(isinstance(each, str) for each in given):
            raise TypeError(f"replay({name}=...) takes a tuple, list or set of names, not {given!r}")


def _completion(group: Sequence[Record]) -> int | None:
    """Return where in its group a step's completion begins: the closing of the waits that it left open, then its end.

    None if no step completes in this group. In the first group of a fork one completes with what the fork was given in
    the place of its output: no code has run for that.
    """
    if any(type(record.fact) is StateImported for record in group):
        return None
    for at in range(len(group) - 1, -1, -1):
        if type(group[at].fact) is StepCompleted:
            while at and type(group[at - 1].fact) is WaitClosed:
                at -= 1
            return at
    return None


def _returned(group: Sequence[Record], task: TaskId) -> list[EncodedEvent]:
    """Return the events with which a step completed."""
    returned = []
    for record in group:
        fact = record.fact
        if isinstance(fact, EventEmitted) and fact.task == task and fact.k is None:
            returned.append(fact.event)
        elif isinstance(fact, RunCompleted) and fact.task == task:
            returned.append(fact.result)
    return returned
