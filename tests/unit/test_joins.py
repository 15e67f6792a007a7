"""Fan-outs: what belongs to one, when its joins fire and with what, and that none is left open for nothing."""

from __future__ import annotations

from copy import deepcopy

import pytest
from given import ERROR, SECOND, at, completed, event, failed, returned, started, task, wait
from given import given as run
from hypothesis import given
from hypothesis import strategies as st
from strategies import histories, random_history

from durable_flow.decide import decide
from durable_flow.fold import evolve, fold
from durable_flow.fold_joins import SlotRoute, slot_route
from durable_flow.incoming import Collectors, EventReceived, Question, ResumeRequested, StepRaised
from durable_flow.joins import due_joins
from durable_flow.records import (
    EventEmitted,
    FanOutClosed,
    FanOutOpened,
    JoinFired,
    Record,
    RunClaimed,
    StepCompleted,
    TaskId,
    WaitAnswered,
)
from durable_flow.state import RunState

SPLIT = task("split")


def opened(by=SPLIT, *, attempt=1, **takes):
    """A fan-out for these joins, each with its number (0: all)."""
    return FanOutOpened(by, attempt, tuple(takes), tuple(takes.values()))


def part(name, *targets, by=SPLIT, joins=(), k=None):
    return EventEmitted(event(name), by, 1, k, targets, joins=joins)


def fired_by(*groups):
    """Everything that is due after these groups, until nothing is."""
    state = run(*groups).state
    facts = []
    while group := due_joins(state):
        facts += group
        for n, fact in enumerate(group, 1):
            evolve(state, Record(state.seq + 1, state.last_at, n == len(group), fact))
    return facts


# -- A list that a step returns ----------------------------------------------------------------------------------------

# Records 1 and 2 start the run, 3 is the fan-out, 4 and 5 its elements, 6 the end of the step that returned them.
TWO_PARTS = (
    started("split"),
    (opened(gather=0), part("Part", "work"), part("Part", "work"), completed(SPLIT)),
)
FIRST, SECOND_PART = task("work", 4), task("work", 5)


def test_a_returned_list_that_is_collected_opens_a_fan_out_before_its_elements():
    parts = (part("Part", "work"), part("Part", "work"))
    incoming = returned(SPLIT, *parts)._replace(fan_out=Collectors(("gather",), (0,)))
    run(started("split")).when(incoming).then(opened(gather=0), *parts, completed(SPLIT))


def test_nothing_is_due_while_an_element_is_pending():
    assert fired_by(*TWO_PARTS) == []
    assert fired_by(*TWO_PARTS, (part("Result", by=FIRST, joins=("gather",)), completed(FIRST))) == []


def test_the_join_gets_everything_in_the_order_of_emission_and_the_fan_out_closes():
    facts = fired_by(
        *TWO_PARTS,
        (part("Result", by=SECOND_PART, joins=("gather",)), completed(SECOND_PART)),
        (part("Result", by=FIRST, joins=("gather",)), completed(FIRST)),
    )
    assert facts == [JoinFired("gather", 3, 0, (7, 9)), FanOutClosed(3)]


def test_an_empty_list_fires_the_join_with_nothing():
    facts = fired_by(started("split"), (opened(gather=0), completed(SPLIT)))
    assert facts == [JoinFired("gather", 3, 0, ()), FanOutClosed(3)]


def test_the_task_of_a_join_has_the_events_and_is_named_after_the_record():
    state = run(
        started("split"),
        (opened(gather=0), part("Part", joins=("gather",)), completed(SPLIT)),
        (JoinFired("gather", 3, 0, (4,)), FanOutClosed(3)),
    ).state
    [pending] = state.tasks.values()
    assert pending.id == TaskId(6, "gather")
    assert pending.event is None
    assert pending.joined == (event("Part"),)
    assert list(state.runnable["gather"]) == [pending.id]


def test_a_retry_keeps_the_fan_out_open_and_what_it_returns_belongs_to_it():
    groups = (started("split"), (opened(gather=0), part("Part", "work"), completed(SPLIT)))
    assert fired_by(*groups, failed(FIRST, retry_at=60)) == []
    late = EventEmitted(event("Result"), FIRST, 2, None, (), joins=("gather",))
    facts = fired_by(*groups, failed(FIRST, retry_at=60), at(60, late, completed(FIRST, 2)))
    assert facts == [JoinFired("gather", 3, 0, (7,)), FanOutClosed(3)]


def test_what_was_sent_belongs_to_the_fan_out_of_the_sender():
    sent = part("More", "work", by=FIRST, k=0)
    groups = (started("split"), (opened(gather=0), part("Part", "work"), completed(SPLIT)), sent, completed(FIRST))
    assert fired_by(*groups) == []
    more = task("work", 6)
    facts = fired_by(*groups, (part("Result", by=more, joins=("gather",)), completed(more)))
    assert facts == [JoinFired("gather", 3, 0, (8,)), FanOutClosed(3)]


def test_what_the_step_sent_before_it_returned_its_list_is_no_element():
    sent = part("More", "work", k=0)
    groups = (started("split"), (sent, opened(gather=0), completed(SPLIT)))
    assert run(*groups).state.tasks[TaskId(3, "work")].scope == 0
    assert fired_by(*groups) == [JoinFired("gather", 4, 0, ()), FanOutClosed(4)]


# -- Take --------------------------------------------------------------------------------------------------------------


def test_take_fires_at_its_number_and_never_again():
    three = [part("Part", joins=("few",)) for _ in range(3)]
    facts = fired_by(started("split"), (opened(few=2), *three, completed(SPLIT)))
    assert facts == [JoinFired("few", 3, 0, (4, 5)), FanOutClosed(3)]


def test_take_fires_before_the_rest_has_ended():
    facts = fired_by(
        started("split"),
        (opened(few=1), part("Part", "work"), part("Part", "work"), completed(SPLIT)),
        (part("Result", by=FIRST, joins=("few",)), completed(FIRST)),
    )
    assert facts == [JoinFired("few", 3, 0, (7,))]


def test_take_gets_what_came_when_the_fan_out_ends_before():
    facts = fired_by(started("split"), (opened(few=5), part("Part", joins=("few",)), completed(SPLIT)))
    assert facts == [JoinFired("few", 3, 0, (4,)), FanOutClosed(3)]


def test_each_join_of_a_fan_out_collects_for_itself():
    both = part("Part", joins=("gather", "few"))
    facts = fired_by(started("split"), (opened(gather=0, few=1), both, both, completed(SPLIT)))
    assert facts == [JoinFired("few", 3, 0, (4,)), JoinFired("gather", 3, 0, (4, 5)), FanOutClosed(3)]


# -- One within another ------------------------------------------------------------------------------------------------


def test_an_inner_fan_out_keeps_the_outer_one_open_and_its_join_belongs_there():
    groups = (
        started("split"),
        (opened(outer=0), part("Part", "work"), completed(SPLIT)),
        (opened(FIRST, inner=0), part("Piece", by=FIRST, joins=("inner",)), completed(FIRST)),
    )
    # 6 is the inner fan-out, 7 its element; the outer one waits for the inner join's task.
    assert fired_by(*groups) == [JoinFired("inner", 6, 3, (7,)), FanOutClosed(6)]
    state = run(*groups, (JoinFired("inner", 6, 3, (7,)), FanOutClosed(6))).state
    assert list(state.fan_outs) == [3]
    inner = task("inner", 9)
    facts = fired_by(
        *groups,
        (JoinFired("inner", 6, 3, (7,)), FanOutClosed(6)),
        (part("Sum", by=inner, joins=("outer",)), completed(inner)),
    )
    assert facts == [JoinFired("outer", 3, 0, (11,)), FanOutClosed(3)]


# -- Questions ---------------------------------------------------------------------------------------------------------

ASKED = (
    started("split"),
    (opened(gather=0), part("Ask"), wait("w5", "Answer", prompt=event("Ask"))._replace(scope=3), completed(SPLIT)),
)


def test_a_returned_question_belongs_to_the_fan_out():
    question = Question(part("Ask"), ("Answer",), None)
    incoming = returned(SPLIT, question)._replace(fan_out=Collectors(("gather",), (0,)))
    facts = run(started("split")).when(incoming).facts
    assert [fact.scope for fact in facts if isinstance(fact, type(wait("w", "Answer")))] == [3]


def test_an_open_question_keeps_the_fan_out_open_and_its_answer_belongs_to_it():
    assert fired_by(*ASKED) == []
    answer = EventEmitted(event("Answer"), None, 0, None, ("work",), None, "w5", ("gather",))
    groups = (*ASKED, (answer, WaitAnswered("w5")))
    assert run(*groups).state.tasks[TaskId(7, "work")].scope == 3
    assert fired_by(*groups) == []
    assert fired_by(*groups, completed(task("work", 7))) == [JoinFired("gather", 3, 0, (7,)), FanOutClosed(3)]


def test_what_comes_from_outside_belongs_to_no_fan_out():
    outside = EventEmitted(event("More"), None, 0, None, ("work",))
    assert run(*TWO_PARTS).when(EventReceived(outside)).state.tasks[TaskId(7, "work")].scope == 0


def test_a_run_whose_join_is_due_is_not_parked_by_a_question_beside_it():
    question = wait("w3", "Answer", prompt=event("Ask"))
    state = run(started("split"), question, (opened(gather=0), completed(SPLIT))).state
    assert state.status == "running"


# -- Several event parameters ------------------------------------------------------------------------------------------


def slot(name, slots, by=None):
    return EventEmitted(event(name), by, 0 if by is None else 1, None, (), joins=(slots,))


def test_one_each_fires_for_every_complete_set_the_oldest_first():
    facts = fired_by(
        started(),
        *(slot("A", "pair.a/2") for _ in range(3)),
        *(slot("B", "pair.b/2") for _ in range(2)),
    )
    assert facts == [JoinFired("pair", 0, 0, (3, 6)), JoinFired("pair", 0, 0, (4, 7))]


def test_the_events_of_a_set_come_in_the_order_of_the_parameters_names():
    assert fired_by(started(), slot("Z", "pair.z/2"), slot("B", "pair.b/2")) == [JoinFired("pair", 0, 0, (4, 3))]


def test_two_parameters_of_one_class_take_turns():
    facts = fired_by(started(), *(slot("A", "pair.a|b/2") for _ in range(5)))
    assert facts == [JoinFired("pair", 0, 0, (3, 4)), JoinFired("pair", 0, 0, (5, 6))]


def test_sets_are_complete_within_one_fan_out_only():
    groups = (
        started("split", "other"),
        (opened(), part("A", joins=("pair.a/2",)), part("Part", "work"), completed(SPLIT)),
        slot("B", "pair.b/2"),
    )
    assert fired_by(*groups) == []
    own = task("work", 5)
    facts = fired_by(*groups, (part("B", by=own, joins=("pair.b/2",)), completed(own)))
    # The set's task belongs to the fan-out and keeps it open.
    assert facts == [JoinFired("pair", 0, 3, (4, 8))]


def test_what_is_left_over_goes_with_its_fan_out():
    state = run(started("split"), (opened(), part("A", joins=("pair.a/2",)), completed(SPLIT)), FanOutClosed(3)).state
    assert state.fan_outs == {}
    assert state.slots == {}


@given(st.from_regex(r"[a-z_]+", fullmatch=True), st.lists(st.from_regex(r"[a-z]+", fullmatch=True), min_size=1))
def test_a_slot_route_reads_back_as_it_was_written(step, parameters):
    route = SlotRoute(step, tuple(parameters), len(parameters))
    assert slot_route(str(route)) == route
    assert slot_route(step) is None


# -- The end of the run ------------------------------------------------------------------------------------------------


def test_nothing_is_due_in_a_run_that_has_ended_or_needs_attention():
    groups = (started("split"), (opened(gather=0), completed(SPLIT)))
    parked = run(started("split"), (opened(gather=0), part("Part", "work"), completed(SPLIT)))
    parked = parked.when(StepRaised(FIRST, 1, (), ERROR, None, "look at it")).state
    assert due_joins(parked) == []
    ended = run(*groups).state
    ended.ended = "failed"
    assert due_joins(ended) == []


def test_a_run_that_failed_keeps_its_fan_outs_for_a_retry_and_one_that_completed_does_not():
    state = run(*TWO_PARTS).when(StepRaised(FIRST, 1, (), ERROR, None)).state
    assert list(state.fan_outs) == [3]
    state = run(*TWO_PARTS).when(returned(FIRST, stop=event("Stop"))).state
    assert (state.fan_outs, state.slots, state.ripe, state.idle) == ({}, {}, {}, {})


# -- Laws --------------------------------------------------------------------------------------------------------------


@given(histories())
def test_a_run_taken_up_at_any_boundary_fires_what_its_journal_shows_next(records):
    """Whatever was written last: the state alone tells which fan-in is due, and with what."""
    state = RunState()
    for at_, record in enumerate(records):
        evolve(state, record)
        if record.boundary and at_ + 1 < len(records):
            group = group_from(records, at_ + 1)
            due = due_joins(state)
            shown = [fact for fact in group if isinstance(fact, JoinFired | FanOutClosed)]
            assert shown == due


def group_from(records, start):
    facts = []
    for record in records[start:]:
        facts.append(record.fact)
        if record.boundary:
            break
    return facts


@given(histories())
def test_a_fan_out_counts_exactly_what_keeps_it_open(records):
    state = RunState()
    for record in records:
        evolve(state, record)
        assert state.idle.keys() == {seq for seq, fan_out in state.fan_outs.items() if not fan_out.open}
    for seq, fan_out in state.fan_outs.items():
        tasks = sum(pending.scope == seq for pending in state.tasks.values())
        questions = sum(w.task is None and w.scope == seq for w in state.waits.values())
        inner = sum(other.parent == seq for other in state.fan_outs.values())
        assert fan_out.open == tasks + questions + inner


@given(histories())
def test_no_fan_out_is_left_open_for_nothing(records):
    """A fan-out that can never complete is impossible: once nothing is pending in the run, every one has closed."""
    state = fold(records)
    if not state.ended and not state.attention and not state.tasks and not state.waits:
        assert state.fan_outs == {}
        assert not state.ripe


@pytest.mark.parametrize("tens", range(20))
def test_every_join_fires_once_per_fan_out_with_what_was_collected_there(tens):
    for seed in range(10 * tens, 10 * tens + 10):
        check_joins(random_history(seed, 150))


def check_joins(records):
    openings = {r.seq: r.fact for r in records if isinstance(r.fact, FanOutOpened)}
    closed = [r.fact.source for r in records if isinstance(r.fact, FanOutClosed)]
    fired = [(r.fact.source, r.fact.step) for r in records if isinstance(r.fact, JoinFired) and r.fact.source]
    assert len(set(fired)) == len(fired)
    assert len(set(closed)) == len(closed)
    for source in closed:
        assert {step for seq, step in fired if seq == source} == set(openings[source].joins)
    used = [seq for r in records if isinstance(r.fact, JoinFired) and not r.fact.source for seq in r.fact.events]
    assert len(set(used)) == len(used)  # an event is one of one set only
    for record in records:
        if isinstance(record.fact, JoinFired) and record.fact.source:
            assert list(record.fact.events) == collected_by(records, record)


def collected_by(records, fired):
    """What a join must have got: its events of the fan-out's descendants, followed through the journal."""
    scope_of_task, scope_of_wait, opened_by, found, take = {}, {}, {}, [], 0
    for record in records[: fired.seq - 1]:
        fact = record.fact
        if isinstance(fact, FanOutOpened):
            opened_by[fact.task] = record.seq
            if record.seq == fired.fact.source:
                take = dict(zip(fact.joins, fact.takes, strict=True))[fired.fact.step]
        elif isinstance(fact, EventEmitted):
            if fact.answers in scope_of_wait:
                scope = scope_of_wait[fact.answers]
            elif fact.k is None and fact.task in opened_by:
                scope = opened_by[fact.task]
            else:
                scope = scope_of_task.get(fact.task, 0)
            scope_of_task.update({TaskId(record.seq, target): scope for target in fact.targets})
            if scope == fired.fact.source and fired.fact.step in fact.joins:
                found.append(record.seq)
        elif isinstance(fact, JoinFired):
            scope_of_task[TaskId(record.seq, fact.step)] = fact.scope
        elif type(fact).__name__ == "WaitOpened" and fact.task is None:
            scope_of_wait[fact.wait_id] = fact.scope
    return found[:take] if take else found


def test_the_histories_have_enough_of_everything():
    facts = [r.fact for seed in range(200) for r in random_history(seed, 150)]
    fired = [f for f in facts if isinstance(f, JoinFired)]
    assert sum(isinstance(f, FanOutClosed) for f in facts) > 30
    assert sum(f.source == 0 for f in fired) > 50  # sets of one each
    assert sum(f.scope > 0 for f in fired) > 5  # fan-outs within fan-outs
    assert sum(len(f.events) > 1 for f in fired) > 50


def test_deciding_to_resume_makes_what_was_due_before_due_again():
    state = run(started("split"), (opened(gather=0), completed(SPLIT)), RunClaimed(2, "w")).state
    state.attention = "look"
    assert due_joins(state) == []
    before = deepcopy(state)
    [fact] = decide(state, ResumeRequested("someone"))
    evolve(state, Record(state.seq + 1, SECOND, True, fact))
    assert before.idle == state.idle
    assert due_joins(state) == [JoinFired("gather", 3, 0, ()), FanOutClosed(3)]


def test_a_step_completed_twice_over_a_crash_is_counted_once():
    state = run(*TWO_PARTS, completed(FIRST)).state
    assert state.fan_outs[3].open == 1
    assert decide(state, returned(FIRST)) == []
    assert StepCompleted(FIRST, 1).task not in state.tasks
