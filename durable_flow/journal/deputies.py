"""Answers that are sent to one run and meant for another: for a question of a run that it started."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..errors import AlreadyAnsweredError, RunFinishedError, RunNotFoundError
from ..events import all_names
from .delivery import NotAsked, is_wanted
from .protocol import JournalStore, NewMessage, WaitRow

# Stands in no run id: what is before it in a wait's id is the run that waits.
OF = "/"


def wait_id_of(run_id: str, wait_id: str) -> str:
    """Return the id by which a run's wait is known to the runs above it; one that leads to its run already stays."""
    return wait_id if OF in wait_id else f"{run_id}{OF}{wait_id}"


def deputy(run_id: str, wait_id: str | None) -> tuple[str, str | None]:
    """Return the run that waits, and its own id of the wait: those given, unless the wait's id leads to another run."""
    if wait_id is None or OF not in wait_id:
        return run_id, wait_id
    run_id, _, wait_id = wait_id.rpartition(OF)
    return run_id, wait_id


async def deliver(store: JournalStore, run: int, message: NewMessage) -> tuple[int, bool]:
    """Send a message; return the run that got it, and False if this message_id was sent before.

    An answer that no open question of the run takes goes to the oldest one that does, of those that the runs which it
    started have asked through it. Raises as `JournalStore.send`.
    """
    if not message.human or message.wait_id is not None or message.step is not None:
        return run, await store.send(run, message)
    try:
        return run, await store.send(run, message._replace(asked_only=True))
    except NotAsked:
        pass
    late: AlreadyAnsweredError | None = None
    async for wait in _asked_through(store, run, message):
        try:
            return wait.run, await store.send(wait.run, message._replace(wait_id=wait.wait_id))
        except AlreadyAnsweredError as error:
            late = error  # an answer is on its way; the next question may be free
        except (RunFinishedError, RunNotFoundError):
            pass  # it has ended since the question was found, which is open no more
    if late is not None:
        raise late
    return run, await store.send(run, message)


async def _asked_through(store: JournalStore, run: int, message: NewMessage) -> AsyncIterator[WaitRow]:
    assert message.event is not None
    for asked in await store.asked(run):
        run_id, wait_id = deputy("", asked)
        row = await store.find(run_id) if run_id else None
        for wait in await store.waits(row.run) if row is not None else ():
            if wait.wait_id == wait_id and is_wanted(all_names(message.event.name), wait.wanted):
                yield wait
