"""The timeout of a function: the running time of one attempt, suspension not counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import let_it_be_due, rows, wait_until
from databases import query

NewApp = Callable[..., rowtine.App]

ONCE = rowtine.Retry(max_attempts=1)

RAN: list[Any] = []
LET_GO, ENDED = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    LET_GO.clear()
    ENDED.clear()
    yield
    LET_GO.set()


def statuses(url: str) -> list[tuple[str, int]]:
    return [(row["status"], row["attempt"]) for row in rows(url, "calls")]


def test_a_sync_function_that_runs_too_long_is_a_timeout_and_what_it_returns_is_dropped(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(timeout=0.1, retry=ONCE)
    def slow() -> str:
        LET_GO.wait(60)
        ENDED.set()
        return "too late"

    with app.worker().start():
        handle = app.start(slow())
        with pytest.raises(TimeoutError, match=r"longer than its timeout of 0.1 s"):
            handle.result(timeout=60)
        LET_GO.set()
        assert ENDED.wait(60)

    assert statuses(database_url) == [("TIMEOUT", 1)]
    assert rows(database_url, "calls")[0]["output"] != '"too late"'


def test_an_async_function_that_waits_too_long_is_told_and_is_a_timeout(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(timeout=0.1, retry=ONCE)
    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            RAN.append("cleaned")

    with pytest.raises(TimeoutError, match="longer than its timeout"):
        app.run(slow(), timeout=60)

    assert statuses(database_url) == [("TIMEOUT", 1)]
    assert RAN == ["cleaned"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_timeout_is_tried_again_with_its_whole_time(
    kind: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()
    retry = rowtine.Retry(max_attempts=3, initial=0)

    @app.function(name="sync", timeout=0.2, retry=retry)
    def in_a_thread() -> str:
        RAN.append(1)
        if len(RAN) < 3:
            LET_GO.wait(60)
        return "in time"

    @app.function(name="async", timeout=0.2, retry=retry)
    async def on_the_loop() -> str:
        RAN.append(1)
        if len(RAN) < 3:
            await asyncio.sleep(3600)
        return "in time"

    assert app.run(rowtine.call(kind), timeout=60) == "in time"
    assert statuses(database_url) == [("OK", 3)]


def test_the_time_for_which_an_execution_is_suspended_does_not_count(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="main", timeout=60, retry=ONCE)
    async def main() -> str:
        await rowtine.sleep(hours=24)
        return "in time"

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: rows(database_url, "states"))
        age(database_url, 86400)
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == "in time"


def age(url: str, seconds: int) -> None:
    """Let time pass: all that has happened is that much longer ago."""
    if url.startswith("sqlite"):
        query(
            url,
            f"update calls set created_at = created_at - {seconds * 1_000_000},"
            f" started_at = started_at - {seconds * 1_000_000}",
        )
    else:
        query(
            url,
            f"update calls set created_at = created_at - interval '{seconds} seconds',"
            f" started_at = started_at - interval '{seconds} seconds'",
        )


def test_the_rounds_of_an_attempt_count_together(new_app: NewApp, database_url: str) -> None:
    app = new_app()

    @app.function(name="main", timeout=1.0, retry=ONCE)
    async def main() -> None:
        for step in range(4):
            RAN.append(step)
            await asyncio.sleep(0.3)  # natively: running time, and less than the timeout
            await rowtine.sleep(0)

    with pytest.raises(TimeoutError, match=r"longer than its timeout of 1\.0 s"):
        app.run(main(), timeout=60)

    assert 1 in RAN  # it was not the first round alone
    assert ("TIMEOUT", 1) in statuses(database_url)


def test_what_an_execution_waited_for_is_cancelled_when_its_time_is_over(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="quick")
    def quick() -> int:
        return 1

    @app.coroutine
    async def hang(x: int) -> None:
        await rowtine.sleep(3600)

    @app.coroutine
    async def stuck() -> None:
        await quick()
        await asyncio.sleep(3600)

    @app.function(name="main", timeout=1, retry=ONCE)
    async def main() -> None:
        await rowtine.gather(hang(1), rowtine.sleep(7200), stuck())

    with pytest.raises(TimeoutError):
        app.run(main(), timeout=60)

    timers = [row for row in rows(database_url, "calls") if row["kind"] == "timer"]
    assert [(row["phase"], row["resolution"]) for row in timers] == [("done", "cancelled")] * 2
    assert {row["phase"] for row in rows(database_url, "coroutines")} == {"done"}


def test_a_function_without_a_timeout_may_take_its_time(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function
    def slow() -> str:
        LET_GO.wait(0.3)
        return "done"

    began = time.monotonic()
    assert app.run(slow(), timeout=60) == "done"
    assert time.monotonic() - began > 0.3


def test_a_timed_out_thread_takes_a_place_until_it_ends(
    plain_app: NewApp, database_url: str
) -> None:
    """A thread cannot be stopped: to begin more and more of them would help nobody."""
    app = plain_app(concurrency=1)

    @app.function(name="slow", timeout=0.1, retry=ONCE)
    def slow() -> None:
        LET_GO.wait(60)

    @app.function(name="next")
    def next_() -> str:
        return "next"

    with app.worker().start():
        with pytest.raises(TimeoutError):
            app.start(slow()).result(timeout=60)
        handle = app.start(next_())
        with pytest.raises(TimeoutError, match="no result"):
            handle.result(timeout=0.5)
        LET_GO.set()
        assert handle.result(timeout=60) == "next"
