"""`Retry(max_attempts=1)`: a body that has begun does not begin again, whatever happened to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import program
from acceptance.nursery import Child
from acceptance.support import assert_lawful, end_leases, rows, wait_until

NewApp = Callable[..., rowtine.App]
Fork = Callable[..., Child]

RAN: list[Any] = []
STARTED, LET_GO = threading.Event(), threading.Event()
ONCE = rowtine.Retry(max_attempts=1)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    STARTED.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


def the_call(url: str, function: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "calls") if row["function"] == function]
    return row


# --- its worker dies ----------------------------------------------------------------------------


def start_and_kill(app: rowtine.App, call: Any, url: str, diary: Path, fork: Fork) -> Any:
    """Start a call of "gated", and kill its worker when the body has begun."""
    handle = app.start(call)
    victim = fork("acceptance.workers:work", url=url, poll_interval=0.02, lease=3600)
    wait_until(lambda: program.effects(diary)[f"gated 1 in {victim.pid}"])
    victim.kill()
    victim.wait()
    (diary.parent / "gate").touch()
    end_leases(url)
    return handle


@pytest.mark.peer_case(11)
def test_after_the_death_of_its_worker_it_is_not_run_again_and_the_caller_is_told(
    database_url: str, diary: Path, fork: Fork
) -> None:
    with closing(program.build(database_url, poll_interval=0.02)) as app:
        gated = app.registry.function("gated")
        call = gated.options(retry=ONCE)(1)
        handle = start_and_kill(app, call, database_url, diary, fork)
        with app.worker().start(), pytest.raises(rowtine.Interrupted, match="attempt 1 of 1"):
            handle.result(timeout=60)

    assert program.effects(diary).total() == 1
    row = the_call(database_url, "gated")
    assert (row["status"], row["error_type"]) == ("PERMANENT_ERROR", "rowtine.errors.Interrupted")
    assert_lawful(database_url)


@pytest.mark.peer_case(12)
def test_with_attempts_left_the_lost_one_counts_and_it_is_run_again(
    database_url: str, diary: Path, fork: Fork
) -> None:
    with closing(program.build(database_url, poll_interval=0.02)) as app:
        gated = app.registry.function("gated")
        call = gated.options(retry=rowtine.Retry(max_attempts=2))(1)
        handle = start_and_kill(app, call, database_url, diary, fork)
        with app.worker().start():
            handle.result(timeout=60)

    assert program.effects(diary).total() == 2
    assert the_call(database_url, "gated")["attempt"] == 2
    assert_lawful(database_url)


@pytest.mark.peer_case(13)
def test_without_a_limit_it_is_run_again_and_succeeds_once(
    database_url: str, diary: Path, fork: Fork
) -> None:
    with closing(program.build(database_url, poll_interval=0.02)) as app:
        gated = app.registry.function("gated")
        handle = start_and_kill(app, gated(1), database_url, diary, fork)
        with app.worker().start():
            handle.result(timeout=60)

    assert program.effects(diary).total() == 2
    row = the_call(database_url, "gated")
    assert (row["status"], row["attempt"], row["claim"]) == ("OK", 2, 2)
    assert_lawful(database_url)


def test_a_caller_can_catch_it(database_url: str, new_app: NewApp) -> None:
    app = new_app(lease=3600)

    @app.function(name="once", retry=ONCE)
    def once() -> None:
        RAN.append(1)
        STARTED.set()
        LET_GO.wait(60)

    @app.function
    async def main() -> str:
        try:
            await once()
        except rowtine.Interrupted as error:
            return str(error)
        return "not told"

    handle = app.start(main())
    with app.worker().start():
        assert STARTED.wait(60)
        end_leases(database_url)
        assert "attempt 1 of 1" in handle.result(timeout=60)
        LET_GO.set()

    assert RAN == [1]


# --- its worker stops ---------------------------------------------------------------------------


@pytest.mark.peer_case(11)
@pytest.mark.parametrize("how", ["grace", "at once"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_worker_that_gives_it_back_after_it_has_begun_counts_the_attempt(
    kind: str, how: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(grace=0.1 if how == "grace" else 3600)

    @app.function(name="sync", retry=ONCE)
    def in_a_thread() -> None:
        RAN.append(1)
        STARTED.set()
        LET_GO.wait(60)

    @app.function(name="async", retry=ONCE)
    async def on_the_loop() -> None:
        RAN.append(1)
        STARTED.set()
        await asyncio.sleep(3600)

    handle = app.start(rowtine.call(kind))
    with app.worker().start() as background:
        assert STARTED.wait(60)
        if how == "at once":
            background.worker.stop()
    left = the_call(database_url, kind)
    LET_GO.set()
    with app.worker().start(), pytest.raises(rowtine.Interrupted):
        handle.result(timeout=60)

    assert (left["phase"], left["attempt"], left["claim"]) == ("queued", 1, 1)
    assert RAN == [1]


def test_the_options_of_a_call_make_it_so_too(plain_app: NewApp, database_url: str) -> None:
    app = plain_app(grace=0.1)

    @app.function(name="slow")
    def slow() -> None:
        RAN.append(1)
        STARTED.set()
        LET_GO.wait(60)

    handle = app.start(slow.options(retry=ONCE)())
    with app.worker().start():
        assert STARTED.wait(60)
    LET_GO.set()
    with app.worker().start(), pytest.raises(rowtine.Interrupted):
        handle.result(timeout=60)

    assert RAN == [1]
