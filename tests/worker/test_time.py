"""Timers and limits of time at a worker, by the database's clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import rowtine
from acceptance.support import let_it_be_due, past, rows, wait_until
from databases import query

NewApp = Callable[..., rowtine.App]


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="name")
    async def name(seconds: float, label: str) -> str:
        await rowtine.sleep(seconds)
        return label

    @app.function(name="until")
    async def until(moment: datetime) -> str:
        await rowtine.sleep_until(moment)
        return "woken"

    @app.coroutine
    async def labelled(seconds: float) -> float:
        await rowtine.sleep(seconds)
        return seconds

    @app.function(name="order")
    async def order(seconds: list[float]) -> Any:
        ended = rowtine.as_completed([labelled(each) for each in seconds])
        return [await task async for task in ended]

    @app.function(name="first_of")
    async def first_of(seconds: list[float]) -> Any:
        tasks = [rowtine.spawn(rowtine.sleep(each)) for each in seconds]
        ended = []
        async for task in rowtine.as_completed(tasks):
            await task
            ended.append(rowtine.now())
        return len(set(ended))

    @app.function(name="bounded")
    async def bounded(seconds: float) -> Any:
        began = rowtine.now()
        try:
            async with rowtine.timeout(seconds):
                return await rowtine.signal("go")
        except TimeoutError as error:
            return [str(error), (rowtine.now() - began).total_seconds()]

    @app.function(name="raced")
    async def raced() -> Any:
        return await rowtine.any(rowtine.sleep(days=1), rowtine.signal("go"))

    @app.function(name="clock")
    async def clock() -> Any:
        seen = [rowtine.now(), rowtine.now()]
        await rowtine.sleep(0)
        seen += [rowtine.now()]
        await rowtine.gather(rowtine.sleep(0), rowtine.sleep(0))
        seen += [rowtine.now()]
        await rowtine.signal("go")
        return seen

    return app


def start(app: rowtine.App, function: str, *args: Any) -> rowtine.Handle[Any]:
    return app.start(app.registry.function(function)(*args))


def timers(url: str) -> list[dict[str, Any]]:
    return [row for row in rows(url, "calls") if row["kind"] == "timer"]


@pytest.mark.peer_case(33)
@pytest.mark.parametrize("seconds", [0, -5, -1e300])
def test_a_sleep_of_nothing_or_less_goes_on_at_once(new_app: NewApp, seconds: float) -> None:
    app = define(new_app())
    with app.worker().start():
        assert start(app, "name", seconds, "x").result(20) == "x"


def test_a_sleep_of_years_is_a_row_that_is_due_in_years(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "name", 60 * 365.25 * 86400, "x")
        wait_until(lambda: timers(database_url))
        let_it_be_due(database_url)

        assert handle.result(20) == "x"


@pytest.mark.peer_case(31)
@pytest.mark.parametrize(
    "moment",
    [
        datetime(2001, 1, 1, tzinfo=UTC),
        datetime(2001, 1, 1),  # noqa: DTZ001 - naive, which is UTC
        datetime(2001, 1, 1, tzinfo=timezone(timedelta(hours=5))),
    ],
    ids=["utc", "naive", "elsewhere"],
)
def test_a_moment_that_is_past_goes_on_at_once(new_app: NewApp, moment: datetime) -> None:
    app = define(new_app())
    with app.worker().start():
        assert start(app, "until", moment).result(20) == "woken"


@pytest.mark.peer_case(31)
def test_aware_and_naive_moments_are_the_same_instant(plain_app: NewApp, database_url: str) -> None:
    app = define(plain_app())
    noon = datetime(2999, 1, 1, 12, tzinfo=UTC)
    with app.worker().start():
        for moment in (
            noon,
            noon.replace(tzinfo=None),
            noon.astimezone(timezone(timedelta(hours=3))),
        ):
            start(app, "until", moment)
        wait_until(lambda: len(timers(database_url)) == 3)

    assert len({row["due"] for row in timers(database_url)}) == 1


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e12])
def test_times_that_make_no_sense_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="longest is 100 years"):
        rowtine.sleep(wrong)
    with pytest.raises(ValueError, match="longest is 100 years"):
        rowtine.timeout(wrong)
    with pytest.raises(ValueError, match="longest is 100 years"):
        rowtine.signal("n", timeout=wrong)


def test_moments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(TypeError, match="takes a datetime"):
        rowtine.sleep_until(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="last moment"):
        rowtine.sleep_until(datetime(9999, 1, 1, tzinfo=UTC))


@pytest.mark.peer_case(27)
def test_timers_due_at_once_fire_in_one_round_in_the_order_of_their_creation(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    handle = start(app, "first_of", [1000, 1000, 1000])
    with app.worker().start():
        wait_until(lambda: len(timers(database_url)) == 3)
    moment = past(database_url)
    query(database_url, f"update calls set due = {moment} where kind = 'timer'")
    with app.worker().start():
        assert handle.result(20) == 1
    delivered = {row["delivered_round"] for row in timers(database_url)}
    assert len(delivered) == 1


@pytest.mark.peer_case(28)
def test_timers_end_in_the_order_in_which_they_are_due(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    seconds = [0.4, 0.1, 0.3, 0.0, 0.2]
    with app.worker().start():
        assert start(app, "order", seconds).result(20) == sorted(seconds)


@pytest.mark.peer_case(30)
def test_a_timer_that_lost_leaves_no_row_that_will_wake_anybody(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "raced")
        handle.signal("go", 1)
        assert handle.result(20) == 1

    (timer,) = timers(database_url)
    assert (timer["phase"], timer["due"], timer["resolution"]) == ("done", None, "cancelled")


@pytest.mark.peer_case(32)
def test_a_timer_that_fires_when_it_is_cancelled_does_one_of_the_two(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    handle = start(app, "raced")
    with app.worker().start():
        wait_until(lambda: timers(database_url))
    let_it_be_due(database_url)
    handle.signal("go", 1)

    with app.worker().start():
        assert handle.result(20) in (None, 1)


def test_a_block_ends_when_its_time_is_up(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        message, seconds = start(app, "bounded", 0.2).result(20)

    assert message == "not done within 0.2 s"
    assert seconds >= 0.2
    (wait,) = (row for row in rows(database_url, "calls") if row["kind"] == "signal")
    assert (wait["phase"], wait["resolution"], wait["decided_by"]) == ("done", "timeout", 1)


def test_a_limit_that_nobody_catches_is_the_outcome_and_no_reason_to_begin_anew(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())

    @app.function(name="impatient")
    async def impatient() -> None:
        async with rowtine.timeout(0.01):
            await rowtine.signal("never")

    with app.worker().start(), pytest.raises(rowtine.TimedOut):
        app.start(impatient()).result(20)

    (row,) = (row for row in rows(database_url, "calls") if row["function"] == "impatient")
    assert (row["phase"], row["attempt"]) == ("done", 1)


def test_a_retry_may_name_it(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())

    @app.function(
        name="patient",
        retry=rowtine.Retry(initial=0, max_attempts=3, retry_on=(rowtine.TimedOut,)),
    )
    async def patient() -> None:
        await rowtine.signal("never", timeout=0.01)

    with app.worker().start(), pytest.raises(TimeoutError):
        app.start(patient()).result(20)

    (row,) = (row for row in rows(database_url, "calls") if row["function"] == "patient")
    assert row["attempt"] == 3


def test_a_block_that_is_done_in_time_leaves_no_timer(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "bounded", 1000)
        handle.signal("go", "done")
        assert handle.result(20) == "done"

    (timer,) = timers(database_url)
    assert (timer["phase"], timer["due"]) == ("done", None)


def test_time_stands_still_between_awaits_and_is_the_same_when_rebuilt(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    handle = start(app, "clock")
    with app.worker().start():
        wait_until(lambda: any(row["kind"] == "signal" for row in rows(database_url, "calls")))
    handle.signal("go")
    with app.worker().start():  # which rebuilds it from its rows
        first, again, second, third = handle.result(20)

    assert first == again
    assert first < second < third
    (root,) = (row for row in rows(database_url, "calls") if row["execution_id"] is None)
    began = root["started_at"]
    if isinstance(began, int):
        began = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=began)
    assert first == began
