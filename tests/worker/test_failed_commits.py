"""Commits that fail, or of which nobody hears whether they succeeded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

import rowtine
from acceptance.support import assert_lawful, rows
from rowtine.store import Connection, TransientError, Writer, calls, committing

NewApp = Callable[..., rowtine.App]

RAN: list[int] = []
FAILED: list[str] = []


@pytest.fixture
def app(new_app: NewApp, caplog: pytest.LogCaptureFixture) -> rowtine.App:
    caplog.set_level(logging.CRITICAL, "rowtine")
    RAN.clear()
    FAILED.clear()
    return define(new_app())


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="step", retry=rowtine.Retry(max_attempts=1))
    def step(x: int) -> int:
        RAN.append(x)
        return x

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        first = await step(x)
        return [first, *await rowtine.gather(step(x + 1), step(x + 2)), await step(x + 3)]

    return app


def let_the_first_claim_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its COMMIT has been made."""
    claim = calls.claim
    of_thread = threading.local()

    def claims(*arguments: Any) -> Any:
        claimed = claim(*arguments)
        of_thread.fails = claimed and not FAILED
        return claimed

    def breaking(way: Callable[..., Any]) -> Callable[..., Any]:
        def writes(*arguments: Any) -> Any:
            of_thread.fails = False
            value = way(*arguments)
            if of_thread.fails:
                FAILED.append("claim")
                raise TransientError("the connection broke")
            return value

        return writes

    monkeypatch.setattr("rowtine.store.calls.claim", claims)
    for way in ("writing", "at_once"):
        monkeypatch.setattr(Writer, way, breaking(getattr(Writer, way)))


def let_every_other_batch_fail(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """With its statements sent: before its COMMIT, or when that has been made."""
    commit, writing = committing.commit, Writer.writing
    of_thread = threading.local()
    batches: list[int] = []

    def commits(*arguments: Any) -> Any:
        held = commit(*arguments)
        batches.append(1)
        of_thread.fails = len(batches) % 2 == 1
        return held

    def writes(self: Writer, work: Callable[[Connection], Any], *more: Any) -> Any:
        of_thread.fails = False

        def works(connection: Connection) -> Any:
            value = work(connection)
            if of_thread.fails and when == "before":
                fail()
            return value

        value = writing(self, works, *more)
        if of_thread.fails:
            fail()
        return value

    def fail() -> None:
        FAILED.append(when)
        raise TransientError("the connection broke")

    monkeypatch.setattr("rowtine.store.committing.commit", commits)
    monkeypatch.setattr(Writer, "writing", writes)


@pytest.mark.peer_case(101)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_fails_is_made_again_and_nothing_is_called_twice(
    when: str, app: rowtine.App, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowtine.clock.jitter", lambda: 0.0)
    let_every_other_batch_fail(monkeypatch, when)

    with app.worker().start() as background:
        handles = [app.start(rowtine.call("main", 10 * n)) for n in range(5)]
        results = [handle.result(timeout=60) for handle in handles]

    assert background.error is None
    assert results == [[10 * n + i for i in range(4)] for n in range(5)]
    assert sorted(RAN) == [10 * n + i for n in range(5) for i in range(4)]
    steps = [row for row in rows(database_url, "calls") if row["function"] == "step"]
    assert [(row["attempt"], row["claim"]) for row in steps] == [(1, 1)] * 20
    assert FAILED.count(when) >= 1  # every other batch; how many there are is up to chance


@pytest.mark.peer_case(101)
def test_a_claim_whose_commit_nobody_has_heard_of_uses_up_no_attempt(
    app: rowtine.App, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_the_first_claim_fail(monkeypatch)
    handles = [app.start(rowtine.call("step", n)) for n in range(3)]

    with app.worker().start():
        assert [handle.result(timeout=20) for handle in handles] == [0, 1, 2]

    assert FAILED == ["claim"]
    assert sorted(RAN) == [0, 1, 2]
    steps = rows(database_url, "calls")
    assert [(row["attempt"], row["claim"]) for row in steps] == [(1, 2)] * 3


def test_a_notice_that_cannot_be_sent_costs_no_batch(
    postgresql_url: str, warm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker has no place for it tells to others, after the commit, which stands."""
    RAN.clear()
    FAILED.clear()

    def fail(*_: Any) -> None:
        FAILED.append("notice")
        raise OSError("the connection broke")

    with closing(rowtine.App(postgresql_url, warm=warm, concurrency=1)) as opened:
        app = define(opened)
        handle = app.start(rowtine.call("main", 0))
        monkeypatch.setattr("rowtine.store.notices.send_notice", fail)
        with app.worker().start():
            assert handle.result(timeout=20) == [0, 1, 2, 3]

    assert FAILED
    assert_lawful(postgresql_url)
    assert sorted(RAN) == [0, 1, 2, 3]
