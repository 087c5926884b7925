"""Executions made of other executions, of children and of timers, run by workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import everything, let_it_be_due, rows, wait_until
from databases import query

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []
LET_GO = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


@pytest.fixture
def app(new_app: NewApp) -> rowtine.App:
    made = new_app()

    @made.function(name="double")
    def double(x: int) -> int:
        return 2 * x

    @made.function(name="refuse", retry=rowtine.Retry(max_attempts=1))
    def refuse(x: Any) -> None:
        raise KeyError(x)

    return made


def double(x: int) -> Any:
    return rowtine.call("double", x)


def refuse(x: Any) -> Any:
    return rowtine.call("refuse", x)


@pytest.mark.peer_case(2)
def test_sequential_calls(app: rowtine.App, database_url: str) -> None:
    @app.function(name="main")
    async def main(x: int) -> int:
        for _ in range(5):
            x = await double(x)
        return x

    assert app.run(main(1), timeout=60) == 32
    assert sorted(row["seq"] for row in rows(database_url, "calls") if row["seq"] is not None) == [
        *range(5)
    ]


@pytest.mark.peer_case(3)
def test_none_is_told_from_what_is_not_done(app: rowtine.App) -> None:
    @app.function(name="nothing")
    def nothing() -> None:
        RAN.append("nothing")

    @app.function(name="main")
    async def main() -> list[Any]:
        return [await nothing(), await nothing(), await double(1)]

    assert app.run(main(), timeout=60) == [None, None, 2]
    assert RAN == ["nothing"] * 2


@pytest.mark.peer_case(73)
def test_a_thousand_members_take_few_rounds(app: rowtine.App, database_url: str) -> None:
    @app.function(name="main")
    async def main() -> int:
        return sum(await rowtine.gather(*[double(x) for x in range(1000)]))

    @app.function(name="rounds")
    async def rounds() -> None: ...

    handle = app.start(main())
    seen = 0
    with app.worker().start():
        while (phase := query(database_url, "select phase from calls where function = 'main'")) != [
            ("done",)
        ]:
            assert phase
            for (round_,) in query(database_url, "select round from states"):
                seen = max(seen, round_)
        assert handle.result(timeout=60) == 2 * sum(range(1000))

    ((last,),) = query(database_url, "select max(delivered_round) from calls")
    assert last < 500
    assert seen <= last
    assert query(database_url, "select count(*) from calls where execution_id is not null") == [
        (1000,)
    ]


@pytest.mark.peer_case(60)
def test_members_keep_their_order_whoever_is_first(app: rowtine.App) -> None:
    @app.coroutine
    async def nap(x: int) -> int:
        await rowtine.sleep(0.2 - 0.05 * x)
        return await double(x)

    @app.function(name="main")
    async def main() -> Any:
        return await rowtine.gather(*[nap(x) for x in range(4)], double(4))

    assert app.run(main(), timeout=60) == [0, 2, 4, 6, 8]


@pytest.mark.peer_case(66)
def test_nested_joins(app: rowtine.App) -> None:
    @app.coroutine
    async def child(x: int) -> int:
        return sum(await rowtine.gather(double(x), double(x + 1)))

    @app.function(name="main")
    async def main() -> Any:
        return await rowtine.gather(
            rowtine.gather(double(1), child(2)),
            rowtine.any(refuse("a"), double(3)),
            rowtine.race(double(4), rowtine.sleep(3600)),
            rowtine.gather(),
            child(5),
        )

    assert app.run(main(), timeout=60) == [[2, 10], 6, 8, [], 22]


@pytest.mark.case(173)
@pytest.mark.peer_case(61)
def test_joins_of_nothing_return_at_once(app: rowtine.App, database_url: str) -> None:
    @app.function(name="main")
    async def main() -> list[Any]:
        return [await rowtine.gather(), await rowtine.any(), await rowtine.race()]

    assert app.run(main(), timeout=60) == [[], None, None]
    assert rows(database_url, "coroutines") == []


def test_the_first_error_of_a_gather_is_raised_and_the_others_are_cancelled(
    app: rowtine.App, database_url: str
) -> None:
    @app.coroutine
    async def stopped() -> None:
        try:
            await rowtine.sleep(3600)
        finally:
            RAN.append("stopped")

    @app.function(name="main")
    async def main() -> Any:
        try:
            await rowtine.gather(stopped(), refuse("k"), rowtine.sleep(7200))
        except KeyError as error:
            return [error.args[0], await double(1)]

    assert app.run(main(), timeout=60) == ["k", 2]
    assert RAN == ["stopped"]
    timers = [row for row in rows(database_url, "calls") if row["kind"] == "timer"]
    assert [(row["phase"], row["status"], row["resolution"]) for row in timers] == [
        ("done", "CANCELLED", "cancelled")
    ] * 2


def test_members_that_are_let_go_on_go_on(app: rowtine.App, database_url: str) -> None:
    @app.coroutine
    async def slow() -> None:
        await rowtine.sleep(3600)
        RAN.append(await double(5))

    @app.function(name="main")
    async def main() -> Any:
        try:
            await rowtine.gather(slow(), refuse("k"), cancel_losers=False)
        except KeyError:
            await rowtine.sleep(7200)
        return await double(1)

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: len(timers(database_url)) == 2)
        long, short = sorted(row["id"] for row in timers(database_url))[::-1]
        assert query(database_url, "select count(*) from calls where resolution = 'cancelled'") == [
            (0,)
        ]
        let_it_be_due(database_url, short)
        wait_until(lambda: RAN)
        let_it_be_due(database_url, long)
        assert handle.result(timeout=60) == 2

    assert RAN == [10]


def test_any_of_what_all_fail_has_the_errors_in_order(app: rowtine.App) -> None:
    @app.function(name="main")
    async def main() -> Any:
        try:
            await rowtine.any(refuse("a"), refuse("b"), refuse("c"))
        except rowtine.AnyException as error:
            return [type(each).__name__ + str(each) for each in error.exceptions]

    assert app.run(main(), timeout=60) == ["KeyError'a'", "KeyError'b'", "KeyError'c'"]


@pytest.mark.peer_case(56)
def test_the_result_of_a_race_stays_what_it_was_when_the_loser_has_ended_too(
    app: rowtine.App, database_url: str
) -> None:
    @app.function(name="slow")
    def slow() -> str:
        LET_GO.wait(60)
        return "slow"

    @app.function(name="main")
    async def main() -> list[Any]:
        first = await rowtine.race(slow(), double(1), cancel_losers=False)
        second = await double(2)
        await rowtine.sleep(3600)
        return [first, second]

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: len(timers(database_url)) == 1)
        LET_GO.set()
        slow_is_done = "select 1 from calls where function = 'slow' and phase = 'done'"
        wait_until(lambda: query(database_url, slow_is_done))
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == [2, 4]


def timers(url: str) -> list[dict[str, Any]]:
    return [row for row in rows(url, "calls") if row["kind"] == "timer"]


@pytest.mark.case(211)
@pytest.mark.peer_case(19)
def test_a_child_whose_argument_cannot_be_stored_fails_and_leaves_nothing_half_written(
    app: rowtine.App, database_url: str
) -> None:
    @app.coroutine
    async def child(x: int) -> int:
        await double(x)
        return await rowtine.call("double", object() if x == 5 else x)

    @app.function(name="main")
    async def main() -> Any:
        try:
            return await rowtine.gather(*[child(x) for x in range(10)])
        except TypeError as error:
            return str(error)

    assert "object" in app.run(main(), timeout=60)
    assert len(rows(database_url, "coroutines")) == 11
    assert {row["phase"] for row in rows(database_url, "coroutines")} == {"done"}


@pytest.mark.peer_case(68)
def test_nested_executions_pass_values_and_errors_up(app: rowtine.App, database_url: str) -> None:
    @app.function(name="depth")
    async def depth(n: int) -> int:
        if n == 0:
            await refuse("bottom")
        return 1 + await rowtine.call("depth", n - 1)

    @app.function(name="main")
    async def main() -> str:
        try:
            await depth(4)
        except KeyError as error:
            return str(error)
        return ""

    assert app.run(main(), timeout=60) == "'bottom'"
    calls = rows(database_url, "calls")
    (root,) = [row for row in calls if row["function"] == "main"]
    assert {row["root_id"] for row in calls if row["id"] != root["id"]} == {root["id"]}


def test_a_template_that_is_awaited_twice_is_two_calls(app: rowtine.App, database_url: str) -> None:
    @app.function(name="count")
    def count() -> int:
        RAN.append(1)
        return len(RAN)

    @app.function(name="main")
    async def main() -> Any:
        template = count()
        return [await template, await template, *await rowtine.gather(template, template)]

    result = app.run(main(), timeout=60)

    assert result[:2] == [1, 2]
    assert sorted(result[2:]) == [3, 4]


# --- timers ---------------------------------------------------------------------------------------


@pytest.mark.peer_case(23)
def test_a_timer_is_due_when_the_database_says_so(app: rowtine.App, database_url: str) -> None:
    @app.function(name="main")
    async def main() -> str:
        await rowtine.sleep(hours=1)
        return "woken"

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: timers(database_url))
        ((left,),) = query(database_url, seconds_left(database_url))
        assert 3500 < left <= 3600
        with pytest.raises(TimeoutError):
            handle.result(timeout=0.2)
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == "woken"

    (timer,) = timers(database_url)
    assert (timer["phase"], timer["status"], timer["attempt"]) == ("done", "OK", 0)


def seconds_left(url: str) -> str:
    if url.startswith("sqlite"):
        return "select due / 1e6 - strftime('%s', 'now') - 1 from calls where kind = 'timer'"
    left = "extract(epoch from due - clock_timestamp())::float"
    return f"select {left} from calls where kind = 'timer'"


@pytest.mark.peer_case(24, 25)
def test_a_timer_outlives_the_worker_and_fires_once_after_its_time(
    app: rowtine.App, database_url: str
) -> None:
    @app.function(name="main")
    async def main() -> str:
        await rowtine.sleep(3600)
        RAN.append("woken")
        return "woken"

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: timers(database_url))
        wait_until(lambda: rows(database_url, "states"))
    let_it_be_due(database_url)
    with app.worker().start(), app.worker().start():
        assert handle.result(timeout=60) == "woken"

    assert RAN == ["woken"]
    assert len(timers(database_url)) == 1


LENGTHS = [(7 * i) % 50 for i in range(50)]


@pytest.mark.peer_case(28)
def test_fifty_timers_wake_in_the_order_in_which_they_are_due(
    app: rowtine.App, database_url: str
) -> None:
    @app.coroutine
    async def nap(x: int) -> None:
        await rowtine.sleep(3600 + x)
        RAN.append(x)

    @app.function(name="main")
    async def main() -> None:
        await rowtine.gather(*[nap(x) for x in LENGTHS])

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: len(timers(database_url)) == 50)
        wait_until(lambda: rows(database_url, "states"))
    back = "due - 7200 * 1000000" if database_url.startswith("sqlite") else "due - interval '2 h'"
    query(database_url, f"update calls set due = {back} where kind = 'timer'")
    with app.worker().start():
        handle.result(timeout=60)

    assert sorted(LENGTHS) == RAN


@pytest.mark.parametrize("seconds", [0, -1, float("-inf")])
@pytest.mark.peer_case(33)
def test_a_sleep_of_nothing_is_a_wait_all_the_same(
    seconds: float, app: rowtine.App, database_url: str
) -> None:
    @app.function(name="main")
    async def main(seconds: float) -> str:
        await rowtine.sleep(seconds)
        return "on"

    assert app.run(main(seconds), timeout=60) == "on"
    assert [row["resolution"] for row in timers(database_url)] == ["result"]


def test_a_sleep_of_a_hundred_years_is_stored_and_a_longer_one_refused_at_the_call(
    app: rowtine.App, database_url: str
) -> None:
    @app.function(name="main")
    async def main() -> str:
        try:
            await rowtine.sleep(days=101 * 366)
        except ValueError as error:
            RAN.append(str(error))
        await rowtine.sleep(days=100 * 365)
        return "woken"

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: timers(database_url))
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == "woken"

    assert "100 years" in RAN[0]


# --- how results come -----------------------------------------------------------------------------


@pytest.mark.case(179)
def test_no_more_results_are_delivered_in_a_round_than_the_limit(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app(poll_max_results=2)

    @app.function(name="one")
    def one(x: int) -> int:
        return x

    @app.function(name="main")
    async def main() -> Any:
        return await rowtine.gather(*[one(x) for x in range(7)])

    assert app.run(main(), timeout=60) == list(range(7))
    per_round = query(
        database_url,
        "select count(*) from calls where delivered_round is not null group by delivered_round",
    )
    assert max(count for (count,) in per_round) <= 2


def test_a_round_waits_for_as_many_results_as_it_wants(new_app: NewApp, database_url: str) -> None:
    app = new_app(poll_min_results=3)

    @app.function(name="one")
    def one(x: int) -> int:
        return x

    @app.function(name="main")
    async def main() -> Any:
        return await rowtine.gather(*[one(x) for x in range(7)])

    assert app.run(main(), timeout=60) == list(range(7))
    per_round = query(
        database_url,
        "select count(*) from calls where delivered_round is not null"
        " group by delivered_round order by delivered_round",
    )
    assert all(count >= 3 for (count,) in per_round[:-1])


@pytest.mark.case(220)
def test_a_long_poll_ends_in_time(new_app: NewApp, database_url: str) -> None:
    app = new_app(poll_max_wait_seconds=0.2)

    @app.function(name="main")
    async def main() -> str:
        await rowtine.sleep(3600)
        return "woken"

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: [row["round"] >= 3 for row in rows(database_url, "states")] == [True])
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == "woken"


def test_an_idle_execution_is_left_alone(app: rowtine.App, database_url: str) -> None:
    @app.function(name="main")
    async def main() -> None:
        await rowtine.sleep(3600)

    app.start(main())
    with app.worker().start():
        wait_until(lambda: rows(database_url, "states"))
        before = everything(database_url, without=["heartbeat_at"])
        assert app.start(double(1)).result(timeout=60) == 2
        after = everything(database_url, without=["heartbeat_at"])

    assert after["states"] == before["states"]
    assert after["coroutines"] == before["coroutines"]
