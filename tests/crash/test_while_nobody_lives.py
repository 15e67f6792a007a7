"""What happens to a run while no process lives: answers wait, and time goes by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from durable_flow import AlreadyAnsweredError, Journal

from .histories import KILLED, Books, History, Laboratory
from .orders import Approved
from .runs import ALONE
from .timed import SECONDS

DELAY = round(SECONDS * 1_000_000)


@pytest.fixture
def history(lab: Laboratory) -> Iterator[History]:
    with lab.new_history() as history:
        yield history


async def test_an_answer_sent_while_no_process_lives_is_consumed_once(lab: Laboratory, history: History):
    assert await asyncio.to_thread(lab.live, history, ALONE, die_at_question=True) == KILLED
    async with Journal(history.database.url) as journal:
        [asked] = await journal.pending()
        answer = Approved(by="post")
        assert await journal.send("alone", answer, message_id="mail-7") is True
        assert await journal.send("alone", answer, message_id="mail-7") is False
        with pytest.raises(AlreadyAnsweredError):
            await journal.send("alone", answer, message_id="mail-8")
        assert await journal.pending() == []

    # This process would answer by itself if it were asked once more.
    assert await asyncio.to_thread(lab.live, history, ALONE) == 0, history.output()
    assert await asyncio.to_thread(lab.live, history, ALONE) == 0, history.output()

    assert history.outcome()["results"]["alone"]["by"] == "post"
    books = history.books()
    received = [row for row in books.of("alone", "MessageReceived") if row.name == "mail-7"]
    answered = [row for row in books.of("alone", "WaitAnswered") if row.name == asked.wait_id]
    assert (len(received), len(answered), books.open_messages) == (1, 1, 0)
    assert sum(count for line, count in history.lines().items() if line.what == "deliver") == 1
    async with Journal(history.database.url) as journal:
        assert await journal.send("alone", answer, message_id="mail-7") is False


def kill_while_it_waits(lab: Laboratory, history: History) -> None:
    assert lab.live(history, ALONE, timed=True, die_after=["TimerSet", "StepFailed"]) == KILLED, history.output()


def due_times(books: Books) -> tuple[int, int]:
    """Return when the timer is due and when the next attempt is, each once and for all."""
    [timer], [failed] = books.of("alone", "TimerSet"), books.of("alone", "StepFailed")
    return timer.data["due_at"], failed.data["retry_at"]


def times(history: History, what: str) -> list[int]:
    return [line.attempt for line in history.lines() if f"{line.what} {line.key}" == what]


def assert_never_early(history: History, due: tuple[int, int]) -> None:
    books = history.books()
    assert due_times(books) == due
    [timer], [failed], [fired] = (books.of("alone", kind) for kind in ("TimerSet", "StepFailed", "TimerFired"))
    [woke], [_], [second] = (times(history, what) for what in ("nap woke", "errand try-1", "errand try-2"))
    # Counted from within the step, by the database's time: that is never ahead of the clock of the notes.
    event_at = {row.seq: row.at for row in books.of("alone", "EventEmitted")}
    assert event_at[timer.task] + DELAY <= due[0] <= fired.at <= woke
    assert event_at[failed.task] + DELAY <= due[1] <= second


def test_timers_and_retries_are_not_early_when_the_process_is_back_before_they_are_due(
    lab: Laboratory, history: History
):
    kill_while_it_waits(lab, history)
    due = due_times(history.books())

    assert lab.live(history, ALONE, timed=True) == 0, history.output()

    assert_never_early(history, due)


def test_timers_and_retries_that_came_due_while_nobody_lived_keep_their_times(lab: Laboratory, history: History):
    kill_while_it_waits(lab, history)
    due = due_times(history.books())
    time.sleep(max(0.0, max(due) / 1_000_000 - time.time()))

    assert lab.live(history, ALONE, timed=True) == 0, history.output()

    assert_never_early(history, due)
    restarted = history.books().of("alone", "RunClaimed")[-1].at
    assert restarted >= max(due)
