"""The worked examples of the rules for effects, each killed at exactly the named point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durable_flow.records import EffectReused, StepCompleted, StepDiverged, StepFailed, WaitClosed, WaitOpened

from .programs import RETRY_DELAY, ModelPrograms, SimItem, SimPaid, SimSid, SimWork, human
from .scenarios import done
from .simulation import Human, Simulation


def started(someone: Human | None = None, *, more: int = 0, **tasks: tuple[str, Any]) -> Simulation:
    return Simulation(ModelPrograms, human=someone, tasks=tasks, more=more)


def reached(run: Simulation, place: str) -> Callable[[], bool]:
    return lambda: run.world.reached[place] > 0


def completed(run: Simulation, task: str) -> Callable[[], bool]:
    return lambda: task in done(run)


def held(run: Simulation, *places: str) -> Simulation:
    """Hold steps at these places, and keep the run from ending while a test looks at it."""
    run.world.closed.update(places)
    return run


def killed(run: Simulation, *places: str) -> Simulation:
    """Kill the process and leave it dead; the next one is held nowhere."""
    run.stay_dead()
    for place in places:
        run.world.open(place)
    return run


def finished(run: Simulation) -> Simulation:
    run.come_back()
    return run.finish()


def test_a_counter_that_nobody_read_is_gone_with_its_step() -> None:
    run = held(started(A=("counter", 0)), "A has written")
    run.until(reached(run, "A has written"))
    killed(run, "A has written")
    assert "n" not in run.context()
    finished(run)
    assert run.value("n") == 1
    assert run.result() == {"A": 1}


def test_a_counter_that_another_step_built_on_stands_and_is_matched() -> None:
    run = held(started(A=("counter", 0), B=("counter", 0)), "B has written", "A has written")
    run.until(lambda: run.world.reached["A has written"] > 0 and run.world.reached["B has written"] > 0)
    first, second = (place[0] for place in run.world.reached)
    run.world.open(f"{second} has written")
    run.until(completed(run, second))
    killed(run, f"{first} has written")
    assert run.value("n") == 2
    finished(run)
    assert run.value("n") == 2
    assert run.result() == {first: 1, second: 2}
    assert not run.facts(StepDiverged)


def test_a_key_that_nobody_read_is_written_anew_by_the_re_run() -> None:
    run = held(started(A=("own_key", "A"), B=("noise", 0)), "A has written")
    run.until(lambda: run.world.reached["A has written"] > 0 and "B" in done(run))
    killed(run, "A has written")
    assert "notes:A" not in run.context()
    finished(run)
    assert run.value("notes:A") == run.result()["A"] == "v2"


def test_what_a_sent_event_rests_on_stands_and_the_consumer_sees_it() -> None:
    run = held(started(A=("sender", 0), more=1), "A has sent")
    run.until(lambda: bool(run.sent(SimSid)))
    killed(run, "A has sent")
    assert run.value("sid") == "v1"
    assert [e.sid for e in run.sent(SimSid)] == ["v1"]  # type: ignore[attr-defined]
    finished(run)
    assert run.value("sid") == "v1"
    assert [e.sid for e in run.sent(SimSid)] == ["v1"]  # type: ignore[attr-defined]
    assert {(d.kind, d.name) for d in run.facts(StepDiverged)} == {("write", "sid"), ("send_event", "SimSid")}
    assert run.result()["read v1"] == ("v1", "v1")


def test_a_step_that_polls_for_an_answer_finds_it_after_the_kill() -> None:
    run = held(started(A=("asker", 0), B=("answerer", 0)), "A polls")
    run.until(completed(run, "B"))
    killed(run, "A polls")
    assert run.value("s") == "answered"
    finished(run)
    assert run.value("s") == "done"
    assert not run.facts(StepDiverged)


def test_a_retried_step_charges_once() -> None:
    run = started(A=("charger", 2)).finish()
    assert run.world.ran("charge") == [(7,)]
    assert run.value("tries") == 2
    assert [e.amount for e in run.sent(SimPaid)] == [7]  # type: ignore[attr-defined]
    assert {(r.kind, r.name) for r in run.facts(EffectReused)} == {("call", "charge"), ("send_event", "SimPaid")}


def test_killed_in_the_retry_delay_the_second_attempt_is_never_early() -> None:
    run = started(A=("charger", 2))
    run.until(lambda: bool(run.facts(StepFailed)))
    (failed,) = run.facts(StepFailed)
    killed(run)
    assert run.value("tries") == 1
    run.come_back()
    assert list(run.state.delayed.values()) == [failed.retry_at]
    run.until(lambda: run.value("tries") == 2 or bool(run.state.ended))
    assert run.store.now() >= failed.retry_at
    assert failed.retry_at - run.store.records[0].at >= RETRY_DELAY * 1_000_000
    run.finish()
    assert run.world.ran("charge") == [(7,)]
    assert run.value("tries") == 2
    assert [e.amount for e in run.sent(SimPaid)] == [7]  # type: ignore[attr-defined]


def test_a_loop_whose_progress_is_in_the_context_goes_on_where_it_raised() -> None:
    run = started(A=("loop_sends", 0)).finish()
    assert [e.i for e in run.sent(SimWork)] == list(range(8))  # type: ignore[attr-defined]
    assert len(run.facts(StepFailed)) == 3
    assert run.value("i") == 8


def test_a_recorded_call_with_the_same_arguments_gives_its_result() -> None:
    run = held(started(A=("search", "same")), "A has called")
    run.until(reached(run, "A has called"))
    killed(run, "A has called")
    finished(run)
    assert run.world.ran("search") == [("q",)]
    assert run.state.ended == "completed"


def test_a_recorded_call_with_other_arguments_parks_the_run_and_calls_nothing() -> None:
    run = held(started(A=("search", "other")), "A has called")
    run.until(reached(run, "A has called"))
    killed(run, "A has called")
    run.come_back().until(lambda: bool(run.state.attention))
    run.finish()
    assert run.world.ran("search") == [("v1",)]
    assert run.state.status == "needs_attention"
    assert "through ctx.call" in (run.state.attention or "")


@pytest.mark.parametrize(
    ("program", "arg", "questions"), [("asks_human", 0, 2), ("asks_human", 1, 1), ("asks", "wid", 1)]
)
def test_an_answer_is_given_only_to_the_question_that_was_asked(program: str, arg: Any, questions: int) -> None:
    run = started(human(eager=0.0), A=(program, arg))
    run.until(lambda: bool(run.facts(WaitOpened)))
    killed(run)
    (opened,) = run.facts(WaitOpened)
    wait = run.state.waits[opened.wait_id]
    answer = run.human.answer(wait, run.codec)
    assert answer is not None
    run.store.send("event", run.codec.encode_event(answer), opened.wait_id)
    finished(run)
    assert len(run.facts(WaitOpened)) == questions
    assert len(run.facts(WaitClosed)) == questions - 1
    asked = [run.codec.decode_event(w.prompt).question for w in run.facts(WaitOpened)]  # type: ignore[attr-defined]
    result = run.result()["A"]
    assert (result if isinstance(result, str) else result[1]) == f"re:{asked[-1]}"


def test_a_loop_of_calls_takes_its_recorded_results_and_goes_on_with_the_next() -> None:
    run = started(A=("loop_calls", 100))
    run.until(lambda: len(run.calls("get")) == 50)
    killed(run)
    assert run.value("i") == 49  # the 50th result is durable, the write that follows it was a draft
    finished(run)
    assert run.value("i") == 100
    assert run.world.ran("get") == [(i,) for i in range(100)]
    assert not run.facts(StepDiverged)


def test_a_stream_that_comes_out_otherwise_is_reset() -> None:
    run = held(started(A=("letters", 0)), "A has streamed c")
    run.until(lambda: len(run.store.stream) == 3)
    killed(run, "A has streamed c")
    finished(run)
    assert [x.text if isinstance(x, SimItem) else x for x in run.streamed()] == ["a", "b", "c", 2, "X"]
    assert [i.text for i in run.reader()] == ["a", "X"]  # type: ignore[attr-defined]
    assert len(run.facts(StepCompleted)) == 3  # begin, letters, finish
