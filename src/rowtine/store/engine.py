"""A database: its engine, its schema, and the two kinds of transaction that the store uses."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator
from typing import TypeVar

from sqlalchemy import Connection, Engine, exc
from sqlalchemy.engine import URL

from rowtine.clock import new_id
from rowtine.errors import DatabaseError
from rowtine.store.dialect import (
    at_once,
    database_url,
    errands,
    for_reading,
    in_one_statement,
    in_words,
    is_blocked,
    is_transient,
    make_engine,
    wait_for_locks,
    write_lock,
)
from rowtine.store.tables import SCHEMA

__all__ = ["BlockedError", "Database", "RejectedError", "TransientError", "Writer"]

T = TypeVar("T")


class TransientError(DatabaseError):
    """The database did not do it now; it may later. Whether a commit happened is unknown."""


class BlockedError(TransientError):
    """Others have locked a row of it for longer than it was to wait. Nothing was written."""


class RejectedError(DatabaseError):
    """The database refused a statement: what was written breaks a constraint or a type."""


class Database:
    """Opens nothing until it is used. Safe to share between threads."""

    def __init__(self, url: str | URL, *, schema: str = SCHEMA, pool_size: int = 5) -> None:
        self.url = database_url(url)
        self.schema = schema
        self.sender = new_id()
        """Whose notices are not heard here: whoever sends them tells the workers here himself."""
        if not (schema.isidentifier() and schema.isascii() and len(schema) <= 63):
            raise DatabaseError(f"the schema name {schema[:70]!r} is not a plain identifier")
        self.checked = False
        """Whether the schema was found to be the right one."""
        self.engine = make_engine(self.url, schema, pool_size=pool_size)
        self.autocommitting = at_once(self.engine)
        self._for_reading = for_reading(self.engine)
        self._kept: list[Connection] = []
        """One that `at_once` has used, for whoever does next. To take it from the pool, where it is
        given back and looked after, is a tenth of the time from a start to its body."""
        self.in_one_statement = in_one_statement(self.engine)
        """Whether one statement can write all that belongs together."""
        self.errand = errands(self.engine)
        """Makes an errand of some work with one of these connections, which whoever runs it need
        not wait for; None where there is no such thing."""
        weakref.finalize(self, _close, self.engine, self._kept)

    @property
    def name(self) -> str:
        """The URL without its password, for messages."""
        return _shown(self.url)

    @contextlib.contextmanager
    def writing(self, then: Callable[[Connection], None] | None = None) -> Generator[Connection]:
        """A transaction that may write; committed at the end of the block, or rolled back. `then`
        is given its connection once it is committed."""
        with _Translated(self.url), write_lock(self.engine), _begun(self.engine) as connection:
            yield connection
            connection.commit()
            if then is not None:
                then(connection)

    def at_once(
        self, work: Callable[[Connection], T], then: Callable[[Connection], None] | None = None
    ) -> T:
        """For writes of which each statement is whole by itself: on PostgreSQL each is committed as
        it is made, which saves the round trips of a transaction. SQLite has none to save: there it
        is `writing`. `then` likewise.

        `work` must bear repetition. Whether a connection still lives shows when it is used; where
        it does not, all is done again with another."""
        if not self.in_one_statement:
            with self.writing(then) as connection:
                return work(connection)
        with _Translated(self.url):
            return _again(lambda: self._at_once(work, then))

    def _at_once(
        self, work: Callable[[Connection], T], then: Callable[[Connection], None] | None
    ) -> T:
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self.autocommitting.connect()
        try:
            value = _done(connection, work, then)
        except BaseException:
            connection.close()
            raise
        if self._kept or connection.invalidated:
            connection.close()
        else:
            self._kept.append(connection)
        return value

    @contextlib.contextmanager
    def reading(self) -> Generator[Connection]:
        """A transaction that only reads, and takes no turn of a writer's."""
        with _Translated(self.url), _begun(self._for_reading) as connection:
            yield connection
            # Not rolled back: the driver would forget what it has prepared.
            connection.commit()

    def close(self) -> None:
        """Close every connection that is not in use."""
        _close(self.engine, self._kept)


class Writer:
    """Writing transactions, one after the other on connections that are kept: the server's prepared
    statements are those of a connection. One that has failed is given up, and the next transaction
    takes another.

    BlockedError if a row is locked by others for more than `patience` seconds: a person who looks
    at it in an open transaction must not stop whoever else writes here."""

    def __init__(self, database: Database, patience: float = 0.5) -> None:
        self._database = database
        self._patience = patience
        self._kept: dict[Engine, Connection] = {}

    @property
    def is_open(self) -> bool:
        """Whether `at_once` has a connection, and does not have to wait for one."""
        return self._database.autocommitting in self._kept

    def at_once(
        self, work: Callable[[Connection], T], then: Callable[[Connection], None] | None = None
    ) -> T:
        """As `Database.at_once`, but for the repetition."""
        database = self._database
        if not database.in_one_statement:
            return self.writing(work, then)
        with _Translated(database.url):
            return self._on(database.autocommitting, work, then)

    def writing(
        self, work: Callable[[Connection], T], then: Callable[[Connection], None] | None = None
    ) -> T:
        """`work` in a transaction, as `Database.writing` has it."""
        engine, url = self._database.engine, self._database.url
        with _Translated(url), write_lock(engine):
            return self._on(engine, work, then)

    def _on(
        self,
        engine: Engine,
        work: Callable[[Connection], T],
        then: Callable[[Connection], None] | None,
    ) -> T:
        connection = self._kept.pop(engine, None) or _again(lambda: self._connect(engine))
        try:
            value = _done(connection, work, then)
        except BaseException:
            _discard(connection)
            raise
        if connection.invalidated:  # by a notice that could not be sent
            connection.close()
        else:
            self._kept[engine] = connection
        return value

    def _connect(self, engine: Engine) -> Connection:
        connection = engine.connect()
        try:
            connection.begin()
            wait_for_locks(connection, self._patience)
            connection.commit()
        except BaseException:
            _discard(connection)
            raise
        return connection

    def close(self) -> None:
        """Close the connections. Not while one is used."""
        while self._kept:
            _discard(self._kept.popitem()[1])


def _done(
    connection: Connection,
    work: Callable[[Connection], T],
    then: Callable[[Connection], None] | None,
) -> T:
    """Some work in a transaction of its own, and what follows once that is committed."""
    connection.begin()
    value = work(connection)
    connection.commit()
    if then is not None:
        then(connection)
    return value


def _begun(engine: Engine) -> Connection:
    """A connection on which a transaction has begun.

    That is the first that is asked of the server, so it shows whether a connection of the pool
    still lives, for which nothing else has to be asked before. If it does not, nothing is lost yet,
    and another takes its place.
    """

    def begun() -> Connection:
        connection = engine.connect()
        try:
            connection.begin()
        except BaseException:
            connection.close()
            raise
        return connection

    return _again(begun)


def _again(attempt: Callable[[], T]) -> T:
    """What an attempt comes to; the second one, if the first was over a connection that is lost.
    One failure, and the pool gives up all that it has kept."""
    try:
        return attempt()
    except exc.DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return attempt()


def _close(engine: Engine, kept: list[Connection]) -> None:
    while kept:
        _discard(kept.pop())
    engine.dispose()


def _discard(connection: Connection) -> None:
    """Close a connection, and not give it back to the pool."""
    connection.invalidate()
    connection.close()


class _Translated:
    """Database errors as ours: one line, no parameters, no password."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        url = self._url
        match error:
            case exc.DBAPIError() if is_blocked(error):
                raise BlockedError(in_words(error, url)) from error
            case exc.DBAPIError() if is_transient(error):
                raise TransientError(in_words(error, url)) from error
            case exc.DBAPIError():
                # Not `from error`: PostgreSQL quotes the failing row, payloads included, and a
                # traceback ends in a log.
                raise RejectedError(in_words(error, url)) from None
            case UnicodeEncodeError() | OverflowError():  # the driver's, about a value
                raise RejectedError(f"{_shown(url)}: {error.__class__.__name__}") from None
            case OSError():  # the lock file's: no descriptors are left, say
                raise TransientError(f"{_shown(url)}: {error}") from error
            case _:
                pass


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
