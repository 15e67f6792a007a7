"""What a task that runs again meets of its records: by place in the same attempt, by content in a later one."""

from __future__ import annotations

import pytest
from given import completed, emitted, event, failed, given, published, started, task, value, wait
from hypothesis import given as for_all
from strategies import histories

from durable_flow.engine.history import History
from durable_flow.fold import fold
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
    EffectReused,
    EventCollected,
    Place,
    StreamReset,
    TimerSet,
    WaitAnswered,
    WaitClosed,
    WaitTimedOut,
)

A, B = task("a"), task("b")
QUESTION = (("Answer",), None, None)
ANSWER = (emitted("Answer", answers="w3"), WaitAnswered("w3"))


def history(*groups, of=A):
    """What task A, delivered by the start event, meets after these records."""
    state = given(started("a", "b"), *groups).state
    return History(state, state.tasks[of])


def call(k=0, arguments="digest", attempt=1, name="charge"):
    return CallRecorded(A, attempt, name, k, arguments, value(f"{name} {k} of {attempt}"))


def sent(k=0, attempt=1, data="{}"):
    return emitted("Work", by=A, attempt=attempt, k=k, data=data)


def write(k, data, key="n", attempt=1):
    return ContextSet(key, value(data), A, attempt, k)


# -- The same attempt: by place ----------------------------------------------------------------------------------------


def test_a_first_execution_meets_nothing():
    met = history()
    assert met.take(CALL, "charge") == (Place(CALL, "charge", 0), None)
    assert met.take(CALL, "charge") == (Place(CALL, "charge", 1), None)
    assert met.equal(CALL, "charge", "digest") is None
    assert met.standing_write("n") is None
    assert met.next_stream_item() is None
    assert met.unmet() == []


@pytest.mark.parametrize(
    ("fact", "kind", "name"),
    [
        pytest.param(sent(), SENT, "Work", id="send_event"),
        pytest.param(write(0, 1), WRITE, "n", id="set"),
        pytest.param(call(), CALL, "charge", id="call"),
        pytest.param(wait("w3", "Answer", A), WAIT, "Answer", id="wait"),
        pytest.param(wait("w3", "Answer", A, name="mine"), WAIT, "mine", id="wait with waiter_id"),
        pytest.param(TimerSet(A, 1, 0, 9), SLEEP, "", id="sleep"),
        pytest.param(EventCollected(A, 1, "both", 0, event()), COLLECT, "both", id="collect_events"),
        pytest.param(CheckpointNamed(A, 1, "half", 0), CHECKPOINT, "half", id="checkpoint"),
        pytest.param(published(1, "x", by=A), STREAM, "", id="stream"),
    ],
)
def test_every_kind_of_effect_is_met_at_its_place_and_once(fact, kind, name):
    met = history(fact)
    place, record = met.take(kind, name)
    assert place == Place(kind, name, 0)
    assert (record.place, record.seq) == (place, 3)
    assert met.take(kind, name) == (Place(kind, name, 1), None)
    assert history(fact).take(kind, "another name")[1] is None


def test_effects_are_counted_by_kind_and_name():
    met = history(call(0), call(0, name="refund"), call(1))
    assert met.take(CALL, "charge")[1].outcome == value("charge 0 of 1")
    assert met.take(CALL, "charge")[1].outcome == value("charge 1 of 1")
    assert met.take(CALL, "refund")[1].outcome == value("refund 0 of 1")


def test_a_call_that_raised_gives_its_place_back():
    met = history(call(0))
    met.take(CALL, "charge")
    place, record = met.take(CALL, "charge")
    met.give_back(place)
    assert record is None
    assert met.take(CALL, "charge")[0] == Place(CALL, "charge", 1)


def test_effects_of_other_tasks_are_not_met():
    assert history(call(0), of=B).take(CALL, "charge")[1] is None


def test_what_an_execution_never_came_to_is_told_apart_from_stream_items():
    met = history(call(0), call(1), write(0, 1), published(1, "x", by=A), CheckpointNamed(A, 1, "half", 0))
    met.take(CALL, "charge")
    met.take(CHECKPOINT, "half")
    assert [effect.place for effect in met.unmet()] == [Place(CALL, "charge", 1), Place(WRITE, "n", 0)]
    met.take(CALL, "charge")
    met.take(WRITE, "n")
    assert met.unmet() == []


# -- Writes that stand -------------------------------------------------------------------------------------------------


def test_standing_writes_are_met_in_order_until_the_step_has_caught_up():
    met = history(write(0, 1), write(1, 2), write(0, 7, key="m"))
    assert set(met.standing_keys()) == {"n", "m"}
    assert (met.standing_write("n").content, met.standing_write("n").before) == (value(1), None)
    met.repeat_write("n")
    assert (met.standing_write("n").content, met.standing_write("n").before) == (value(2), value(1))
    met.repeat_write("n")
    assert met.standing_write("n") is None
    assert met.standing_keys() == ["m"]


def test_what_others_wrote_in_between_is_what_the_step_had_before_its_next_write():
    theirs = ContextSet("n", value(50), B, 1, 0)
    met = history(write(0, 1), theirs, write(1, 2), ContextSet("n", value(99), B, 1, 1))
    met.repeat_write("n")
    assert met.standing_write("n").before == value(50)


def test_a_deletion_stands_like_a_write():
    met = history(write(0, 1), ContextDeleted("n", A, 1, 1))
    met.repeat_write("n")
    assert (met.standing_write("n").content, met.standing_write("n").before) == (None, value(1))


def test_more_than_ten_standing_writes_keep_their_order():
    met = history(*(write(k, k) for k in range(12)))
    found = []
    while met.standing_write("n") is not None:
        found.append(met.standing_write("n").content)
        met.repeat_write("n")
    assert found == [value(k) for k in range(12)]


def test_writes_of_an_earlier_attempt_do_not_stand_in_the_way_of_the_next():
    met = history((write(0, 1), failed(A, 1, 9)))
    assert met.standing_write("n") is None
    assert met.take(WRITE, "n") == (Place(WRITE, "n", 0), None)


# -- The stream --------------------------------------------------------------------------------------------------------


def test_stream_items_are_met_one_by_one():
    met = history(published(1, "x", "y", by=A))
    assert (met.next_stream_item().content, met.next_stream_item().outcome) == ("x", 1)
    met.take(STREAM, "")
    assert (met.next_stream_item().content, met.next_stream_item().outcome) == ("y", 2)
    met.take(STREAM, "")
    assert met.next_stream_item() is None


def test_after_a_reset_no_item_matches_and_everything_else_still_does():
    met = history(published(1, "x", "y", by=A), call(0))
    met.take(STREAM, "")
    met.forget_stream()
    assert met.next_stream_item() is None
    assert met.take(STREAM, "") == (Place(STREAM, "", 1), None)
    assert met.take(CALL, "charge")[1] is not None


def test_a_recorded_reset_counts_in_the_next_execution():
    met = history(published(1, "x", "y", by=A), StreamReset(A, 1, 1, 3, 2), published(4, "z", by=A, k=1))
    met.take(STREAM, "")
    assert (met.next_stream_item().content, met.next_stream_item().outcome) == ("z", 4)


# -- A later attempt: by content ---------------------------------------------------------------------------------------


def test_a_later_attempt_meets_nothing_by_place():
    met = history((call(0), failed(A, 1, 9)))
    assert met.take(CALL, "charge") == (Place(CALL, "charge", 0), None)
    assert met.unmet() == []


def test_an_equal_call_is_found_and_serves_once():
    met = history((call(0), failed(A, 1, 9)))
    assert met.equal(CALL, "charge", "digest").outcome == value("charge 0 of 1")
    assert met.equal(CALL, "charge", "digest") is None


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [(CALL, "charge", "other digest"), (CALL, "refund", "digest"), (SENT, "charge", "digest")],
    ids=["arguments", "name", "kind"],
)
def test_an_effect_that_differs_is_not_found(kind, name, content):
    assert history((call(0), failed(A, 1, 9))).equal(kind, name, content) is None


def test_equal_effects_serve_oldest_first():
    met = history(call(0), call(1), failed(A, 1, 9), call(0, "more", 2), call(1, attempt=2), failed(A, 2, 20))
    found = [met.equal(CALL, "charge", "digest").outcome for _ in range(3)]
    assert found == [value("charge 0 of 1"), value("charge 1 of 1"), value("charge 1 of 2")]
    assert met.equal(CALL, "charge", "more").outcome == value("charge 0 of 2")


def test_an_equal_effect_is_found_at_any_place():
    met = history((sent(0, data="1"), sent(1, data="2"), failed(A, 1, 9)))
    assert met.equal(SENT, "Work", (event("Work", "2"), None)).place == Place(SENT, "Work", 1)
    assert met.equal(SENT, "Work", (event("Work", "1"), None)).place == Place(SENT, "Work", 0)


def test_an_event_sent_to_a_named_step_is_another_content():
    met = history((sent(), failed(A, 1, 9)))
    assert met.equal(SENT, "Work", (event("Work"), "b")) is None


def test_a_record_serves_once_in_every_attempt():
    reused = (EffectReused(A, 2, CALL, "charge", 0, 3), failed(A, 2, 20))
    met = history((call(0), failed(A, 1, 9)), reused)
    assert met.equal(CALL, "charge", "digest").seq == 3
    assert met.equal(CALL, "charge", "digest") is None


def test_a_reused_record_is_found_at_its_place_by_a_re_run_and_does_not_serve_again():
    met = history((call(0), call(1), failed(A, 1, 9)), EffectReused(A, 2, CALL, "charge", 0, 4))
    assert met.take(CALL, "charge")[1].outcome == value("charge 1 of 1")
    assert met.equal(CALL, "charge", "digest").outcome == value("charge 0 of 1")
    assert met.equal(CALL, "charge", "digest") is None


@pytest.mark.parametrize(
    ("fact", "kind", "name", "content"),
    [
        pytest.param(write(0, 1), WRITE, "n", value(1), id="set"),
        pytest.param(TimerSet(A, 1, 0, 9), SLEEP, "", None, id="sleep"),
        pytest.param(published(1, "x", by=A), STREAM, "", "x", id="stream"),
        pytest.param(CheckpointNamed(A, 1, "half", 0), CHECKPOINT, "half", None, id="checkpoint"),
    ],
)
def test_writes_sleeps_stream_items_and_checkpoints_of_an_earlier_attempt_serve_none(fact, kind, name, content):
    met = history((fact, failed(A, 1, 9)))
    assert met.equal(kind, name, content) is None
    assert met.next_stream_item() is None


def test_a_collected_event_is_found_with_what_its_call_released():
    collected = EventCollected(A, 1, "both", 0, event())
    released = BufferReleased(A, 1, "both", 0, ("Work",))
    assert history((collected, failed(A, 1, 9))).equal(COLLECT, "both", event()).outcome is None
    assert history((collected, released, failed(A, 1, 9))).equal(COLLECT, "both", event()).outcome == (event(),)


@pytest.mark.parametrize("answered", [False, True])
def test_a_wait_of_an_earlier_attempt_serves_an_equal_question(answered):
    before = (ANSWER,) if answered else ()
    met = history(wait("w3", "Answer", A), *before, failed(A, 1, 9))
    assert met.equal(WAIT, "Answer", QUESTION).outcome == "w3"
    assert met.equal(WAIT, "Answer", QUESTION) is None


def test_an_answer_that_comes_in_the_retry_delay_serves_the_next_attempt():
    assert history(wait("w3", "Answer", A), failed(A, 1, 9), ANSWER).equal(WAIT, "Answer", QUESTION).outcome == "w3"


def test_another_question_is_not_served():
    met = history(wait("w3", "Answer", A, prompt=event("Question", "1")), ANSWER, failed(A, 1, 9))
    assert met.equal(WAIT, "Answer", (("Answer",), event("Question", "2"), None)) is None


@pytest.mark.parametrize("end", [WaitTimedOut("w3"), WaitClosed("w3")], ids=["timed out", "closed"])
@pytest.mark.parametrize("when", ["before the failure", "in the retry delay"])
def test_a_wait_that_timed_out_or_was_closed_serves_none(end, when):
    after = (end, failed(A, 1, 9)) if when == "before the failure" else (failed(A, 1, 9), end)
    assert history(wait("w3", "Answer", A), *after).equal(WAIT, "Answer", QUESTION) is None


def test_a_wait_that_timed_out_is_still_met_at_its_place_in_its_own_attempt():
    met = history(wait("w3", "Answer", A, deadline=9), WaitTimedOut("w3"))
    assert met.take(WAIT, "Answer")[1].outcome == "w3"


def test_a_question_asked_anew_at_the_same_place_replaces_the_closed_one():
    first = wait("w3", "Answer", A, prompt=event("Question", "1"))
    second = wait("w5", "Answer", A, prompt=event("Question", "2"))
    _, record = history(first, WaitClosed("w3"), second).take(WAIT, "Answer")
    assert (record.outcome, record.content) == ("w5", (("Answer",), event("Question", "2"), None))


def test_a_resumed_run_meets_what_its_failed_attempts_recorded():
    met = history(completed(B), (call(0), failed(A, 1)))
    assert met.equal(CALL, "charge", "digest") is not None


# -- Laws --------------------------------------------------------------------------------------------------------------


@for_all(histories())
def test_every_record_of_the_attempt_is_met_once_and_leaves_nothing_unmet(records):
    state = fold(records)
    for pending in state.tasks.values():
        met = History(state, pending)
        recorded = (pending.effects or {}).get(pending.attempt, {})
        assert {e.place for e in met.unmet()} == {place for place in recorded if place.kind != STREAM}
        for place in sorted(recorded):
            assert met.take(place.kind, place.name) == (place, recorded[place])
        assert met.unmet() == []
        assert met.next_stream_item() is None


@for_all(histories())
def test_each_reusable_record_of_earlier_attempts_serves_once(records):
    state = fold(records)
    for pending in state.tasks.values():
        met = History(state, pending)
        attempts = pending.effects or {}
        taken = {e.origin for e in attempts.get(pending.attempt, {}).values()}
        expected = sorted(
            effect.seq
            for attempt, effects in attempts.items()
            for effect in effects.values()
            if attempt < pending.attempt
            and effect.origin is None
            and effect.seq not in taken
            and may_serve(state, effect)
        )
        found = []
        for effects in attempts.values():
            for effect in effects.values():
                while (old := met.equal(effect.place.kind, effect.place.name, effect.content)) is not None:
                    found.append(old.seq)
        assert sorted(found) == expected


def may_serve(state, effect):
    match effect.place.kind:
        case "send_event" | "call" | "collect_events":
            return True
        case "wait":
            return effect.outcome in state.waits and not state.waits[effect.outcome].timed_out
        case "child":
            child = state.children.get(effect.outcome)
            return child is not None and child.status in (None, "completed")
    return False
