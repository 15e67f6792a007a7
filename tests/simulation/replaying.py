"""Replays the journal of a simulated run against the very program that wrote it, in a loop of virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from durable_flow import ReplayReport
from durable_flow.engine.replaying.children import RecordedRuns
from durable_flow.engine.replaying.replay import ReplayRequest, replay_row
from durable_flow.journal.memory import MemoryStore
from durable_flow.journal.protocol import ImportedPage, ImportedRun, NewRun
from durable_flow.program import ReplayedProgram, WorkflowProgram

from .loop import Hang, VirtualLoop
from .simulation import Simulation
from .store import UID

# Of virtual time: none of the programs takes so long.
TIMEOUT_SECONDS = 10_000.0


def replayed(run: Simulation, **request: Any) -> ReplayReport:
    """Return what the replay of a run that has ended finds. Raises Hang, and what went wrong in the loop."""
    errors: list[dict[str, Any]] = []

    def idle() -> None:
        raise Hang("a replayed step waits for what nobody brings")

    loop = VirtualLoop(lambda: False, idle)
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    try:
        report = loop.run_until_complete(_replayed(run, ReplayRequest(**request)))
        left = asyncio.all_tasks(loop)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert not errors, errors
    assert not left, left
    return report


async def _replayed(run: Simulation, request: ReplayRequest) -> ReplayReport:
    store, state = MemoryStore(), run.state
    await store.open()
    new = NewRun("simulated", state.uid or UID, state.workflow, state.shape)
    row = ImportedRun(new, state.status, state.epoch, None, state.created_at, state.last_at, None, None)
    await store.import_run(row, lambda: [ImportedPage(state.epoch, run.store.records)], [])
    found = await store.find("simulated")
    assert found is not None
    # As the simulation has it, but for what watches the drafts of its runs.
    program = WorkflowProgram(
        run.program.instance, run.program.table, run.codec, name=state.workflow, timeout=TIMEOUT_SECONDS, verbose=False
    )
    return await replay_row(store, found, ReplayedProgram(program), request, RecordedRuns(None))
