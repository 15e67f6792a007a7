"""What the journal says of a run that is known by its id: whether it is the one that is meant, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RunConflictError, RunNotFoundError
from ..incoming import ImportRequested, StartRequested
from ..journal.folding import state_at
from ..journal.protocol import JournalStore, RunRow
from ..records import EncodedValue
from ..state import COMPLETED
from .beginning import begins_alike, first_facts, recorded_beginning
from .outcome import Outcome
from .readable import require_readable

if TYPE_CHECKING:
    from .attachment import Attachment


async def require_row(store: JournalStore, run_id: str) -> RunRow:
    """Return the run's row. Raises RunNotFoundError."""
    row = await store.find(run_id)
    if row is None:
        raise RunNotFoundError(
            f"there is no run {run_id} in {store.url}; start it with flow.run(run_id={run_id!r}, ...)"
        )
    return row


def require_workflow(attachment: Attachment, workflow: str) -> None:
    """Raise RunConflictError if the run is of another workflow than its caller's."""
    if workflow != attachment.program.name:
        raise _conflict(attachment, f"of workflow {workflow}")


def require_arguments(attachment: Attachment, recorded: EncodedValue | None, given: EncodedValue | None) -> None:
    """Raise RunConflictError if the run was started with other arguments."""
    if recorded == given:
        return
    codec = attachment.program.codec
    # Codecs other than JSON are not canonical: equal values may have other bytes.
    if recorded is not None and given is not None and codec.decode_value(recorded) == codec.decode_value(given):
        return
    raise _conflict(attachment, "that was started with other arguments")


async def require_beginning(
    store: JournalStore, attachment: Attachment, run: int, start: StartRequested | ImportRequested
) -> None:
    """Compare the context that the caller has for a run with what that run began with; an empty one takes all.

    Of a run that was compacted that is not known any more, so it counts as the one that is meant. Raises
    RunConflictError.
    """
    given = first_facts(start) if attachment.beginning is not None else []
    if not given:
        return
    recorded = await recorded_beginning(store, run, len(given))
    if recorded is not None and not begins_alike(attachment.program.codec, recorded, given):
        raise _conflict(attachment, "that began with another context")


async def recorded_outcome(store: JournalStore, attachment: Attachment, row: RunRow) -> Outcome | None:
    """Return how the run of a row ended; None if it goes on by now, because somebody has retried or resumed it."""
    program = attachment.program
    # All of it and not its last record only: the handler's context shows the values, as where the run was live.
    state = await state_at(store, row.run)
    if row.pruned_at is None:
        attachment.found = state
    if state.ended == COMPLETED:
        assert state.result is not None
        await require_readable(store, row, program.codec, [state.result])
        return Outcome.completed(row.run_id, program.codec.decode_event(state.result))
    if not state.ended and not state.attention:
        return None
    return Outcome.recorded(row.run_id, state, program.timeout)


def _conflict(attachment: Attachment, what: str) -> RunConflictError:
    run_id = attachment.run_id
    return RunConflictError(
        f"run id {run_id} belongs to a run {what}; this one is of workflow {attachment.program.name}. Nothing was "
        f"started. Take another run id, or flow.resume({run_id!r}) to go on with that run"
    )
