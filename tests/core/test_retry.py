"""When a failed call is tried again: arithmetic, so its laws are properties."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowtine import RemoteError, Retry, Status

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
        {"initial": float("inf")},
        {"factor": float("inf")},
        {"retry_on": ConnectionError},
        {"retry_on": [ConnectionError]},
        {"retry_on": (int,)},
        {"retry_on": ("",)},
        {"retry_on": "ConnectionError"},
        {"never_on": None},
        {"never_on": "ConnectionError"},
        {"when": "always"},
    ],
    ids=repr,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Retry"):
        Retry(**wrong)


# --- which errors -------------------------------------------------------------------------------


class Limited(Exception):
    """An error of a service that says when to come back."""

    def __init__(self, retry_after: Any = None) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Refused(ConnectionError):
    pass


def again(retry: Retry, error: Exception, status: Status = Status.PERMANENT_ERROR) -> bool:
    return retry.next_wait(status, 1, 0, 0.5, error) is not None


LIMITED = f"{__name__}.Limited"


@pytest.mark.peer_case(10)
@pytest.mark.parametrize("listed", [KeyError, "KeyError", LookupError, "LookupError"])
def test_exactly_the_listed_errors_are_tried_again(listed: Any) -> None:
    retry = Retry(retry_on=(listed,))

    assert again(retry, KeyError())
    assert not again(retry, ConnectionError(), Status.TCP_ERROR)


@pytest.mark.parametrize("listed", [Limited, LIMITED])
def test_a_class_of_ones_own_is_listed_by_itself_or_by_its_dotted_name(listed: Any) -> None:
    assert again(Retry(retry_on=(listed,)), Limited())
    assert not again(Retry(never_on=(listed,)), Limited(1.0))


def test_an_empty_list_lists_nothing() -> None:
    assert not again(Retry(retry_on=()), TimeoutError(), Status.TIMEOUT)


@pytest.mark.parametrize("never", [Refused, ConnectionError, f"{__name__}.Refused", "OSError"])
def test_what_is_never_retried_is_not_whatever_else_is_said(never: Any) -> None:
    retry = Retry(retry_on=(Refused,), never_on=(never,), when=lambda _: True)

    assert not again(retry, Refused(), Status.TCP_ERROR)


def test_an_error_of_a_class_that_is_not_imported_is_known_by_its_name() -> None:
    error = RemoteError("shop.Sold", "out")

    assert again(Retry(retry_on=("shop.Sold",)), error)
    assert again(Retry(retry_on=(Exception,)), error)
    assert not again(Retry(retry_on=("shop.Closed", RemoteError)), error)
    assert not again(Retry(never_on=("shop.Sold",)), error, Status.TIMEOUT)


def test_a_predicate_is_asked_last_and_can_only_refuse() -> None:
    asked: list[Exception] = []

    def when(error: Exception) -> bool:
        asked.append(error)
        return "later" in str(error)

    later, never = TimeoutError("later"), TimeoutError("never")

    assert again(Retry(when=when), later, Status.TIMEOUT)
    assert not again(Retry(when=when), never, Status.TIMEOUT)
    assert not again(Retry(when=when), ValueError("later"))  # no need to ask
    assert not again(Retry(when=when, max_attempts=1), later, Status.TIMEOUT)
    assert asked == [later, never]


def test_a_predicate_that_fails_refuses() -> None:
    def when(error: Exception) -> bool:
        raise KeyError

    assert not again(Retry(when=when), TimeoutError(), Status.TIMEOUT)


@pytest.mark.parametrize(
    "status", [Status.CANCELLED, Status.INCOMPATIBLE_STATE, Status.OK], ids=str
)
def test_what_was_cancelled_is_not_tried_again_whatever_is_listed(status: Status) -> None:
    assert not again(Retry(retry_on=(Exception,)), Limited(1.0), status)


# --- an error that says when --------------------------------------------------------------------


@pytest.mark.peer_case(16)
@pytest.mark.parametrize("after", [30, 30.0, timedelta(seconds=30)], ids=repr)
@given(policies, st.sampled_from(list(Status)), attempts, jitters)
def test_what_an_error_asks_for_is_exactly_what_it_gets(
    after: Any, retry: Retry, status: Status, attempt: int, jitter: float
) -> None:
    wait = retry.next_wait(status, attempt, 0, jitter, Limited(after))

    refused = status in (Status.OK, Status.CANCELLED, Status.INCOMPATIBLE_STATE)
    over = retry.max_attempts is not None and attempt >= retry.max_attempts
    late = retry.give_up_after is not None and retry.give_up_after < 30
    assert wait == (None if refused or over or late else 30)


@pytest.mark.parametrize(
    "nonsense",
    [-1, float("nan"), float("inf"), 10**400, True, "30", None, timedelta(seconds=-1)],
    ids=repr,
)
def test_a_time_that_makes_no_sense_is_as_if_not_said(nonsense: Any) -> None:
    assert not again(Retry(), Limited(nonsense))
    assert Retry().next_wait(Status.THROTTLED, 2, 0, 0.5, Limited(nonsense)) == 0.5


def test_an_attribute_that_cannot_be_read_is_as_if_not_said() -> None:
    class Broken(Exception):
        @property
        def retry_after(self) -> float:
            raise KeyError

    assert not again(Retry(), Broken())


def test_a_list_of_errors_is_exact_also_for_one_that_says_when() -> None:
    assert not again(Retry(retry_on=(ConnectionError,)), Limited(1.0))
    assert not again(Retry(when=lambda _: False), Limited(1.0))
