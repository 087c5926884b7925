"""Steps of an execution at a worker: how often a body runs, and what its caller sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import rowtine
from acceptance.support import let_it_be_due, rows, wait_until

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    RAN.clear()


@pytest.fixture
def app(new_app: NewApp) -> rowtine.App:
    made = new_app()

    @made.function(name="step")
    def step(x: Any, plus: int = 0) -> Any:
        RAN.append(x)
        return x + plus

    return made


def step(x: Any, **more: Any) -> Any:
    return rowtine.call("step", x, **more)


def sleeping(url: str) -> bool:
    """Whether an execution is suspended in a sleep."""
    timers = [row for row in rows(url, "calls") if row["kind"] == "timer"]
    return any(row["phase"] != "done" for row in timers) and bool(rows(url, "states"))


@pytest.mark.peer_case(1, 2)
def test_the_value_of_a_step_is_the_next_ones_argument_and_each_body_runs_once(
    app: rowtine.App,
) -> None:
    @app.function(name="main")
    async def main(x: int) -> int:
        return await step(await step(x, plus=1), plus=10)

    assert app.run(main(1), timeout=60) == 12
    assert RAN == [1, 2]


@pytest.mark.case(159)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_function_takes_its_arguments_by_name(kind: str, app: rowtine.App) -> None:
    @app.function(name="sync")
    def in_a_thread(a: int, /, b: int, *, x: int = 0, **more: int) -> list[Any]:
        return [a, b, x, more]

    @app.function(name="async")
    async def on_the_loop(a: int, /, b: int, *, x: int = 0, **more: int) -> list[Any]:
        return [a, b, x, more]

    @app.function(name="main")
    async def main(*, kind: str) -> Any:
        return await rowtine.call(kind, 1, b=2, x=3, y=4)

    assert app.run(rowtine.call("main", kind=kind), timeout=60) == [1, 2, 3, {"y": 4}]


@pytest.mark.peer_case(3)
@pytest.mark.parametrize("value", [None, "", [], {}, 0, False, {"a": [{"b": None}, ""]}])
def test_a_value_that_is_empty_is_a_value_also_after_a_restart(
    value: Any, app: rowtine.App, database_url: str
) -> None:
    @app.function(name="give")
    def give(value: Any) -> Any:
        RAN.append("give")
        return value

    @app.function(name="main")
    async def main(value: Any) -> list[Any]:
        given = await give(value)
        await rowtine.sleep(3600)
        return [given, await give(value)]

    handle = app.start(main(value))
    with app.worker().start():
        wait_until(lambda: sleeping(database_url))
    let_it_be_due(database_url)
    with app.worker().start():
        result = handle.result(timeout=60)

    assert repr(result) == repr([value, value])
    assert RAN == ["give", "give"]


@pytest.mark.peer_case(5)
def test_a_step_before_a_sleep_is_not_run_again_when_the_worker_was_replaced(
    app: rowtine.App, database_url: str
) -> None:
    @app.function(name="main")
    async def main() -> list[int]:
        first = await step(1)
        await rowtine.sleep(3600)
        return [first, await step(2)]

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: sleeping(database_url))
    let_it_be_due(database_url)
    with app.worker().start():
        assert handle.result(timeout=60) == [1, 2]

    assert RAN == [1, 2]


@pytest.mark.peer_case(65)
def test_a_member_that_is_done_is_not_run_again_while_another_one_sleeps(
    app: rowtine.App, database_url: str
) -> None:
    @app.coroutine
    async def quick(x: int) -> list[int]:
        return [await step(x), await step(x + 1)]

    @app.coroutine
    async def slow(x: int) -> int:
        await rowtine.sleep(3600)
        return await step(x)

    @app.function(name="main")
    async def main() -> Any:
        return await rowtine.gather(slow(10), quick(20), step(30))

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: sleeping(database_url) and {20, 21, 30} <= set(RAN))
        done = "delivered_round"
        wait_until(lambda: sum(row[done] is not None for row in rows(database_url, "calls")) == 3)
    let_it_be_due(database_url)
    with app.worker().start():
        assert handle.result(timeout=60) == [10, [20, 21], 30]

    assert sorted(RAN) == [10, 20, 21, 30]


@pytest.mark.peer_case(54)
def test_a_loop_that_looks_again_and_again_keeps_its_state(
    app: rowtine.App, database_url: str
) -> None:
    @app.function(name="look")
    def look(seen: list[int]) -> list[int]:
        RAN.append(len(seen))
        return [*seen, len(seen)]

    @app.function(name="main", retry=rowtine.Retry(max_attempts=1))
    async def main(enough: int) -> list[int]:
        seen: list[int] = []
        for _ in range(3):
            seen = await look(seen)
            if len(seen) == enough:
                return seen
            await rowtine.sleep(0.01)
        raise TimeoutError("looked three times")

    assert app.run(main(2), timeout=60) == [0, 1]
    with pytest.raises(TimeoutError, match="looked three times"):
        app.run(main(4), timeout=60)
    assert RAN == [0, 1, 0, 1, 2]


@pytest.mark.peer_case(71)
def test_calls_that_are_awaited_one_by_one_reach_their_target_in_order(
    app: rowtine.App,
) -> None:
    @app.function(name="async")
    async def on_the_loop(x: int) -> None:
        RAN.append(x)

    @app.function(name="main")
    async def main() -> None:
        await step(0)
        await rowtine.call("async", 1)
        await step(2)
        await rowtine.gather(step(3))
        await rowtine.call("async", 4)

    app.run(main(), timeout=60)

    assert RAN == [0, 1, 2, 3, 4]


@pytest.mark.peer_case(150)
def test_what_is_open_when_main_returns_leaves_nothing_open(
    app: rowtine.App, database_url: str
) -> None:
    @app.coroutine
    async def background() -> None:
        try:
            while True:
                await rowtine.sleep(3600)
        finally:
            await rowtine.sleep(0.01)
            await step(2)

    @app.function(name="main")
    async def main() -> int:
        return await rowtine.race(background(), step(1), cancel_losers=False)

    assert app.run(main(), timeout=60) == 1

    assert RAN == [1, 2]
    assert rows(database_url, "states") == []
    assert {row["phase"] for row in rows(database_url, "calls")} == {"done"}
    assert {row["phase"] for row in rows(database_url, "coroutines")} == {"done"}
