"""Several workers on one database: threads of one process, processes, and clients elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import program
from acceptance.nursery import Child
from acceptance.support import assert_lawful, rows, wait_until

NewApp = Callable[..., rowtine.App]
Fork = Callable[..., Child]


@pytest.fixture
def app(database_url: str, warm: int, diary: Path) -> Iterator[rowtine.App]:
    made = program.build(database_url, warm=warm, poll_interval=0.02)
    yield made
    made.close()
    assert_lawful(database_url)


def each_once(diary: Path, numbers: list[int]) -> bool:
    """Whether each body of these programs ran exactly once."""
    expected = set().union(*map(program.expected_effects, numbers))
    return dict(program.effects(diary)) == dict.fromkeys(expected, 1)


NUMBERS = [10_000 * i for i in range(1, 11)]


def test_several_workers_in_one_process_share_the_work(app: rowtine.App, diary: Path) -> None:
    with contextlib.ExitStack() as stack:
        background = [stack.enter_context(app.worker().start()) for _ in range(3)]
        handles = [app.start(rowtine.call("program", n)) for n in NUMBERS]
        results = [handle.result(timeout=60) for handle in handles]

    assert results == [program.expected(n) for n in NUMBERS]
    assert each_once(diary, NUMBERS)
    assert [each.error for each in background] == [None] * 3


def test_two_worker_processes_share_one_database(
    app: rowtine.App, database_url: str, diary: Path, fork: Fork
) -> None:
    handles = [app.start(rowtine.call("program", n)) for n in NUMBERS]
    for _ in range(2):
        fork("acceptance.workers:work", url=database_url, poll_interval=0.02)
    results = [handle.result(timeout=60) for handle in handles]

    assert results == [program.expected(n) for n in NUMBERS]
    assert each_once(diary, NUMBERS)


def test_both_of_two_processes_run_calls_at_the_same_time(
    app: rowtine.App, database_url: str, fork: Fork
) -> None:
    children = [
        fork("acceptance.workers:work", url=database_url, poll_interval=0.02, concurrency=1)
        for _ in range(2)
    ]
    handles = [app.start(rowtine.call("meet", 2)) for _ in range(2)]

    pids = {handle.result(timeout=60) for handle in handles}

    assert pids == {child.pid for child in children}


def test_the_workers_that_live_stand_in_the_rows(
    app: rowtine.App, database_url: str, fork: Fork
) -> None:
    child = fork("acceptance.workers:work", url=database_url, poll_interval=0.02)
    (row,) = wait_until(lambda: rows(database_url, "workers"))

    assert (row["pid"], row["version"]) == (child.pid, None)
    assert '"program"' in row["functions"]


def test_a_worker_that_died_is_forgotten_after_a_while(
    app: rowtine.App, database_url: str, fork: Fork
) -> None:
    child = fork("acceptance.workers:work", url=database_url, poll_interval=0.02)
    wait_until(lambda: rows(database_url, "workers"))
    child.kill()
    child.wait()
    assert len(rows(database_url, "workers")) == 1

    other = program.build(database_url, poll_interval=0.02, lease=0.1)
    with other.worker().start():
        wait_until(lambda: child.pid not in {row["pid"] for row in rows(database_url, "workers")})
    other.close()


@pytest.mark.case(180)
def test_a_client_in_another_process_gets_the_result(
    app: rowtine.App, database_url: str, diary: Path, fork: Fork
) -> None:
    value = app.start(rowtine.call("double", 4))
    error = app.start(rowtine.call("refuse", 5))
    clients = [fork("acceptance.workers:ask", url=database_url, id=h.id) for h in (value, error)]
    with app.worker().start():
        assert [client.wait() for client in clients] == [0, 0]

    said = program.effects(diary)
    assert said[f"{value.id} came to 8"] == 1
    assert said[f"{error.id} failed: KeyError(5)"] == 1


def test_calls_that_another_process_starts_are_found(
    app: rowtine.App, database_url: str, diary: Path, fork: Fork
) -> None:
    with app.worker().start():
        client = fork("acceptance.workers:run_elsewhere", url=database_url, number=6)
        assert client.wait() == 0

    assert program.effects(diary)["it came to 12"] == 1


def test_handles_are_awaited_on_a_loop_beside_each_other(app: rowtine.App) -> None:
    async def main() -> list[Any]:
        started = [await app.astart(rowtine.call("double", x)) for x in range(5)]
        outside = app.registry.function("double")(5)
        return list(await asyncio.gather(*started, outside))

    with app.worker().start():
        assert asyncio.run(main()) == [0, 2, 4, 6, 8, 10]


def test_threads_run_calls_through_one_app(app: rowtine.App) -> None:
    results: dict[int, Any] = {}

    def run(x: int) -> None:
        results[x] = app.run(rowtine.call("double", x), timeout=60)

    threads = [threading.Thread(target=run, args=(x,)) for x in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert results == {x: 2 * x for x in range(4)}


def test_an_app_runs_one_call_after_another(app: rowtine.App) -> None:
    assert [app.run(rowtine.call("double", x), timeout=60) for x in range(3)] == [0, 2, 4]


def test_inside_an_execution_no_way_in_is_open(app: rowtine.App) -> None:
    """At a rebuild they would start again."""

    @app.function(name="main")
    async def main() -> list[str]:
        call = rowtine.call("double", 1)
        said = []
        ways = (
            lambda: app.start(call),
            lambda: app.run(call),
            lambda: app.handle("x").result(),
        )
        for way in ways:
            try:
                way()
            except rowtine.UsageError as error:
                said.append(str(error))
        await call
        for awaitable in (app.astart(call), app.handle("x")):
            try:
                await awaitable
            except rowtine.UsageError as error:
                said.append(str(error))
        return said

    said = app.run(main(), timeout=60)

    assert len(said) == 5
    assert all("await the call itself" in each for each in said)
