"""When a failed call is tried again: arithmetic, so its laws are properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowtine import Retry, Status

temporary = st.sampled_from([status for status in Status if status.retryable])
permanent = st.sampled_from([status for status in Status if not status.retryable])
seconds = st.floats(0, 1e6)
attempts = st.integers(1, 10_000)
jitters = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    Retry,
    max_attempts=st.none() | st.integers(1, 100),
    initial=st.floats(0, 100),
    factor=st.floats(1, 10),
    max_interval=st.floats(0, 1000),
    give_up_after=st.none() | seconds,
)


@given(policies, permanent, attempts, seconds, jitters)
def test_what_cannot_change_is_not_tried_again(
    retry: Retry, status: Status, attempt: int, failing_for: float, jitter: float
) -> None:
    assert retry.next_wait(status, attempt, failing_for, jitter) is None


@given(policies, temporary, attempts, seconds, jitters)
def test_a_wait_is_never_longer_than_the_longest(
    retry: Retry, status: Status, attempt: int, failing_for: float, jitter: float
) -> None:
    wait = retry.next_wait(status, attempt, failing_for, jitter)

    assert wait is None or 0 <= wait <= retry.longest_wait(attempt) <= retry.max_interval


@given(policies, temporary, attempts, seconds, jitters)
def test_there_are_never_more_attempts_than_allowed(
    retry: Retry, status: Status, attempt: int, failing_for: float, jitter: float
) -> None:
    again = retry.next_wait(status, attempt, failing_for, jitter) is not None

    if retry.max_attempts is not None and attempt >= retry.max_attempts:
        assert not again
    elif retry.give_up_after is None:
        assert again


@given(policies, temporary, attempts, seconds, jitters)
def test_no_attempt_begins_after_giving_up(
    retry: Retry, status: Status, attempt: int, failing_for: float, jitter: float
) -> None:
    wait = retry.next_wait(status, attempt, failing_for, jitter)

    if wait is not None and retry.give_up_after is not None:
        assert failing_for + wait <= retry.give_up_after


@given(policies, attempts)
def test_the_longest_wait_grows_up_to_the_interval(retry: Retry, attempt: int) -> None:
    wait, longer = retry.longest_wait(attempt), retry.longest_wait(attempt + 1)

    assert 0 <= wait <= longer <= retry.max_interval


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1), (3, 2), (10, 256), (11, 300), (100_000, 300)]
)
def test_by_default_the_wait_doubles_up_to_five_minutes(attempt: int, longest: float) -> None:
    assert Retry().longest_wait(attempt) == longest


def test_without_an_initial_wait_there_is_never_one() -> None:
    assert Retry(initial=0).longest_wait(100_000) == 0


def test_by_default_a_call_is_given_up_a_day_after_its_first_failure() -> None:
    assert Retry().next_wait(Status.TIMEOUT, 1_000, 86_399, 0.0) == 0
    assert Retry().next_wait(Status.TIMEOUT, 2, 86_400, 0.9) is None


@pytest.mark.peer_case(8)
def test_attempts_may_be_counted_from_the_first() -> None:
    retry = Retry(max_attempts=4)

    again = [retry.next_wait(Status.TCP_ERROR, n, 0, 0.5) is not None for n in range(1, 6)]

    assert again == [True, True, True, False, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"initial": -1},
        {"factor": 0.5},
        {"max_interval": -1},
        {"give_up_after": -1},
        {"max_interval": float("inf")},
        {"initial": float("nan")},
        {"factor": float("nan")},
        {"max_interval": float("nan")},
        {"give_up_after": float("nan")},
    ],
    ids=repr,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Retry"):
        Retry(**wrong)
