"""A database: its engine, its schema, and the two kinds of transaction that the store uses."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator

from sqlalchemy import Connection, Engine, exc
from sqlalchemy.engine import URL

from rowtine.clock import new_id
from rowtine.errors import DatabaseError
from rowtine.store.dialect import (
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
        self.autocommitting = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.in_one_statement = in_one_statement(self.engine)
        """Whether one statement can write all that belongs together."""
        self.errand = errands(self.engine)
        """Makes an errand of some work with one of these connections, which whoever runs it need
        not wait for; None where there is no such thing."""
        weakref.finalize(self, self.engine.dispose)

    @property
    def name(self) -> str:
        """The URL without its password, for messages."""
        return _shown(self.url)

    @contextlib.contextmanager
    def writing(self, then: Callable[[Connection], None] | None = None) -> Generator[Connection]:
        """A transaction that may write; committed at the end of the block, or rolled back. `then`
        is given its connection once it is committed."""
        with _translated(self.url), write_lock(self.engine), self.engine.connect() as connection:
            with connection.begin():
                yield connection
            if then is not None:
                then(connection)

    @contextlib.contextmanager
    def at_once(self, then: Callable[[Connection], None] | None = None) -> Generator[Connection]:
        """For writes of which each statement is whole by itself: on PostgreSQL each is committed as
        it is made, which saves the round trips of a transaction. SQLite has none to save: there it
        is `writing`. `then` likewise."""
        if not self.in_one_statement:
            with self.writing(then) as connection:
                yield connection
            return
        with _translated(self.url), self.autocommitting.connect() as connection:
            with connection.begin():
                yield connection
            if then is not None:
                then(connection)

    @contextlib.contextmanager
    def reading(self) -> Generator[Connection]:
        """A transaction that only reads, and takes no turn of a writer's."""
        with _translated(self.url), self.engine.connect() as connection:
            reading = for_reading(connection)
            # It ends in a commit: after a rollback the driver forgets what it has prepared.
            with reading.begin():
                yield reading

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()


class Writer:
    """Writing transactions, one after the other on connections that are kept: the server's prepared
    statements are those of a connection, and looking whether it still lives is a round trip. One
    that has failed is given up, and the next transaction takes another.

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

    @contextlib.contextmanager
    def at_once(self, then: Callable[[Connection], None] | None = None) -> Generator[Connection]:
        """As `Database.at_once`."""
        database = self._database
        if not database.in_one_statement:
            with self.writing(then) as connection:
                yield connection
            return
        with _translated(database.url), self._on(database.autocommitting, then) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, then: Callable[[Connection], None] | None = None) -> Generator[Connection]:
        """As `Database.writing`."""
        engine, url = self._database.engine, self._database.url
        with _translated(url), write_lock(engine), self._on(engine, then) as connection:
            yield connection

    @contextlib.contextmanager
    def _on(
        self, engine: Engine, then: Callable[[Connection], None] | None
    ) -> Generator[Connection]:
        connection = self._kept.pop(engine, None) or self._connect(engine)
        try:
            with connection.begin():
                yield connection
            if then is not None:
                then(connection)
        except BaseException:
            _discard(connection)
            raise
        if connection.invalidated:  # by a notice that could not be sent
            connection.close()
        else:
            self._kept[engine] = connection

    def _connect(self, engine: Engine) -> Connection:
        connection = engine.connect()
        try:
            with connection.begin():
                wait_for_locks(connection, self._patience)
        except BaseException:
            _discard(connection)
            raise
        return connection

    def close(self) -> None:
        """Close the connections. Not while one is used."""
        while self._kept:
            _discard(self._kept.popitem()[1])


def _discard(connection: Connection) -> None:
    """Close a connection, and not give it back to the pool: it has a patience of its own."""
    connection.invalidate()
    connection.close()


@contextlib.contextmanager
def _translated(url: URL) -> Generator[None]:
    """Database errors as ours: one line, no parameters, no password."""
    try:
        yield
    except exc.DBAPIError as error:
        if is_blocked(error):
            raise BlockedError(in_words(error, url)) from error
        if is_transient(error):
            raise TransientError(in_words(error, url)) from error
        # Not `from error`: PostgreSQL quotes the failing row, payloads included, and a traceback
        # ends in a log.
        raise RejectedError(in_words(error, url)) from None
    except (UnicodeEncodeError, OverflowError) as error:  # the driver's, about a value
        raise RejectedError(f"{_shown(url)}: {error.__class__.__name__}") from None
    except OSError as error:  # the lock file's: no descriptors are left, say
        raise TransientError(f"{_shown(url)}: {error}") from error


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
