"""Nested executions that lost a race are told to stop, and wind up on their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import assert_lawful, rows, wait_until
from rowtine.core.status import Status

NewApp = Callable[..., rowtine.App]
Row = dict[str, Any]

RAN: list[str] = []
STARTED, LET_GO, CLEANED = threading.Event(), threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    for event in (STARTED, LET_GO, CLEANED):
        event.clear()
    yield
    LET_GO.set()  # no thread is left behind in a test that failed


def the_call(url: str, function: str) -> Row:
    """The one call of a function."""
    (row,) = [row for row in rows(url, "calls") if row["function"] == function]
    return row


def is_done(url: str, function: str) -> bool:
    return [row["phase"] for row in rows(url, "calls") if row["function"] == function] == ["done"]


def test_the_end_of_a_loser_is_no_arrival_for_its_caller(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function
    def clean_up() -> None:
        CLEANED.set()

    @app.function(name="loser")
    async def loser() -> None:
        try:
            await rowtine.sleep(3600)
        finally:
            await clean_up()

    @app.function(name="wait")
    def wait() -> str:
        LET_GO.wait(60)
        return "done"

    @app.function(name="main")
    async def main() -> list[Any]:
        return [await rowtine.race(loser(), rowtine.sleep(0.2)), await wait()]

    with app.worker().start():
        handle = app.start(main())
        wait_until(lambda: is_done(database_url, "loser"))
        assert_lawful(database_url)
        LET_GO.set()
        result = handle.result(timeout=60)

    assert result == [None, "done"]
    assert CLEANED.is_set()
    row = the_call(database_url, "loser")
    assert (row["status"], row["resolution"], row["arrived"]) == ("CANCELLED", "cancelled", None)
    assert the_call(database_url, "wait")["delivered_round"] == 3  # no round for the loser's end


@pytest.mark.parametrize("ending", ["fails", "calls on"])
def test_a_loser_that_was_told_to_stop_has_no_further_run(
    ending: str, new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="other")
    def other() -> None:
        RAN.append("other")

    @app.function(name="loser", retry=rowtine.Retry(initial=0))
    async def loser(ending: str) -> None:
        RAN.append("loser")
        try:
            await rowtine.sleep(3600)
        except asyncio.CancelledError:
            if ending == "fails":
                raise ConnectionError("while stopping") from None
            raise rowtine.Reset(other()) from None

    @app.function
    async def main(ending: str) -> None:
        await rowtine.race(loser(ending), rowtine.sleep(0.2))
        await rowtine.sleep(0.3)

    app.run(main(ending), timeout=60)

    with app.worker().start():
        wait_until(lambda: is_done(database_url, "loser"))
    assert set(RAN) == {"loser"}
    row = the_call(database_url, "loser")
    assert (row["current_run"], row["attempt"]) == (0, 1)
    assert row["status"] == (Status.TCP_ERROR if ending == "fails" else Status.CANCELLED)


def test_a_loser_that_returns_all_the_same_is_done_with_its_value(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="loser")
    async def loser() -> str:
        try:
            await rowtine.sleep(3600)
        except asyncio.CancelledError:
            return "all the same"
        return "in time"

    @app.function
    async def main() -> Any:
        return await rowtine.race(loser(), rowtine.sleep(0.2))

    with app.worker().start():
        assert app.start(main()).result(timeout=60) is None
        wait_until(lambda: is_done(database_url, "loser"))

    row = the_call(database_url, "loser")
    assert (row["status"], row["output"], row["resolution"]) == (
        "OK",
        '"all the same"',
        "cancelled",
    )


def test_the_caller_does_not_wait_for_a_loser_that_cleans_up(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="clean_up")
    def clean_up() -> None:
        STARTED.set()
        LET_GO.wait(60)

    @app.function(name="loser")
    async def loser() -> None:
        try:
            await rowtine.sleep(3600)
        finally:
            await clean_up()

    @app.function
    async def main() -> Any:
        return await rowtine.race(loser(), rowtine.sleep(0.2))

    with app.worker().start():
        assert app.start(main()).result(timeout=60) is None
        assert STARTED.wait(60)
        assert the_call(database_url, "loser")["phase"] == "suspended"
        assert_lawful(database_url)
        LET_GO.set()
        wait_until(lambda: is_done(database_url, "loser"))

    assert the_call(database_url, "clean_up")["status"] == "OK"


def test_what_a_cancelled_call_comes_to_is_refused(new_app: NewApp, database_url: str) -> None:
    app = new_app()

    @app.function(name="loser")
    def loser() -> str:
        STARTED.set()
        LET_GO.wait(60)
        return "too late"

    @app.function
    async def main() -> Any:
        return await rowtine.race(loser(), rowtine.sleep(0.2))

    with app.worker().start():
        assert app.start(main()).result(timeout=60) is None
        assert STARTED.wait(60)
        LET_GO.set()

    row = the_call(database_url, "loser")
    assert (row["phase"], row["status"], row["output"]) == ("done", "CANCELLED", None)


def test_a_loser_that_awaits_natively_in_its_first_round_hears_of_it(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app(lease=0.5)

    @app.function(name="loser")
    async def loser() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            CLEANED.set()
            raise

    @app.function
    async def main() -> Any:
        return await rowtine.race(loser(), rowtine.sleep(0.2))

    with app.worker().start():
        assert app.start(main()).result(timeout=60) is None
        assert CLEANED.wait(60)  # with the next heartbeat

    row = the_call(database_url, "loser")
    assert (row["phase"], row["status"]) == ("done", "CANCELLED")


def test_losers_of_losers_are_told_as_well(new_app: NewApp, database_url: str) -> None:
    app = new_app()

    @app.function(name="inner")
    async def inner() -> None:
        try:
            await rowtine.sleep(3600)
        finally:
            CLEANED.set()

    @app.function(name="outer")
    async def outer() -> None:
        await inner()

    @app.function
    async def main() -> Any:
        return await rowtine.race(outer(), rowtine.sleep(0.5))

    with app.worker().start():
        assert app.start(main()).result(timeout=60) is None
        assert CLEANED.wait(60)
        wait_until(lambda: is_done(database_url, "inner"))

    outcomes = {name: the_call(database_url, name)["status"] for name in ("inner", "outer")}
    assert outcomes == {"inner": "CANCELLED", "outer": "CANCELLED"}
