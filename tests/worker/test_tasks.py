"""Tasks, maps and as_completed at a worker, whose rows keep what is not in memory."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from typing import Any

import pytest

import rowtine
from acceptance.support import rows, wait_until
from databases import query

NewApp = Callable[..., rowtine.App]

LOCK = threading.Lock()
RUNNING: list[int] = [0, 0]
RAN: list[Any] = []
BARRIER = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    RUNNING[:] = [0, 0]
    RAN.clear()
    BARRIER.clear()


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="double")
    def double(x: int) -> int:
        with LOCK:
            RUNNING[0] += 1
            RUNNING[1] = max(RUNNING)
            RAN.append(x)
        try:
            if x < 0:
                raise KeyError(x)
            return 2 * x
        finally:
            with LOCK:
                RUNNING[0] -= 1

    @app.coroutine
    async def part(x: int) -> int:
        return await double(await double(x))

    @app.function(name="spawning")
    async def spawning() -> Any:
        tasks = [rowtine.spawn(double(1)), rowtine.spawn(part(2))]
        joined = rowtine.spawn(rowtine.gather(double(3), part(4)))
        three = await double(3)
        return [three, await tasks[1], await tasks[0], await joined, await tasks[0]]

    @app.function(name="abandoning")
    async def abandoning() -> int:
        rowtine.spawn(rowtine.sleep(days=1))
        rowtine.spawn(part(1))
        rowtine.promise()
        return await double(5)

    @app.function(name="late")
    async def late() -> Any:
        task = rowtine.spawn(double(1))
        await rowtine.signal("go")
        return await rowtine.race(task, rowtine.sleep(days=1))

    @app.function(name="mapping")
    async def mapping(count: int, limit: int | None = None, failures: int = 0) -> Any:
        inputs = range(count) if failures == 0 else [n if n % 3 else -n - 1 for n in range(count)]
        values = await rowtine.map(double, inputs, max_concurrency=limit, max_failures=failures)
        return [str(value) if isinstance(value, Exception) else value for value in values]

    @app.function(name="completing")
    async def completing(count: int, limit: int | None = None) -> Any:
        total = seen = 0
        async for task in rowtine.as_completed(
            (double(n) for n in range(count)), max_concurrency=limit
        ):
            total += await task
            seen += 1
        return [seen, total]

    @app.function(name="in_order")
    async def in_order() -> Any:
        asked = [rowtine.signal(name) for name in "abc"]
        return [await task async for task in rowtine.as_completed(asked)]

    @app.function(name="chance")
    async def chance() -> Any:
        drawn = [rowtine.random(), str(rowtine.uuid())]
        await rowtine.signal("go")
        return [drawn, [rowtine.random(), str(rowtine.uuid())]]

    return app


def start(app: rowtine.App, function: str, *args: Any) -> rowtine.Handle[Any]:
    return app.start(app.registry.function(function)(*args))


def test_tasks_go_on_by_themselves(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        assert start(app, "spawning").result(20) == [6, 8, 2, [6, 16], 2]


def test_what_nobody_awaited_is_cancelled_at_the_end(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        assert start(app, "abandoning").result(20) == 10
        wait_until(lambda: all(row["phase"] == "done" for row in rows(database_url, "calls")))


def test_a_task_that_ended_rounds_ago_is_found_in_the_rows(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    handle = start(app, "late")
    with app.worker().start():
        wait_until(lambda: RAN)
        wait_until(
            lambda: any(
                row["function"] == "double" and row["resolution"]
                for row in rows(database_url, "calls")
            )
        )
    handle.signal("go")
    with app.worker().start():
        assert handle.result(20) == 2


def test_map_gives_values_in_order(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        assert start(app, "mapping", 250).result(60) == [2 * n for n in range(250)]


def test_map_runs_no_more_at_once_than_it_may(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        assert start(app, "mapping", 40, 3).result(60) == [2 * n for n in range(40)]

    assert 1 <= RUNNING[1] <= 3


@pytest.mark.peer_case(64)
def test_map_bears_failures(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        values = start(app, "mapping", 6, None, 2).result(60)
        with pytest.raises(KeyError):
            start(app, "mapping", 7, None, 2).result(60)

    assert values == ["-1", 2, 4, "-4", 8, 10]


@pytest.mark.peer_case(62)
def test_what_follows_a_failure_that_is_not_borne_never_begins(new_app: NewApp) -> None:
    app = define(new_app())

    @app.function(name="one_by_one")
    async def one_by_one() -> Any:
        return await rowtine.map(app.registry.function("double"), [1, -2, 3, 4], max_concurrency=1)

    with app.worker().start(), pytest.raises(KeyError):
        app.start(one_by_one()).result(20)

    assert RAN == [1, -2]


@pytest.mark.parametrize("limit", [None, 4])
def test_as_completed_gives_all(new_app: NewApp, limit: int | None) -> None:
    app = define(new_app())
    with app.worker().start():
        assert start(app, "completing", 120, limit).result(60) == [120, 2 * sum(range(120))]

    assert limit is None or RUNNING[1] <= limit


@pytest.mark.peer_case(56)
def test_as_completed_follows_the_order_of_the_ends(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "in_order")
        for number, name in enumerate("cab"):
            handle.signal(name, name)
            wait_until(
                lambda number=number: (
                    query(
                        database_url,
                        "select count(*) from futures"
                        " where kind = 'task' and resolution is not null",
                    )
                    == [(number + 1,)]
                    or number == 2
                )
            )
        assert handle.result(20) == ["c", "a", "b"]


@pytest.mark.peer_case(146)
def test_chance_is_the_same_in_another_process(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    handles = [start(app, "chance") for _ in range(2)]
    with app.worker().start():
        wait_until(
            lambda: sum(row["phase"] == "suspended" for row in rows(database_url, "calls")) == 2
        )
    for handle in handles:
        handle.signal("go")
    with app.worker().start():
        (first, then), (other, _) = (handle.result(20) for handle in handles)

    assert first != then
    assert first != other  # each run has a seed of its own


@pytest.mark.slow
def test_a_map_of_many_needs_no_more_memory_than_its_results(sqlite_url: str) -> None:
    """Of 20,000 as of 2,000: what is in flight is a batch."""
    app = define(rowtine.App(sqlite_url, poll_interval=0.02, concurrency=200))
    with app.worker().start():
        start(app, "completing", 2_000).result(60)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert start(app, "completing", 6_000).result(120)[0] == 6_000
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    app.close()

    assert after - before < 40_000  # KB
