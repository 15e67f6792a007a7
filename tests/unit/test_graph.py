"""The graph checks: every problem is found once, with step, event and remedy; sound graphs pass."""

from __future__ import annotations

import pytest

from durable_flow.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from durable_flow.graph import StepNode, find_problems, uses_humans


class Work(Event):
    pass


class Done(Event):
    pass


class Enquiry(InputRequiredEvent):
    pass


class Response(HumanResponseEvent):
    pass


class MyStop(StopEvent):
    pass


def node(name, accepted, emitted):
    return StepNode(name, tuple(accepted), tuple(emitted))


START = node("start", [StartEvent], [Work])


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([node("only", [StartEvent], [StopEvent])], id="one step"),
        pytest.param([START, node("finish", [Work], [MyStop])], id="chain to a stop subclass"),
        pytest.param([node("loop", [StartEvent, Work], [Work, StopEvent])], id="loop with an exit"),
        pytest.param([START, node("a", [Work], [StopEvent]), node("b", [Work], [])], id="a step that returns nothing"),
        pytest.param(
            [node("ask", [StartEvent], [Enquiry]), node("go", [Response], [StopEvent])], id="question, answer"
        ),
        pytest.param([node("ask", [StartEvent], [Enquiry, StopEvent])], id="a question that no step accepts"),
        pytest.param([node("a", [StartEvent], [Response, StopEvent])], id="an answer that no step accepts"),
        pytest.param([node("a", [StartEvent], [Enquiry]), node("b", [Enquiry], [StopEvent])], id="question taken"),
    ],
)
def test_a_sound_graph_has_no_problems(steps):
    assert find_problems(steps, StartEvent) == []


def test_an_event_nobody_produces_is_told_once_with_its_step():
    [problem] = find_problems([node("a", [StartEvent], [StopEvent]), node("lost", [Work], [StopEvent])], StartEvent)
    assert "'lost'" in problem
    assert "Work" in problem
    assert "never produced" in problem


def test_an_event_nobody_consumes_is_told_once_with_its_step():
    [problem] = find_problems([node("a", [StartEvent], [Work])], StartEvent)
    assert "'a'" in problem
    assert "Work" in problem
    assert "never consumed" in problem


def test_all_steps_of_an_event_are_named():
    [problem] = find_problems([node("a", [StartEvent], [Work, StopEvent]), node("b", [StartEvent], [Work])], StartEvent)
    assert "'a', 'b'" in problem


def test_routing_is_by_exact_class():
    class Base(Event):
        pass

    class Derived(Base):
        pass

    problems = find_problems([node("a", [StartEvent], [Derived]), node("b", [Base], [StopEvent])], StartEvent)
    assert any("Derived" in p and "never consumed" in p for p in problems)
    assert any("Base" in p and "never produced" in p for p in problems)


@pytest.mark.parametrize("stop", [StopEvent, MyStop])
def test_a_step_that_accepts_a_stop_event_is_told_that_and_nothing_else(stop):
    [problem] = find_problems([node("a", [StartEvent], [MyStop]), node("after", [stop], [MyStop])], StartEvent)
    assert "'after'" in problem
    assert stop.__name__ in problem


def test_an_island_is_unreachable():
    island = [node("ping", [Work], [Done]), node("pong", [Done], [Work, StopEvent])]
    problems = find_problems([node("a", [StartEvent], [StopEvent]), *island], StartEvent)
    assert len(problems) == 2
    assert "'ping' is unreachable" in problems[0]
    assert "'pong' is unreachable" in problems[1]


def test_a_question_taken_by_a_step_that_nobody_asks_is_unreachable():
    [problem] = find_problems([node("a", [StartEvent], [StopEvent]), node("b", [Enquiry], [StopEvent])], StartEvent)
    assert "'b' is unreachable" in problem


def test_a_loop_without_exit_is_a_dead_end():
    steps = [
        node("a", [StartEvent], [Work, StopEvent]),
        node("ping", [Work], [Done]),
        node("pong", [Done], [Done]),
    ]
    problems = find_problems(steps, StartEvent)
    assert len(problems) == 2
    assert "'ping' is a dead end" in problems[0]
    assert "'pong' is a dead end" in problems[1]


def test_all_problems_are_found_together():
    class Lost(Event):
        pass

    class Unused(Event):
        pass

    steps = [
        node("a", [StartEvent], [StopEvent, Unused, Work]),
        node("lost", [Lost], [StopEvent]),
        node("loop", [Work], [Work]),
        node("stopped", [StopEvent], [StopEvent]),
    ]
    text = "\n".join(find_problems(steps, StartEvent))
    for part in ("Lost", "Unused", "'loop' is a dead end", "'stopped' accepts StopEvent"):
        assert part in text


@pytest.mark.parametrize(
    ("check", "steps"),
    [
        ("terminal_event", [node("a", [StartEvent], [Work, StopEvent])]),
        (
            "reachability",
            [node("a", [StartEvent], [StopEvent]), node("b", [Work], [Done]), node("c", [Done], [Work, StopEvent])],
        ),
        ("dead_end", [node("a", [StartEvent], [StopEvent, Work]), node("b", [Work], [Work])]),
    ],
)
def test_a_check_can_be_skipped(check, steps):
    assert find_problems(steps, StartEvent)
    assert find_problems(steps, StartEvent, {check}) == []


def test_humans_are_used_where_a_question_is_returned_or_an_answer_taken():
    assert uses_humans([node("ask", [StartEvent], [Enquiry])])
    assert uses_humans([node("take", [Response], [StopEvent])])
    assert not uses_humans([START, node("finish", [Work], [StopEvent])])
