"""Fixtures that every test may use: databases, and whether executions stay warm.

`database_url` runs a test on SQLite and on PostgreSQL, each time on a fresh, migrated database;
`sqlite_url` and `postgresql_url` are the two alone; the same names with ``empty_`` in front give a
database without tables. `warm` runs a test with executions kept warm and without. A test with both
runs twice: warm on one database and cold on the other, which of the two differs from test to test.
A test that takes very long runs on one (the marker `first_on`). With ``--every-pair`` (``make
test-all``) each runs in every way.

One PostgreSQL server serves the whole run. Without xdist it starts when the first test asks for
it. With xdist the controller starts it before the test processes and stops it after them; they get
its URL handed over, so nobody has to agree on who is first and who is last.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings

from databases import (
    NoPostgres,
    PostgresDatabases,
    PostgresServer,
    SqliteDatabases,
    start_postgres,
)

# No deadline: a slow moment of the machine is no bug. All else is as Hypothesis has it, so its own
# profile for CI (told by the variable CI) stays in force.
settings.register_profile("rowtine", deadline=None)
settings.load_profile("rowtine")

_SERVER = pytest.StashKey[PostgresServer]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-pair",
        action="store_true",
        help="run what runs on both databases, and both warm and cold, in all four ways",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--every-pair"):
        return
    left_out = [item for item in items if isinstance(item, pytest.Function) and _is_other(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _is_other(item: pytest.Function) -> bool:
    """Whether this is one of the two ways in which a test is not run: the same at every run."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if marker := item.get_closest_marker("first_on"):
        return given.get("database_url") != marker.args[0]
    if not {"database_url", "warm"} <= given.keys():
        return False
    straight = (given["database_url"] == "sqlite") == (given["warm"] > 0)
    return straight != bool(crc32(item.originalname.encode()) & 1)


def pytest_configure(config: pytest.Config) -> None:
    # An App without a URL takes this one, and tests must never reach a developer's database. Not a
    # fixture, because worker processes that tests start inherit the environment as well.
    os.environ.pop("ROWTINE_DATABASE_URL", None)
    # A run in the background of a shell ignores Ctrl-C, and so would every process that it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.pluginmanager.hasplugin("dsession"):  # xdist's controller
        session.config.stash[_SERVER] = _start()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    server = node.config.stash[_SERVER]
    node.workerinput["postgres"] = (server.url, server.origin)


def pytest_report_header(config: pytest.Config) -> str | None:
    server = config.stash.get(_SERVER, None)
    return f"PostgreSQL: {server.origin}" if server else None


def pytest_unconfigure(config: pytest.Config) -> None:
    if server := config.stash.get(_SERVER, None):
        server.stop()


def _start() -> PostgresServer:
    try:
        return start_postgres()
    except NoPostgres as error:
        pytest.exit(f"\n{error}", returncode=pytest.ExitCode.INTERNAL_ERROR)


def _migrate(url: str) -> None:
    # Here, so that a broken import fails the tests that need a schema, with a reason, and no other.
    from rowtine.store.schema import migrate  # noqa: PLC0415

    migrate(url)


# --- servers and templates, once per test process -----------------------------------------------


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> PostgresServer:
    """The PostgreSQL server of this run."""
    config = request.config
    if handed_over := getattr(config, "workerinput", {}).get("postgres"):
        url, origin = handed_over
        return PostgresServer(url, origin)
    if _SERVER not in config.stash:
        config.stash[_SERVER] = _start()
    return config.stash[_SERVER]


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: PostgresServer) -> Iterator[PostgresDatabases]:
    databases = PostgresDatabases(postgres_server.url, _migrate)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    return SqliteDatabases(tmp_path_factory.mktemp("template"), _migrate)


# --- one database per test ----------------------------------------------------------------------


@pytest.fixture
def sqlite_url(sqlite_databases: SqliteDatabases, tmp_path: Path) -> str:
    """A fresh, migrated SQLite file."""
    return sqlite_databases.migrated(tmp_path)


@pytest.fixture
def empty_sqlite_url(sqlite_databases: SqliteDatabases, tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    directory = tmp_path / "empty"
    directory.mkdir()
    return sqlite_databases.empty(directory)


@pytest.fixture
def postgresql_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """A fresh, migrated PostgreSQL database."""
    with postgres_databases.migrated() as url:
        yield url


@pytest.fixture
def empty_postgresql_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """A PostgreSQL database without tables."""
    with postgres_databases.empty() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest.fixture(params=[128, 0], ids=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> int:
    """How many executions a worker keeps warm: enough for all of a test's, or none."""
    kept: int = request.param
    return kept
