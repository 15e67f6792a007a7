"""Which handler takes the failures of which step, as far as names and numbers tell."""

from __future__ import annotations

import pytest

from durable_flow.recovery import Recovery, find_recovery_problems, handlers_by_step

STEPS = ["begin", "fetch", "store", "first", "second", "third"]


def of(*names: str, budget: int = 1) -> Recovery:
    return Recovery(names or None, budget)


@pytest.mark.parametrize(
    ("handlers", "expected"),
    [
        ({}, {}),
        ({"first": of("fetch")}, {"fetch": "first"}),
        (
            {"first": of(), "second": of("fetch", "store")},
            {"begin": "first", "third": "first", "fetch": "second", "store": "second"},
        ),
        # What is wrong is left out, and the first claim counts: for those who disable validation.
        (
            {"first": of("fetch", "nope", "second"), "second": of("fetch", "store")},
            {"fetch": "first", "store": "second"},
        ),
        ({"first": Recovery((), 1)}, {}),
    ],
)
def test_a_step_has_the_handler_that_names_it_else_the_one_that_names_none(handlers, expected):
    assert handlers_by_step(STEPS, handlers) == expected


def test_sound_handlers_have_no_problems():
    assert find_recovery_problems(STEPS, {"first": of("fetch"), "second": of("store"), "third": of()}) == []
    assert find_recovery_problems(STEPS, {}) == []


def test_a_step_that_is_named_twice_by_one_handler_is_covered_once():
    assert find_recovery_problems(STEPS, {"first": of("fetch", "fetch")}) == []


def test_every_problem_is_told_with_its_remedy():
    handlers = {"first": of(), "second": of(), "third": of("fetch", "nope", "first")}
    problems = find_recovery_problems(STEPS, handlers)
    assert [problem.split(" ")[-1] for problem in problems] == ["for_steps=[...].", "for_steps.", "for_steps."]
    assert [name in problem for name, problem in zip(("'second'", "'nope'", "'first'"), problems, strict=True)] == [
        True
    ] * 3
