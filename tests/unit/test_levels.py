"""Levels: which joins collect which list, found from annotations alone, and what can never come together."""

from __future__ import annotations

import pytest

from durable_flow.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StepFailedEvent, StopEvent
from durable_flow.graph import StepNode, find_problems
from durable_flow.levels import RUN, find_levels


class Part(Event):
    pass


class SpecialPart(Part):
    pass


class Piece(Event):
    pass


class Result(Event):
    pass


class Sum(Event):
    pass


class Ask(InputRequiredEvent):
    pass


class Reply(HumanResponseEvent):
    pass


def one(name, accepted, *emitted, listed=(), **more):
    return StepNode(name, tuple(accepted), (*listed, *emitted), tuple(listed), tuple(emitted), **more)


def join(name, accepted, *emitted, **more):
    return one(name, accepted, *emitted, collects=True, **more)


def meet(name, slots, *emitted, **more):
    return one(name, tuple(slots.values()), *emitted, slots=tuple(slots.items()), **more)


SPLIT = one("split", [StartEvent], listed=[Part])
WORK = one("work", [Part], Result)


def collected(*steps):
    return dict(find_levels(steps, StartEvent).collected)


# -- Which joins collect which list ------------------------------------------------------------------------------------


def test_a_join_collects_what_single_event_steps_make_of_the_elements():
    assert collected(SPLIT, WORK, join("end", [Result], StopEvent)) == {"split": ("end",)}


def test_a_join_may_take_the_elements_themselves():
    assert collected(SPLIT, join("end", [Part], StopEvent)) == {"split": ("end",)}


def test_a_list_that_nobody_collects_is_none():
    assert collected(SPLIT, one("end", [Part], StopEvent)) == {}


def test_several_joins_stand_in_the_order_of_the_steps():
    steps = (SPLIT, join("b", [Result], StopEvent), WORK, join("a", [Part]))
    assert collected(*steps) == {"split": ("b", "a")}


def test_an_inner_list_is_collected_by_the_inner_join_whose_result_is_outside():
    steps = [
        SPLIT,
        one("cut", [Part], listed=[Piece]),
        one("work", [Piece], Result),
        join("inner", [Result], Sum),
        join("outer", [Sum], StopEvent),
    ]
    assert collected(*steps) == {"split": ("outer",), "cut": ("inner",)}
    levels = find_levels(steps, StartEvent)
    assert levels.steps[RUN] == {"split", "outer"}
    assert levels.steps["split"] == {"cut", "inner"}
    assert levels.steps["cut"] == {"work"}
    assert Sum not in levels.events["cut"]


def test_a_join_whose_list_is_made_within_another_does_not_collect_the_outer_one():
    steps = [SPLIT, one("cut", [Part], listed=[Piece]), one("work", [Piece], Result), join("end", [Result], StopEvent)]
    assert collected(*steps) == {"cut": ("end",)}


def test_two_steps_that_return_lists_of_one_class_are_collected_by_one_join():
    steps = [one("a", [StartEvent], listed=[Part]), one("b", [StartEvent], listed=[Part]), join("j", [Part], StopEvent)]
    assert collected(*steps) == {"a": ("j",), "b": ("j",)}


def test_a_list_that_comes_back_to_its_own_step_is_one_level():
    steps = [
        one("begin", [StartEvent], Part),
        one("grow", [Part], Result, listed=[Part]),
        join("add", [Result], Result, StopEvent),
    ]
    levels = find_levels(steps, StartEvent)
    assert levels.collected == {"grow": ("add",)}
    assert levels.steps["grow"] == {"grow", "add"}
    assert levels.steps[RUN] == {"begin", "grow", "add"}


def test_an_event_declared_in_a_list_and_alone_is_on_both_levels():
    steps = [StepNode("split", (StartEvent,), (Part,), (Part,), (Part,)), join("end", [Part], StopEvent)]
    levels = find_levels(steps, StartEvent)
    assert Part in levels.events[RUN]
    assert Part in levels.events["split"]


def test_the_answer_to_a_question_is_on_the_questions_level():
    steps = [one("ask", [StartEvent], listed=[Ask]), join("end", [Reply], StopEvent)]
    assert collected(*steps) == {"ask": ("end",)}
    assert find_problems(steps, StartEvent) == []


def test_subclasses_are_collected_where_they_are_accepted():
    split = one("split", [StartEvent], listed=[SpecialPart])
    assert collected(split, join("end", [Part], StopEvent)) == {}
    assert collected(split, join("end", [Part], StopEvent, subclasses=True)) == {"split": ("end",)}


def test_a_step_with_several_events_keeps_its_list_apart_too():
    steps = [one("split", [StartEvent], listed=[Part, Piece]), meet("both", {"a": Part, "b": Piece}, StopEvent)]
    assert collected(*steps) == {"split": ()}


def test_events_that_no_step_returns_come_from_outside():
    steps = [one("begin", [StartEvent], StopEvent), one("split", [Piece], listed=[Part]), join("j", [Part], Sum)]
    assert collected(*steps) == {"split": ("j",)}


def test_a_handler_of_failures_runs_on_the_level_of_the_steps_it_covers():
    handler = one("instead", [StepFailedEvent], Result, covers=("work",))
    steps = [SPLIT, one("work", [Part]), handler, join("end", [Result], StopEvent)]
    assert collected(*steps) == {"split": ("end",)}
    assert find_levels(steps, StartEvent).steps[RUN] == {"split", "end"}


# -- What is refused ---------------------------------------------------------------------------------------------------


def problems(*steps, skip=()):
    return find_problems(steps, StartEvent, skip)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([SPLIT, WORK, join("end", [Result], StopEvent)], id="a list and its join"),
        pytest.param(
            [one("split", [StartEvent], listed=[Part, Piece]), join("end", [Part, Piece], StopEvent)], id="a union"
        ),
        pytest.param(
            [
                one("a", [StartEvent], Part),
                one("b", [StartEvent], Piece),
                meet("both", {"a": Part, "b": Piece}, StopEvent),
            ],
            id="one each",
        ),
        pytest.param(
            [one("a", [StartEvent], Part), meet("both", {"a": Part, "b": StartEvent}, StopEvent)], id="the start event"
        ),
        pytest.param(
            [one("a", [StartEvent], Part), meet("both", {"a": Part, "b": Reply}, StopEvent)], id="from outside"
        ),
        pytest.param(
            [
                one("split", [StartEvent], listed=[Part, Piece]),
                join("parts", [Part], Sum),
                join("pieces", [Piece], Result),
                meet("both", {"a": Sum, "b": Result}, StopEvent),
            ],
            id="the results of two joins",
        ),
        pytest.param(
            [one("a", [StartEvent], SpecialPart), one("b", [Part], StopEvent, subclasses=True)], id="a subclass"
        ),
        pytest.param([one("a", [StartEvent], StopEvent), one("log", [Event], subclasses=True)], id="every event"),
    ],
)
def test_sound_graphs_have_no_problems(steps):
    assert problems(*steps) == []


def test_a_join_without_a_list():
    [problem] = problems(one("begin", [StartEvent], Part), join("end", [Part], StopEvent))
    assert "step 'end' collects list[Part], but no step that is reached returns a list" in problem
    assert "-> list[...]" in problem
    assert "ctx.collect_events" in problem


def test_a_join_of_an_event_that_nobody_returns_is_told_once():
    [problem] = problems(SPLIT, one("work", [Part], StopEvent), join("end", [Result], StopEvent))
    assert "step 'end' accepts Result, an event that is consumed but never produced" in problem


def test_events_that_never_meet():
    steps = [one("begin", [StartEvent], Piece), one("fan", [Piece], listed=[Part])]
    [problem] = problems(*steps, meet("both", {"part": Part, "piece": Piece}, StopEvent), skip={"dead_end"})
    assert "step 'both' takes one each of several events that never meet within one fan-out" in problem
    assert "part (Part) comes from the list of 'fan'" in problem
    assert "piece (Piece) comes outside of every list" in problem
    assert "ctx.wait_for_event" in problem


def test_events_that_never_meet_where_subclasses_are_accepted():
    steps = [one("begin", [StartEvent], Piece), one("fan", [Piece], listed=[SpecialPart])]
    both = meet("both", {"part": Part, "piece": Piece}, StopEvent, subclasses=True)
    [problem] = problems(*steps, both, skip={"dead_end"})
    assert "part (Part) comes from the list of 'fan'" in problem


def test_all_problems_of_joins_are_found_together_with_others():
    steps = [
        one("begin", [StartEvent], Piece, StopEvent),
        one("fan", [Piece], listed=[Part]),
        meet("both", {"part": Part, "piece": Piece}, StopEvent),
        join("single", [Piece], StopEvent),
        one("lost", [Reply], Result),
    ]
    text = "\n".join(problems(*steps))
    for part in ("'both' takes one each", "'single' collects list[Piece]", "'lost' returns Result"):
        assert part in text


def test_a_list_that_is_collected_only_is_consumed():
    assert problems(SPLIT, join("end", [Part], StopEvent)) == []


@pytest.mark.parametrize("check", ["terminal_event", "reachability", "dead_end"])
def test_a_step_can_be_left_out_of_a_check(check):
    broken = {
        "terminal_event": [one("a", [StartEvent], Part, StopEvent)],
        "reachability": [
            one("b", [StartEvent], StopEvent),
            one("a", [Part], StopEvent, Piece),
            one("a2", [Piece], Part),
        ],
        "dead_end": [one("b", [StartEvent], Part, StopEvent), one("a", [Part], Part)],
    }[check]
    found = problems(*broken)
    assert found
    skipping = [step._replace(skip={check}) for step in broken]
    assert problems(*skipping) == []
    only = [step._replace(skip={check} if step.name == "a" else ()) for step in broken]
    assert problems(*only) == [problem for problem in found if "step 'a'" not in problem]


def test_a_step_that_takes_all_subclasses_does_not_take_the_end():
    assert not one("log", [Event], subclasses=True).takes(StopEvent)
    assert one("log", [Event], subclasses=True).takes(Part)
