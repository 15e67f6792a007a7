"""The fold: laws over random histories, and what each kind of record does to the state."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from functools import cache
from itertools import groupby, pairwise
from typing import get_args

import pytest
from given import (
    SECOND,
    at,
    completed,
    emitted,
    event,
    failed,
    handled,
    numbered,
    published,
    started,
    task,
    value,
    wait,
)
from given import given as run
from hypothesis import given
from hypothesis import strategies as st
from strategies import Simulation, histories, random_history

from durable_flow.fold import MAX_UNHANDLED, evolve, fold
from durable_flow.joins import due_joins
from durable_flow.records import (
    CALL,
    CHECKPOINT,
    COLLECT,
    SENT,
    SLEEP,
    STREAM,
    WAIT,
    WRITE,
    BufferReleased,
    CallRecorded,
    CheckpointNamed,
    ContextDeleted,
    ContextSet,
    ContextSpliced,
    EffectReused,
    EncodedValue,
    EventCollected,
    EventEmitted,
    Fact,
    JoinFired,
    JournalCompacted,
    Place,
    RunCancelled,
    RunClaimed,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunTimedOut,
    StateEdited,
    StepCompleted,
    StepDiverged,
    StepFailed,
    StreamPublished,
    StreamReset,
    TimerFired,
    TimerSet,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
    WaitTimedOut,
)
from durable_flow.state import Effect, RunState

A, B = task("a"), task("b")
ENDS = (RunCompleted, RunFailed, RunCancelled, RunTimedOut)


# -- Laws --------------------------------------------------------------------------------------------------------------


def test_random_histories_contain_every_kind_of_fact():
    kinds = {type(record.fact) for seed in range(400) for record in random_history(seed)}
    kinds |= {type(record.fact) for record in Simulation().continued().records}
    kinds |= {type(record.fact) for record in Simulation().continued(drop_pending=True).records}
    # That one is never decided: it takes the place of others (test_compaction.py).
    assert kinds == set(get_args(Fact)) - {JournalCompacted}


@given(histories(), st.data())
def test_folding_in_two_parts_equals_folding_at_once(records, data):
    cut = data.draw(st.integers(0, len(records)))
    head = fold(records[:cut])
    kept = deepcopy(head)  # as a snapshot does
    assert fold(records[cut:], head) == fold(records)
    assert fold(records[cut:], kept) == fold(records)


@pytest.mark.parametrize("seed", range(20))
def test_folding_equals_folding_at_once_for_every_cut_of_a_long_history(seed):
    records = random_history(seed, 80)
    whole = fold(records)
    state = RunState()
    for cut, record in enumerate(records):
        assert fold(records[cut:], deepcopy(state)) == whole
        evolve(state, record)


@given(histories())
def test_records_are_numbered_without_gaps_and_times_do_not_decrease(records):
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert all(one.at <= other.at for one, other in pairwise(records))
    assert fold(records).seq == len(records)


@given(histories())
def test_only_a_boundary_is_a_checkpoint(records):
    state, last = RunState(), 0
    for record in records:
        evolve(state, record)
        last = record.seq if record.boundary else last
        assert state.boundary == last
    assert last == len(records)  # no journal ends inside a group


@given(histories())
def test_folding_does_not_change_the_records(records):
    before = repr(records)
    fold(records)
    assert repr(records) == before


@given(histories())
def test_after_its_end_nothing_happens_to_a_run_but_edits_until_it_is_resumed(records):
    ended = edited = False
    for record in records:
        if ended:
            edited = edited or isinstance(record.fact, StateEdited)
            assert isinstance(record.fact, RunClaimed | RunResumed | StateEdited) or (
                edited and isinstance(record.fact, ContextSet | ContextDeleted) and record.fact.task is None
            )
        edited = edited and not record.boundary
        ended = isinstance(record.fact, ENDS) or (ended and not isinstance(record.fact, RunResumed))


@given(histories())
def test_runs_that_completed_or_were_cancelled_are_never_resumed(records):
    ends = [record.seq for record in records if isinstance(record.fact, RunCompleted | RunCancelled)]
    assert all(isinstance(record.fact, RunClaimed) for record in records[ends[0] if ends else len(records) :])


@given(histories())
def test_the_status_is_derived_from_the_records(records):
    state = RunState()
    for record in records:
        evolve(state, record)
        if record.boundary:
            assert state.status == status_by_the_book(records[: record.seq], state)


def status_by_the_book(records, state):
    """The status, from the last end or park, and else from what each pending task waits for."""
    since = max((r.seq for r in records if isinstance(r.fact, RunResumed)), default=0)
    for record in reversed(records[since:]):
        match record.fact:
            case RunCompleted():
                return "completed"
            case RunFailed():
                return "failed"
            case RunCancelled():
                return "cancelled"
            case RunTimedOut():
                return "timed_out"
    if any(isinstance(record.fact, RunParked) for record in records[since:]):
        return "needs_attention"
    if due_joins(state):
        return "running"
    asleep = {t.task for t in state.timers.values() if not t.fired_at}
    asleep |= {w.task for w in state.waits.values() if w.is_open and w.task in state.tasks and serves_now(state, w)}
    questions = [w for w in state.waits.values() if w.is_open and w.task is None]
    if set(state.tasks) <= asleep and (asleep or questions):
        return "waiting"
    return "running"


def serves_now(state, open_wait):
    """A wait of an attempt that failed holds up nobody until the next attempt asks the same."""
    return open_wait.attempt == state.tasks[open_wait.task].attempt


@given(histories())
def test_active_time_runs_only_while_the_run_is_claimed_and_not_parked(records):
    expected, groups = 0, [list(group) for _, group in groupby_boundary(records)]
    for one, other in pairwise(groups):
        state = fold([r for group in groups for r in group if r.seq <= one[-1].seq])
        # Whoever waits for a child is to be taken up, and does nothing itself.
        waits = state.waits_for_child and all(task.open for task in state.tasks.values())
        if state.status == "running" and not waits and not isinstance(other[0].fact, RunClaimed):
            expected += other[0].at - one[-1].at
        if isinstance(other[-1].fact, RunResumed):
            expected = 0
    assert fold(records).active_us == expected


def groupby_boundary(records):
    done = 0

    def group_of(record):
        nonlocal done
        number = done
        done += record.boundary
        return number

    return groupby(records, group_of)


@given(histories())
def test_a_run_wakes_at_the_earliest_of_its_timers_deadlines_and_retries(records):
    state = fold(records)
    times = [t.due_at for t in state.timers.values() if not t.fired_at]
    times += [w.deadline for w in state.waits.values() if w.is_open and w.deadline is not None]
    times += [t.retry_at for t in state.tasks.values() if t.retry_at is not None and not t.open]
    active = state.status in ("running", "waiting")
    assert state.wake_at == (min(times, default=None) if active else None)


@given(histories())
def test_a_task_is_pending_in_exactly_one_place(records):
    state = fold(records)
    queued = [task_id for queue in state.runnable.values() for task_id in queue]
    if state.status in ("running", "waiting", "needs_attention"):
        assert sorted([*queued, *state.delayed]) == sorted(state.tasks)
    assert all(task_id.step == step for step, queue in state.runnable.items() for task_id in queue)
    assert state.waiting_tasks == sum(pending.open > 0 for pending in state.tasks.values())
    assert all(pending.open >= 0 for pending in state.tasks.values())


@given(histories())
def test_every_delivery_is_a_task_that_completes_at_most_once(records):
    delivered = [(r.seq, step) for r in records if isinstance(r.fact, EventEmitted) for step in r.fact.targets]
    delivered += [(r.seq, r.fact.step) for r in records if isinstance(r.fact, JoinFired)]
    failures = [r for r in records if isinstance(r.fact, StepFailed) and r.fact.handler is not None]
    delivered += [(r.seq, r.fact.handler) for r in failures]
    completed = [r.fact.task for r in records if isinstance(r.fact, StepCompleted)]
    ended = completed + [r.fact.task for r in failures]
    assert len(set(ended)) == len(ended)
    state = fold(records)
    if state.status not in ("completed", "cancelled"):
        assert sorted([*ended, *state.tasks]) == sorted(delivered)
    assert state.steps_completed == len(completed)


@given(histories())
def test_a_task_counts_the_failures_that_handlers_took_among_its_ancestors(records):
    """By walking up from each task, over what emitted its event, what it joins and whose failure it handles."""
    by_seq = {record.seq: record.fact for record in records}

    @cache
    def recoveries(task_id):
        counted = Counter()
        if task_id is None:
            return counted
        fact = by_seq[task_id.seq]
        if isinstance(fact, JoinFired):
            for seq in (*fact.events, *((fact.source,) if fact.source else ())):
                counted |= recoveries(by_seq[seq].task)  # the most of each handler in any line of ancestors
            return counted
        counted += recoveries(fact.task)
        if isinstance(fact, StepFailed):
            counted[fact.handler] += 1
        return counted

    state = RunState()
    for record in records:
        evolve(state, record)
        for task_id, new in state.tasks.items():
            if task_id.seq == record.seq:
                assert Counter(new.recoveries) == recoveries(task_id)


@given(histories())
def test_stream_positions_have_no_gap(records):
    position = 0
    for record in records:
        match record.fact:
            case StreamReset():
                position += 1
                assert record.fact.position == position
                assert 0 < record.fact.since < position
            case StreamPublished():
                assert record.fact.first == position + 1
                position += len(record.fact.digests)
    assert fold(records).position == position


@given(histories())
def test_wait_ids_are_never_used_twice(records):
    opened = [r.fact.wait_id for r in records if isinstance(r.fact, WaitOpened)]
    assert len(set(opened)) == len(opened)
    settled = [r.fact.wait_id for r in records if isinstance(r.fact, WaitAnswered | WaitTimedOut)]
    assert len(set(settled)) == len(settled)
    assert set(settled) <= set(opened)


@given(histories())
def test_the_context_holds_the_last_write_of_each_key(records):
    context = {}
    for record in records:
        match record.fact:
            case ContextSet():
                context[record.fact.key] = record.fact.value
            case ContextSpliced(key, keep, tail):
                context[key] = EncodedValue(tail.codec, context[key].data[:keep] + tail.data)
            case ContextDeleted():
                context.pop(record.fact.key, None)
    assert fold(records).context == context


# -- A run and its tasks -----------------------------------------------------------------------------------------------


def test_a_started_run_is_running_with_a_task_for_each_step_that_takes_the_start_event():
    state = run(at(7, *started("a", "b"))).state
    assert (state.workflow, state.uid, state.shape, state.epoch) == ("Flow", "uid", "shape", 1)
    assert state.status == "running"
    assert state.created_at == 7 * SECOND
    assert list(state.tasks) == [A, B]
    assert state.tasks[A].event == event("Start")
    assert (state.tasks[A].attempt, state.tasks[A].created_at) == (1, 7 * SECOND)


def test_a_completed_step_leaves_nothing_of_its_task():
    effects = (ContextSet("n", value(1), A, 1, 0), wait("w4", "Answer", A), TimerSet(A, 1, 0, 9))
    state = run(started("a"), *effects, (WaitClosed("w4"), completed(A))).state
    assert state.tasks == {}
    assert state.waits == {}
    assert state.timers == {}
    assert state.runnable == {"a": {}}
    assert state.context == {"n": value(1)}
    assert state.status == "running"  # nothing to do and nothing awaited


def test_a_failed_step_waits_for_its_retry_and_counts_its_attempts():
    state = run(started("a"), failed(A, 1, retry_at=9)).state
    pending = state.tasks[A]
    assert (pending.attempt, pending.failures, pending.retry_at) == (2, 1, 9 * SECOND)
    assert state.delayed == {A: 9 * SECOND}
    assert state.wake_at == 9 * SECOND
    assert state.runnable["a"] == {}


def test_a_failed_step_keeps_the_effects_of_its_earlier_attempts():
    sent = emitted("Work", by=A, k=0)
    state = run(started("a"), (sent, failed(A, 1, 9)), emitted("Work", by=A, attempt=2, k=0)).state
    assert sorted(state.tasks[A].effects) == [1, 2]
    assert state.tasks[A].effects[1][Place(SENT, "Work", 0)].seq == 3
    assert state.tasks[A].effects[2][Place(SENT, "Work", 0)].seq == 5


def test_a_failed_step_sleeps_no_more_and_holds_no_wait():
    state = run(started("a"), TimerSet(A, 1, 0, 9), wait("w4", "Answer", A), failed(A, 1, 20)).state
    assert state.timers == {}
    assert state.tasks[A].open == 0
    assert state.waits["w4"].is_open  # it may serve the next attempt
    assert state.status == "running"


def test_a_failure_remembers_when_the_first_attempt_began_and_what_the_last_one_raised():
    failure = StepFailed(A, 1, ("E", "m"), 9 * SECOND, exception=value("it"), began_at=3)
    pending = run(started("a"), at(5, failure)).state.tasks[A]
    assert (pending.began_at, pending.failed_at, pending.exception) == (3, 5 * SECOND, value("it"))


def test_a_failure_that_a_handler_takes_ends_its_task_and_is_the_handlers_task():
    groups = (
        started("a", "b"),
        TimerSet(A, 1, 0, 9),
        wait("w4", "Answer", A),
        (WaitClosed("w4"), handled(A, "rescue")),
    )
    state = run(*groups).state
    rescue = task("rescue", seq=6)
    assert list(state.tasks) == [B, rescue]
    assert state.tasks[rescue].event == event("StepFailedEvent")
    assert (state.tasks[rescue].attempt, state.tasks[rescue].failures) == (1, 0)
    assert (state.runnable["a"], state.runnable["rescue"]) == ({}, {rescue: None})
    assert (state.timers, state.waits, state.waiting_tasks, state.steps_completed) == ({}, {}, 0, 0)
    assert state.status == "running"


def test_recoveries_are_counted_by_handler_and_inherited():
    first = task("rescue", seq=3)
    groups = (started("a", "b"), handled(A, "rescue"), (emitted("Work", "a", "b", by=first), completed(first)))
    state = run(*groups).state
    second = task("a", seq=4)
    assert {t: pending.recoveries for t, pending in state.tasks.items()} == {
        B: None, second: {"rescue": 1}, task("b", seq=4): {"rescue": 1},
    }  # fmt: skip
    state = run(*groups, handled(second, "rescue"), handled(task("b", seq=4), "other")).state
    assert state.tasks[task("rescue", seq=6)].recoveries == {"rescue": 2}
    assert state.tasks[task("other", seq=7)].recoveries == {"rescue": 1, "other": 1}


def test_an_event_from_outside_has_no_ancestors():
    first = task("rescue", seq=3)
    state = run(started("a"), handled(A, "rescue"), (completed(first),), emitted("Work", "a")).state
    assert [pending.recoveries for pending in state.tasks.values()] == [None]


def test_an_ended_run_that_is_resumed_runs_its_failed_tasks_anew():
    state = run(started("a", "b"), (failed(A, 1), RunFailed(("E", "m"), "a")), RunResumed("me")).state
    assert (state.status, state.error, state.error_step) == ("running", None, None)
    assert set(state.runnable["a"]) == {A}
    assert (state.tasks[A].attempt, state.tasks[A].failures, state.tasks[A].error) == (2, 0, None)
    assert (state.tasks[A].began_at, state.tasks[A].failed_at, state.tasks[A].exception) == (None, None, None)


def test_a_resumed_run_keeps_the_retry_times_of_other_tasks():
    ends = (failed(A, 1), RunFailed(("E", "m"), "a"))
    state = run(started("a", "b"), failed(B, 1, retry_at=50), ends, RunResumed("me")).state
    assert state.delayed == {B: 50 * SECOND}
    assert state.tasks[B].failures == 1


def test_resuming_begins_a_new_budget_of_active_time():
    state = run(at(0, *started("a")), at(40, RunTimedOut("late")), at(100, RunResumed("me"))).state
    assert (state.active_us, state.active) == (0, True)


@pytest.mark.parametrize("end", [RunCompleted(event("Stop"), A), RunCancelled("enough")])
def test_a_run_that_ended_for_good_holds_nothing_pending(end):
    groups = (started("a", "b"), wait("w3", "Answer", A), TimerSet(B, 1, 0, 9), EventCollected(B, 1, "x", 0, event()))
    state = run(*groups, failed(B, 1, 50), end).state
    left = (state.tasks, state.runnable, state.delayed, state.waits, state.timers, state.buffers)
    assert left == ({}, {}, {}, {}, {}, {})
    assert state.waiting_tasks == 0
    assert state.wake_at is None


def test_a_claim_raises_the_epoch_and_claims_are_counted_until_something_happens():
    claims = (RunClaimed(2, "w2", "w1"), RunClaimed(3, "w3", "w2"))
    assert (run(started("a"), *claims).state.epoch, run(started("a"), *claims).state.claims) == (3, 2)
    assert run(started("a"), *claims, ContextSet("n", value(1), None, 0, 0)).state.claims == 0


def test_a_worker_that_gave_the_run_back_has_survived_it_so_its_claim_does_not_count():
    claims = (RunClaimed(2, "w2", "w1"), RunClaimed(3, "w3", None))
    assert run(started("a"), *claims).state.claims == 0


def test_a_parked_run_needs_attention_until_it_is_resumed():
    parked = (started("a"), wait("w3", "Answer", A, deadline=9), RunParked("restore step 'a'"))
    assert (run(*parked).state.status, run(*parked).state.wake_at) == ("needs_attention", None)
    assert run(*parked, RunResumed("me")).state.status == "waiting"


# -- Events that nobody handles ----------------------------------------------------------------------------------------


def test_events_that_reach_no_step_are_remembered_once_and_not_without_end():
    lost = [emitted(f"Lost{n}") for n in range(MAX_UNHANDLED + 5)]
    state = run(started("a"), emitted("Lost0"), *lost).state
    assert state.unhandled == [f"Lost{n}" for n in range(MAX_UNHANDLED)]


def test_an_answer_and_a_returned_question_are_not_unhandled():
    question = (emitted("Question", by=A), wait("w4", "Answer", prompt=event("Question"), human=True), completed(A))
    answer = (emitted("Answer", answers="w4"), WaitAnswered("w4"))
    assert run(started("a"), question, answer).state.unhandled == []


# -- Time --------------------------------------------------------------------------------------------------------------


def test_downtime_before_a_claim_is_not_active_time():
    groups = (at(0, *started("a")), at(10, ContextSet("n", value(1), A, 1, 0)), at(5000, RunClaimed(2, "w")))
    assert run(*groups).state.active_us == 10 * SECOND
    assert run(*groups, at(5003, completed(A))).state.active_us == 13 * SECOND


def test_time_parked_on_a_human_is_not_active_time():
    groups = (at(0, *started("a")), at(2, wait("w3", "Answer", A)), at(90, emitted("Answer"), WaitAnswered("w3")))
    assert run(*groups).state.active_us == 2 * SECOND
    assert run(*groups, at(91, completed(A))).state.active_us == 3 * SECOND


def test_time_asleep_is_not_active_time_and_a_retry_delay_is():
    asleep = (at(0, *started("a")), at(1, TimerSet(A, 1, 0, 60 * SECOND)), at(61, TimerFired(3)))
    assert run(*asleep).state.active_us == 1 * SECOND
    delayed = (at(0, *started("a")), at(1, failed(A, 1, retry_at=61)), at(62, completed(A, 2)))
    assert run(*delayed).state.active_us == 62 * SECOND


def test_a_run_is_as_active_inside_a_group_as_before_it():
    state = fold(numbered([at(0, *started("a")), at(9, wait("w3", "Answer", A), published(1, "Question"))])[:-1])
    assert state.active
    assert state.boundary == 2


def test_one_task_that_works_keeps_the_run_from_waiting():
    groups = (started("a", "b"), wait("w3", "Answer", A))
    assert run(*groups).state.status == "running"
    assert run(*groups, completed(B)).state.status == "waiting"


def test_a_retried_task_that_waits_does_not_wake_the_run_for_the_retry_that_has_begun():
    groups = (at(0, *started("a")), at(1, failed(A, 1, retry_at=5)), at(6, wait("w4", "Answer", A, attempt=2)))
    assert run(*groups).state.status == "waiting"
    assert run(*groups).state.wake_at is None


# -- Effects -----------------------------------------------------------------------------------------------------------


def effect_of(*groups, attempt=1):
    """The single effect that task A has recorded in this attempt."""
    [effect] = run(started("a"), *groups).state.tasks[A].effects[attempt].values()
    return effect


def test_a_sent_event_is_an_effect_and_a_returned_one_is_not():
    sent = emitted("Work", "b", by=A, k=0)
    assert effect_of(sent) == Effect(Place(SENT, "Work", 0), 3, (event("Work"), None))
    state = run(started("a"), emitted("Work", "b", by=A)).state
    assert state.tasks[A].effects is None
    assert list(state.tasks) == [A, task("b", 3)]


def test_a_write_keeps_the_value_that_it_replaced():
    first, second = ContextSet("n", value(1), A, 1, 0), ContextSet("n", value(2), A, 1, 1)
    effects = run(started("a"), first, second).state.tasks[A].effects[1]
    assert effects[Place(WRITE, "n", 0)] == Effect(Place(WRITE, "n", 0), 3, value(1), None, None)
    assert effects[Place(WRITE, "n", 1)] == Effect(Place(WRITE, "n", 1), 4, value(2), None, value(1))


def test_a_deletion_is_a_write_without_content():
    effects = run(started("a"), ContextSet("n", value(1), None, 0, 0), ContextDeleted("n", A, 1, 0)).state
    assert effects.context == {}
    assert effects.tasks[A].effects[1] == {Place(WRITE, "n", 0): Effect(Place(WRITE, "n", 0), 4, None, None, value(1))}


def test_a_write_from_outside_belongs_to_no_task():
    state = run(started("a"), ContextSet("n", value(1), None, 0, 0)).state
    assert state.context == {"n": value(1)}
    assert state.tasks[A].effects is None


def test_deleting_from_outside_a_key_that_is_gone_changes_nothing():
    assert run(started("a"), ContextDeleted("n", None, 0, 0)).state.context == {}


def test_a_call_keeps_its_arguments_and_its_result():
    recorded = CallRecorded(A, 1, "charge", 0, "digest", value("receipt"))
    assert effect_of(recorded) == Effect(Place(CALL, "charge", 0), 3, "digest", value("receipt"))


def test_a_sleep_is_a_timer_with_its_seq_as_outcome():
    assert effect_of(TimerSet(A, 1, 0, 9)) == Effect(Place(SLEEP, "", 0), 3, None, 3)
    state = run(started("a"), TimerSet(A, 1, 0, 9 * SECOND)).state
    assert (state.status, state.wake_at) == ("waiting", 9 * SECOND)
    fired = run(started("a"), TimerSet(A, 1, 0, 9 * SECOND), TimerFired(3)).state
    assert (fired.status, fired.wake_at, fired.timers[3].fired_at) == ("running", None, 4)


def test_a_checkpoint_names_its_position():
    assert effect_of(CheckpointNamed(A, 1, "half", 0)) == Effect(Place(CHECKPOINT, "half", 0), 3)
    assert run(started("a"), CheckpointNamed(A, 1, "half", 0)).state.checkpoints == {"half": 3}


def test_each_stream_item_is_an_effect_with_its_position_as_outcome():
    state = run(started("a"), published(1, "x", "y", by=A), published(3, "z", by=A, k=2)).state
    found = [(e.place.k, e.content, e.outcome) for e in state.tasks[A].effects[1].values()]
    assert found == [(0, "x", 1), (1, "y", 2), (2, "z", 3)]
    assert state.position == 3


def test_a_stream_reset_takes_a_position_and_forgets_the_items_behind_it():
    items = published(1, "x", "y", "z", by=A)
    state = run(started("a"), items, StreamReset(A, 1, 1, 4, 2)).state
    assert list(state.tasks[A].effects[1]) == [Place(STREAM, "", 0)]
    assert state.position == 4


def test_a_collected_event_stays_in_its_buffer_until_it_is_released():
    work, other = event("Work"), event("Other")
    collected = (EventCollected(A, 1, "both", 0, work), EventCollected(A, 1, "both", 1, other))
    state = run(started("a"), *collected).state
    assert state.buffers == {"both": [work, other]}
    assert state.tasks[A].effects[1][Place(COLLECT, "both", 0)] == Effect(Place(COLLECT, "both", 0), 3, work)


def test_a_release_gives_the_events_in_the_order_asked_for_oldest_first_and_leaves_the_rest():
    one, two, other = event("Work", "1"), event("Work", "2"), event("Other")
    collected = [EventCollected(A, 1, "both", k, e) for k, e in enumerate((one, two, other))]
    state = run(started("a"), *collected, BufferReleased(A, 1, "both", 2, ("Other", "Work"))).state
    assert state.tasks[A].effects[1][Place(COLLECT, "both", 2)].outcome == (other, one)
    assert state.buffers == {"both": [two]}


def test_an_emptied_buffer_is_gone():
    groups = (EventCollected(A, 1, "x", 0, event()), BufferReleased(A, 1, "x", 0, ("Work",)))
    assert run(started("a"), *groups).state.buffers == {}


def test_a_wait_keeps_its_question_and_its_id_as_outcome():
    opened = wait("w3", "Answer", A, prompt=event("Question"), deadline=9, human=True)
    content = (("Answer",), event("Question"), None)
    assert effect_of(opened) == Effect(Place(WAIT, "Answer", 0), 3, content, "w3")
    named = wait("w3", "Answer", A, name="mine")
    assert effect_of(named).place == Place(WAIT, "mine", 0)
    state = run(started("a"), opened).state
    assert (state.status, state.wake_at) == ("waiting", 9 * SECOND)
    assert state.waits["w3"].opened_at == 2 * SECOND


def test_the_answer_of_a_wait_stays_until_its_task_ends():
    answer = (emitted("Answer", answers="w3", data="yes"), WaitAnswered("w3"))
    state = run(started("a"), wait("w3", "Answer", A, human=True), answer).state
    assert state.waits["w3"].answer == event("Answer", "yes")
    assert not state.waits["w3"].is_open
    assert state.waits["w3"].settled_at == 5
    assert state.answered == {"Answer": "w3"}
    assert state.status == "running"


def test_an_event_that_a_step_waited_for_is_not_remembered_as_the_answer_of_a_person():
    groups = (started("a"), wait("w3", "Ready", A), (emitted("Ready", answers="w3"), WaitAnswered("w3")))
    assert run(*groups).state.answered == {}


def test_the_answer_to_a_returned_question_closes_it_for_good():
    answer = (emitted("Answer", "b", answers="w3"), WaitAnswered("w3"))
    state = run(started(), wait("w3", "Answer", human=True), answer).state
    assert state.waits == {}
    assert state.answered == {"Answer": "w3"}
    assert list(state.tasks) == [task("b", 4)]


def test_a_wait_that_timed_out_has_no_answer_and_lets_its_step_go_on():
    state = run(started("a"), wait("w3", "Answer", A, deadline=9), WaitTimedOut("w3")).state
    assert state.waits["w3"].timed_out
    assert not state.waits["w3"].is_open
    assert (state.status, state.wake_at) == ("running", None)


def test_a_closed_wait_is_gone_and_lets_its_step_go_on():
    state = run(started("a"), wait("w3", "Answer", A), WaitClosed("w3")).state
    assert state.waits == {}
    assert state.status == "running"


def test_a_step_with_several_waits_is_suspended_until_none_is_open():
    waits = (wait("w3", "Answer", A), wait("w4", "Answer", A, k=1))
    one = (emitted("Answer", answers="w3"), WaitAnswered("w3"))
    other = (emitted("Answer", answers="w4"), WaitAnswered("w4"))
    assert run(started("a"), *waits, one).state.status == "waiting"
    assert run(started("a"), *waits, one, other).state.status == "running"


def test_a_divergence_is_remembered_at_its_place():
    state = run(started("a"), StepDiverged(A, 1, WRITE, "n", 0), StepDiverged(A, 1, SENT, "Work", 2)).state
    assert state.tasks[A].diverged == {Place(WRITE, "n", 0), Place(SENT, "Work", 2)}


# -- Effects that a later attempt uses again ---------------------------------------------------------------------------


def test_a_reused_effect_has_the_content_and_outcome_of_its_origin_at_its_new_place():
    charge = CallRecorded(A, 1, "charge", 0, "digest", value("receipt"))
    state = run(started("a"), (charge, failed(A, 1, 5)), EffectReused(A, 2, CALL, "charge", 3, 3)).state
    place = Place(CALL, "charge", 3)
    assert state.tasks[A].effects[2] == {place: Effect(place, 5, "digest", value("receipt"), origin=3)}


def test_a_third_attempt_uses_again_what_the_first_recorded():
    charge = CallRecorded(A, 1, "charge", 0, "digest", value("receipt"))
    reused = (EffectReused(A, 2, CALL, "charge", 0, 3), failed(A, 2, 9))
    state = run(started("a"), (charge, failed(A, 1, 5)), reused, EffectReused(A, 3, CALL, "charge", 0, 3)).state
    assert state.tasks[A].effects[3][Place(CALL, "charge", 0)].origin == 3
    assert state.tasks[A].effects[3][Place(CALL, "charge", 0)].outcome == value("receipt")


def test_a_reused_open_wait_suspends_the_new_attempt():
    groups = (started("a"), (wait("w3", "Answer", A), failed(A, 1, 5)))
    reused = EffectReused(A, 2, WAIT, "Answer", 0, 3)
    answer = (emitted("Answer", answers="w3"), WaitAnswered("w3"))
    assert run(*groups, reused).state.status == "waiting"
    assert run(*groups, reused, answer).state.status == "running"


def test_a_reused_answered_wait_does_not_suspend():
    answer = (emitted("Answer", answers="w3"), WaitAnswered("w3"))
    groups = (started("a"), wait("w3", "Answer", A), answer, failed(A, 1, 5), EffectReused(A, 2, WAIT, "Answer", 0, 3))
    state = run(*groups).state
    assert state.status == "running"
    assert state.tasks[A].open == 0


def test_an_answer_in_the_retry_delay_does_not_disturb_the_count_of_open_waits():
    answer = (emitted("Answer", answers="w3"), WaitAnswered("w3"))
    state = run(started("a"), wait("w3", "Answer", A), failed(A, 1, 60), answer).state
    assert state.tasks[A].open == 0
    assert state.waiting_tasks == 0
    assert not state.waits["w3"].is_open
