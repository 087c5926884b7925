"""Hand-off: what ends where its caller is warm goes to the caller at once, in the same commit."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event

import rowtine
from acceptance.support import rows, wait_until
from databases import query
from rowtine.store import calls, loading
from rowtine.store.dialect import only_reads
from rowtine.worker.turns import Turns

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []
LET_GO = threading.Event()


class Bodies:
    """What the bodies of the running test call: a body may not close over locals."""

    step: Callable[[Any], Any]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    LET_GO.clear()
    Bodies.step = lambda x: x
    yield
    LET_GO.set()


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="step")
    async def step(x: Any) -> Any:
        RAN.append(x)
        return Bodies.step(x)

    @app.function(name="chain")
    async def chain(length: int) -> int:
        last = 0
        for _ in range(length):
            last = await rowtine.call("step", last) + 1
        return last

    @app.function(name="fan")
    async def fan(width: int) -> int:
        return sum(await rowtine.gather(*[rowtine.call("step", i) for i in range(width)]))

    @app.function(name="tower")
    async def tower(height: int) -> int:
        return 0 if height == 0 else 1 + await rowtine.call("tower", height - 1)

    @app.function(name="slow")
    async def slow() -> str:
        await rowtine.call("step", 1)
        while not LET_GO.is_set():  # a native await, which hears the test
            await asyncio.sleep(0.001)
        return "on"

    @app.coroutine
    async def twice(x: int) -> int:
        first: int = await rowtine.call("step", x)
        second: int = await rowtine.call("step", x)
        return first + second

    @app.function(name="pairs")
    async def pairs(width: int) -> int:
        return sum(await rowtine.gather(*[twice(i) for i in range(width)]))

    return app


@contextmanager
def counted(app: rowtine.App) -> Iterator[list[str]]:
    """The commits of transactions that may write, meanwhile."""
    made: list[str] = []

    def note(connection: Connection) -> None:
        if not only_reads(connection):
            made.append("commit")

    event.listen(app.database.engine, "commit", note)
    try:
        yield made
    finally:
        event.remove(app.database.engine, "commit", note)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every execution that is read from the database."""
    read: list[str] = []
    load = loading.load

    def noted(*arguments: Any) -> Any:
        read.append(arguments[3])
        return load(*arguments)

    monkeypatch.setattr("rowtine.store.loading.load", noted)
    return read


def run(app: rowtine.App, name: str, argument: int) -> tuple[Any, int]:
    """The result of an execution, and how many commits it took from its claim on."""
    handle = app.start(rowtine.call(name, argument))
    with counted(app) as commits:
        worker = app.worker()
        with worker.start():
            result = handle.result(timeout=60)
        return result, len(commits)


IN_AND_OUT = 8
"""Commits of a worker beside those of steps: it comes, claims a few times, shows that it lives,
goes."""


def test_a_step_of_a_sequence_costs_one_commit_and_reads_nothing(
    plain_app: NewApp, loads: list[str]
) -> None:
    result, commits = run(define(plain_app()), "chain", 30)

    assert result == 30
    assert 30 <= commits <= 30 + 1 + IN_AND_OUT
    assert loads == []


def test_what_ends_together_goes_to_the_caller_together(
    plain_app: NewApp, loads: list[str]
) -> None:
    result, commits = run(define(plain_app()), "fan", 50)

    assert result == sum(range(50))
    assert commits <= 2 + IN_AND_OUT
    assert loads == []


def test_coroutines_of_an_execution_go_on_together(plain_app: NewApp, loads: list[str]) -> None:
    result, commits = run(define(plain_app()), "pairs", 20)

    assert result == 2 * sum(range(20))
    assert commits <= 3 + IN_AND_OUT
    assert loads == []


def test_the_end_of_an_execution_goes_to_its_caller_in_the_same_commit(
    plain_app: NewApp, loads: list[str]
) -> None:
    """Down, each level is a commit. Up, all of them are one."""
    result, commits = run(define(plain_app()), "tower", 12)

    assert result == 12
    assert commits <= 12 + 1 + 1 + IN_AND_OUT
    assert loads == []


def test_without_warm_executions_the_same_comes_out_and_all_is_read(
    plain_app: NewApp, loads: list[str]
) -> None:
    result, _ = run(define(plain_app(warm=0)), "chain", 5)

    assert result == 5
    assert len(loads) == 5


def test_an_end_does_not_wait_for_a_round_that_awaits_natively(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app(lease=3600))
    handle = app.start(rowtine.call("slow"))
    with app.worker().start() as background:
        wait_until(lambda: step_row(database_url).get("phase") == "done")
        (state,) = rows(database_url, "states")
        assert step_row(database_url)["delivered_round"] is None
        assert state["worker"] == background.worker.id  # nobody else runs this round meanwhile
        LET_GO.set()
        assert handle.result(timeout=60) == "on"

    assert RAN == [1]
    assert step_row(database_url)["delivered_round"] == 2


def test_a_round_that_comes_too_late_leaves_the_ends_it_was_given(
    plain_app: NewApp, database_url: str
) -> None:
    """Another worker was faster: what has ended is written all the same, and runs once."""
    app = define(plain_app())

    def overtaken(x: int) -> int:
        if x == 3:
            query(database_url, "update states set round = round + 1")
        return x

    Bodies.step = overtaken
    handle = app.start(rowtine.call("chain", 6))
    with app.worker().start():
        assert handle.result(timeout=60) == 6

    assert RAN == [0, 1, 2, 3, 4, 5]
    steps = [row for row in rows(database_url, "calls") if row["function"] == "step"]
    assert {(row["attempt"], row["claim"]) for row in steps} == {(1, 1)}


def test_who_is_told_to_stop_while_a_step_runs_makes_no_further_one(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app())
    handle = app.start(rowtine.call("chain", 6))

    def cancelling(x: int) -> int:
        if x == 2:
            # As another process does it: the body's own may not.
            stop = threading.Thread(target=lambda: handle.cancel("enough"))
            stop.start()
            stop.join(60)
        return x

    Bodies.step = cancelling
    with app.worker().start(), pytest.raises(rowtine.Cancelled, match="enough"):
        handle.result(timeout=60)

    assert RAN == [0, 1, 2]


def test_calls_for_which_there_is_no_room_are_queued_and_claimed(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app(concurrency=3))
    handle = app.start(rowtine.call("fan", 20))
    with app.worker().start():
        assert handle.result(timeout=60) == sum(range(20))

    steps = [row for row in rows(database_url, "calls") if row["function"] == "step"]
    assert {(row["attempt"], row["claim"]) for row in steps} == {(1, 1)}
    assert sorted(RAN) == list(range(20))


def test_a_turn_that_cannot_be_run_leaves_its_execution_to_a_round_that_reads(
    plain_app: NewApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever broke in it: its ends are written alone, and nobody waits for ever."""
    caplog.set_level(logging.CRITICAL, "rowtine")
    app = define(plain_app())
    take, broken = Turns._take, []

    def breaks(self: Turns, turn: Any) -> None:
        if len(broken) < 2:
            broken.append(turn.kept.execution.id)
            raise RuntimeError("out of order")
        take(self, turn)

    monkeypatch.setattr(Turns, "_take", breaks)
    result, _ = run(app, "chain", 6)

    assert result == 6
    assert len(broken) == 2
    assert RAN == [0, 1, 2, 3, 4, 5]


def test_a_worker_whose_places_for_rounds_are_taken_does_not_claim_on_and_on(
    plain_app: NewApp, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks as seldom as any other; calls have places of their own."""
    looks, claims = [], []
    due, claim = calls.due, calls.claim
    monkeypatch.setattr("rowtine.store.calls.due", lambda *a: (looks.append(1), due(*a))[1])
    monkeypatch.setattr("rowtine.store.calls.claim", lambda *a: (claims.append(1), claim(*a))[1])
    app = define(plain_app(concurrency=1, lease=3600))
    handle = app.start(rowtine.call("slow"))
    with app.worker().start():
        wait_until(lambda: any(row["worker"] for row in rows(database_url, "states")))
        app.start(rowtine.call("step", 2)).result(timeout=60)
        before = len(claims)
        for _ in range(5):  # each wakes the worker once
            app.start(rowtine.call("step", 3)).result(timeout=60)
        claimed = len(claims) - before
        LET_GO.set()
        assert handle.result(timeout=60) == "on"

    assert claimed <= 3 * (5 + len(looks))


def step_row(url: str) -> dict[str, Any]:
    found = [row for row in rows(url, "calls") if row["function"] == "step"]
    return found[0] if found else {}


def test_a_worker_says_how_large_its_batches_are_and_how_long_they_wait(
    plain_app: NewApp,
) -> None:
    app = define(plain_app())
    worker = app.worker()
    before = worker.commits()
    with worker.start():
        assert app.start(rowtine.call("chain", 30)).result(timeout=60) == 30
    after = worker.commits()

    assert before == (0, 0, 0.0, 0.0)
    assert 31 <= after.batches <= after.items
    assert after.batch_size == 1  # one sequence: there is nothing to batch
    assert 0.0 <= after.waited < 1.0
