"""`f.options(...)`: what a start writes, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import rowtine
from acceptance.support import assert_lawful, rows, wait_until
from rowtine.core.options import CallOptions


@pytest.fixture
def app(database_url: str) -> Iterator[rowtine.App]:
    made = rowtine.App(database_url, poll_interval=0.02)
    yield made
    made.close()
    assert_lawful(database_url)


def add(a: int, b: int = 1) -> int:
    return a + b


@pytest.fixture
def f(app: rowtine.App) -> Any:
    return app.function(add)


def the_call(url: str) -> dict[str, Any]:
    (row,) = rows(url, "calls")
    return row


def moment(value: Any) -> datetime:
    if isinstance(value, int):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
    assert isinstance(value, datetime)
    return value


def test_a_call_with_options_is_a_call_that_carries_them(f: Any) -> None:
    call = f.options(timeout=5, delay=2)(1, b=2)

    assert call.options == CallOptions(timeout=5.0, delay=2.0)
    assert call == f(1, b=2)
    assert repr(f.options(delay=1)) == "<function add with options>"


def test_arguments_are_checked_as_without_options(f: Any) -> None:
    with pytest.raises(TypeError, match=r"add\(\) missing"):
        f.options(delay=1)()


def test_wrong_options_are_refused_where_they_are_written(f: Any) -> None:
    with pytest.raises(rowtine.UsageError, match="delay"):
        f.options(delay=-1)


def test_without_options_a_start_writes_none(app: rowtine.App, f: Any, database_url: str) -> None:
    app.start(f(1))

    row = the_call(database_url)
    assert (row["options"], row["key"], row["deadline"]) == (None, None, None)
    assert abs(moment(row["due"]) - moment(row["created_at"])) < timedelta(seconds=10)


def test_a_delay_is_the_time_from_acceptance_to_the_first_attempt(
    app: rowtine.App, f: Any, database_url: str
) -> None:
    app.start(f.options(delay=1000)(1))

    row = the_call(database_url)
    wait = moment(row["due"]) - moment(row["created_at"])
    assert timedelta(seconds=990) < wait < timedelta(seconds=1010)


def test_a_deadline_may_be_a_time_from_acceptance(
    app: rowtine.App, f: Any, database_url: str
) -> None:
    app.start(f.options(deadline=timedelta(hours=1))(1))

    row = the_call(database_url)
    wait = moment(row["deadline"]) - moment(row["created_at"])
    assert timedelta(minutes=59) < wait < timedelta(minutes=61)


@pytest.mark.peer_case(31)
@pytest.mark.parametrize("zone", [None, UTC], ids=["naive", "aware"])
def test_a_deadline_may_be_a_moment(app: rowtine.App, f: Any, database_url: str, zone: Any) -> None:
    app.start(f.options(deadline=datetime(2040, 1, 2, 3, 4, 5, 6, zone))(1))

    assert moment(the_call(database_url)["deadline"]) == datetime(2040, 1, 2, 3, 4, 5, 6, UTC)


def test_an_awaited_call_outside_carries_its_options_too(
    app: rowtine.App, f: Any, database_url: str
) -> None:
    assert app.run(f.options(timeout=30, deadline=60)(1), timeout=60) == 2

    assert the_call(database_url)["options"] == '{"timeout":30.0}'


def test_each_option_of_a_call_that_a_coroutine_makes_stands_in_its_row(
    app: rowtine.App, f: Any, database_url: str
) -> None:
    app.function(caller)

    app.start(rowtine.call("caller"))
    with app.worker().start():
        wait_until(lambda: [row for row in rows(database_url, "calls") if row["function"] == "add"])

    (row,) = [row for row in rows(database_url, "calls") if row["function"] == "add"]
    assert row["options"] == '{"timeout":7.0,"cancel_losers":false}'
    assert timedelta(seconds=990) < moment(row["due"]) - moment(row["created_at"])
    assert timedelta(seconds=1990) < moment(row["deadline"]) - moment(row["created_at"])


async def caller() -> int:
    options: Any = Functions.add.options(timeout=7, delay=1000, deadline=2000, cancel_losers=False)
    return await options(1)


class Functions:
    """For bodies: free variables are refused, globals are not."""

    add: Any


@pytest.fixture(autouse=True)
def known(f: Any) -> None:
    Functions.add = f
