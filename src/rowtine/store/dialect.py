"""Everything that differs between the two databases, each difference with a name."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Engine,
    Insert,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    create_engine,
    event,
    exc,
    func,
    select,
    text,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url

from rowtine.errors import DatabaseError
from rowtine.store.tables import SCHEMA
from rowtine.store.types import Many

if TYPE_CHECKING:
    from rowtine.store.errands import Errand

fcntl: Any
try:  # POSIX only; elsewhere the busy timeout alone must do
    fcntl = importlib.import_module("fcntl")
except ImportError:  # pragma: no cover
    fcntl = None

__all__ = [
    "at_once",
    "database_url",
    "each_of",
    "errands",
    "first_of_each",
    "for_reading",
    "has_notices",
    "in_one_statement",
    "in_words",
    "insert_unless_there",
    "is_blocked",
    "is_transient",
    "make_engine",
    "migration_lock",
    "only_reads",
    "open_listener",
    "read_whole_tables",
    "send_notice",
    "translate_schema",
    "wait_for_locks",
    "write_lock",
]

POSTGRESQL = "postgresql"
SQLITE = "sqlite"

_MIGRATION_LOCK = 0x726F7774696E65  # "rowtine"; any number that nobody else uses


def database_url(value: str | URL) -> URL:
    """The URL of a database that rowtine can use, with its driver; DatabaseError if it is not."""
    try:
        url = make_url(value)
    except (exc.ArgumentError, ValueError):
        raise DatabaseError(
            "this is not a database URL; write sqlite:///file.db or "
            "postgresql://user:password@host/database"
        ) from None
    backend = url.get_backend_name()
    if backend in ("postgres", POSTGRESQL):
        return _postgresql_url(url)
    if backend != SQLITE or url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise DatabaseError(
            f"rowtine cannot use {url.drivername!r}; write sqlite:///file.db or "
            "postgresql://user:password@host/database"
        )
    if not url.database or url.database == ":memory:":
        raise DatabaseError(
            "a SQLite database in memory ends with its connection; write sqlite:///file.db"
        )
    return url


def _postgresql_url(url: URL) -> URL:
    driver = url.drivername.partition("+")[2] or "psycopg"
    if driver != "psycopg":
        raise DatabaseError(
            f"rowtine speaks to PostgreSQL through psycopg, not {driver}; write postgresql://..."
        )
    try:
        _of_errands()
    except ImportError:
        raise DatabaseError("PostgreSQL needs the extra: pip install 'rowtine[postgres]'") from None
    return url.set(drivername="postgresql+psycopg")


_SESSION = (
    # A worker that is frozen while it holds row locks must lose them before its lease ends.
    "-c idle_in_transaction_session_timeout=10s -c lock_timeout=10s -c statement_timeout=20s"
    # Every statement of ours finds a few rows by an index. PostgreSQL expects a hundred rows of
    # any JSON document, and would read whole tables of up to 30,000 calls to join them with one;
    # a plan that was kept while a table was empty would go on doing so when it has grown.
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    # So the plan is the same whatever the values, and to make it anew each time costs more than to
    # run it.
    " -c plan_cache_mode=force_generic_plan"
    # Nor is any of them worth compiling, or starting two processes for.
    " -c jit=off -c max_parallel_workers_per_gather=0"
    # Moments in any other zone take the driver three times as long to read.
    " -c timezone=UTC"
    " -c default_transaction_isolation=read\\ committed"
)


def make_engine(url: URL, schema: str, *, pool_size: int = 5) -> Engine:
    """An engine of our own: parameters stay out of errors."""
    if url.get_backend_name() == SQLITE:
        _require_directory(url)
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": 30})
        event.listen(engine, "connect", _set_pragmas)
    else:
        driver: Any = url.get_dialect().import_dbapi()
        engine = create_engine(
            url,
            hide_parameters=True,
            # As the server has them. To translate another style, psycopg takes long statements to
            # pieces each time.
            paramstyle="numeric_dollar",
            pool_size=pool_size,
            max_overflow=5,
            # The one that was used last, which is open, and has the most in its caches.
            pool_use_lifo=True,
            # Like SQLite's: `_begin` begins what is to be one transaction.
            isolation_level="AUTOCOMMIT",
            connect_args={
                "cursor_factory": driver.RawCursor,
                # At its first use, and not at the fifth. All that is sent is sent again, and to
                # parse and plan a long statement takes longer than to prepare it.
                "prepare_threshold": 0,
                "connect_timeout": 10,
                "application_name": "rowtine",
                "options": _SESSION,
            },
        )
        event.listen(engine, "do_connect", _connect)
    event.listen(engine, "begin", _begin)
    return engine.execution_options(schema_translate_map=translate_schema(engine, schema))


def errands(engine: Engine) -> Callable[[Callable[[], Any]], Errand] | None:
    """What makes errands of work with the connections of an engine; None if nothing can: SQLite's
    driver waits for the disk, and not for a file that tells when it is ready."""
    return _of_errands().Errand if engine.dialect.name == POSTGRESQL else None


def _connect(_: Any, __: Any, args: Any, options: Any) -> Any:
    return _of_errands().UnblockedConnection.connect(*args, **options)


def _of_errands() -> Any:
    # What it imports is needed only where PostgreSQL is used.
    return importlib.import_module("rowtine.store.errands")


def in_one_statement(bind: Engine | Connection) -> bool:
    """Whether one statement can write to many tables, and so be a commit of its own."""
    return bind.dialect.name == POSTGRESQL


_BEGIN = "rowtine_begin"
"""The option of an engine that says how its transactions begin, if there is one."""

_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def at_once(engine: Engine) -> Engine:
    """The engine, for writes of which each is committed as it is made, where there is such a
    thing (`in_one_statement`)."""
    return engine.execution_options(**{_BEGIN: ""}) if in_one_statement(engine) else engine


def for_reading(engine: Engine) -> Engine:
    """The engine, for transactions that only read: all their statements see one snapshot."""
    begin = _READ if engine.dialect.name == POSTGRESQL else "BEGIN"
    return engine.execution_options(**{_BEGIN: begin})


def only_reads(connection: Connection) -> bool:
    """Whether its transaction is one `for_reading`."""
    return connection.get_execution_options().get(_BEGIN) in (_READ, "BEGIN")


def _begin(connection: Connection) -> None:
    """Neither driver begins a transaction by itself.

    A deferred one of SQLite that reads and then writes fails at once when another has committed in
    between, whatever the busy timeout: whatever may write begins IMMEDIATE.
    """
    writes = "BEGIN" if connection.dialect.name == POSTGRESQL else "BEGIN IMMEDIATE"
    if begin := connection.get_execution_options().get(_BEGIN, writes):
        connection.exec_driver_sql(begin)


def read_whole_tables(connection: Connection) -> None:
    """To the end of this transaction, plan for statements that read most of what there is."""
    if connection.dialect.name == POSTGRESQL:
        for way in ("seqscan", "hashjoin", "mergejoin"):
            connection.execute(text(f"SET LOCAL enable_{way} = on"))


def each_of(dialect: str, parameter: str) -> Any:
    """The names of a parameter as a table of one column, `value`: however many, the statement is
    the same."""
    names = bindparam(parameter, type_=Many())
    if dialect == POSTGRESQL:
        made: Any = func.unnest(cast(names, ARRAY(Text)))
        return made.table_valued("value").render_derived("names")
    return func.json_each(names).table_valued("value")


def first_of_each(dialect: str, names: Any, of_one: Select[*tuple[Any, ...]]) -> Any:
    """What `of_one` finds for each of `names`; its columns are those of one table, with its id."""
    if dialect == POSTGRESQL:
        found: Any = of_one.correlate(names).lateral()
        return select(found).select_from(names.join(found, true())).subquery()
    # SQLite has no LATERAL.
    id = of_one.selected_columns["id"]
    table = id.table.alias()
    found = table.c.id.in_(of_one.with_only_columns(id).correlate(names))
    return (
        select(*(table.c[c.name] for c in of_one.selected_columns))
        .select_from(names.join(table, found))
        .subquery()
    )


def translate_schema(bind: Engine | Connection, schema: str) -> dict[str, str | None]:
    """Where our tables are: a schema on PostgreSQL, the file itself on SQLite."""
    return {SCHEMA: schema if bind.dialect.name == POSTGRESQL else None}


def insert_unless_there(connection: Connection, table: Table) -> Insert:
    """An insert that changes nothing where a row of the same unique key stands. On PostgreSQL it
    waits for one that is about to be committed."""
    if connection.dialect.name == POSTGRESQL:
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


# ----------------------------------------------------------------------------------------- notices

_LISTENER = {
    "connect_timeout": 10,
    # A listener sends nothing, so only probes can tell that its peer is gone: after a minute.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def has_notices(bind: Engine | Connection) -> bool:
    """Whether one process can wake another through the database."""
    return bind.dialect.name == POSTGRESQL


def send_notice(connection: Connection, notice: str) -> None:
    """NOTIFY, on a connection that is in no transaction: past SQLAlchemy, which would begin one.

    At its commit it takes a lock that all databases of the server share, but only for as long as 40
    bytes of log need that nobody waits for: what it commits has changed no row, so the server does
    not flush.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute(notice, prepare=False)


def open_listener(engine: Engine, channel: str) -> Any:
    """A psycopg connection of its own that hears what is sent on a channel.

    Beside the pool, because it is in use for good, and without the time limits of the others. What
    the URL says about keepalives holds.
    """
    driver: Any = engine.dialect.loaded_dbapi
    args, given = engine.dialect.create_connect_args(engine.url)
    options = {**_LISTENER, **given, "application_name": "rowtine listener", "autocommit": True}
    connection = driver.connect(*args, **options)
    try:
        connection.execute(f'LISTEN "{channel}"')
    except BaseException:
        connection.close()
        raise
    return connection


# ------------------------------------------------------------------------------------------ SQLite


def _require_directory(url: URL) -> None:
    directory = Path(url.database or "").absolute().parent
    if not directory.is_dir():
        raise DatabaseError(f"cannot open {url.database}: there is no directory {directory}")


def _set_pragmas(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transaction: _begin does
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout = 30000",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "journal_size_limit = 67108864",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


_process_locks: dict[str, threading.Lock] = {}


@contextlib.contextmanager
def write_lock(engine: Engine) -> Generator[None]:
    """The turn to write. With SQLite's busy timeout alone one of eight processes made 3,443
    commits and another 1; waiting in line for a lock file they made 315 to 380 each."""
    path = engine.url.database
    if engine.dialect.name != SQLITE or path is None:
        yield
        return
    with _process_locks.setdefault(str(Path(path).absolute()), threading.Lock()):
        if fcntl is None:  # pragma: no cover
            yield
            return
        descriptor = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def migration_lock(connection: Connection) -> None:
    """Let one migrator at a time proceed; held to the end of the transaction."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


# ------------------------------------------------------------------------------------------ errors

_REFUSED_STATES = ("22", "23", "54")
"""Classes of SQLSTATE that are about what was to be written: values, constraints, size."""

_REFUSED_SQLITE = (
    "SQLITE_CONSTRAINT",
    "SQLITE_ERROR",
    "SQLITE_MISMATCH",
    "SQLITE_RANGE",
    "SQLITE_TOOBIG",
)


def is_transient(error: exc.DBAPIError) -> bool:
    """Whether the same statement may succeed later. By code, never by text.

    So it may unless the error is about what was to be written. A server that is read-only for a
    while, out of space, or without a right or a table that it had, must not turn an outcome that
    has happened into an error.
    """
    original: Any = error.orig
    if error.connection_invalidated:
        return True
    if (state := getattr(original, "sqlstate", None)) is not None:
        return not str(state).startswith(_REFUSED_STATES)
    if (name := getattr(original, "sqlite_errorname", None)) is not None:
        return not str(name).startswith(_REFUSED_SQLITE)
    # psycopg gives no SQLSTATE when it cannot connect, nor where it refuses a statement itself.
    return isinstance(error, exc.OperationalError) and error.statement is None


def is_blocked(error: exc.DBAPIError) -> bool:
    """Whether a row was locked by others for longer than this session waits."""
    return getattr(error.orig, "sqlstate", None) == "55P03"


def wait_for_locks(connection: Connection, seconds: float) -> None:
    """How long the statements of this connection wait for a row that others have locked. SQLite
    has no locks of rows."""
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"SET lock_timeout = {round(seconds * 1000)}")


def in_words(error: exc.DBAPIError, url: URL) -> str:
    """One line about a database error, without parameters or passwords."""
    lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    message = lines[0].strip()
    if url.password:
        message = message.replace(str(url.password), "***")
    name = url.render_as_string(hide_password=True)
    if error.statement is None and isinstance(error, exc.OperationalError):
        return f"cannot reach {name}: {message}; does it run, and is the URL right?"
    return f"{name}: {message}"
