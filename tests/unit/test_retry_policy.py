"""Retry policies: how long to wait, when to give up, and that chance comes in as a seed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_flow.errors import WorkflowValidationError
from durable_flow.retry_policy import ConstantDelayRetryPolicy, ExponentialBackoffRetryPolicy, RetryPolicy

ERROR = RuntimeError("down")


def test_constant_delay_waits_the_same_after_each_failure_until_the_last_attempt_has_failed():
    policy = ConstantDelayRetryPolicy(maximum_attempts=3, delay=5)
    assert [policy.next(100.0, failures, ERROR) for failures in (1, 2, 3, 4)] == [5, 5, None, None]


def test_one_attempt_means_no_retry():
    assert ConstantDelayRetryPolicy(maximum_attempts=1).next(0.0, 1, ERROR) is None


def test_exponential_backoff_doubles_up_to_its_limit():
    policy = ExponentialBackoffRetryPolicy(initial_delay=1, multiplier=2, max_delay=6, maximum_attempts=6, jitter=False)
    assert [policy.next(0.0, failures, ERROR, seed=1) for failures in range(1, 7)] == [1, 2, 4, 6, 6, None]


def test_a_delay_too_large_for_a_float_is_the_limit():
    policy = ExponentialBackoffRetryPolicy(maximum_attempts=10_000, max_delay=60, jitter=False)
    assert policy.next(0.0, 9_000, ERROR) == 60


@given(seed=st.integers(), failures=st.integers(1, 9))
def test_jitter_depends_on_the_seed_alone_and_never_exceeds_the_delay_without_it(seed, failures):
    policy = ExponentialBackoffRetryPolicy(maximum_attempts=10)
    plain = ExponentialBackoffRetryPolicy(maximum_attempts=10, jitter=False)
    before = random.getstate()
    first = policy.next(0.0, failures, ERROR, seed=seed)
    assert first == policy.next(9.0, failures, ValueError("other"), seed=seed)
    assert 0 <= first <= plain.next(0.0, failures, ERROR)
    assert random.getstate() == before


def test_different_seeds_spread_the_retries():
    policy = ExponentialBackoffRetryPolicy(maximum_attempts=10)
    assert len({policy.next(0.0, 5, ERROR, seed=seed) for seed in range(50)}) > 40


def test_without_a_seed_there_is_no_jitter():
    assert ExponentialBackoffRetryPolicy(initial_delay=3).next(0.0, 1, ERROR) == 3


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3", None])
def test_a_bad_number_of_attempts_is_refused(value):
    with pytest.raises(WorkflowValidationError, match="maximum_attempts="):
        ConstantDelayRetryPolicy(maximum_attempts=value)
    with pytest.raises(WorkflowValidationError, match="maximum_attempts="):
        ExponentialBackoffRetryPolicy(maximum_attempts=value)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "5"])
@pytest.mark.parametrize("name", ["initial_delay", "multiplier", "max_delay"])
def test_a_bad_delay_is_refused(name, value):
    with pytest.raises(WorkflowValidationError, match=f"{name}="):
        ExponentialBackoffRetryPolicy(**{name: value})
    with pytest.raises(WorkflowValidationError, match="delay="):
        ConstantDelayRetryPolicy(delay=value)


def test_both_are_policies():
    assert isinstance(ConstantDelayRetryPolicy(), RetryPolicy)
    assert isinstance(ExponentialBackoffRetryPolicy(), RetryPolicy)
