"""Reset: a run ends with another call, and the execution keeps its id."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import rowtine
from acceptance.support import rows

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []
BEGUN = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    RAN.clear()
    BEGUN.clear()


def root(url: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "calls") if row["execution_id"] is None]
    return row


@pytest.mark.case(172)
def test_a_function_that_resets_itself_runs_until_it_returns(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="count")
    async def count(n: int) -> int:
        RAN.append(n)
        if n < 3:
            raise rowtine.Reset(count, n + 1)
        return n

    assert app.run(count(0), timeout=60) == 3
    assert RAN == [0, 1, 2, 3]
    row = root(database_url)
    assert (row["current_run"], row["attempt"], row["claim"]) == (3, 1, 4)


def test_a_tail_call_after_a_suspension_begins_a_new_journal(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="step")
    def step(n: int) -> int:
        return n

    @app.function(name="count")
    async def count(n: int) -> int:
        await step(n)
        if n < 2:
            raise rowtine.Reset(count(n + 1))
        return n

    assert app.run(count(0), timeout=60) == 2
    steps = [row for row in rows(database_url, "calls") if row["function"] == "step"]
    assert sorted((row["run"], row["seq"], row["call_id"]) for row in steps) == [
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
    ]


@pytest.mark.case(84)
def test_a_tail_call_of_a_gathered_child_is_the_executions(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="other")
    async def other(x: int) -> str:
        return f"other {x}"

    @app.function(name="step")
    def step() -> None:
        pass

    @app.coroutine
    async def child() -> None:
        await step()
        raise rowtine.Reset(other, 7)

    @app.function(name="main")
    async def main() -> Any:
        return await rowtine.gather(child(), rowtine.sleep(3600))

    assert app.run(main(), timeout=60) == "other 7"
    (timer,) = [row for row in rows(database_url, "calls") if row["kind"] == "timer"]
    assert timer["resolution"] == "cancelled"


def test_whoever_called_gets_the_final_result_and_its_journal_says_what_it_asked_for(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="step")
    def step(x: int) -> int:
        return x

    @app.function(name="last")
    async def last(x: int) -> int:
        return 100 + await step(x)

    @app.function(name="first")
    async def first(x: int) -> int:
        raise rowtine.Reset(last, x + 1)

    @app.function(name="main")
    async def main() -> list[int]:
        value = await first(1)
        return [value, await step(5)]  # cold, this rebuilds what went before

    assert app.run(main(), timeout=60) == [102, 5]
    (row,) = [row for row in rows(database_url, "calls") if row["function"] == "last"]
    assert (row["asked_function"], row["seq"]) == ("first", 0)


def test_a_tail_call_to_a_sync_function_is_run_by_a_thread(new_app: NewApp) -> None:
    app = new_app()

    @app.function(name="last")
    def last(x: int) -> int:
        return 2 * x

    @app.function(name="first")
    async def first(x: int) -> int:
        raise rowtine.Reset(last, x)

    assert app.run(first(4), timeout=60) == 8


def test_a_tail_call_from_a_sync_function_goes_on_as_well(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function(name="count")
    def count(n: int) -> int:
        RAN.append(n)
        if n < 3:
            raise rowtine.Reset(count, n + 1)
        return n

    assert app.run(count(0), timeout=60) == 3
    assert RAN == [0, 1, 2, 3]


def test_the_attempts_of_a_tail_call_are_its_own(new_app: NewApp, database_url: str) -> None:
    app = new_app()
    retry = rowtine.Retry(max_attempts=2, initial=0)

    @app.function(name="last", retry=retry)
    async def last() -> str:
        RAN.append("last")
        if RAN.count("last") < 2:
            raise ConnectionError
        return "done"

    @app.function(name="first", retry=retry)
    async def first() -> str:
        RAN.append("first")
        if RAN.count("first") < 2:
            raise ConnectionError
        raise rowtine.Reset(last)

    assert app.run(first(), timeout=60) == "done"
    assert RAN == ["first", "first", "last", "last"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_tail_call_with_an_argument_that_cannot_be_stored_is_an_error_of_the_call(
    kind: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="last")
    def last(x: Any) -> None:
        RAN.append("last")

    @app.function(name="sync")
    def in_a_thread() -> None:
        raise rowtine.Reset(last, object())

    @app.function(name="async")
    async def on_the_loop() -> None:
        raise rowtine.Reset(last, object())

    with pytest.raises(TypeError, match="argument 'x'"):
        app.run(rowtine.call(kind), timeout=60)

    assert RAN == []
    assert root(database_url)["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_reset_to_what_is_no_call_is_an_error_of_the_call(
    kind: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="sync")
    def in_a_thread() -> None:
        raise rowtine.Reset(42)

    @app.function(name="async")
    async def on_the_loop() -> None:
        raise rowtine.Reset(42)

    with pytest.raises(TypeError, match="Reset needs a call"):
        app.run(rowtine.call(kind), timeout=60)


def test_a_reset_to_a_wait_that_is_no_function_is_an_error_of_the_call(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function
    async def main() -> None:
        raise rowtine.Reset(rowtine.sleep(1))

    with pytest.raises(TypeError, match="Reset needs a call"):
        app.run(main(), timeout=60)


def test_a_tail_call_of_who_was_told_to_stop_ends_it_as_cancelled(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="ready")
    def ready() -> None:
        BEGUN.set()

    @app.function(name="main")
    async def main() -> None:
        try:
            await ready()
            await rowtine.sleep(60)
        except asyncio.CancelledError:
            raise rowtine.Reset(main) from None

    with app.worker().start():
        handle = app.start(rowtine.call("main"))
        assert BEGUN.wait(30)
        assert handle.cancel("enough")

        with pytest.raises(rowtine.Cancelled):
            handle.result(timeout=60)
