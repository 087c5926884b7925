"""A worker that is told to stop: what it still does, what it gives back, how it exits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import program, workers
from acceptance.nursery import Child
from acceptance.support import assert_lawful, rows, wait_until

NewApp = Callable[..., rowtine.App]
Fork = Callable[..., Child]

RAN: list[Any] = []
STARTED, LET_GO = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    STARTED.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


def calls(url: str) -> dict[str, dict[str, Any]]:
    """The calls by function, in a test that has one of each."""
    return {row["function"]: row for row in rows(url, "calls")}


# --- in this process ----------------------------------------------------------------------------


def test_a_running_call_finishes_within_the_grace_time(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function
    def slow() -> str:
        STARTED.set()
        LET_GO.wait(60)
        return "finished"

    handle = app.start(slow())
    background = app.worker().start()
    assert STARTED.wait(60)
    stopper = threading.Thread(target=background.stop)
    stopper.start()
    LET_GO.set()
    stopper.join(60)

    assert background.error is None
    assert handle.result(timeout=0) == "finished"
    assert rows(database_url, "workers") == []


@pytest.mark.peer_case(105)
def test_after_the_grace_time_a_call_is_given_back_and_the_attempt_does_not_count(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(grace=0.1)

    @app.function(name="slow")
    def slow() -> str:
        RAN.append(len(RAN))
        STARTED.set()
        if len(RAN) == 1:
            LET_GO.wait(60)
        return "finished"

    handle = app.start(slow())
    with app.worker().start() as background:
        assert STARTED.wait(60)
    left = calls(database_url)["slow"]
    LET_GO.set()
    with app.worker().start():
        result = handle.result(timeout=60)

    assert background.error is None
    assert (left["phase"], left["attempt"], left["claim"]) == ("queued", 0, 1)
    assert (left["worker"], left["lease_expires"]) == (None, None)
    assert result == "finished"
    done = calls(database_url)["slow"]
    assert (done["attempt"], done["claim"]) == (1, 2)


def test_a_round_that_is_not_finished_is_given_back(new_app: NewApp, database_url: str) -> None:
    app = new_app(grace=0.1)

    @app.function(name="one")
    def one() -> int:
        return 1

    @app.function(name="main")
    async def main() -> int:
        value = await one()
        RAN.append(value)
        if len(RAN) == 1:
            STARTED.set()
            await asyncio.sleep(3600)
        return value

    handle = app.start(main())
    with app.worker().start() as background:
        assert STARTED.wait(60)
    (state,) = rows(database_url, "states")
    with app.worker().start():
        result = handle.result(timeout=60)

    assert background.error is None
    assert (state["worker"], state["round"]) == (None, 1)
    assert result == 1
    assert RAN == [1, 1]


@pytest.mark.peer_case(105)
def test_a_worker_that_stops_claims_nothing_new(plain_app: NewApp, database_url: str) -> None:
    app = plain_app(concurrency=1)  # so that the second waits for the place of the first

    @app.function(name="first")
    def first() -> None:
        STARTED.set()
        LET_GO.wait(60)

    @app.function(name="second")
    def second() -> None:
        RAN.append("second")

    app.start(first())
    background = app.worker().start()
    assert STARTED.wait(60)
    background.worker.stop()
    app.start(second())
    LET_GO.set()
    background._thread.join(60)

    assert RAN == []
    assert calls(database_url)["second"]["claim"] == 0
    assert calls(database_url)["first"]["status"] == "OK"


def test_a_call_that_ends_while_the_worker_stops_is_recorded(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="one")
    def one() -> int:
        return 1

    def probe(moment: str, call_id: str | None = None) -> None:
        if moment == "ran":  # the outcome is not committed yet
            worker.stop()

    worker = app.worker(probe=probe)
    app.start(one())
    background = worker.start()
    background._thread.join(60)

    assert background.error is None
    assert calls(database_url)["one"]["status"] == "OK"
    assert rows(database_url, "workers") == []


def test_the_second_stop_does_not_wait_for_the_grace_time(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(grace=3600)

    @app.function(name="slow")
    async def slow() -> None:
        STARTED.set()
        await asyncio.sleep(3600)

    app.start(slow())
    background = app.worker().start()
    assert STARTED.wait(60)
    background.worker.stop()
    background.stop()

    assert background.error is None
    left = calls(database_url)["slow"]
    assert (left["phase"], left["attempt"]) == ("queued", 0)


def test_stopping_before_it_runs_means_that_it_claims_nothing(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="one")
    def one() -> None:
        RAN.append(1)

    app.start(one())
    worker = app.worker()
    worker.stop()
    asyncio.run(worker.run())

    assert RAN == []
    assert calls(database_url)["one"]["claim"] == 0


# --- processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_worker_process_with_exit_code_0(
    number: signal.Signals, database_url: str, diary: Path
) -> None:
    # An interpreter of its own, not a fork: its way out is what is tested.
    given = {"url": database_url, "poll_interval": 0.02}
    with subprocess.Popen(
        [sys.executable, workers.__file__],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            workers.VARIABLE: json.dumps(given),
        },
        stderr=subprocess.PIPE,
    ) as process:
        wait_until(lambda: rows(database_url, "workers"))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (0, b"")
    assert rows(database_url, "workers") == []


@pytest.mark.peer_case(105)
def test_a_worker_process_gives_back_on_sigterm_what_does_not_end_in_time(
    database_url: str, diary: Path, fork: Fork
) -> None:
    app = program.build(database_url)
    app.start(rowtine.call("stuck", 1))
    child = fork("acceptance.workers:work", url=database_url, poll_interval=0.02, grace=0.1)
    wait_until(lambda: program.effects(diary)["stuck 1"])

    child.kill(signal.SIGTERM)

    assert child.wait() == 0
    left = calls(database_url)["stuck"]
    assert (left["phase"], left["attempt"], left["claim"]) == ("queued", 0, 1)
    assert_lawful(database_url)
    app.close()


def test_the_second_signal_ends_a_worker_process_at_once(
    database_url: str, diary: Path, fork: Fork
) -> None:
    app = program.build(database_url)
    app.start(rowtine.call("stuck", 1))
    child = fork("acceptance.workers:work", url=database_url, poll_interval=0.02, grace=3600)
    wait_until(lambda: program.effects(diary)["stuck 1"])

    child.kill(signal.SIGTERM)
    child.kill(signal.SIGINT)

    assert child.wait() == 0
    left = calls(database_url)["stuck"]
    assert (left["phase"], left["attempt"]) == ("queued", 0)
    assert_lawful(database_url)
    app.close()
