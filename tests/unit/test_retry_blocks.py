"""The building blocks of retry policies agree with tenacity's own strategies, and chance comes from the seed alone."""

from __future__ import annotations

import operator
import random
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from durable_flow import retry_policy as blocks
from durable_flow.errors import WorkflowValidationError
from durable_flow.retry_policy import RetryPolicy, retry_policy

attempts = st.integers(1, 2000)
seconds = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6) | st.timedeltas(timedelta(0), timedelta(days=9))
factors = st.floats(0, 1e4, allow_nan=False)


class Down(Exception):
    pass


class VeryDown(Down):
    pass


def caused(error: Exception, *causes: Exception) -> Exception:
    here: BaseException = error
    for cause in causes:
        here.__cause__ = here = cause
    return error


ERRORS = [
    ValueError("busy"),
    ValueError("too busy"),
    Down("busy"),
    VeryDown(""),
    OSError(2, "no such file"),
    caused(ValueError("outer"), Down("inner")),
    caused(ValueError("outer"), KeyError("x"), VeryDown("innermost")),
]
errors = st.sampled_from(ERRORS)
types = st.sampled_from([Exception, ValueError, Down, VeryDown, (Down, OSError), (KeyError,)])


def state(attempts: int = 1, elapsed: float = 0.0, sleep: float = 0.0, error: BaseException | None = None) -> Any:
    """The state as tenacity makes it."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempts
    state.outcome_timestamp = state.start_time + elapsed
    state.upcoming_sleep = sleep
    if error is not None:
        state.set_exception((type(error), error, None))
    return state


def tenacitys(strategy: Any, attempts: int, seed: int) -> float:
    """What tenacity's own strategy says if its generator is seeded."""
    before = random.getstate()
    random.seed(seed)
    try:
        return float(strategy(state(attempts)))
    finally:
        random.setstate(before)


# -- Waits -------------------------------------------------------------------------------------------------------------

Waits = tuple[Any, Any]
"""A block of ours, and the strategy of tenacity with the same parameters."""


def tenacity_jitter(initial: float, exp_base: float, max: Any, jitter: Any) -> Any:
    theirs = tenacity.wait_exponential_jitter(max=max, exp_base=exp_base, jitter=jitter)
    # Its parameter `initial` was renamed to `multiplier`.
    setattr(theirs, "multiplier" if hasattr(theirs, "multiplier") else "initial", initial)
    return theirs


simple_waits: st.SearchStrategy[Waits] = st.one_of(
    st.builds(lambda s: (blocks.wait_fixed(s), tenacity.wait_fixed(s)), seconds),
    st.just((blocks.wait_none(), tenacity.wait_none())),
    st.builds(lambda a, b: (blocks.wait_random(a, b), tenacity.wait_random(a, b)), seconds, seconds),
    st.builds(
        lambda a, b, c: (blocks.wait_incrementing(a, b, c), tenacity.wait_incrementing(a, b, c)),
        seconds, st.floats(-1e3, 1e3), seconds,
    ),
    st.builds(
        lambda f, e, a, b: (
            blocks.wait_exponential(f, e, a, b), tenacity.wait_exponential(multiplier=f, exp_base=e, max=a, min=b)
        ),
        factors, factors, seconds, seconds,
    ),
    st.builds(
        lambda f, e, a, b, block: (
            block(f, e, a, b), tenacity.wait_random_exponential(multiplier=f, exp_base=e, max=a, min=b)
        ),
        factors, factors, seconds, seconds, st.sampled_from([blocks.wait_random_exponential, blocks.wait_full_jitter]),
    ),
    st.builds(
        lambda f, e, a, j: (blocks.wait_exponential_jitter(f, e, a, j), tenacity_jitter(f, e, a, j)),
        factors, factors, seconds, seconds,
    ),
)  # fmt: skip


def combinations(waits: st.SearchStrategy[Waits]) -> st.SearchStrategy[Waits]:
    def built(name: str, parts: list[Waits]) -> Waits:
        ours, theirs = zip(*parts, strict=True)
        if name == "sum":
            return sum(ours), sum(theirs)
        if name == "+" and len(parts) > 1:
            return ours[0] + ours[1], theirs[0] + theirs[1]
        if name == "wait_chain":
            return blocks.wait_chain(*ours), tenacity.wait_chain(*theirs)
        return blocks.wait_combine(*ours), tenacity.wait_combine(*theirs)

    names = st.sampled_from(["sum", "+", "wait_chain", "wait_combine"])
    return st.builds(built, names, st.lists(waits, min_size=1, max_size=3))


@given(waits=st.recursive(simple_waits, combinations, max_leaves=5), attempts=attempts, seed=st.integers(0, 2**64))
def test_a_wait_is_tenacitys_with_its_generator_seeded(waits, attempts, seed):
    ours, theirs = waits
    assert ours(attempts, seed=seed) == pytest.approx(tenacitys(theirs, attempts, seed), rel=1e-12)


@given(waits=simple_waits, attempts=attempts, seed=st.none() | st.integers())
def test_a_wait_is_a_function_of_attempts_and_seed_alone(waits, attempts, seed):
    ours, _ = waits
    before = random.getstate()
    assert ours(attempts, seed=seed) == ours(attempts, seed=seed)
    assert random.getstate() == before


@pytest.mark.parametrize(
    "wait", [blocks.wait_random(), blocks.wait_random_exponential(), blocks.wait_exponential_jitter()]
)
def test_different_seeds_spread_the_retries(wait):
    assert len({wait(3, seed=seed) for seed in range(50)}) > 40


def test_each_jitter_of_a_sum_is_a_draw_of_its_own():
    a, b = blocks.wait_random(0, 1), blocks.wait_random(0, 1)
    assert any((a + b)(1, seed=seed) != 2 * a(1, seed=seed) for seed in range(5))


def test_a_function_is_a_wait_and_gets_the_seed():
    def mine(attempts: int, *, seed: int | None = None) -> float:
        return attempts * 10 + (seed or 0)

    assert (blocks.wait_fixed(100) + mine)(2, seed=3) == 123
    assert (mine + blocks.wait_fixed(100))(2, seed=3) == 123
    assert blocks.wait_chain(blocks.wait_none(), mine)(2, seed=3) == 23
    assert retry_policy(wait=mine).next(0, 1, ERRORS[0], seed=3) == 13


# -- Stops -------------------------------------------------------------------------------------------------------------

simple_stops: st.SearchStrategy[Waits] = st.one_of(
    st.just((blocks.stop_never(), tenacity.stop_never)),
    st.builds(lambda n: (blocks.stop_after_attempt(n), tenacity.stop_after_attempt(n)), st.integers(0, 20)),
    st.builds(lambda s: (blocks.stop_after_delay(s), tenacity.stop_after_delay(s)), seconds),
    st.builds(lambda s: (blocks.stop_before_delay(s), tenacity.stop_before_delay(s)), seconds),
)


def both_ways(blocks_: st.SearchStrategy[Waits], any_: Any, all_: Any) -> st.SearchStrategy[Waits]:
    def built(name: str, parts: list[Waits]) -> Waits:
        ours, theirs = [our for our, _ in parts], [their for _, their in parts]
        if len(parts) == 2 and name in "|&":
            op = operator.or_ if name == "|" else operator.and_
            return op(*ours), op(*theirs)
        mine, its = any_ if name in ("any", "|") else all_
        return mine(*ours), its(*theirs)

    return st.builds(built, st.sampled_from(["any", "all", "|", "&"]), st.lists(blocks_, max_size=3))


stops = st.recursive(
    simple_stops,
    lambda inner: both_ways(inner, (blocks.stop_any, tenacity.stop_any), (blocks.stop_all, tenacity.stop_all)),
    max_leaves=5,
)


@given(stops=stops, attempts=st.integers(1, 25), elapsed=st.floats(0, 1e6), sleep=st.floats(0, 1e6))
def test_a_stop_is_tenacitys(stops, attempts, elapsed, sleep):
    ours, theirs = stops
    theirs_state = state(attempts, 0.0, sleep)
    # Exactly: the sum with a start time would be rounded.
    theirs_state.start_time, theirs_state.outcome_timestamp = 0.0, elapsed
    assert ours(attempts, elapsed, upcoming_sleep=sleep) is theirs(theirs_state)


def test_a_function_is_a_stop_condition():
    def at_night(attempts: int, elapsed_time: float, *, upcoming_sleep: float = 0.0) -> bool:
        return elapsed_time + upcoming_sleep > 100

    either = blocks.stop_after_attempt(3) | at_night
    assert [either(1, 90, upcoming_sleep=s) for s in (5, 15)] == [False, True]
    assert not (at_night & blocks.stop_after_attempt(3))(1, 200)


# -- Conditions --------------------------------------------------------------------------------------------------------

simple_conditions: st.SearchStrategy[Waits] = st.one_of(
    st.just((blocks.retry_always(), tenacity.retry_always)),
    st.just((blocks.retry_never(), tenacity.retry_never)),
    *(
        st.builds(lambda t, name=name: (getattr(blocks, name)(t), getattr(tenacity, name)(t)), types)
        for name in (
            "retry_if_exception_type", "retry_if_not_exception_type", "retry_unless_exception_type",
            "retry_if_exception_cause_type",
        )
    ),
    *(
        st.builds(
            lambda given, name=name: (getattr(blocks, name)(**given), getattr(tenacity, name)(**given)),
            st.sampled_from([{"message": "busy"}, {"match": "bus"}, {"match": "usy"}, {"message": ""}]),
        )
        for name in ("retry_if_exception_message", "retry_if_not_exception_message")
    ),
    st.just(
        (
            blocks.retry_if_exception(lambda error: len(str(error)) > 4),
            tenacity.retry_if_exception(lambda error: len(str(error)) > 4),
        )
    ),
)  # fmt: skip
conditions = st.recursive(
    simple_conditions,
    lambda inner: both_ways(inner, (blocks.retry_any, tenacity.retry_any), (blocks.retry_all, tenacity.retry_all)),
    max_leaves=5,
)


@given(conditions=conditions, error=errors)
def test_a_condition_is_tenacitys(conditions, error):
    ours, theirs = conditions
    assert ours(error) is bool(theirs(state(error=error)))


def test_a_function_is_a_condition():
    def short(error: BaseException) -> bool:
        return len(str(error)) < 5

    assert (blocks.retry_never() | short)(ValueError("busy"))
    assert not (short & blocks.retry_if_exception_type(Down))(ValueError("busy"))
    assert retry_policy(retry=short).next(0, 1, ValueError("too busy")) is None


# -- Policies ----------------------------------------------------------------------------------------------------------


def test_by_default_every_error_is_tried_again_twice_after_five_seconds():
    policy = retry_policy()
    assert [policy.next(0.0, failures, ERRORS[0]) for failures in (1, 2, 3)] == [5, 5, None]
    assert isinstance(policy, RetryPolicy)


@given(
    conditions=conditions, waits=simple_waits, stops=stops, error=errors, attempts=st.integers(1, 25),
    elapsed=st.floats(0, 1e5), seed=st.integers(0, 2**64),
)  # fmt: skip
def test_a_policy_asks_the_condition_then_waits_then_stops(conditions, waits, stops, error, attempts, elapsed, seed):
    policy = retry_policy(retry=conditions[0], wait=waits[0], stop=stops[0])
    delay = policy.next(elapsed, attempts, error, seed=seed)
    if not conditions[0](error) or stops[0](attempts, elapsed, upcoming_sleep=waits[0](attempts, seed=seed)):
        assert delay is None
    else:
        assert delay == waits[0](attempts, seed=seed)


def test_stop_before_delay_sees_the_delay_to_come():
    policy = retry_policy(wait=blocks.wait_fixed(3), stop=blocks.stop_before_delay(5))
    assert [policy.next(elapsed, 1, ERRORS[0]) for elapsed in (0, 1.9, 2, 2.1)] == [3, 3, None, None]


# -- Mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: blocks.wait_fixed(-1), r"wait_fixed\(wait=-1\.?0?\)"),
        (lambda: blocks.wait_fixed("5"), r"wait_fixed\(wait='5'\)"),
        (lambda: blocks.wait_fixed(float("nan")), "wait=nan"),
        (lambda: blocks.wait_fixed(timedelta(seconds=-1)), "wait=-1.0"),
        (lambda: blocks.wait_exponential(multiplier=-1), "multiplier=-1"),
        (lambda: blocks.wait_exponential_jitter(initial=None), "initial=None"),
        (lambda: blocks.wait_random(True), "min=True"),
        (lambda: blocks.wait_chain(), "at least one strategy"),
        (lambda: blocks.wait_chain(5), "5, which cannot be asked"),
        (lambda: blocks.stop_after_attempt("3"), "max_attempt_number='3'"),
        (lambda: blocks.stop_after_delay(None), "max_delay=None"),
        (lambda: blocks.retry_if_exception_type(ValueError("x")), "exception class"),
        (lambda: blocks.retry_if_exception_type(("x",)), "exception class"),
        (lambda: blocks.retry_if_exception("x"), "cannot be asked"),
        (lambda: retry_policy(retry=blocks.retry_always), r"needs its parentheses"),
        (lambda: retry_policy(wait=5), r"retry_policy\(wait=\) got 5"),
        (lambda: retry_policy(stop=3), r"retry_policy\(stop=\) got 3"),
        (lambda: retry_policy(wait=tenacity.wait_fixed(5)), "tenacity's own wait_fixed"),
        (lambda: retry_policy(stop=tenacity.stop_never), "tenacity's own"),
    ],
)
def test_a_block_that_cannot_work_is_refused_where_it_is_made(make, told):
    with pytest.raises(WorkflowValidationError, match=told):
        make()


@pytest.mark.parametrize("given", [{}, {"message": "a", "match": "b"}])
def test_a_message_condition_takes_one_of_both(given):
    with pytest.raises(TypeError, match="message"):
        blocks.retry_if_exception_message(**given)
