"""What happens while user code blocks the event loop of its worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import rows, wait_until
from databases import connect
from rowtine.worker.committer import Committer
from rowtine.worker.gateway import Gateway

NewApp = Callable[..., rowtine.App]

COMMIT, BLOCK, BLOCKED, LET_GO, END = (threading.Event() for _ in range(5))
RAN: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    for event in (COMMIT, BLOCK, BLOCKED, LET_GO, END):
        event.clear()
    yield
    for event in (COMMIT, BLOCK, LET_GO, END):
        event.set()


async def until(event: threading.Event) -> None:
    """Wait on the loop, without blocking it, for an event that the test sets."""
    while not event.is_set():
        await asyncio.sleep(0.001)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every transaction that a worker wants to write."""
    wanted: list[int] = []

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            wanted.append(1)
            return method(*args)

        return call

    for of, method in ((Committer, "commit"), (Gateway, "write"), (Gateway, "write_at_once")):
        monkeypatch.setattr(of, method, counted(getattr(of, method)))
    return wanted


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="napper")
    async def napper() -> str:
        await until(COMMIT)
        await rowtine.sleep(0)
        return "woken"

    @app.function(name="flaky", retry=rowtine.Retry(initial=0))
    def flaky() -> str:
        RAN.append("flaky")
        if len(RAN) == 1:
            COMMIT.wait(60)
            raise ConnectionError
        END.wait(60)
        return "at last"

    @app.function(name="clock")
    async def clock() -> None:
        await rowtine.sleep(1)

    @app.function(name="blocker")
    async def blocker() -> None:
        await until(BLOCK)
        BLOCKED.set()
        LET_GO.wait(60)

    return app


def commit_behind_the_loop(url: str, function: str, writes: list[int]) -> None:
    """Have what ends or suspends a call committed while the loop of the worker is blocked, with a
    claim in line after it: the loop hears of it when `LET_GO` is set.

    The commit waits for a lock. What makes the worker claim is a timer that falls due.
    """
    with connect(url) as lock:
        if url.startswith("sqlite"):
            lock.query("begin immediate")
        else:
            lock.query("begin")
            lock.query("select 1 from calls where function = :f for update", f=function)
        in_line = len(writes)
        COMMIT.set()
        wait_until(lambda: len(writes) >= in_line + 2)
        BLOCK.set()
        assert BLOCKED.wait(60)
        lock.query("commit")
    wait_until(lambda: phases(url)[function] != "running")


def phases(url: str) -> dict[str, str]:
    return {row["function"]: row["phase"] for row in rows(url, "calls")}


def test_a_round_that_falls_due_behind_a_blocked_loop_is_claimed_when_it_has_heard_of_it(
    new_app: NewApp, database_url: str, writes: list[int]
) -> None:
    app = define(new_app(lease=3600, poll_interval=0.01))
    handle = app.start(rowtine.call("napper"))
    app.start(rowtine.call("blocker"))
    with app.worker().start():
        wait_until(lambda: phases(database_url) == {"napper": "running", "blocker": "running"})
        app.start(rowtine.call("clock"))
        wait_until(lambda: phases(database_url).get("clock") == "suspended")
        commit_behind_the_loop(database_url, "napper", writes)
        assert not any(row["worker"] for row in rows(database_url, "states"))
        LET_GO.set()

        assert handle.result(timeout=30) == "woken"


def test_a_retry_that_falls_due_behind_a_blocked_loop_keeps_its_lease(
    plain_app: NewApp, database_url: str, writes: list[int]
) -> None:
    """The end of the first attempt, of which the loop hears late, is not that of the second."""
    app = define(plain_app(lease=0.9, poll_interval=0.01))
    handle = app.start(rowtine.call("flaky"))
    app.start(rowtine.call("blocker"))
    with app.worker().start():
        wait_until(lambda: phases(database_url) == {"flaky": "running", "blocker": "running"})
        app.start(rowtine.call("clock"))
        wait_until(lambda: phases(database_url).get("clock") == "suspended")
        commit_behind_the_loop(database_url, "flaky", writes)
        assert the_flaky_call(database_url)["claim"] == 1
        LET_GO.set()
        wait_until(lambda: the_flaky_call(database_url)["claim"] == 2)
        expires: set[Any] = set()
        wait_until(
            lambda: expires.add(the_flaky_call(database_url)["lease_expires"]) or len(expires) > 4
        )
        END.set()
        assert handle.result(timeout=60) == "at last"

    assert the_flaky_call(database_url)["claim"] == 2
    assert len(RAN) == 2


def the_flaky_call(url: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "calls") if row["function"] == "flaky"]
    return row
