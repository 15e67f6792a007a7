"""What is due in a run: from its state, the time and the limits alone."""

from __future__ import annotations

import pytest
from given import ERROR, SECOND, at, completed, emitted, event, failed, given, started, task, wait
from hypothesis import given as for_all
from hypothesis import strategies as st
from strategies import STEPS, histories

from durable_flow.commands import EndByTimeout, ExpireWait, FireTimer, ParkAside, RunStep, WakeAt
from durable_flow.due import Limits, due
from durable_flow.fold import fold
from durable_flow.records import (
    RunCancelled,
    RunClaimed,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunTimedOut,
    TimerFired,
    TimerSet,
    WaitAnswered,
)

A, B = task("a"), task("b")
WORKERS = {"a": 4, "b": 4}


def asked(*groups, now=0.0, workers=WORKERS, timeout=None, running=(), suspended=()):
    """Ask what is due; `running` hold a worker, `suspended` are in flight without one."""
    in_flight, busy = {}, {}
    for task_id in (*running, *suspended):
        in_flight.setdefault(task_id.step, []).append(task_id)
    for task_id in running:
        busy[task_id.step] = busy.get(task_id.step, 0) + 1
    limits = Limits(workers, None if timeout is None else timeout * SECOND)
    return due(given(*groups).state, limits, round(now * SECOND), busy, in_flight)


def queue(count, step="a"):
    """A run in which this many events, from seq 3 on, were delivered to one step."""
    return started(), *(emitted("Work", step) for _ in range(count))


def steps(commands):
    return [command.task for command in commands if isinstance(command, RunStep)]


def tasks(*seqs, step="a"):
    return [task(step, seq) for seq in seqs]


# -- Workers -----------------------------------------------------------------------------------------------------------


def test_pending_tasks_are_run():
    assert asked(started("a", "b")) == [RunStep(A), RunStep(B)]


def test_no_more_tasks_of_a_step_run_than_it_has_workers_and_the_oldest_go_first():
    assert steps(asked(*queue(5), workers={"a": 2})) == tasks(3, 4)
    assert steps(asked(*queue(5), workers={"a": 2}, running=tasks(3))) == tasks(4)
    assert asked(*queue(5), workers={"a": 2}, running=tasks(3, 4)) == []


def test_the_oldest_task_that_is_not_in_flight_is_next():
    assert steps(asked(*queue(5), workers={"a": 2}, running=tasks(4))) == tasks(3)
    assert steps(asked(*queue(5), workers={"a": 3}, running=tasks(3, 5))) == tasks(4)


def test_a_completed_task_makes_room():
    groups = (*queue(3), completed(task("a", 3)))
    assert steps(asked(*groups, workers={"a": 1})) == tasks(4)


def test_steps_have_workers_of_their_own():
    groups = (*queue(2), *(emitted("Other", "b") for _ in range(2)))
    assert steps(asked(*groups, workers={"a": 1, "b": 2}, running=tasks(3))) == tasks(5, 6, step="b")


def test_tasks_of_several_steps_start_in_the_order_of_their_events():
    groups = started(), emitted("Work", "a"), emitted("Work", "b"), emitted("Work", "a")
    assert steps(asked(*groups)) == [task("a", 3), task("b", 4), task("a", 5)]


def test_a_suspended_task_leaves_its_worker_to_the_next_and_is_not_run_again():
    assert steps(asked(*queue(3), workers={"a": 1}, suspended=tasks(3))) == tasks(4)
    assert asked(*queue(3), workers={"a": 1}, suspended=tasks(3), running=tasks(4)) == []
    assert asked(*queue(2), workers={"a": 1}, suspended=tasks(3, 4)) == []


def test_a_task_that_waits_runs_again_in_a_process_that_does_not_have_it_in_memory():
    groups = (*queue(1), wait("w4", "Answer", task("a", 3)), RunClaimed(2, "other"))
    assert asked(*groups) == [RunStep(task("a", 3))]


# -- Retries -----------------------------------------------------------------------------------------------------------


def test_a_retry_is_never_early():
    groups = (started("a"), failed(A, 1, retry_at=60))
    assert asked(*groups, now=59.999999) == [WakeAt(60 * SECOND)]
    assert asked(*groups, now=60) == [RunStep(A)]


def test_a_retry_that_runs_is_not_started_again():
    groups = (started("a"), failed(A, 1, retry_at=60))
    assert asked(*groups, now=61, running=[A]) == []


def test_a_retry_waits_for_a_worker_and_new_tasks_do_not_take_it_twice():
    groups = (*queue(3), failed(task("a", 3), 1, retry_at=60))
    assert asked(*groups, now=60, workers={"a": 1}, running=tasks(4)) == []
    assert steps(asked(*groups, now=60, workers={"a": 1})) == tasks(3)
    assert steps(asked(*groups, now=60, workers={"a": 2})) == tasks(3, 4)
    assert steps(asked(*groups, now=60, workers={"a": 2}, running=tasks(3))) == tasks(4)


def test_a_retry_that_runs_does_not_hide_a_task_that_is_ready():
    groups = (*queue(2), failed(task("a", 3), 1, retry_at=60))
    assert steps(asked(*groups, now=61, workers={"a": 2}, running=tasks(3))) == tasks(4)


def test_tasks_that_are_ready_do_not_wait_for_a_delayed_one():
    groups = (*queue(2), failed(task("a", 3), 1, retry_at=60))
    assert asked(*groups, workers={"a": 1}) == [RunStep(task("a", 4)), WakeAt(60 * SECOND)]


# -- Timers and deadlines ----------------------------------------------------------------------------------------------


def test_a_timer_fires_at_its_time_and_once():
    groups = (started("a"), TimerSet(A, 1, 0, 60 * SECOND))
    assert asked(*groups, now=59, suspended=[A]) == [WakeAt(60 * SECOND)]
    assert asked(*groups, now=60, suspended=[A]) == [FireTimer(3)]
    assert asked(*groups, TimerFired(3), now=61, running=[A]) == []


def test_a_wait_expires_at_its_deadline_and_once():
    groups = (started("a"), wait("w3", "Answer", A, deadline=60))
    assert asked(*groups, now=59, suspended=[A]) == [WakeAt(60 * SECOND)]
    assert asked(*groups, now=60, suspended=[A]) == [ExpireWait("w3")]
    answer = (emitted("Answer", answers="w3"), WaitAnswered("w3"))
    assert asked(*groups, answer, now=61, running=[A]) == []


def test_the_deadline_of_a_failed_attempt_still_passes():
    groups = (started("a"), wait("w3", "Answer", A, deadline=60), failed(A, 1, retry_at=90))
    assert asked(*groups, now=60) == [ExpireWait("w3"), WakeAt(90 * SECOND)]


def test_the_alarm_is_set_to_the_earliest_of_all_times():
    times = (TimerSet(A, 1, 0, 50 * SECOND), wait("w4", "Answer", A, deadline=40), failed(B, 1, retry_at=30))
    groups = (at(0, *started("a", "b")), *(at(0, fact) for fact in times))
    assert asked(*groups, suspended=[A], timeout=20) == [WakeAt(20 * SECOND)]
    assert asked(*groups, suspended=[A], timeout=45) == [WakeAt(30 * SECOND)]
    assert asked(*groups, suspended=[A], now=30, running=[B]) == [WakeAt(40 * SECOND)]
    assert asked(*groups, suspended=[A], now=41, running=[B]) == [ExpireWait("w4"), WakeAt(50 * SECOND)]


def test_a_run_that_has_nothing_to_wait_for_sets_no_alarm():
    assert asked(started("a"), running=[A]) == []
    assert asked(started("a"), wait("w3", "Answer", A), suspended=[A], timeout=60) == []


# -- The timeout -------------------------------------------------------------------------------------------------------


def test_a_run_ends_when_its_active_time_is_used_up():
    groups = (at(100, *started("a")),)
    assert asked(*groups, now=159, timeout=60, running=[A]) == [WakeAt(160 * SECOND)]
    assert asked(*groups, now=160, timeout=60, running=[A]) == [EndByTimeout()]


def test_the_timeout_comes_before_everything_else():
    groups = (at(0, *started("a", "b")), at(0, failed(B, 1, retry_at=1)))
    assert asked(*groups, now=60, timeout=60) == [EndByTimeout()]


def test_a_timeout_of_zero_ends_the_run_at_once():
    assert asked(at(100, *started("a")), now=100, timeout=0) == [EndByTimeout()]


def test_without_a_timeout_a_run_goes_on_for_ever():
    assert asked(at(0, *started("a")), now=10**9, running=[A]) == []


def test_waiting_for_a_human_takes_nothing_from_the_budget():
    groups = (at(0, *started("a")), at(10, wait("w3", "Answer", A)))
    assert asked(*groups, now=5000, timeout=60, suspended=[A]) == []
    answer = at(6000, emitted("Answer", answers="w3"), WaitAnswered("w3"))
    assert asked(*groups, answer, now=6000, timeout=60, running=[A]) == [WakeAt(6050 * SECOND)]


def test_downtime_takes_nothing_from_the_budget():
    groups = (at(0, *started("a")), at(10, emitted("Lost")), at(5000, RunClaimed(2, "other")))
    assert asked(*groups, now=5000, timeout=60, running=[A]) == [WakeAt(5050 * SECOND)]


def test_a_run_with_nothing_to_do_and_nothing_awaited_ends_by_its_timeout():
    groups = (at(0, *started("a")), at(1, completed(A)))
    assert asked(*groups, now=2, timeout=60) == [WakeAt(60 * SECOND)]
    assert asked(*groups, now=60, timeout=60) == [EndByTimeout()]


def test_a_resumed_run_has_its_whole_budget():
    groups = (at(0, *started("a")), at(60, RunTimedOut("late")), at(100, RunResumed("me")))
    assert asked(*groups, now=100, timeout=60) == [RunStep(A), WakeAt(160 * SECOND)]


# -- Runs that do not go on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        (completed(A), RunCompleted(event("Stop"), A)),
        (failed(A), RunFailed(ERROR, "a")),
        RunCancelled("enough"),
        RunTimedOut("late"),
        RunParked("look"),
    ],
    ids=["completed", "failed", "cancelled", "timed out", "needs attention"],
)
def test_a_run_that_ended_or_needs_attention_has_nothing_due(end):
    groups = (started("a", "b"), TimerSet(B, 1, 0, 9), wait("w4", "Answer", B, deadline=9))
    assert asked(*groups, end, now=1000, timeout=60) == []


def test_work_for_a_step_that_is_gone_parks_the_run_before_anything_starts():
    assert asked(started("a", "gone", "away"), workers={"a": 1}) == [ParkAside(("away", "gone"))]


def test_a_retry_of_a_step_that_is_gone_parks_the_run():
    assert asked(started("a"), failed(A, 1, retry_at=60), workers={"b": 1}) == [ParkAside(("a",))]


def test_a_step_that_is_gone_and_has_no_work_left_is_not_missed():
    assert asked(started("gone", "a"), completed(task("gone")), workers={"a": 1}) == [RunStep(A)]


# -- Laws --------------------------------------------------------------------------------------------------------------


@for_all(histories(), st.data())
def test_whatever_is_in_flight_workers_are_kept_and_order_too(records, data):
    state = fold(records)
    workers = {step: data.draw(st.integers(1, 3)) for step in STEPS}
    in_flight, busy = {}, {}
    for step, many in workers.items():
        mine = [task_id for task_id in state.tasks if task_id.step == step]
        in_flight[step] = data.draw(st.lists(st.sampled_from(mine), unique=True)) if mine else []
        busy[step] = data.draw(st.integers(0, min(many, len(in_flight[step]))))
    now = state.last_at + data.draw(st.integers(0, 5 * SECOND))
    commands = due(state, Limits(workers, None), now, busy, in_flight)
    ready = [t for t in state.tasks.values() if t.retry_at is None or t.retry_at <= now]
    for step, many in workers.items():
        begun = [task_id for task_id in steps(commands) if task_id.step == step]
        idle = [t.id for t in ready if t.id.step == step and t.id not in in_flight[step]]
        if state.status in ("running", "waiting"):
            assert len(begun) == min(many - busy[step], len(idle))  # no worker stays idle, none is shared
        else:
            assert begun == []
        assert set(begun) <= set(idle)
        first_attempts = [task_id for task_id in begun if task_id not in state.delayed]
        waiting = [task_id for task_id in idle if task_id not in state.delayed]
        assert sorted(first_attempts) == sorted(waiting)[: len(first_attempts)]


@for_all(histories())
def test_the_alarm_lies_ahead_and_nothing_is_due_before_it(records):
    state = fold(records)
    everything = {step: set(state.tasks) for step in STEPS}
    limits = Limits(dict.fromkeys(STEPS, 99), 60 * SECOND)

    def dues(now):
        return due(state, limits, now, {}, everything)

    now = state.last_at
    for command in dues(now):
        if isinstance(command, WakeAt):
            assert command.at > now
            assert [c for c in dues(command.at - 1) if not isinstance(c, WakeAt)] == [
                c for c in dues(now) if not isinstance(c, WakeAt)
            ]
