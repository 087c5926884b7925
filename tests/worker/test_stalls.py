"""A worker whose event loop stands still: user code that does not await."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

import rowtine
from acceptance.support import rows, wait_until
from rowtine.worker.watchdog import Watchdog, given_up

NewApp = Callable[..., rowtine.App]

RAN: list[str] = []
BLOCKED, LET_GO = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    for event in (BLOCKED, LET_GO):
        event.clear()
    yield
    LET_GO.set()


class Loop:
    """An event loop that moves when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []
        self.closed = False

    def call_soon_threadsafe(self, call: Callable[[], Any]) -> None:
        if self.closed:
            raise RuntimeError("the loop is closed")
        self.waiting.append(call)

    def move(self) -> None:
        while self.waiting:
            self.waiting.pop()()


def watched(loop: Loop, *, interval: float = 10, stall: float = 30) -> Watchdog:
    return Watchdog(cast(asyncio.AbstractEventLoop, loop), interval, stall)


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == "rowtine"]


@pytest.mark.parametrize(
    ("silent", "stall", "dead"),
    [(0, 30, False), (29.9, 30, False), (30, 30, True), (0.1, 300, False)],
)
def test_a_loop_is_given_up_after_so_many_seconds(silent: float, stall: float, dead: bool) -> None:
    assert given_up(silent, stall) is dead


def test_a_loop_that_moves_is_alive(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    watchdog = watched(loop)

    for _ in range(100):
        loop.move()
        assert watchdog.alive()

    assert levels(caplog) == []


def test_a_loop_that_stands_still_is_reported_once_and_given_up_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watchdog = watched(Loop())

    assert [watchdog.alive() for _ in range(6)] == [True, True, False, False, False, False]

    first, second = caplog.records
    assert "has not moved for 10.0 s" in first.getMessage()
    assert "alive() for _ in range(6)" in first.getMessage()  # the line that the thread is in
    assert "left to others" in second.getMessage()
    assert levels(caplog) == ["ERROR", "ERROR"]


def test_a_loop_that_comes_back_is_alive_again_and_reported_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop()
    watchdog = watched(loop, stall=10)
    for _ in range(2):
        assert not watchdog.alive()
        loop.move()
        assert watchdog.alive()

    assert levels(caplog) == ["ERROR", "ERROR", "WARNING"] * 2


def test_a_loop_that_has_ended_is_no_stall(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    watchdog = watched(loop)
    loop.move()
    loop.closed = True

    assert all(watchdog.alive() for _ in range(5))
    assert levels(caplog) == []


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="blocker")
    async def blocker() -> str:
        RAN.append("blocker")
        first = len(RAN) == 1
        if first:
            BLOCKED.set()
            LET_GO.wait(60)
        return "late" if first else "in time"

    return app


def the_call(url: str) -> dict[str, Any]:
    (row,) = rows(url, "calls")
    return row


def test_an_endless_loop_is_reported_with_its_line_and_keeps_its_lease(
    plain_app: NewApp, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = define(plain_app(lease=0.6))
    handle = app.start(rowtine.call("blocker"))
    with app.worker().start():
        assert BLOCKED.wait(60)
        expires: set[Any] = set()
        wait_until(lambda: expires.add(the_call(database_url)["lease_expires"]) or len(expires) > 4)
        LET_GO.set()
        assert handle.result(timeout=60) == "late"

    (error,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "LET_GO.wait(60)" in error.getMessage()
    assert f"{__file__}" in error.getMessage()
    assert the_call(database_url)["claim"] == 1


def test_what_a_dead_loop_holds_is_taken_over_and_its_late_outcome_refused(
    plain_app: NewApp, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = define(plain_app(lease=0.6, stall=0.5))
    handle = app.start(rowtine.call("blocker"))
    with app.worker().start():
        assert BLOCKED.wait(60)
        with app.worker().start():
            assert handle.result(timeout=60) == "in time"
            done = the_call(database_url)
        LET_GO.set()
        wait_until(lambda: "moves again" in caplog.text or "the lease was lost" in caplog.text)
        wait_until(lambda: "too late" in caplog.text or "the lease was lost" in caplog.text)

    assert the_call(database_url) == done
    assert (done["claim"], RAN) == (2, ["blocker", "blocker"])
    assert "left to others" in caplog.text
