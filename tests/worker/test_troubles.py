"""Troubles of the database: nothing is lost, nothing done twice, and the worker lives on."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

import rowtine
from acceptance.support import assert_lawful, rows, wait_until
from databases import connect, conninfo, query
from rowtine.store import calls

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []
STARTED, LET_GO = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.CRITICAL, "rowtine")
    RAN.clear()
    STARTED.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


@pytest.fixture
def postgres(postgresql_url: str) -> Iterator[rowtine.App]:
    app = define(rowtine.App(postgresql_url, poll_interval=0.02))
    yield app
    app.close()
    assert_lawful(postgresql_url)


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="step", retry=rowtine.Retry(max_attempts=1))
    def step(x: int) -> int:
        RAN.append(x)
        return x

    @app.function(name="held", retry=rowtine.Retry(max_attempts=1))
    def held(x: int) -> int:
        RAN.append(x)
        STARTED.set()
        LET_GO.wait(60)
        return x

    @app.function(name="steps")
    async def steps(x: int) -> list[int]:
        return [await step(x + n) for n in range(10)]

    return app


def terminate(url: str) -> int:
    """End every other connection to a database, and wait until they have ended; how many."""
    ended = query(
        url,
        "select pid, pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()",
    )
    pids = [pid for pid, _ in ended] or [0]
    among = f"select 1 from pg_stat_activity where pid in ({', '.join(map(str, pids))})"
    wait_until(lambda: not query(url, among))
    return len(ended)


@pytest.mark.peer_case(101, 102)
def test_connections_that_are_ended_again_and_again_cost_no_result(
    postgres: rowtine.App, postgresql_url: str
) -> None:
    with postgres.worker().start() as background:
        ids = [postgres.start(rowtine.call("steps", 100 * n)).id for n in range(10)]
        ended = 0
        while True:
            ended += terminate(postgresql_url)
            done = query(postgresql_url, "select count(*) from calls where phase = 'done'")
            if done[0][0] == 110:
                break
            before = len(RAN)
            wait_until(lambda before=before: len(RAN) > before + 3 or len(RAN) >= 100)

    assert background.error is None
    assert ended > 10
    results = [postgres.handle(id).result(timeout=0) for id in ids]
    assert results == [[100 * n + i for i in range(10)] for n in range(10)]
    assert sorted(RAN) == [100 * n + i for n in range(10) for i in range(10)]


def test_an_outcome_waits_until_the_tables_are_back(
    postgres: rowtine.App, postgresql_url: str
) -> None:
    """Whatever is wrong with the database: what has happened must not become an error."""
    handle = postgres.start(rowtine.call("held", 7))
    with postgres.worker().start() as background:
        assert STARTED.wait(60)
        query(postgresql_url, "alter schema rowtine rename to elsewhere")
        LET_GO.set()
        failed = "select count(*) from elsewhere.calls where phase = 'running'"
        with pytest.raises(AssertionError, match="did not come about"):
            wait_until(lambda: query(postgresql_url, failed) != [(1,)], timeout=1)
        assert background.error is None
        query(postgresql_url, "alter schema elsewhere rename to rowtine")
        assert handle.result(timeout=60) == 7

    assert RAN == [7]
    assert [row["attempt"] for row in rows(postgresql_url, "calls")] == [1]


def test_connections_that_were_ended_while_nobody_used_them_cost_no_error(
    postgres: rowtine.App, postgresql_url: str
) -> None:
    """Nothing is asked of them before they are used."""
    handles: list[rowtine.Handle[Any]] = []

    def start() -> None:
        handles.append(postgres.start(rowtine.call("held", 7)))

    def read() -> None:
        with pytest.raises(TimeoutError):
            handles[-1].result(timeout=0)

    def write() -> None:
        handles.pop().cancel()

    for use in (start, start, read, read, write, write):
        use()
        assert terminate(postgresql_url) > 0

    assert query(postgresql_url, "select phase from calls") == [("done",), ("done",)]


def test_a_start_whose_reply_is_lost_is_sent_again_and_accepted_once(
    postgres: rowtine.App, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    accept = calls.accept

    def accept_and_lose(connection: Connection, new: calls.NewCall) -> calls.Accepted:
        accepted = accept(connection, new)
        sent.append(accepted.id)
        if len(sent) == 1:
            driver: Any = connection.connection.driver_connection
            query(postgresql_url, f"select pg_terminate_backend({driver.info.backend_pid}, 60000)")
            connection.exec_driver_sql("select 1")
        return accepted

    monkeypatch.setattr(calls, "accept", accept_and_lose)
    handle = postgres.start(rowtine.call("held", 7))

    assert sent == [handle.id] * 2
    assert query(postgresql_url, "select count(*) from calls") == [(1,)]


def test_a_server_that_cannot_be_reached_for_a_while_is_waited_for(
    postgres: rowtine.App, postgresql_url: str
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(conninfo(postgresql_url))["dbname"]
    handle = postgres.start(rowtine.call("held", 7))
    server = postgresql_url.replace(f"/{name}", "/postgres")
    with postgres.worker().start() as background:
        assert STARTED.wait(60)
        query(server, f'alter database "{name}" allow_connections off')
        query(
            server,
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
        )
        LET_GO.set()
        wait_until(lambda: query(server, "select 1"))
        assert background.error is None
        query(server, f'alter database "{name}" allow_connections on')
        assert handle.result(timeout=60) == 7

    assert RAN == [7]


def test_a_process_without_free_file_descriptors_goes_on_when_it_has_some(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = define(rowtine.App(sqlite_url, poll_interval=0.02, lease=0.5))
    handle = app.start(rowtine.call("held", 7))
    exhausted = threading.Event()
    refused: list[str] = []
    opens = os.open

    def scarce(path: Any, *arguments: Any, **options: Any) -> int:
        if exhausted.is_set():
            refused.append(threading.current_thread().name)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opens(path, *arguments, **options)

    monkeypatch.setattr("rowtine.store.dialect.os.open", scarce)
    with app.worker().start() as background:
        assert STARTED.wait(60)
        exhausted.set()
        LET_GO.set()
        wait_until(lambda: len({name.rpartition("_")[0] or name for name in refused}) >= 2)
        assert background.error is None
        exhausted.clear()
        assert handle.result(timeout=60) == 7

    app.close()
    assert RAN == [7]
    assert_lawful(sqlite_url)


def test_a_sqlite_file_that_somebody_holds_for_a_while_is_waited_for(sqlite_url: str) -> None:
    app = define(rowtine.App(sqlite_url, poll_interval=0.02))
    handle = app.start(rowtine.call("held", 7))
    with app.worker().start() as background:
        assert STARTED.wait(60)
        with connect(sqlite_url) as somebody, contextlib.suppress(TimeoutError):
            somebody.query("begin immediate")
            LET_GO.set()
            handle.result(timeout=1)
        assert handle.result(timeout=60) == 7

    app.close()
    assert background.error is None
    assert RAN == [7]
