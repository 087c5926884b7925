"""Notices: how one process tells the workers of others that something may be due.

A notice says no more than where to look, and nobody relies on it: it is sent after the commit that
it is about, it may be lost, and what it would have told is found by the next poll. SQLite has none;
there a listener never listens.
"""

from __future__ import annotations

import hashlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from enum import Flag, auto
from typing import Any

from sqlalchemy import Connection, exc

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
    schema = connection.get_execution_options()["schema_translate_map"][SCHEMA]
    try:
        words = [word for word, each in _WORDS.items() if each in news]
        send_notice(connection, channel_of(schema), " ".join([*words, by]).strip())
    except Exception as error:
        log.debug("no notice was sent: %s", error)
        connection.invalidate()


def notify(database: Database, news: News = News.ANYTHING) -> None:
    """`announce` where no connection is at hand. It takes one of the pool, which costs two or three
    times as much."""
    if not has_notices(database.engine):
        return
    try:
        with database.engine.connect() as connection:
            announce(connection, news)
    except exc.SQLAlchemyError as error:
        log.debug("no notice was sent: %s", type(error).__name__)


class Listener:
    """Calls `wake` when a notice has come, with the news; once for all that came together.

    A thread with a connection of its own, which it opens again whenever it is lost; `pause` says
    how many seconds after the n-th failure in a row. What was sent meanwhile is lost, so `wake` is
    called then as well, and so it is when the connection is lost: who waits for notices has to poll
    from now on. A peer that is gone without a word is noticed after a minute.
    """

    def __init__(
        self, database: Database, wake: Callable[[News], None], pause: Callable[[int], float]
    ) -> None:
        self._database = database
        self._wake = wake
        self._pause = pause
        self._listening = self._complained = False
        self._ended = threading.Event()
        self._bell: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def listening(self) -> bool:
        """Whether notices get through, so that polling is for what is due by the clock only."""
        return self._listening

    def start(self) -> None:
        if not has_notices(self._database.engine):
            return
        self._bell, heard = socket.socketpair()
        self._thread = threading.Thread(
            target=self._run, args=(self._bell, heard), name="rowtine-listener", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until it has, but not for a server that does not answer."""
        self._ended.set()
        if self._bell is not None and self._thread is not None:
            with suppress(OSError):  # it has ended
                self._bell.send(b"\0")
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
                    self._wake(News.ANYTHING)
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
                told: list[list[str]] = []
                if ready:
                    told = [notice.payload.split() for notice in connection.notifies(timeout=0)]
                if told:
                    self._listening = True
                    self._pass_on(told)
                elif not ready:
                    self._complain()
                    notify(self._database, News.LATER)

    def _pass_on(self, told: list[list[str]]) -> None:
        news = News(0)
        for words in told:
            if self._database.sender not in words:
                news |= _meant(words)
        if news:
            self._wake(news)

    def _complain(self) -> None:
        if not self._complained:
            log.warning(
                "no notices get through, so workers poll: does a pooler stand before PostgreSQL?"
            )
        self._complained = True


def _meant(words: list[str]) -> News:
    """What a notice says."""
    news = News(0)
    for word in words:
        news |= _WORDS.get(word, News(0))
    return news or News.ANYTHING
