"""What can be said of one call, and what is refused at the door."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import rowtine
from rowtine.core.options import DEFAULT, CallOptions, checked_options


def test_nothing_said_is_the_default() -> None:
    assert checked_options() == DEFAULT


def test_a_timedelta_is_as_good_as_seconds() -> None:
    minute = timedelta(minutes=1)

    options = checked_options(timeout=minute, delay=minute, deadline=minute)

    assert options == CallOptions(timeout=60.0, delay=60.0, deadline=60.0)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2030, 1, 1, 12),  # noqa: DTZ001 - a naive one is taken as UTC
        datetime(2030, 1, 1, 12, tzinfo=UTC),
        datetime(2030, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
    ],
    ids=["naive", "UTC", "elsewhere"],
)
def test_a_deadline_is_a_moment_in_utc(moment: datetime) -> None:
    deadline = checked_options(deadline=moment).deadline

    assert isinstance(deadline, datetime)
    assert deadline == datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert deadline.tzinfo is UTC


@pytest.mark.parametrize("option", ["timeout", "deadline", "delay"])
@pytest.mark.parametrize(
    "wrong", [-1, math.nan, math.inf, 101 * 366 * 86400, "1", True, [], timedelta(seconds=-1)]
)
def test_a_time_that_makes_no_sense_is_refused_by_its_name(option: str, wrong: Any) -> None:
    with pytest.raises(rowtine.UsageError, match=rf"options\({option}="):
        checked_options(**{option: wrong})


def test_no_time_at_all_is_no_timeout() -> None:
    with pytest.raises(rowtine.UsageError, match="more than 0"):
        checked_options(timeout=0)


def test_a_moment_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(rowtine.UsageError, match="no moment in UTC"):
        checked_options(deadline=datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))))


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "line\n", "\ud800", 7, b"k"])
def test_a_key_is_a_short_printable_text(key: Any) -> None:
    with pytest.raises(rowtine.UsageError, match="key"):
        checked_options(key=key)


def test_a_key_of_the_full_length_is_taken() -> None:
    assert checked_options(key="ü" * 200).key == "ü" * 200


def test_a_policy_with_a_predicate_cannot_be_stored_with_a_call() -> None:
    with pytest.raises(rowtine.UsageError, match=r"@app\.function\(retry=\.\.\.\)"):
        checked_options(retry=rowtine.Retry(when=lambda _: True))


def test_a_policy_is_a_retry() -> None:
    wrong: Any = 3
    with pytest.raises(rowtine.UsageError, match=r"rowtine\.Retry, not 3"):
        checked_options(retry=wrong)
