"""What is journaled when something reaches a run: given its records, when this comes, then these facts."""

from __future__ import annotations

import pytest
from given import (
    ERROR,
    SECOND,
    completed,
    emitted,
    event,
    failed,
    given,
    handled,
    published,
    returned,
    started,
    task,
    value,
    wait,
)
from hypothesis import given as for_all
from hypothesis import strategies as st
from strategies import histories

from durable_flow.decide import decide
from durable_flow.fold import fold
from durable_flow.incoming import (
    AttentionNeeded,
    CameToRest,
    CancelRequested,
    EffectsCommitted,
    EventReceived,
    Question,
    ResumeRequested,
    StartRequested,
    StepRaised,
    StepReturned,
    TimeIsUp,
    TimerDue,
    WaitDue,
)
from durable_flow.records import (
    CALL,
    CallRecorded,
    ContextSet,
    EncodedValue,
    EventEmitted,
    MessageReceived,
    Place,
    RunAtRest,
    RunCancelled,
    RunClaimed,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    RunTimedOut,
    StepFailed,
    StreamPublished,
    StreamReset,
    TaskId,
    TimerFired,
    TimerSet,
    WaitAnswered,
    WaitClosed,
    WaitTimedOut,
)

A, B = task("a"), task("b")
STOP = event("Stop", "42")
WRITE = ContextSet("n", value(1), A, 1, 0)
ASK = emitted("Question", by=A)
QUESTION_OPEN = wait("w4", "Answer", prompt=event("Question"), human=True)
ASKED = (ASK, QUESTION_OPEN, published(1, "Question")._replace(wait_id="w4"), completed(A))


def raised(retry_at=None, attention=None, drafts=(), attempt=1):
    return StepRaised(A, attempt, drafts, ERROR, None if retry_at is None else retry_at * SECOND, attention)


def received(fact, message=None, stop=None):
    return EventReceived(fact, message=message, stop=stop)


# -- The start ---------------------------------------------------------------------------------------------------------


def test_a_start_creates_the_run_and_delivers_its_event():
    arguments = EncodedValue("json", b"{}")
    start = StartRequested("Flow", "uid", "shape", arguments, event("Start"), ("a", "b"))
    given().when(start).then(
        RunStarted("Flow", "uid", "shape", arguments),
        EventEmitted(event("Start"), None, 0, None, ("a", "b")),
    ).then_status("running")


# -- A step that ends --------------------------------------------------------------------------------------------------


def test_a_returned_event_comes_after_the_drafts_and_before_the_completion():
    work = emitted("Work", "b", by=A)
    out = given(started("a")).when(returned(A, work, drafts=(WRITE,))).then(WRITE, work, completed(A))
    assert list(out.state.tasks) == [task("b", 4)]


def test_returned_events_keep_their_order():
    events = [emitted(name, by=A) for name in ("One", "Two", "Three")]
    given(started("a")).when(returned(A, *events)).then(*events, completed(A))


def test_a_step_that_returns_nothing_only_completes():
    given(started("a")).when(returned(A)).then(completed(A)).then_status("running")


def test_a_returned_stop_event_ends_the_run_after_its_step():
    out = given(started("a", "b")).when(returned(A, drafts=(WRITE,), stop=STOP))
    out.then(WRITE, completed(A), RunCompleted(STOP, A)).then_status("completed")
    assert out.state.result == STOP
    assert out.state.context == {"n": value(1)}


def test_the_completion_closes_the_waits_that_its_task_leaves_open_and_no_others():
    mine, done, theirs = wait("w3", "Answer", A), wait("w4", "Answer", A, k=1), wait("w5", "Answer", B)
    answer = (emitted("Answer", answers="w4"), WaitAnswered("w4"))
    question = wait("w8", "Answer", human=True)
    out = given(started("a", "b"), mine, done, theirs, answer, question).when(returned(A))
    out.then(WaitClosed("w3"), completed(A))
    assert list(out.state.waits) == ["w5", "w8"]


def test_the_completion_closes_a_wait_of_an_earlier_attempt_that_was_not_asked_again():
    groups = (started("a"), wait("w3", "Answer", A), failed(A, 1, 9))
    given(*groups).when(StepReturned(A, 2, (), ())).then(WaitClosed("w3"), completed(A, 2))


def test_the_end_of_a_step_that_is_not_pending_is_dropped():
    given(started("a"), completed(A)).when(returned(A), raised()).then_nothing()


# -- Questions and answers ---------------------------------------------------------------------------------------------


def test_a_returned_question_opens_a_wait_and_publishes_it_in_the_same_group():
    out = given(started("a")).when(returned(A, Question(ASK, ("Answer",), '{"type": "object"}')))
    opened = QUESTION_OPEN._replace(schema='{"type": "object"}')
    item = published(1, "")._replace(items=(event("Question"),), wait_id="w4")
    out.then(ASK, opened, item, completed(A)).then_status("waiting")
    assert out.state.boundary == 6


def test_two_returned_questions_get_waits_and_positions_of_their_own():
    other = emitted("Other", by=A)
    out = given(started("a")).when(
        returned(A, Question(ASK, ("Answer",), None), Question(other, ("Answer", "Refusal"), None))
    )
    waits = [(w.wait_id, w.prompt.name, w.wanted, w.human, w.task) for w in out.state.waits.values()]
    assert waits == [("w4", "Question", ("Answer",), True, None), ("w7", "Other", ("Answer", "Refusal"), True, None)]
    items = [(f.first, f.wait_id) for f in out.facts if isinstance(f, StreamPublished)]
    assert items == [(1, "w4"), (2, "w7")]


def test_the_question_of_a_waiting_step_carries_the_id_of_its_wait_on_the_stream():
    draft = wait("", "Answer", A, prompt=event("Question"), deadline=99, human=True)
    out = given(started("a")).when(EffectsCommitted((WRITE, draft)))
    item = published(1, "")._replace(items=(event("Question"),), wait_id="w4")
    out.then(WRITE, draft._replace(wait_id="w4"), item).then_status("waiting")


def test_a_wait_without_a_question_publishes_nothing():
    draft = wait("", "Answer", A)
    given(started("a")).when(EffectsCommitted((draft,))).then(draft._replace(wait_id="w3"))


def test_an_answer_closes_the_wait_of_a_step():
    answer = emitted("Answer", answers="w3")
    groups = (started("a"), wait("w3", "Answer", A))
    out = given(*groups).when(received(answer)).then(answer, WaitAnswered("w3")).then_status("running")
    assert out.state.waits["w3"].answer == event("Answer")


def test_an_answer_to_a_returned_question_closes_it_and_goes_to_the_step_that_takes_it():
    answer = emitted("Answer", "b", answers="w4")
    out = given(started("a"), ASKED).when(received(answer)).then(answer, WaitAnswered("w4"))
    assert out.state.waits == {}
    assert list(out.state.tasks) == [task("b", 7)]


def test_an_answer_that_came_as_a_message_acknowledges_it_in_the_same_group():
    answer = emitted("Answer", answers="w3")
    out = given(started("a"), wait("w3", "Answer", A)).when(received(answer, (7, "mail-7")))
    out.then(MessageReceived(7, "mail-7", "event"), answer, WaitAnswered("w3"))


def test_a_second_answer_is_an_event_that_answers_nothing():
    groups = (started("a"), wait("w3", "Answer", A), (emitted("Answer", answers="w3"), WaitAnswered("w3")))
    second = emitted("Answer", data="late")
    out = given(*groups).when(received(second)).then(second)
    assert out.state.waits["w3"].answer == event("Answer")


@pytest.mark.parametrize("by_step", [True, False])
def test_an_event_that_a_step_sends_or_returns_may_answer_a_wait(by_step):
    groups = (started("a", "b"), wait("w3", "Answer", B))
    if by_step:
        answer = emitted("Answer", by=A, k=0, answers="w3")
        given(*groups).when(EffectsCommitted((answer,))).then(answer, WaitAnswered("w3"))
    else:
        answer = emitted("Answer", by=A, answers="w3")
        given(*groups).when(returned(A, answer)).then(answer, WaitAnswered("w3"), completed(A))


def test_a_deadline_that_passes_is_recorded_once():
    groups = (started("a"), wait("w3", "Answer", A, deadline=9))
    given(*groups).when(WaitDue("w3"), WaitDue("w3")).then(WaitTimedOut("w3"))


def test_a_deadline_after_the_answer_changes_nothing():
    groups = (started("a"), wait("w3", "Answer", A, deadline=9))
    answer = emitted("Answer", answers="w3")
    given(*groups).when(received(answer), WaitDue("w3")).then(answer, WaitAnswered("w3"))


def test_a_deadline_of_a_wait_that_is_gone_changes_nothing():
    given(started("a"), wait("w3", "Answer", A, deadline=9), WaitClosed("w3")).when(WaitDue("w3")).then_nothing()


# -- The stream --------------------------------------------------------------------------------------------------------


def item(k, *names):
    """Items as a step drafts them: without a position."""
    return published(0, *names, by=A, k=k)


def test_stream_items_are_numbered_after_those_before():
    out = given(started("a"), published(1, "x", by=A)).when(EffectsCommitted((item(1, "y", "z"), item(3, "q"))))
    out.then(published(2, "y", "z", by=A, k=1), published(4, "q", by=A, k=3))
    assert out.state.position == 4


def test_stream_items_of_several_incoming_in_one_turn_follow_each_other():
    out = given(started("a")).when(EffectsCommitted((item(0, "x"),)), EffectsCommitted((item(1, "y"),)), returned(A))
    out.then(published(1, "x", by=A), published(2, "y", by=A, k=1), completed(A))


def test_a_reset_takes_a_position_between_the_items():
    reset = StreamReset(A, 1, 1, 0, 2)
    groups = (started("a"), published(1, "x", "y", "z", by=A))
    out = given(*groups).when(EffectsCommitted((item(3, "p"), reset, item(1, "q"))))
    out.then(published(4, "p", by=A, k=3), reset._replace(position=5), published(6, "q", by=A, k=1))
    assert out.state.position == 6


def test_a_question_is_published_between_the_items_of_its_group():
    draft = wait("", "Answer", A, prompt=event("Question"))
    out = given(started("a")).when(EffectsCommitted((item(0, "x"), draft, item(1, "y"))))
    assert [f.first for f in out.facts if isinstance(f, StreamPublished)] == [1, 2, 3]
    assert out.state.position == 3


# -- A step that raises ------------------------------------------------------------------------------------------------


def test_a_step_that_raises_with_a_retry_keeps_its_drafts_and_the_run_goes_on():
    out = given(started("a")).when(raised(retry_at=60, drafts=(WRITE,)))
    out.then(WRITE, failed(A, 1, retry_at=60)).then_status("running")
    assert out.state.context == {"n": value(1)}


def test_a_step_that_raises_without_a_retry_fails_the_run():
    out = given(started("a", "b")).when(raised(drafts=(WRITE,)))
    out.then(WRITE, failed(A), RunFailed(ERROR, "a")).then_status("failed")
    assert out.state.context == {"n": value(1)}
    assert list(out.state.tasks) == [A, B]  # pending, should somebody retry the run


def test_a_failure_that_a_handler_takes_ends_the_task_and_its_waits_and_not_the_run():
    failure = event("StepFailedEvent")
    incoming = raised(drafts=(WRITE,))._replace(handler="rescue", event=failure, began_at=5)
    out = given(started("a", "b"), wait("w3", "Answer", A), wait("w4", "Answer", B)).when(incoming)
    out.then(WRITE, WaitClosed("w3"), StepFailed(A, 1, ERROR, None, "rescue", failure, None, 5)).then_status("running")
    assert out.state.context == {"n": value(1)}
    assert list(out.state.tasks) == [B, TaskId(7, "rescue")]


def test_a_failure_that_is_handled_twice_counts_once():
    incoming = raised()._replace(handler="rescue", event=event("StepFailedEvent"))
    given(started("a")).when(incoming, incoming).then(handled(A, "rescue"))


def test_what_is_told_of_a_failure_is_recorded():
    incoming = raised(retry_at=60)._replace(exception=value("it"), began_at=5)
    given(started("a")).when(incoming).then(failed(A, 1, 60)._replace(exception=value("it"), began_at=5))


def test_a_step_that_diverged_parks_the_run_and_stays_where_it_was():
    charge = CallRecorded(A, 1, "charge", 0, "digest", value(1))
    out = given(started("a"), charge).when(raised(attention="take it through ctx.call", drafts=(WRITE,)))
    out.then(WRITE, RunParked("take it through ctx.call")).then_status("needs_attention")
    assert out.state.tasks[A].attempt == 1
    assert out.state.tasks[A].effects[1][Place(CALL, "charge", 0)].outcome == value(1)


def test_a_second_step_that_raises_after_the_run_failed_is_dropped():
    out = given(started("a", "b")).when(raised(), StepRaised(B, 1, (), ERROR, None))
    out.then(failed(A), RunFailed(ERROR, "a"))
    assert B in out.state.runnable["b"]


# -- Timers ------------------------------------------------------------------------------------------------------------


def test_a_timer_fires_once():
    given(started("a"), TimerSet(A, 1, 0, 9)).when(TimerDue(3), TimerDue(3)).then(TimerFired(3)).then_status("running")


@pytest.mark.parametrize("end", [completed(A), failed(A, 1, 9)])
def test_a_timer_of_an_attempt_that_ended_does_not_fire(end):
    given(started("a"), TimerSet(A, 1, 0, 9), end).when(TimerDue(3)).then_nothing()


# -- The end of a run --------------------------------------------------------------------------------------------------


def test_a_stop_event_that_a_step_sent_ends_the_run_with_all_drafts():
    out = given(started("a", "b")).when(EffectsCommitted((WRITE,), STOP))
    out.then(WRITE, RunCompleted(STOP, None)).then_status("completed")


def test_a_stop_event_from_outside_ends_the_run():
    stop = EventEmitted(STOP, None, 0, None, ())
    given(started("a")).when(received(stop, (3, None), STOP)).then(
        MessageReceived(3, None, "event"), stop, RunCompleted(STOP, None)
    ).then_status("completed")


def test_a_stop_event_from_outside_carries_the_drafts_of_everybody():
    theirs = ContextSet("m", value(2), B, 1, 0)
    stop = EventEmitted(STOP, None, 0, None, ())
    out = given(started("a", "b")).when(EventReceived(stop, stop=STOP, drafts=(WRITE, theirs)))
    out.then(WRITE, theirs, stop, RunCompleted(STOP, None))
    assert out.state.context == {"n": value(1), "m": value(2)}


def test_a_cancelled_run_carries_the_drafts_of_everybody():
    theirs = ContextSet("m", value(2), B, 1, 0)
    out = given(started("a", "b")).when(CancelRequested("enough", (WRITE, theirs), (5, "mail-5")))
    out.then(MessageReceived(5, "mail-5", "cancel"), WRITE, theirs, RunCancelled("enough")).then_status("cancelled")
    assert out.state.context == {"n": value(1), "m": value(2)}


def test_a_waiting_and_a_parked_run_can_be_cancelled():
    given(started("a"), wait("w3", "Answer", A)).when(CancelRequested("no")).then(RunCancelled("no"))
    given(started("a"), RunParked("gone")).when(CancelRequested("no")).then(RunCancelled("no")).then_status("cancelled")


def test_a_run_whose_time_is_up_ends_with_the_drafts_of_everybody():
    out = given(started("a")).when(TimeIsUp("after 60 seconds", (WRITE,)))
    out.then(WRITE, RunTimedOut("after 60 seconds")).then_status("timed_out")
    assert out.state.timeout_message == "after 60 seconds"


def test_a_need_for_attention_is_recorded_once():
    parked = RunParked("restore 'a'")
    given(started("a")).when(AttentionNeeded("restore 'a'"), AttentionNeeded("again")).then(parked)


def test_coming_to_rest_is_recorded_once_and_only_after_claims_in_vain():
    claims = (RunClaimed(2, "w2", "w1"), RunClaimed(3, "w3", "w2"))
    out = given(started("a"), *claims).when(CameToRest(), CameToRest()).then(RunAtRest(2))
    assert out.state.claims == 0
    given(started("a")).when(CameToRest()).then()


ENDS = {
    "completed": (completed(A), RunCompleted(STOP, A)),
    "failed": (failed(A), RunFailed(ERROR, "a")),
    "cancelled": RunCancelled("enough"),
    "timed_out": RunTimedOut("late"),
}
LATE = {
    "return": returned(B, emitted("Work", "a", by=B), drafts=(ContextSet("n", value(9), B, 1, 0),)),
    "stop": StepReturned(B, 1, (), (), STOP),
    "failure": StepRaised(B, 1, (), ERROR, 99),
    "effects": EffectsCommitted((ContextSet("n", value(9), B, 1, 0),)),
    "event": received(emitted("Work", "a")),
    "message": received(emitted("Work", "a"), (9, None)),
    "timer": TimerDue(3),
    "deadline": WaitDue("w4"),
    "timeout": TimeIsUp("late"),
    "cancel": CancelRequested("enough"),
    "attention": AttentionNeeded("look"),
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_what_comes_after_the_end_is_dropped(end, late):
    groups = (started("a", "b"), TimerSet(B, 1, 0, 9), wait("w4", "Answer", B, deadline=9))
    given(*groups, end).when(late).then_nothing()


# -- A run that is taken up again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [ENDS["failed"], ENDS["timed_out"], RunParked("gone")], ids=["failed", "timed", "park"])
def test_a_failed_timed_out_or_parked_run_goes_on_when_resumed(end):
    out = given(started("a", "b"), end).when(ResumeRequested("me")).then(RunResumed("me")).then_status("running")
    assert A in out.state.runnable["a"]


@pytest.mark.parametrize("end", [ENDS["completed"], ENDS["cancelled"]], ids=["completed", "cancelled"])
@pytest.mark.parametrize("parked", [(), (RunParked("gone"),)], ids=["", "parked before"])
def test_a_run_that_ended_for_good_is_not_resumed(end, parked):
    given(started("a", "b"), *parked, end).when(ResumeRequested("me")).then_nothing()


def test_a_run_that_goes_on_anyway_is_not_resumed():
    given(started("a")).when(ResumeRequested("me")).then_nothing()


# -- Every decision ----------------------------------------------------------------------------------------------------


@for_all(histories(), st.sampled_from(list(LATE.values())))
def test_deciding_changes_nothing_and_gives_the_same_facts_again(records, incoming):
    state = fold(records)
    before = repr(state)
    facts = decide(state, incoming)
    assert decide(state, incoming) == facts
    assert repr(state) == before
    if state.ended:
        assert facts == []


def test_items_of_one_turn_see_what_those_before_them_changed():
    draft = wait("", "Answer", A)
    out = given(started("a", "b")).when(EffectsCommitted((draft,)), returned(B), returned(A))
    out.then(draft._replace(wait_id="w3"), completed(B), WaitClosed("w3"), completed(A))
