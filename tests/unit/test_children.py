"""Children of a run in its facts: what is decided about them, what is folded, and how their ids are made."""

from __future__ import annotations

import re

from given import SECOND, at, completed, event, failed, given, numbered, started, task, value, wait

from durable_flow.engine.child_ids import child_run_id
from durable_flow.fold import fold
from durable_flow.incoming import CancelRequested, ChildAsks, ChildOver, ResumeRequested, StartRequested
from durable_flow.journal.deputies import deputy, wait_id_of
from durable_flow.journal.runid import require_run_id
from durable_flow.records import (
    CHILD,
    ChildAsked,
    ChildEnded,
    ChildStarted,
    EffectReused,
    EventEmitted,
    Place,
    RunCancelled,
    RunFailed,
    RunParked,
    RunStarted,
    RunTimedOut,
    StreamPublished,
    TaskId,
)
from durable_flow.state import Effect, RunState

A, B = task("a"), task("b")


def child(k: int = 0, *, run_id: str | None = None, by: TaskId = A, attempt: int = 1) -> ChildStarted:
    independent = run_id is not None
    return ChildStarted(by, attempt, k, "Leg", run_id or f"leg-{k}", value(k), independent)


def run(*groups) -> RunState:
    return fold(numbered(groups))


# -- The fold ----------------------------------------------------------------------------------------------------------


def test_a_started_child_is_an_effect_with_its_seq_as_outcome():
    state = run(started("a"), child(2))
    assert state.tasks[A].effects[1] == {Place(CHILD, "Leg", 2): Effect(Place(CHILD, "Leg", 2), 3, (value(2), None), 3)}
    named = run(started("a"), child(run_id="mine"))
    assert named.tasks[A].effects[1][Place(CHILD, "Leg", 0)].content == (value(0), "mine")


def test_a_run_that_waits_for_a_child_is_running_and_uses_no_time():
    state = run(at(1, *started("a")), at(3, child()), at(90, ChildAsked(3, 1)))
    assert (state.status, state.active, state.active_us) == ("running", False, 2 * SECOND)
    ended = run(at(1, *started("a")), at(3, child()), at(90, ChildEnded(3, "completed")))
    assert (ended.status, ended.active, ended.active_us) == ("running", True, 2 * SECOND)


def test_a_run_that_waits_for_a_human_beside_a_left_child_only_waits():
    """Nobody in the run waits for that child."""
    state = run(started("a"), child(), completed(A), wait("w5", "Answer", human=True))
    assert state.status == "waiting"
    assert [c.run_id for c in state.children.values()] == ["leg-0"]


def test_a_step_with_two_children_waits_until_both_have_ended():
    groups = (started("a"), (child(0), child(1)), ChildEnded(3, "completed"))
    assert run(*groups).parked
    assert not run(*groups, ChildEnded(4, "failed")).parked


def test_an_ended_child_stays_until_its_step_has_completed():
    groups = (started("a"), child(), ChildEnded(3, "failed"))
    kept = run(*groups).children[3]
    assert (kept.ended_at, kept.status) == (4, "failed")
    assert run(*groups, completed(A)).children == {}


def test_a_child_that_outlives_its_step_goes_with_its_end():
    assert run(started("a", "b"), child(), completed(A), ChildEnded(3, "completed")).children == {}


def test_a_child_of_a_failed_attempt_suspends_the_next_one_only_if_that_uses_it_again():
    groups = (started("a"), (child(), failed(A, 1, 5)))
    assert not run(*groups).parked
    again = (*groups, EffectReused(A, 2, CHILD, "Leg", 0, 3))
    assert run(*again).parked
    assert not run(*again, ChildEnded(3, "completed")).parked
    assert run(*groups, ChildEnded(3, "completed")).waiting_tasks == 0


def test_a_run_that_goes_on_after_its_end_forgets_the_children_that_ended_with_it():
    groups = (started("a"), (child(0), child(1), child(2, run_id="mine")), ChildEnded(4, "completed"))
    resumed = given(*groups, RunTimedOut("slow")).when(ResumeRequested("retry")).state
    assert [c.run_id for c in resumed.children.values()] == ["leg-1", "mine"]
    assert [place.k for place in resumed.tasks[A].effects[1]] == [1, 2]
    assert resumed.revivals == 1
    assert resumed.tasks[A].open == 1  # the independent one goes on


def test_a_run_that_needed_attention_keeps_its_children():
    resumed = given(started("a"), child(), RunParked("look")).when(ResumeRequested("resume")).state
    assert [c.run_id for c in resumed.children.values()] == ["leg-0"]
    assert resumed.revivals == 0


def test_a_failed_attempts_child_is_forgotten_too_when_the_run_goes_on_after_its_end():
    end = (failed(A, 1), RunFailed(failed(A).error, "a"))
    resumed = given(started("a"), child(), end).when(ResumeRequested("retry")).state
    assert resumed.children == {}
    assert resumed.tasks[A].effects == {1: {}}
    assert resumed.waiting_tasks == 0


def test_a_cancelled_run_still_tells_which_children_are_to_be_cancelled():
    state = run(started("a"), child(), RunCancelled("enough"))
    assert [c.run_id for c in state.children.values() if not c.ended_at] == ["leg-0"]


# -- Decisions ---------------------------------------------------------------------------------------------------------


def test_a_childs_question_is_published_under_the_id_that_leads_to_it():
    asks = ChildAsks(3, 7, event("Question"), "leg-0/w4")
    published = StreamPublished(1, ("",), None, 0, 0, (event("Question"),), "leg-0/w4")
    given(started("a"), child()).when(asks).then(ChildAsked(3, 7), published)


def test_a_question_that_was_shown_is_not_shown_again():
    asks = ChildAsks(3, 7, event("Question"), "leg-0/w4")
    given(started("a"), child()).when(asks, asks, asks._replace(position=6)).then(
        ChildAsked(3, 7), StreamPublished(1, ("",), None, 0, 0, (event("Question"),), "leg-0/w4")
    )


def test_the_end_of_a_child_is_recorded_once():
    over = ChildOver(3, "completed")
    given(started("a"), child()).when(over, over).then(ChildEnded(3, "completed"))


def test_the_end_of_an_unknown_child_is_ignored():
    given(started("a")).when(ChildOver(3, "completed"), ChildAsks(3, 1, event(), "x/w1")).then_nothing()


def test_nothing_of_children_is_recorded_after_the_end():
    given(started("a"), child()).when(CancelRequested("enough"), ChildOver(3, "cancelled")).then(RunCancelled("enough"))


def test_a_child_knows_its_parent():
    start = StartRequested("Leg", "uid", "shape", None, event("Start"), ("a",), "trip")
    first = EventEmitted(event("Start"), None, 0, None, ("a",))
    then = given().when(start, at=1).then(RunStarted("Leg", "uid", "shape", None, "trip"), first)
    assert then.state.parent == "trip"


# -- Ids ---------------------------------------------------------------------------------------------------------------


def test_the_id_of_a_child_is_the_same_again_and_another_for_everything_else():
    place = Place(CHILD, "Leg", 0)
    ids = [
        child_run_id("trip", "uid", A, 1, place, 0),
        child_run_id("trip", "other uid", A, 1, place, 0),
        child_run_id("trip", "uid", B, 1, place, 0),
        child_run_id("trip", "uid", TaskId(3, "a"), 1, place, 0),
        child_run_id("trip", "uid", A, 2, place, 0),
        child_run_id("trip", "uid", A, 1, Place(CHILD, "Stage", 0), 0),
        child_run_id("trip", "uid", A, 1, Place(CHILD, "Leg", 1), 0),
        child_run_id("trip", "uid", A, 1, place, 1),
    ]
    assert len(set(ids)) == len(ids)
    assert ids[0] == child_run_id("trip", "uid", A, 1, place, 0)
    assert re.fullmatch(r"trip\.[0-9a-f]{20}", ids[0])


def test_the_id_of_a_child_is_a_run_id_on_every_level():
    run_id = "t" * 200
    for level in range(12):
        run_id = child_run_id(run_id, "uid", TaskId(level, "größe"), 1, Place(CHILD, "Leg", level), 0)
        assert require_run_id(run_id) == run_id


def test_the_id_of_a_wait_leads_to_the_run_that_waits_over_any_number_of_levels():
    shown = wait_id_of("trip.1", wait_id_of("trip.1.2", "w7"))
    assert shown == "trip.1.2/w7"
    assert deputy("trip", shown) == ("trip.1.2", "w7")
    assert deputy("trip", "w7") == ("trip", "w7")
    assert deputy("trip", None) == ("trip", None)
