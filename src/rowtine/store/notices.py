"""Notices: how one process tells the workers of others that something may be due.

A notice says no more than where to look, and nobody relies on it: it is sent after the commit that
it is about, it may be lost, and what it would have told is found by the next poll. SQLite has none;
there a listener never listens.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from enum import Flag, auto
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from rowtine.errors import DatabaseError
from rowtine.store.dialect import has_notices, open_listener, send_notice
from rowtine.store.engine import Database
from rowtine.store.tables import SCHEMA

__all__ = ["Listener", "News", "announce", "notify"]

log = logging.getLogger("rowtine")


class News(Flag):
    """What a write may have brought about. A worker that is told all of it looks three times, at
    the price of a round for each look: most writes can say that two of them would be in vain."""

    CALLS = auto()
    """Calls are due."""
    ROUNDS = auto()
    """Rounds of executions are due."""
    LATER = auto()
    """Something is due at some time to come."""
    ANYTHING = CALLS | ROUNDS | LATER


_WORDS = {"calls": News.CALLS, "rounds": News.ROUNDS, "later": News.LATER}
"""How a notice says so. One without any of them, sent by hand say, is of anything."""

_PATIENCE = 5.0
"""Seconds within which a new listener hears its own notice; else it says so and sends another."""


def channel_of(schema: str) -> str:
    """What the notices of a schema are sent on: two schemas of a database wake nobody of each
    other's. The server cuts no name, it refuses those of more than 63 characters."""
    name = f"rowtine_{schema}"
    return name if len(name) <= 63 else f"rowtine_{hashlib.sha256(schema.encode()).hexdigest():.40}"


def announce(connection: Connection, news: News = News.ANYTHING, by: str = "") -> None:
    """Tell workers of other processes what may be due. Takes the connection of the write
    after its commit (``database.writing(then=announce)``): a NOTIFY inside it would make all
    commits of the server wait for each other. Never fails: what was committed before it stands.

    `by` is the `sender` of a database, if all workers that use it are told otherwise: they would
    look twice.
    """
    if not has_notices(connection):
        return
    try:
        send_notice(connection, _notice(connection, news, by))
    except Exception as error:
        log.debug("no notice was sent: %s", error)
        connection.invalidate()


def notify(database: Database, news: News = News.ANYTHING) -> None:
    """`announce` where no connection is at hand: over that of the starts."""
    if not has_notices(database.engine):
        return
    try:
        database.at_once(lambda connection: connection.exec_driver_sql(_notice(connection, news)))
    except DatabaseError as error:
        log.debug("no notice was sent: %s", error)


def _notice(connection: Connection, news: News, by: str = "") -> str:
    schema = connection.get_execution_options()["schema_translate_map"][SCHEMA]
    words = [word for word, each in _WORDS.items() if each in news]
    about = " ".join([*words, by]).strip()
    return f"NOTIFY \"{channel_of(schema)}\", '{about}'"


class Listener:
    """Hears notices, on a connection of its own, and tells their news: once for all that came
    together.

    A thread opens the connection, and opens it again whenever it is lost; `pause` says how many
    seconds after the n-th failure in a row. What was sent meanwhile is lost, so `wake` is called
    then as well, and so it is when the connection is lost: who waits for notices has to poll from
    now on. A peer that is gone without a word is noticed after a minute.
    """

    def __init__(self, database: Database, pause: Callable[[int], float]) -> None:
        self._database = database
        self._pause = pause
        self._wake: Callable[[News], None] = lambda _: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: int | None = None
        """The file that the loop watches."""
        self._listening = self._complained = False
        self._ended = threading.Event()
        self._bell: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def listening(self) -> bool:
        """Whether notices get through, so that polling is for what is due by the clock only."""
        return self._listening

    def start(
        self, wake: Callable[[News], None], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Call `wake` with the news: on the loop, which then hears notices itself and need not be
        told by a thread; without one, in the thread."""
        if not has_notices(self._database.engine):
            return
        self._wake, self._loop = wake, loop
        self._bell, heard = socket.socketpair()
        self._thread = threading.Thread(
            target=self._run, args=(self._bell, heard), name="rowtine-listener", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until it has, but not for a server that does not answer. If there is a
        loop, it has to be called there."""
        self._ended.set()
        self._look_away()
        self._ring()
        if self._thread is not None:
            self._thread.join(0.25)

    def _run(self, bell: socket.socket, heard: socket.socket) -> None:
        engine, channel, failures = self._database.engine, channel_of(self._database.schema), 0
        driver: Any = engine.dialect.loaded_dbapi
        with bell, heard:
            while not self._ended.is_set():
                try:
                    with closing(open_listener(engine, channel)) as opened:
                        failures = 0
                        self._listen(opened, heard)
                except (driver.Error, OSError) as error:
                    failures += 1
                    log.info("cannot listen, so workers poll: %s", error)
                finally:
                    was_listening, self._listening = self._listening, False
                if was_listening and not self._ended.is_set():
                    self._tell(News.ANYTHING)
                self._ended.wait(self._pause(failures))

    def _listen(self, connection: Any, heard: socket.socket) -> None:
        # Our own notice shows that they get through, which LISTEN does not: behind a pooler that
        # gives each transaction another connection it succeeds, and then nothing ever comes. Who
        # hears it looks for what was said before, and claims only what there is.
        notify(self._database, News.LATER)
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(heard, selectors.EVENT_READ)
            while not self._ended.is_set():
                ready = selector.select(None if self._listening else _PATIENCE)
                if ready:
                    self._tell(self._hear(connection))
                else:
                    self._complain()
                    notify(self._database, News.LATER)
                if self._listening and self._loop is not None:
                    self._let_loop_listen(self._loop, connection, heard)

    def _hear(self, connection: Any) -> News:
        """The news that have come, but for those that this process has been told otherwise."""
        connection.pgconn.consume_input()
        news = News(0)
        while (notice := connection.pgconn.notifies()) is not None:
            self._listening = True
            news |= _meant(notice.extra, self._database.sender)
        return news

    def _tell(self, news: News) -> None:
        """Tell them, from the thread."""
        if not news:
            return
        if self._loop is None:
            self._wake(news)
            return
        with suppress(RuntimeError):  # it has closed
            self._loop.call_soon_threadsafe(self._wake, news)

    def _let_loop_listen(
        self, loop: asyncio.AbstractEventLoop, connection: Any, heard: socket.socket
    ) -> None:
        """Let the loop use the connection, and wait until it has lost it, or for the end."""
        lost: list[Exception] = []

        def watch() -> None:
            if not self._ended.is_set():
                file: int = connection.fileno()
                self._watched = file
                loop.add_reader(file, read)

        def read() -> None:
            try:
                news = self._hear(connection)
            except Exception as error:
                lost.append(error)
                self._look_away()
                self._ring()
            else:
                if news:
                    self._wake(news)

        with suppress(RuntimeError):  # it has closed
            loop.call_soon_threadsafe(watch)
        heard.recv(1)
        if lost:
            raise lost[0]

    def _look_away(self) -> None:
        if self._watched is not None and self._loop is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None

    def _ring(self) -> None:
        if self._bell is not None:
            with suppress(OSError):  # the thread has ended
                self._bell.send(b"\0")

    def _complain(self) -> None:
        if not self._complained:
            log.warning(
                "no notices get through, so workers poll: does a pooler stand before PostgreSQL?"
            )
        self._complained = True


@lru_cache(maxsize=256)
def _meant(about: bytes, sender: str) -> News:
    """What a notice says, if it does not come from this one."""
    words = about.decode(errors="replace").split()
    if sender in words:
        return News(0)
    news = News(0)
    for word in words:
        news |= _WORDS.get(word, News(0))
    return news or News.ANYTHING
