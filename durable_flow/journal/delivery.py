"""Whether a message may be sent to a run, and which question it answers: one rule for every store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import (
    AlreadyAnsweredError,
    DeserializationError,
    RunConflictError,
    RunFinishedError,
    RunNotFoundError,
)
from ..events import all_names
from .protocol import FINAL_STATUSES, JournalStore, MessageRow, NewMessage


class NotAsked(AlreadyAnsweredError):
    """No open question of the run takes the answer; one of a run that it started may."""


class Asked(NamedTuple):
    """A wait of the run. `strict`: it has requirements; `answered`: the run has yet to take an answer that was sent."""

    wait_id: str
    outcome: str | None
    wanted: tuple[str, ...]
    strict: bool
    answered: bool


async def messages_that_open(
    store: JournalStore, runs: Sequence[int]
) -> tuple[list[MessageRow], dict[int, DeserializationError]]:
    """Return the unconsumed messages of these runs, and the error of each run that has one which cannot be opened."""
    try:
        return await store.messages(runs), {}
    except DeserializationError:
        found: list[MessageRow] = []
        errors: dict[int, DeserializationError] = {}
    for run in runs:
        try:
            found += await store.messages([run])
        except DeserializationError as error:
            errors[run] = error
    return found, errors


def no_such_run(run: int, url: str) -> RunNotFoundError:
    """Return the error for a run that the database does not have."""
    return RunNotFoundError(f"run {run}: there is no run of this key in {url}. Nothing was sent.")


def same_run(run_id: str, there: str) -> RunConflictError:
    """Return the error for a run to be imported that the journal has, under the id `there`."""
    named = "under this id" if there == run_id else f"as {there}"
    return RunConflictError(
        f"run {run_id}: the journal has this run already, {named} (its uid is the same). Nothing was imported. "
        f"Fork {there} for a copy that goes on by itself."
    )


def require_unfinished(run_id: str, status: str) -> None:
    """Raise RunFinishedError for a run that has ended."""
    if status in FINAL_STATUSES:
        raise RunFinishedError(f"run {run_id}: it has ended, its status is {status}. Nothing was sent.")


def is_wanted(names: Iterable[str], wanted: tuple[str, ...]) -> bool:
    """Tell whether a wait takes an event that may be stored under these names, see `all_names`."""
    return any(name in wanted for name in names)


def answered_wait(
    message: NewMessage, run_id: str, waits: Iterable[Asked], settled: Iterable[Asked] = ()
) -> str | None:
    """Return the wait that a message answers, None if it answers none.

    `waits` are the run's open ones, oldest first, or the one that the message names. `settled` are the others, newest
    first: a long run has many, so they are looked at only for an answer that no open one takes. Raises
    AlreadyAnsweredError, and NotAsked for a message that is `asked_only`.
    """
    if message.wait_id is not None:
        named = next((wait for wait in waits if wait.wait_id == message.wait_id), None)
        if named is None or named.outcome is not None or named.answered:
            state = "not known" if named is None else named.outcome or "answered, and the run has yet to take that"
            raise AlreadyAnsweredError(
                f"run {run_id}: the question {message.wait_id} is not open (it is {state}). Nothing was sent; "
                "look at the run's open questions for those that can be answered."
            )
        return message.wait_id
    if message.event is None:
        return None
    name = message.event.name
    names = all_names(name)
    still_open = [wait for wait in waits if is_wanted(names, wait.wanted)]
    free = [wait for wait in still_open if not wait.answered]
    for wait in free:
        # Whether requirements are met only the engine can tell: they are encoded values.
        if not wait.strict:
            return wait.wait_id
    if message.asked_only and not free:
        raise NotAsked(f"run {run_id}: it has no open question for {name}")
    late = still_open and not free
    if message.human and not still_open:
        last = next((wait for wait in settled if is_wanted(names, wait.wanted)), None)
        late = last is not None and last.outcome == "answered"
    if late:
        raise AlreadyAnsweredError(
            f"run {run_id}: its question for {name} was answered before. Nothing was sent; the first answer counts."
        )
    return None
